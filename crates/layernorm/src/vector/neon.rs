//! 128-bit vectors of aarch64. No streaming stores and no prefetch on stable Rust: both are plain here.

use super::{Body, Vector, Work};
use crate::Element;
use std::arch::aarch64::*;

/// Proof of NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

/// # Safety
/// The machine has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<E: Element, B: Body<E>>(body: B) -> B::Output {
    E::run_neon(body, Neon(()))
}

/// # Safety
/// As [`run`].
#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn outlined<W: Work<Neon>>(s: Neon, work: W) -> W::Output {
    work.run(s)
}

macro_rules! neon {
    (
        $t:ty, $v:ty, $width:literal, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $select:ident,
        $power:ident, $zip:ident, $fma:ident, $fnma:ident, $pairs:ident, $total:ident, $load:ident, $store:ident
    ) => {
        impl Vector<$t> for Neon {
            type V = $v;
            type Lanes = [$v; 8];
            type Folded = $t;
            const WIDTH: usize = $width;
            const STREAMS: bool = false;

            #[inline(always)]
            fn outlined<W: Work<Self>>(self, work: W) -> W::Output {
                // SAFETY: the token.
                unsafe { outlined(self, work) }
            }

            instructions!($t, $v, $splat, $add, $sub, $mul, $div, $select, $power, $zip, $load, $store);

            #[inline(always)]
            fn zero_lanes(self) -> Self::Lanes {
                [<Self as Vector<$t>>::splat(self, 0.0); 8]
            }
            #[inline(always)]
            fn fma(self, a: $v, b: $v, c: $v) -> $v {
                // SAFETY: the token. The intrinsic takes the addend first.
                unsafe { $fma(c, a, b) }
            }
            #[inline(always)]
            fn fnma(self, a: $v, b: $v, c: $v) -> $v {
                // SAFETY: the token. The intrinsic takes the addend first.
                unsafe { $fnma(c, a, b) }
            }
            #[inline(always)]
            fn keep_first(self, v: $v, count: usize) -> $v {
                let mut numbers = [0.0; $width];
                // SAFETY: the array has room for a register.
                unsafe { $store(numbers.as_mut_ptr(), v) };
                numbers.iter_mut().skip(count).for_each(|number| *number = 0.0);
                // SAFETY: the array holds a register.
                unsafe { $load(numbers.as_ptr()) }
            }
            folds_to_a_number!($t);
            #[inline(always)]
            fn fold(self, [a, b, c, d, e, f, g, h]: Self::Lanes) -> $t {
                // SAFETY: the token. Pairwise addition of two registers keeps the order of the lanes.
                unsafe {
                    let (ab, cd, ef, gh) = ($pairs(a, b), $pairs(c, d), $pairs(e, f), $pairs(g, h));
                    $total($pairs($pairs(ab, cd), $pairs(ef, gh)))
                }
            }
            #[inline(always)]
            unsafe fn load_first(self, from: *const $t, count: usize) -> $v {
                let mut numbers = [0.0; $width];
                // SAFETY: the caller's for the reads; `count` is less than the width.
                unsafe { numbers.as_mut_ptr().copy_from_nonoverlapping(from, count) };
                // SAFETY: the array holds a register.
                unsafe { $load(numbers.as_ptr()) }
            }
            #[inline(always)]
            unsafe fn store_first(self, to: *mut $t, v: $v, count: usize) {
                let mut numbers = [0.0; $width];
                // SAFETY: the array has room for a register.
                unsafe { $store(numbers.as_mut_ptr(), v) };
                // SAFETY: the caller's for the writes; `count` is less than the width.
                unsafe { to.copy_from_nonoverlapping(numbers.as_ptr(), count) };
            }
            #[inline(always)]
            unsafe fn stream(self, to: *mut $t, v: $v) {
                // SAFETY: the caller's.
                unsafe { self.store(to, v) }
            }
            #[inline(always)]
            fn fence(self) {}
            #[inline(always)]
            fn prefetch(self, _: *const u8) {}
        }
    };
}

neon!(
    f32,
    float32x4_t,
    4,
    vdupq_n_f32,
    vaddq_f32,
    vsubq_f32,
    vmulq_f32,
    vdivq_f32,
    select_f32,
    power_f32,
    zip_f32,
    vfmaq_f32,
    vfmsq_f32,
    vpaddq_f32,
    total_f32,
    vld1q_f32,
    vst1q_f32
);
neon!(
    f64,
    float64x2_t,
    2,
    vdupq_n_f64,
    vaddq_f64,
    vsubq_f64,
    vmulq_f64,
    vdivq_f64,
    select_f64,
    power_f64,
    zip_f64,
    vfmaq_f64,
    vfmsq_f64,
    vpaddq_f64,
    vpaddd_f64,
    vld1q_f64,
    vst1q_f64
);

/// The four numbers of a register, by adjacent pairs.
#[inline]
#[target_feature(enable = "neon")]
fn total_f32(v: float32x4_t) -> f32 {
    vpadds_f32(vget_low_f32(vpaddq_f32(v, v)))
}

#[inline]
#[target_feature(enable = "neon")]
fn select_f32(a: float32x4_t, b: float32x4_t, then: float32x4_t, otherwise: float32x4_t) -> float32x4_t {
    vbslq_f32(vcltq_f32(a, b), then, otherwise)
}

#[inline]
#[target_feature(enable = "neon")]
fn select_f64(a: float64x2_t, b: float64x2_t, then: float64x2_t, otherwise: float64x2_t) -> float64x2_t {
    vbslq_f64(vcltq_f64(a, b), then, otherwise)
}

#[inline]
#[target_feature(enable = "neon")]
fn zip_f32(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] {
    [vzip1q_f32(a, b), vzip2q_f32(a, b)]
}

#[inline]
#[target_feature(enable = "neon")]
fn zip_f64(a: float64x2_t, b: float64x2_t) -> [float64x2_t; 2] {
    [vzip1q_f64(a, b), vzip2q_f64(a, b)]
}

#[inline]
#[target_feature(enable = "neon")]
fn power_f32(v: float32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vreinterpretq_s32_f32(v)))
}

#[inline]
#[target_feature(enable = "neon")]
fn power_f64(v: float64x2_t) -> float64x2_t {
    vreinterpretq_f64_s64(vshlq_n_s64::<52>(vreinterpretq_s64_f64(v)))
}
