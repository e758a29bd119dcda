//! Rows between a tensor, where they lie anyhow, and a tile, where they are contiguous: a transposition in blocks.

use super::{Axes, MOST, Plan};
use crate::element::private::Stored;
use crate::vector::{Body, LINE, Memory, dispatch};
use crate::{Element, Level};
use std::ops::Range;

/// The longest side of a block: numbers in the widest register.
const SIDE: usize = 16;

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the tensor to the tile.
    Gather,
    /// From the tile to the tensor.
    Scatter,
}

/// An axis of both memories.
#[derive(Clone, Copy)]
struct Dim {
    size: usize,
    tensor: usize,
    tile: usize,
}

impl Dim {
    const ONE: Self = Self { size: 1, tensor: 0, tile: 0 };

    /// Is it, with `inner`, one axis of both memories?
    fn continues(self, inner: Self) -> bool {
        [(self.tensor, inner.tensor), (self.tile, inner.tile)]
            .iter()
            .all(|(outer, stride)| *outer == inner.size.wrapping_mul(*stride))
    }
}

/// # Safety
/// The tensor has these rows of the plan, the tile has room for them, and both are this thread's (the one that is
/// read, nobody's to write).
pub(super) unsafe fn rows<E: Element>(
    way: Way,
    tensor: *mut E,
    tile: *mut E,
    plan: &Plan,
    rows: Range<usize>,
    level: Level,
) {
    let together = plan.outer.last().map_or(1, |axis| axis.size);
    let mut row = rows.start;
    while row < rows.end {
        // As many as differ along the last axis alone.
        let count = (together - row % together).min(rows.end - row);
        let segment = Segment::new(count, &plan.outer, &plan.inner, plan.features);
        // SAFETY: rows of the plan.
        let [tensor, tile] =
            unsafe { [tensor.add(plan.outer.offset(row)), tile.add((row - rows.start) * plan.features)] };
        dispatch(level, Copy { way, segment, tensor, tile });
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
        let mut dims = [Dim::ONE; MOST + 1];
        dims[0] = Dim { size: rows, tensor: outer.last().map_or(0, |axis| axis.stride), tile: features };
        let mut tile = 1;
        for (dim, axis) in dims[1..].iter_mut().zip(inner.axes()).rev() {
            *dim = Dim { size: axis.size, tensor: axis.stride, tile };
            tile *= axis.size;
        }
        let last = inner.axes().len();
        // The channels of groups, where they are last, are one axis with the groups.
        if last > 1 && dims[0].continues(dims[1]) {
            dims[1].size *= std::mem::replace(&mut dims[0], Dim::ONE).size;
        }
        let along = std::mem::replace(&mut dims[last], Dim::ONE);
        let densest = (0..dims.len()).filter(|i| dims[*i].size > 1).min_by_key(|i| dims[*i].tensor);
        let across = densest.filter(|i| dims[*i].tensor < along.tensor);
        let across = across.map_or(Dim::ONE, |i| std::mem::replace(&mut dims[i], Dim::ONE));
        Self { across, along, rest: dims }
    }
}

/// A segment, on its way. Who makes it promises what [`rows`] wants.
struct Copy<E> {
    way: Way,
    segment: Segment,
    tensor: *mut E,
    tile: *mut E,
}

impl<E: Element> Body<E> for Copy<E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let Self { way, segment: Segment { across, along, rest }, tensor, tile } = self;
        let count: usize = rest.iter().map(|dim| dim.size).product();
        let dense = along.tile == 1 || along.size == 1;
        // All that is near in the tensor, before going on along the tile.
        let step = if across.size == 1 { along.size } else { 2 * SIDE };
        for start in (0..along.size).step_by(step.max(1)) {
            let along = Dim { size: step.min(along.size - start), ..along };
            for index in 0..count {
                let (mut left, mut at) = (index, (start * along.tensor, start * along.tile));
                for dim in rest.iter().rev().filter(|dim| dim.size > 1) {
                    let i = left % dim.size;
                    at = (at.0 + i * dim.tensor, at.1 + i * dim.tile);
                    left /= dim.size;
                }
                // SAFETY: a part of the rows.
                unsafe {
                    let plane = Plane { way, across, along, tensor: tensor.add(at.0), tile: tile.add(at.1) };
                    match (dense, along.tensor, across.tensor) {
                        (true, 1, _) => plane.lines(),
                        (true, _, 1) => plane.blocks(s),
                        _ => plane.numbers(),
                    }
                }
            }
        }
    }
}

/// Two axes: `across`, along which the tensor is denser, and `along`, along which the tile is.
struct Plane<E> {
    way: Way,
    across: Dim,
    along: Dim,
    tensor: *mut E,
    tile: *mut E,
}

impl<E: Element> Plane<E> {
    /// Lines that are contiguous in both.
    ///
    /// # Safety
    /// As [`rows`]; so below.
    #[inline(never)]
    unsafe fn lines(self) {
        let Self { way, across, along, tensor, tile } = self;
        for i in 0..across.size {
            // SAFETY: the caller's.
            unsafe {
                let (tensor, tile) = (tensor.add(i * across.tensor), tile.add(i * across.tile));
                let (from, to) = if way == Way::Gather { (tensor, tile) } else { (tile, tensor) };
                to.copy_from_nonoverlapping(from, along.size);
            }
        }
    }

    /// Number by number.
    ///
    /// # Safety
    /// As [`rows`].
    #[inline(never)]
    unsafe fn numbers(self) {
        let Self { way, across, along, tensor, tile } = self;
        for i in 0..across.size {
            for j in 0..along.size {
                // SAFETY: the caller's.
                unsafe {
                    let tensor = tensor.add(i * across.tensor + j * along.tensor);
                    let tile = tile.add(i * across.tile + j * along.tile);
                    let (from, to) = if way == Way::Gather { (tensor, tile) } else { (tile, tensor) };
                    to.write(from.read());
                }
            }
        }
    }

    /// Where the tensor is contiguous across, and the tile along: transposed in registers.
    ///
    /// # Safety
    /// As [`rows`].
    #[inline(always)]
    unsafe fn blocks<S: Memory<E>>(self, s: S) {
        let Self { way, across, along, tensor, tile } = self;
        // No processor foresees these lines, far as they are from each other. Asked for together, they come together.
        for j in 0..along.size {
            let line = tensor.wrapping_add(j * along.tensor).cast::<u8>();
            let bytes = across.size * size_of::<E>();
            (0..bytes).step_by(LINE).for_each(|at| s.prefetch(line.wrapping_add(at)));
            s.prefetch(line.wrapping_add(bytes - 1));
        }
        for j in (0..along.size).step_by(S::WIDTH) {
            for i in (0..across.size).step_by(S::WIDTH) {
                let [down, right] = [along.size - j, across.size - i].map(|left| left.min(S::WIDTH));
                // SAFETY: the caller's.
                unsafe {
                    let tensor = (tensor.add(j * along.tensor + i), along.tensor);
                    let tile = (tile.add(i * across.tile + j), across.tile);
                    match way {
                        Way::Gather => block(s, tensor, tile, [down, right]),
                        Way::Scatter => block(s, tile, tensor, [right, down]),
                    }
                }
            }
        }
    }
}

/// Some lines of as many numbers, so far apart, transposed.
///
/// # Safety
/// Both have them, and they are at most as many as a register has numbers.
#[inline(always)]
unsafe fn block<E: Element, S: Memory<E>>(
    s: S,
    (from, from_stride): (*mut E, usize),
    (to, to_stride): (*mut E, usize),
    [lines, count]: [usize; 2],
) {
    let width = S::WIDTH;
    let full = lines == width && count == width;
    let mut block = [s.splat(E::Acc::from_f64(0.0)); SIDE];
    // Line by line, not by multiples of the strides, which would be kept in memory.
    let (mut from, mut to) = (from, to);
    // SAFETY: the caller's.
    unsafe {
        for line in block.iter_mut().take(if full { width } else { lines }) {
            *line = if full || count == width { s.read(from) } else { s.read_first(from, count) };
            from = from.wrapping_add(from_stride);
        }
        // Place `i * width + j` goes to twice that, or one more for the second half, as often as there are bits in j: to `j * width + i`.
        for _ in 0..width.ilog2() {
            let before = block;
            for i in 0..width / 2 {
                [block[2 * i], block[2 * i + 1]] = s.zip(before[i], before[i + width / 2]);
            }
        }
        for line in block.iter().take(if full { width } else { count }) {
            if full || lines == width {
                s.write(to, *line)
            } else {
                s.write_first(to, *line, lines)
            }
            to = to.wrapping_add(to_stride);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Axis;
    use super::*;
    use crate::affine::Runs;

    /// `groups` of `channels` channels, which are last; `positions` positions, so far apart: a group is a row.
    fn plan([groups, channels, positions]: [usize; 3], apart: usize) -> Plan {
        let axis = |size, stride| Axis { size, stride };
        Plan {
            rows: groups,
            features: channels * positions,
            outer: Axes::of([axis(groups, channels)]),
            inner: Axes::of([axis(channels, 1), axis(positions, apart)]),
            runs: Runs::NONE,
            params: 0,
            first_param: Axes::NONE,
            param_of_run: Axes::NONE,
            sample: Axes::NONE,
            samples: 0,
            by_feature: true,
        }
    }

    fn there_and_back<E: Element + PartialEq>(shape: [usize; 3], holes: usize) {
        let [groups, channels, positions] = shape;
        let (apart, n) = (groups * channels + holes, channels * positions);
        let plan = plan(shape, apart);
        // Numbers that halves have, too.
        let tensor: Vec<E> = (0..positions * apart).map(|i| E::from_f64((i % 251) as f64)).collect();
        let hole = E::from_f64(-1.0);
        for level in if cfg!(miri) { vec![Level::Portable] } else { Level::available().collect() } {
            let mut from = tensor.clone();
            let (mut tile, mut back) = (vec![hole; groups * n], vec![hole; tensor.len()]);
            // SAFETY: the tensors have all places of the plan, the tile has room for its rows, and all are this test's.
            unsafe {
                rows(Way::Gather, from.as_mut_ptr(), tile.as_mut_ptr(), &plan, 0..groups, level);
                rows(Way::Scatter, back.as_mut_ptr(), tile.as_mut_ptr(), &plan, 0..groups, level);
            }
            for (i, number) in tile.iter().enumerate() {
                let [channel, position] = [i / positions, i % positions];
                assert_eq!(*number, tensor[position * apart + channel], "{level}, {shape:?}: {i}");
            }
            for (i, number) in back.iter().enumerate() {
                let expected = if i % apart < groups * channels { tensor[i] } else { hole };
                assert_eq!(*number, expected, "{level}, {shape:?}, back: {i}");
            }
        }
    }

    /// Blocks that are whole and that are not, of one group and of several.
    #[test]
    fn every_number_gets_to_its_place_and_back() {
        let sizes = if cfg!(miri) { vec![1, 5, 9] } else { (1..=35).collect::<Vec<_>>() };
        for channels in sizes.iter().copied() {
            for positions in sizes.iter().copied() {
                there_and_back::<f32>([1, channels, positions], 3);
                there_and_back::<f64>([channels, 1, positions], 0);
                #[cfg(feature = "half")]
                there_and_back::<half::bf16>([3, channels, positions], 1);
            }
        }
        there_and_back::<f32>([4, 10, 70], 5);
    }
}
