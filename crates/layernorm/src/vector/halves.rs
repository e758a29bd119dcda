//! f16 and bf16 in memory, f32 in registers: how each level reads and writes them.

use super::Memory;
use half::{bf16, f16};

/// [`Memory`] of a half type, from the level's ways between a register of f32 and one of halves.
#[cfg(target_arch = "x86_64")]
macro_rules! halves {
    (
        $level:ty, $t:ty, $v:ty, $widen:ident, $narrow:ident,
        $load:ident, $load_first:ident, $store:ident, $store_first:ident, $stream:ident
    ) => {
        impl Memory<$t> for $level {
            #[inline(always)]
            unsafe fn read(self, from: *const $t) -> $v {
                // SAFETY: the token, and the caller's; so below.
                unsafe { $widen($load(from.cast())) }
            }
            #[inline(always)]
            unsafe fn read_first(self, from: *const $t, count: usize) -> $v {
                // SAFETY: the token, and the caller's.
                unsafe { $widen($load_first(from.cast(), count)) }
            }
            #[inline(always)]
            unsafe fn write(self, to: *mut $t, v: $v) {
                // SAFETY: the token, and the caller's.
                unsafe { $store(to.cast(), $narrow(v)) }
            }
            #[inline(always)]
            unsafe fn write_first(self, to: *mut $t, v: $v, count: usize) {
                // SAFETY: the token, and the caller's.
                unsafe { $store_first(to.cast(), $narrow(v), count) }
            }
            #[inline(always)]
            unsafe fn write_past(self, to: *mut $t, v: $v) {
                // SAFETY: the token, and the caller's.
                unsafe { $stream(to.cast(), $narrow(v)) }
            }
            #[inline(always)]
            fn rounded(self, v: $v) -> $v {
                // SAFETY: the token.
                unsafe { $widen($narrow(v)) }
            }
        }
    };
}

/// [`Memory`] of a half type for a level without instructions for it: one by one, as the crate `half` converts them.
/// (In functions of their own, because that is long.)
/// `$of` and `$to` are the ways from and to an array of as many f32 as a register has.
macro_rules! halves_one_by_one {
    ($level:ty, $t:ty, $width:literal, $of:ident, $to:ident) => {
        const _: () = {
            #[inline(never)]
            fn widen(halves: &[$t; $width]) -> [f32; $width] {
                halves.map(<$t>::to_f32)
            }

            #[inline(never)]
            fn narrow(numbers: &[f32; $width]) -> [$t; $width] {
                numbers.map(<$t>::from_f32)
            }

            impl Memory<$t> for $level {
                #[inline(always)]
                unsafe fn read(self, from: *const $t) -> Self::V {
                    // SAFETY: the caller's; an array has its element's alignment.
                    $of(widen(unsafe { &*from.cast::<[$t; $width]>() }))
                }
                #[inline(always)]
                unsafe fn read_first(self, from: *const $t, count: usize) -> Self::V {
                    let mut halves = [<$t>::ZERO; $width];
                    // SAFETY: the caller's for the reads; `count` is less than the width.
                    unsafe { halves.as_mut_ptr().copy_from_nonoverlapping(from, count) };
                    $of(widen(&halves))
                }
                #[inline(always)]
                unsafe fn write(self, to: *mut $t, v: Self::V) {
                    // SAFETY: the caller's; an array has its element's alignment.
                    unsafe { to.cast::<[$t; $width]>().write(narrow(&$to(v))) };
                }
                #[inline(always)]
                unsafe fn write_first(self, to: *mut $t, v: Self::V, count: usize) {
                    let halves = narrow(&$to(v));
                    // SAFETY: the caller's for the writes; `count` is less than the width.
                    unsafe { to.copy_from_nonoverlapping(halves.as_ptr(), count) };
                }
                #[inline(always)]
                unsafe fn write_past(self, to: *mut $t, v: Self::V) {
                    // SAFETY: the caller's.
                    unsafe { self.write(to, v) }
                }
                #[inline(always)]
                fn rounded(self, v: Self::V) -> Self::V {
                    $of(widen(&narrow(&$to(v))))
                }
            }
        };
    };
}

mod portable {
    use super::{Memory, bf16, f16};
    use crate::vector::portable::Portable;

    halves_one_by_one!(Portable, f16, 4, same, same);
    halves_one_by_one!(Portable, bf16, 4, same, same);

    #[inline(always)]
    fn same(array: [f32; 4]) -> [f32; 4] {
        array
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{Memory, bf16, f16};
    use crate::vector::neon::Neon;
    use std::arch::aarch64::*;

    halves_one_by_one!(Neon, f16, 4, of_array, to_array);
    halves_one_by_one!(Neon, bf16, 4, of_array, to_array);

    fn of_array(array: [f32; 4]) -> float32x4_t {
        // SAFETY: every aarch64 has NEON; the array holds a register.
        unsafe { vld1q_f32(array.as_ptr()) }
    }

    fn to_array(v: float32x4_t) -> [f32; 4] {
        let mut array = [0.0; 4];
        // SAFETY: every aarch64 has NEON; the array has room for a register.
        unsafe { vst1q_f32(array.as_mut_ptr(), v) };
        array
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Memory, bf16, f16};
    use crate::vector::avx2::Avx2;
    use std::arch::x86_64::*;

    halves!(
        Avx2,
        f16,
        __m256,
        _mm256_cvtph_ps,
        narrow_f16,
        _mm_loadu_si128,
        load_first_halves,
        _mm_storeu_si128,
        store_first_halves,
        _mm_stream_si128
    );
    halves!(
        Avx2,
        bf16,
        __m256,
        widen_bf16,
        narrow_bf16,
        _mm_loadu_si128,
        load_first_halves,
        _mm_storeu_si128,
        store_first_halves,
        _mm_stream_si128
    );

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn load_first_halves(from: *const u16, count: usize) -> __m128i {
        let mut halves = [0u16; 8];
        // SAFETY: the caller's for the reads; `count` is less than eight. The array holds a register.
        unsafe {
            halves.as_mut_ptr().copy_from_nonoverlapping(from, count);
            _mm_loadu_si128(halves.as_ptr().cast())
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store_first_halves(to: *mut u16, register: __m128i, count: usize) {
        let mut halves = [0u16; 8];
        // SAFETY: the array has room for a register; the caller's for the writes; `count` is less than eight.
        unsafe {
            _mm_storeu_si128(halves.as_mut_ptr().cast(), register);
            to.copy_from_nonoverlapping(halves.as_ptr(), count);
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn narrow_f16(v: __m256) -> __m128i {
        _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn widen_bf16(halves: __m128i) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
    }

    /// To nearest even, by integers.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn narrow_bf16(v: __m256) -> __m128i {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        let either = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan));
        _mm_packus_epi32(_mm256_castsi256_si128(either), _mm256_extracti128_si256::<1>(either))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Memory, bf16, f16};
    use crate::vector::avx512::{Avx512, first};
    use std::arch::x86_64::*;

    halves!(
        Avx512,
        f16,
        __m512,
        _mm512_cvtph_ps,
        narrow_f16,
        _mm256_loadu_si256,
        load_first_halves,
        _mm256_storeu_si256,
        store_first_halves,
        _mm256_stream_si256
    );
    halves!(
        Avx512,
        bf16,
        __m512,
        widen_bf16,
        narrow_bf16,
        _mm256_loadu_si256,
        load_first_halves,
        _mm256_storeu_si256,
        store_first_halves,
        _mm256_stream_si256
    );

    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl")]
    unsafe fn load_first_halves(from: *const i16, count: usize) -> __m256i {
        // SAFETY: the caller's; masked lanes are not read.
        unsafe { _mm256_maskz_loadu_epi16(first::<__mmask16>(count), from) }
    }

    #[inline]
    #[target_feature(enable = "avx512bw,avx512vl")]
    unsafe fn store_first_halves(to: *mut i16, halves: __m256i, count: usize) {
        // SAFETY: the caller's; masked lanes are not written.
        unsafe { _mm256_mask_storeu_epi16(to, first::<__mmask16>(count), halves) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn narrow_f16(v: __m512) -> __m256i {
        _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
    }

    /// Which half goes to which place: each to the upper one of a number,
    const SPREAD: [i16; 32] = [
        0, 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15,
    ];
    /// and back.
    const UPPERS: [i16; 32] = [
        1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0,
    ];

    /// By one permutation: to widen and to shift are two instructions.
    #[inline]
    #[target_feature(enable = "avx512bw")]
    fn widen_bf16(halves: __m256i) -> __m512 {
        // SAFETY: the array holds a register.
        let spread = unsafe { _mm512_loadu_epi16(SPREAD.as_ptr()) };
        let halves = _mm512_castsi256_si512(halves);
        _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xAAAA_AAAA, spread, halves))
    }

    /// To nearest even, by integers: the instruction for it flushes subnormals to zero.
    #[inline]
    #[target_feature(enable = "avx512bw")]
    fn narrow_bf16(v: __m512) -> __m256i {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let either = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000));
        // SAFETY: the array holds a register.
        let uppers = unsafe { _mm512_loadu_epi16(UPPERS.as_ptr()) };
        _mm512_castsi512_si256(_mm512_permutexvar_epi16(uppers, either))
    }
}
