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

/// How far ahead memory is asked for, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// By the first pass, of what is added up,
    read: usize,
    /// and by both passes, where the sum goes: a store waits for its line, too.
    out: [usize; 2],
}

impl Ahead {
    /// In rows of so many bytes, as was fastest: the memory of short ones the processor finds better by itself.
    pub(super) fn of(statistics: Statistics, bytes: usize) -> Self {
        const SHORT: usize = 1024;
        match statistics {
            _ if bytes <= SHORT => Self { read: 0, out: [0, 0] },
            Statistics::Centred if bytes <= LONG => Self { read: AHEAD, out: [0, AHEAD] },
            _ => Self { read: AHEAD, out: [2 * AHEAD, 0] },
        }
    }

    /// By the second pass.
    pub(super) fn of_second_pass(self) -> usize {
        self.out[1]
    }
}

impl<E: Element> AddOfRow<E> {
    /// Where the row is, when it is added up.
    #[inline(always)]
    pub(super) fn sum(&self) -> Place<E> {
        self.out.as_place()
    }

    /// Asks for memory in the first pass.
    #[inline(always)]
    pub(super) fn prefetch(&self, ahead: Ahead) -> Prefetch<E, 3> {
        let Ahead { read, out: [out, _] } = ahead;
        Prefetch::new([self.branch.bytes_on(read), self.residual.bytes_on(read), self.sum().bytes_on(out)])
    }

    /// Adds up the row, as the first pass of its statistics.
    ///
    /// # Safety
    /// The row has the numbers that `form` uses, which are all, and is as it was; and what `beside` wants.
    #[inline(always)]
    pub(super) unsafe fn first_pass<S, B>(
        self,
        s: S,
        statistics: Statistics,
        form: &Form<E::Acc>,
        beside: &mut B,
    ) -> E::Acc
    where
        S: Memory<E>,
        B: Beside<E::Acc, S>,
    {
        let n = form.used;
        // SAFETY: the caller's. Each position is added up once, and then read.
        let [sum, _] = unsafe { sums(s, n, &statistics.summed(self), beside) };
        if let Some(to) = self.rounded {
            s.outlined(Multiply { of: self.sum(), factor: None::<Place<E>>, to, n });
        }
        sum
    }

    /// Adds up the row's `n` numbers.
    ///
    /// # Safety
    /// The row is as it was.
    #[inline(always)]
    pub(super) unsafe fn run<S: Memory<E>>(self, s: S, n: usize) {
        for at in (0..n).step_by(S::WIDTH) {
            // SAFETY: as far as the row goes.
            unsafe { self.get(s, at, S::WIDTH.min(n - at)) };
        }
    }
}

/// Added up, stored, and given as stored: each number once.
impl<E: Element, S: Memory<E>> RowNumbers<E::Acc, S> for AddOfRow<E> {
    #[inline(always)]
    unsafe fn get(&self, s: S, at: usize, count: usize) -> S::V {
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
            // Of the unrounded sum, as the store is: so one rounding serves both, and none is left where this is not read.
            if E::NARROW && !self.out.is_wide() { Memory::<E>::rounded(s, sum) } else { sum }
        }
    }
}

/// [`AddOfRow::first_pass`] beside nothing, out of line.
pub(super) struct ByItself<'a, E: Element> {
    pub(super) add: AddOfRow<E>,
    pub(super) statistics: Statistics,
    pub(super) form: &'a Form<E::Acc>,
}

impl<E: Element, S: Memory<E>> Work<S> for ByItself<'_, E> {
    type Output = E::Acc;

    #[inline(always)]
    fn run(self, s: S) -> Self::Output {
        // SAFETY: who makes these promises what `first_pass` wants.
        unsafe { self.add.first_pass(s, self.statistics, self.form, &mut Nothing) }
    }
}

/// Numbers of a row times a factor, or as they are: the gradient of a branch, or u = weight dy.
pub(super) struct Multiply<E, P> {
    pub(super) of: Place<E>,
    pub(super) factor: Option<P>,
    pub(super) to: PlaceMut<E>,
    pub(super) n: usize,
}

impl<E: Element, P: Parameters<E>, S: Memory<E>> Work<S> for Multiply<E, P> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        for at in (0..self.n).step_by(S::WIDTH) {
            let count = S::WIDTH.min(self.n - at);
            // SAFETY: all three have `n` numbers.
            unsafe {
                let mut number = self.of.load(s, at, count);
                if let Some(factor) = self.factor {
                    number = s.mul(factor.get(s, at, count), number);
                }
                self.to.store(s, at, count, number, false);
            }
        }
    }
}
