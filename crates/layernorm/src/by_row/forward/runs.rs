//! The last pass over a row where a parameter stands for a run of features: run by run.

use super::super::last_pass::by_itself;
use super::*;
use crate::affine::Runs;

/// The last pass over a row, with a seam past the caches, else through them.
pub(super) struct ByRuns<'a, 'b, E: Element> {
    pub(super) call: &'b Forward<'a, E>,
    pub(super) row: usize,
    pub(super) x: Place<E>,
    pub(super) moments: Moments<E::Acc>,
    pub(super) seam: Option<&'b mut Seam<E>>,
}

impl<E: Element, S: Memory<E>> Work<S> for ByRuns<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self { call, row, x, moments, mut seam } = self;
        let (weight, bias) = (&call.weight, &call.bias);
        let Runs { run, per_row } = if weight.has_runs() { weight.runs() } else { bias.runs() };
        let [first_weight, first_bias] = [weight.first_run(row), bias.first_run(row)];
        let [mut weights, mut biases] = [weight.same(), bias.same()];
        // SAFETY: who makes these says that the row exists and is this thread's; so below.
        let places = unsafe { (x, call.y.row(row)) };
        for i in 0..per_row {
            let numbers = (
                weight.of_run_above(s, first_weight + i, &mut weights),
                bias.of_run(s, first_bias + i, &mut biases),
            );
            let normalise = call.normalise(s, places, numbers, moments);
            // SAFETY: the row has these runs.
            unsafe { by_itself(s, normalise, i * run, (i + 1) * run, seam.as_deref_mut()) };
        }
    }
}
