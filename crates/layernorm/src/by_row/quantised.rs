//! Rows that are normalised and then stored in eight bits.

use super::forward::{Forward, Normalise};
use super::*;
use crate::fp8::{E4M3, E5M2, Format, Quantum};
use crate::vector::{Body, dispatch};
use crate::{Error, Run, threads, wide};
use std::ops::Range;

/// Numbers that a pass holds at a time: a divisor of no row, and enough to hide the calls.
const PIECE: usize = 256;

/// A checked call: the norm, and what becomes of its output.
pub(crate) struct Quantised<'a, E: Element> {
    /// Its `y` is nowhere.
    pub(crate) norm: Forward<'a, E>,
    /// Without them the rows are taken as they are.
    pub(crate) statistics: Option<Statistics>,
    pub(crate) format: Format,
    pub(crate) to: Target<'a, u8>,
    pub(crate) scale: Scales<'a>,
}

/// What numbers are divided by.
#[derive(Clone, Copy)]
pub(crate) enum Scales<'a> {
    /// In each row such that its largest becomes the largest that there is; written here.
    OfRows(Column<'a, f32>),
    /// The same everywhere.
    Given(f32),
}

impl Format {
    fn largest(self) -> f32 {
        match self {
            Self::Int8 => i8::LARGEST,
            Self::E4M3 => E4M3::LARGEST,
            Self::E5M2 => E5M2::LARGEST,
        }
    }
}

impl<E: Element> Quantised<'_, E> {
    /// Run the call. (As in the forward pass, by way of a function that is not generic.)
    pub(crate) fn run(self, run: Run) -> Result<(), Error> {
        E::quantised(&self, run)
    }

    pub(crate) fn run_rows(&self, run: Run) -> Result<(), Error> {
        let (level, shape) = (run.level()?, self.norm.shape);
        let parts = threads::parts(run.threads(), shape.rows, shape.features);
        threads::over_rows(parts, shape.rows, |rows| dispatch(level, Part { call: self, rows }));
        Ok(())
    }

    /// The row with the call's statistics; `None` if it needs more range than its type has.
    ///
    /// # Safety
    /// The row exists.
    #[inline(always)]
    unsafe fn moments<S: Memory<E>>(&self, s: S, x: Place<E>) -> Option<Moments<E::Acc>> {
        let form = &self.norm.form;
        // SAFETY: the caller's.
        unsafe {
            match self.statistics {
                Some(statistics) => statistics.in_cache(s, x, form),
                None => Some(Moments { rstd: E::Acc::from_f64(1.0), ..Moments::none() }),
            }
        }
    }

    /// The output of a row that is out of range, number by number.
    ///
    /// # Safety
    /// The row exists.
    #[cold]
    #[inline(never)]
    unsafe fn wide(&self, row: usize, x: Place<E>, mut each: impl FnMut(usize, f32)) {
        let each: &mut dyn FnMut(usize, E) = &mut |i, y| each(i, to_f32(y.to_f64()));
        // SAFETY: the caller's.
        unsafe {
            wide::normalise(self.statistics.unwrap_or(Statistics::Uncentred), &self.norm, row, x, each);
        }
    }

    /// What the numbers of a row are divided by, given the [`Largest`] of them; written where it is asked for.
    ///
    /// # Safety
    /// The row is this thread's.
    unsafe fn scale(&self, row: usize, largest: u32) -> f32 {
        match self.scale {
            Scales::Given(scale) => scale,
            Scales::OfRows(to) => {
                let scale = match f32::from_bits(largest) / self.format.largest() {
                    0.0 => 1.0,
                    scale => scale,
                };
                // SAFETY: the caller's.
                unsafe { to.set(row, scale) };
                scale
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
fn to_f32(value: f64) -> f32 {
    value as f32
}

/// Some rows of a call.
struct Part<'a, 'b, E: Element> {
    call: &'b Quantised<'a, E>,
    rows: Range<usize>,
}

impl<E: Element> Body<E> for Part<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let call = self.call;
        let n = call.norm.shape.features;
        let seek = matches!(call.scale, Scales::OfRows(_));
        let mut piece = [0.0f32; PIECE];
        for row in self.rows {
            let mut largest = 0;
            // SAFETY: a row of the checked shape, and this thread's alone.
            unsafe {
                let (x, to) = (call.norm.x.row(row), call.to.row(row));
                if n == 0 {
                    call.scale(row, largest);
                    continue;
                }
                let encode = |at: usize, values: &[f32], scale: f32| {
                    let to = std::slice::from_raw_parts_mut(to.add(at), values.len());
                    s.outlined(Encode { format: call.format, values, scale, to });
                };
                let Some(moments) = call.moments(s, x) else {
                    call.wide(row, x, |_, y| largest = largest.max(Largest(&[y]).get()));
                    let scale = call.scale(row, largest);
                    call.wide(row, x, |i, y| encode(i, &[y], scale));
                    continue;
                };
                let fill = |at: usize, to: &mut [f32]| {
                    s.outlined(Values { norm: &call.norm, row, x, moments, at, to });
                };
                if seek {
                    for at in (0..n).step_by(PIECE) {
                        let values = &mut piece[..PIECE.min(n - at)];
                        fill(at, values);
                        largest = largest.max(s.outlined(Largest(values)));
                    }
                }
                let scale = call.scale(row, largest);
                for at in (0..n).step_by(PIECE) {
                    let values = &mut piece[..PIECE.min(n - at)];
                    fill(at, values);
                    encode(at, values, scale);
                }
            }
        }
    }
}

/// The numbers of y from `at` on, as they would be stored, as f32.
struct Values<'a, 'b, E: Element> {
    norm: &'b Forward<'a, E>,
    row: usize,
    x: Place<E>,
    moments: Moments<E::Acc>,
    at: usize,
    to: &'b mut [f32],
}

impl<E: Element, S: Memory<E>> Work<S> for Values<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self { norm, row, x, moments, at, to } = self;
        let [mut weight, mut bias] = [norm.weight.same(), norm.bias.same()];
        let mut stored = [E::Acc::from_f64(0.0); 16];
        let normalise = Normalise::<E, _, _, _> {
            x,
            y: std::ptr::null_mut(),
            weight: norm.weight.of_row_above(row, &mut weight),
            bias: norm.bias.of_row(row, &mut bias),
            round: norm.rounding.rounds::<E>(norm.weight.is_wide()),
            standardise: Standardise::new(s, moments),
        };
        for (i, to) in to.chunks_mut(S::WIDTH).enumerate() {
            // SAFETY: the row has these numbers, and the array has room for a register.
            unsafe {
                let y = normalise.y(s, at + i * S::WIDTH, to.len());
                store::<E::Acc, S>(s, stored.as_mut_ptr(), 0, S::WIDTH, Memory::<E>::rounded(s, y));
            }
            to.iter_mut().zip(stored).for_each(|(to, y)| *to = to_f32(y.to_f64()));
        }
    }
}

/// The largest absolute value, as bits: by those, NaN is larger than infinity, and no order of the numbers shows.
struct Largest<'a>(&'a [f32]);

impl Largest<'_> {
    #[inline(always)]
    fn get(self) -> u32 {
        self.0.iter().fold(0, |largest, value| largest.max(value.abs().to_bits()))
    }
}

impl<S> Work<S> for Largest<'_> {
    type Output = u32;

    #[inline(always)]
    fn run(self, _: S) -> u32 {
        self.get()
    }
}

/// Numbers divided by the scale, rounded to bytes.
struct Encode<'a> {
    format: Format,
    values: &'a [f32],
    scale: f32,
    to: &'a mut [u8],
}

impl Encode<'_> {
    #[inline(always)]
    fn to<Q: Quantum>(self) {
        for (to, value) in self.to.iter_mut().zip(self.values) {
            *to = Q::nearest(value / self.scale).byte();
        }
    }
}

impl<S> Work<S> for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, _: S) {
        match self.format {
            Format::Int8 => self.to::<i8>(),
            Format::E4M3 => self.to::<E4M3>(),
            Format::E5M2 => self.to::<E5M2>(),
        }
    }
}
