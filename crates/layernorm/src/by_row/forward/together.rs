//! The forward loop over short rows.

use super::super::last_pass::by_itself;
use super::super::short::MomentsOfRows;
use super::*;
use crate::vector::TREES;
use std::mem::MaybeUninit;

impl<E: Element> Part<'_, '_, E> {
    /// [`TREES`] rows at a time; one by one where one of them is not for the fast path.
    #[inline(always)]
    pub(super) fn take_together<S: Memory<E>>(self, s: S) {
        let Part { call, part, mut rows, statistics } = self;
        let n = call.shape.features;
        let [mut weight, mut bias] = [call.weight.same(), call.bias.same()];
        let by_row = call.weight.varies() || call.bias.varies();
        let streams = S::STREAMS && call.streams();
        // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
        unsafe {
            let mut seam = Seam::new();
            let [mut weights, mut biases] = [Table::new(), Table::new()];
            let mut numbers = (
                weights.fill(s, call.weight.of_all_rows_above(&weight), n),
                biases.fill(s, call.bias.of_all_rows(&bias), n),
            );
            while !rows.is_empty() {
                let first = rows.start;
                rows.start += TREES.min(rows.len());
                let these = first..rows.start;
                let moments = if these.len() == TREES {
                    MomentsOfRows::of(s, statistics, &call.x, first, &call.form)
                } else {
                    None
                };
                let Some(moments) = moments else {
                    ways::in_cache(s, Part { call, part, rows: these, statistics });
                    continue;
                };
                for (i, row) in these.enumerate() {
                    let moments = moments.get(i);
                    if let Some(saved) = call.saved {
                        saved.set(row, moments);
                    }
                    if by_row {
                        numbers = (
                            weights.fill(s, call.weight.of_row_above(row, &mut weight), n),
                            biases.fill(s, call.bias.of_row(row, &mut bias), n),
                        );
                    }
                    let places = (call.x.row(row), call.y.row(row));
                    let normalise = call.normalise::<S, _, _>(s, places, numbers, moments);
                    by_itself(s, normalise, 0, n, streams.then_some(&mut seam));
                }
            }
            if streams {
                seam.leave(s);
            }
        }
    }
}

/// The parameters of short rows as the loop wants them: widened, offset and all, and where no read of a register takes two lines.
struct Table<T>(MaybeUninit<[Register<T>; 16]>);

impl<T: Real> Table<T> {
    fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// The numbers of a row of `n` features.
    ///
    /// # Safety
    /// There are so many features, which are at most a block.
    #[inline(always)]
    unsafe fn fill<E, S>(&mut self, s: S, with: impl Parameters<E>, n: usize) -> Place<E>
    where
        E: Element<Acc = T>,
        S: Memory<E>,
    {
        let to: *mut T = self.0.as_mut_ptr().cast();
        for at in (0..n).step_by(S::WIDTH) {
            // SAFETY: the caller's; a block has at most so many numbers, and is so many registers.
            unsafe { Vector::<T>::store(s, to.add(at), with.get(s, at, S::WIDTH.min(n - at))) };
        }
        Place::wide(to)
    }
}
