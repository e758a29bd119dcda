//! What the tests need of the types, and the constants of the order, which are stated once more here so that
//! a change in the crate shows.

use half::{bf16, f16};
use layernorm::Companion;
use std::fmt::{Debug, Display};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number of any of the four types.
pub(crate) trait Value:
    Copy + Send + Sync + PartialEq + PartialOrd + Default + Debug + Display + Neg<Output = Self> + 'static
{
    const NAME: &'static str;
    /// The smallest positive number.
    const SMALLEST: f64;
    /// The largest finite number.
    const GREATEST: f64;
    /// The exponents of two of the smallest and the largest number.
    const EXPONENTS: [i32; 2];
    /// Binary digits of a normal number, but for f32 and f64: none of those that tests compute in.
    const HALF_DIGITS: Option<i32>;

    /// Rounded once, to nearest even.
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    fn bits(self) -> u64;
    fn of_bits(bits: u64) -> Self;

    fn finite(self) -> bool {
        self.wide().is_finite()
    }

    /// What one more rounding, to a half, may add to the error of a number of about this size.
    fn half_ulp(at: f64) -> f64 {
        let Some(digits) = Self::HALF_DIGITS else { return 0.0 };
        let exponent = if at > 0.0 { at.log2().floor() as i32 } else { Self::EXPONENTS[0] };
        power_of_two((exponent - digits + 1).max(Self::EXPONENTS[0]) - 1)
    }
}

/// A type that rows are stored in.
pub(crate) trait Stored: Value + layernorm::Element<Acc: Number + Companion<Self>> {
    /// Exactly.
    fn acc(self) -> Self::Acc {
        Self::Acc::of(self.wide())
    }
    /// Rounded once, to nearest even.
    fn round(value: Self::Acc) -> Self {
        Self::of(value.wide())
    }
}

impl<T: Value + layernorm::Element<Acc: Number + Companion<T>>> Stored for T {}

/// A type that sums and statistics have: f32 or f64.
pub(crate) trait Number:
    Value + layernorm::Real + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    const W: usize;
    const B: usize;
    /// Exponents of the range of var + eps.
    const RANGE_OF_V: [i32; 2];
    /// Exponents of the range of r.
    const RANGE_OF_R: [i32; 2];

    fn fused(self, a: Self, b: Self) -> Self;
    fn root(self) -> Self;
}

macro_rules! number {
    ($t:ident, $bits:ty, $w:literal, $b:literal, $range_of_v:expr, $range_of_r:expr, $exponents:expr) => {
        impl Value for $t {
            const NAME: &'static str = stringify!($t);
            const SMALLEST: f64 = $t::from_bits(1) as f64;
            const GREATEST: f64 = $t::MAX as f64;
            const EXPONENTS: [i32; 2] = $exponents;
            const HALF_DIGITS: Option<i32> = None;

            fn of(value: f64) -> Self {
                value as $t
            }
            fn wide(self) -> f64 {
                self.into()
            }
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
            fn of_bits(bits: u64) -> Self {
                $t::from_bits(bits as $bits)
            }
        }

        impl Number for $t {
            const W: usize = $w;
            const B: usize = $b;
            const RANGE_OF_V: [i32; 2] = $range_of_v;
            const RANGE_OF_R: [i32; 2] = $range_of_r;

            fn fused(self, a: Self, b: Self) -> Self {
                self.mul_add(a, b)
            }
            fn root(self) -> Self {
                $t::sqrt(self)
            }
        }
    };
}

number!(f32, u32, 32, 256, [-100, 120], [-60, 50], [-149, 127]);
number!(f64, u64, 16, 128, [-960, 960], [-480, 480], [-1074, 1023]);

macro_rules! half {
    ($t:ident, $exponent_bits:literal, $digits:literal, $exponents:expr) => {
        impl Value for $t {
            const NAME: &'static str = stringify!($t);
            const SMALLEST: f64 = magnitude(1, $exponent_bits);
            const GREATEST: f64 = magnitude(INFINITY[$exponent_bits] - 1, $exponent_bits);
            const EXPONENTS: [i32; 2] = $exponents;
            const HALF_DIGITS: Option<i32> = Some($digits);

            fn of(value: f64) -> Self {
                $t::from_bits(nearest(value, $exponent_bits))
            }
            fn wide(self) -> f64 {
                let (sign, magnitude_bits) = (self.to_bits() >> 15, self.to_bits() & 0x7fff);
                let infinity = INFINITY[$exponent_bits];
                let magnitude = match magnitude_bits {
                    bits if bits > infinity => f64::NAN,
                    bits if bits == infinity => f64::INFINITY,
                    bits => magnitude(bits, $exponent_bits),
                };
                if sign == 1 { -magnitude } else { magnitude }
            }
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
            fn of_bits(bits: u64) -> Self {
                $t::from_bits(bits as u16)
            }
        }
    };
}

half!(f16, 5, 11, [-24, 15]);
half!(bf16, 8, 8, [-133, 127]);

/// The bits of infinity, by the number of bits that an exponent has.
const INFINITY: [u16; 9] = {
    let mut all = [0; 9];
    let mut bits = 1;
    while bits < 9 {
        all[bits] = ((1 << bits) - 1) << (15 - bits);
        bits += 1;
    }
    all
};

/// The number that the lower 15 bits of a half stand for; those of infinity, as if they were one more step.
const fn magnitude(bits: u16, exponent_bits: u32) -> f64 {
    let digits = 15 - exponent_bits;
    let (exponent, fraction) = ((bits >> digits) as i64, (bits & ((1 << digits) - 1)) as f64);
    let bias = (1i64 << (exponent_bits - 1)) - 1;
    let (whole, exponent) = if exponent == 0 { (0.0, 1) } else { ((1u32 << digits) as f64, exponent) };
    let unit = f64::from_bits(((1023 + exponent - bias - digits as i64) as u64) << 52);
    (whole + fraction) * unit
}

/// The bits of the half that is nearest to a number; of two, that with an even last digit. By the definition: between
/// two neighbours lies a middle. It shares nothing with the kernels or the crate `half`.
fn nearest(value: f64, exponent_bits: u32) -> u16 {
    let sign = u16::from(value.is_sign_negative()) << 15;
    let infinity = INFINITY[exponent_bits as usize];
    if value.is_nan() {
        return sign | infinity | 1 << (14 - exponent_bits);
    }
    let value = value.abs();
    // The last one that is no more than the value.
    let (mut below, mut above) = (0, infinity);
    if value >= magnitude(infinity, exponent_bits) {
        return sign | infinity;
    }
    while above - below > 1 {
        let bits = below + (above - below) / 2;
        if magnitude(bits, exponent_bits) <= value { below = bits } else { above = bits }
    }
    // Exact: a sum of two neighbours has one digit more than they.
    let middle = (magnitude(below, exponent_bits) + magnitude(above, exponent_bits)) / 2.0;
    let up = value > middle || value == middle && below % 2 == 1;
    sign | if up { above } else { below }
}

/// The bits, where any NaN is like any other.
pub(crate) fn bits<T: Value>(value: T) -> u64 {
    if value.wide().is_nan() { u64::MAX } else { value.bits() }
}

/// The first place where two slices differ in their bits, for a message.
pub(crate) fn difference<T: Value>(what: &str, left: &[T], right: &[T]) -> Option<String> {
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
