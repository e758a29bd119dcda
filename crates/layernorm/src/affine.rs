//! Weights and biases, as the loops read them: by the position in a row.

mod spread;

pub(crate) use spread::Scratch;

use crate::element::Values;
use crate::element::private::Stored;
use crate::real::private::Number;
use crate::rows::Place;
use crate::vector::{LINE, Memory};
use crate::{Companion, Element, Error, Rows};
use spread::RunNumbers;

/// A weight or a bias: one number a feature, one for all, or one for each run of features.
pub(crate) struct Affine<'a, E: Element> {
    values: Option<Values<'a, E>>,
    /// The number of all features, where there is but one.
    same: E::Acc,
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
pub(crate) struct Register<T>([T; LINE / size_of::<f32>()]);

impl<T> Register<T> {
    pub(crate) const LEN: usize = LINE / size_of::<f32>();
}

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
    #[inline]
    pub(crate) fn new(values: Option<Values<'a, E>>, absent: f64) -> Self {
        Self::with(values, absent, None, Runs::NONE)
    }

    /// As [`Affine::new`], `offset` added to values that are there.
    #[inline]
    pub(crate) fn with(values: Option<Values<'a, E>>, absent: f64, offset: Option<f64>, runs: Runs) -> Self {
        let offset = E::Acc::from_f64(offset.unwrap_or(-0.0));
        let same = match values {
            Some(values) if values.len() > 0 => values.get(0).add(offset),
            _ => E::Acc::from_f64(absent),
        };
        let values = values.filter(|values| values.len() > 1);
        // The number of all features has it already.
        let offset = if values.is_some() { offset } else { E::Acc::from_f64(-0.0) };
        Self { values, same, offset, runs, entry: Entry::AsRuns }
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
        matches!(self.values, Some(Values::Wide(_)))
    }

    /// Do rows differ in them?
    pub(crate) fn varies(&self) -> bool {
        self.runs.per_row > 0
    }

    /// Is there one a feature, the same ones for all rows?
    pub(crate) fn is_each(&self) -> bool {
        self.values.is_some() && !self.varies()
    }

    /// Does a number stand for a run of features? Then [`Affine::of_runs`] has it.
    #[inline(always)]
    pub(crate) fn has_runs(&self) -> bool {
        self.values.is_some() && self.runs.run > 1 && self.runs.per_row > 1
    }

    /// The number of all features, in each lane. It is read in the same way as one a feature, so that one loop serves
    /// both: the same load from the first cache again and again, which no loop is short of.
    #[inline(always)]
    pub(crate) fn same(&self) -> Register<E::Acc> {
        Register([self.same; _])
    }

    /// Those of a row, given [`Affine::same`], which they may be read from. Without their offset: for what has none.
    #[inline(always)]
    pub(crate) fn of_row(&self, row: usize, same: &mut Register<E::Acc>) -> Numbers<E> {
        match self.values {
            // The row is one run.
            Some(values) if self.runs.run > 1 && self.runs.per_row == 1 => {
                *same = Register([values.get(self.first(row, values.len())); _]);
                Numbers { from: Place::wide(same.0.as_ptr()), mask: 0 }
            }
            Some(values) if self.varies() => {
                Numbers { from: self.first_of_row(values, row), mask: usize::MAX }
            }
            _ => self.of_all_rows(same),
        }
    }

    /// Those of all rows, if they do not vary.
    #[inline(always)]
    pub(crate) fn of_all_rows(&self, same: &Register<E::Acc>) -> Numbers<E> {
        match self.values {
            None => Numbers { from: Place::wide(same.0.as_ptr()), mask: 0 },
            Some(values) => Numbers { from: first(values), mask: usize::MAX },
        }
    }

    /// As [`Affine::of_row`], with the offset.
    #[inline(always)]
    pub(crate) fn of_row_above(&self, row: usize, same: &mut Register<E::Acc>) -> Above<E> {
        Above { numbers: self.of_row(row, same), offset: self.offset }
    }

    /// As [`Affine::of_all_rows`], with the offset.
    #[inline(always)]
    pub(crate) fn of_all_rows_above(&self, same: &Register<E::Acc>) -> Above<E> {
        Above { numbers: self.of_all_rows(same), offset: self.offset }
    }

    /// How a row is cut into runs.
    pub(crate) fn runs(&self) -> Runs {
        self.runs
    }

    /// Which parameter is that of a row's first run: for [`Affine::of_run`].
    pub(crate) fn first_run(&self, row: usize) -> usize {
        self.values.filter(|_| self.has_runs()).map_or(0, |values| self.first(row, values.len()))
    }

    /// That of a run, given its number among all runs and [`Affine::same`], which it is read from.
    #[inline(always)]
    pub(crate) fn of_run<S: Memory<E>>(&self, s: S, run: usize, same: &mut Register<E::Acc>) -> Numbers<E> {
        if let Some(values) = self.values.filter(|_| self.has_runs()) {
            let number = values.get(run).add(self.offset);
            // SAFETY: as many numbers as the widest register has. By one store: a read of several narrower ones would wait
            // until they have left for the cache.
            unsafe { s.store(same.0.as_mut_ptr(), s.splat(number)) };
        }
        Numbers { from: Place::wide(same.0.as_ptr()), mask: 0 }
    }

    /// As [`Affine::of_run`], for what takes numbers above an offset, which this one has already.
    #[inline(always)]
    pub(crate) fn of_run_above<S: Memory<E>>(
        &self,
        s: S,
        run: usize,
        same: &mut Register<E::Acc>,
    ) -> Above<E> {
        Above::nothing(self.of_run(s, run, same))
    }

    /// Those of a row that [has runs](Self::has_runs), by position. `scratch` is this thread's, and of no other numbers in use.
    #[inline(never)]
    pub(crate) fn of_runs(&self, row: usize, scratch: &mut Scratch<E>) -> RunNumbers<E> {
        let Some(values) = self.values else { unreachable!("runs have numbers") };
        scratch.of_row(self.first_of_row(values, row), self.runs.run, self.offset)
    }

    #[inline(always)]
    fn first_of_row(&self, values: Values<'a, E>, row: usize) -> Place<E> {
        // SAFETY: a row's first parameter is one of the parameters.
        unsafe { first(values).add(self.first(row, values.len())) }
    }

    /// The one of feature `index` of a row.
    pub(crate) fn number(&self, row: usize, index: usize) -> E::Acc {
        match self.values {
            None => self.same,
            Some(values) => {
                let first = self.first(row, values.len());
                values.get((first + index / self.runs.run) % values.len()).add(self.offset)
            }
        }
    }
}

/// Where parameters start.
#[inline(always)]
fn first<E: Element>(values: Values<'_, E>) -> Place<E> {
    match values {
        Values::Own(values) => Place::own(values.as_ptr()),
        Values::Wide(values) => Place::wide(values.as_ptr()),
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

/// One a feature.
impl<E: Element> Parameters<E> for Place<E> {
    #[inline(always)]
    unsafe fn get<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe { self.load(s, at, count) }
    }
}

/// One a feature, or one for all.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<E: Element> {
    from: Place<E>,
    /// Of a position: all of it, or nothing.
    mask: usize,
}

impl<E: Element> Parameters<E> for Numbers<E> {
    #[inline(always)]
    unsafe fn get<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's: there is one number a feature; or a register of them, read from its start.
        unsafe { self.from.load(s, at & self.mask, count) }
    }
}

impl<E: Element> Numbers<E> {
    /// One a feature.
    #[inline(always)]
    pub(crate) fn each(from: Place<E>) -> Self {
        Self { from, mask: usize::MAX }
    }
}

/// [`Numbers`], each above an offset.
#[derive(Clone, Copy)]
pub(crate) struct Above<E: Element> {
    numbers: Numbers<E>,
    offset: E::Acc,
}

impl<E: Element> Above<E> {
    /// Above an offset that adds nothing.
    #[inline(always)]
    pub(crate) fn nothing(numbers: Numbers<E>) -> Self {
        Self { numbers, offset: E::Acc::from_f64(-0.0) }
    }
}

impl<E: Element> Parameters<E> for Above<E> {
    #[inline(always)]
    unsafe fn get<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        s.add(unsafe { self.numbers.get(s, at, count) }, s.splat(self.offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::vector::{Body, Vector, dispatch};
    use half::f16;

    /// Reads the numbers of some rows, one scratch for all, as the loops do.
    struct Read<'a> {
        affine: &'a Affine<'a, f16>,
        rows: usize,
        features: usize,
    }

    impl Body<f16> for Read<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Memory<f16>>(self, s: S) -> Vec<f32> {
            let (mut read, mut scratch, mut same) = (vec![], Scratch::new(), self.affine.same());
            for row in 0..self.rows {
                let mut get = |at, count, scratch: &mut _| {
                    // SAFETY: a row has these features; what the numbers are taken from lives.
                    unsafe {
                        if self.affine.has_runs() {
                            self.affine.of_runs(row, scratch).get(s, at, count)
                        } else {
                            self.affine.of_row_above(row, &mut same).get(s, at, count)
                        }
                    }
                };
                for at in (0..self.features).step_by(S::WIDTH) {
                    let count = S::WIDTH.min(self.features - at);
                    let mut register = [0.0f32; 16];
                    let v = get(at, count, &mut scratch);
                    // SAFETY: the array has room for a register.
                    unsafe { Vector::<f32>::store(s, register.as_mut_ptr(), v) };
                    read.extend(&register[..count]);
                }
                if self.affine.has_runs() {
                    let runs = self.affine.runs();
                    for run in 0..runs.per_row {
                        let number = self.affine.of_run(s, self.affine.first_run(row) + run, &mut same);
                        // SAFETY: the register has its number in each lane.
                        let v = unsafe { number.get(s, run * runs.run, 1) };
                        let mut register = [0.0f32; 16];
                        // SAFETY: the array has room for a register.
                        unsafe { Vector::<f32>::store(s, register.as_mut_ptr(), v) };
                        assert_eq!(register[0], self.affine.number(row, run * runs.run), "run {run}");
                    }
                }
            }
            read
        }
    }

    #[test]
    fn every_form_is_read_by_position() {
        let own: Vec<f16> = (1u8..=60).map(|i| f16::from_f32(i.into())).collect();
        let wide: Vec<f32> = (1u8..=60).map(f32::from).collect();
        let runs = [
            Runs::NONE,
            Runs { run: 5, per_row: 3 },
            Runs { run: 20, per_row: 2 },
            Runs { run: 1, per_row: 7 },
            Runs { run: 30, per_row: 1 },
        ];
        for (runs, len) in
            runs.into_iter().flat_map(|runs| [0, 1, 2, 4].map(|rows| (runs, rows * runs.per_row)))
        {
            let features = if runs.per_row == 0 { 37 } else { runs.run * runs.per_row };
            let len = if runs.per_row == 0 { features } else { len };
            for values in [Values::Own(&own[..len]), Values::Wide(&wide[..len])] {
                let values = Some(values).filter(|values| values.len() > 0);
                let affine = Affine::<f16>::with(values, 3.0, Some(0.5), runs);
                let expected: Vec<f32> = (0..4)
                    .flat_map(|row| (0..features).map(move |j| (row, j)))
                    .map(|(row, j)| affine.number(row, j))
                    .collect();
                for level in if cfg!(miri) { vec![Level::Portable] } else { Level::available().collect() } {
                    let read = dispatch(level, Read { affine: &affine, rows: 4, features });
                    assert_eq!(read, expected, "{level}, {len} numbers, {runs:?}");
                }
            }
        }
    }
}
