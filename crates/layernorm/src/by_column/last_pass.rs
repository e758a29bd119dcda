//! The last pass over a batch, which writes.

use super::{Grid, Inputs, Plan};
use crate::affine::{Affine, Numbers, Parameters};
use crate::by_row::Standardise;
use crate::by_row::last_pass::{Write, by_itself};
use crate::by_row::seam::Seam;
use crate::element::private::Stored;
use crate::real::private::Number;
use crate::rows::{Place, PlaceMut, Target};
use crate::vector::{Body, Memory, Vector, dispatch};
use crate::{Element, threads};
use std::ops::Range;

/// The last pass: y = fma(x_hat, weight, bias), or dx = (dy - b - x_hat a) rstd weight.
pub(super) struct Last<'a, 'b, E: Element> {
    pub(super) inputs: &'b Inputs<'a, E>,
    pub(super) to: Target<'a, E>,
    /// Is it the memory of x (backward: of dy)?
    pub(super) in_place: bool,
    pub(super) channels: Range<usize>,
    /// m, c, rstd; and of a backward pass a and b. The first number is that of the first channel.
    pub(super) of: [Affine<'b, E>; 5],
    pub(super) weight: &'b Affine<'a, E>,
    pub(super) bias: &'b Affine<'a, E>,
    /// Not 0 for channels that are left out.
    pub(super) left_out: &'b [E::Acc],
}

impl<E: Element> Last<'_, '_, E> {
    /// Run it on so many threads.
    pub(super) fn run(&self, plan: &Plan, parts: usize) {
        if self.inputs.grid.last {
            threads::over_rows(parts, self.inputs.grid.shape.rows, |rows| self.part(plan, rows, 0..1));
        } else {
            threads::over_rows(parts, self.channels.len(), |channels| {
                self.part(plan, 0..self.inputs.grid.shape.rows, channels);
            });
        }
    }

    fn part(&self, plan: &Plan, rows: Range<usize>, channels: Range<usize>) {
        let stream_from = plan.stream_from;
        // Two bodies, because they are compiled apart.
        if self.inputs.dy.is_some() {
            dispatch(plan.level, LastPart::<E, true> { of: self, rows, channels, stream_from });
        } else {
            dispatch(plan.level, LastPart::<E, false> { of: self, rows, channels, stream_from });
        }
    }
}

/// Some rows of a last pass, and channels from the first one on.
struct LastPart<'a, 'b, 'c, E: Element, const BACKWARD: bool> {
    of: &'c Last<'a, 'b, E>,
    rows: Range<usize>,
    channels: Range<usize>,
    /// Outputs of so many bytes are written past the caches.
    stream_from: usize,
}

impl<E: Element, const BACKWARD: bool> Body<E> for LastPart<'_, '_, '_, E, BACKWARD> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let grid = self.of.inputs.grid;
        let all = self.of.left_out.iter().all(|out| *out == E::Acc::from_f64(0.0));
        match grid.last {
            true if S::STREAMS && all && self.streams(grid.channels) => self.rows(s),
            true => self.chunks(s, all),
            false => self.runs(s),
        }
    }
}

impl<E: Element, const BACKWARD: bool> LastPart<'_, '_, '_, E, BACKWARD> {
    /// Are lines of so many numbers written past the caches, by a level that can?
    fn streams(&self, numbers: usize) -> bool {
        let Last { inputs, in_place, .. } = self.of;
        let bytes = inputs.grid.shape.bytes::<E>();
        !in_place && numbers >= 4 * E::Acc::LANES && bytes >= self.stream_from
    }

    #[inline(always)]
    fn runs<S: Memory<E>>(self, s: S) {
        let Last { inputs, to, channels, of, weight, bias, left_out, .. } = self.of;
        let Grid { run: n, positions, .. } = inputs.grid;
        let streams = S::STREAMS && self.streams(n);
        let mut seam = Seam::new();
        // Past the caches as memory lies, a sample's channels one after the other; in them, a channel's parameters once.
        let together = if inputs.grid.shape.bytes::<E>() >= self.stream_from { 1 } else { self.rows.len() };
        for start in self.rows.clone().step_by(together.max(1)) {
            let rows = start..self.rows.end.min(start + together);
            for i in self.channels.clone() {
                if left_out.get(i).is_some_and(|out| *out != E::Acc::from_f64(0.0)) {
                    continue;
                }
                let channel = channels.start + i;
                let [m, c, rstd, a, b] = of;
                let [m, c, rstd] = [m.number(0, i), c.number(0, i), rstd.number(0, i)];
                let [a, b] = [a.number(0, i), b.number(0, i)];
                let [weight, bias] = [weight.number(0, channel), bias.number(0, channel)];
                let [m, c, rstd, a] = [s.splat(m), s.splat(c), s.splat(rstd), s.splat(a)];
                let [b, weight, bias] = [s.splat(b), s.splat(weight), s.splat(bias)];
                let work = Apply::<E, _, BACKWARD>::of(s, [m, c, rstd, a, b, weight, bias]);
                for row in rows.clone() {
                    // SAFETY: the rows are the batch's, a channel has a run in each, and these channels are this thread's.
                    unsafe {
                        let x = Place::own(inputs.x.row(row)).add(channel * n);
                        let dy = match inputs.dy {
                            Some(dy) => Place::own(dy.row(row)).add(channel * n),
                            None => x,
                        };
                        let to = to.row(row).add(channel * n);
                        let work = Apply { x, dy, to, ..work };
                        if !BACKWARD {
                            by_itself(s, work, 0, n, streams.then_some(&mut seam));
                            continue;
                        }
                        let (first, mut at) = (inputs.position(row), 0);
                        while at < n {
                            let (valid, end) = inputs.valid.stretch(first + at, first + n, positions);
                            let end = end - first;
                            let work = if valid { work } else { work.apart(s) };
                            by_itself(s, work, at, end, streams.then_some(&mut seam));
                            at = end;
                        }
                    }
                }
            }
        }
        if streams {
            // SAFETY: all rows were this thread's.
            unsafe { seam.leave(s) };
        }
    }

    /// Channels last, past the caches: row by row, as memory lies.
    #[inline(always)]
    fn rows<S: Memory<E>>(self, s: S) {
        let Last { inputs, to, of, weight, bias, .. } = self.of;
        let Grid { channels: n, positions, .. } = inputs.grid;
        let nothing = Affine::new(None, 0.0);
        let [m, c, rstd, a, b] = of;
        let columns = [m, c, rstd, a, b, weight, bias, &nothing];
        let mut same: [_; 8] = std::array::from_fn(|i| columns[i].same());
        let [m, c, rstd, a, b, weight, bias, nothing] =
            std::array::from_fn(|i| columns[i].of_row(0, &mut same[i]));
        let mut seam = Seam::new();
        for row in self.rows {
            // SAFETY: the rows are the batch's and this thread's, with `n` numbers each, as all columns have.
            unsafe {
                let x = Place::own(inputs.x.row(row));
                let dy = inputs.dy.map_or(x, |dy| Place::own(dy.row(row)));
                let of = [m, c, rstd, a, b, weight, bias];
                let mut work = ApplyByChannel::<E, BACKWARD> { x, dy, to: to.row(row), of };
                if BACKWARD && !inputs.valid.holds(row, positions) {
                    (work.x, work.of) = (dy, [m, c, rstd, nothing, nothing, weight, bias]);
                }
                by_itself(s, work, 0, n, Some(&mut seam));
            }
        }
        // SAFETY: all rows were this thread's.
        unsafe { seam.leave(s) };
    }

    /// Channels last: a register of channels after the other, over all rows of a chunk. Are `all` of them taken?
    #[inline(always)]
    fn chunks<S: Memory<E>>(self, s: S, all: bool) {
        let Last { inputs, to, of, weight, bias, left_out, .. } = self.of;
        let (n, positions) = (inputs.grid.channels, inputs.grid.positions);
        let [m, c, rstd, a, b] = of;
        let columns = [m, c, rstd, a, b, weight, bias];
        let mut same: [_; 7] = std::array::from_fn(|i| columns[i].same());
        let [m, c, rstd, a, b, weight, bias] = std::array::from_fn(|i| columns[i].of_row(0, &mut same[i]));
        let mut row = self.rows.start;
        while row < self.rows.end {
            let chunk = inputs.chunk(row, self.rows.end);
            row = chunk.end;
            let mut at = 0;
            while at < n {
                let mut count = S::WIDTH.min(n - at);
                if !all {
                    // Elementwise: so channels that are left out may cut a register.
                    let out = |out: &E::Acc| *out != E::Acc::from_f64(0.0);
                    count = left_out[at..at + count].iter().position(out).unwrap_or(count);
                    if count == 0 {
                        at += 1;
                        continue;
                    }
                }
                // SAFETY: the rows are the batch's and this thread's, with `n` numbers each, as all columns have.
                unsafe {
                    let [m, c, rstd] = [m.get(s, at, count), c.get(s, at, count), rstd.get(s, at, count)];
                    let [a, b] = [a.get(s, at, count), b.get(s, at, count)];
                    let [weight, bias] = [weight.get(s, at, count), bias.get(s, at, count)];
                    let work = Apply::<E, _, BACKWARD>::of(s, [m, c, rstd, a, b, weight, bias]);
                    for row in chunk.clone() {
                        let x = Place::own(inputs.x.row(row));
                        let dy = inputs.dy.map_or(x, |dy| Place::own(dy.row(row)));
                        let mut work = Apply { x, dy, to: to.row(row), ..work };
                        if BACKWARD && !inputs.valid.holds(row, positions) {
                            work = work.apart(s);
                        }
                        work.numbers(s, at, count, false);
                    }
                }
                at += count;
            }
        }
    }
}

/// [`Apply`] where each number of a row is another channel's.
#[derive(Clone, Copy)]
struct ApplyByChannel<E: Element, const BACKWARD: bool> {
    x: Place<E>,
    dy: Place<E>,
    to: *mut E,
    /// m, c, rstd, a, b, weight, bias.
    of: [Numbers<E>; 7],
}

impl<E: Element, S: Memory<E>, const BACKWARD: bool> Write<E, S> for ApplyByChannel<E, BACKWARD> {
    #[inline(always)]
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool) {
        let Self { x, dy, to, of: [m, c, rstd, a, b, weight, bias] } = *self;
        // SAFETY: the caller's; a column has a number for each channel.
        unsafe {
            let [m, c, rstd] = [m.get(s, at, count), c.get(s, at, count), rstd.get(s, at, count)];
            let [a, b] = [a.get(s, at, count), b.get(s, at, count)];
            let [weight, bias] = [weight.get(s, at, count), bias.get(s, at, count)];
            let work = Apply::<E, _, BACKWARD>::of(s, [m, c, rstd, a, b, weight, bias]);
            Apply { x, dy, to, ..work }.numbers(s, at, count, stream);
        }
    }

    #[inline(always)]
    fn input(&self) -> Place<E> {
        self.x
    }

    #[inline(always)]
    fn output(&self) -> Option<*mut E> {
        Some(self.to)
    }

    #[inline(always)]
    fn to(self, to: *mut E) -> Self {
        Self { to, ..self }
    }
}

/// What the last pass does with numbers of x and dy.
#[derive(Clone, Copy)]
struct Apply<E: Element, V, const BACKWARD: bool> {
    x: Place<E>,
    dy: Place<E>,
    to: *mut E,
    standardise: Standardise<V>,
    weight: V,
    /// The bias; backward, -b.
    bias: V,
    /// a.
    along: V,
}

impl<E: Element, V: Copy, const BACKWARD: bool> Apply<E, V, BACKWARD> {
    /// With these m, c, rstd, a, b, weight and bias; of no numbers yet.
    #[inline(always)]
    fn of<S: Memory<E> + Vector<E::Acc, V = V>>(s: S, [m, c, rstd, a, b, weight, bias]: [V; 7]) -> Self {
        let nowhere = Place::own(std::ptr::null());
        Self {
            x: nowhere,
            dy: nowhere,
            to: std::ptr::null_mut(),
            standardise: Standardise::of_lanes(s, [m, c, rstd]),
            weight,
            bias: if BACKWARD { s.sub(s.splat(E::Acc::from_f64(-0.0)), b) } else { bias },
            along: a,
        }
    }

    /// For what is no part of the batch: dx = dy rstd weight, whatever x is.
    #[inline(always)]
    fn apart<S: Memory<E> + Vector<E::Acc, V = V>>(self, s: S) -> Self {
        Self {
            x: self.dy,
            bias: s.splat(E::Acc::from_f64(-0.0)),
            along: s.splat(E::Acc::from_f64(0.0)),
            ..self
        }
    }
}

impl<E: Element, S: Memory<E>, const BACKWARD: bool> Write<E, S> for Apply<E, S::V, BACKWARD> {
    #[inline(always)]
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool) {
        // SAFETY: the caller's.
        unsafe {
            let x_hat = self.standardise.apply(s, self.x.load(s, at, count));
            let value = if BACKWARD {
                let rest = s.add(self.dy.load(s, at, count), self.bias);
                let orthogonal = s.fnma(x_hat, self.along, rest);
                s.mul(s.mul(orthogonal, self.standardise.rstd), self.weight)
            } else {
                s.fma(x_hat, self.weight, self.bias)
            };
            PlaceMut::own(self.to).store(s, at, count, value, stream);
        }
    }

    #[inline(always)]
    fn input(&self) -> Place<E> {
        self.x
    }

    #[inline(always)]
    fn output(&self) -> Option<*mut E> {
        Some(self.to)
    }

    #[inline(always)]
    fn to(self, to: *mut E) -> Self {
        Self { to, ..self }
    }
}
