//! The forward loop over short rows.

use super::super::last_pass::by_itself;
use super::super::short::{MomentsOfRows, suits};
use super::*;

/// A part whose rows are short.
pub(super) struct Short<'a, 'b, E: Element, K>(pub(super) Part<'a, 'b, E, K>);

impl<E: Element, K: Kind> Part<'_, '_, E, K> {
    /// Are its rows so short that several go together?
    pub(super) fn is_short(&self) -> bool {
        let call = self.call;
        let runs = call.weight.has_runs() || call.bias.has_runs();
        suits(call.shape.features, call.streams(), &call.form) && call.add.is_none() && !runs
    }
}

impl<E: Element, S: Memory<E>, K: Kind> Work<S> for Short<'_, '_, E, K> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Part { call, part, mut rows, kind } = self.0;
        let n = call.shape.features;
        let [mut weight, mut bias] = [call.weight.same(), call.bias.same()];
        let by_row = call.weight.varies() || call.bias.varies();
        let round = call.rounding.rounds::<E>(call.weight.is_wide());
        let streams = S::STREAMS && call.streams();
        // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
        unsafe {
            let mut seam = Seam::new();
            let mut numbers = (call.weight.of_row_above(0, &mut weight), call.bias.of_row(0, &mut bias));
            while !rows.is_empty() {
                let first = rows.start;
                rows.start += TREES.min(rows.len());
                let these = first..rows.start;
                let moments = if these.len() == TREES {
                    MomentsOfRows::of::<E, S, K>(s, &call.x, first, &call.form)
                } else {
                    None
                };
                let Some(moments) = moments else {
                    s.outlined(OneByOne(Part { call, part, rows: these, kind }));
                    continue;
                };
                for (i, row) in these.enumerate() {
                    let moments = moments.get(i);
                    if let Some(saved) = call.saved {
                        saved.set(row, moments);
                    }
                    if by_row {
                        numbers =
                            (call.weight.of_row_above(row, &mut weight), call.bias.of_row(row, &mut bias));
                    }
                    let normalise = Normalise {
                        x: call.x.row(row),
                        y: call.y.row(row),
                        weight: numbers.0,
                        bias: numbers.1,
                        round,
                        standardise: Standardise::<_, K>::new(s, moments),
                    };
                    by_itself(s, normalise, 0, n, streams.then_some(&mut seam));
                }
            }
            seam.leave(s);
        }
    }
}
