//! The canonical order of additions (version 0): every sum of the crate goes through here.
//!
//! The order is a function of the number of terms alone, so that the level, the number of threads and the
//! shape of a batch can change the speed and never a bit. `docs/numerics.md` states it for other
//! implementations, with the reasons and the measurements.
//!
//! - **Sums over a row.** Blocks of 256 numbers (f64: 128). In a block, number j goes to lane j mod 32
//!   (f64: 16), in index order, each lane starting at +0; a product is added by a true fma. The lanes of a
//!   block combine by the tree of adjacent pairs, and so do the blocks, where an odd one moves up.
//! - **Sums over rows** (the gradients of parameters). Chunks of eight rows, aligned to the global row index;
//!   in order inside a chunk, each sum starting at +0; chunks by the tree of adjacent pairs over their
//!   global indices, where one without a partner moves up. So totals of shards that are cut at multiples of
//!   2^k chunks are nodes of the tree of the whole.

use crate::{Real, vector::Vector};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// The version of the order. 0 until it is frozen; from 1 on, a change of bits is a breaking release.
///
/// ```
/// assert_eq!(layernorm::ORDER_VERSION, 0);
/// ```
pub const ORDER_VERSION: u32 = 0;

/// Rows of a chunk of the sums over rows.
pub(crate) const CHUNK: usize = 8;

/// Levels that a tree can have.
const LEVELS: usize = usize::BITS as usize;

/// The tree of adjacent pairs as a binary counter: leaves come in the order of their indices, a finished
/// node waits at its level for its right neighbour. It says what to add; the nodes are its user's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Carry {
    index: usize,
    waiting: usize,
}

/// What a new node does: it absorbs the nodes that wait at the levels of `absorb` (a bit a level, lowest
/// first), and then waits at `level` itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) absorb: Bits,
    pub(crate) level: usize,
}

/// The set bits of a number, lowest first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits(usize);

impl Iterator for Bits {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (bit < LEVELS).then_some(bit)
    }
}

impl Carry {
    /// A tree whose first leaf has this index.
    #[inline(always)]
    pub(crate) fn starting_at(index: usize) -> Self {
        Self { index, waiting: 0 }
    }

    /// The next leaf.
    #[inline(always)]
    pub(crate) fn push(&mut self) -> Step {
        let level = self.index.trailing_ones() as usize;
        let below = (1usize << level) - 1;
        let absorb = Bits(self.waiting & below);
        self.waiting = (self.waiting & !below) | (1 << level);
        self.index += 1;
        Step { absorb, level }
    }

    /// The nodes that are left, lowest first: each absorbs the one before it.
    #[inline(always)]
    pub(crate) fn finish(self) -> Bits {
        Bits(self.waiting)
    }
}

/// The tree of adjacent pairs over numbers, the first of which has index 0: a [`Carry`] in fewer steps.
struct Tree<T> {
    /// Leaves so far; a node waits at each level whose bit is set.
    leaves: usize,
    /// Those that wait. The others hold nothing: to clear them would cost more than a short sum.
    nodes: [MaybeUninit<T>; LEVELS],
}

impl<T: Real> Tree<T> {
    #[inline(always)]
    fn new() -> Self {
        Self { leaves: 0, nodes: [MaybeUninit::uninit(); LEVELS] }
    }

    #[inline(always)]
    fn push(&mut self, leaf: T) {
        let (mut node, mut level) = (leaf, 0);
        while self.leaves >> level & 1 == 1 {
            node = self.node(level).add(node);
            level += 1;
        }
        self.nodes[level].write(node);
        self.leaves += 1;
    }

    #[inline(always)]
    fn finish(&self) -> T {
        let mut left = Bits(self.leaves);
        let last = left.next().map_or(T::from_f64(0.0), |level| self.node(level));
        left.fold(last, |right, level| self.node(level).add(right))
    }

    /// The node that waits at a level.
    #[inline(always)]
    fn node(&self, level: usize) -> T {
        debug_assert!(self.leaves >> level & 1 == 1, "a node waits at level {level}");
        // SAFETY: the level's bit is set, so a node was written there.
        unsafe { self.nodes[level].assume_init() }
    }
}

/// The terms of one or two sums over the same positions.
pub(crate) trait Terms<T: Real, S: Vector<T>> {
    /// How many sums: 1 or 2. With one, the second of each pair is not looked at.
    const SUMS: usize;

    /// Add the terms at positions `at..at + count`, one to a lane, to the lanes of the sums. Lanes from
    /// `count` on must come back as they are.
    ///
    /// # Safety
    /// The positions exist; `count <= S::WIDTH`.
    unsafe fn add(&self, s: S, at: usize, count: usize, to: [S::V; 2]) -> [S::V; 2];
}

/// Other work done in the loop of a sum, to keep the memory busy during its arithmetic.
pub(crate) trait Beside<T: Real, S: Vector<T>> {
    /// Does the work go through memory in order? Then the sum should too, one block after the other.
    const STREAMS: bool;

    /// As much of the work as there is in a step of a sum: `T::LANES` numbers.
    ///
    /// # Safety
    /// What the type says.
    #[inline(always)]
    unsafe fn step(&mut self, s: S) {
        let _ = s;
    }

    /// As much of the work as there is after so many steps: in a loop of its own, which has all registers.
    ///
    /// # Safety
    /// What the type says.
    #[inline(always)]
    unsafe fn after(&mut self, s: S, steps: usize) {
        let _ = (s, steps);
    }
}

/// No other work.
pub(crate) struct Nothing;

/// No other work, of a sum that is taken one block after the other nevertheless: it is short, or seldom taken.
pub(crate) struct Plainly;

impl<T: Real, S: Vector<T>> Beside<T, S> for Nothing {
    const STREAMS: bool = false;
}

impl<T: Real, S: Vector<T>> Beside<T, S> for Plainly {
    const STREAMS: bool = true;
}

/// No other work now, of a sum between others that have the work `B` beside them.
pub(crate) struct Resting<B>(pub(crate) PhantomData<B>);

impl<T: Real, S: Vector<T>, B: Beside<T, S>> Beside<T, S> for Resting<B> {
    const STREAMS: bool = B::STREAMS;
}

/// Another work, all of it in the steps, if `evenly`.
pub(crate) struct Spread<'a, B> {
    pub(crate) work: &'a mut B,
    pub(crate) evenly: bool,
}

impl<T: Real, S: Vector<T>, B: Beside<T, S>> Beside<T, S> for Spread<'_, B> {
    const STREAMS: bool = B::STREAMS;

    #[inline(always)]
    unsafe fn step(&mut self, s: S) {
        // SAFETY: the caller's.
        unsafe {
            self.work.step(s);
            if self.evenly {
                self.work.after(s, 1);
            }
        }
    }

    #[inline(always)]
    unsafe fn after(&mut self, s: S, steps: usize) {
        if !self.evenly {
            // SAFETY: the caller's.
            unsafe { self.work.after(s, steps) };
        }
    }
}

/// Two works, one after the other in each step.
impl<T: Real, S: Vector<T>, A: Beside<T, S>, B: Beside<T, S>> Beside<T, S> for (&mut A, B) {
    const STREAMS: bool = A::STREAMS || B::STREAMS;

    #[inline(always)]
    unsafe fn step(&mut self, s: S) {
        // SAFETY: the caller's.
        unsafe {
            self.0.step(s);
            self.1.step(s);
        }
    }

    #[inline(always)]
    unsafe fn after(&mut self, s: S, steps: usize) {
        // SAFETY: the caller's.
        unsafe {
            self.0.after(s, steps);
            self.1.after(s, steps);
        }
    }
}

/// The sums of `terms` over the positions `0..n`, with a step of `beside` beside each of its own.
///
/// # Safety
/// Positions `0..n` of `terms` exist, and what `beside` wants.
#[inline(always)]
pub(crate) unsafe fn sums<T, S, A, B>(s: S, n: usize, terms: &A, beside: &mut B) -> [T; 2]
where
    T: Real,
    S: Vector<T>,
    A: Terms<T, S>,
    B: Beside<T, S>,
{
    let mut trees = [Tree::new(), Tree::new()];
    let mut at = 0;
    // An addition takes four cycles and two can start in each, so eight chains keep the adders busy. A
    // block has fewer where registers are wide; blocks do not depend on each other, so take several.
    let chains = T::LANES / S::WIDTH * A::SUMS;
    // SAFETY: the caller's; every call leaves `at` at a block's start, at most `n`.
    unsafe {
        if !B::STREAMS && chains <= 2 {
            full_blocks::<T, S, A, B, 4>(s, n, &mut at, &mut trees, terms, beside);
        } else if !B::STREAMS && chains <= 4 {
            full_blocks::<T, S, A, B, 2>(s, n, &mut at, &mut trees, terms, beside);
        }
        while at < n {
            let end = n.min(at + T::BLOCK);
            let totals = block::<T, S, A, B>(s, at, end, terms, beside);
            if end - at == n {
                return totals;
            }
            push(&mut trees, A::SUMS, totals);
            at = end;
        }
    }
    // By reference: a copy would wait for every store under way.
    [trees[0].finish(), trees[1].finish()]
}

/// Full blocks from `at` on, `K` at a time, while there are `K`.
///
/// # Safety
/// As [`sums`]; `at <= n`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "it is a part of `sums`, not a function of its own")]
unsafe fn full_blocks<T, S, A, B, const K: usize>(
    s: S,
    n: usize,
    at: &mut usize,
    trees: &mut [Tree<T>; 2],
    terms: &A,
    beside: &mut B,
) where
    T: Real,
    S: Vector<T>,
    A: Terms<T, S>,
    B: Beside<T, S>,
{
    while n - *at >= K * T::BLOCK {
        let mut lanes = [[s.zero_lanes(); 2]; K];
        for step in 0..std::hint::black_box(T::BLOCK / T::LANES) {
            for (k, lanes) in lanes.iter_mut().enumerate() {
                // SAFETY: block k lies below n, and the step in the block.
                unsafe { full_step(s, *at + k * T::BLOCK + step * T::LANES, terms, lanes) };
                // SAFETY: the caller's.
                unsafe { beside.step(s) };
            }
        }
        for [first, second] in lanes {
            push(trees, A::SUMS, [s.lane_tree(first), s.lane_tree(second)]);
        }
        *at += K * T::BLOCK;
    }
}

/// The block that begins at `at` and ends, full or not, at `end`.
///
/// # Safety
/// As [`sums`], with `n = end`; at least one position and at most a block of them.
#[inline(always)]
unsafe fn block<T, S, A, B>(s: S, start: usize, end: usize, terms: &A, beside: &mut B) -> [T; 2]
where
    T: Real,
    S: Vector<T>,
    A: Terms<T, S>,
    B: Beside<T, S>,
{
    // SAFETY: the caller's.
    let [first, second] = unsafe { lanes(s, start, end, terms, beside) };
    [s.lane_tree(first), s.lane_tree(second)]
}

/// The lanes of that block.
///
/// # Safety
/// As [`block`].
#[inline(always)]
pub(crate) unsafe fn lanes<T, S, A, B>(
    s: S,
    start: usize,
    end: usize,
    terms: &A,
    beside: &mut B,
) -> [S::Lanes; 2]
where
    T: Real,
    S: Vector<T>,
    A: Terms<T, S>,
    B: Beside<T, S>,
{
    let mut lanes = [s.zero_lanes(); 2];
    let mut at = start;
    while end - at >= T::LANES {
        // SAFETY: a step fits below `end`.
        unsafe { full_step(s, at, terms, &mut lanes) };
        // SAFETY: the caller's.
        unsafe { beside.step(s) };
        at += T::LANES;
    }
    // SAFETY: the caller's.
    unsafe { beside.after(s, (at - start) / T::LANES) };
    if at < end {
        for i in 0..T::LANES / S::WIDTH {
            let count = (end - at).min(S::WIDTH);
            if count == 0 {
                // Not even the parameters of a position that is not there may be read.
                break;
            }
            // SAFETY: `count` positions are left.
            unsafe { step(s, i, at, count, terms, &mut lanes) };
            at += count;
        }
    }
    lanes
}

/// `T::LANES` terms: one to each lane.
///
/// # Safety
/// The positions `at..at + T::LANES` exist.
#[inline(always)]
unsafe fn full_step<T, S, A>(s: S, at: usize, terms: &A, lanes: &mut [S::Lanes; 2])
where
    T: Real,
    S: Vector<T>,
    A: Terms<T, S>,
{
    for i in 0..T::LANES / S::WIDTH {
        // SAFETY: register i of the step.
        unsafe { step(s, i, at + i * S::WIDTH, S::WIDTH, terms, lanes) };
    }
}

/// `count` terms to the lanes of register `i`.
///
/// # Safety
/// The positions `at..at + count` exist.
#[inline(always)]
unsafe fn step<T, S, A>(s: S, i: usize, at: usize, count: usize, terms: &A, lanes: &mut [S::Lanes; 2])
where
    T: Real,
    S: Vector<T>,
    A: Terms<T, S>,
{
    let [first, second] = lanes;
    let (first, second) = (&mut first.as_mut()[i], &mut second.as_mut()[i]);
    // SAFETY: the caller's.
    [*first, *second] = unsafe { terms.add(s, at, count, [*first, *second]) };
}

#[inline(always)]
fn push<T: Real>(trees: &mut [Tree<T>; 2], sums: usize, totals: [T; 2]) {
    for (tree, total) in trees.iter_mut().zip(totals).take(sums) {
        tree.push(total);
    }
}
