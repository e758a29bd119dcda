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

/// Between an array and a buffer whose rows are `stride` apart: to the buffer if `GATHER`, else from it.
///
/// The array's rows and features are a view's, borrowed as the direction asks.
fn copy<E: Element, const GATHER: bool>(
    (array, layout): (*mut E, Layout<'_>),
    rows: Range<usize>,
    (buffer, stride): (&mut [E], usize),
) {
    assert!(rows.end <= layout.rows() && !layout.shape.contains(&0), "rows {rows:?} of {:?}", layout.shape);
    for_each_number(layout, rows, stride, |offset, index| {
        // SAFETY: a row and a feature of the view.
        unsafe {
            let number = array.offset(offset);
            if GATHER { buffer[index] = *number } else { *number = buffer[index] }
        }
    });
}

/// Calls `each` with where a number of these rows is in the array, and where in a buffer of rows `stride` apart; in the
/// order that goes the shorter way through the array.
#[inline(always)]
fn for_each_number(
    layout: Layout<'_>,
    rows: Range<usize>,
    stride: usize,
    mut each: impl FnMut(isize, usize),
) {
    let mut starts = [0; STARTS];
    let (features, (run, step)) = (layout.features(), layout.features_in_a_run());
    let by_feature = layout.rows_are_closer();
    for (block, first) in rows.clone().step_by(STARTS).enumerate() {
        let starts = &mut starts[..STARTS.min(rows.end - first)];
        layout.rows_from(first, starts);
        let buffer = block * STARTS * stride;
        for first in (0..features).step_by(run) {
            let to_run = layout.feature(first);
            if by_feature {
                let mut offset = to_run;
                for feature in first..first + run {
                    for (row, start) in starts.iter().enumerate() {
                        each(start + offset, buffer + row * stride + feature);
                    }
                    offset += step;
                }
            } else {
                for (row, start) in starts.iter().enumerate() {
                    let (from, to) = (start + to_run, buffer + row * stride + first);
                    if step == 1 {
                        for (offset, index) in (from..).zip(to..to + run) {
                            each(offset, index);
                        }
                    } else {
                        let mut offset = from;
                        for index in to..to + run {
                            each(offset, index);
                            offset += step;
                        }
                    }
                }
            }
        }
    }
}
