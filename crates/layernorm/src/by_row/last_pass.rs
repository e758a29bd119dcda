//! The last pass over a row, the one that writes: cut into steps that go beside the first pass over the next row.

use super::seam::Seam;
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

    /// All numbers of a range, which are whole registers, past the cache if `stream`.
    ///
    /// # Safety
    /// As [`Write::numbers`].
    #[inline(always)]
    unsafe fn registers(&self, s: S, of: Range<usize>, stream: bool) {
        let mut at = of.start;
        // SAFETY: the caller's.
        unsafe {
            while of.end - at >= E::Acc::LANES {
                for i in 0..E::Acc::LANES / S::WIDTH {
                    self.numbers(s, at + i * S::WIDTH, S::WIDTH, stream);
                }
                at += E::Acc::LANES;
            }
            registers(s, self, at..of.end, stream);
        }
    }

    /// Where the row is read,
    fn input(&self) -> Place<E>;

    /// and where it is written, if there and as elements.
    fn output(&self) -> Option<*mut E>;

    /// The same, written to another place.
    fn to(self, output: *mut E) -> Self;
}

/// From so many numbers on, a pass through the cache begins with a whole line, too.
pub(super) const fn long<E: Element>() -> usize {
    8 * E::Acc::LANES
}

/// [`Write::registers`] in a short loop.
///
/// # Safety
/// The same.
#[inline(always)]
pub(super) unsafe fn registers<E, S, W>(s: S, write: &W, of: Range<usize>, stream: bool)
where
    E: Element,
    S: Memory<E>,
    W: Write<E, S>,
{
    for at in of.step_by(S::WIDTH) {
        // SAFETY: the caller's.
        unsafe { write.numbers(s, at, S::WIDTH, stream) };
    }
}

/// Two pieces of a row through the cache, the first of which ends where the second begins, or before.
///
/// # Safety
/// The row has these numbers, and so have the outputs.
#[inline(always)]
pub(super) unsafe fn pieces<E, S, W>(s: S, [first, last]: [(W, Range<usize>); 2])
where
    E: Element,
    S: Memory<E>,
    W: Write<E, S>,
{
    let (mut write, mut piece) = first;
    // One loop for both: what it does is long.
    loop {
        while piece.start < piece.end {
            let count = S::WIDTH.min(piece.len());
            // SAFETY: the caller's.
            unsafe { write.numbers(s, piece.start, count, false) };
            piece.start += count;
        }
        if piece.end == last.1.end {
            return;
        }
        (write, piece) = (last.0, last.1.clone());
    }
}

/// `write` over the numbers of a row, past the caches.
#[derive(Clone)]
pub(crate) struct LastPass<E, W> {
    write: W,
    elements: PhantomData<E>,
    /// The next number,
    at: usize,
    /// and how many are left.
    left: usize,
    /// The whole lines of the row. What is left goes on at their start, after whole steps.
    lines: Range<usize>,
}

impl<E: Element, W> LastPass<E, W> {
    /// Of nothing.
    pub(crate) fn none(write: W) -> Self {
        Self { write, elements: PhantomData, at: 0, left: 0, lines: 0..0 }
    }

    /// Over the numbers from `at` to `n`. The ends of the row, and one that is too short, are written at once.
    ///
    /// # Safety
    /// The row has `n >= at` numbers, and so has the output.
    #[inline(always)]
    pub(crate) unsafe fn start<S: Memory<E>>(s: S, write: W, at: usize, n: usize, seam: &mut Seam<E>) -> Self
    where
        W: Write<E, S>,
    {
        let mut pass = Self::none(write);
        // SAFETY: the caller's.
        let lines = unsafe { ends(s, write, at, n, Some(seam)) };
        let Some(to) = write.output() else { return pass };
        let next = write.input().bytes_on(n * size_of::<E>());
        pass.at = lines.start + behind(next, to.wrapping_add(lines.start), lines.len());
        pass.left = lines.len();
        pass.lines = lines;
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
            // SAFETY: the caller's.
            unsafe { self.leave(s) };
        } else {
            // SAFETY: the caller's.
            unsafe { self.less_than_a_step(s) };
        }
    }

    /// What is left, which may be all, out of line.
    ///
    /// # Safety
    /// The row is as it was at the start.
    #[inline(always)]
    pub(crate) unsafe fn leave<S: Memory<E>>(&mut self, s: S)
    where
        W: Write<E, S>,
    {
        s.outlined(Rest(self.clone()));
        self.left = 0;
    }

    /// The last lines.
    ///
    /// # Safety
    /// The row is as it was at the start.
    #[inline(always)]
    unsafe fn less_than_a_step<S: Memory<E>>(&mut self, s: S)
    where
        W: Write<E, S>,
    {
        // SAFETY: the caller's; whole lines are left.
        unsafe { self.write.registers(s, self.at..self.at + self.left, true) };
        self.left = 0;
    }
}

/// `write` over the numbers of a row from `at` to `n`, beside nothing: with a `seam` past the caches, else through them.
///
/// # Safety
/// The row has `n >= at` numbers, and so has the output.
#[inline(always)]
pub(crate) unsafe fn by_itself<E, S, W>(s: S, write: W, at: usize, n: usize, seam: Option<&mut Seam<E>>)
where
    E: Element,
    S: Memory<E>,
    W: Write<E, S>,
{
    let stream = seam.is_some();
    // SAFETY: the caller's.
    unsafe {
        let rest = ends(s, write, at, n, seam);
        write.registers(s, rest, stream);
    }
}

/// The ends of what [`by_itself`] writes. Gives the rest: with a `seam` whole lines, else whole registers.
///
/// # Safety
/// As [`by_itself`].
#[inline(always)]
unsafe fn ends<E, S, W>(s: S, write: W, at: usize, n: usize, seam: Option<&mut Seam<E>>) -> Range<usize>
where
    E: Element,
    S: Memory<E>,
    W: Write<E, S>,
{
    let output = write.output();
    match (seam, output) {
        (Some(seam), Some(to)) if n - at >= Seam::<E>::LEN => {
            let after = to.wrapping_add(n).addr() % LINE / size_of::<E>();
            let lines = at + to.wrapping_add(at).align_offset(LINE)..n - after;
            // SAFETY: the caller's; so many numbers reach the end of a line.
            unsafe { seam.ends(s, write, (to, at, n), &lines) };
            lines
        }
        (Some(_), _) => {
            // SAFETY: the caller's.
            s.outlined(unsafe { ByItself::new(write, at, n, None) });
            n..n
        }
        (None, _) => {
            let mut first = at;
            if n - at >= long::<E>()
                && let Some(to) = output
            {
                first += to.wrapping_add(at).align_offset(LINE).min(n - at);
            }
            let last = n - (n - first) % S::WIDTH;
            // SAFETY: the caller's.
            unsafe { pieces(s, [(write, at..first), (write, last..n)]) };
            first..last
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

/// [`by_itself`], out of line and short.
pub(super) struct ByItself<'a, E, W> {
    write: W,
    at: usize,
    n: usize,
    seam: Option<&'a mut Seam<E>>,
}

impl<'a, E, W> ByItself<'a, E, W> {
    /// # Safety
    /// As [`by_itself`].
    pub(super) unsafe fn new(write: W, at: usize, n: usize, seam: Option<&'a mut Seam<E>>) -> Self {
        Self { write, at, n, seam }
    }
}

impl<E: Element, S: Memory<E>, W: Write<E, S>> Work<S> for ByItself<'_, E, W> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self { write, at, n, seam } = self;
        let stream = seam.is_some();
        // SAFETY: that of `new`.
        unsafe {
            let rest = ends(s, write, at, n, seam);
            registers(s, &write, rest, stream);
        }
    }
}

/// What is left of a pass.
struct Rest<E, W>(LastPass<E, W>);

impl<E: Element, S: Memory<E>, W: Write<E, S>> Work<S> for Rest<E, W> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self(mut pass) = self;
        // SAFETY: the row is as it was at the start.
        unsafe {
            pass.after(s, usize::MAX);
            pass.less_than_a_step(s);
        }
    }
}

impl<E: Element, S: Memory<E>, W: Write<E, S>> Beside<E::Acc, S> for LastPass<E, W> {
    const STREAMS: bool = true;

    #[inline(always)]
    unsafe fn after(&mut self, s: S, steps: usize) {
        let mut steps = steps.min(self.left / E::Acc::LANES);
        self.left -= steps * E::Acc::LANES;
        let (write, mut at) = (self.write, self.at);
        while steps > 0 {
            let here = steps.min((self.lines.end - at) / E::Acc::LANES);
            let end = at + here * E::Acc::LANES;
            // SAFETY: these steps are left, and begin with a line.
            unsafe { write.registers(s, at..end, true) };
            at = end;
            steps -= here;
            if at == self.lines.end {
                at = self.lines.start;
            }
        }
        self.at = at;
    }
}
