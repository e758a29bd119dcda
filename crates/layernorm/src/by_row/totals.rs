//! The sums over rows: dweight and dbias, in chunks of rows, and chunks by the tree of adjacent pairs.
//!
//! Rows are split into *shards* of 2^k chunks, cut where the tree is cut, and each thread takes a run of
//! shards. It adds the rows of a chunk up in a node (a pair of rows: dweight, dbias), lets the node climb the
//! tree, and leaves the shard's total behind; the totals then finish the same tree. So neither threads nor
//! shards show in a bit.

use crate::order::{CHUNK, Carry, Nothing, sums};
use crate::rows::Place;
use crate::rows::{Shape, Target};
use crate::threads::share;
use crate::vector::{Body, LINE, Memory, Vector, Work, dispatch};
use crate::{Error, Level, Real, Workspace};
use std::ops::Range;

use super::{Statistics, load, store};

/// Shards for each part: enough for parts of about equal size.
const SHARDS_A_PART: usize = 4;

/// How the rows of a call are split.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    shape: Shape,
    first_row: usize,
    /// What comes before the rows of a group: positions of the other groups.
    origin: usize,
    /// A shard is 2^bits chunks.
    bits: u32,
    first_shard: usize,
    shards: usize,
    parts: usize,
    /// How far behind the start of a line of memory the totals are to begin, in numbers.
    phase: usize,
}

impl Split {
    pub(crate) fn new(shape: Shape, first_row: usize, parts: usize) -> Result<Self, Error> {
        let Some(last) = shape.rows.checked_sub(1) else {
            return Ok(Self {
                shape,
                first_row,
                origin: 0,
                bits: 0,
                first_shard: 0,
                shards: 0,
                parts: 1,
                phase: 0,
            });
        };
        let last = first_row.checked_add(last).ok_or(Error::RowIndex { first_row, rows: shape.rows })?;
        let (first, last) = (first_row / CHUNK, last / CHUNK);
        let shards = |bits: u32| (last >> bits) - (first >> bits) + 1;
        let one_shard = usize::BITS - (first ^ last).leading_zeros();
        let wanted = if parts == 1 { 1 } else { parts * SHARDS_A_PART };
        let bits = (0..=one_shard).rev().find(|bits| shards(*bits) >= wanted).unwrap_or(0);
        let shards = shards(bits);
        let (first_shard, parts) = (first >> bits, parts.min(shards));
        Ok(Self { shape, first_row, origin: 0, bits, first_shard, shards, parts, phase: 0 })
    }

    /// The same, of rows that stand at the positions from `origin` on.
    pub(crate) fn from(self, origin: usize) -> Self {
        Self { origin, ..self }
    }

    /// The same, of rows that begin so many numbers behind the start of a line, as most do: so the totals' lines are
    /// read and written where a row's are.
    pub(crate) fn in_phase(self, phase: usize) -> Self {
        Self { phase, ..self }
    }

    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// The same rows with so many features.
    pub(crate) fn of_features(mut self, features: usize) -> Self {
        self.shape.features = features;
        self
    }

    /// The rows of a part.
    pub(crate) fn rows(&self, part: usize) -> Range<usize> {
        let shards = share(part, self.parts, self.shards);
        let start = |shard: usize| match shard {
            0 => 0,
            _ if shard == self.shards => self.shape.rows,
            _ => (((self.first_shard + shard) << self.bits) * CHUNK) - self.first_row,
        };
        self.origin + start(shards.start)..self.origin + start(shards.end)
    }

    /// Does a node end with the row at this position, and does a shard?
    fn ends(&self, position: usize) -> (bool, bool) {
        let row = position - self.origin;
        let last = row + 1 == self.shape.rows;
        // After the last row that has an index comes 0, which ends everything.
        let next = (self.first_row + row).wrapping_add(1);
        (last || next.is_multiple_of(CHUNK), last || next.is_multiple_of(CHUNK << self.bits))
    }

    /// Do all rows lie in one chunk? Then its node is that of the shard's total from the start.
    fn is_one_chunk(&self) -> bool {
        self.first_row % CHUNK + self.shape.rows <= CHUNK
    }

    /// Nodes that a part needs at once: those that wait in the tree of a shard, and the one that grows.
    fn slots(&self) -> usize {
        let chunks = (self.shape.rows.div_ceil(CHUNK) + 1).min(1 << self.bits);
        chunks.ilog2() as usize + 3
    }

    /// The totals, in the memory of `workspace`.
    pub(crate) fn totals<'a, T: Real>(self, workspace: &'a mut Workspace<T>) -> Result<Totals<'a, T>, Error> {
        Ok(self.totals_in(workspace.room(self.room::<T>()?)))
    }

    /// Numbers that the totals take.
    pub(crate) fn room<T>(&self) -> Result<usize, Error> {
        let line = LINE / size_of::<T>();
        let (nodes, half) = self.nodes::<T>();
        // One line to reach the start of one, and one for the phase.
        let len = nodes.checked_mul(2 * half).and_then(|len| len.checked_add(2 * line));
        len.ok_or(Error::Overflow { rows: nodes, stride: 2 * half })
    }

    /// Their nodes, and half of the length of one.
    fn nodes<T>(&self) -> (usize, usize) {
        // Of no rows there are no nodes, however long they would be.
        let (nodes, features) = match self.shards {
            0 => (0, 0),
            shards => (self.parts * self.slots() + shards, self.shape.features),
        };
        (nodes, features.next_multiple_of(LINE / size_of::<T>()))
    }

    /// The totals, in memory that has their [`Split::room`].
    pub(crate) fn totals_in<T: Real>(self, memory: &mut [T]) -> Totals<'_, T> {
        let (nodes, half) = self.nodes::<T>();
        let line = LINE / size_of::<T>();
        let start = memory.as_ptr().align_offset(LINE).min(line) + self.phase % line;
        let memory = &mut memory[start..];
        assert!(memory.len() >= nodes * 2 * half, "the memory has the room");
        Totals { split: self, half, nodes: Target::every(memory, 2 * half) }
    }
}

/// The nodes of a call: first those of the parts, then the totals of the shards.
#[derive(Clone, Copy)]
pub(crate) struct Totals<'a, T> {
    split: Split,
    /// Distance from dweight to dbias in a node.
    half: usize,
    nodes: Target<'a, T>,
}

impl<'a, T: Real> Totals<'a, T> {
    /// The tree of a part. No two may be for the same part.
    pub(crate) fn of_part(self, part: usize) -> Tree<'a, T> {
        let first_slot = part * self.split.slots();
        let shard = share(part, self.split.parts, self.split.shards).start;
        let chunk = if part == 0 {
            self.split.first_row / CHUNK
        } else {
            (self.split.first_shard + shard) << self.split.bits
        };
        let waiting = [0; usize::BITS as usize];
        Tree {
            totals: self,
            first_slot,
            shard,
            carry: Carry::starting_at(chunk),
            waiting,
            current: if self.split.is_one_chunk() { self.split.slots() } else { 0 },
            free: !1,
            start: Start::Zero,
        }
    }

    /// Node of the total of a shard.
    fn shard(&self, shard: usize) -> usize {
        self.split.parts * self.split.slots() + shard
    }

    /// dweight and dbias of a node.
    ///
    /// # Safety
    /// The node exists.
    #[inline(always)]
    unsafe fn node(&self, node: usize) -> [*mut T; 2] {
        // SAFETY: the caller's; a node has two halves.
        unsafe { [self.nodes.row(node), self.nodes.row(node).add(self.half)] }
    }

    /// Add node `from` to node `to`.
    ///
    /// # Safety
    /// Both nodes exist, are not the same, and are this thread's.
    #[inline(always)]
    unsafe fn add<S: Vector<T>>(&self, s: S, to: usize, from: usize) {
        let n = self.split.shape.features;
        // SAFETY: the caller's.
        let (to, from) = unsafe { (self.node(to), self.node(from)) };
        for (to, from) in to.into_iter().zip(from) {
            for at in (0..n).step_by(S::WIDTH) {
                let count = S::WIDTH.min(n - at);
                // SAFETY: the halves of a node have room for `n` numbers.
                unsafe { store(s, to, at, count, s.add(load(s, from, at, count), load(s, to, at, count))) };
            }
        }
    }

    /// Finish the tree over the shards: the totals of both halves, unless there were no rows.
    #[inline(always)]
    pub(crate) fn total<S: Vector<T>>(self, s: S) -> Option<[&'a [T]; 2]> {
        let (n, shards) = (self.split.shape.features, self.split.shards);
        let mut carry = Carry::starting_at(self.split.first_shard);
        let mut waiting = [0; usize::BITS as usize];
        for shard in 0..shards {
            let step = carry.push();
            for level in step.absorb {
                // SAFETY: two shards' nodes; all parts are done.
                unsafe { self.add(s, self.shard(shard), self.shard(waiting[level])) };
            }
            waiting[step.level] = shard;
        }
        let mut left = carry.finish();
        let mut total = left.next().map(|level| waiting[level]);
        for level in left {
            if let Some(right) = total.replace(waiting[level]) {
                // SAFETY: as above.
                unsafe { self.add(s, self.shard(waiting[level]), self.shard(right)) };
            }
        }
        total.map(|shard| {
            // SAFETY: the node exists, with `n` numbers in each half; every chunk has written them.
            unsafe {
                self.node(self.shard(shard)).map(|half| std::slice::from_raw_parts(half.cast_const(), n))
            }
        })
    }

    /// Finish the tree over the shards, and write its total to (or add it to) the outputs there are.
    pub(crate) fn finish(self, level: Level, outputs: [Option<&mut [T]>; 2], accumulate: bool) {
        dispatch(level, Finish { totals: self, outputs, accumulate });
    }
}

struct Finish<'a, 'b, T> {
    totals: Totals<'a, T>,
    outputs: [Option<&'b mut [T]>; 2],
    accumulate: bool,
}

impl<T: Real> Body<T> for Finish<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<T>>(self, s: S) {
        let Self { totals, outputs, accumulate } = self;
        let total = totals.total(s);
        write_outputs(s, totals.split.shape.features, total, outputs, accumulate);
    }
}

/// Write the totals of `n` features to (or add them to) the outputs there are: one number a feature, or their sum.
#[inline(always)]
fn write_outputs<T: Real, S: Memory<T>>(
    s: S,
    n: usize,
    total: Option<[&[T]; 2]>,
    outputs: [Option<&mut [T]>; 2],
    accumulate: bool,
) {
    for (i, output) in outputs.into_iter().enumerate() {
        let Some(output) = output else { continue };
        // Of no rows there is no total.
        match total.map(|halves| halves[i]) {
            None => give(output, [T::from_f64(0.0)].iter().cycle(), accumulate),
            Some(total) if output.len() == n => give(output, total.iter(), accumulate),
            Some(total) => {
                let terms = Statistics::Centred.summed(Place::own(total.as_ptr()));
                // SAFETY: a total has `n` numbers.
                let [sum, _] = unsafe { sums(s, n, &terms, &mut Nothing) };
                give(output, [sum].iter(), accumulate);
            }
        }
    }
}

/// Totals to an output, or added to it.
#[inline(always)]
fn give<'a, T: Real>(output: &mut [T], totals: impl Iterator<Item = &'a T>, accumulate: bool) {
    let pairs = output.iter_mut().zip(totals);
    if accumulate {
        pairs.for_each(|(output, total)| *output = output.add(*total));
    } else {
        pairs.for_each(|(output, total)| *output = *total);
    }
}

/// Totals that were taken elsewhere, for [`write_outputs`].
pub(crate) struct Finished<'a, 'b, T> {
    pub(crate) totals: [&'a [T]; 2],
    pub(crate) outputs: [Option<&'b mut [T]>; 2],
    pub(crate) accumulate: bool,
}

impl<T: Real> Finished<'_, '_, T> {
    /// Write them to (or add them to) the outputs there are.
    pub(crate) fn write(self, level: Level) {
        dispatch(level, self);
    }
}

impl<T: Real> Body<T> for Finished<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<T>>(self, s: S) {
        write_outputs(s, self.totals[0].len(), Some(self.totals), self.outputs, self.accumulate);
    }
}

/// Sums over rows that grow: of dy x_hat, and of dy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Growing<T> {
    pub(crate) sums: [*mut T; 2],
    pub(super) start: Start,
}

/// Where sums stand. (As large as a pointer, because a copy of a smaller one beside some has to wait for it.)
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub(super) enum Start {
    /// They start at +0, whatever their memory holds,
    Zero,
    /// or go on from what it holds.
    Held,
}

impl<T: Real> Growing<T> {
    /// `count` of sums `i` from `at` on.
    ///
    /// # Safety
    /// There are as many.
    #[inline(always)]
    pub(super) unsafe fn get<S: Vector<T>>(self, s: S, i: usize, at: usize, count: usize) -> S::V {
        match self.start {
            Start::Zero => s.splat(T::from_f64(0.0)),
            // SAFETY: the caller's; they were written.
            Start::Held => unsafe { load(s, self.sums[i], at, count) },
        }
    }

    /// What sums `i` become.
    ///
    /// # Safety
    /// As [`Growing::get`]; they are this thread's.
    #[inline(always)]
    pub(super) unsafe fn set<S: Vector<T>>(self, s: S, i: usize, at: usize, count: usize, to: S::V) {
        // SAFETY: the caller's.
        unsafe { store(s, self.sums[i], at, count, to) };
    }

    /// Add dy x_hat and dy to number `i` of each.
    ///
    /// # Safety
    /// There is one, and it is this thread's.
    pub(crate) unsafe fn add(self, i: usize, dy: T, x_hat: T) {
        // SAFETY: the caller's.
        unsafe {
            let [weight, bias] = [self.sums[0].add(i), self.sums[1].add(i)];
            let [w, b] = match self.start {
                Start::Zero => [T::from_f64(0.0); 2],
                Start::Held => [*weight, *bias],
            };
            weight.write(dy.fma(x_hat, w));
            bias.write(b.add(dy));
        }
    }
}

/// One part's tree of nodes.
pub(crate) struct Tree<'a, T> {
    totals: Totals<'a, T>,
    first_slot: usize,
    /// The shard that grows.
    shard: usize,
    carry: Carry,
    /// The slot of the node that waits at each level.
    waiting: [usize; usize::BITS as usize],
    /// The slot of the node that grows.
    current: usize,
    /// Slots without a node, a bit each.
    free: usize,
    start: Start,
}

impl<T: Real> Tree<'_, T> {
    /// What the next row is added to.
    #[inline(always)]
    pub(crate) fn current(&self) -> Growing<T> {
        // SAFETY: a slot is a node.
        let sums = unsafe { self.totals.node(self.first_slot + self.current) };
        Growing { sums, start: self.start }
    }

    /// A row was added.
    #[inline(always)]
    pub(crate) fn row_done<S: Vector<T>>(&mut self, s: S, row: usize) {
        self.start = Start::Held;
        let (ends_node, ends_shard) = self.totals.split.ends(row);
        if ends_node {
            s.outlined(NodeDone { tree: self, ends_shard });
        }
    }

    #[inline(always)]
    fn node_done<S: Vector<T>>(&mut self, s: S) {
        let step = self.carry.push();
        for level in step.absorb {
            self.absorb(s, self.current, self.waiting[level]);
        }
        self.waiting[step.level] = self.current;
        self.current = self.free.trailing_zeros() as usize;
        self.free &= self.free - 1;
        self.start = Start::Zero;
    }

    #[inline(always)]
    fn shard_done<S: Vector<T>>(&mut self, s: S) {
        let mut left = self.carry.finish();
        let Some(mut total) = left.next().map(|level| self.waiting[level]) else { return };
        for level in left {
            self.absorb(s, self.waiting[level], total);
            total = self.waiting[level];
        }
        let (slot, shard) = (self.first_slot + total, self.totals.shard(self.shard));
        if slot != shard {
            self.free |= 1 << total;
            let nodes = &self.totals.nodes;
            // SAFETY: two nodes: a slot of this part, and its shard's.
            unsafe { nodes.row(slot).copy_to_nonoverlapping(nodes.row(shard), 2 * self.totals.half) };
        }
        self.shard += 1;
        self.carry =
            Carry::starting_at((self.totals.split.first_shard + self.shard) << self.totals.split.bits);
    }

    /// Add the node of slot `from` to that of `to`, and free it.
    #[inline(always)]
    fn absorb<S: Vector<T>>(&mut self, s: S, to: usize, from: usize) {
        // SAFETY: two slots of this part.
        unsafe { self.totals.add(s, self.first_slot + to, self.first_slot + from) };
        self.free |= 1 << from;
    }
}

/// Rows of sums of dy x_hat and of dy, or of x_hat and of dy, to be summed over rows.
pub(crate) struct Summands<'a, T> {
    /// As many numbers a row as the totals have features.
    pub(crate) rows: [&'a [T]; 2],
    /// Is it x_hat, which is to be multiplied by dy?
    pub(crate) factors: bool,
    /// Rows before these.
    pub(crate) first: usize,
}

impl<T: Real> Summands<'_, T> {
    /// Add them to `totals`.
    pub(crate) fn add_to(self, totals: &mut Tree<'_, T>, level: Level) {
        dispatch(level, AddRows { of: self, totals });
    }
}

/// The last row of a node was added, and of a shard with its last node. (Out of line: seldom, long, and the same for all
/// elements that are summed in one type.)
struct NodeDone<'a, 'b, T> {
    tree: &'b mut Tree<'a, T>,
    ends_shard: bool,
}

impl<T: Real, S: Vector<T>> Work<S> for NodeDone<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        self.tree.node_done(s);
        if self.ends_shard {
            self.tree.shard_done(s);
        }
    }
}

struct AddRows<'a, 'b, 'c, T> {
    of: Summands<'a, T>,
    totals: &'b mut Tree<'c, T>,
}

impl<T: Real> Body<T> for AddRows<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<T>>(self, s: S) {
        let Self { of, totals } = self;
        let n = totals.totals.split.shape.features;
        let [products, ones] = of.rows.map(|rows| rows.chunks_exact(n.max(1)));
        for (row, (products, ones)) in products.zip(ones).enumerate() {
            let sums = totals.current();
            let one = s.splat(T::from_f64(1.0));
            for at in (0..n).step_by(S::WIDTH) {
                let count = S::WIDTH.min(n - at);
                // SAFETY: the rows, and the halves of a node, have `n` numbers.
                unsafe {
                    let [w, b] = [sums.get(s, 0, at, count), sums.get(s, 1, at, count)];
                    let dy = load(s, ones.as_ptr(), at, count);
                    let factor = if of.factors { dy } else { one };
                    let product = load(s, products.as_ptr(), at, count);
                    sums.set(s, 0, at, count, s.fma(factor, product, w));
                    sums.set(s, 1, at, count, s.add(b, dy));
                }
            }
            totals.row_done(s, of.first + row);
        }
    }
}
