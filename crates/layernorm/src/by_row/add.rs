//! What is added up before a row is normalised: the new residual of a block.

use super::last_pass::Write;
use super::*;

/// `out = residual + factor (branch + bias)`, whose rows are then normalised, as they are stored.
///
/// A bias or a gate, which is the same in every row, is rows that do not move on.
#[derive(Clone, Copy)]
pub(crate) struct Add<'a, E: Element> {
    pub(crate) branch: Source<'a, E>,
    pub(crate) bias: Option<Mixed<'a, E>>,
    /// A gate, or a dropout mask that is scaled.
    pub(crate) factor: Option<Mixed<'a, E>>,
    pub(crate) residual: Mixed<'a, E>,
    /// May be the memory of the residual.
    pub(crate) out: MixedMut<'a, E>,
}

/// An [`Add`] in one row.
#[derive(Clone, Copy)]
struct AddOfRow<E: Element> {
    branch: Place<E>,
    bias: Option<Place<E>>,
    factor: Option<Place<E>>,
    residual: Place<E>,
    out: PlaceMut<E>,
}

impl<E: Element> Add<'_, E> {
    /// Adds up a row of `n` numbers, and does `beside` meanwhile. Gives where the row is.
    ///
    /// # Safety
    /// The row exists and is this thread's, and what `beside` wants.
    #[inline(always)]
    pub(super) unsafe fn row<S, B>(&self, s: S, row: usize, n: usize, beside: &mut B) -> Place<E>
    where
        S: Memory<E>,
        B: Beside<E::Acc, S>,
    {
        // SAFETY: the caller's.
        let work = unsafe {
            AddOfRow {
                branch: Place::own(self.branch.row(row)),
                bias: self.bias.map(|bias| bias.row(row)),
                factor: self.factor.map(|factor| factor.row(row)),
                residual: self.residual.row(row),
                out: self.out.row(row),
            }
        };
        let read = [work.branch, work.residual].map(|from| from.bytes_on(AHEAD));
        let mut beside = (beside, Prefetch::<E, 2>::new(read));
        let mut at = 0;
        // SAFETY: as far as the row goes.
        unsafe {
            while n - at >= E::Acc::LANES {
                for _ in 0..E::Acc::LANES / S::WIDTH {
                    work.numbers(s, at, S::WIDTH, false);
                    at += S::WIDTH;
                }
                beside.step::<2>(s);
            }
            while at < n {
                let count = S::WIDTH.min(n - at);
                work.numbers(s, at, count, false);
                at += count;
            }
        }
        work.out.as_place()
    }
}

impl<E: Element, S: Memory<E>> Write<E, S> for AddOfRow<E> {
    #[inline(always)]
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool) {
        // SAFETY: the caller's.
        unsafe {
            let mut branch = self.branch.load(s, at, count);
            if let Some(bias) = self.bias {
                branch = s.add(branch, bias.load(s, at, count));
            }
            let residual = self.residual.load(s, at, count);
            let sum = match self.factor {
                None => s.add(branch, residual),
                Some(factor) => s.fma(factor.load(s, at, count), branch, residual),
            };
            self.out.store(s, at, count, sum, stream);
        }
    }
}
