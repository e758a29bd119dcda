//! What the tests need of f32 and f64, and the constants of the order, which are stated once more here so that
//! a change in the crate shows.

use std::fmt::Display;
use std::ops::{Add, Div, Mul, Neg, Sub};

pub(crate) trait Number:
    layernorm::Real
    + Default
    + Display
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    const NAME: &'static str;
    const W: usize;
    const B: usize;
    /// Exponents of the range of var + eps.
    const RANGE_OF_V: [i32; 2];
    /// Exponents of the range of r.
    const RANGE_OF_R: [i32; 2];
    /// The smallest positive number.
    const SMALLEST: f64;
    /// The exponents of two of the smallest and the largest number.
    const EXPONENTS: [i32; 2];

    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    fn fused(self, a: Self, b: Self) -> Self;
    fn root(self) -> Self;
    fn finite(self) -> bool;
    fn bits(self) -> u64;
    fn of_bits(bits: u64) -> Self;
}

macro_rules! number {
    ($t:ident, $bits:ty, $w:literal, $b:literal, $range_of_v:expr, $range_of_r:expr, $exponents:expr) => {
        impl Number for $t {
            const NAME: &'static str = stringify!($t);
            const W: usize = $w;
            const B: usize = $b;
            const RANGE_OF_V: [i32; 2] = $range_of_v;
            const RANGE_OF_R: [i32; 2] = $range_of_r;
            const SMALLEST: f64 = $t::from_bits(1) as f64;
            const EXPONENTS: [i32; 2] = $exponents;

            fn of(value: f64) -> Self {
                value as $t
            }
            fn wide(self) -> f64 {
                self.into()
            }
            fn fused(self, a: Self, b: Self) -> Self {
                self.mul_add(a, b)
            }
            fn root(self) -> Self {
                $t::sqrt(self)
            }
            fn finite(self) -> bool {
                $t::is_finite(self)
            }
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
            fn of_bits(bits: u64) -> Self {
                $t::from_bits(bits as $bits)
            }
        }
    };
}

number!(f32, u32, 32, 256, [-100, 120], [-60, 50], [-149, 127]);
number!(f64, u64, 16, 128, [-960, 960], [-480, 480], [-1074, 1023]);

/// The bits, where any NaN is like any other.
pub(crate) fn bits<T: Number>(value: T) -> u64 {
    if value.wide().is_nan() { u64::MAX } else { value.bits() }
}

/// The first place where two slices differ in their bits, for a message.
pub(crate) fn difference<T: Number>(what: &str, left: &[T], right: &[T]) -> Option<String> {
    if left.len() != right.len() {
        return Some(format!("{what}: lengths {} and {}", left.len(), right.len()));
    }
    let at = (0..left.len()).find(|&i| bits(left[i]) != bits(right[i]))?;
    Some(format!(
        "{what}[{at}] of {}: {:?} ({:x}) and {:?} ({:x})",
        left.len(),
        left[at],
        left[at].bits(),
        right[at],
        right[at].bits()
    ))
}

/// 2^exponent for any exponent; beyond the range, infinity or 0.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    // By its bits, because `powi` need not be exact everywhere.
    let normal = |exponent: i32| f64::from_bits((1023 + i64::from(exponent)) as u64 * (1 << 52));
    normal(exponent / 2) * normal(exponent - exponent / 2)
}
