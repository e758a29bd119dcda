//! Errors measured in u, the worst of each kind kept.

use crate::operators::{Acc, Expected, Number, Operator, Slot, Tensors, Types, with};
use crate::report::model::WorstError;
use layernorm::Level;
use std::collections::BTreeMap;
use twofloat::TwoFloat;

/// The worst errors: by operator, precision, level and output.
#[derive(Debug, Default)]
pub(super) struct Worst(BTreeMap<(&'static str, &'static str, &'static str, Level), Entry>);

#[derive(Debug, Clone, Default)]
struct Entry {
    error: Judged,
    at: String,
    rows: u64,
}

/// An error and what was allowed, in the bound's unit.
#[derive(Debug, Clone, Copy, Default)]
struct Judged {
    worst: f64,
    bound: f64,
}

impl Judged {
    fn share(self) -> f64 {
        if self.worst == 0.0 { 0.0 } else { self.worst / self.bound }
    }
}

/// What was run.
#[derive(Clone, Copy)]
pub(super) struct Ran<'a> {
    pub(super) operator: &'static Operator,
    pub(super) level: Level,
    /// Which rows, in words.
    pub(super) at: &'a str,
    pub(super) rows: usize,
}

impl Worst {
    /// Judges one output.
    pub(super) fn judge<T: Types>(&mut self, ran: Ran<'_>, tensors: &Tensors<T>, expected: &Expected) {
        let worst = match tensors.get(expected.slot) {
            Some(output) if output.len() == expected.values.len() => {
                with!(output, values => worst::<_, Acc<T>>(values, expected))
            }
            _ => f64::INFINITY,
        };
        self.keep(ran, T::NAME, expected.slot, Judged { worst, bound: expected.bound });
    }

    fn keep(&mut self, ran: Ran<'_>, dtype: &'static str, slot: Slot, error: Judged) {
        let entry = self.0.entry((ran.operator.name, dtype, slot.name(), ran.level)).or_default();
        entry.rows += ran.rows as u64;
        // The first row judged is kept too: it brings its bound.
        if entry.at.is_empty() || error.share() > entry.error.share() {
            (entry.error, entry.at) = (error, ran.at.to_owned());
        }
    }

    /// Both together.
    pub(super) fn merge(mut self, other: Self) -> Self {
        for (key, of) in other.0 {
            let entry = self.0.entry(key).or_default();
            let rows = entry.rows + of.rows;
            if entry.at.is_empty() || of.error.share() > entry.error.share() {
                *entry = of;
            }
            entry.rows = rows;
        }
        self
    }

    /// For the report.
    pub(super) fn into_report(self) -> Vec<WorstError> {
        let row =
            |((operator, dtype, quantity, level), entry): ((&str, &str, &str, Level), Entry)| WorstError {
                operator: operator.into(),
                quantity: quantity.into(),
                dtype: dtype.into(),
                level: level.to_string(),
                // JSON knows no infinity.
                worst: entry.error.worst.min(f64::MAX),
                bound: entry.error.bound,
                at: entry.at,
                rows: entry.rows,
            };
        self.0.into_iter().map(row).collect()
    }
}

/// The largest error of an output, in units of u times the scale, where u is that of the type of sums.
fn worst<N: Number, A: Number>(output: &[N], expected: &Expected) -> f64 {
    let numbers = output.iter().zip(&expected.values).zip(&expected.scales);
    numbers.fold(0.0, |worst: f64, ((&got, exact), scale)| {
        if *scale == f64::INFINITY {
            return worst;
        }
        let got = got.widen();
        let (unit, free) = (A::UNIT * scale, rounding::<N, A>(expected, *exact, got));
        // Where the right answer, give or take what is allowed, is beyond the largest number, so is infinity.
        let beyond = exact.hi().abs() + free + expected.bound * unit > N::LARGEST;
        if got == exact.hi() || (beyond && got == exact.hi().signum() * f64::INFINITY) {
            return worst;
        }
        let error = ((got - exact.hi()) - exact.lo()).abs() - free;
        match (error <= 0.0, error.is_nan()) {
            (true, _) => worst,
            (_, true) => f64::INFINITY,
            // Not by `unit`, which may be below the smallest number.
            _ => worst.max(error / scale / A::UNIT),
        }
    })
}

/// Rounding the result itself, and the smallest number, which is the step between the numbers nearest to 0.
fn rounding<N: Number, A: Number>(expected: &Expected, exact: TwoFloat, got: f64) -> f64 {
    let own = if expected.rounding { A::UNIT * exact.hi().abs() } else { 0.0 };
    own + A::TINY + if N::UNIT > A::UNIT { N::half_ulp(exact.hi().abs().max(got.abs())) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(value: f64, scale: f64, rounding: bool) -> Expected {
        Expected { slot: Slot::Y, values: vec![value.into()], scales: vec![scale], bound: 8.0, rounding }
    }

    #[test]
    fn errors_are_counted_in_u() {
        let u = f32::EPSILON / 2.0;
        assert_eq!(worst::<f32, f32>(&[1.0f32], &expected(1.0, 1.0, true)), 0.0);
        let off = worst::<f32, f32>(&[1.0 + 8.0 * u], &expected(1.0, 1.0, false));
        assert!((off - 8.0).abs() < 1e-6, "{off}");
        let off = worst::<f32, f32>(&[1.0 + 8.0 * u], &expected(1.0, 1.0, true));
        assert!((off - 7.0).abs() < 1e-6, "{off}");
        let off = worst::<f32, f32>(&[1.0 + 8.0 * u], &expected(1.0, 4.0, false));
        assert!((off - 2.0).abs() < 1e-6, "{off}");
    }

    /// There the steps between numbers are larger than u of them, and u of them is no number.
    #[test]
    fn the_smallest_numbers_are_counted_too() {
        let exact = f64::MIN_POSITIVE * 0.99;
        let off = |steps: u64| {
            worst::<f64, f64>(&[f64::from_bits(exact.to_bits() + steps)], &expected(exact, exact, false))
        };
        assert_eq!(off(1), 0.0, "a step is free");
        assert!(off(2) > 1.9 && off(2) < 2.3, "{}", off(2));
    }

    #[test]
    fn what_is_not_finite_is_wrong_unless_the_answer_is_out_of_range() {
        assert_eq!(worst::<f32, f32>(&[f32::NAN], &expected(1.0, 1.0, true)), f64::INFINITY);
        assert_eq!(worst::<f32, f32>(&[f32::INFINITY], &expected(1.0, 1.0, true)), f64::INFINITY);
        assert_eq!(worst::<f32, f32>(&[f32::INFINITY], &expected(1e39, 1.0, true)), 0.0);
        assert_eq!(worst::<f32, f32>(&[f32::NEG_INFINITY], &expected(1e39, 1.0, true)), f64::INFINITY);
        assert!(worst::<f32, f32>(&[1e38f32], &expected(1e39, 1.0, true)) > 8.0);
        assert_eq!(worst::<f32, f32>(&[0.5f32], &expected(0.0, 0.0, true)), f64::INFINITY);
    }

    /// The f32 bound, and half the distance to the next half.
    #[test]
    fn halves_may_be_rounded() {
        use half::bf16;
        let off =
            |got: f32, exact: f64| worst::<bf16, f32>(&[bf16::from_f32(got)], &expected(exact, 1.0, false));
        assert_eq!(off(1.0, 1.0 + 2f64.powi(-8)), 0.0);
        assert!((off(1.0, 1.0 + 2f64.powi(-8) + 2f64.powi(-23)) - 2.0).abs() < 1e-6);
        assert!(off(1.0, 1.0 + 2f64.powi(-7)) > 8.0);
        // Above 2 they lie twice as far apart.
        assert_eq!(off(2.0, 2.0 + 2f64.powi(-7)), 0.0);
    }
}
