//! The passes over a batch: sums over the channels, and the last pass, which writes.

use super::{Grid, Inputs, Plan, Rooms};
use crate::affine::{Affine, Numbers, Parameters};
use crate::by_row::last_pass::{Write, by_itself};
use crate::by_row::seam::Seam;
use crate::by_row::totals::Tree;
use crate::by_row::{Deviations, Standardise, store};
use crate::element::private::Stored;
use crate::order::{CHUNK, Plainly, Terms, sums};
use crate::real::private::Number;
use crate::rows::{Place, PlaceMut, Target};
use crate::vector::{Body, Memory, Vector, Work, dispatch};
use crate::{Element, Real, threads};
use std::ops::Range;

/// The centre and scale of channels. For sums of deviations, the scale is not looked at.
#[derive(Clone, Copy)]
pub(super) struct Centres<'a, T> {
    pub(super) m: &'a [T],
    pub(super) c: &'a [T],
    pub(super) rstd: &'a [T],
}

impl<E: Element> Inputs<'_, E> {
    /// The two sums of each channel of a range, over the rows there are. `parts` of the plan at once.
    pub(super) fn sums(
        &self,
        plan: &Plan,
        channels: Range<usize>,
        centres: Centres<'_, E::Acc>,
        to: [&mut [E::Acc]; 2],
        (parts, rooms): (Range<usize>, Rooms<'_, E::Acc>),
    ) {
        if self.grid.last {
            // SAFETY: this is the only call that is under way, and all memory is its own.
            let room = unsafe { rooms.of_part(0) };
            let totals = plan.split.totals_in(room);
            threads::for_each(plan.split.parts(), |part| {
                let (rows, tree) = (plan.split.rows(part), totals.of_part(part));
                let part = Sums {
                    inputs: self,
                    rows,
                    channels: channels.clone(),
                    centres,
                    tree,
                    run: std::ptr::null_mut(),
                };
                dispatch(plan.level, part);
            });
            return totals.finish(plan.level, to.map(Some), false);
        }
        let start = channels.start;
        let to = to.map(|to| Target::every(to, 1));
        let groups = channels.len().div_ceil(plan.group);
        threads::for_each(parts.len(), |index| {
            // SAFETY: each part's memory is used by it alone.
            let room = unsafe { rooms.of_part(parts.start + index) };
            let (run, room) = room.split_at_mut(plan.run);
            for group in threads::share(index, parts.len(), groups) {
                let at = group * plan.group;
                let of = at..channels.len().min(at + plan.group);
                let split = plan.split.of_features(of.len());
                let totals = split.totals_in(room);
                let centres = Centres {
                    m: &centres.m[of.clone()],
                    c: centres.c.get(of.clone()).unwrap_or_default(),
                    rstd: centres.rstd.get(of.clone()).unwrap_or_default(),
                };
                if split.parts() > 0 && self.grid.shape.rows > 0 {
                    let (rows, tree) = (0..self.grid.shape.rows, totals.of_part(0));
                    let channels = start + of.start..start + of.end;
                    let run = if run.is_empty() { std::ptr::null_mut() } else { run.as_mut_ptr() };
                    dispatch(plan.level, Sums { inputs: self, rows, channels, centres, tree, run });
                }
                // SAFETY: groups do not overlap, and the sums have these channels.
                let to = to.map(|to| unsafe { std::slice::from_raw_parts_mut(to.row(at), of.len()) });
                totals.finish(plan.level, to.map(Some), false);
            }
        });
    }
}

/// Some rows and channels, summed on this thread.
struct Sums<'a, 'b, 'c, E: Element> {
    inputs: &'b Inputs<'a, E>,
    rows: Range<usize>,
    channels: Range<usize>,
    centres: Centres<'b, E::Acc>,
    tree: Tree<'c, E::Acc>,
    /// Room for a run, where there is a mask.
    run: *mut E::Acc,
}

impl<E: Element> Body<E> for Sums<'_, '_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let Self { inputs, rows, channels, centres, mut tree, run } = self;
        let mut row = rows.start;
        while row < rows.end {
            let chunk = inputs.chunk(row, rows.end);
            row = chunk.end;
            let to = tree.current().sums;
            let of = Chunk { inputs, rows: chunk, channels: channels.clone(), centres, run, to };
            match (inputs.grid.last, inputs.dy.is_some()) {
                (true, false) => s.outlined(Rows::<E, false>(of)),
                (true, true) => s.outlined(Rows::<E, true>(of)),
                (false, false) => s.outlined(Runs::<E, false>(of)),
                (false, true) => s.outlined(Runs::<E, true>(of)),
            }
            tree.row_done(s, row - 1);
        }
    }
}

/// A chunk of rows, to be summed into a node.
struct Chunk<'a, 'b, E: Element> {
    inputs: &'b Inputs<'a, E>,
    rows: Range<usize>,
    channels: Range<usize>,
    centres: Centres<'b, E::Acc>,
    run: *mut E::Acc,
    to: [*mut E::Acc; 2],
}

/// Channels first: a channel's runs one after the other.
struct Runs<'a, 'b, E: Element, const BACKWARD: bool>(Chunk<'a, 'b, E>);

impl<E: Element, S: Memory<E>, const BACKWARD: bool> Work<S> for Runs<'_, '_, E, BACKWARD> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Chunk { inputs, rows, channels, centres, run, to } = self.0;
        let (n, zero) = (inputs.grid.run, E::Acc::from_f64(0.0));
        for (i, channel) in channels.enumerate() {
            let mut totals = [zero; 2];
            for row in rows.clone() {
                // SAFETY: the rows are the batch's, a channel has a run in each, and a node a number for each channel.
                let sums = unsafe {
                    let x = Place::own(inputs.x.row(row)).add(channel * n);
                    if let (true, Some(dy)) = (BACKWARD, inputs.dy) {
                        let dy = Place::own(dy.row(row)).add(channel * n);
                        let of = [s.splat(centres.m[i]), s.splat(centres.c[i]), s.splat(centres.rstd[i])];
                        let terms = Products { x, dy, standardise: Standardise::of_lanes(s, of) };
                        sums(s, n, &terms, &mut Plainly)
                    } else {
                        let m = centres.m[i];
                        let x = if run.is_null() { x } else { masked(inputs, row, x, m, run) };
                        sums(s, n, &Deviations(x, s.splat(m)), &mut Plainly)
                    }
                };
                totals = [totals[0].add(sums[0]), totals[1].add(sums[1])];
            }
            // SAFETY: as above.
            unsafe {
                to[0].add(i).write(totals[0]);
                to[1].add(i).write(totals[1]);
            }
        }
    }
}

/// The run of a row with `m` in the place of what is no part of the batch: so that x - m is +0 there.
///
/// # Safety
/// The run is the row's, and there is room for it.
#[inline(never)]
unsafe fn masked<E: Element>(
    inputs: &Inputs<'_, E>,
    row: usize,
    x: Place<E>,
    m: E::Acc,
    to: *mut E::Acc,
) -> Place<E> {
    let (first, positions) = (inputs.position(row), inputs.grid.positions);
    for i in 0..positions {
        // SAFETY: the caller's.
        unsafe {
            to.add(i).write(if inputs.valid.holds(first + i, positions) { x.number(i) } else { m });
        }
    }
    Place::wide(to)
}

/// Channels last: a register of channels after the other, over all rows of the chunk.
struct Rows<'a, 'b, E: Element, const BACKWARD: bool>(Chunk<'a, 'b, E>);

impl<E: Element, S: Memory<E>, const BACKWARD: bool> Work<S> for Rows<'_, '_, E, BACKWARD> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Chunk { inputs, rows, channels, centres, to, .. } = self.0;
        let (n, positions) = (channels.len(), inputs.grid.positions);
        let zero = s.splat(E::Acc::from_f64(0.0));
        // A chunk is gone through across its rows, which no processor foresees: so each asks for the one that lies where it does in the next.
        let ahead = CHUNK * inputs.grid.shape.stride * size_of::<E>();
        // A bit a row.
        let valid = |row: &usize| BACKWARD || inputs.valid.holds(*row, positions);
        let taken = rows.clone().filter(valid).fold(0u32, |bits, row| bits | 1 << (row - rows.start));
        for at in (0..n).step_by(S::WIDTH) {
            let count = S::WIDTH.min(n - at);
            // SAFETY: the rows are the batch's, with `n` numbers each; so have the centres and a node.
            unsafe {
                let get = |of: &[E::Acc]| Place::<E>::wide(of.as_ptr()).load(s, at, count);
                let m = get(centres.m);
                let mut sums = [zero; 2];
                if let (true, Some(dy)) = (BACKWARD, inputs.dy) {
                    let standardise = Standardise::of_lanes(s, [m, get(centres.c), get(centres.rstd)]);
                    for row in rows.clone() {
                        let terms = Products {
                            x: Place::own(inputs.x.row(row)),
                            dy: Place::own(dy.row(row)),
                            standardise,
                        };
                        s.prefetch(terms.x.bytes_on(ahead + at * size_of::<E>()));
                        s.prefetch(terms.dy.bytes_on(ahead + at * size_of::<E>()));
                        sums = terms.add_all(s, at, count, sums);
                    }
                } else {
                    for row in rows.clone().filter(|row| taken >> (row - rows.start) & 1 == 1) {
                        let x = Place::own(inputs.x.row(row));
                        s.prefetch(x.bytes_on(ahead + at * size_of::<E>()));
                        let d = s.sub(x.load(s, at, count), m);
                        sums = [s.add(sums[0], d), s.fma(d, d, sums[1])];
                    }
                }
                store(s, to[0], at, count, sums[0]);
                store(s, to[1], at, count, sums[1]);
            }
        }
    }
}

/// dy x_hat, and dy.
struct Products<E, V> {
    x: Place<E>,
    dy: Place<E>,
    standardise: Standardise<V>,
}

impl<E: Element, V: Copy> Products<E, V> {
    /// Add them to all lanes, as if there were numbers for all.
    ///
    /// # Safety
    /// The places have these numbers.
    #[inline(always)]
    unsafe fn add_all<S: Memory<E> + Vector<E::Acc, V = V>>(
        &self,
        s: S,
        at: usize,
        count: usize,
        [products, ones]: [V; 2],
    ) -> [V; 2] {
        // SAFETY: the caller's.
        let (x, dy) = unsafe { (self.x.load(s, at, count), self.dy.load(s, at, count)) };
        [s.fma(dy, self.standardise.apply(s, x), products), s.add(ones, dy)]
    }
}

impl<E: Element, S: Memory<E>> Terms<E::Acc, S> for Products<E, S::V> {
    const SUMS: usize = 2;

    #[inline(always)]
    unsafe fn add(&self, s: S, at: usize, count: usize, [products, ones]: [S::V; 2]) -> [S::V; 2] {
        // SAFETY: the caller's: the run has these positions. In the other lanes dy is +0.
        let (x, dy) = unsafe { (self.x.load(s, at, count), self.dy.load(s, at, count)) };
        let mut x_hat = self.standardise.apply(s, x);
        if count < S::WIDTH {
            x_hat = s.keep_first(x_hat, count);
        }
        [s.fma(dy, x_hat, products), s.add(ones, dy)]
    }
}

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
            true => self.chunks(s),
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
                let of = [s.splat(m.number(0, i)), s.splat(c.number(0, i)), s.splat(rstd.number(0, i))];
                let b = s.splat(b.number(0, i));
                let bias = s.splat(bias.number(0, channel));
                let work = Apply::<E, _, BACKWARD> {
                    x: Place::own(std::ptr::null()),
                    dy: Place::own(std::ptr::null()),
                    to: std::ptr::null_mut(),
                    standardise: Standardise::of_lanes(s, of),
                    weight: s.splat(weight.number(0, channel)),
                    bias: if BACKWARD { minus(s, b) } else { bias },
                    along: s.splat(a.number(0, i)),
                };
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

    /// Channels last: a register of channels after the other, over all rows of a chunk.
    #[inline(always)]
    fn chunks<S: Memory<E>>(self, s: S) {
        let Last { inputs, to, of, weight, bias, left_out, .. } = self.of;
        let (n, positions) = (inputs.grid.channels, inputs.grid.positions);
        let all = left_out.iter().all(|out| *out == E::Acc::from_f64(0.0));
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
                    let of = [m.get(s, at, count), c.get(s, at, count), rstd.get(s, at, count)];
                    let (b, bias) = (b.get(s, at, count), bias.get(s, at, count));
                    let work = Apply::<E, _, BACKWARD> {
                        x: Place::own(std::ptr::null()),
                        dy: Place::own(std::ptr::null()),
                        to: std::ptr::null_mut(),
                        standardise: Standardise::of_lanes(s, of),
                        weight: weight.get(s, at, count),
                        bias: if BACKWARD { minus(s, b) } else { bias },
                        along: a.get(s, at, count),
                    };
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
            let work = Apply::<E, _, BACKWARD> {
                x,
                dy,
                to,
                standardise: Standardise::of_lanes(
                    s,
                    [m.get(s, at, count), c.get(s, at, count), rstd.get(s, at, count)],
                ),
                weight: weight.get(s, at, count),
                bias: if BACKWARD { minus(s, b.get(s, at, count)) } else { bias.get(s, at, count) },
                along: a.get(s, at, count),
            };
            work.numbers(s, at, count, stream);
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

/// -v.
#[inline(always)]
fn minus<T: Real, S: Vector<T>>(s: S, v: S::V) -> S::V {
    s.sub(s.splat(T::from_f64(-0.0)), v)
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
