//! Random numbers with the same bits everywhere and for good: ChaCha8 by seed and stream, and the few draws that the
//! lab needs written out, so that no library's change of method changes a study.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of random numbers.
///
/// Two streams of one seed never meet, so every use takes its own: nothing that one part draws moves another's.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Drawing pictures.
    Draw,
    /// First weights.
    Weights,
    /// The order of the samples in an epoch.
    Order,
    /// Choosing a picture's neighbours.
    Neighbours,
    /// Rows to check the kernels with.
    Check,
    /// Whatever the study of this name draws for itself.
    Study(&'static str),
}

impl Purpose {
    /// The purpose's part of a stream's number. No number ever changes, so new purposes go to the end; studies have
    /// a half of their own, where a name's place is its 31-bit hash (a test sees that no two studies share one).
    pub fn number(self) -> u32 {
        const STUDIES: u32 = 1 << 31;
        match self {
            Self::Draw => 0,
            Self::Weights => 1,
            Self::Order => 2,
            Self::Neighbours => 3,
            Self::Check => 4,
            Self::Study(name) => STUDIES | fnv(name),
        }
    }
}

/// Fowler, Noll and Vo's hash FNV-1a.
fn fnv(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Rng {
    /// The stream number `index` for `purpose` under `seed`.
    pub fn new(seed: u64, purpose: Purpose, index: u32) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(purpose.number()) << 32 | u64::from(index));
        Self(rng)
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A multiple of 2^-24 in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * 2f32.powi(-24)
    }

    /// A number in [low, high).
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// A bell of mean 0 and standard deviation 1 that ends at ±3.5: twelve uniforms, no logarithm whose last bit
    /// depends on the platform.
    pub fn bell(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }

    /// A whole number below `n`, each as likely as the others.
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "no number is below 0");
        // Numbers past the last multiple of n are drawn again.
        let limit = u32::MAX - (u32::MAX % n + 1) % n;
        loop {
            let draw = self.0.next_u32();
            if draw <= limit {
                return draw % n;
            }
        }
    }

    /// Fisher and Yates' shuffle of 0..n.
    pub fn permutation(&mut self, n: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n).collect();
        for last in (1..n).rev() {
            order.swap(last as usize, self.below(last + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_fixed_and_apart() {
        let draw = |seed, purpose, index| Rng::new(seed, purpose, index).0.next_u64();
        assert_eq!(draw(1, Purpose::Draw, 0), draw(1, Purpose::Draw, 0));
        assert_ne!(draw(1, Purpose::Draw, 0), draw(1, Purpose::Draw, 1));
        assert_ne!(draw(1, Purpose::Draw, 0), draw(1, Purpose::Order, 0));
        assert_ne!(draw(1, Purpose::Draw, 0), draw(2, Purpose::Draw, 0));
        assert_ne!(draw(1, Purpose::Study("a"), 0), draw(1, Purpose::Study("b"), 0));
    }

    #[test]
    fn purposes_keep_their_numbers() {
        let fixed = [Purpose::Draw, Purpose::Weights, Purpose::Order, Purpose::Neighbours, Purpose::Check];
        assert_eq!(fixed.map(Purpose::number), [0, 1, 2, 3, 4]);
        // FNV-1a of "a" is e40c292c, in the authors' test vectors.
        assert_eq!(Purpose::Study("a").number(), 0xe40c_292c);
    }

    #[test]
    fn a_permutation_has_every_number_once() {
        let mut order = Rng::new(3, Purpose::Order, 0).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn draws_have_the_right_moments() {
        let mut rng = Rng::new(7, Purpose::Draw, 0);
        let n = 100_000;
        let bells: Vec<f64> = (0..n).map(|_| f64::from(rng.bell())).collect();
        let mean = bells.iter().sum::<f64>() / f64::from(n);
        let var = bells.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (var - 1.0).abs() < 0.02, "mean {mean}, variance {var}");
        let mut counts = [0u32; 3];
        (0..n).for_each(|_| counts[rng.below(3) as usize] += 1);
        assert!(counts.iter().all(|&c| c.abs_diff(33_333) < 600), "{counts:?}");
    }
}
