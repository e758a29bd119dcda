//! Short rows on their way past the cache.
//!
//! A streaming store fills a whole line, and the ends of a row are seldom line ends. For long rows the two
//! broken lines do not matter; for short ones they are most of the work. So short rows that follow each
//! other in memory are written to a buffer in cache first, and leave it line by line.

use crate::Element;
use crate::rows::Target;
use crate::vector::{LINE, Memory};

/// Rows of at most this many bytes are short,
const SHORT: usize = 2048;

/// if they have no more numbers than half of the buffer,
const ROOM: usize = 1024;

/// The buffer: its number `i` is number `i` of the output from `to` on.
#[repr(align(64))]
pub(super) struct Stage<E> {
    buffer: [E; ROOM],
    /// A line's start. The first one may lie before the first row.
    to: *mut E,
    /// The numbers that wait to leave.
    start: usize,
    end: usize,
    features: usize,
}

impl<E: Element> Stage<E> {
    /// For the rows from `row` on, if they are short and follow each other.
    ///
    /// # Safety
    /// The output has the row.
    pub(super) unsafe fn new(output: Target<'_, E>, row: usize, features: usize) -> Option<Self> {
        if features * size_of::<E>() > SHORT || features > ROOM / 2 || !output.is_every(features) {
            return None;
        }
        // SAFETY: the caller's.
        let to = unsafe { output.row(row) };
        let before = to.addr() % LINE / size_of::<E>();
        let buffer = [E::from_f64(0.0); ROOM];
        Some(Self { buffer, to: to.wrapping_sub(before), start: before, end: before, features })
    }

    /// Where to write the next row.
    pub(super) fn slot(&mut self) -> *mut E {
        self.buffer[self.end..].as_mut_ptr()
    }

    /// The row was written.
    ///
    /// # Safety
    /// The output has this row too, and it is this thread's.
    #[inline(always)]
    pub(super) unsafe fn row_done<S: Memory<E>>(&mut self, s: S) {
        self.end += self.features;
        if self.end + self.features > ROOM {
            // SAFETY: the caller's.
            unsafe { self.lines_leave(s) };
        }
    }

    /// Full lines leave the buffer.
    ///
    /// # Safety
    /// The output has all rows so far.
    #[inline(always)]
    unsafe fn lines_leave<S: Memory<E>>(&mut self, s: S) {
        let line = LINE / size_of::<E>();
        let full = self.end / line * line;
        if full == 0 {
            return;
        }
        let first = self.start.next_multiple_of(line);
        // SAFETY: the caller's, and `full <= end`; `to`, which may lie before the output, is a line's start.
        unsafe {
            self.plain(self.start, first);
            for at in (first..full).step_by(S::WIDTH) {
                s.write_past(self.to.wrapping_add(at), s.read(self.buffer.as_ptr().add(at)));
            }
        }
        self.buffer.copy_within(full..self.end, 0);
        self.to = self.to.wrapping_add(full);
        self.end -= full;
        self.start = 0;
    }

    /// All that waits leaves.
    ///
    /// # Safety
    /// The output has all rows so far.
    pub(super) unsafe fn finish<S: Memory<E>>(&mut self, s: S) {
        // SAFETY: the caller's.
        unsafe {
            self.lines_leave(s);
            self.plain(self.start, self.end);
        }
    }

    /// # Safety
    /// The output has these numbers.
    unsafe fn plain(&self, start: usize, end: usize) {
        // SAFETY: the caller's; `wrapping_add`, because `to` may lie before the output.
        unsafe {
            self.to
                .wrapping_add(start)
                .copy_from_nonoverlapping(self.buffer[start..end].as_ptr(), end - start);
        }
    }
}
