//! The last pass over a row, the one that writes: cut into steps that go beside the first pass over the next row.

use crate::Element;
use crate::order::Beside;
use crate::real::private::Number;
use crate::vector::{LINE, Memory, Work};
use std::marker::PhantomData;

/// What a last pass does.
pub(crate) trait Write<E: Element, S: Memory<E>>: Copy {
    /// `count` numbers from `at` on, past the cache if `stream`.
    ///
    /// # Safety
    /// The row has these numbers, `count <= S::WIDTH`; to `stream` they fill a register and the output is aligned
    /// to it.
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool);
}

/// `write` over the numbers of a row from `at` on.
pub(crate) struct LastPass<E, W> {
    write: W,
    elements: PhantomData<E>,
    at: usize,
    /// The row's length.
    n: usize,
    stream: bool,
}

impl<E: Element, W> LastPass<E, W> {
    /// Over the numbers from `at` on. With an output to `stream` to, as far as its first line at once.
    ///
    /// # Safety
    /// The row has `n >= at` numbers, and so has the output.
    #[inline(always)]
    pub(crate) unsafe fn start<S: Memory<E>>(
        s: S,
        write: W,
        at: usize,
        n: usize,
        stream: Option<*mut E>,
    ) -> Self
    where
        W: Write<E, S>,
    {
        let mut pass = Self { write, elements: PhantomData, at, n, stream: stream.is_some() };
        if let Some(output) = stream {
            // SAFETY: as far as the row goes.
            unsafe { pass.plain(s, n.min(at.saturating_add(output.wrapping_add(at).align_offset(LINE)))) };
        }
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
        // SAFETY: the caller's.
        unsafe {
            if self.n - self.at >= E::Acc::LANES {
                let Self { write, at, n, stream, elements } = *self;
                s.outlined(Rest(Self { write, at, n, stream, elements }));
                self.at = n - (n - at) % E::Acc::LANES;
            }
            self.plain(s, self.n);
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
        // SAFETY: as far as the row goes.
        unsafe {
            while self.n - self.at >= E::Acc::LANES {
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
    unsafe fn plain<S: Memory<E>>(&mut self, s: S, end: usize)
    where
        W: Write<E, S>,
    {
        while self.at < end {
            let count = S::WIDTH.min(end - self.at);
            // SAFETY: the caller's.
            unsafe { self.write.numbers(s, self.at, count, false) };
            self.at += count;
        }
    }
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

/// The full steps that are left of a pass.
struct Rest<E, W>(LastPass<E, W>);

impl<E: Element, S: Memory<E>, W: Write<E, S>> Work<S> for Rest<E, W> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self(mut pass) = self;
        while pass.n - pass.at >= E::Acc::LANES {
            // SAFETY: a step is left, in a row that `finish` promises to be as at the start.
            unsafe { pass.step::<2>(s) };
        }
    }
}

impl<E: Element, S: Memory<E>, W: Write<E, S>> Beside<E::Acc, S> for LastPass<E, W> {
    const STREAMS: bool = true;

    #[inline(always)]
    unsafe fn step<const HALVES: usize>(&mut self, s: S) {
        let count = HALVES * (E::Acc::LANES / 2);
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
