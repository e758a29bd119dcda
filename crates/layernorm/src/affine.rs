//! Weights and biases, as the loops read them: by the position in a row.

use crate::element::Values;
use crate::element::private::Stored;
use crate::real::private::Number;
use crate::rows::Place;
use crate::vector::{LINE, Memory};
use crate::{Element, Error};
use std::mem::MaybeUninit;

/// A weight or a bias: one number a feature, one for all, or one for each run of features.
pub(crate) struct Affine<'a, E: Element> {
    values: Option<Values<'a, E>>,
    /// The number of all features, where there is but one.
    same: E::Acc,
    /// Added to each: 1 where a weight is stored as what it differs from 1 by; -0, which adds nothing.
    offset: E::Acc,
    runs: Runs,
}

/// As many numbers as the widest register has.
#[repr(align(64))]
pub(crate) struct Register<T>([T; LINE / size_of::<f32>()]);

/// Features that share a parameter: a channel's positions. A row has `per_row` runs of `run` features, and its first
/// parameter is number `row * per_row`, modulo their number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runs {
    pub(crate) run: usize,
    pub(crate) per_row: usize,
}

impl Runs {
    /// Every feature by itself, the same parameters in each row.
    pub(crate) const NONE: Self = Self { run: 1, per_row: 0 };
}

impl<'a, E: Element> Affine<'a, E> {
    /// `values`: one a feature, a single one, or none, which is the same as `absent`.
    pub(crate) fn new(values: Option<Values<'a, E>>, absent: f64) -> Self {
        Self::with(values, absent, None, Runs::NONE)
    }

    /// As [`Affine::new`], `offset` added to values that are there.
    pub(crate) fn with(values: Option<Values<'a, E>>, absent: f64, offset: Option<f64>, runs: Runs) -> Self {
        let offset = E::Acc::from_f64(offset.unwrap_or(-0.0));
        let same = match values {
            Some(values) if values.len() > 0 => values.get(0).add(offset),
            _ => E::Acc::from_f64(absent),
        };
        Self { values: values.filter(|values| values.len() > 1), same, offset, runs }
    }

    /// Check that there is one number a feature, or one for all.
    pub(crate) fn expect(what: &'static str, len: Option<usize>, features: usize) -> Result<(), Error> {
        match len {
            Some(got) if got != 1 && got != features => Err(Error::Length { what, expected: features, got }),
            _ => Ok(()),
        }
    }

    /// Are they in the type that elements accumulate in?
    pub(crate) fn is_wide(&self) -> bool {
        matches!(self.values, Some(Values::Wide(_)))
    }

    /// Does a number stand for a run of features? Then [`Affine::of_runs`] has it.
    #[inline(always)]
    pub(crate) fn has_runs(&self) -> bool {
        self.values.is_some() && self.runs.run > 1
    }

    /// The number of all features, in each lane. It is read in the same way as one a feature, so that one loop serves
    /// both: the same load from the first cache again and again, which no loop is short of.
    #[inline(always)]
    pub(crate) fn same(&self) -> Register<E::Acc> {
        Register([self.same; _])
    }

    /// Those of a row, given [`Affine::same`].
    #[inline(always)]
    pub(crate) fn of_row(&self, row: usize, same: &Register<E::Acc>) -> Numbers<E> {
        match self.values {
            None => {
                let offset = E::Acc::from_f64(-0.0);
                Numbers { from: Place::wide(same.0.as_ptr()), mask: 0, offset }
            }
            Some(values) => {
                Numbers { from: self.first_of_row(values, row), mask: usize::MAX, offset: self.offset }
            }
        }
    }

    /// Those of a row, by runs. `scratch` is this thread's, and of no other numbers in use.
    #[inline(always)]
    pub(crate) fn of_runs(&self, row: usize, scratch: &mut Scratch<E>) -> RunNumbers<E> {
        scratch.holds = usize::MAX;
        (scratch.from, scratch.run) = match self.values {
            None => (Place::wide(&raw const self.same), usize::MAX),
            Some(values) => (self.first_of_row(values, row), self.runs.run),
        };
        RunNumbers { scratch }
    }

    #[inline(always)]
    fn first_of_row(&self, values: Values<'a, E>, row: usize) -> Place<E> {
        let from = match values {
            Values::Own(values) => Place::own(values.as_ptr()),
            Values::Wide(values) => Place::wide(values.as_ptr()),
        };
        match self.runs.per_row {
            0 => from,
            // SAFETY: a row's first parameter is one of the parameters.
            per_row => unsafe { from.add(row % (values.len() / per_row) * per_row) },
        }
    }

    /// The one of feature `index` of a row.
    pub(crate) fn number(&self, row: usize, index: usize) -> E::Acc {
        match self.values {
            None => self.same,
            Some(values) => {
                values.get((row * self.runs.per_row + index / self.runs.run) % values.len()).add(self.offset)
            }
        }
    }
}

/// Weights or biases in one row, by position.
pub(crate) trait Parameters<E: Element>: Copy {
    /// The numbers for `count` features from `at` on.
    ///
    /// # Safety
    /// The features exist, and what these were taken from lives.
    unsafe fn get<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V;
}

/// One a feature, or one for all.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<E: Element> {
    from: Place<E>,
    /// Of a position: all of it, or nothing.
    mask: usize,
    offset: E::Acc,
}

impl<E: Element> Parameters<E> for Numbers<E> {
    #[inline(always)]
    unsafe fn get<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's: there is one number a feature; or a register of them, read from its start.
        s.add(unsafe { self.from.load(s, at & self.mask, count) }, s.splat(self.offset))
    }
}

/// One a run of features.
#[derive(Clone, Copy)]
pub(crate) struct RunNumbers<E: Element> {
    scratch: *mut Scratch<E>,
}

/// Where the numbers of runs are spread over lanes.
pub(crate) struct Scratch<E: Element> {
    /// Filled when it is asked for.
    numbers: MaybeUninit<Register<E::Acc>>,
    /// The run that all of them are of, if it is one.
    holds: usize,
    /// The row's numbers, one a run.
    from: Place<E>,
    run: usize,
}

impl<E: Element> Scratch<E> {
    pub(crate) fn new() -> Self {
        let from = Place::own(std::ptr::null());
        Self { numbers: MaybeUninit::uninit(), holds: usize::MAX, from, run: 1 }
    }

    /// Where a register of the numbers of `count` features from `at` on stands.
    ///
    /// # Safety
    /// The scratch lives, was made ready for a row that has these features, and nobody else uses it.
    #[inline(never)]
    unsafe fn spread(scratch: *mut Self, at: usize, count: usize) -> *const E::Acc {
        // SAFETY: the caller's: there is one number a run.
        unsafe {
            let Self { numbers, holds, from, run } = &mut *scratch;
            let (first, last) = (at / *run, (at + count - 1) / *run);
            if first < last {
                *holds = usize::MAX;
                let number = |i: usize| from.number((at + i).min(at + count - 1) / *run);
                numbers.write(Register(std::array::from_fn(number)));
            } else if *holds != first {
                *holds = first;
                numbers.write(Register([from.number(first); _]));
            }
            numbers.as_ptr().cast()
        }
    }
}

impl<E: Element> Parameters<E> for RunNumbers<E> {
    #[inline(always)]
    unsafe fn get<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's; a register holds what was spread.
        unsafe { s.load(Scratch::spread(self.scratch, at, count)) }
    }
}
