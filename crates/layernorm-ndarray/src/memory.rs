//! The memory of arrays: as rows for the kernels where they lie, or gathered into a buffer and scattered from it.
//!
//! All unsafe code of the crate is here. It works on pointers, because the gaps between the rows of a view may belong to
//! another view that is being written, so no slice may span them.

use crate::Axes;
use crate::layout::Layout;
use layernorm::{Element, Error, Rows, RowsMut};
use ndarray::{ArrayView, ArrayViewMut, Dimension};
use std::marker::PhantomData;
use std::ops::Range;

/// Bytes of a buffer, unless [`LEAST`] rows are more: it stays in the second cache beside its like.
const TILE: usize = 128 << 10;

/// Rows of a buffer, at least and at most: so many that a line of memory, which has one number of each of several rows, is
/// read once. Both are powers of two and multiples of the chunk of eight rows.
const LEAST: usize = 16;
const MOST: usize = 1024;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Rows whose starts are looked up at once.
const STARTS: usize = 64;

/// An array to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a, E> {
    start: *const E,
    pub(crate) layout: Layout<'a>,
    life: PhantomData<&'a [E]>,
}

/// Some rows of an array, to write or to change in place.
#[derive(Debug)]
pub(crate) struct Target<'a, E> {
    start: *mut E,
    pub(crate) layout: Layout<'a>,
    rows: Range<usize>,
    life: PhantomData<&'a mut [E]>,
}

// SAFETY: a source is a shared view by another name.
unsafe impl<E: Sync> Send for Source<'_, E> {}
// SAFETY: as above.
unsafe impl<E: Sync> Sync for Source<'_, E> {}
// SAFETY: a target is an exclusive view by another name.
unsafe impl<E: Send> Send for Target<'_, E> {}

impl<'a, E: Element> Source<'a, E> {
    /// All rows of an array. The axes must be checked.
    pub(crate) fn of<D: Dimension>(view: &'a ArrayView<'_, E, D>, axes: Axes<'a>) -> Self {
        let layout = Layout { shape: view.shape(), strides: view.strides(), axes };
        Self { start: view.as_ptr(), layout, life: PhantomData }
    }

    /// Some rows where they lie, if that is dense and evenly spaced.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Option<Rows<'a, E>> {
        let (start, stride) = self.layout.evenly(&rows)?;
        // SAFETY: these are numbers of the view, which is borrowed during 'a.
        unsafe {
            Rows::from_raw(self.start.wrapping_offset(start), rows.len(), self.layout.features(), stride)
        }
        .ok()
    }
}

impl<'a, E: Element> Target<'a, E> {
    /// All rows of an array. The axes must be checked.
    pub(crate) fn of<D: Dimension>(view: &'a mut ArrayViewMut<'_, E, D>, axes: Axes<'a>) -> Self {
        let start = view.as_mut_ptr();
        let layout = Layout { shape: view.shape(), strides: view.strides(), axes };
        Self { start, layout, rows: 0..layout.rows(), life: PhantomData }
    }

    /// As [`Source::rows`].
    pub(crate) fn rows(&mut self, rows: Range<usize>) -> Option<RowsMut<'_, E>> {
        self.expect(&rows);
        let (start, stride) = self.layout.evenly(&rows)?;
        // SAFETY: these are numbers of the view, of rows that are this target's, which is borrowed.
        unsafe {
            RowsMut::from_raw(self.start.wrapping_offset(start), rows.len(), self.layout.features(), stride)
        }
        .ok()
    }

    /// The numbers of the one row there is, where they lie, if that is side by side.
    pub(crate) fn numbers(&mut self) -> Option<&mut [E]> {
        self.expect(&(0..1));
        let (start, _) = self.layout.evenly(&(0..1))?;
        // SAFETY: these are numbers of the view, all of a row without gaps, which is this target's, which is borrowed.
        Some(unsafe {
            std::slice::from_raw_parts_mut(self.start.wrapping_offset(start), self.layout.features())
        })
    }

    /// The rows before `at`, and the others.
    pub(crate) fn split(&mut self, at: usize) -> [Target<'_, E>; 2] {
        self.expect(&(self.rows.start..at));
        [self.rows.start..at, at..self.rows.end].map(|rows| Target {
            start: self.start,
            layout: self.layout,
            rows,
            life: PhantomData,
        })
    }

    /// Are these rows of it? Others would be somebody else's.
    fn expect(&self, rows: &Range<usize>) {
        let own = &self.rows;
        assert!(own.start <= rows.start && rows.end <= own.end, "rows {rows:?} of a target with {own:?}");
    }
}

/// Rows of a buffer for arrays of this layout: a power of two, and a multiple of eight.
pub(crate) fn tile<E>(layout: Layout<'_>) -> usize {
    let rows = TILE / (padded::<E>(layout.features()) * size_of::<E>()).max(1);
    1 << rows.clamp(LEAST, MOST).ilog2()
}

/// The distance between rows of a buffer: an odd number of lines where rows are long, so that the same feature of many
/// rows is not always in the same set of the cache.
fn padded<E>(features: usize) -> usize {
    let line = LINE / size_of::<E>();
    if features <= 4 * line { features } else { (features.div_ceil(line) | 1) * line }
}

/// Some rows, side by side.
#[derive(Debug)]
pub(crate) struct Buffer<E> {
    memory: Vec<E>,
    features: usize,
    stride: usize,
}

impl<E: Element> Buffer<E> {
    /// For nothing.
    pub(crate) const fn new() -> Self {
        Self { memory: Vec::new(), features: 0, stride: 0 }
    }

    /// Room for the first rows of an array. Allocates, where there is too little.
    fn room(&mut self, layout: Layout<'_>, rows: usize) {
        self.features = layout.features();
        self.stride = padded::<E>(self.features);
        let len = rows * self.stride;
        if self.memory.len() < len {
            self.memory.resize(len, E::default());
        }
    }

    /// Room for rows like these, to write.
    pub(crate) fn rows_mut(&mut self, layout: Layout<'_>, rows: usize) -> Result<RowsMut<'_, E>, Error> {
        self.room(layout, rows);
        RowsMut::strided(&mut self.memory, rows, self.features, self.stride)
    }

    /// The numbers of its first row.
    pub(crate) fn numbers_mut(&mut self) -> &mut [E] {
        &mut self.memory[..self.features]
    }

    /// Rows of an array, copied.
    pub(crate) fn gather(&mut self, from: &Source<'_, E>, rows: Range<usize>) -> Result<Rows<'_, E>, Error> {
        self.room(from.layout, rows.len());
        copy::<_, true>((from.start.cast_mut(), from.layout), rows.clone(), (&mut self.memory, self.stride));
        Rows::strided(&self.memory, rows.len(), self.features, self.stride)
    }

    /// Rows of an array, copied, to change.
    pub(crate) fn gather_mut(
        &mut self,
        from: &Source<'_, E>,
        rows: Range<usize>,
    ) -> Result<RowsMut<'_, E>, Error> {
        self.gather(from, rows.clone())?;
        RowsMut::strided(&mut self.memory, rows.len(), self.features, self.stride)
    }

    /// As [`Buffer::gather_mut`], of an array that is to be changed in place.
    pub(crate) fn gather_target(
        &mut self,
        from: &Target<'_, E>,
        rows: Range<usize>,
    ) -> Result<RowsMut<'_, E>, Error> {
        from.expect(&rows);
        self.gather_mut(&Source { start: from.start, layout: from.layout, life: PhantomData }, rows)
    }

    /// Write the first rows to rows of an array that has as many features.
    pub(crate) fn scatter(&mut self, to: &mut Target<'_, E>, rows: Range<usize>) {
        to.expect(&rows);
        copy::<_, false>((to.start, to.layout), rows, (&mut self.memory, self.stride));
    }
}

/// Between an array and a buffer whose rows are `stride` apart: to the buffer if `GATHER`, else from it; in the order that goes
/// the shorter way through the array.
///
/// The array's rows and features are a view's, borrowed as the direction asks.
fn copy<E: Element, const GATHER: bool>(
    (array, layout): (*mut E, Layout<'_>),
    rows: Range<usize>,
    (buffer, stride): (&mut [E], usize),
) {
    let (features, (run, step)) = (layout.features(), layout.features_in_a_run());
    assert!(rows.end <= layout.rows() && !layout.shape.contains(&0), "rows {rows:?} of {:?}", layout.shape);
    assert!(features <= stride && rows.len() * stride <= buffer.len(), "a buffer of {}", buffer.len());
    let (mut starts, buffer) = ([0; STARTS], buffer.as_mut_ptr());
    for (block, first) in rows.clone().step_by(STARTS).enumerate() {
        let starts = &mut starts[..STARTS.min(rows.end - first)];
        layout.rows_from(first, starts);
        for feature in (0..features).step_by(run) {
            // SAFETY: the features of a run, of these rows; the buffer has room for them.
            unsafe {
                let array = array.offset(layout.feature(feature));
                let buffer = buffer.add(block * STARTS * stride + feature);
                if layout.rows_are_closer() {
                    across::<E, GATHER>((array, starts), (run, step), (buffer, stride));
                } else if step == 1 {
                    along::<E, GATHER>((array, starts), (run, 1), (buffer, stride));
                } else {
                    along::<E, GATHER>((array, starts), (run, step), (buffer, stride));
                }
            }
        }
    }
}

/// One number, this way or that.
///
/// # Safety
/// The array has it and the buffer has room for it.
#[inline(always)]
unsafe fn copy_number<E: Copy, const GATHER: bool>(array: *mut E, buffer: *mut E) {
    // SAFETY: the caller's.
    unsafe { if GATHER { *buffer = *array } else { *array = *buffer } }
}

/// Row by row: `run` features of each row, `step` apart.
///
/// # Safety
/// From `array` on there are these rows and features, and from `buffer` on room for them.
#[inline(always)]
unsafe fn along<E: Copy, const GATHER: bool>(
    (array, starts): (*mut E, &[isize]),
    (run, step): (usize, isize),
    (buffer, stride): (*mut E, usize),
) {
    for (row, start) in starts.iter().enumerate() {
        // SAFETY: the caller's; where there is no feature, nothing is read.
        unsafe {
            let (mut array, buffer) = (array.wrapping_offset(*start), buffer.add(row * stride));
            for feature in 0..run {
                copy_number::<E, GATHER>(array, buffer.add(feature));
                array = array.wrapping_offset(step);
            }
        }
    }
}

/// Rows and features of a square that is turned over in registers.
const SQUARE: usize = 4;

/// Features that are read at once: as many streams keep the memory busy.
const STREAMS: usize = 16;

/// Feature by feature: that feature of all rows. Rows that lie side by side go by squares.
///
/// # Safety
/// As [`along`].
unsafe fn across<E: Element, const GATHER: bool>(
    (array, starts): (*mut E, &[isize]),
    (run, step): (usize, isize),
    (buffer, stride): (*mut E, usize),
) {
    let (squares, rest) = (run / SQUARE, run % SQUARE);
    // After the last feature nothing is read.
    let of = |feature: usize| array.wrapping_offset((feature as isize).wrapping_mul(step));
    for first in (0..squares).step_by(STREAMS / SQUARE) {
        let features = (first..squares.min(first + STREAMS / SQUARE)).map(|square| square * SQUARE);
        for (group, starts) in starts.chunks(SQUARE).enumerate() {
            let side_by_side = starts.len() == SQUARE && starts.windows(2).all(|pair| pair[1] - pair[0] == 1);
            for feature in features.clone() {
                // SAFETY: the caller's; a feature of rows that lie side by side is one piece of memory.
                unsafe {
                    let buffer = buffer.add(group * SQUARE * stride + feature);
                    if side_by_side {
                        square::<E, GATHER>((of(feature).offset(starts[0]), step), (buffer, stride));
                    } else {
                        along::<E, GATHER>((of(feature), starts), (SQUARE, step), (buffer, stride));
                    }
                }
            }
        }
    }
    let done = squares * SQUARE;
    // SAFETY: the caller's.
    unsafe { along::<E, GATHER>((of(done), starts), (rest, step), (buffer.add(done), stride)) }
}

/// Four rows that lie side by side, and four features.
///
/// # Safety
/// As [`along`].
#[inline(always)]
unsafe fn square<E: Element, const GATHER: bool>(
    (array, step): (*mut E, isize),
    (buffer, stride): (*mut E, usize),
) {
    let by_feature = |feature: usize| array.wrapping_offset(feature as isize * step).cast::<[E; SQUARE]>();
    let by_row = |row: usize| buffer.wrapping_add(row * stride).cast::<[E; SQUARE]>();
    let mut numbers = [[E::default(); SQUARE]; SQUARE];
    for (i, line) in numbers.iter_mut().enumerate() {
        // SAFETY: the caller's: a feature of four rows, or four features of a row.
        *line = unsafe { if GATHER { by_feature(i).read() } else { by_row(i).read() } };
    }
    let turned: [[E; SQUARE]; SQUARE] = std::array::from_fn(|i| std::array::from_fn(|j| numbers[j][i]));
    for (i, line) in turned.into_iter().enumerate() {
        // SAFETY: as above.
        unsafe { if GATHER { by_row(i).write(line) } else { by_feature(i).write(line) } }
    }
}
