//! Sums over the channels of a batch.

use super::{Inputs, Plan, Rooms};
use crate::by_row::totals::Tree;
use crate::by_row::{Deviations, Standardise, store};
use crate::element::private::Stored;
use crate::order::{CHUNK, Plainly, Terms, sums};
use crate::real::private::Number;
use crate::rows::{Place, Target};
use crate::vector::{Body, Memory, Vector, Work, dispatch};
use crate::{Element, threads};
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
