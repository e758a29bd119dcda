//! Short rows on their way past the cache.
//!
//! A streaming store fills a whole line, and the ends of a row are seldom line ends. For long rows the two
//! broken lines do not matter; for short ones they are most of the work. So short rows that follow each
//! other in memory are written to a buffer in cache first, and leave it line by line.

use crate::Real;
use crate::rows::Target;
use crate::vector::{LINE, Vector};

/// Rows of at most this many bytes are short.
const SHORT: usize = 2048;

/// Numbers in the buffer. At least a line more than a short row of the smallest type.
const ROOM: usize = 1024;

/// The buffer: its number `i` is number `i` of the output from `to` on.
#[repr(align(64))]
pub(super) struct Stage<T> {
    buffer: [T; ROOM],
    /// A line's start. The first one may lie before the first row.
    to: *mut T,
    /// The numbers that wait to leave.
    start: usize,
    end: usize,
    features: usize,
}

impl<T: Real> Stage<T> {
    /// For the rows from `row` on, if they are short and follow each other.
    ///
    /// # Safety
    /// The output has the row.
    pub(super) unsafe fn new(output: Target<'_, T>, row: usize, features: usize) -> Option<Self> {
        if features * size_of::<T>() > SHORT || !output.is_every(features) {
            return None;
        }
        // SAFETY: the caller's.
        let to = unsafe { output.row(row) };
        let before = to.addr() % LINE / size_of::<T>();
        let buffer = [T::from_f64(0.0); ROOM];
        Some(Self { buffer, to: to.wrapping_sub(before), start: before, end: before, features })
    }

    /// Where to write the next row.
    pub(super) fn slot(&mut self) -> *mut T {
        self.buffer[self.end..].as_mut_ptr()
    }

    /// The row was written.
    ///
    /// # Safety
    /// The output has this row too, and it is this thread's.
    #[inline(always)]
    pub(super) unsafe fn row_done<S: Vector<T>>(&mut self, s: S) {
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
    unsafe fn lines_leave<S: Vector<T>>(&mut self, s: S) {
        let line = LINE / size_of::<T>();
        let full = self.end / line * line;
        if full == 0 {
            return;
        }
        let first = self.start.next_multiple_of(line);
        // SAFETY: the caller's, and `full <= end`; `to`, which may lie before the output, is a line's start.
        unsafe {
            self.plain(self.start, first);
            for at in (first..full).step_by(S::WIDTH) {
                s.stream(self.to.wrapping_add(at), s.load(self.buffer.as_ptr().add(at)));
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
    pub(super) unsafe fn finish<S: Vector<T>>(&mut self, s: S) {
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
