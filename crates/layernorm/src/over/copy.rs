//! Rows between a tensor, where they lie anyhow, and a tile, where they are contiguous: a transposition in blocks.

use super::{Axes, MOST, Plan};
use std::ops::Range;

/// Numbers of a block's side: what fills a cache line or two.
const SIDE: usize = 16;

/// An axis of both memories.
#[derive(Clone, Copy)]
struct Dim {
    size: usize,
    tensor: usize,
    tile: usize,
}

/// From the tensor to the tile, or back.
///
/// # Safety
/// The tensor has these rows of the plan, the tile has room for them, and both are this thread's (the one that is
/// read, nobody's to write).
pub(super) unsafe fn rows<E: Copy, const GATHER: bool>(
    tensor: *mut E,
    tile: *mut E,
    plan: &Plan,
    rows: Range<usize>,
) {
    let together = plan.outer.last().map_or(1, |axis| axis.size);
    let mut row = rows.start;
    while row < rows.end {
        // As many as differ along the last axis alone.
        let count = (together - row % together).min(rows.end - row);
        // SAFETY: rows of the plan.
        unsafe {
            let tensor = tensor.add(plan.outer.offset(row));
            let tile = tile.add((row - rows.start) * plan.features);
            Segment::new(count, &plan.outer, &plan.inner, plan.features).copy::<E, GATHER>(tensor, tile);
        }
        row += count;
    }
}

/// Rows that differ along one axis.
struct Segment {
    /// The axis along which the tensor is densest; the one along which the tile is; and all others.
    across: Dim,
    along: Dim,
    rest: [Dim; MOST + 1],
}

impl Segment {
    fn new(rows: usize, outer: &Axes, inner: &Axes, features: usize) -> Self {
        let one = Dim { size: 1, tensor: 0, tile: 0 };
        let mut dims = [one; MOST + 1];
        dims[0] = Dim { size: rows, tensor: outer.last().map_or(0, |axis| axis.stride), tile: features };
        let mut tile = 1;
        for (dim, axis) in dims[1..].iter_mut().zip(inner.axes()).rev() {
            *dim = Dim { size: axis.size, tensor: axis.stride, tile };
            tile *= axis.size;
        }
        let last = inner.axes().len();
        let along = std::mem::replace(&mut dims[last], one);
        let densest = (0..dims.len()).filter(|i| dims[*i].size > 1).min_by_key(|i| dims[*i].tensor);
        let across = densest.filter(|i| dims[*i].tensor < along.tensor);
        let across = across.map_or(one, |i| std::mem::replace(&mut dims[i], one));
        Self { across, along, rest: dims }
    }

    /// # Safety
    /// As [`rows`].
    unsafe fn copy<E: Copy, const GATHER: bool>(&self, tensor: *mut E, tile: *mut E) {
        let Self { across, along, rest } = self;
        let count: usize = rest.iter().map(|dim| dim.size).product();
        // All that is near in the tensor, before going on along the tile.
        let step = if across.size == 1 { along.size } else { 2 * SIDE };
        for start in (0..along.size).step_by(step.max(1)) {
            let along = Dim { size: step.min(along.size - start), ..*along };
            for index in 0..count {
                let (mut left, mut at) = (index, (start * along.tensor, start * along.tile));
                for dim in rest.iter().rev().filter(|dim| dim.size > 1) {
                    let i = left % dim.size;
                    at = (at.0 + i * dim.tensor, at.1 + i * dim.tile);
                    left /= dim.size;
                }
                // SAFETY: a part of the rows.
                unsafe { plane::<E, GATHER>(tensor.add(at.0), tile.add(at.1), *across, along) };
            }
        }
    }
}

/// Two axes: `across`, along which the tensor is denser, and `along`, along which the tile is.
///
/// # Safety
/// As [`rows`].
unsafe fn plane<E: Copy, const GATHER: bool>(tensor: *mut E, tile: *mut E, across: Dim, along: Dim) {
    let dense = along.tile == 1 || along.size == 1;
    // SAFETY: the caller's: all places are of these two axes.
    unsafe {
        if dense && along.tensor == 1 {
            for i in 0..across.size {
                let (tensor, tile) = (tensor.add(i * across.tensor), tile.add(i * across.tile));
                let (from, to) = if GATHER { (tensor, tile) } else { (tile, tensor) };
                to.copy_from_nonoverlapping(from, along.size);
            }
            return;
        }
        let blocks = if dense && across.tensor == 1 {
            [across, along].map(|dim| dim.size / SIDE * SIDE)
        } else {
            [0; 2]
        };
        for j in (0..blocks[1]).step_by(SIDE) {
            for i in (0..blocks[0]).step_by(SIDE) {
                let (tensor, tile) = (tensor.add(j * along.tensor + i), tile.add(i * across.tile + j));
                if GATHER {
                    block(tensor, along.tensor, tile, across.tile);
                } else {
                    block(tile, across.tile, tensor, along.tensor);
                }
            }
        }
        // What is no whole block: the right edge, then the lower one.
        for (is, js) in [(blocks[0]..across.size, 0..blocks[1]), (0..across.size, blocks[1]..along.size)] {
            for i in is {
                for j in js.clone() {
                    let tensor = tensor.add(i * across.tensor + j * along.tensor);
                    let tile = tile.add(i * across.tile + j * along.tile);
                    let (from, to) = if GATHER { (tensor, tile) } else { (tile, tensor) };
                    to.write(from.read());
                }
            }
        }
    }
}

/// A block, transposed.
///
/// # Safety
/// Both have [`SIDE`] lines of as many numbers, so far apart.
#[inline(always)]
unsafe fn block<E: Copy>(from: *const E, from_stride: usize, to: *mut E, to_stride: usize) {
    // SAFETY: the caller's; an array has its element's alignment.
    unsafe {
        let lines: [[E; SIDE]; SIDE] =
            std::array::from_fn(|line| from.add(line * from_stride).cast::<[E; SIDE]>().read());
        let across: [[E; SIDE]; SIDE] = std::array::from_fn(|i| std::array::from_fn(|line| lines[line][i]));
        for (i, line) in across.into_iter().enumerate() {
            to.add(i * to_stride).cast::<[E; SIDE]>().write(line);
        }
    }
}
