//! The forward loop over short rows.

use super::super::last_pass::by_itself;
use super::super::short::MomentsOfRows;
use super::super::table::Table;
use super::*;
use crate::vector::TREES;

impl<E: Element> Part<'_, '_, E> {
    /// [`TREES`] rows at a time; one by one where one of them is not for the fast path.
    #[inline(always)]
    pub(super) fn take_together<S: Memory<E>>(self, s: S) {
        let Part { call, part, mut rows, statistics, .. } = self;
        let n = call.shape.features;
        let [mut weight, mut bias] = [call.weight.same(), call.bias.same()];
        let by_row = call.weight.varies() || call.bias.varies();
        let streams = S::STREAMS && call.streams();
        // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
        unsafe {
            let mut seam = Seam::new();
            let [mut weights, mut biases] = [Table::<_, 16>::new(), Table::<_, 16>::new()];
            let mut numbers = (
                weights.fill(s, call.weight.of_all_rows_above(&weight), n, 0),
                biases.fill(s, call.bias.of_all_rows(&bias), n, 0),
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
                    ways::in_cache(s, Part { call, part, rows: these, statistics, laid_out: None });
                    continue;
                };
                for (i, row) in these.enumerate() {
                    let moments = moments.get(i);
                    if let Some(saved) = call.saved {
                        saved.set(row, moments);
                    }
                    if by_row {
                        numbers = (
                            weights.fill(s, call.weight.of_row_above(row, &mut weight), n, 0),
                            biases.fill(s, call.bias.of_row(row, &mut bias), n, 0),
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
