//! The types of elements, and when two numbers have the same bits.

use half::{bf16, f16};
use layernorm::{Companion, Element};

/// A type of numbers, all of which f64 holds.
pub trait Float: Copy {
    /// As in messages.
    const NAME: &'static str;

    /// Rounded.
    fn nearest(value: f64) -> Self;
    /// Exactly.
    fn exact(self) -> f64;
}

/// A type that elements may have: f32, f64, f16, bf16.
pub trait Number: Float + Element<Acc: Float + Companion<Self>> {
    /// Is it computed in a wider one?
    const IS_HALF: bool;
    /// A large finite number, whose square overflows the type that it is computed in, unless it is a half.
    const HUGE: f64;
    /// A number that this type stores with fewer digits.
    const SUBNORMAL: f64;

    /// A sum, rounded once.
    fn rounded(sum: Self::Acc) -> Self;
}

macro_rules! number {
    ($t:ty, $name:literal, $half:literal, $huge:literal, $subnormal:literal, $from:expr, $to:expr, $rounded:expr) => {
        impl Float for $t {
            const NAME: &'static str = $name;

            #[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
            fn nearest(value: f64) -> Self {
                ($from)(value)
            }

            fn exact(self) -> f64 {
                ($to)(self)
            }
        }

        impl Number for $t {
            const IS_HALF: bool = $half;
            const HUGE: f64 = $huge;
            const SUBNORMAL: f64 = $subnormal;

            fn rounded(sum: Self::Acc) -> Self {
                ($rounded)(sum)
            }
        }
    };
}

number!(f32, "f32", false, 1e30, 1e-40, |value| value as f32, f64::from, |sum| sum);
number!(f64, "f64", false, 1e300, 1e-310, |value| value, |value| value, |sum| sum);
number!(f16, "f16", true, 6e3, 1e-6, f16::from_f64, f16::to_f64, f16::from_f32);
number!(bf16, "bf16", true, 1e30, 1e-39, bf16::from_f64, bf16::to_f64, bf16::from_f32);

/// The same number to the last bit, the sign of a zero included. Any NaN is any other.
///
/// ```
/// use layernorm_conformance::same_bits;
///
/// assert!(same_bits(f32::NAN, -f32::NAN) && !same_bits(0.0f32, -0.0));
/// ```
pub fn same_bits<T: Float>(a: T, b: T) -> bool {
    let (a, b) = (a.exact(), b.exact());
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}
