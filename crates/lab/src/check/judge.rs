//! Errors measured in u, the worst of each kind kept.

use crate::operators::{Expected, Float, Operator, Slot};
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
    pub(super) fn judge<T: Float>(&mut self, ran: Ran<'_>, output: &[T], expected: &Expected) {
        let missing = output.len() != expected.values.len();
        let worst = if missing { f64::INFINITY } else { worst(output, expected) };
        let judged = Judged { worst, bound: expected.bound };
        self.keep(ran, T::NAME, expected.slot, judged);
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

/// The largest error of an output, in units of u times the scale.
fn worst<T: Float>(output: &[T], expected: &Expected) -> f64 {
    let numbers = output.iter().zip(&expected.values).zip(&expected.scales);
    numbers.fold(0.0, |worst: f64, ((&got, exact), scale)| {
        let (unit, free) = (T::UNIT_ROUNDOFF * scale, rounding::<T>(expected, *exact));
        // Where the right answer, give or take what is allowed, is beyond the largest number, so is infinity.
        let beyond = exact.hi().abs() + free + expected.bound * unit > T::LARGEST;
        if got.widen() == exact.hi() || (beyond && got.widen() == exact.hi().signum() * f64::INFINITY) {
            return worst;
        }
        let error = ((got.widen() - exact.hi()) - exact.lo()).abs() - free;
        match (error <= 0.0, error.is_nan()) {
            (true, _) => worst,
            (_, true) => f64::INFINITY,
            _ => worst.max(error / unit),
        }
    })
}

/// Rounding the result itself, and the smallest number, which is the step between the numbers nearest to 0.
fn rounding<T: Float>(expected: &Expected, exact: TwoFloat) -> f64 {
    let own = if expected.rounding { T::UNIT_ROUNDOFF * exact.hi().abs() } else { 0.0 };
    own + T::TINY
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
        assert_eq!(worst(&[1.0f32], &expected(1.0, 1.0, true)), 0.0);
        let off = worst(&[1.0 + 8.0 * u], &expected(1.0, 1.0, false));
        assert!((off - 8.0).abs() < 1e-6, "{off}");
        let off = worst(&[1.0 + 8.0 * u], &expected(1.0, 1.0, true));
        assert!((off - 7.0).abs() < 1e-6, "{off}");
        let off = worst(&[1.0 + 8.0 * u], &expected(1.0, 4.0, false));
        assert!((off - 2.0).abs() < 1e-6, "{off}");
    }

    #[test]
    fn what_is_not_finite_is_wrong_unless_the_answer_is_out_of_range() {
        assert_eq!(worst(&[f32::NAN], &expected(1.0, 1.0, true)), f64::INFINITY);
        assert_eq!(worst(&[f32::INFINITY], &expected(1.0, 1.0, true)), f64::INFINITY);
        assert_eq!(worst(&[f32::INFINITY], &expected(1e39, 1.0, true)), 0.0);
        assert_eq!(worst(&[f32::NEG_INFINITY], &expected(1e39, 1.0, true)), f64::INFINITY);
        assert!(worst(&[1e38f32], &expected(1e39, 1.0, true)) > 8.0);
        assert_eq!(worst(&[0.5f32], &expected(0.0, 0.0, true)), f64::INFINITY);
    }
}
