//! Rows to test with: distributions, the rows that broke other libraries, and rows at the ends of the range.

use crate::level::Effort;
use crate::number::{Number, Stored, Value, power_of_two};
use crate::random::Random;

/// Shapes of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    Normal,
    Uniform,
    Lognormal,
    Cauchy,
    OneHot,
    Ramp,
    Walk,
    Sparse,
    /// Two values by turns.
    Alternating,
}

impl Shape {
    pub(crate) const ALL: [Self; 9] = [
        Self::Normal,
        Self::Uniform,
        Self::Lognormal,
        Self::Cauchy,
        Self::OneHot,
        Self::Ramp,
        Self::Walk,
        Self::Sparse,
        Self::Alternating,
    ];

    /// As many as there is time for.
    pub(crate) fn some() -> &'static [Self] {
        Effort::of(&Self::ALL[..1], &Self::ALL, &Self::ALL)
    }

    /// A row of this shape, with no particular mean or deviation.
    pub(crate) fn row(self, random: &mut Random, n: usize) -> Vec<f64> {
        let (hot, step) = (random.below(n), random.unit() + 0.5);
        let mut walk = 0.0;
        let mut next = |j: usize| match self {
            Self::Normal => random.normal(),
            Self::Uniform => random.unit(),
            // A product of eight numbers in [0.5, 1.5), squared.
            Self::Lognormal => (0..8).map(|_| random.unit() + 0.5).product::<f64>().powi(2),
            Self::Cauchy => random.normal() / (random.normal().abs() + 1e-9),
            Self::OneHot => f64::from(u8::from(j == hot)),
            Self::Ramp => step * j as f64,
            Self::Walk => {
                walk += random.normal();
                walk
            }
            Self::Sparse => f64::from(u8::from(random.below(10) == 0)) * random.normal(),
            Self::Alternating => step * f64::from(u8::from(j % 2 == 1)),
        };
        (0..n).map(&mut next).collect()
    }
}

/// The row with deviation 1 and this mean, times a number in [1, 2) of either sign.
pub(crate) fn with_mean(random: &mut Random, row: Vec<f64>, mean: f64) -> Vec<f64> {
    let n = row.len() as f64;
    let centre = row.iter().sum::<f64>() / n;
    let var = row.iter().map(|x| (x - centre).powi(2)).sum::<f64>() / n;
    let scale = (1.0 + random.unit()) * random.sign();
    let per_deviation = if var > 0.0 { scale / var.sqrt() } else { 0.0 };
    row.iter().map(|x| (x - centre) * per_deviation + mean * scale).collect()
}

/// In the type; what is beyond its largest number becomes that.
pub(crate) fn rounded<T: Value>(row: &[f64]) -> Vec<T> {
    row.iter().map(|x| T::of(x.clamp(-T::GREATEST, T::GREATEST))).collect()
}

/// The rows of issue trackers, up to a length: each was answered wrongly by some library.
pub(crate) fn breaking(most: usize) -> Vec<Vec<f64>> {
    let mut random = Random::new(5);
    let mut normal = |n: usize, deviation: f64, mean: f64| -> Vec<f64> {
        (0..n.min(most)).map(|_| deviation * random.normal() + mean).collect()
    };
    let by = |n: u32, value: &dyn Fn(u32) -> f64| -> Vec<f64> { (0..n).take(most).map(value).collect() };
    vec![
        by(4, &|j| 40_000.0 + f64::from(j)),
        by(4, &|j| 80_000.0 + f64::from(j)),
        by(256, &|_| 1234.0),
        vec![1e6, 1e6 + 1.0, 1e6 + 2.0],
        vec![-11.0, -11.0, -11.0 + 3e-6],
        by(16, &|j| 1e4 + f64::from(j) * 1e-3),
        normal(64, 0.01, 1449.0),
        normal(1000, 1.0, 2000.0),
        normal(32_768, 0.01, 100.0),
        normal(33, 1e30, 0.0),
        normal(16, 1e35, 8.5e37),
        by(16, &|_| 8.5e37),
        vec![0.0; 7],
        normal(50, 3e3, 7600.0),
        normal(40, 1e-30, 1e-30),
        vec![3e38, -3e38, 3e38, 3e38, -3e38],
        vec![3e38, 3e38, 3e38],
        // One step of f32 in a row of thousands; blocks of numbers far apart; one large number.
        by(5000, &|j| if j == 77 { 1.0 + f64::from(f32::EPSILON) } else { 1.0 }),
        by(3000, &|j| f64::from(j / 512) * 1e5 + f64::from(j % 7)),
        by(1000, &|j| if j == 3 { 1e6 } else { f64::from(j % 5) * 0.1 }),
    ]
}

/// Exponents to scale a row of about 1 by, so that it lies at the ends of the range of `T`.
pub(crate) fn scales<T: Stored>() -> Vec<i32> {
    let [smallest, largest] = T::EXPONENTS;
    let [low, high] = <T::Acc as Number>::RANGE_OF_V;
    let all = vec![
        largest - 2,
        largest - 20,
        largest / 2 + 10,
        high / 2 + 1,
        high / 2,
        high / 2 - 2,
        low / 2 + 2,
        low / 2,
        low / 2 - 2,
        2 * smallest / 3,
        smallest + 60,
        smallest + 20,
        smallest + 3,
        smallest,
    ];
    // The range of halves is less than that of the type that they accumulate in.
    all.into_iter().filter(|exponent| (smallest..=largest - 2).contains(exponent)).collect()
}

pub(crate) fn scaled<T: Value>(row: &[f64], exponent: i32) -> Vec<T> {
    let largest = row.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
    let per = if largest > 0.0 { 1.0 / largest } else { 1.0 };
    row.iter().map(|x| T::of(x * per * 1.9 * power_of_two(exponent))).collect()
}
