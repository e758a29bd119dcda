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
    pub trait Number: Sized + 'static {
        /// Lanes of a block.
        const LANES: usize;
        /// Numbers in a block.
        const BLOCK: usize;
        /// Exponents (of two) between which var + eps must lie for the fast path to be accurate.
        const RANGE: (i32, i32);
        /// The place of each lane of the widest register.
        const LANE: [Self; 16];

        /// 1.5 times 2^(digits - 1), and the bias of exponents: added to a small number, it leaves an integer n in the
        /// last bits, as the exponent of 2^n.
        const MAGIC: Self;
        /// log2(e); and ln(2) in two parts, of which the first has zeros enough at its end that n times it is exact.
        const LOG2_E: Self;
        const LN_2: [Self; 2];
        /// exp(r) = 1 + r + r^2 P(r): the coefficients of P, highest first.
        const EXP: &'static [Self];
        /// Where exp(-x) has long been 0, and its exponent is still that of no overflow.
        const VANISHES: Self;

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
        ($t:ty, $lanes:literal, $block:literal, $range:expr, $magic:expr, $ln_2:expr, $exp:expr, $vanishes:literal) => {
            impl Number for $t {
                const LANES: usize = $lanes;
                const BLOCK: usize = $block;
                const RANGE: (i32, i32) = $range;
                const LANE: [Self; 16] =
                    [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
                const MAGIC: Self = $magic;
                #[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
                const LOG2_E: Self = std::f64::consts::LOG2_E as Self;
                const LN_2: [Self; 2] = $ln_2;
                const EXP: &'static [Self] = $exp;
                const VANISHES: Self = $vanishes;

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

    // Moshier's Cephes library (expf.c, exp.c) has the polynomial of f32 and both splits of ln(2); that of f64 is Taylor's.
    number!(
        f32,
        32,
        256,
        (-100, 120),
        12_582_912.0 + 127.0,
        [0.693_359_4, -2.121_944_4e-4],
        &[1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 5.0e-1],
        120.0
    );
    number!(
        f64,
        16,
        128,
        (-960, 960),
        6_755_399_441_055_744.0 + 1023.0,
        [6.931_457_519_531_25e-1, 1.428_606_820_309_417_2e-6],
        &[
            1.0 / 6_227_020_800.0,
            1.0 / 479_001_600.0,
            1.0 / 39_916_800.0,
            1.0 / 3_628_800.0,
            1.0 / 362_880.0,
            1.0 / 40_320.0,
            1.0 / 5_040.0,
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5
        ],
        760.0
    );
}
