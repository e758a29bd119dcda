//! The last pass over a row, the one that writes: cut into steps that go beside the first pass over the next row.

use crate::Real;
use crate::order::Beside;
use crate::vector::{LINE, Vector};

/// What a last pass does.
pub(super) trait Write<T: Real, S: Vector<T>> {
    /// `count` numbers from `at` on, past the cache if `stream`.
    ///
    /// # Safety
    /// The row has these numbers, `count <= S::WIDTH`; to `stream` they fill a register and the output is aligned
    /// to it.
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool);
}

/// `write` over the numbers of a row from `at` on.
pub(super) struct LastPass<W> {
    write: W,
    at: usize,
    /// The row's length.
    n: usize,
    stream: bool,
}

impl<W> LastPass<W> {
    /// Over the numbers from `at` on. With an output to `stream` to, as far as its first line at once.
    ///
    /// # Safety
    /// The row has `n >= at` numbers, and so has the output.
    #[inline(always)]
    pub(super) unsafe fn start<T: Real, S: Vector<T>>(
        s: S,
        write: W,
        at: usize,
        n: usize,
        stream: Option<*mut T>,
    ) -> Self
    where
        W: Write<T, S>,
    {
        let mut pass = Self { write, at, n, stream: stream.is_some() };
        if let Some(output) = stream {
            // SAFETY: as far as the row goes.
            unsafe { pass.plain(s, n.min(at.saturating_add(output.wrapping_add(at).align_offset(LINE)))) };
        }
        pass
    }

    /// What is left.
    ///
    /// # Safety
    /// The row is as it was at the start.
    #[inline(always)]
    pub(super) unsafe fn finish<T: Real, S: Vector<T>>(&mut self, s: S)
    where
        W: Write<T, S>,
    {
        // SAFETY: as far as the row goes.
        unsafe {
            while self.n - self.at >= T::LANES {
                self.step::<2>(s);
            }
            self.plain(s, self.n);
        }
    }

    /// Up to `end`, with plain stores.
    ///
    /// # Safety
    /// `end <= n`.
    #[inline(always)]
    unsafe fn plain<T: Real, S: Vector<T>>(&mut self, s: S, end: usize)
    where
        W: Write<T, S>,
    {
        while self.at < end {
            let count = S::WIDTH.min(end - self.at);
            // SAFETY: the caller's.
            unsafe { self.write.numbers(s, self.at, count, false) };
            self.at += count;
        }
    }
}

impl<T: Real, S: Vector<T>, W: Write<T, S>> Beside<T, S> for LastPass<W> {
    const STREAMS: bool = true;

    #[inline(always)]
    unsafe fn step<const LINES: usize>(&mut self, s: S) {
        let count = LINES * (LINE / size_of::<T>());
        if self.n - self.at < count {
            return;
        }
        for _ in 0..count / S::WIDTH {
            // SAFETY: a step is left; when streaming, the output was aligned at the start.
            unsafe { self.write.numbers(s, self.at, S::WIDTH, self.stream) };
            self.at += S::WIDTH;
        }
    }
}
