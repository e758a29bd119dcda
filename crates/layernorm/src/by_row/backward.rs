//! The backward loop over rows.
//!
//! With u = weight dy, and x_hat from the saved statistics:
//! dx = rstd (u - mean(u) - x_hat mean(u x_hat)), where RMS norm has no mean(u);
//! dweight = sum over rows of dy x_hat, dbias = sum over rows of dy.

mod differentiate;
mod runs;
mod together;

pub(crate) use differentiate::Pointers;
pub(crate) use runs::RunSums;

use differentiate::Differentiate;
use runs::{DifferentiateRuns, OfWhole, SumRuns};

use super::add::Multiply;
use super::groups::{GroupSums, Sums};
use super::last_pass::{ByItself, LastPass, by_itself, long};
use super::seam::Seam;
use super::totals::Tree;
use super::*;
use crate::affine::Above;
use crate::rows::{Shape, Shared};
use crate::vector::{Body, dispatch};
use crate::{Companion, Error, Level, ParamGradients, Params, Rows, RowsMut, Run, wide};
use std::ops::Range;

/// A checked backward call.
pub(crate) struct Backward<'a, E: Element> {
    pub(crate) shape: Shape,
    pub(crate) x: Mixed<'a, E>,
    pub(crate) dy: Source<'a, E>,
    pub(crate) dx: Option<MixedMut<'a, E>>,
    /// Is `dx` the memory of `dy`?
    pub(crate) in_place: bool,
    pub(crate) weight: Affine<'a, E>,
    pub(crate) form: Form<E::Acc>,
    /// Statistics of the forward pass; without them they are taken from `x` once more.
    pub(crate) saved: Option<Columns<&'a [E::Acc]>>,
    /// A gradient that reaches x beside this norm, to be added to dx.
    pub(crate) upstream: Option<Mixed<'a, E>>,
    /// Where dx goes besides, multiplied: the gradient of the branch that was added to x.
    pub(crate) branch: Option<(Target<'a, E>, Option<Shared<'a, E>>)>,
    /// The sums of dy x_hat and of dy over each run of features that share a parameter.
    pub(crate) sums_of_runs: Option<RunSums<'a, E::Acc>>,
    /// The rows to take, if not all.
    pub(crate) only: Option<&'a [usize]>,
    /// Rows before these, of a call that is done part by part.
    pub(crate) first: usize,
    /// Outputs of so many bytes are written past the caches.
    pub(crate) stream_from: usize,
}

impl<'a, E: Element> Backward<'a, E> {
    #[inline(always)] // so that it is made in its place, as a forward call
    pub(crate) fn new<P: Companion<E>>(
        x: Rows<'a, E>,
        dy: Rows<'a, E>,
        params: Params<'a, P>,
        saved: Option<Columns<&'a [E::Acc]>>,
        dx: Option<RowsMut<'a, E>>,
    ) -> Result<Self, Error> {
        let shape = x.shape();
        dy.shape().expect("dy", shape)?;
        if let Some(dx) = &dx {
            dx.shape().expect("dx", shape)?;
        }
        let dx = dx.map(|dx| MixedMut::Own(dx.target()));
        Ok(Self { dx, saved, ..Self::over(shape, Mixed::Own(x.source()), dy.source(), params)? })
    }

    pub(crate) fn in_place<P: Companion<E>>(
        x: Rows<'a, E>,
        dy: RowsMut<'a, E>,
        params: Params<'a, P>,
        saved: Option<Columns<&'a [E::Acc]>>,
    ) -> Result<Self, Error> {
        let shape = x.shape();
        dy.shape().expect("dy", shape)?;
        let (dy, dx) = dy.in_place();
        let dx = Some(MixedMut::Own(dx));
        Ok(Self { dx, in_place: true, saved, ..Self::over(shape, Mixed::Own(x.source()), dy, params)? })
    }

    /// From memory of this shape, into nothing yet.
    #[inline(always)]
    pub(crate) fn over<P: Companion<E>>(
        shape: Shape,
        x: Mixed<'a, E>,
        dy: Source<'a, E>,
        params: Params<'a, P>,
    ) -> Result<Self, Error> {
        let form = Form::new(params.eps, shape.features)?;
        let [weight, _] = params.affine(shape.features)?;
        Ok(Self {
            shape,
            x,
            dy,
            dx: None,
            in_place: false,
            weight,
            form,
            saved: None,
            upstream: None,
            branch: None,
            sums_of_runs: None,
            only: None,
            first: 0,
            stream_from: usize::MAX,
        })
    }

    /// Run the call. (As in the forward pass, by way of a function that is not generic.)
    pub(crate) fn run(
        mut self,
        statistics: Statistics,
        params: Option<ParamGradients<'_, E::Acc>>,
        run: Run,
    ) -> Result<(), Error> {
        self.stream_from = run.stream_from();
        E::backward(&self, statistics, Sums::OfAll(params), run)
    }

    /// As [`Backward::run`], with the sums of each group of rows by itself.
    pub(crate) fn run_in_groups(
        mut self,
        statistics: Statistics,
        sums: Option<GroupSums<'_, E::Acc>>,
        run: Run,
    ) -> Result<(), Error> {
        self.stream_from = run.stream_from();
        E::backward(&self, statistics, sums.map_or(Sums::OfAll(None), Sums::OfGroups), run)
    }

    pub(crate) fn run_rows(
        &self,
        statistics: Statistics,
        sums: Sums<'_, E::Acc>,
        run: Run,
    ) -> Result<(), Error> {
        let shape = Shape { rows: self.only.map_or(self.shape.rows, <[usize]>::len), ..self.shape };
        sums.run(shape, self.phase(), run, &|level, rows, mut totals| {
            self.part(statistics, level, rows, totals.as_mut())
        })
    }

    /// How many numbers behind the start of a line the first row of dx begins, if its last pass begins with a line.
    fn phase(&self) -> usize {
        let aligns = self.streams() || self.shape.features >= long::<E>();
        match self.dx {
            Some(MixedMut::Own(dx)) if aligns && self.shape.rows > 0 => {
                // SAFETY: there is a row.
                let first = unsafe { dx.row(0) };
                first.addr() / size_of::<E>()
            }
            _ => 0,
        }
    }

    /// Some rows, on this thread; their sums over rows go on in `totals`.
    pub(crate) fn part(
        &self,
        statistics: Statistics,
        level: Level,
        rows: Range<usize>,
        totals: Option<&mut Tree<'_, E::Acc>>,
    ) {
        if self.shape.features == 0 {
            return;
        }
        dispatch(level, Part { call: self, rows, statistics, totals });
    }

    /// What a row that was measured elsewhere, whose numbers `x` has, adds to the sums over runs or over rows.
    ///
    /// # Safety
    /// The row exists, and is this thread's.
    #[inline(always)]
    pub(crate) unsafe fn sum<S: Memory<E>>(
        &self,
        s: S,
        row: usize,
        (x, moments): (Place<E>, Moments<E::Acc>),
        totals: Option<&mut Tree<'_, E::Acc>>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            let dy = Place::own(self.dy.row(row));
            if let Some(to) = self.sums_of_runs {
                s.outlined(SumRuns { x, dy, moments, to, row });
            }
            if let Some(totals) = totals {
                let of = Pointers { x, dy, dx: None, upstream: None, totals: Some(totals.current()) };
                let (same, ready) = (self.weight.same(), Ready { moments, ..Ready::none() });
                let add = Differentiate::new(s, self.weight.of_all_rows_above(&same), of, ready);
                s.outlined(ByItself::new(add, 0, self.shape.features, None));
                totals.row_done(s, self.first + row);
            }
        }
    }

    /// u = weight dy of a row.
    ///
    /// # Safety
    /// The row exists; `u` has room for one.
    #[inline(always)]
    pub(crate) unsafe fn weigh<S: Memory<E>>(&self, s: S, row: usize, u: PlaceMut<E>) {
        // SAFETY: the caller's.
        unsafe {
            let (dy, n) = (Place::own(self.dy.row(row)), self.shape.features);
            if self.weight.has_runs() {
                let mut scratch = Scratch::new();
                let factor = Some(self.weight.of_runs(row, &mut scratch));
                s.outlined(Multiply { of: dy, factor, to: u, n });
            } else {
                let mut same = self.weight.same();
                let factor = Some(self.weight.of_row(row, &mut same));
                s.outlined(Multiply { of: dy, factor, to: u, n });
            }
        }
    }

    fn streams(&self) -> bool {
        // A branch reads dx again.
        !self.in_place && self.branch.is_none() && self.shape.bytes::<E>() >= self.stream_from
    }

    /// The row at a position among those to take.
    fn row(&self, position: usize) -> usize {
        self.only.map_or(position, |only| only[position])
    }
}

/// Some rows of a call.
struct Part<'a, 'b, 'c, 'd, E: Element> {
    call: &'b Backward<'a, E>,
    rows: Range<usize>,
    /// A value, not a type: without a mean it is +0, and so is the mean of u, which changes no bit and takes two
    /// instructions of a dozen.
    statistics: Statistics,
    totals: Option<&'d mut Tree<'c, E::Acc>>,
}

/// What the last pass over a row needs: its statistics, and mean(u x_hat) and mean(u).
#[derive(Clone, Copy)]
struct Ready<T> {
    moments: Moments<T>,
    means: [T; 2],
}

impl<E: Element> Part<'_, '_, '_, '_, E> {
    /// The statistics of a row, if they are in range.
    ///
    /// # Safety
    /// The row exists.
    #[inline(always)]
    unsafe fn moments<S: Memory<E>>(&self, s: S, row: usize) -> Option<Moments<E::Acc>> {
        let call = self.call;
        // SAFETY: the caller's.
        unsafe {
            let moments = match call.saved {
                Some(saved) => saved.get(row),
                None => {
                    let x = call.x.row(row);
                    let fast = self.statistics.in_cache(s, x, &call.form);
                    fast.unwrap_or_else(|| wide::statistics(self.statistics, x, &call.form))
                }
            };
            // Looked at as they are saved: so saved or not, a row is done the same way.
            Some(moments).filter(|moments| in_range(moments.rstd))
        }
    }

    /// The first pass over a row, `beside` the last one over another; `None` if it needs more range than its type has
    /// (see [`wide`]).
    ///
    /// # Safety
    /// The row exists, and what `beside` wants.
    #[inline(always)]
    unsafe fn project<S: Memory<E>>(
        &self,
        s: S,
        row: usize,
        weight: Above<E>,
        beside: Option<&mut impl Beside<E::Acc, S>>,
    ) -> Option<Ready<E::Acc>> {
        let (call, n) = (self.call, self.call.shape.features);
        // SAFETY: the caller's.
        unsafe {
            let moments = self.moments(s, row)?;
            // Whether dx is wanted or not: that a mean is not finite shows in dweight.
            let (x, dy) = (call.x.row(row), Place::own(call.dy.row(row)));
            let standardise = Standardise::new(s, moments);
            let terms = Projections { x, dy, weight, standardise };
            let count = E::Acc::from_count(call.form.count);
            let sums = if call.weight.has_runs() {
                let mut scratch = Scratch::new();
                let weight = call.weight.of_runs(row, &mut scratch);
                s.outlined(OfWhole { terms: Projections { x, dy, weight, standardise }, n })
            } else {
                let ahead = Prefetch::<E, 2>::new([x.bytes_on(AHEAD), dy.bytes_on(AHEAD)]);
                match beside {
                    Some(beside) => sums(s, n, &terms, &mut (beside, ahead)),
                    None => sums(s, n, &terms, &mut (&mut Nothing, ahead)),
                }
            };
            let along_x_hat = sums[0].div(count).mul(moments.along);
            let along_ones = match self.statistics {
                Statistics::Centred => sums[1].div(count),
                Statistics::Uncentred => E::Acc::from_f64(0.0),
            };
            let means = [along_x_hat, along_ones];
            if !means.iter().all(|mean| mean.is_finite()) {
                return None;
            }
            if let Some(to) = call.sums_of_runs {
                s.outlined(SumRuns { x, dy, moments, to, row });
            }
            Some(Ready { moments, means })
        }
    }

    /// The last pass over the row at a position has ended.
    ///
    /// # Safety
    /// dx has the row, and it is this thread's.
    #[inline(always)]
    unsafe fn row_done<S: Memory<E>>(
        &self,
        s: S,
        position: usize,
        totals: &mut Option<&mut Tree<'_, E::Acc>>,
    ) {
        // SAFETY: the caller's.
        unsafe {
            if let Some(totals) = totals {
                totals.row_done(s, self.call.first + position);
            }
            if let (Some((to, factor)), Some(dx)) = (self.call.branch, self.call.dx) {
                let (row, n) = (self.call.row(position), self.call.shape.features);
                let (of, factor) = (dx.row(row).as_place(), factor.map(|factor| factor.row(row)));
                s.outlined(Multiply { of, factor, to: PlaceMut::own(to.row(row)), n });
            }
        }
    }
}

impl<T: Real> Ready<T> {
    /// For no row.
    fn none() -> Self {
        Self { moments: Moments::none(), means: [T::from_f64(0.0); 2] }
    }
}

impl<E: Element> Body<E> for Part<'_, '_, '_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        ways::take(s, self);
    }
}

impl<E: Element, S: Memory<E>> ways::Part<E, S> for Part<'_, '_, '_, '_, E> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn is_short(&self) -> bool {
        let call = self.call;
        let plain = !call.weight.has_runs() && call.sums_of_runs.is_none() && call.branch.is_none();
        let all = call.only.is_none() && call.form.used == call.shape.features;
        short::suits(call.shape.features, call.streams(), &call.form) && plain && all
    }

    fn streams(&self) -> bool {
        self.call.streams()
    }

    #[inline(always)]
    fn together(self, s: S) {
        self.take_together(s);
    }

    #[inline(always)]
    fn one_by_one<const STREAMS: bool>(mut self, s: S) {
        let call = self.call;
        let Some(last) = self.rows.clone().last() else { return };
        let start = self.rows.start;
        let mut totals = self.totals.take();
        // In turn, because the last pass over a row goes on beside the first over the next one.
        let mut same = [call.weight.same(), call.weight.same()];
        let (n, used) = (call.shape.features, call.form.used);
        // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
        unsafe {
            let mut seam = Seam::new();
            let nothing = Pointers::at(call, call.row(start), None);
            let weight = call.weight.of_all_rows_above(&same[0]);
            let nothing = Differentiate::new(s, weight, nothing, Ready::none());
            let mut write = LastPass::none(nothing);
            for position in self.rows.clone() {
                let row = call.row(position);
                let weight = call.weight.of_row_above(row, &mut same[position % 2]);
                let ready = self.project(s, row, weight, STREAMS.then_some(&mut write));
                if STREAMS {
                    write.finish(s);
                }
                if position > start {
                    self.row_done(s, position - 1, &mut totals);
                }
                let pointers = Pointers::at(call, row, totals.as_ref().map(|totals| totals.current()));
                if ready.is_none() {
                    wide::backward(self.statistics, call, row, &pointers);
                }
                let mut at = if ready.is_some() { 0 } else { n };
                let ready = ready.unwrap_or_else(Ready::none);
                let mut work = Differentiate::new(s, weight, pointers, ready);
                if call.weight.has_runs() && at < n {
                    let seam = STREAMS.then_some(&mut seam);
                    s.outlined(DifferentiateRuns { weight: &call.weight, row, pointers, ready, seam });
                    at = n;
                }
                if used < n {
                    s.outlined(ByItself::new(work, at.min(used), used, None));
                    // The features beyond those that were measured have no part in the projection.
                    work.along_x_hat = s.splat(E::Acc::from_f64(0.0));
                    work.minus_along_ones = s.splat(E::Acc::from_f64(-0.0));
                    at = at.max(used);
                }
                if STREAMS {
                    write = LastPass::start(s, work, at, n, &mut seam);
                } else {
                    // In cache there is nothing to wait for.
                    by_itself(s, work, at, n, None);
                }
            }
            if STREAMS {
                write.leave(s);
                seam.leave(s);
            }
            self.row_done(s, last, &mut totals);
        }
    }
}

/// The sums of u x_hat and of u = weight dy.
struct Projections<E: Element, P, V> {
    x: Place<E>,
    dy: Place<E>,
    weight: P,
    standardise: Standardise<V>,
}

impl<E: Element, P: Parameters<E>, S: Memory<E>> Terms<E::Acc, S> for Projections<E, P, S::V> {
    const SUMS: usize = 2;

    #[inline(always)]
    unsafe fn add(&self, s: S, at: usize, count: usize, [along_x_hat, along_ones]: [S::V; 2]) -> [S::V; 2] {
        // SAFETY: the caller's: the row has these positions. In the other lanes dy is +0.
        let (x, dy, weight) =
            unsafe { (self.x.load(s, at, count), self.dy.load(s, at, count), self.weight.get(s, at, count)) };
        let mut x_hat = self.standardise.apply(s, x);
        if count < S::WIDTH {
            x_hat = s.keep_first(x_hat, count);
        }
        let u = s.mul(weight, dy);
        [s.fma(u, x_hat, along_x_hat), s.add(along_ones, u)]
    }
}
