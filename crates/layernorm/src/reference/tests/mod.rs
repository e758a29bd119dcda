//! What the oracle itself is judged by: finite differences, identities, invariances and numbers worked out by
//! hand.

mod edges;
mod golden;
mod gradients;
mod gradients_of_images;
mod identities;
mod invariance;
mod of_axes;
mod panics;
mod running_stats;

/// Numbers in (-2, 2), the same for the same seed (splitmix64).
fn numbers(seed: u64, len: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 11
    };
    (0..len).map(|_| next() as f64 / (1u64 << 51) as f64 - 2.0).collect()
}

/// The largest difference, in units of `1 + |expected|`; infinite where anything is not a number.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "lengths");
    let each = found.iter().zip(expected).map(|(f, e)| (f - e).abs() / (1.0 + e.abs()));
    each.fold(0.0, |worst, d| if d.is_nan() { f64::INFINITY } else { f64::max(worst, d) })
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64]) {
    let worst = distance(found, expected);
    assert!(worst < 1e-12, "differ by {worst:e}: found {found:?}, expected {expected:?}");
}

/// `sum(a * b)`: a loss whose gradient by `b` is `a`.
fn loss(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "lengths");
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Compares a gradient with central differences of fourth order: `(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) /
/// 12h`.
#[track_caller]
fn assert_gradient(gradient: &[f64], at: &[f64], f: impl Fn(&[f64]) -> f64) {
    const H: f64 = 1e-3;
    let moved = |i: usize, by: f64| {
        let mut point = at.to_vec();
        point[i] += by;
        f(&point)
    };
    let slope =
        |i| (8.0 * (moved(i, H) - moved(i, -H)) - (moved(i, 2.0 * H) - moved(i, -2.0 * H))) / (12.0 * H);
    let expected: Vec<f64> = (0..at.len()).map(slope).collect();
    assert!(expected.iter().any(|e| e.abs() > 1e-3), "the loss does not depend on its argument: no test");
    let worst = distance(gradient, &expected);
    assert!(worst < 1e-8, "differ by {worst:e}: gradient {gradient:?}, differences {expected:?}");
}
