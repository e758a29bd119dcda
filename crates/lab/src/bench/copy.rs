//! The floor: how fast this machine moves the bytes that an operator must move.
//!
//! An operator that reads R arrays and writes W of them is compared with a "copy" that does just that: each output
//! gets the exclusive or of the inputs (with one input, a copy), which costs no time beside the memory's. There are
//! three ways to do it, and the best in the same run counts:
//!
//! - `memcpy`: what the system offers; for one input and one output.
//! - `loop`: loads and stores of a cache line, through the cache. A store first reads the line that it overwrites.
//! - `stream`: the same with non-temporal stores, which don't. Slower than the loop where everything fits a cache.
//!
//! The latter two take the widest registers of the machine. Streaming is x86-64's only: Rust offers no intrinsic for
//! it elsewhere.
//!
//! `crates/peers` has this file too, by its path, and so uses nothing of the lab around it.

use half::{bf16, f16};
use rayon::prelude::*;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A way to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Memcpy,
    Loop,
    Stream,
}

impl Way {
    pub(super) const ALL: [Self; 3] = [Self::Memcpy, Self::Loop, Self::Stream];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memcpy => "memcpy",
            Self::Loop => "loop",
            Self::Stream => "stream",
        }
    }

    /// Whether it can be had here for that many arrays.
    pub(super) fn fits(self, reads: usize, writes: usize) -> bool {
        match self {
            Self::Memcpy => (reads, writes) == (1, 1),
            Self::Loop => true,
            Self::Stream => cfg!(target_arch = "x86_64"),
        }
    }
}

/// Copies in this way, split over the threads of the caller's pool into `parts`.
pub(super) fn copy<T: Word>(way: Way, reads: &[&[T]], writes: &mut [&mut [T]], parts: usize) {
    if parts <= 1 {
        return copy_part(way, reads, writes);
    }
    let len = writes.iter().map(|to| to.len()).max().unwrap_or(0);
    let chunk = len.div_ceil(parts).max(1);
    let mut shares: Vec<Vec<&mut [T]>> = (0..len.div_ceil(chunk)).map(|_| Vec::new()).collect();
    for to in writes.iter_mut() {
        to.chunks_mut(chunk).zip(&mut shares).for_each(|(piece, share)| share.push(piece));
    }
    shares.into_par_iter().with_max_len(1).enumerate().for_each(|(part, mut writes)| {
        let start = part * chunk;
        let reads: Vec<&[T]> = reads.iter().map(|from| &from[start..len.min(start + chunk)]).collect();
        copy_part(way, &reads, &mut writes);
    });
}

/// A number that is nothing but its bits here.
pub(super) trait Word: Copy + Send + Sync {
    fn xor(self, other: Self) -> Self;
}

macro_rules! word {
    ($($t:ty)*) => {$(
        impl Word for $t {
            fn xor(self, other: Self) -> Self {
                Self::from_bits(self.to_bits() ^ other.to_bits())
            }
        }
    )*};
}

word!(f32 f64 f16 bf16);

fn copy_part<T: Word>(way: Way, reads: &[&[T]], writes: &mut [&mut [T]]) {
    match (reads, writes) {
        ([from], [to]) if way == Way::Memcpy => to.copy_from_slice(from),
        ([a], [to]) => merge(way, [a], [to]),
        ([a, b], [to]) => merge(way, [a, b], [to]),
        ([a, b, c], [to]) => merge(way, [a, b, c], [to]),
        ([a], [to, and]) => merge(way, [a], [to, and]),
        ([a, b], [to, and]) => merge(way, [a, b], [to, and]),
        ([a, b, c], [to, and]) => merge(way, [a, b, c], [to, and]),
        ([a, b, c, d], [to]) => merge(way, [a, b, c, d], [to]),
        ([a, b, c, d], [to, and]) => merge(way, [a, b, c, d], [to, and]),
        ([a, b, c], [to, and, also]) => merge(way, [a, b, c], [to, and, also]),
        ([a, b, c, d], [to, and, also]) => merge(way, [a, b, c, d], [to, and, also]),
        (reads, writes) => panic!("no copy from {} arrays to {}", reads.len(), writes.len()),
    }
}

/// Each output gets the exclusive or of the inputs.
fn merge<T: Word, const R: usize, const W: usize>(way: Way, from: [&[T]; R], mut to: [&mut [T]; W]) {
    let n = to.iter().map(|to| to.len()).chain(from.map(<[T]>::len)).min().unwrap_or(0);
    // The lines of the first output; what lies before and after them is done number by number.
    let skip = to[0].as_ptr().align_offset(LINE).min(n);
    let lines = (n - skip) / (LINE / size_of::<T>());
    let done = skip..skip + lines * (LINE / size_of::<T>());
    let from_lines: [*const u8; R] = from.map(|from| from[done.clone()].as_ptr().cast());
    let to_lines: [*mut u8; W] = to.each_mut().map(|to| to[done.clone()].as_mut_ptr().cast());
    // A second output lies on lines of its own, where streaming is not possible unless it is as far into a line.
    let aligned = to_lines.iter().all(|to| to.align_offset(LINE) == 0);
    // SAFETY: all pointers are valid for `lines` whole lines: they come from slices of just that length.
    unsafe { copy_lines(from_lines, to_lines, lines, way == Way::Stream && aligned) };
    for i in (0..done.start).chain(done.end..n) {
        let merged = from[1..].iter().fold(from[0][i], |merged, from| merged.xor(from[i]));
        to.iter_mut().for_each(|to| to[i] = merged);
    }
}

/// `lines` lines from all of `from` to each of `to`.
///
/// # Safety
/// Each pointer is valid for `lines` lines; with `stream`, those of `to` are aligned to lines.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_lines<const R: usize, const W: usize>(
    from: [*const u8; R],
    to: [*mut u8; W],
    lines: usize,
    stream: bool,
) {
    // SAFETY: the caller's; each level is asked for before it is used.
    unsafe {
        match (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx")) {
            (true, _) if stream => x86::avx512::<R, W, true>(from, to, lines),
            (true, _) => x86::avx512::<R, W, false>(from, to, lines),
            (_, true) if stream => x86::avx::<R, W, true>(from, to, lines),
            (_, true) => x86::avx::<R, W, false>(from, to, lines),
            _ if stream => x86::sse2::<R, W, true>(from, to, lines),
            _ => x86::sse2::<R, W, false>(from, to, lines),
        }
    }
}

/// As on x86-64; the compiler makes registers of the array, and nothing streams.
///
/// # Safety
/// As on x86-64.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_lines<const R: usize, const W: usize>(
    from: [*const u8; R],
    to: [*mut u8; W],
    lines: usize,
    _: bool,
) {
    for i in 0..lines {
        // SAFETY: the caller's: line `i` exists; numbers may lie at any address.
        let line = |from: *const u8| unsafe { from.add(i * LINE).cast::<[u64; 8]>().read_unaligned() };
        let mut merged = line(from[0]);
        for from in &from[1..] {
            merged.iter_mut().zip(line(*from)).for_each(|(merged, word)| *merged ^= word);
        }
        for to in to {
            // SAFETY: as above.
            unsafe { to.add(i * LINE).cast::<[u64; 8]>().write_unaligned(merged) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::LINE;
    use std::arch::x86_64::*;

    macro_rules! level {
        ($name:ident, $feature:literal, $v:ty, $load:ident, $store:ident, $stream:ident, $xor:ident) => {
            /// # Safety
            /// As [`super::copy_lines`]; the machine has the feature.
            #[target_feature(enable = $feature)]
            pub(super) unsafe fn $name<const R: usize, const W: usize, const STREAM: bool>(
                from: [*const u8; R],
                to: [*mut u8; W],
                lines: usize,
            ) {
                const WIDTH: usize = size_of::<$v>();
                let mut at = 0;
                while at < lines * LINE {
                    // SAFETY: `at` lies in line `at / LINE < lines`, a register ends in the same line, and a line
                    // that is streamed to is aligned, so the register in it is.
                    unsafe {
                        let mut v = $load(from[0].add(at).cast());
                        for from in &from[1..] {
                            v = $xor(v, $load(from.add(at).cast()));
                        }
                        for to in to {
                            if STREAM { $stream(to.add(at).cast(), v) } else { $store(to.add(at).cast(), v) }
                        }
                    }
                    at += WIDTH;
                }
                if STREAM {
                    // Streaming stores are not ordered with others: what follows must see them.
                    _mm_sfence();
                }
            }
        };
    }

    level!(
        avx512,
        "avx512f",
        __m512i,
        _mm512_loadu_si512,
        _mm512_storeu_si512,
        _mm512_stream_si512,
        _mm512_xor_si512
    );
    level!(avx, "avx", __m256, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_stream_ps, _mm256_xor_ps);
    level!(sse2, "sse2", __m128i, _mm_loadu_si128, _mm_storeu_si128, _mm_stream_si128, _mm_xor_si128);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_copies_every_number() {
        for way in Way::ALL {
            for n in [0, 1, 15, 16, 17, 31, 100, 1000] {
                for parts in [1, 3] {
                    // An odd start, as in the middle of someone's buffer.
                    let from: Vec<f32> = (0..n + 1).map(|i| i as f32).collect();
                    let mut to = vec![-1.0f32; n + 2];
                    copy(way, &[&from[1..]], &mut [&mut to[1..=n]], parts);
                    assert_eq!(to[1..=n], from[1..], "{way:?} of {n}");
                    assert_eq!((to[0], to[n + 1]), (-1.0, -1.0), "{way:?} of {n} stays inside");
                }
            }
        }
    }

    #[test]
    fn several_arrays_are_merged() {
        let (a, b) = (vec![1.5f64; 100], vec![1.25f64; 100]);
        let expected = 1.5f64.xor(1.25);
        for way in [Way::Loop, Way::Stream] {
            let (mut to, mut and) = (vec![0.0; 100], vec![0.0; 100]);
            copy(way, &[&a, &b], &mut [&mut to, &mut and], 2);
            assert!(to.iter().chain(&and).all(|got| *got == expected), "{way:?}");
        }
    }
}
