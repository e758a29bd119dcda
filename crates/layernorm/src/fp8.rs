//! Numbers of eight bits, to quantise to.
//!
//! The two formats of "FP8 formats for deep learning" (Micikevicius et al. 2022, arXiv:2209.05433, table 1), rounded
//! to nearest even, with saturation. By integers alone, so that the bits are the same everywhere.

/// A type of eight bits that rows are quantised to: `i8`, [`E4M3`] or [`E5M2`]. Sealed.
///
/// ```
/// fn largest<Q: layernorm::Quantum>() -> f32 {
///     Q::LARGEST
/// }
/// assert_eq!([largest::<i8>(), largest::<layernorm::E4M3>()], [127.0, 448.0]);
/// ```
pub trait Quantum: Copy + Send + Sync + std::fmt::Debug + private::Byte + 'static {
    /// The largest number: that which a row's largest is scaled to.
    const LARGEST: f32;

    /// Rounded to nearest, ties to even; beyond ±[`Quantum::LARGEST`], that. A NaN stays one; for `i8`, which has
    /// none, it becomes 0.
    ///
    /// ```
    /// use layernorm::Quantum;
    ///
    /// assert_eq!([2.5, -3.5, 1e9, f32::NAN].map(i8::nearest), [2, -4, 127, 0]);
    /// ```
    fn nearest(value: f32) -> Self;

    /// Exactly.
    ///
    /// ```
    /// use layernorm::{E5M2, Quantum};
    ///
    /// assert_eq!(E5M2(0x3c).to_f32(), 1.0);
    /// ```
    fn to_f32(self) -> f32;
}

/// fp8 with four bits of exponent and three of fraction, without infinity (`e4m3fn`): up to 448.
///
/// ```
/// use layernorm::{E4M3, Quantum};
///
/// assert_eq!([1.0, 17.0, 1e9].map(|x| E4M3::nearest(x).to_f32()), [1.0, 16.0, 448.0]);
/// assert!(E4M3::nearest(f32::NAN).to_f32().is_nan());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct E4M3(
    /// The bits: sign, exponent (bias 7), fraction.
    pub u8,
);

/// fp8 with five bits of exponent and two of fraction: up to 57344. It has infinities, which no rounding gives.
///
/// ```
/// use layernorm::{E5M2, Quantum};
///
/// assert_eq!([1.0, 1.3, f32::INFINITY].map(|x| E5M2::nearest(x).to_f32()), [1.0, 1.25, 57344.0]);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct E5M2(
    /// The bits: sign, exponent (bias 15), fraction.
    pub u8,
);

impl Quantum for i8 {
    const LARGEST: f32 = 127.0;

    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "the low byte is the number")]
    fn nearest(value: f32) -> Self {
        // Beside 1.5 * 2^23 the last digit is 1, and the bits count on from those of that number.
        const ONES: f32 = 12_582_912.0;
        let inside = value.clamp(-Self::LARGEST, Self::LARGEST);
        let integer = (inside + ONES).to_bits().wrapping_sub(ONES.to_bits());
        if value.is_nan() { 0 } else { integer as Self }
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.into()
    }
}

macro_rules! fp8 {
    ($t:ident, $bias:literal, $digits:literal, $largest:literal, $infinity:expr, $nan:literal) => {
        impl Quantum for $t {
            const LARGEST: f32 = $largest;

            #[inline(always)]
            fn nearest(value: f32) -> Self {
                Self(fp8::<$bias, $digits>(value.to_bits(), Self::LARGEST.to_bits()))
            }

            #[inline(always)]
            fn to_f32(self) -> f32 {
                let magnitude = u32::from(self.0 & 0x7f);
                let sign = u32::from(self.0 & 0x80) << 24;
                if magnitude >= $nan {
                    return f32::NAN;
                }
                if magnitude == $infinity {
                    return f32::from_bits(sign | f32::INFINITY.to_bits());
                }
                // The digits in their places, for exponents that are too low by 127 - bias: exact, subnormals too.
                let low = f32::from_bits(magnitude << (23 - $digits));
                let by = f32::from_bits((127 + 127 - $bias) << 23);
                f32::from_bits(sign | (low * by).to_bits())
            }
        }
    };
}

// E4M3 has one NaN and no infinity: no magnitude is that number.
fp8!(E4M3, 7, 3, 448.0, u32::MAX, 0x7f);
fp8!(E5M2, 15, 2, 57344.0, 0x7c, 0x7d);

/// The bits of f32 rounded to a number with this bias and so many digits of fraction.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "eight bits are left")]
fn fp8<const BIAS: u32, const DIGITS: u32>(bits: u32, largest: u32) -> u8 {
    let magnitude = bits & 0x7fff_ffff;
    let sign = (bits >> 24) & 0x80;
    // To nearest even by `drop` digits: half of the last place is added, less the least bit where that is even.
    let round = |digits: u32, drop: u32| (digits + ((1 << (drop - 1)) - 1) + ((digits >> drop) & 1)) >> drop;

    let inside = magnitude.min(largest);
    let normal = round(inside, 23 - DIGITS).wrapping_sub((127 - BIAS) << DIGITS);
    // Below the normal numbers the last place is the same for all: more digits are dropped, at most all.
    let exponent = inside >> 23;
    let drop = (151 - BIAS - DIGITS).saturating_sub(exponent).clamp(1, 26);
    let subnormal = round(inside & 0x007f_ffff | 0x0080_0000, drop);
    let rounded = if exponent >= 128 - BIAS { normal } else { subnormal };
    if magnitude > f32::INFINITY.to_bits() { 0x7f } else { (sign | rounded) as u8 }
}

/// Which [`Quantum`], as a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Format {
    Int8,
    E4M3,
    E5M2,
}

pub(crate) mod private {
    #![allow(private_interfaces, reason = "nobody outside can name this trait: it seals `Quantum`")]

    use super::*;

    /// One byte in memory, and which.
    pub trait Byte: Sized {
        const FORMAT: Format;
        fn byte(self) -> u8;
    }

    impl Byte for i8 {
        const FORMAT: Format = Format::Int8;
        #[inline(always)]
        fn byte(self) -> u8 {
            self.cast_unsigned()
        }
    }
    impl Byte for E4M3 {
        const FORMAT: Format = Format::E4M3;
        #[inline(always)]
        fn byte(self) -> u8 {
            self.0
        }
    }
    impl Byte for E5M2 {
        const FORMAT: Format = Format::E5M2;
        #[inline(always)]
        fn byte(self) -> u8 {
            self.0
        }
    }
}
