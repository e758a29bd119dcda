//! Weights and biases, as the loops read them: by the position in a row.

use crate::element::Values;
use crate::element::private::Stored;
use crate::real::private::Number;
use crate::rows::Place;
use crate::vector::{LINE, Memory};
use crate::{Companion, Element, Error, Rows};

/// A weight or a bias: one number a feature, one for all, or one for each run of features.
pub(crate) struct Affine<'a, E: Element> {
    values: Option<Values<'a, E>>,
    /// Are they in the type that elements accumulate in?
    wide: bool,
    /// The number of all features, where there is but one. Read in the same way as one a feature, so that one loop
    /// serves both: the same load from the first cache again and again, which no loop is short of.
    same: Register<E::Acc>,
    /// Added to each: 1 where a weight is stored as what it differs from 1 by; -0, which adds nothing.
    offset: E::Acc,
    runs: Runs,
    entry: Entry<'a>,
}

/// Which row of parameters a row takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry<'a> {
    /// What [`Runs`] says.
    AsRuns,
    /// Each for so many consecutive rows.
    Every(usize),
    /// The one that stands here for the row.
    Index(&'a [usize]),
}

/// As many numbers as the widest register has.
#[repr(align(64))]
#[derive(Clone, Copy)]
struct Register<T>([T; LINE / size_of::<f32>()]);

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
        let wide = matches!(values, Some(Values::Wide(_)));
        let values = values.filter(|values| values.len() > 1);
        Self { values, wide, same: Register([same; _]), offset, runs, entry: Entry::AsRuns }
    }

    /// Rows of parameters, one a feature, of which each row takes one. An `entry` names only rows that there are.
    pub(crate) fn of_rows<P: Companion<E>>(
        rows: Option<Rows<'a, P>>,
        absent: f64,
        offset: Option<f64>,
        entry: Entry<'a>,
    ) -> Self {
        let stride = rows.map_or(0, |rows| rows.shape().stride);
        let values = rows.map(|rows| P::values(rows.data()));
        Self { entry, ..Self::with(values, absent, offset, Runs { run: 1, per_row: stride }) }
    }

    /// The place of the first parameter of a row among `len`.
    #[inline(always)]
    fn first(&self, row: usize, len: usize) -> usize {
        match (self.entry, self.runs.per_row) {
            (_, 0) => 0,
            (Entry::AsRuns, per_row) => row % (len / per_row) * per_row,
            (Entry::Every(rows), stride) => row / rows * stride,
            (Entry::Index(index), stride) => index[row] * stride,
        }
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
        self.wide
    }

    /// Those of a row. `scratch` is this thread's, and of no other numbers in use.
    #[inline(always)]
    pub(crate) fn of_row(&self, row: usize, scratch: &mut Scratch<E>) -> Numbers<E> {
        let absent = E::Acc::from_f64(-0.0);
        let Some(values) = self.values else {
            let from = Place::wide(self.same.0.as_ptr());
            return Numbers { from, mask: 0, offset: absent, runs: false, scratch };
        };
        let from = match values {
            Values::Own(values) => Place::own(values.as_ptr()),
            Values::Wide(values) => Place::wide(values.as_ptr()),
        };
        // SAFETY: a row's first parameter is one of the parameters.
        let from = unsafe { from.add(self.first(row, values.len())) };
        scratch.of_row(from, self.runs.run);
        Numbers { from, mask: usize::MAX, offset: self.offset, runs: self.runs.run > 1, scratch }
    }

    /// The one of feature `index` of a row.
    pub(crate) fn number(&self, row: usize, index: usize) -> E::Acc {
        match self.values {
            None => self.same.0[0],
            Some(values) => {
                let first = self.first(row, values.len());
                values.get((first + index / self.runs.run) % values.len()).add(self.offset)
            }
        }
    }
}

/// The numbers of runs, one for each lane.
pub(crate) struct Scratch<E: Element> {
    numbers: Register<E::Acc>,
    /// The run that all of them are of, if it is one.
    holds: usize,
    /// The row's numbers, one a run.
    from: Place<E>,
    run: usize,
}

impl<E: Element> Scratch<E> {
    pub(crate) fn new() -> Self {
        let numbers = Register([E::Acc::from_f64(0.0); _]);
        Self { numbers, holds: usize::MAX, from: Place::own(std::ptr::null()), run: 1 }
    }

    #[inline(always)]
    fn of_row(&mut self, from: Place<E>, run: usize) {
        self.holds = usize::MAX;
        self.from = from;
        self.run = run;
    }

    /// Where a register of the numbers of `count` features from `at` on stands. Not inlined, and said to be cold, so
    /// that it doesn't weigh on the loops of those who have no runs.
    ///
    /// # Safety
    /// This was made ready for a row that has these features.
    #[inline(never)]
    #[cold]
    unsafe fn numbers(scratch: *mut Self, at: usize, count: usize) -> *const E::Acc {
        // SAFETY: the caller's: there is one number a run, and nobody else uses the scratch.
        unsafe {
            let Self { numbers: Register(numbers), holds, from, run } = &mut *scratch;
            let first = at / *run;
            if at + count <= (first + 1) * *run {
                if *holds != first {
                    numbers.fill(from.number(first));
                    *holds = first;
                }
            } else {
                *holds = usize::MAX;
                for (i, number) in numbers.iter_mut().take(count).enumerate() {
                    *number = from.number((at + i) / *run);
                }
            }
            numbers.as_ptr()
        }
    }
}

/// An [`Affine`] in one row, by position.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<E: Element> {
    from: Place<E>,
    /// Of a position: all of it, or nothing.
    mask: usize,
    offset: E::Acc,
    runs: bool,
    scratch: *mut Scratch<E>,
}

impl<E: Element> Numbers<E> {
    /// The numbers for `count` features from `at` on.
    ///
    /// # Safety
    /// The features exist, and the scratch lives.
    #[inline(always)]
    pub(crate) unsafe fn get<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's: there is one number a feature; or a register of them, read from its start.
        unsafe {
            if self.runs {
                return s.load(Scratch::numbers(self.scratch, at, count));
            }
            self.from.load(s, at & self.mask, count)
        }
    }

    /// As [`Numbers::get`], with the offset.
    ///
    /// # Safety
    /// As [`Numbers::get`].
    #[inline(always)]
    pub(crate) unsafe fn get_offset<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        s.add(unsafe { self.get(s, at, count) }, s.splat(self.offset))
    }
}
