//! What is added up before a row is normalised: the new residual of a block.

use super::*;
use crate::rows::Shared;

/// `out = residual + factor (branch + bias)`, whose rows are then normalised, as they are stored.
#[derive(Clone, Copy)]
pub(crate) struct Add<'a, E: Element> {
    pub(crate) branch: Source<'a, E>,
    pub(crate) bias: Option<Shared<'a, E>>,
    /// A gate, or a dropout mask that is scaled.
    pub(crate) factor: Option<Shared<'a, E>>,
    pub(crate) residual: Mixed<'a, E>,
    /// May be the memory of the residual.
    pub(crate) out: MixedMut<'a, E>,
    /// Where rows are normalised before they are rounded to be stored, if not as they are stored.
    pub(crate) unrounded: Option<Unrounded<'a, E::Acc>>,
}

/// Memory for rows that are not rounded: two for each part.
#[derive(Clone, Copy)]
pub(crate) struct Unrounded<'a, T> {
    pub(crate) memory: Target<'a, T>,
    pub(crate) parts: usize,
}

/// An [`Add`] in one row.
#[derive(Clone, Copy)]
pub(super) struct AddOfRow<E: Element> {
    branch: Place<E>,
    bias: Option<Place<E>>,
    factor: Option<Place<E>>,
    residual: Place<E>,
    out: PlaceMut<E>,
    /// Where it is to be stored besides, rounded.
    rounded: Option<PlaceMut<E>>,
}

impl<E: Element> Add<'_, E> {
    /// In one row; `wide` is where the sum goes before it is rounded.
    ///
    /// # Safety
    /// The row exists and is this thread's; `wide` has room for it.
    #[inline(always)]
    pub(super) unsafe fn of_row(&self, row: usize, wide: Option<*mut E::Acc>) -> AddOfRow<E> {
        // SAFETY: the caller's.
        unsafe {
            let out = self.out.row(row);
            AddOfRow {
                branch: Place::own(self.branch.row(row)),
                bias: self.bias.map(|bias| bias.row(row)),
                factor: self.factor.map(|factor| factor.row(row)),
                residual: self.residual.row(row),
                out: wide.map_or(out, PlaceMut::wide),
                rounded: wide.map(|_| out),
            }
        }
    }
}

/// An [`AddOfRow`] by itself.
pub(super) struct Whole<E: Element> {
    add: AddOfRow<E>,
    n: usize,
}

impl<E: Element, S: Memory<E>> Work<S> for Whole<E> {
    type Output = Place<E>;

    #[inline(always)]
    fn run(self, s: S) -> Place<E> {
        // SAFETY: that of `whole`.
        unsafe { self.add.run(s, self.n, &mut Nothing) }
    }
}

impl<E: Element> AddOfRow<E> {
    /// All of it, by itself.
    ///
    /// # Safety
    /// As [`AddOfRow::run`].
    pub(super) unsafe fn whole(self, n: usize) -> Whole<E> {
        Whole { add: self, n }
    }

    /// Adds up the row's `n` numbers, and does `beside` meanwhile. Gives where the row is.
    ///
    /// # Safety
    /// The row is as it was, and what `beside` wants.
    #[inline(always)]
    pub(super) unsafe fn run<S, B>(self, s: S, n: usize, beside: &mut B) -> Place<E>
    where
        S: Memory<E>,
        B: Beside<E::Acc, S>,
    {
        let read = [self.branch.bytes_on(AHEAD), self.residual.bytes_on(AHEAD)];
        let mut beside = (beside, Prefetch::<E, 2>::new(read));
        let mut at = 0;
        // SAFETY: as far as the row goes.
        unsafe {
            while n - at >= E::Acc::LANES {
                let steps = (n - at).min(E::Acc::BLOCK) / E::Acc::LANES;
                for _ in 0..steps {
                    for _ in 0..E::Acc::LANES / S::WIDTH {
                        self.numbers(s, at, S::WIDTH);
                        at += S::WIDTH;
                    }
                    beside.step(s);
                }
                beside.after(s, steps);
            }
            while at < n {
                let count = S::WIDTH.min(n - at);
                self.numbers(s, at, count);
                at += count;
            }
        }
        let sum = self.out.as_place();
        if let Some(to) = self.rounded {
            s.outlined(Multiply { of: sum, factor: None, to, n });
        }
        sum
    }

    /// `count` numbers from `at` on.
    ///
    /// # Safety
    /// The row has these numbers, `count <= S::WIDTH`.
    #[inline(always)]
    unsafe fn numbers<S: Memory<E>>(&self, s: S, at: usize, count: usize) {
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
            self.out.store(s, at, count, sum, false);
        }
    }
}

/// Numbers of a row times a factor, or as they are: the gradient of a branch.
pub(super) struct Multiply<E> {
    pub(super) of: Place<E>,
    pub(super) factor: Option<Place<E>>,
    pub(super) to: PlaceMut<E>,
    pub(super) n: usize,
}

impl<E: Element, S: Memory<E>> Work<S> for Multiply<E> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        for at in (0..self.n).step_by(S::WIDTH) {
            let count = S::WIDTH.min(self.n - at);
            // SAFETY: all three have `n` numbers.
            unsafe {
                let mut number = self.of.load(s, at, count);
                if let Some(factor) = self.factor {
                    number = s.mul(factor.load(s, at, count), number);
                }
                self.to.store(s, at, count, number, false);
            }
        }
    }
}
