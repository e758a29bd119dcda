//! Where the rows of a tensor lie in its memory.

use crate::error::Error;
use candle_core::{CpuStorage, Layout, WithDType};
use layernorm::Rows;

/// Evenly spaced rows in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a, T> {
    memory: &'a [T],
    rows: usize,
    features: usize,
    stride: usize,
}

impl<'a, T> Block<'a, T> {
    /// As the kernels take rows.
    pub(crate) fn rows(self) -> Result<Rows<'a, T>, layernorm::Error> {
        Rows::strided(self.memory, self.rows, self.features, self.stride)
    }

    /// No rows.
    pub(crate) fn none() -> Self {
        Self { memory: &[], rows: 0, features: 0, stride: 0 }
    }

    /// How many rows.
    pub(crate) fn count(self) -> usize {
        self.rows
    }

    /// Values in a row.
    pub(crate) fn features(self) -> usize {
        self.features
    }

    /// All their values, of rows without gaps.
    pub(crate) fn values(self) -> &'a [T] {
        debug_assert!(self.rows < 2 || self.stride == self.features, "blocks without gaps were asked for");
        self.memory.get(..self.rows * self.features).unwrap_or(self.memory)
    }
}

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

    /// The same rows, as blocks in which one begins where the one before ends.
    pub(crate) fn without_gaps(mut self) -> Self {
        if self.rows > 1 && self.stride != self.features {
            self.axes.insert(0, (self.rows, self.stride));
            (self.rows, self.stride) = (1, self.features);
        }
        self
    }

    /// Block `index` in the memory of the tensor.
    pub(crate) fn block<'a, T>(&self, index: usize, memory: &'a [T]) -> Result<Block<'a, T>, Error> {
        let (mut rest, mut start) = (index, self.offset);
        for &(len, stride) in &self.axes {
            start += rest % len * stride;
            rest /= len;
        }
        let memory = memory.get(start..).ok_or(Error::Rows)?;
        let Self { rows, features, stride, .. } = *self;
        Ok(Block { memory, rows, features, stride })
    }
}

/// A tensor as candle hands it to an operation.
pub(crate) type Stored<'a> = (&'a CpuStorage, &'a Layout);

/// The values of a contiguous tensor.
pub(crate) fn values<'a, T: WithDType>((storage, layout): Stored<'a>) -> candle_core::Result<&'a [T]> {
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
    fn rows_apart_are_blocks_without_gaps() -> Result<(), crate::error::Error> {
        let layout = Layout::new(Shape::from((2, 3, 2)), vec![20, 6, 1], 1);
        let blocks = Blocks::of(&layout, 2).ok_or(crate::error::Error::Rows)?.without_gaps();
        assert_eq!((blocks.count(), blocks.rows, blocks.stride), (6, 1, 2));
        let memory: Vec<f32> = (0..40u8).map(f32::from).collect();
        let starts = [1.0, 7.0, 13.0, 21.0, 27.0, 33.0];
        for (index, start) in starts.into_iter().enumerate() {
            assert_eq!(blocks.block(index, &memory)?.values(), [start, start + 1.0]);
        }
        let whole = Blocks::of(&Layout::contiguous((4, 5)), 5).ok_or(crate::error::Error::Rows)?;
        assert_eq!(whole.clone().without_gaps(), whole);
        Ok(())
    }

    #[test]
    fn blocks_start_where_the_tensor_says() -> Result<(), crate::error::Error> {
        let layout = Layout::new(Shape::from((2, 3, 2)), vec![2, 4, 1], 1);
        let blocks = Blocks::of(&layout, 2).ok_or(crate::error::Error::Rows)?;
        let memory: Vec<f32> = (0..13u8).map(f32::from).collect();
        let rows = |block| Ok::<_, crate::error::Error>(blocks.block(block, &memory)?.rows()?);
        assert_eq!((rows(0)?.row(0), rows(0)?.row(2)), (Some(&[1.0, 2.0][..]), Some(&[9.0, 10.0][..])));
        assert_eq!((rows(1)?.row(0), rows(1)?.row(2)), (Some(&[3.0, 4.0][..]), Some(&[11.0, 12.0][..])));
        Ok(())
    }
}
