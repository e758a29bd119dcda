//! Where the rows of a tensor lie in its memory.

use crate::error::Error;
use candle_core::{CpuStorage, Layout, WithDType};
use layernorm::Rows;

/// The rows of a tensor, in order, as blocks of evenly spaced rows: one block for a contiguous tensor or a slice of
/// one, several where axes before the last are swapped. Every block has as many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocks {
    features: usize,
    /// Rows in a block, and the distance between them.
    rows: usize,
    stride: usize,
    /// Where the first block starts.
    offset: usize,
    /// The axes over blocks, innermost first: length and stride.
    axes: Vec<(usize, usize)>,
}

impl Blocks {
    /// The rows of `features` values of a tensor of this layout, if no row has gaps.
    pub(crate) fn of(layout: &Layout, features: usize) -> Option<Self> {
        let offset = layout.start_offset();
        if layout.shape().elem_count() == 0 {
            return Some(Self { features, rows: 0, stride: features, offset, axes: Vec::new() });
        }
        let axes = layout.dims().iter().copied().zip(layout.stride().iter().copied());
        let mut axes = axes.rev().filter(|&(len, _)| len > 1).peekable();

        let mut run = 1; // values without a gap
        while let Some((len, _)) = axes.next_if(|&(_, stride)| stride == run) {
            run *= len;
        }
        if run % features != 0 {
            return None;
        }
        let (mut rows, mut stride) = (run / features, features);
        if rows == 1 {
            while let Some((len, next)) =
                axes.next_if(|&(_, next)| if rows == 1 { next >= features } else { next == rows * stride })
            {
                stride = if rows == 1 { next } else { stride };
                rows *= len;
            }
        }
        Some(Self { features, rows, stride, offset, axes: axes.collect() })
    }

    /// How many blocks.
    pub(crate) fn count(&self) -> usize {
        self.axes.iter().map(|&(len, _)| len).product()
    }

    /// Values in a block.
    pub(crate) fn len(&self) -> usize {
        self.rows * self.features
    }

    /// The rows of block `index` in the memory of the tensor.
    pub(crate) fn rows<'a, T>(&self, index: usize, memory: &'a [T]) -> Result<Rows<'a, T>, Error> {
        let (mut rest, mut start) = (index, self.offset);
        for &(len, stride) in &self.axes {
            start += rest % len * stride;
            rest /= len;
        }
        let memory = memory.get(start..).ok_or(Error::Rows)?;
        Ok(Rows::strided(memory, self.rows, self.features, self.stride)?)
    }
}

/// The values of a contiguous tensor.
pub(crate) fn values<'a, T: WithDType>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<&'a [T]> {
    let memory = T::cpu_storage_as_slice(storage)?;
    let (start, end) = layout.contiguous_offsets().ok_or(Error::Rows)?;
    Ok(memory.get(start..end).ok_or(Error::Rows)?)
}

#[cfg(test)]
mod tests {
    use super::Blocks;
    use candle_core::{Layout, Shape};

    /// (blocks, rows in each, stride)
    fn blocks_of(dims: &[usize], strides: &[usize], features: usize) -> Option<(usize, usize, usize)> {
        let layout = Layout::new(Shape::from(dims), strides.to_vec(), 0);
        Blocks::of(&layout, features).map(|blocks| (blocks.count(), blocks.rows, blocks.stride))
    }

    #[test]
    fn rows_that_need_no_copy() {
        assert_eq!(blocks_of(&[2, 3, 4], &[12, 4, 1], 4), Some((1, 6, 4)), "contiguous");
        assert_eq!(blocks_of(&[2, 3, 4], &[12, 4, 1], 12), Some((1, 2, 12)), "a row of two axes");
        assert_eq!(blocks_of(&[2, 6, 4], &[24, 4, 1], 8), Some((1, 6, 8)), "a row of half an axis");
        assert_eq!(blocks_of(&[3, 4], &[10, 1], 4), Some((1, 3, 10)), "a slice of columns");
        assert_eq!(blocks_of(&[2, 3, 4], &[30, 10, 1], 4), Some((1, 6, 10)), "the same, of three axes");
        assert_eq!(blocks_of(&[1, 3, 1, 4], &[7, 10, 99, 1], 4), Some((1, 3, 10)), "axes of one say nothing");
        assert_eq!(blocks_of(&[3, 1], &[5, 1], 1), Some((1, 3, 5)), "a column");
        assert_eq!(blocks_of(&[0, 4], &[4, 1], 4), Some((1, 0, 4)), "nothing");
        assert_eq!(blocks_of(&[4], &[1], 4), Some((1, 1, 4)), "one row");
        assert_eq!(blocks_of(&[], &[], 1), Some((1, 1, 1)), "one number");
        assert_eq!(blocks_of(&[2, 3, 4], &[4, 8, 1], 4), Some((2, 3, 8)), "batch and time swapped");
        assert_eq!(blocks_of(&[2, 5, 3, 4], &[60, 4, 20, 1], 4), Some((10, 3, 20)), "heads before time");
        assert_eq!(blocks_of(&[2, 4, 9], &[36, 9, 1], 18), Some((1, 4, 18)), "groups of channels");
        assert_eq!(blocks_of(&[2, 4, 9], &[99, 9, 1], 18), Some((2, 2, 18)), "groups of some channels");
        assert_eq!(blocks_of(&[3, 4], &[0, 1], 4), Some((3, 1, 4)), "broadcast over rows");
        assert_eq!(blocks_of(&[3, 4], &[2, 1], 4), Some((3, 1, 4)), "overlapping");
    }

    #[test]
    fn rows_that_need_one() {
        assert_eq!(blocks_of(&[3, 4], &[1, 3], 4), None, "transposed");
        assert_eq!(blocks_of(&[3, 4], &[1, 0], 4), None, "broadcast over features");
        assert_eq!(blocks_of(&[2, 3, 4], &[1, 8, 2], 12), None, "channels last");
    }

    #[test]
    fn blocks_start_where_the_tensor_says() -> Result<(), crate::error::Error> {
        let layout = Layout::new(Shape::from((2, 3, 2)), vec![2, 4, 1], 1);
        let blocks = Blocks::of(&layout, 2).ok_or(crate::error::Error::Rows)?;
        let memory: Vec<f32> = (0..13u8).map(f32::from).collect();
        let rows = |block| blocks.rows(block, &memory);
        assert_eq!((rows(0)?.row(0), rows(0)?.row(2)), (Some(&[1.0, 2.0][..]), Some(&[9.0, 10.0][..])));
        assert_eq!((rows(1)?.row(0), rows(1)?.row(2)), (Some(&[3.0, 4.0][..]), Some(&[11.0, 12.0][..])));
        Ok(())
    }
}
