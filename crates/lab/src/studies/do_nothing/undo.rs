//! How much of its input the best gain and bias restore behind a norm.

use burn::tensor::{Device, Tensor, TensorData};
use layernorm_burn::{BatchMode, NormConfig};

use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};

const ROWS: usize = 2000;
const UNITS: usize = 64;
/// In words.
pub const SHAPE: &str = "2000 of 64 numbers";
/// By how many octaves the rows' scales differ, each way.
const OCTAVES: [f32; 7] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0];

/// Measures what is lost, for inputs that differ more and more.
pub fn measure(norm: &NormConfig, study: &'static str, seed: u64, measured: &mut Measured) {
    for (index, octaves) in (0u32..).zip(OCTAVES) {
        let mut rng = Rng::new(seed, Purpose::Study(study), index);
        let rows: Vec<Vec<f32>> = (0..ROWS).map(|_| row(octaves, &mut rng)).collect();
        let normalized = normalized(norm, &rows);
        let lost = distance(&Undo::best(&normalized, &rows).apply(&normalized), &rows);
        measured.point("undone", f64::from(octaves), lost);
    }
}

/// A row whose standard deviation and mean differ from 1 and 0 by up to so many octaves and units.
fn row(octaves: f32, rng: &mut Rng) -> Vec<f32> {
    let (scale, shift) =
        (f64::from(rng.range(-octaves, octaves)).exp2(), f64::from(rng.range(-octaves, octaves)));
    let bells: Vec<f64> = (0..UNITS).map(|_| f64::from(rng.bell())).collect();
    let mean = bells.iter().sum::<f64>() / UNITS as f64;
    let deviation = (bells.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / UNITS as f64).sqrt();
    #[allow(clippy::cast_possible_truncation, reason = "rounded to the kernels' type")]
    let number = |bell: f64| (shift + scale * (bell - mean) / deviation) as f32;
    bells.into_iter().map(number).collect()
}

/// Rows after the norm; batch norm by running statistics that these rows left.
pub fn normalized(norm: &NormConfig, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let units = rows[0].len();
    let x = Tensor::<2>::from_data(TensorData::new(rows.concat(), [rows.len(), units]), &Device::flex());
    let norm = norm.init(units, &Device::flex()).with_mode(BatchMode::Train);
    norm.forward(x.clone());
    let y = norm.with_mode(BatchMode::Eval).forward(x).into_data();
    y.try_into_vec::<f32>().expect("f32 in, f32 out").chunks(units).map(<[f32]>::to_vec).collect()
}

/// A gain and a bias for each unit.
pub struct Undo(Vec<[f64; 2]>);

impl Undo {
    /// Those that make `rows` of `from` as nearly as any can, by least squares.
    pub fn best(from: &[Vec<f32>], rows: &[Vec<f32>]) -> Self {
        let unit = |unit: usize| {
            let column =
                |rows: &[Vec<f32>]| rows.iter().map(|row| f64::from(row[unit])).collect::<Vec<f64>>();
            line(&column(from), &column(rows))
        };
        Self((0..rows[0].len()).map(unit).collect())
    }

    /// What they make of these rows.
    pub fn apply(&self, from: &[Vec<f32>]) -> Vec<Vec<f32>> {
        #[allow(clippy::cast_possible_truncation, reason = "rounded to the kernels' type")]
        let restore = |(y, [gain, bias]): (&f32, &[f64; 2])| (gain * f64::from(*y) + bias) as f32;
        from.iter().map(|row| row.iter().zip(&self.0).map(restore).collect()).collect()
    }
}

/// Gain and bias of the line through the points that is nearest to them, by least squares.
fn line(x: &[f64], y: &[f64]) -> [f64; 2] {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let together: f64 = x.iter().zip(y).map(|(x, y)| (x - mx) * (y - my)).sum();
    let alone: f64 = x.iter().map(|x| (x - mx).powi(2)).sum();
    let gain = if alone == 0.0 { 0.0 } else { together / alone };
    [gain, my - gain * mx]
}

/// Root mean square distance of two sets of rows, in standard deviations of the second.
fn distance(these: &[Vec<f32>], rows: &[Vec<f32>]) -> f64 {
    let all = || rows.iter().flatten().map(|&x| f64::from(x));
    let count = all().count() as f64;
    let mean = all().sum::<f64>() / count;
    let spread: f64 = all().map(|x| (x - mean).powi(2)).sum();
    let apart: f64 = these.iter().flatten().zip(all()).map(|(&a, x)| (f64::from(a) - x).powi(2)).sum();
    (apart / spread).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found() {
        let [gain, bias] = line(&[0.0, 1.0, 2.0], &[3.0, 5.0, 7.0]);
        assert!((gain - 2.0).abs() < 1e-12 && (bias - 3.0).abs() < 1e-12);
        // Least squares by hand: the mean of y is 1, the slope 0.5.
        let [gain, bias] = line(&[0.0, 1.0, 2.0], &[0.0, 2.0, 1.0]);
        assert!((gain - 0.5).abs() < 1e-12 && (bias - 0.5).abs() < 1e-12);
        assert_eq!(line(&[1.0, 1.0], &[4.0, 6.0]), [0.0, 5.0]);
    }

    #[test]
    fn rows_are_as_wide_as_they_say() {
        let mut rng = Rng::new(1, Purpose::Study("do-nothing"), 0);
        let still = row(0.0, &mut rng);
        let mean = still.iter().sum::<f32>() / 64.0;
        let variance = still.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 64.0;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean}, {variance}");
    }

    #[test]
    fn distances_are_relative() {
        let rows = [vec![0.0, 2.0]];
        assert_eq!(distance(&[vec![0.0, 2.0]], &rows), 0.0);
        assert!((distance(&[vec![1.0, 1.0]], &rows) - 1.0).abs() < 1e-12);
    }
}
