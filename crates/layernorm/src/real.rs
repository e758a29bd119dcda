//! The number types that the kernels accumulate in.

use crate::by_row::{Centred, Statistics, Uncentred, backward::Backward, forward::Forward};
#[cfg(target_arch = "aarch64")]
use crate::vector::neon::Neon;
use crate::vector::{Body, portable::Portable};
#[cfg(target_arch = "x86_64")]
use crate::vector::{avx2::Avx2, avx512::Avx512};
use crate::{Error, ParamGradients, Run};

/// `f32` or `f64`: a type that the kernels read, accumulate in and write. Sealed.
///
/// ```
/// fn unit_roundoff<T: layernorm::Real>() -> f64 {
///     T::UNIT_ROUNDOFF
/// }
/// assert_eq!(unit_roundoff::<f32>(), 2f64.powi(-24));
/// ```
pub trait Real: Copy + PartialOrd + Send + Sync + std::fmt::Debug + private::Number + 'static {
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
    #![allow(
        private_interfaces,
        private_bounds,
        reason = "nobody outside can name this trait: it seals `Real`"
    )]

    use super::*;

    /// What the kernels need of a number. The constants are part of the canonical order (see `order`).
    pub trait Number: Sized {
        /// Lanes of a block.
        const LANES: usize;
        /// Numbers in a block.
        const BLOCK: usize;
        /// Exponents (of two) between which var + eps must lie for the fast path to be accurate.
        const RANGE: (i32, i32);

        fn from_f64(value: f64) -> Self;
        fn to_f64(self) -> f64;
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

        fn forward(call: Forward<'_, Self>, statistics: Statistics, run: Run) -> Result<(), Error>;
        fn backward(
            call: Backward<'_, Self>,
            statistics: Statistics,
            params: Option<ParamGradients<'_, Self>>,
            run: Run,
        ) -> Result<(), Error>;

        fn run_portable<B: Body<Self>>(body: B, s: Portable) -> B::Output
        where
            Self: Real;
        #[cfg(target_arch = "x86_64")]
        fn run_avx2<B: Body<Self>>(body: B, s: Avx2) -> B::Output
        where
            Self: Real;
        #[cfg(target_arch = "x86_64")]
        fn run_avx512<B: Body<Self>>(body: B, s: Avx512) -> B::Output
        where
            Self: Real;
        #[cfg(target_arch = "aarch64")]
        fn run_neon<B: Body<Self>>(body: B, s: Neon) -> B::Output
        where
            Self: Real;
    }

    macro_rules! number {
        ($t:ty, $lanes:literal, $block:literal, $range:expr) => {
            impl Number for $t {
                const LANES: usize = $lanes;
                const BLOCK: usize = $block;
                const RANGE: (i32, i32) = $range;

                #[inline(always)]
                #[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
                fn from_f64(value: f64) -> Self {
                    value as Self
                }
                #[inline(always)]
                fn to_f64(self) -> f64 {
                    self.into()
                }
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

                #[inline(never)]
                fn forward(call: Forward<'_, Self>, statistics: Statistics, run: Run) -> Result<(), Error> {
                    match statistics {
                        Statistics::Centred => call.run_kind::<Centred>(run),
                        Statistics::Uncentred => call.run_kind::<Uncentred>(run),
                    }
                }
                #[inline(never)]
                fn backward(
                    call: Backward<'_, Self>,
                    statistics: Statistics,
                    params: Option<ParamGradients<'_, Self>>,
                    run: Run,
                ) -> Result<(), Error> {
                    match statistics {
                        Statistics::Centred => call.run_kind::<Centred>(params, run),
                        Statistics::Uncentred => call.run_kind::<Uncentred>(params, run),
                    }
                }

                #[inline(always)]
                fn run_portable<B: Body<Self>>(body: B, s: Portable) -> B::Output {
                    body.run(s)
                }
                #[cfg(target_arch = "x86_64")]
                #[inline(always)]
                fn run_avx2<B: Body<Self>>(body: B, s: Avx2) -> B::Output {
                    body.run(s)
                }
                #[cfg(target_arch = "x86_64")]
                #[inline(always)]
                fn run_avx512<B: Body<Self>>(body: B, s: Avx512) -> B::Output {
                    body.run(s)
                }
                #[cfg(target_arch = "aarch64")]
                #[inline(always)]
                fn run_neon<B: Body<Self>>(body: B, s: Neon) -> B::Output {
                    body.run(s)
                }
            }
        };
    }

    number!(f32, 32, 256, (-100, 120));
    number!(f64, 16, 128, (-960, 960));
}
