//! Where the rows of a tensor lie in its memory.

use crate::error::Error;
use candle_core::Layout;
use layernorm::{Heads, Rows};

/// Evenly spaced rows in memory, or evenly spaced groups of rows without gaps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a, T> {
    memory: &'a [T],
    lie: Lie,
}

/// How the rows of a block lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lie {
    features: usize,
    /// Rows in a group, and the distance between them.
    rows: usize,
    stride: usize,
    /// Groups, and the distance between them. All rows are one group, unless that is asked for.
    groups: usize,
    distance: usize,
}

impl<'a, T> Block<'a, T> {
    /// As the kernels take rows.
    pub(crate) fn rows(self) -> Result<Rows<'a, T>, layernorm::Error> {
        let Lie { features, rows, stride, groups, distance } = self.lie;
        if groups == 1 {
            return Rows::strided(self.memory, rows, features, stride);
        }
        let heads = Heads { tokens: groups, heads: rows, head_dim: features, stride: distance, offset: 0 };
        Rows::heads(self.memory, heads)
    }

    /// No rows.
    pub(crate) fn none() -> Self {
        Self { memory: &[], lie: Lie { features: 0, rows: 0, stride: 0, groups: 1, distance: 0 } }
    }

    /// How many rows.
    pub(crate) fn count(self) -> usize {
        self.lie.rows * self.lie.groups
    }

    /// Values in a row.
    pub(crate) fn features(self) -> usize {
        self.lie.features
    }

    /// All their values, of rows without gaps.
    pub(crate) fn values(self) -> &'a [T] {
        let Lie { features, rows, stride, groups, .. } = self.lie;
        debug_assert!(groups == 1 && (rows < 2 || stride == features), "blocks without gaps were asked for");
        self.memory.get(..rows * features).unwrap_or(self.memory)
    }
}

/// The rows of a tensor, in order, as blocks of evenly spaced rows: one block for a contiguous tensor or a slice of
/// one, several where axes before the last are swapped. Every block has as many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// How the rows of each lie.
    lie: Lie,
    /// Where the first block starts.
    offset: usize,
    /// The axes over blocks, innermost first: length and stride.
    axes: Vec<(usize, usize)>,
}

impl Blocks {
    /// The rows of `features` values of a tensor of this layout, if no row has gaps.
    pub(crate) fn of(layout: &Layout, features: usize) -> Option<Self> {
        let offset = layout.start_offset();
        let of = |rows, stride, axes| {
            Some(Self { lie: Lie { features, rows, stride, groups: 1, distance: 0 }, offset, axes })
        };
        if layout.shape().elem_count() == 0 {
            return of(0, features, Vec::new());
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
        of(rows, stride, axes.collect())
    }

    /// The rows of the last axis of a tensor, if they are evenly spaced.
    pub(crate) fn of_last_axis(layout: &Layout) -> Option<Self> {
        Self::of(layout, layout.dims().last().copied().unwrap_or(1))?.if_one()
    }

    /// These, if there is but one.
    pub(crate) fn if_one(self) -> Option<Self> {
        (self.count() == 1).then_some(self)
    }

    /// How many blocks.
    pub(crate) fn count(&self) -> usize {
        self.axes.iter().map(|&(len, _)| len).product()
    }

    /// Values in a block.
    pub(crate) fn len(&self) -> usize {
        self.lie.rows * self.lie.groups * self.lie.features
    }

    /// The same rows, as blocks in which one begins where the one before ends.
    pub(crate) fn without_gaps(mut self) -> Self {
        let Lie { features, rows, stride, .. } = self.lie;
        if rows > 1 && stride != features {
            self.axes.insert(0, (rows, stride));
            (self.lie.rows, self.lie.stride) = (1, features);
        }
        self
    }

    /// The same rows, as fewer blocks: evenly spaced ones without gaps inside become groups of one. So do the heads of
    /// the queries of each token, in a buffer that has its keys and values too.
    pub(crate) fn in_groups(mut self) -> Self {
        let lie = &mut self.lie;
        while let Some(&(len, next)) = self.axes.first()
            && lie.rows > 1
            && lie.stride == lie.features
        {
            match lie.groups {
                1 if next >= lie.rows * lie.features => lie.distance = next,
                1 => break,
                groups if next == groups * lie.distance => {}
                _ => break,
            }
            lie.groups *= len;
            self.axes.remove(0);
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
        Ok(Block { memory, lie: self.lie })
    }
}

#[cfg(test)]
mod tests {
    use super::Blocks;
    use candle_core::{Layout, Shape};

    /// (blocks, rows in each, stride)
    fn blocks_of(dims: &[usize], strides: &[usize], features: usize) -> Option<(usize, usize, usize)> {
        let layout = Layout::new(Shape::from(dims), strides.to_vec(), 0);
        Blocks::of(&layout, features).map(|blocks| (blocks.count(), blocks.lie.rows, blocks.lie.stride))
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
        assert_eq!((blocks.count(), blocks.lie.rows, blocks.lie.stride), (6, 1, 2));
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
    fn blocks_of_rows_without_gaps_are_groups() -> Result<(), crate::error::Error> {
        // (blocks, groups, rows in each, distance)
        let groups_of = |dims: &[usize], strides: &[usize]| {
            let layout = Layout::new(Shape::from(dims), strides.to_vec(), 0);
            let blocks = Blocks::of(&layout, 4)?.in_groups();
            Some((blocks.count(), blocks.lie.groups, blocks.lie.rows, blocks.lie.distance))
        };
        assert_eq!(
            groups_of(&[2, 5, 3, 4], &[180, 36, 4, 1]),
            Some((1, 10, 3, 36)),
            "queries among keys and values"
        );
        assert_eq!(
            groups_of(&[2, 5, 3, 4], &[200, 36, 4, 1]),
            Some((2, 5, 3, 36)),
            "of a part of the tokens"
        );
        assert_eq!(groups_of(&[2, 5, 3, 4], &[60, 12, 4, 1]), Some((1, 1, 30, 0)), "contiguous");
        assert_eq!(groups_of(&[2, 3, 4], &[0, 4, 1]), Some((2, 1, 3, 0)), "broadcast");
        assert_eq!(groups_of(&[2, 3, 5, 4], &[180, 4, 36, 1]), Some((6, 1, 5, 0)), "heads before time");
        let layout = Layout::new(Shape::from((2, 2, 2)), vec![6, 2, 1], 1);
        let blocks = Blocks::of(&layout, 2).ok_or(crate::error::Error::Rows)?.in_groups();
        let memory: Vec<f32> = (0..11u8).map(f32::from).collect();
        let rows = blocks.block(0, &memory)?.rows()?;
        assert_eq!((rows.row(1), rows.row(2)), (Some(&[3.0, 4.0][..]), Some(&[7.0, 8.0][..])));
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
