//! The last pass over a row, the one that writes: cut into steps that go beside the first pass over the next row.

use super::seam::{Seam, plain};
use crate::Element;
use crate::order::Beside;
use crate::real::private::Number;
use crate::rows::Place;
use crate::vector::{LINE, Memory, Work};
use std::marker::PhantomData;
use std::ops::Range;

/// What a last pass does.
pub(crate) trait Write<E: Element, S: Memory<E>>: Copy {
    /// `count` numbers from `at` on, past the cache if `stream`.
    ///
    /// # Safety
    /// The row has these numbers, `count <= S::WIDTH`; to `stream` they fill a register and the output is aligned
    /// to it.
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool);

    /// Where the row is read,
    fn input(&self) -> Place<E>;

    /// and where it is written, if there and as elements.
    fn output(&self) -> Option<*mut E>;

    /// The same, written to another place.
    fn to(self, output: *mut E) -> Self;
}

/// From so many numbers on, a pass that writes through the cache begins with a whole line, too.
pub(super) const fn long<E: Element>() -> usize {
    8 * E::Acc::LANES
}

/// `write` over the numbers of a row.
pub(crate) struct LastPass<E, W> {
    write: W,
    elements: PhantomData<E>,
    /// The next number,
    at: usize,
    /// and how many are left.
    left: usize,
    /// Where what is left goes on at the start of these, after whole steps.
    lines: Range<usize>,
    stream: bool,
}

impl<E: Element, W> LastPass<E, W> {
    /// Over the numbers from `at` to `n`. With a `seam` they go past the caches, all but the ends, which are done at once.
    ///
    /// # Safety
    /// The row has `n >= at` numbers, and so has the output.
    #[inline(always)]
    pub(crate) unsafe fn start<S: Memory<E>>(
        s: S,
        write: W,
        at: usize,
        n: usize,
        seam: Option<&mut Seam<E>>,
    ) -> Self
    where
        W: Write<E, S>,
    {
        let lines = 0..usize::MAX;
        let mut pass = Self { write, elements: PhantomData, at, left: n - at, lines, stream: false };
        let least = if seam.is_some() { Seam::<E>::LEN } else { long::<E>() };
        if pass.left < least {
            return pass;
        }
        let Some(to) = write.output() else { return pass };
        let first = at + to.wrapping_add(at).align_offset(LINE);
        let Some(seam) = seam else {
            // SAFETY: the caller's: so many numbers reach the end of a line.
            unsafe { plain(s, write, at..first) };
            pass.at = first;
            pass.left = n - first;
            return pass;
        };
        let after = to.wrapping_add(n).addr() % LINE / size_of::<E>();
        let lines = first..n - after;
        // SAFETY: the caller's; again, so many numbers reach the end of a line.
        unsafe { seam.ends(s, write, (to, at, n), &lines) };
        let next = write.input().bytes_on(n * size_of::<E>());
        pass.at = lines.start + behind(next, to.wrapping_add(lines.start), lines.len());
        pass.left = lines.len();
        pass.lines = lines;
        pass.stream = true;
        pass
    }

    /// What is left, of a pass that ran beside another: not much.
    ///
    /// # Safety
    /// The row is as it was at the start.
    #[inline(always)]
    pub(crate) unsafe fn finish<S: Memory<E>>(&mut self, s: S)
    where
        W: Write<E, S>,
    {
        if self.left >= E::Acc::LANES {
            let Self { write, elements, at, left, ref lines, stream } = *self;
            s.outlined(Whole(Self { write, elements, at, left, lines: lines.clone(), stream }));
            self.left = 0;
        } else {
            // SAFETY: the caller's.
            unsafe { self.less_than_a_step(s) };
        }
    }

    /// All of it, by itself.
    ///
    /// # Safety
    /// The row is as it was at the start.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Memory<E>>(&mut self, s: S)
    where
        W: Write<E, S>,
    {
        // SAFETY: the caller's.
        unsafe {
            while self.stream && self.left >= E::Acc::LANES {
                self.step(s);
            }
            while self.left >= E::Acc::LANES {
                self.registers(s, false);
                self.left -= E::Acc::LANES;
            }
            self.less_than_a_step(s);
        }
    }

    /// A step's numbers.
    ///
    /// # Safety
    /// They are left, and the row is as it was at the start; to `stream`, the output is at a line's start.
    #[inline(always)]
    unsafe fn registers<S: Memory<E>>(&mut self, s: S, stream: bool)
    where
        W: Write<E, S>,
    {
        for _ in 0..E::Acc::LANES / S::WIDTH {
            // SAFETY: the caller's.
            unsafe { self.write.numbers(s, self.at, S::WIDTH, stream) };
            self.at += S::WIDTH;
        }
    }

    /// The last numbers.
    ///
    /// # Safety
    /// The row is as it was at the start.
    #[inline(always)]
    unsafe fn less_than_a_step<S: Memory<E>>(&mut self, s: S)
    where
        W: Write<E, S>,
    {
        while self.left > 0 {
            let count = S::WIDTH.min(self.left);
            // SAFETY: the caller's. What goes past the caches is whole lines.
            unsafe { self.write.numbers(s, self.at, count, self.stream) };
            self.at += count;
            self.left -= count;
        }
    }
}

/// How many of `numbers` to leave for later, so that what is written to `to` stays behind what is `read` beside it, in
/// their places in a page. A processor takes a load for one of a store under way if those agree, and waits for it;
/// between rows of a whole number of pages they always would.
#[inline(always)]
fn behind<E: Element>(read: *const u8, to: *const E, numbers: usize) -> usize {
    const PAGE: usize = 4096;
    const DISTANCE: usize = 3 * LINE;
    let bytes = read.addr().wrapping_sub(to.addr()).wrapping_sub(DISTANCE) % PAGE;
    let later = bytes / LINE * Seam::<E>::LEN;
    let steps = numbers.saturating_sub(later) / E::Acc::LANES;
    if steps == 0 { 0 } else { numbers - steps * E::Acc::LANES }
}

/// A pass, all of it.
pub(super) struct Whole<E, W>(pub(super) LastPass<E, W>);

impl<E: Element, S: Memory<E>, W: Write<E, S>> Work<S> for Whole<E, W> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self(mut pass) = self;
        // SAFETY: the row is as it was at the start.
        unsafe { pass.run(s) };
    }
}

impl<E: Element, S: Memory<E>, W: Write<E, S>> Beside<E::Acc, S> for LastPass<E, W> {
    const STREAMS: bool = true;

    #[inline(always)]
    unsafe fn step(&mut self, s: S) {
        if self.left < E::Acc::LANES {
            return;
        }
        // SAFETY: a step is left; when streaming, it begins with a line.
        unsafe {
            if self.stream {
                self.registers(s, true);
            } else {
                self.registers(s, false);
            }
        }
        self.left -= E::Acc::LANES;
        if self.at == self.lines.end {
            self.at = self.lines.start;
        }
    }
}
