//! What tests of several operators need.

use half::{bf16, f16};
use layernorm::{Element, Level, Real};

/// What outputs hold before a call.
pub(crate) const SENTINEL: f64 = -12352.0;

/// A type of elements, as tests see it.
pub(crate) trait Number: Element {
    /// Half the distance from 1 to the next number.
    const U: f64;
    /// The smallest number, some times: what is lost below the normal ones.
    const TINY: f64;
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    fn bits(self) -> u64;
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
fn to_f32(value: f64) -> f32 {
    value as f32
}

macro_rules! number {
    ($t:ty, $u:expr, $tiny:expr, $of:expr) => {
        impl Number for $t {
            const U: f64 = $u;
            const TINY: f64 = $tiny;
            fn of(value: f64) -> Self {
                $of(value)
            }
            fn wide(self) -> f64 {
                self.into()
            }
            fn bits(self) -> u64 {
                if self.is_nan() { u64::MAX } else { self.to_bits().into() }
            }
        }
    };
}
number!(f32, f32::UNIT_ROUNDOFF, 1e-43, to_f32);
number!(f64, f64::UNIT_ROUNDOFF, 1e-322, |value| value);
number!(f16, 1.0 / 2048.0, 1.2e-7, f16::from_f64);
number!(bf16, 1.0 / 256.0, 1e-39, bf16::from_f64);

/// Numbers with the same bits everywhere: splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// About normal, with deviation 1.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.bits() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
    }

    pub(crate) fn numbers<T: Number>(&mut self, len: usize, mean: f64, deviation: f64) -> Vec<T> {
        (0..len).map(|_| T::of(mean + deviation * self.normal())).collect()
    }
}

pub(crate) fn wide<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| value.wide()).collect()
}

#[track_caller]
pub(crate) fn assert_same<T: Number>(left: &[T], right: &[T], what: &str) {
    assert_eq!(left.len(), right.len(), "{what}");
    for (i, (left, right)) in left.iter().zip(right).enumerate() {
        assert!(left.bits() == right.bits(), "{what}: number {i} is {left:?} and {right:?}");
    }
}

/// Levels of this machine.
pub(crate) fn levels() -> Vec<Level> {
    Level::ALL.into_iter().filter(|level| level.is_available()).collect()
}

/// Section 2 of docs/numerics.md: leaves of consecutive indices, from `first` on.
pub(crate) fn tree<T: Copy + std::ops::Add<Output = T>>(mut first: usize, mut nodes: Vec<T>) -> Option<T> {
    while nodes.len() > 1 {
        let (mut above, mut rest) = (Vec::new(), &nodes[..]);
        if first % 2 == 1 {
            above.push(rest[0]);
            rest = &rest[1..];
        }
        above.extend(rest.chunks(2).map(|pair| if pair.len() == 2 { pair[0] + pair[1] } else { pair[0] }));
        (nodes, first) = (above, first / 2);
    }
    nodes.first().copied()
}

/// Section 3, in f32: the sum of a[j] b[j].
pub(crate) fn sum(a: &[f32], b: &[f32]) -> f32 {
    let block = |(a, b): (&[f32], &[f32])| {
        let mut lanes = vec![0.0f32; 32];
        for (j, (a, b)) in a.iter().zip(b).enumerate() {
            lanes[j % 32] = a.mul_add(*b, lanes[j % 32]);
        }
        tree(0, lanes).unwrap()
    };
    tree(0, a.chunks(256).zip(b.chunks(256)).map(block).collect()).unwrap_or(0.0)
}

/// Section 5, in f32: a sum over rows, of which the first has this index.
pub(crate) fn over_rows(first: usize, terms: &[f32]) -> f32 {
    let mut chunks: Vec<(usize, f32)> = vec![];
    for (i, term) in terms.iter().enumerate() {
        match chunks.last_mut() {
            Some((chunk, sum)) if *chunk == (first + i) / 8 => *sum += term,
            _ => chunks.push(((first + i) / 8, 0.0 + term)),
        }
    }
    tree(first / 8, chunks.into_iter().map(|(_, sum)| sum).collect()).unwrap_or(0.0)
}
