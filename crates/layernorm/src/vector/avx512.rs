//! 512-bit vectors.

use super::{Body, TREES, Vector, Work};
use crate::Element;
use std::arch::x86_64::*;

/// Proof of AVX-512 F, DQ, BW and VL.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// # Safety
/// The machine has AVX-512 F, DQ, BW and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn run<E: Element, B: Body<E>>(body: B) -> B::Output {
    E::run_avx512(body, Avx512(()))
}

/// # Safety
/// As [`run`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,f16c")]
unsafe fn outlined<W: Work<Avx512>>(s: Avx512, work: W) -> W::Output {
    work.run(s)
}

macro_rules! avx512 {
    (
        $t:ty, $v:ty, $width:literal, $mask:ty, $pairs:ident, $tree:ident, $trees:ident,
        $splat:ident, $zero:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $select:ident,
        $power:ident, $zip:ident, $fma:ident, $fnma:ident, $keep:ident,
        $load:ident, $load_mask:ident, $store:ident, $store_mask:ident, $stream:ident
    ) => {
        impl Vector<$t> for Avx512 {
            type V = $v;
            type Lanes = [$v; 2];
            type Folded = $v;
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
                [unsafe { $zero() }; 2]
            }
            #[inline(always)]
            fn keep_first(self, v: $v, count: usize) -> $v {
                // SAFETY: the token.
                unsafe { $keep(first::<$mask>(count), v) }
            }
            #[inline(always)]
            fn fold(self, [a, b]: Self::Lanes) -> $v {
                // SAFETY: the token.
                unsafe { $pairs(a, b) }
            }
            #[inline(always)]
            fn rest_of_tree(self, pairs: $v) -> $t {
                // SAFETY: the token.
                unsafe { $tree(pairs) }
            }
            #[inline(always)]
            fn rests_of_trees(self, pairs: &[$v; TREES]) -> [$t; TREES] {
                // SAFETY: the token.
                unsafe { $trees(pairs) }
            }
            #[inline(always)]
            unsafe fn load_first(self, from: *const $t, count: usize) -> $v {
                // SAFETY: the token; masked lanes are not read.
                unsafe { $load_mask(first::<$mask>(count), from) }
            }
            #[inline(always)]
            unsafe fn store_first(self, to: *mut $t, v: $v, count: usize) {
                // SAFETY: the token; masked lanes are not written.
                unsafe { $store_mask(to, first::<$mask>(count), v) }
            }
        }
    };
}

avx512!(
    f32,
    __m512,
    16,
    __mmask16,
    pairs_f32,
    tree_f32,
    trees_f32,
    _mm512_set1_ps,
    _mm512_setzero_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    select_f32,
    power_f32,
    zip_f32,
    _mm512_fmadd_ps,
    _mm512_fnmadd_ps,
    _mm512_maskz_mov_ps,
    _mm512_loadu_ps,
    _mm512_maskz_loadu_ps,
    _mm512_storeu_ps,
    _mm512_mask_storeu_ps,
    _mm512_stream_ps
);
avx512!(
    f64,
    __m512d,
    8,
    __mmask8,
    pairs_f64,
    tree_f64,
    trees_f64,
    _mm512_set1_pd,
    _mm512_setzero_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    _mm512_div_pd,
    select_f64,
    power_f64,
    zip_f64,
    _mm512_fmadd_pd,
    _mm512_fnmadd_pd,
    _mm512_maskz_mov_pd,
    _mm512_loadu_pd,
    _mm512_maskz_loadu_pd,
    _mm512_storeu_pd,
    _mm512_mask_storeu_pd,
    _mm512_stream_pd
);

/// A mask of the first `count` lanes, `count` less than there are.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "a mask has as many bits as a register has lanes")]
pub(super) fn first<M: Mask>(count: usize) -> M {
    M::from_bits((1u32 << count) - 1)
}

pub(super) trait Mask {
    fn from_bits(bits: u32) -> Self;
}
impl Mask for __mmask8 {
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "at most seven bits are set")]
    fn from_bits(bits: u32) -> Self {
        bits as Self
    }
}
impl Mask for __mmask16 {
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, reason = "at most fifteen bits are set")]
    fn from_bits(bits: u32) -> Self {
        bits as Self
    }
}

/// The sums of adjacent pairs: in quarter q those of lanes 4q..4q + 4, as a a b b.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs_f32(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xDD>(a, b))
}

/// The sums of adjacent quarters: those of a, then those of b.
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters_f32(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b))
}

/// Within the 128-bit quarters, then over them; a and b last.
#[inline]
#[target_feature(enable = "avx512f")]
fn tree_f32(pairs: __m512) -> f32 {
    let fours = _mm512_add_ps(pairs, _mm512_permute_ps::<0xB1>(pairs)); // a a b b
    let eights = _mm512_add_ps(fours, _mm512_shuffle_f32x4::<0xB1>(fours, fours));
    let sixteens = _mm512_add_ps(eights, _mm512_shuffle_f32x4::<0x4E>(eights, eights));
    let quarter = _mm512_castps512_ps128(sixteens);
    _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehl_ps(quarter, quarter)))
}

/// Sixteen of [`tree_f32`]: each addition has twice as many trees in a register as the one before it.
#[inline]
#[target_feature(enable = "avx512f")]
fn trees_f32(pairs: &[__m512; TREES]) -> [f32; TREES] {
    let mut eights = [_mm512_setzero_ps(); TREES / 4];
    for (eights, pairs) in eights.iter_mut().zip(pairs.as_chunks::<4>().0) {
        // Trees 0 and 1 in a quarter, as a b a b; then 0 and 1, 0 and 1, 2 and 3, 2 and 3.
        *eights = quarters_f32(pairs_f32(pairs[0], pairs[1]), pairs_f32(pairs[2], pairs[3]));
    }
    // A quarter has two trees, in their order, as a b a b.
    let first = quarters_f32(eights[0], eights[1]);
    let last = quarters_f32(eights[2], eights[3]);
    // Now it has two of the first eight, and two of the last.
    let order = _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    let totals = _mm512_permutexvar_ps(order, pairs_f32(first, last));
    let mut numbers = [0.0; TREES];
    // SAFETY: the array has room for a register.
    unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), totals) };
    numbers
}

/// As [`pairs_f32`]; a quarter has two numbers: a b.
#[inline]
#[target_feature(enable = "avx512f")]
fn pairs_f64(a: __m512d, b: __m512d) -> __m512d {
    _mm512_add_pd(_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b))
}

/// As [`tree_f32`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn tree_f64(pairs: __m512d) -> f64 {
    let fours = _mm512_add_pd(pairs, _mm512_shuffle_f64x2::<0xB1>(pairs, pairs));
    let eights = _mm512_add_pd(fours, _mm512_shuffle_f64x2::<0x4E>(fours, fours));
    let quarter = _mm512_castpd512_pd128(eights);
    _mm_cvtsd_f64(_mm_add_sd(quarter, _mm_unpackhi_pd(quarter, quarter)))
}

/// One by one: half as many trees would fit.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn trees_f64(pairs: &[__m512d; TREES]) -> [f64; TREES] {
    let mut numbers = [0.0; TREES];
    for (number, pairs) in numbers.iter_mut().zip(pairs) {
        *number = tree_f64(*pairs);
    }
    numbers
}

#[inline]
#[target_feature(enable = "avx512f")]
fn select_f32(a: __m512, b: __m512, then: __m512, otherwise: __m512) -> __m512 {
    _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), otherwise, then)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn zip_f32(a: __m512, b: __m512) -> [__m512; 2] {
    let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    let last = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    [_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, last, b)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn zip_f64(a: __m512d, b: __m512d) -> [__m512d; 2] {
    let first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
    let last = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    [_mm512_permutex2var_pd(a, first, b), _mm512_permutex2var_pd(a, last, b)]
}

#[inline]
#[target_feature(enable = "avx512f")]
fn power_f32(v: __m512) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(v)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn select_f64(a: __m512d, b: __m512d, then: __m512d, otherwise: __m512d) -> __m512d {
    _mm512_mask_blend_pd(_mm512_cmp_pd_mask::<_CMP_LT_OQ>(a, b), otherwise, then)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn power_f64(v: __m512d) -> __m512d {
    _mm512_castsi512_pd(_mm512_slli_epi64::<52>(_mm512_castpd_si512(v)))
}
