//! Double-double numbers: the unevaluated sum of two f64, good for about 106 bits (Dekker 1971, Hida, Li,
//! Bailey 2001). The truth that f64 kernels are held against.

use crate::number::power_of_two;
use std::ops::{Add, Div, Mul, Neg, Sub};

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Dd {
    pub(crate) hi: f64,
    lo: f64,
}

impl Dd {
    pub(crate) const ZERO: Self = Self { hi: 0.0, lo: 0.0 };

    pub(crate) fn new(value: f64) -> Self {
        Self { hi: value, lo: 0.0 }
    }

    /// a + b, exactly.
    fn sum(a: f64, b: f64) -> Self {
        let hi = a + b;
        let from_b = hi - a;
        Self { hi, lo: (a - (hi - from_b)) + (b - from_b) }
    }

    pub(crate) fn abs(self) -> Self {
        if self.hi < 0.0 { -self } else { self }
    }

    pub(crate) fn sqrt(self) -> Self {
        if self.hi <= 0.0 {
            return Self::ZERO;
        }
        let first = self.hi.sqrt();
        let rest = self - Self::new(first) * Self::new(first);
        Self::sum(first, rest.hi / (2.0 * first))
    }

    /// Times 2^exponent, in steps that neither overflow nor vanish on the way.
    pub(crate) fn scaled(self, exponent: i32) -> Self {
        let step = exponent / 3;
        [step, step, exponent - 2 * step].iter().fold(self, |of, step| {
            let factor = power_of_two(*step);
            Self { hi: of.hi * factor, lo: of.lo * factor }
        })
    }

    /// |self - value|, rounded.
    pub(crate) fn distance(self, value: f64) -> f64 {
        (self - Self::new(value)).abs().hi
    }
}

impl Add for Dd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let (high, low) = (Self::sum(self.hi, other.hi), Self::sum(self.lo, other.lo));
        let high = Self::sum(high.hi, high.lo + low.hi);
        Self::sum(high.hi, high.lo + low.lo)
    }
}

impl Neg for Dd {
    type Output = Self;

    fn neg(self) -> Self {
        Self { hi: -self.hi, lo: -self.lo }
    }
}

impl Sub for Dd {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Dd {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let hi = self.hi * other.hi;
        let lo = self.hi.mul_add(other.hi, -hi);
        Self::sum(hi, lo + (self.hi * other.lo + self.lo * other.hi))
    }
}

impl Div for Dd {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let first = self.hi / other.hi;
        let rest = self - other * Self::new(first);
        let second = rest.hi / other.hi;
        let rest = rest - other * Self::new(second);
        Self::sum(first, second) + Self::new(rest.hi / other.hi)
    }
}

#[test]
fn double_doubles_hold_twice_the_digits() {
    let third = Dd::new(1.0) / Dd::new(3.0);
    let one = third + third + third;
    assert!(one.distance(1.0) < 1e-31, "{one:?}");
    let root = Dd::new(2.0).sqrt();
    assert!((root * root).distance(2.0) < 1e-30, "{root:?}");
    assert!((Dd::new(1e16) + Dd::new(1.0) - Dd::new(1e16)).distance(1.0) == 0.0);
}
