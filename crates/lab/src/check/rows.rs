//! Rows to check with: distributions, and the rows that broke other libraries.

use crate::rng::{Purpose, Rng};
use std::f64::consts::{PI, TAU};

/// How the numbers of a row are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    Normal,
    Uniform,
    Lognormal,
    Cauchy,
    OneHot,
    Ramp,
    Walk,
}

impl Spread {
    pub(super) const ALL: [Self; 7] =
        [Self::Normal, Self::Uniform, Self::Lognormal, Self::Cauchy, Self::OneHot, Self::Ramp, Self::Walk];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Uniform => "uniform",
            Self::Lognormal => "lognormal",
            Self::Cauchy => "Cauchy",
            Self::OneHot => "one-hot",
            Self::Ramp => "ramp",
            Self::Walk => "random walk",
        }
    }

    /// `n` numbers of standard deviation 1 around `mean`.
    pub(super) fn row(self, draw: &mut Draw, n: usize, mean: f64) -> Vec<f64> {
        let mut position = 0.0;
        let hot = draw.below(n);
        let mut row: Vec<f64> = (0..n)
            .map(|i| match self {
                Self::Normal => draw.normal(),
                Self::Uniform => draw.unit(),
                Self::Lognormal => libm::exp(draw.normal()),
                Self::Cauchy => libm::tan(PI * (draw.unit() - 0.5)),
                Self::OneHot => f64::from(u8::from(i == hot)),
                Self::Ramp => i as f64,
                Self::Walk => {
                    position += draw.normal();
                    position
                }
            })
            .collect();
        let centre = row.iter().sum::<f64>() / n as f64;
        let std = (row.iter().map(|x| (x - centre) * (x - centre)).sum::<f64>() / n as f64).sqrt();
        let scale = if std > 0.0 { 1.0 / std } else { 1.0 };
        row.iter_mut().for_each(|x| *x = (*x - centre) * scale + mean);
        row
    }
}

/// Random numbers, with the same bits on every platform.
pub(super) struct Draw {
    rng: Rng,
    /// Normal numbers come in pairs.
    spare: Option<f64>,
}

impl Draw {
    pub(super) fn new(seed: u64, index: u32) -> Self {
        Self { rng: Rng::new(seed, Purpose::Check, index), spare: None }
    }

    /// In (0, 1), never at an end.
    pub(super) fn unit(&mut self) -> f64 {
        ((self.rng.word() >> 11) as f64 + 0.5) * 2f64.powi(-53)
    }

    /// A whole number below `n`, or 0 where `n` is 0. (The last few are a little rarer, which does no harm here.)
    pub(super) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.rng.word() % (n.max(1) as u64)).unwrap_or(0)
    }

    /// Any of them.
    pub(super) fn any<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Box and Muller's method.
    pub(super) fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * libm::log(self.unit())).sqrt();
        let (sin, cos) = libm::sincos(TAU * self.unit());
        self.spare = Some(radius * sin);
        radius * cos
    }

    /// 10 to a power between `low` and `high`.
    pub(super) fn power_of_ten(&mut self, low: f64, high: f64) -> f64 {
        libm::exp10(low + (high - low) * self.unit())
    }
}

/// Rows that broke other libraries, and rows at the ends of the range of f32. f64 kernels get them too.
pub(super) fn breaking(seed: u64) -> Vec<(String, Vec<f64>)> {
    let draw = &mut Draw::new(seed, u32::MAX);
    let from =
        |start: f64, step: f64, n: u32| (0..n).map(|i| start + f64::from(i) * step).collect::<Vec<_>>();
    let mut rows: Vec<(String, Vec<f64>)> = vec![
        ("40000..40003".into(), from(40000.0, 1.0, 4)),
        ("80000..80003".into(), from(80000.0, 1.0, 4)),
        ("1e6 + 0, 1, 2".into(), from(1e6, 1.0, 3)),
        ("-11, -11, -11 + 3e-6".into(), vec![-11.0, -11.0, -11.0 + 3e-6]),
        ("1e4 + i 1e-3".into(), from(1e4, 1e-3, 16)),
        ("near 1449".into(), normal(draw, 512, 1449.0, 1e-3)),
        ("normal + 2000".into(), normal(draw, 768, 2000.0, 1.0)),
        ("0.01 normal + 100".into(), normal(draw, 32768, 100.0, 0.01)),
        ("halves above 7600".into(), from(7616.0, 8.0, 512)),
        ("the largest halves".into(), vec![65504.0, -65504.0, 65472.0, 65504.0]),
        ("one 3e38 among ones".into(), [vec![1.0; 99], vec![3e38]].concat()),
        ("largest and smallest".into(), vec![3.4e38, 1e-45, -3.4e38, 0.0, 1e-45]),
        ("one number".into(), vec![-3.25]),
        ("smallest numbers".into(), vec![1e-45, 0.0, 3e-45, 0.0, 0.0]),
    ];
    for scale in [1e20, 1e30, 8.5e37, 3e38, 1e-18, 1e-30, 1e-38, 1e-41] {
        let row = (0..100).map(|_| scale * (2.0 * draw.unit() - 1.0)).collect();
        rows.push((format!("uniform in ±{scale:e}"), row));
        let row = (0..1000).map(|_| scale * (1.0 + 0.05 * draw.unit())).collect();
        rows.push((format!("uniform near {scale:e}"), row));
    }
    for (value, n) in
        [(1234.0, 256), (0.0, 64), (0.1, 3), (0.1, 7), (-0.3, 1000), (1e5 / 3.0, 4096), (0.7, 65536)]
    {
        rows.push((format!("{n} times {value}"), vec![value; n]));
    }
    for (value, n) in [(3e38, 1000), (1e20 / 3.0, 777), (1e-30, 1000), (1e-42, 100)] {
        rows.push((format!("{n} times {value:e}"), vec![value; n]));
    }
    rows
}

/// Rows at the ends of the range of f64.
pub(super) fn breaking_f64(seed: u64) -> Vec<(String, Vec<f64>)> {
    let draw = &mut Draw::new(seed, u32::MAX - 1);
    let row = |scale: f64| {
        let row = (0..100).map(|_| scale * (2.0 * draw.unit() - 1.0)).collect();
        (format!("uniform in ±{scale:e}"), row)
    };
    let mut rows: Vec<_> = [1e150, 1e200, 1.7e308, 1e-150, 1e-200, 1e-308, 1e-320].map(row).into();
    rows.push(("1000 times 1.7e308".into(), vec![1.7e308; 1000]));
    rows.push(("1000 times 1e-310".into(), vec![1e-310; 1000]));
    rows.push(("one 1e308 among ones".into(), [vec![1.0; 99], vec![1e308]].concat()));
    rows
}

fn normal(draw: &mut Draw, n: usize, mean: f64, std: f64) -> Vec<f64> {
    (0..n).map(|_| mean + std * draw.normal()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_as_they_say() {
        for spread in Spread::ALL {
            let row = spread.row(&mut Draw::new(1, 2), 1000, 50.0);
            let mean = row.iter().sum::<f64>() / 1000.0;
            let var = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 1000.0;
            assert!((mean - 50.0).abs() < 1e-9 && (var - 1.0).abs() < 1e-9, "{spread:?}: {mean} {var}");
            assert_eq!(row, spread.row(&mut Draw::new(1, 2), 1000, 50.0), "the same seed, the same bits");
        }
        // A sum of squares of normals: chi^2 of 10000 +- 141.
        let draw = &mut Draw::new(3, 0);
        let squares: f64 = (0..10_000).map(|_| draw.normal()).map(|x| x * x).sum();
        assert!((squares - 10_000.0).abs() < 600.0, "{squares}");
    }
}
