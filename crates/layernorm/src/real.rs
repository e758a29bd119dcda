//! The number types that the kernels accumulate in.

use crate::Element;

/// `f32` or `f64`: a type that the kernels accumulate in. Sealed.
///
/// ```
/// fn unit_roundoff<T: layernorm::Real>() -> f64 {
///     T::UNIT_ROUNDOFF
/// }
/// assert_eq!(unit_roundoff::<f32>(), 2f64.powi(-24));
/// ```
pub trait Real: Element<Acc = Self> + PartialOrd + std::ops::AddAssign + private::Number {
    /// u: half the distance from 1 to the next number, the relative error of one rounding.
    const UNIT_ROUNDOFF: f64;
    /// The largest finite number.
    const LARGEST: f64;
}

impl Real for f32 {
    const UNIT_ROUNDOFF: f64 = (Self::EPSILON / 2.0) as f64;
    const LARGEST: f64 = Self::MAX as f64;
}

impl Real for f64 {
    const UNIT_ROUNDOFF: f64 = Self::EPSILON / 2.0;
    const LARGEST: f64 = Self::MAX;
}

pub(crate) mod private {
    #![allow(private_bounds, reason = "nobody outside can name this trait: it seals `Real`")]

    /// What the kernels need of a number. The constants are part of the canonical order (see `order`).
    pub trait Number: Sized {
        /// Lanes of a block.
        const LANES: usize;
        /// Numbers in a block.
        const BLOCK: usize;
        /// Exponents (of two) between which var + eps must lie for the fast path to be accurate.
        const RANGE: (i32, i32);

        /// Rounded to nearest even.
        fn from_count(count: usize) -> Self;
        fn add(self, other: Self) -> Self;
        fn sub(self, other: Self) -> Self;
        fn mul(self, other: Self) -> Self;
        fn div(self, other: Self) -> Self;
        fn sqrt(self) -> Self;
        /// `self * a + b`, rounded once.
        fn fma(self, a: Self, b: Self) -> Self;
        fn neg(self) -> Self;
        fn is_finite(&self) -> bool;
    }

    macro_rules! number {
        ($t:ty, $lanes:literal, $block:literal, $range:expr) => {
            impl Number for $t {
                const LANES: usize = $lanes;
                const BLOCK: usize = $block;
                const RANGE: (i32, i32) = $range;

                #[inline(always)]
                fn from_count(count: usize) -> Self {
                    count as Self
                }
                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    self + other
                }
                #[inline(always)]
                fn sub(self, other: Self) -> Self {
                    self - other
                }
                #[inline(always)]
                fn mul(self, other: Self) -> Self {
                    self * other
                }
                #[inline(always)]
                fn div(self, other: Self) -> Self {
                    self / other
                }
                #[inline(always)]
                fn sqrt(self) -> Self {
                    self.sqrt()
                }
                #[inline(always)]
                fn fma(self, a: Self, b: Self) -> Self {
                    self.mul_add(a, b)
                }
                #[inline(always)]
                fn neg(self) -> Self {
                    -self
                }
                #[inline(always)]
                fn is_finite(&self) -> bool {
                    <$t>::is_finite(*self)
                }
            }
        };
    }

    number!(f32, 32, 256, (-100, 120));
    number!(f64, 16, 128, (-960, 960));
}
