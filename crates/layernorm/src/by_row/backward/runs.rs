//! Runs of features that share a parameter: what a backward pass has besides where there are any.

use super::*;
use crate::affine::Runs;

/// Where the sums over runs go: a row of them for each row.
#[derive(Clone, Copy)]
pub(crate) struct RunSums<'a, T> {
    pub(crate) runs: Runs,
    /// Of dy x_hat, and of dy.
    pub(crate) sums: [Target<'a, T>; 2],
}

/// Sums over a row, by themselves.
pub(super) struct OfWhole<A> {
    pub(super) terms: A,
    pub(super) n: usize,
}

impl<E: Element, P: Parameters<E>, S: Memory<E>> Work<S> for OfWhole<Projections<E, P, S::V>> {
    type Output = [E::Acc; 2];

    #[inline(always)]
    fn run(self, s: S) -> Self::Output {
        // SAFETY: the row has `n` features.
        unsafe { sums(s, self.n, &self.terms, &mut Plainly) }
    }
}

/// The sums of dy x_hat and of dy over each run of a row.
pub(super) struct SumRuns<'a, E: Element> {
    pub(super) x: Place<E>,
    pub(super) dy: Place<E>,
    pub(super) moments: Moments<E::Acc>,
    pub(super) to: RunSums<'a, E::Acc>,
    pub(super) row: usize,
}

impl<E: Element, S: Memory<E>> Work<S> for SumRuns<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Runs { run, per_row } = self.to.runs;
        let ones = Affine::new(None, 1.0);
        let mut one = ones.same();
        let standardise = Standardise::new(s, self.moments);
        for i in 0..per_row {
            // SAFETY: the row has these runs, and the sums have the row.
            unsafe {
                let [x, dy] = [self.x.add(i * run), self.dy.add(i * run)];
                let weight = ones.of_row(0, &mut one);
                let terms = Projections { x, dy, weight, standardise };
                let sums = sums(s, run, &terms, &mut Plainly);
                for (to, sum) in self.to.sums.into_iter().zip(sums) {
                    to.row(self.row).add(i).write(sum);
                }
            }
        }
    }
}

/// The last pass over a row whose weight stands for runs: run by run, with a seam past the caches, else through them.
pub(super) struct DifferentiateRuns<'a, 'b, E: Element> {
    pub(super) weight: &'b Affine<'a, E>,
    pub(super) row: usize,
    pub(super) pointers: Pointers<E>,
    pub(super) ready: Ready<E::Acc>,
    pub(super) seam: Option<&'b mut Seam<E>>,
}

impl<E: Element, S: Memory<E>> Work<S> for DifferentiateRuns<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self { weight, row, pointers, ready, mut seam } = self;
        let (Runs { run, per_row }, first) = (weight.runs(), weight.first_run(row));
        let mut same = weight.same();
        for i in 0..per_row {
            let work = Differentiate::new(s, weight.of_run_above(s, first + i, &mut same), pointers, ready);
            // SAFETY: the row has these runs, and is this thread's.
            unsafe { by_itself(s, work, i * run, (i + 1) * run, seam.as_deref_mut()) };
        }
    }
}
