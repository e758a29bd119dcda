//! 256-bit vectors with fused multiply-add.

use super::{Body, Vector, Work};
use crate::Element;
use std::arch::x86_64::*;

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// # Safety
/// The machine has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<E: Element, B: Body<E>>(body: B) -> B::Output {
    E::run_avx2(body, Avx2(()))
}

/// # Safety
/// As [`run`].
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn outlined<W: Work<Avx2>>(s: Avx2, work: W) -> W::Output {
    work.run(s)
}

macro_rules! avx2 {
    (
        $t:ty, $v:ty, $width:literal, $first:ident, $tree:ident,
        $splat:ident, $zero:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $select:ident,
        $power:ident, $zip:ident, $fma:ident, $fnma:ident, $and:ident,
        $cast:ident, $load:ident, $load_mask:ident, $store:ident, $store_mask:ident, $stream:ident
    ) => {
        impl Vector<$t> for Avx2 {
            type V = $v;
            type Lanes = [$v; 4];
            type Folded = $t;
            const WIDTH: usize = $width;
            const STREAMS: bool = true;

            #[inline(always)]
            fn outlined<W: Work<Self>>(self, work: W) -> W::Output {
                // SAFETY: the token.
                unsafe { outlined(self, work) }
            }

            instructions!($t, $v, $splat, $add, $sub, $mul, $div, $select, $power, $zip, $load, $store);
            instructions_of_x86!($t, $v, $fma, $fnma, $stream);

            #[inline(always)]
            fn zero_lanes(self) -> Self::Lanes {
                // SAFETY: the token.
                [unsafe { $zero() }; 4]
            }
            #[inline(always)]
            fn keep_first(self, v: $v, count: usize) -> $v {
                // SAFETY: the token.
                unsafe { $and(v, $cast($first(count))) }
            }
            folds_to_a_number!($t);
            #[inline(always)]
            fn fold(self, lanes: Self::Lanes) -> $t {
                // SAFETY: the token.
                unsafe { $tree(lanes) }
            }
            #[inline(always)]
            unsafe fn load_first(self, from: *const $t, count: usize) -> $v {
                // SAFETY: the token; masked lanes are not read.
                unsafe { $load_mask(from, $first(count)) }
            }
            #[inline(always)]
            unsafe fn store_first(self, to: *mut $t, v: $v, count: usize) {
                // SAFETY: the token; masked lanes are not written.
                unsafe { $store_mask(to, $first(count), v) }
            }
        }
    };
}

avx2!(
    f32,
    __m256,
    8,
    first_f32,
    tree_f32,
    _mm256_set1_ps,
    _mm256_setzero_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    select_f32,
    power_f32,
    zip_f32,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_and_ps,
    _mm256_castsi256_ps,
    _mm256_loadu_ps,
    _mm256_maskload_ps,
    _mm256_storeu_ps,
    _mm256_maskstore_ps,
    _mm256_stream_ps
);
avx2!(
    f64,
    __m256d,
    4,
    first_f64,
    tree_f64,
    _mm256_set1_pd,
    _mm256_setzero_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_div_pd,
    select_f64,
    power_f64,
    zip_f64,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_and_pd,
    _mm256_castsi256_pd,
    _mm256_loadu_pd,
    _mm256_maskload_pd,
    _mm256_storeu_pd,
    _mm256_maskstore_pd,
    _mm256_stream_pd
);

/// All ones in the first `count` of eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "count is at most eight")]
fn first_f32(count: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// All ones in the first `count` of four lanes.
#[inline]
#[target_feature(enable = "avx2")]
#[allow(clippy::cast_possible_wrap, reason = "count is at most four")]
fn first_f64(count: usize) -> __m256i {
    _mm256_cmpgt_epi64(_mm256_set1_epi64x(count as i64), _mm256_setr_epi64x(0, 1, 2, 3))
}

/// `hadd` adds adjacent pairs within 128-bit halves, so two of them leave, in each half, the sum of four
/// lanes of each register; the halves are added last but two.
#[inline]
#[target_feature(enable = "avx2")]
fn tree_f32([a, b, c, d]: [__m256; 4]) -> f32 {
    let fours = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d)); // a b c d | a b c d
    let eights = _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps::<1>(fours));
    let sixteens = _mm_hadd_ps(eights, eights); // a+b c+d
    _mm_cvtss_f32(_mm_hadd_ps(sixteens, sixteens))
}

/// As [`tree_f32`], with two numbers to a half.
#[inline]
#[target_feature(enable = "avx2")]
fn tree_f64([a, b, c, d]: [__m256d; 4]) -> f64 {
    let (ab, cd) = (_mm256_hadd_pd(a, b), _mm256_hadd_pd(c, d)); // a b | a b
    let ab = _mm_add_pd(_mm256_castpd256_pd128(ab), _mm256_extractf128_pd::<1>(ab));
    let cd = _mm_add_pd(_mm256_castpd256_pd128(cd), _mm256_extractf128_pd::<1>(cd));
    let eights = _mm_hadd_pd(ab, cd);
    _mm_cvtsd_f64(_mm_hadd_pd(eights, eights))
}

#[inline]
#[target_feature(enable = "avx")]
fn select_f32(a: __m256, b: __m256, then: __m256, otherwise: __m256) -> __m256 {
    _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
}

/// By turns within each half of the registers, of which the first ones come first.
#[inline]
#[target_feature(enable = "avx")]
fn zip_f32(a: __m256, b: __m256) -> [__m256; 2] {
    let [low, high] = [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)];
    [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
}

/// As [`zip_f32`].
#[inline]
#[target_feature(enable = "avx")]
fn zip_f64(a: __m256d, b: __m256d) -> [__m256d; 2] {
    let [low, high] = [_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b)];
    [_mm256_permute2f128_pd::<0x20>(low, high), _mm256_permute2f128_pd::<0x31>(low, high)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn power_f32(v: __m256) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(v)))
}

#[inline]
#[target_feature(enable = "avx")]
fn select_f64(a: __m256d, b: __m256d, then: __m256d, otherwise: __m256d) -> __m256d {
    _mm256_blendv_pd(otherwise, then, _mm256_cmp_pd::<_CMP_LT_OQ>(a, b))
}

#[inline]
#[target_feature(enable = "avx2")]
fn power_f64(v: __m256d) -> __m256d {
    _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_castpd_si256(v)))
}
