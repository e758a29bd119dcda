//! The numbers of cases: from a fixed generator, and with rows that break norms.

use crate::{Float, Number};

/// What the numbers of a case are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// About normal.
    Plain,
    /// Every eighth row (group, channel, unit) so, the others one of a kind each: far from zero, huge, subnormal, constant,
    /// zeros, 40000 and so on by ones, one large number among tiny ones.
    Breaking,
    /// Plain, with a NaN in some rows and an infinity in others.
    NotFinite,
}

/// Numbers that depend on the seed alone (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    /// For the tensor of this index, of a case of this shape.
    pub(crate) fn new(shape: &[usize], tensor: u64) -> Self {
        let mut random = Self(tensor);
        for len in shape {
            random.0 = random.bits() ^ *len as u64;
        }
        random
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In 0..1, and not 0.
    fn uniform(&mut self) -> f64 {
        ((self.bits() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// About normal: mean 0, deviation 1.
    pub(crate) fn normal(&mut self) -> f64 {
        let sum = (0..4).map(|_| self.uniform()).sum::<f64>();
        (sum - 2.0) * 3f64.sqrt()
    }

    /// So many of these.
    pub(crate) fn normals<T: Float>(&mut self, len: usize) -> Vec<T> {
        (0..len).map(|_| T::nearest(self.normal())).collect()
    }
}

/// An input: number `i` belongs to the row (group, channel, unit) `row(i)`.
pub(crate) fn input<E: Number>(
    data: Data,
    len: usize,
    random: &mut Random,
    row: impl Fn(usize) -> usize,
) -> Vec<E> {
    // How many numbers of its row came before.
    let mut seen = Vec::new();
    let mut number = |i: usize| {
        let (row, normal) = (row(i), random.normal());
        if seen.len() <= row {
            seen.resize(row + 1, 0u32);
        }
        let before = seen[row];
        seen[row] += 1;
        match (data, row % 8) {
            (Data::Plain, _) | (_, 0) => normal,
            (Data::Breaking, 1) => 2000.0 + normal,
            (Data::Breaking, 2) => E::HUGE * normal,
            (Data::Breaking, 3) => E::SUBNORMAL * normal,
            (Data::Breaking, 4) => 1.7,
            (Data::Breaking, 5) => 0.0,
            (Data::Breaking, 6) => 40_000.0 + f64::from(before),
            (Data::Breaking, _) => [1e4, 1e-4 * normal][usize::from(before > 0)],
            (Data::NotFinite, 1) if before == 2 => f64::NAN,
            (Data::NotFinite, 2) if before == 1 => f64::INFINITY,
            (Data::NotFinite, _) => normal,
        }
    };
    (0..len).map(|i| E::nearest(number(i))).collect()
}
