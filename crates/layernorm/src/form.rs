//! How a row is measured: which of its numbers, and what they are divided by.

use crate::wide::power_of_two;
use crate::{Error, Real};

/// What x (layer norm: x - mean) is divided by, where v is the mean of the squares, or their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Divisor {
    /// sqrt(v + eps).
    Inside,
    /// sqrt(v) + eps.
    Outside,
    /// The larger of sqrt(v) and eps.
    AtLeast,
}

/// How a row is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form<T> {
    pub(crate) eps: T,
    pub(crate) divisor: Divisor,
    /// The statistics are of the first so many features.
    pub(crate) used: usize,
    /// What sums are divided by: the number of features used, or 1 where v is the sum of squares.
    pub(crate) count: usize,
}

impl<T: Real> Form<T> {
    /// Mean squares of all features, and epsilon in the root.
    pub(crate) fn new(eps: f64, features: usize) -> Result<Self, Error> {
        let rounded = T::from_f64(eps);
        if !(rounded.is_finite() && eps >= 0.0) {
            return Err(Error::Epsilon { eps, max: T::LARGEST });
        }
        Ok(Self { eps: rounded, divisor: Divisor::Inside, used: features, count: features })
    }

    /// Is it sqrt(v + eps)?
    pub(crate) fn is_inside(&self) -> bool {
        self.divisor == Divisor::Inside
    }

    /// 1 over that, and whether v + eps is in range. Without a branch, so that many go together.
    #[inline(always)]
    pub(crate) fn reciprocal_inside(&self, v: T) -> (T, bool) {
        let square = v.add(self.eps);
        (T::from_f64(1.0).div(square.sqrt()), in_range_of_squares(square))
    }

    /// 1 over the divisor, and what a gradient along x_hat is multiplied by: `v + eps` in range, else `None`.
    #[inline(always)]
    pub(crate) fn reciprocal(&self, v: T) -> Option<[T; 2]> {
        let one = T::from_f64(1.0);
        if self.is_inside() {
            let (rstd, in_range) = self.reciprocal_inside(v);
            return in_range.then_some([rstd, one]);
        }
        let root = in_range_of_squares(v).then(|| v.sqrt())?;
        let divisor = match self.divisor {
            Divisor::Outside => root.add(self.eps),
            _ if root > self.eps => root,
            _ => return Some([one.div(self.eps), T::from_f64(0.0)]),
        };
        Some([one.div(divisor), divisor.div(root)])
    }
}

/// Can the fast path take the root of it?
#[inline(always)]
fn in_range_of_squares<T: Real>(square: T) -> bool {
    (power::<T>(T::RANGE.0) <= square) & (square <= power(T::RANGE.1))
}

/// Is r = 1 / sqrt(var + eps) of a row that the fast path can do? Other rows are redone.
#[inline(always)]
pub(crate) fn in_range<T: Real>(rstd: T) -> bool {
    power::<T>(-T::RANGE.1 / 2) <= rstd && rstd <= power::<T>(-T::RANGE.0 / 2)
}

/// 2^exponent.
#[inline(always)]
fn power<T: Real>(exponent: i32) -> T {
    T::from_f64(power_of_two(exponent))
}
