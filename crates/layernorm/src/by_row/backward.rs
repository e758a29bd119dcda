//! The backward loop over rows.
//!
//! With u = weight dy, and x_hat from the saved statistics:
//! dx = rstd (u - mean(u) - x_hat mean(u x_hat)), where RMS norm has no mean(u);
//! dweight = sum over rows of dy x_hat, dbias = sum over rows of dy.

use super::last_pass::{LastPass, Write};
use super::stage::Stage;
use super::totals::{Split, Tree};
use super::*;
use crate::rows::Shape;
use crate::vector::{Body, dispatch};
use crate::{Error, Level, ParamGradients, Params, Rows, RowsMut, Run, threads, wide};
use std::ops::Range;

/// A checked backward call.
#[derive(Clone, Copy)]
pub(crate) struct Backward<'a, T> {
    shape: Shape,
    x: Source<'a, T>,
    dy: Source<'a, T>,
    dx: Option<Target<'a, T>>,
    /// Is `dx` the memory of `dy`?
    in_place: bool,
    weight: Option<&'a [T]>,
    eps: T,
    /// Statistics of the forward pass; without them they are taken from `x` once more.
    saved: Option<Columns<Source<'a, T>>>,
}

impl<'a, T: Real> Backward<'a, T> {
    pub(crate) fn new(
        x: Rows<'a, T>,
        dy: Rows<'a, T>,
        params: Params<'a, T>,
        saved: Option<Columns<Source<'a, T>>>,
        dx: Option<RowsMut<'a, T>>,
    ) -> Result<Self, Error> {
        let (shape, weight) = (x.shape(), params.weight);
        dy.shape().expect("dy", shape)?;
        if let Some(dx) = &dx {
            dx.shape().expect("dx", shape)?;
        }
        let eps = params.check(shape.features)?;
        let dx = dx.map(RowsMut::target);
        Ok(Self { shape, x: x.source(), dy: dy.source(), dx, in_place: false, weight, eps, saved })
    }

    pub(crate) fn in_place(
        x: Rows<'a, T>,
        dy: RowsMut<'a, T>,
        params: Params<'a, T>,
        saved: Option<Columns<Source<'a, T>>>,
    ) -> Result<Self, Error> {
        let (shape, weight) = (x.shape(), params.weight);
        dy.shape().expect("dy", shape)?;
        let eps = params.check(shape.features)?;
        let (dy, dx) = dy.in_place();
        Ok(Self { shape, x: x.source(), dy, dx: Some(dx), in_place: true, weight, eps, saved })
    }

    /// Run the call. (As in the forward pass, by way of a function that is not generic.)
    pub(crate) fn run(
        self,
        statistics: Statistics,
        params: Option<ParamGradients<'_, T>>,
        run: Run,
    ) -> Result<(), Error> {
        T::backward(self, statistics, params, run)
    }

    pub(crate) fn run_kind<K: Kind>(
        self,
        params: Option<ParamGradients<'_, T>>,
        run: Run,
    ) -> Result<(), Error> {
        let level = run.level()?;
        let parts = threads::parts(run.threads(), self.shape.rows, self.shape.features);
        let Some(params) = params else {
            threads::over_rows(parts, self.shape.rows, |rows| self.rows::<K>(level, rows, None));
            return Ok(());
        };
        params.check(self.shape.features)?;
        let ParamGradients { dweight, dbias, accumulate, first_row, workspace } = params;
        let split = Split::new(self.shape, first_row, parts)?;
        let totals = split.totals(workspace)?;
        threads::for_each(split.parts(), |part| {
            self.rows::<K>(level, split.rows(part), Some(totals.of_part(part)));
        });
        totals.finish(level, [dweight, dbias], accumulate);
        Ok(())
    }

    /// Some rows, on this thread.
    fn rows<K: Kind>(&self, level: Level, rows: Range<usize>, totals: Option<Tree<'_, T>>) {
        if self.shape.features == 0 {
            return;
        }
        let weight = Affine::new(self.weight, 1.0, self.shape.features);
        let weight = weight.numbers();
        dispatch(level, Part { call: self, rows, kind: PhantomData::<K>, weight, totals });
    }

    fn streams(&self) -> bool {
        !self.in_place && self.shape.bytes::<T>() >= STREAM_FROM
    }
}

/// Some rows of a call.
struct Part<'a, 'b, T, K> {
    call: &'a Backward<'a, T>,
    rows: Range<usize>,
    kind: PhantomData<K>,
    weight: Numbers<'a, T>,
    totals: Option<Tree<'b, T>>,
}

/// What the last pass over a row needs: its statistics, and mean(u x_hat) and mean(u).
#[derive(Clone, Copy)]
struct Ready<T> {
    moments: Moments<T>,
    means: [T; 2],
}

impl<'a, T: Real, K: Kind> Part<'a, '_, T, K> {
    /// The statistics of a row, if they are in range.
    ///
    /// # Safety
    /// The row exists.
    #[inline(always)]
    unsafe fn moments<S: Vector<T>>(&self, s: S, row: usize) -> Option<Moments<T>> {
        let (call, n) = (self.call, self.call.shape.features);
        // SAFETY: the caller's.
        unsafe {
            let moments = match call.saved {
                Some(saved) => saved.get(row),
                None => {
                    let x = call.x.row(row);
                    let fast = statistics::<T, S, K, _>(s, x, n, call.eps, &mut Nothing, x);
                    fast.unwrap_or_else(|| wide::statistics::<T, K>(x, n, call.eps))
                }
            };
            // Looked at as they are saved: so saved or not, a row is done the same way.
            Some(moments).filter(|moments| in_range(moments.rstd))
        }
    }

    /// A row that needs more range than `T` has, all of it.
    ///
    /// # Safety
    /// The pointers are a row's.
    unsafe fn wide(&self, of: Pointers<T>) {
        let n = self.call.shape.features;
        let totals = of.totals.map(|(totals, fresh)| {
            if fresh {
                // SAFETY: a node has room for `n` numbers in each half; all bits 0 is +0.
                totals.iter().for_each(|sum| unsafe { sum.write_bytes(0, n) });
            }
            totals
        });
        let row = wide::Backward { n, x: of.x, dy: of.dy, dx: of.dx, totals, weight: self.call.weight };
        // SAFETY: the caller's.
        unsafe { wide::backward::<T, K>(&row, self.call.eps) };
    }

    /// The first pass over a row; `None` if it needs more range than `T` has (see [`wide`]).
    ///
    /// # Safety
    /// The row exists, and what `beside` wants.
    #[inline(always)]
    unsafe fn project<S: Vector<T>>(
        &self,
        s: S,
        row: usize,
        beside: &mut impl Beside<T, S>,
    ) -> Option<Ready<T>> {
        let (call, n) = (self.call, self.call.shape.features);
        // SAFETY: the caller's.
        unsafe {
            let moments = self.moments(s, row)?;
            // Whether dx is wanted or not: that a mean is not finite shows in dweight.
            let (x, dy) = (call.x.row(row), call.dy.row(row));
            let standardise = Standardise::<_, K>::new(s, moments);
            let terms = Projections { x, dy, weight: self.weight, standardise };
            let mut beside = (beside, Prefetch([x, dy].map(|from| from.wrapping_byte_add(AHEAD))));
            let means = sums::<_, _, _, _, 2>(s, n, &terms, &mut beside).map(|sum| sum.div(T::from_count(n)));
            means.iter().all(|mean| mean.is_finite()).then_some(Ready { moments, means })
        }
    }
}

/// Is r = 1 / sqrt(var + eps) of a row that the fast path can do? Other rows are redone.
#[inline(always)]
fn in_range<T: Real>(rstd: T) -> bool {
    power::<T>(-T::RANGE.1 / 2) <= rstd && rstd <= power::<T>(-T::RANGE.0 / 2)
}

impl<T: Real> Ready<T> {
    /// For no row.
    fn none() -> Self {
        Self { moments: Moments::none(), means: [T::from_f64(0.0); 2] }
    }
}

impl<T: Real, K: Kind> Body<T> for Part<'_, '_, T, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vector<T>>(mut self, s: S) {
        let call = self.call;
        let Some(last) = self.rows.clone().last() else { return };
        let start = self.rows.start;
        let mut totals = self.totals.take();
        let (n, weight, streams) = (call.shape.features, self.weight, call.streams());
        // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
        unsafe {
            let mut stage = match call.dx {
                Some(dx) if streams => Stage::new(dx, start, n),
                _ => None,
            };
            let stream = streams && stage.is_none();
            let nothing = Pointers { x: call.x.row(start), dy: call.dy.row(start), dx: None, totals: None };
            let nothing = Differentiate::<_, _, K>::new(s, weight, nothing, Ready::none());
            let mut write = LastPass::start(s, nothing, n, n, None);
            for row in self.rows.clone() {
                let ready = self.project(s, row, &mut write);
                write.finish(s);
                if row > start {
                    row_done(s, row - 1, &mut stage, &mut totals);
                }
                let pointers = Pointers {
                    x: call.x.row(row),
                    dy: call.dy.row(row),
                    dx: call.dx.map(|dx| stage.as_mut().map_or(dx.row(row), Stage::slot)),
                    totals: totals.as_ref().map(Tree::current),
                };
                if ready.is_none() {
                    self.wide(pointers);
                }
                let at = if ready.is_some() { 0 } else { n };
                let work = Differentiate::new(s, weight, pointers, ready.unwrap_or_else(Ready::none));
                write = LastPass::start(s, work, at, n, pointers.dx.filter(|_| stream));
            }
            write.finish(s);
            row_done(s, last, &mut stage, &mut totals);
            if let Some(stage) = &mut stage {
                stage.finish(s);
            }
        }
        if streams {
            s.fence();
        }
    }
}

/// The last pass over a row has ended.
///
/// # Safety
/// dx has the row, and it is this thread's.
#[inline(always)]
unsafe fn row_done<T: Real, S: Vector<T>>(
    s: S,
    row: usize,
    stage: &mut Option<Stage<T>>,
    totals: &mut Option<Tree<'_, T>>,
) {
    if let Some(stage) = stage {
        // SAFETY: the caller's.
        unsafe { stage.row_done(s) };
    }
    if let Some(totals) = totals {
        totals.row_done(s, row);
    }
}

/// What the last pass over a row reads and writes: `n` numbers each.
#[derive(Clone, Copy)]
struct Pointers<T> {
    x: *const T,
    dy: *const T,
    dx: Option<*mut T>,
    /// The sums of dy x_hat and of dy over rows; do they start with this row?
    totals: Option<([*mut T; 2], bool)>,
}

/// dx = rstd (weight dy - mean(u) - x_hat mean(u x_hat)), and dy x_hat and dy added to the totals.
struct Differentiate<'a, T, V, K> {
    of: Pointers<T>,
    weight: Numbers<'a, T>,
    standardise: Standardise<V, K>,
    along_x_hat: V,
    minus_along_ones: V,
}

impl<'a, T: Real, V: Copy, K: Kind> Differentiate<'a, T, V, K> {
    #[inline(always)]
    fn new<S: Vector<T, V = V>>(s: S, weight: Numbers<'a, T>, of: Pointers<T>, ready: Ready<T>) -> Self {
        let Ready { moments, means: [along_x_hat, along_ones] } = ready;
        let standardise = Standardise::new(s, moments);
        let minus_along_ones = s.splat(along_ones.neg());
        Self { of, weight, standardise, along_x_hat: s.splat(along_x_hat), minus_along_ones }
    }
}

impl<T: Real, S: Vector<T>, K: Kind> Write<T, S> for Differentiate<'_, T, S::V, K> {
    #[inline(always)]
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool) {
        // SAFETY: the caller's.
        unsafe {
            let dy = load(s, self.of.dy, at, count);
            let x_hat = self.standardise.apply(s, load(s, self.of.x, at, count));
            if let Some(([dweight, dbias], fresh)) = self.of.totals {
                let zero = s.splat(T::from_f64(0.0));
                let [w, b] =
                    if fresh { [zero; 2] } else { [dweight, dbias].map(|sum| load(s, sum, at, count)) };
                store(s, dweight, at, count, s.fma(dy, x_hat, w));
                store(s, dbias, at, count, s.add(b, dy));
            }
            if let Some(dx) = self.of.dx {
                // The u that the means were taken of, so that a row of one number has no gradient.
                let u = s.mul(self.weight.get(s, at, count), dy);
                let orthogonal = s.fnma(x_hat, self.along_x_hat, s.add(u, self.minus_along_ones));
                let value = s.mul(self.standardise.rstd, orthogonal);
                if stream { s.stream(dx.add(at), value) } else { store(s, dx, at, count, value) }
            }
        }
    }
}

/// The sums of u x_hat and, for layer norm, of u = weight dy.
struct Projections<'a, T, V, K> {
    x: *const T,
    dy: *const T,
    weight: Numbers<'a, T>,
    standardise: Standardise<V, K>,
}

impl<T: Real, S: Vector<T>, K: Kind> Terms<T, S> for Projections<'_, T, S::V, K> {
    const SUMS: usize = if K::CENTRED { 2 } else { 1 };

    #[inline(always)]
    unsafe fn add(&self, s: S, at: usize, count: usize, [along_x_hat, along_ones]: [S::V; 2]) -> [S::V; 2] {
        // SAFETY: the caller's: the row has these positions. In the other lanes dy is +0.
        let (x, dy, weight) = unsafe {
            (load(s, self.x, at, count), load(s, self.dy, at, count), self.weight.get(s, at, count))
        };
        let mut x_hat = self.standardise.apply(s, x);
        if count < S::WIDTH {
            x_hat = s.keep_first(x_hat, count);
        }
        let u = s.mul(weight, dy);
        [s.fma(u, x_hat, along_x_hat), if K::CENTRED { s.add(along_ones, u) } else { along_ones }]
    }
}
