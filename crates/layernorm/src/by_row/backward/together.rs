//! The backward loop over short rows.

use super::super::last_pass::by_itself;
use super::super::short::{MomentsOfRows, Trees};
use super::*;
use crate::order::lanes;
use crate::vector::TREES;

impl<E: Element> Part<'_, '_, '_, '_, E> {
    /// The first pass over [`TREES`] short rows; `None` if one of them is not for the fast path.
    ///
    /// # Safety
    /// The rows exist.
    #[inline(always)]
    unsafe fn project_all<S: Memory<E>>(
        &self,
        s: S,
        same: &mut Register<E::Acc>,
    ) -> Option<ReadyRows<E::Acc>> {
        let (call, first, n) = (self.call, self.rows.start, self.call.shape.features);
        let count = E::Acc::from_count(call.form.count);
        // SAFETY: the caller's; all that is folded is written before it is read.
        unsafe {
            let moments = match call.saved {
                Some(saved) => MomentsOfRows::saved(saved, first),
                None => MomentsOfRows::of(s, self.statistics, &call.x, first, &call.form)?,
            };
            let mut fast = moments.in_range();
            let mut folded = [Trees::new(), Trees::new()];
            for i in 0..TREES {
                let row = first + i;
                let (x, dy) = (call.x.row(row), Place::own(call.dy.row(row)));
                let standardise = Standardise::new(s, moments.get(i));
                let terms = Projections { x, dy, weight: call.weight.of_row_above(row, same), standardise };
                let mut ahead = Prefetch::<E, 2>::new([x.bytes_on(AHEAD), dy.bytes_on(AHEAD)]);
                let [along_x_hat, along_ones] = lanes(s, 0, n, &terms, &mut ahead);
                folded[0].write(i, s.fold(along_x_hat));
                folded[1].write(i, s.fold(along_ones));
            }
            let along_x_hat = s.rests_of_trees(folded[0].all());
            let along_ones = match self.statistics {
                Statistics::Centred => s.rests_of_trees(folded[1].all()),
                Statistics::Uncentred => [E::Acc::from_f64(0.0); TREES],
            };
            let mut means = [along_x_hat, along_ones];
            for mean in means.as_flattened_mut() {
                *mean = mean.div(count);
                fast &= mean.is_finite();
            }
            fast.then_some(ReadyRows { moments, means })
        }
    }

    /// [`TREES`] rows at a time; one by one where one of them is not for the fast path.
    #[inline(always)]
    pub(super) fn take_together<S: Memory<E>>(self, s: S) {
        let Part { call, mut rows, statistics, mut totals } = self;
        let n = call.shape.features;
        // One for each pass: what the last pass reads must outlive the next first one.
        let mut same = [call.weight.same(), call.weight.same()];
        let streams = S::STREAMS && call.streams();
        let varies = call.weight.varies();
        // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
        unsafe {
            let mut seam = Seam::new();
            let mut weight = call.weight.of_all_rows_above(&same[1]);
            while !rows.is_empty() {
                let first = rows.start;
                rows.start += TREES.min(rows.len());
                let these = first..rows.start;
                let part = Part { call, rows: these.clone(), statistics, totals: totals.as_deref_mut() };
                let ready = if these.len() == TREES { part.project_all(s, &mut same[0]) } else { None };
                let Some(ready) = ready else {
                    ways::in_cache(s, part);
                    continue;
                };
                for (i, row) in these.enumerate() {
                    if varies {
                        weight = call.weight.of_row_above(row, &mut same[1]);
                    }
                    let pointers = Pointers::at(call, row, totals.as_ref().map(|totals| totals.current()));
                    let work = Differentiate::new(s, weight, pointers, ready.get(i));
                    by_itself(s, work, 0, n, streams.then_some(&mut seam));
                    if let Some(totals) = &mut totals {
                        totals.row_done(s, call.first + row);
                    }
                }
            }
            if streams {
                seam.leave(s);
            }
        }
    }
}

/// As many of [`Ready`].
struct ReadyRows<T> {
    moments: MomentsOfRows<T>,
    means: [[T; TREES]; 2],
}

impl<T: Real> ReadyRows<T> {
    #[inline(always)]
    fn get(&self, i: usize) -> Ready<T> {
        Ready { moments: self.moments.get(i), means: [self.means[0][i], self.means[1][i]] }
    }
}
