//! Where the rows of an array lie in its memory. Arithmetic only: nothing here reads or writes.

use crate::Axes;
use std::ops::Range;

/// Shape and strides of an array, and which of its axes a row is made of.
///
/// Only of arrays that exist, so that every product of lengths is a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout<'a> {
    pub(crate) shape: &'a [usize],
    pub(crate) strides: &'a [isize],
    pub(crate) axes: Axes<'a>,
}

/// Rows that are evenly spaced: how many, how far apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) rows: usize,
    pub(crate) stride: usize,
}

impl<'a> Layout<'a> {
    /// Length and stride of the axes over features, or over rows, innermost first; without those of length one,
    /// whose stride says nothing.
    fn axes_of(self, features: bool) -> impl Iterator<Item = (usize, isize)> + 'a {
        let axes = self.shape.iter().copied().zip(self.strides.iter().copied()).enumerate().rev();
        axes.filter_map(move |(axis, (len, stride))| {
            (len != 1 && self.axes.has(axis) == features).then_some((len, stride))
        })
    }

    /// Lengths of the normalised axes, in order.
    pub(crate) fn feature_shape(self) -> impl Iterator<Item = usize> + 'a {
        self.shape
            .iter()
            .copied()
            .enumerate()
            .filter_map(move |(axis, len)| self.axes.has(axis).then_some(len))
    }

    pub(crate) fn features(self) -> usize {
        self.axes_of(true).map(|(len, _)| len).product()
    }

    pub(crate) fn rows(self) -> usize {
        self.axes_of(false).map(|(len, _)| len).product()
    }

    /// Do the features of a row lie side by side?
    pub(crate) fn is_dense(self) -> bool {
        let mut run = 1;
        self.axes_of(true).all(|(len, stride)| {
            let dense = usize::try_from(stride) == Ok(run);
            run *= len;
            dense
        })
    }

    /// The longest run of rows, from the first on, that are evenly spaced and do not overlap. All others follow in runs as
    /// long. Of rows whose features are dense.
    pub(crate) fn block(self) -> Block {
        let features = self.features();
        let mut block = Block { rows: 1, stride: features };
        for (len, stride) in self.axes_of(false) {
            let Ok(stride) = usize::try_from(stride) else { break };
            let fits = match block.rows {
                1 => stride >= features,
                rows => rows.checked_mul(block.stride) == Some(stride),
            };
            if !fits {
                break;
            }
            if block.rows == 1 {
                block.stride = stride;
            }
            block.rows *= len;
        }
        block
    }

    /// Where the first of these rows starts, and how far apart they are, if they lie as the kernels want them: dense and
    /// evenly spaced. `None` of rows that are not there.
    pub(crate) fn evenly(self, rows: &Range<usize>) -> Option<(isize, usize)> {
        if rows.end > self.rows() {
            return None;
        }
        if rows.is_empty() || self.features() == 0 {
            return Some((0, self.features()));
        }
        let block = self.is_dense().then(|| self.block())?;
        let same = rows.start / block.rows == (rows.end - 1) / block.rows;
        same.then(|| (self.row(rows.start), block.stride))
    }

    /// Where a row starts.
    pub(crate) fn row(self, row: usize) -> isize {
        place(self.axes_of(false), row)
    }

    /// Where the rows from `first` on start.
    pub(crate) fn rows_from(self, first: usize, starts: &mut [isize]) {
        let (run, stride) = self.axes_of(false).next().unwrap_or((1, 0));
        let mut at = 0;
        while at < starts.len() {
            let row = first + at;
            let start = self.row(row);
            let run = (run - row % run).min(starts.len() - at);
            let mut next = start;
            for start in &mut starts[at..at + run] {
                *start = next;
                next = next.wrapping_add(stride);
            }
            at += run;
        }
    }

    /// Where a feature is, from the start of its row.
    pub(crate) fn feature(self, feature: usize) -> isize {
        place(self.axes_of(true), feature)
    }

    /// The innermost axis of features: how many, and how far apart.
    pub(crate) fn features_in_a_run(self) -> (usize, isize) {
        self.axes_of(true).next().unwrap_or((1, 1))
    }

    /// Is it a shorter way to the next row than to the next feature?
    pub(crate) fn rows_are_closer(self) -> bool {
        let (_, feature) = self.features_in_a_run();
        self.axes_of(false).next().is_some_and(|(_, row)| row.unsigned_abs() < feature.unsigned_abs())
    }
}

/// Where index `index` into these axes (innermost first) is.
fn place(axes: impl Iterator<Item = (usize, isize)>, index: usize) -> isize {
    let (mut left, mut place) = (index, 0);
    for (len, stride) in axes {
        #[allow(clippy::cast_possible_wrap, reason = "an index into an axis is less than its length")]
        let step = (left % len) as isize;
        place += step * stride;
        left /= len;
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Axis;

    /// (rows, stride) of a block, if features are dense.
    fn block_of(shape: &[usize], strides: &[isize], axes: &[usize]) -> Option<(usize, usize)> {
        let axes: Vec<Axis> = axes.iter().copied().map(Axis).collect();
        let layout = Layout { shape, strides, axes: Axes::All(&axes) };
        layout.is_dense().then(|| layout.block()).map(|block| (block.rows, block.stride))
    }

    #[test]
    fn rows_that_need_no_copy() {
        assert_eq!(block_of(&[2, 3, 4], &[12, 4, 1], &[2]), Some((6, 4)), "contiguous");
        assert_eq!(block_of(&[2, 3, 4], &[12, 4, 1], &[1, 2]), Some((2, 12)), "a row of two axes");
        assert_eq!(block_of(&[4, 3], &[1, 4], &[0]), Some((3, 4)), "columns of a matrix in Fortran's order");
        assert_eq!(block_of(&[3, 4], &[10, 1], &[1]), Some((3, 10)), "a slice of columns");
        assert_eq!(block_of(&[1, 3, 1, 4], &[7, 10, 99, 1], &[3]), Some((3, 10)), "axes of one say nothing");
        assert_eq!(block_of(&[3, 1], &[5, -7], &[1]), Some((3, 5)), "one feature");
        assert_eq!(block_of(&[4], &[1], &[0]), Some((1, 4)), "one row");
        assert_eq!(
            block_of(&[2, 3, 4], &[4, 8, 1], &[2]),
            Some((3, 8)),
            "batch and time swapped: two blocks"
        );
        assert_eq!(block_of(&[3, 4], &[0, 1], &[1]), Some((1, 4)), "broadcast over rows");
        assert_eq!(block_of(&[3, 4], &[-4, 1], &[1]), Some((1, 4)), "from the last row to the first");
        assert_eq!(block_of(&[3, 4], &[2, 1], &[1]), Some((1, 4)), "overlapping");
    }

    #[test]
    fn rows_that_need_one() {
        assert_eq!(block_of(&[3, 4], &[1, 3], &[1]), None, "transposed");
        assert_eq!(block_of(&[3, 4], &[4, 1], &[0]), None, "columns");
        assert_eq!(block_of(&[3, 4], &[4, -1], &[1]), None, "backwards");
        assert_eq!(block_of(&[3, 4], &[1, 0], &[1]), None, "broadcast over features");
        assert_eq!(block_of(&[2, 3, 4], &[12, 4, 1], &[0, 2]), None, "axes apart");
    }

    #[test]
    fn places() {
        let layout = Layout { shape: &[2, 3, 2, 2], strides: &[-20, 5, 2, 100], axes: Axes::One(Axis(2)) };
        assert_eq!((layout.rows(), layout.features()), (12, 2));
        let mut starts = [0; 11];
        layout.rows_from(1, &mut starts);
        assert_eq!(starts, [100, 5, 105, 10, 110, -20, 80, -15, 85, -10, 90]);
        assert!((0..11).all(|row| layout.row(row + 1) == starts[row]), "one by one");
        assert_eq!(layout.feature(1), 2);
        assert!(!layout.rows_are_closer());
    }
}
