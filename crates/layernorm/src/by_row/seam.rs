//! The line of memory where two rows meet, on its way past the caches.
//!
//! A store past the caches fills a whole line, and the ends of a row are seldom line ends. To write the line where two
//! rows meet through the cache, in two parts, costs far more than its bytes: it is read first, and it interrupts the
//! lines that leave in order. So the end of a row waits here until the next row begins.

use super::last_pass::{Write, pieces};
use crate::Element;
use crate::vector::{LINE, Memory};
use std::mem::MaybeUninit;
use std::ops::Range;

/// The end of a row that waits for the beginning of the next one.
pub(crate) struct Seam<E> {
    /// The last line that became whole, and the one that waits: in turn, so that a line is read long after it was written.
    lines: Lines,
    waits: usize,
    /// Where the whole line belongs, if there is one,
    whole: *mut E,
    /// and the numbers at the beginning of the one that waits, and how many they are.
    waiting: (*mut E, usize),
}

/// Two lines, far enough from the end of a page: the beginning of a row is stored behind what waits, by a masked store that
/// reaches beyond the line. Where it reached into the next page, though with no lane, it took some hundred cycles.
#[repr(align(256))]
struct Lines([[MaybeUninit<u8>; LINE]; 2]);

impl<E: Element> Seam<E> {
    /// Elements in a line.
    pub(super) const LEN: usize = LINE / size_of::<E>();

    pub(crate) fn new() -> Self {
        let null = std::ptr::null_mut();
        Self { lines: Lines([[MaybeUninit::uninit(); LINE]; 2]), waits: 0, whole: null, waiting: (null, 0) }
    }

    /// Write what a row to `to` has beside its whole `lines`: the numbers before them, at once, and those behind, up to
    /// `n`, when their line is whole or [`Seam::leave`] is called.
    ///
    /// # Safety
    /// The row has `n` numbers, of which those from `at` on are to be written; `lines` are whole lines.
    #[inline(always)]
    pub(super) unsafe fn ends<S: Memory<E>, W: Write<E, S>>(
        &mut self,
        s: S,
        write: W,
        (to, at, n): (*mut E, usize, usize),
        lines: &Range<usize>,
    ) {
        let (waiting, count) = self.waiting;
        let joins = count > 0 && waiting.wrapping_add(count) == to.wrapping_add(at);
        // SAFETY: the caller's. A line holds the numbers that waited and those that follow them, as many as it has.
        unsafe {
            self.whole_leaves(s);
            let mut before = write;
            if joins {
                before = write.to(self.line(self.waits).wrapping_add(count).wrapping_sub(at));
                self.whole = waiting;
                self.waiting.1 = 0;
                self.waits ^= 1;
            } else {
                self.rest_leaves();
            }
            let behind = write.to(self.line(self.waits).wrapping_sub(lines.end));
            pieces(s, [(before, at..lines.start), (behind, lines.end..n)]);
            if lines.end < n {
                self.waiting = (to.add(lines.end), n - lines.end);
            }
        }
    }

    fn line(&mut self, index: usize) -> *mut E {
        self.lines.0[index & 1].as_mut_ptr().cast()
    }

    /// # Safety
    /// The rows that were written are still there.
    #[inline(always)]
    unsafe fn whole_leaves<S: Memory<E>>(&mut self, s: S) {
        if self.whole.is_null() {
            return;
        }
        let line = self.line(self.waits ^ 1);
        for i in (0..Self::LEN).step_by(S::WIDTH) {
            // SAFETY: the caller's.
            unsafe { s.write_past(self.whole.add(i), s.read(line.add(i))) };
        }
        self.whole = std::ptr::null_mut();
    }

    /// What waits leaves without the rest of its line.
    ///
    /// # Safety
    /// The rows that were written are still there.
    unsafe fn rest_leaves(&mut self) {
        let (to, count) = std::mem::replace(&mut self.waiting, (std::ptr::null_mut(), 0));
        if count > 0 {
            // SAFETY: the caller's; so many numbers wait.
            unsafe { to.copy_from_nonoverlapping(self.line(self.waits), count) };
        }
    }

    /// All that waits leaves, and what left past the caches may be read by another thread.
    ///
    /// # Safety
    /// The rows that were written are still there.
    #[inline(always)]
    pub(crate) unsafe fn leave<S: Memory<E>>(&mut self, s: S) {
        // SAFETY: the caller's.
        unsafe {
            self.whole_leaves(s);
            self.rest_leaves();
        }
        s.fence();
    }
}
