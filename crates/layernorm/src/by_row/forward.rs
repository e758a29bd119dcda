//! The forward loop over rows.

mod runs;
mod together;

use super::add::{self, Add};
use super::last_pass::{ByItself, LastPass, Write, by_itself};
use super::seam::Seam;
use super::table::Table;
use super::*;
use crate::affine::{Above, Numbers};
use crate::rows::Shape;
use crate::vector::{Body, dispatch};
use crate::{Companion, Error, Params, Rounding, Rows, RowsMut, Run, threads, wide};
use runs::ByRuns;
use std::ops::Range;

/// A checked forward call.
pub(crate) struct Forward<'a, E: Element> {
    pub(crate) shape: Shape,
    pub(crate) x: Mixed<'a, E>,
    pub(crate) y: Target<'a, E>,
    /// Is `y` the memory of `x`? Then it is in cache when it is written.
    pub(crate) in_place: bool,
    pub(crate) weight: Affine<'a, E>,
    pub(crate) bias: Affine<'a, E>,
    pub(crate) form: Form<E::Acc>,
    pub(crate) rounding: Rounding,
    pub(crate) saved: Option<Columns<Column<'a, E::Acc>>>,
    /// What makes the rows of `x`.
    pub(crate) add: Option<Add<'a, E>>,
    /// Outputs of so many bytes are written past the caches.
    pub(crate) stream_from: usize,
}

impl<'a, E: Element> Forward<'a, E> {
    /// From `x` to `y`.
    #[inline(always)] // so that it is made in its place: in a small call, copies of it would be much of the work
    pub(crate) fn new<P: Companion<E>>(
        x: Rows<'a, E>,
        params: Params<'a, P>,
        y: RowsMut<'a, E>,
        saved: Option<Columns<Column<'a, E::Acc>>>,
    ) -> Result<Self, Error> {
        let shape = x.shape();
        y.shape().expect("y", shape)?;
        Self::over(shape, [Mixed::Own(x.source())], y.target(), params, saved)
    }

    /// From `x` to `x`.
    pub(crate) fn in_place<P: Companion<E>>(
        x: RowsMut<'a, E>,
        params: Params<'a, P>,
        saved: Option<Columns<Column<'a, E::Acc>>>,
    ) -> Result<Self, Error> {
        let shape = x.shape();
        let (x, y) = x.in_place();
        Ok(Self { in_place: true, ..Self::over(shape, [Mixed::Own(x)], y, params, saved)? })
    }

    /// From memory of this shape to memory of this shape.
    #[inline(always)]
    pub(crate) fn over<P: Companion<E>>(
        shape: Shape,
        [x]: [Mixed<'a, E>; 1],
        y: Target<'a, E>,
        params: Params<'a, P>,
        saved: Option<Columns<Column<'a, E::Acc>>>,
    ) -> Result<Self, Error> {
        let form = Form::new(params.eps, shape.features)?;
        let [weight, bias] = params.affine(shape.features)?;
        let (in_place, rounding, stream_from) = (false, Rounding::Once, usize::MAX);
        Ok(Self { shape, x, y, in_place, weight, bias, form, rounding, saved, add: None, stream_from })
    }

    /// Run the call. (By way of a function that is not generic, so that the loops are compiled in this
    /// crate, once, and not in each that uses it.)
    pub(crate) fn run(mut self, statistics: Statistics, run: Run) -> Result<(), Error> {
        self.stream_from = run.stream_from();
        E::forward(&self, statistics, run)
    }

    pub(crate) fn run_rows(&self, statistics: Statistics, run: Run) -> Result<(), Error> {
        let level = run.level()?;
        let Shape { features, .. } = self.shape;
        let rows = self.shape.rows;
        if features == 0 {
            return Ok(());
        }
        let parts = threads::parts(run.threads(), rows, features);
        let unrounded = self.add.and_then(|add| add.unrounded);
        let parts = unrounded.map_or(parts, |unrounded| unrounded.parts.min(parts));
        threads::for_each(parts, |part| {
            let rows = threads::share(part, parts, rows);
            dispatch(level, Part { call: self, part, rows, statistics, laid_out: None });
        });
        Ok(())
    }

    fn streams(&self) -> bool {
        !self.in_place && self.shape.bytes::<E>() >= self.stream_from
    }

    /// The last pass over a row that was measured elsewhere, through the cache. `x` has its numbers.
    ///
    /// # Safety
    /// The row exists, and is this thread's.
    #[inline(always)]
    pub(crate) unsafe fn write<S: Memory<E>>(&self, s: S, row: usize, x: Place<E>, moments: Moments<E::Acc>) {
        let (n, Self { weight, bias, .. }) = (self.shape.features, self);
        // SAFETY: the caller's.
        unsafe {
            if weight.has_runs() || bias.has_runs() {
                s.outlined(ByRuns { call: self, row, x, moments, seam: None });
            } else {
                let places = (x, self.y.row(row));
                let [mut weights, mut biases] = [weight.same(), bias.same()];
                let numbers = (weight.of_row_above(row, &mut weights), bias.of_row(row, &mut biases));
                s.outlined(ByItself::new(self.normalise(s, places, numbers, moments), 0, n, None));
            }
        }
    }

    /// The last pass over a row, from `x` to `y`.
    #[inline(always)]
    fn normalise<S: Memory<E>, P, Q>(
        &self,
        s: S,
        (x, y): (Place<E>, *mut E),
        (weight, bias): (P, Q),
        moments: Moments<E::Acc>,
    ) -> Normalise<E, P, Q, S::V> {
        let round = self.rounding.rounds::<E>(self.weight.is_wide());
        Normalise { x, y, weight, bias, round, standardise: Standardise::new(s, moments) }
    }
}

/// Some rows of a call.
struct Part<'a, 'b, E: Element> {
    call: &'b Forward<'a, E>,
    part: usize,
    rows: Range<usize>,
    statistics: Statistics,
    /// Weight and bias, if they were laid out for these rows.
    laid_out: Option<(Above<E>, Numbers<E>)>,
}

impl<E: Element> Body<E> for Part<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        if LayOut::suits(&self) {
            s.outlined(LayOut(self));
        } else {
            ways::take(s, self);
        }
    }
}

/// Lays weight and bias out for many rows, and takes these: a function of its own, since small calls have no use for so much stack.
struct LayOut<'a, 'b, E: Element>(Part<'a, 'b, E>);

/// Up to 4096 numbers: with more, as much time goes elsewhere.
type Tables<T> = Table<T, 257>;

impl<E: Element> LayOut<'_, '_, E> {
    /// Are there enough rows, and numbers that are the same for all, neither few nor too many?
    #[inline(always)]
    fn suits(part: &Part<'_, '_, E>) -> bool {
        let Forward { weight, bias, shape: Shape { features, .. }, add, .. } = part.call;
        let same = !weight.varies() && !bias.varies() && (weight.is_each() || bias.is_each());
        let length = *features > E::Acc::BLOCK && Tables::<E::Acc>::has_room_for(*features);
        // (Behind a residual, where four arrays go through the caches, it takes longer.)
        part.rows.len() >= 32 && same && length && add.is_none()
    }
}

impl<E: Element, S: Memory<E>> Work<S> for LayOut<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Part { call, rows, .. } = &self.0;
        let n = call.shape.features;
        let [mut weights, mut biases] = [Tables::new(), Tables::new()];
        let [weight, bias] = [call.weight.same(), call.bias.same()];
        // SAFETY: there are these rows, and room for their features.
        let laid_out = unsafe {
            // Where the last pass begins a line of y.
            let first = call.y.row(rows.start).align_offset(LINE);
            let mut numbers = (call.weight.of_all_rows_above(&weight), call.bias.of_all_rows(&bias));
            if call.weight.is_each() {
                numbers.0 = Above::nothing(Numbers::each(weights.fill(s, numbers.0, n, first)));
            }
            if call.bias.is_each() {
                numbers.1 = Numbers::each(biases.fill(s, numbers.1, n, first));
            }
            numbers
        };
        ways::take(s, Part { laid_out: Some(laid_out), ..self.0 });
    }
}

impl<E: Element, S: Memory<E>> ways::Part<E, S> for Part<'_, '_, E> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn is_short(&self) -> bool {
        let call = self.call;
        let runs = call.weight.has_runs() || call.bias.has_runs();
        short::suits(call.shape.features, call.streams(), &call.form) && call.add.is_none() && !runs
    }

    fn streams(&self) -> bool {
        self.call.streams()
    }

    #[inline(always)]
    fn together(self, s: S) {
        self.take_together(s);
    }

    #[inline(always)]
    fn one_by_one<const STREAMS: bool>(self, s: S) {
        let Self { call, part, rows, statistics, laid_out } = self;
        let (n, form) = (call.shape.features, &call.form);
        let [mut weight, mut bias] = [call.weight.same(), call.bias.same()];
        let runs = call.weight.has_runs() || call.bias.has_runs();
        if rows.is_empty() {
            return;
        }
        // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
        unsafe {
            let start = rows.start;
            let bytes = n * size_of::<E>();
            let ahead = add::Ahead::of(statistics, bytes);
            let next = if call.add.is_some() { ahead.of_second_pass() } else { AHEAD.max(bytes) };
            let mut seam = Seam::new();
            let by_row = call.weight.varies() || call.bias.varies();
            let mut numbers = laid_out
                .unwrap_or_else(|| (call.weight.of_all_rows_above(&weight), call.bias.of_all_rows(&bias)));
            let places = (call.x.row(start), call.y.row(start));
            let mut write = LastPass::none(call.normalise::<S, _, _>(s, places, numbers, Moments::none()));
            for row in rows {
                let mut x = call.x.row(row);
                let mut sum = None;
                if let Some(add) = &call.add {
                    // Two rows of memory in turn: the last pass over the row before may still read its own.
                    let wide = add.unrounded.map(|of| of.memory.row(2 * part + row % 2));
                    let add = add.of_row(row, wide);
                    x = add.sum();
                    sum = Some(if STREAMS {
                        add.first_pass(s, statistics, form, &mut (&mut write, add.prefetch(ahead)))
                    } else {
                        s.outlined(add::ByItself { add, statistics, form })
                    });
                }
                let fast = if STREAMS {
                    let sum = match sum {
                        Some(sum) => sum,
                        None => statistics.first_pass(s, x, form, &mut write),
                    };
                    statistics.second_pass(s, (sum, x, next), form, &mut write)
                } else {
                    match sum {
                        // A pass is all that they want, and a call takes as long as that of a short row.
                        Some(sum) if statistics == Statistics::Uncentred => uncentred(sum, form),
                        Some(_) => s.outlined(InCache { statistics, sum, x, form }),
                        // In line: of 768 features, a call takes 7% of the time.
                        None => InCache { statistics, sum, x, form }.run(s),
                    }
                };
                if STREAMS {
                    write.finish(s);
                }
                let y = call.y.row(row);
                let moments = fast.unwrap_or_else(|| wide::forward(statistics, call, row, x, y));
                if let Some(saved) = call.saved {
                    saved.set(row, moments);
                }
                let mut at = if fast.is_some() { 0 } else { n };
                if by_row {
                    numbers = (call.weight.of_row_above(row, &mut weight), call.bias.of_row(row, &mut bias));
                }
                let normalise = call.normalise::<S, _, _>(s, (x, y), numbers, moments);
                if runs && at < n {
                    s.outlined(ByRuns { call, row, x, moments, seam: STREAMS.then_some(&mut seam) });
                    at = n;
                }
                if STREAMS {
                    write = LastPass::start(s, normalise, at, n, &mut seam);
                } else {
                    // In cache there is nothing to wait for.
                    by_itself(s, normalise, at, n, None);
                }
            }
            if STREAMS {
                write.leave(s);
                seam.leave(s);
            }
        }
    }
}

/// y = fma(x_hat, weight, bias).
///
/// The pointers are valid for a row.
#[derive(Clone, Copy)]
pub(super) struct Normalise<E: Element, P, Q, V> {
    pub(super) x: Place<E>,
    pub(super) y: *mut E,
    pub(super) weight: P,
    pub(super) bias: Q,
    /// Is x_hat rounded to an element first?
    pub(super) round: bool,
    pub(super) standardise: Standardise<V>,
}

impl<E: Element, P: Parameters<E>, Q: Parameters<E>, V: Copy> Normalise<E, P, Q, V> {
    /// `count` numbers of y from `at` on, before they are rounded to elements.
    ///
    /// # Safety
    /// The row has these numbers, `count <= S::WIDTH`.
    #[inline(always)]
    pub(super) unsafe fn y<S: Memory<E> + Vector<E::Acc, V = V>>(&self, s: S, at: usize, count: usize) -> V {
        // SAFETY: the caller's.
        unsafe {
            let mut x_hat = self.standardise.apply(s, self.x.load(s, at, count));
            if E::NARROW && self.round {
                x_hat = Memory::<E>::rounded(s, x_hat);
            }
            s.fma(x_hat, self.weight.get(s, at, count), self.bias.get(s, at, count))
        }
    }
}

impl<E, P, Q, S> Write<E, S> for Normalise<E, P, Q, S::V>
where
    E: Element,
    P: Parameters<E>,
    Q: Parameters<E>,
    S: Memory<E>,
{
    #[inline(always)]
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool) {
        // SAFETY: the caller's.
        unsafe {
            let y = self.y(s, at, count);
            PlaceMut::own(self.y).store(s, at, count, y, stream);
        }
    }

    #[inline(always)]
    fn input(&self) -> Place<E> {
        self.x
    }

    #[inline(always)]
    fn output(&self) -> Option<*mut E> {
        Some(self.y)
    }

    #[inline(always)]
    fn to(self, y: *mut E) -> Self {
        Self { y, ..self }
    }
}
