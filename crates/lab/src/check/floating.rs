//! The floating-point environment: did a host tell the processor to treat the smallest numbers as zero?

use std::hint::black_box;

/// What is switched on in the calling thread, in words; empty as it should be.
///
/// Seen by computing, which needs no look at control registers: FTZ (flush to zero) makes half the smallest normal
/// number 0, DAZ (denormals are zero) makes the smallest number 0 before it is multiplied.
pub(super) fn flushing() -> Vec<&'static str> {
    let half_the_smallest_normal = black_box(f32::MIN_POSITIVE) * black_box(0.5);
    let smallest_grown = black_box(f32::from_bits(1)) * black_box(2f32.powi(100));
    let mut found = Vec::new();
    if half_the_smallest_normal == 0.0 {
        found.push("FTZ is set: results below 1.2e-38 come out as 0");
    }
    if smallest_grown == 0.0 {
        found.push("DAZ is set: inputs below 1.2e-38 count as 0");
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_is_flushed_in_a_test() {
        assert!(super::flushing().is_empty());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    #[allow(deprecated, reason = "the only intrinsic for it; nothing else runs in between")]
    fn flushing_is_seen() {
        use std::arch::x86_64::{_mm_getcsr, _mm_setcsr};
        // SAFETY: SSE is part of x86-64. The thread's environment is restored below, and in between runs only
        // `flushing`, whose operations are all kept by `black_box`.
        let found = unsafe {
            let before = _mm_getcsr();
            _mm_setcsr(before | 1 << 15 | 1 << 6);
            let found = super::flushing();
            _mm_setcsr(before);
            found
        };
        assert_eq!(found.len(), 2);
    }
}
