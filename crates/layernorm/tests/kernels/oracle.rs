//! The true results of a case: by [`layernorm::reference`] in f64 for f32, by double-double for f64.

use crate::case::{Case, Norm};
use crate::dd::Dd;
use crate::number::{Stored, Value};
use half::{bf16, f16};
use layernorm::reference::{self, Affine};

/// The truth about a row.
pub(crate) struct Exact {
    pub(crate) mean: Dd,
    /// The standard deviation; for RMS norm the root mean square. Without eps.
    pub(crate) deviation: f64,
    pub(crate) rstd: Dd,
    pub(crate) x_hat: Vec<Dd>,
    pub(crate) y: Vec<Dd>,
    pub(crate) dx: Vec<Dd>,
    /// rstd * max |weight dy|: what an error of dx is measured by.
    pub(crate) dx_unit: f64,
}

pub(crate) trait Oracle: Stored {
    fn exact(case: &Case<Self>, row: usize) -> Exact;
}

/// A parameter for each feature.
pub(crate) fn spread<T: Value>(values: &Option<Vec<T>>, absent: f64, n: usize) -> Vec<f64> {
    match values {
        None => vec![absent; n],
        Some(values) => (0..n).map(|j| values[if values.len() == 1 { 0 } else { j }].wide()).collect(),
    }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |max, value| max.max(value.abs()))
}

macro_rules! by_reference {
    ($($t:ty),*) => {
        $(impl Oracle for $t {
            fn exact(case: &Case<$t>, row: usize) -> Exact {
                of_reference(case, row)
            }
        })*
    };
}
by_reference!(f32, f16, bf16);

fn of_reference<E: Stored<Acc = f32>>(case: &Case<E>, row: usize) -> Exact {
    let n = case.n;
    let wide =
        |numbers: &[E]| -> Vec<f64> { numbers[row * n..(row + 1) * n].iter().map(|x| x.wide()).collect() };
    let (x, dy) = (wide(&case.x), wide(&case.dy));
    let (weight, bias) = (spread(&case.weight, 1.0, n), spread(&case.bias, 0.0, n));
    let eps = f64::from(case.eps as f32);
    let affine = Affine::new(&weight, &bias);
    let (plain, out, back) = match case.norm {
        Norm::Layer => (
            reference::layer_norm(&x, n, Affine::NONE, eps),
            reference::layer_norm(&x, n, affine, eps),
            reference::layer_norm_backward(&dy, &x, n, affine, eps),
        ),
        Norm::Rms => (
            reference::rms_norm(&x, n, Affine::NONE, eps),
            reference::rms_norm(&x, n, affine, eps),
            reference::rms_norm_backward(&dy, &x, n, affine, eps),
        ),
    };
    let mean = out.mean.first().copied().unwrap_or(0.0);
    let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    let exact = |numbers: Vec<f64>| numbers.into_iter().map(Dd::new).collect();
    Exact {
        mean: Dd::new(mean),
        deviation: (squares / n as f64).sqrt(),
        rstd: Dd::new(out.rstd[0]),
        x_hat: exact(plain.y),
        y: exact(out.y),
        dx: exact(back.dx),
        dx_unit: out.rstd[0] * largest(weight.iter().zip(&dy).map(|(weight, dy)| weight * dy)),
    }
}

fn mean_of(values: impl ExactSizeIterator<Item = Dd>) -> Dd {
    let n = values.len() as f64;
    values.fold(Dd::ZERO, |sum, value| sum + value) / Dd::new(n)
}

fn exponent(value: f64) -> Option<i32> {
    (value > 0.0).then(|| value.log2().floor() as i32)
}

impl Oracle for f64 {
    fn exact(case: &Case<f64>, row: usize) -> Exact {
        let n = case.n;
        let of_row = |numbers: &[f64]| numbers[row * n..(row + 1) * n].to_vec();
        let (x, dy) = (of_row(&case.x), of_row(&case.dy));
        let (weight, bias) = (spread(&case.weight, 1.0, n), spread(&case.bias, 0.0, n));
        let centred = case.norm == Norm::Layer;

        // x in units of 2^e, deviations and 1 / r in units of 2^d, so that squares have room.
        let e = exponent(largest(x.iter().copied())).unwrap_or(0);
        let x: Vec<Dd> = x.iter().map(|x| Dd::new(*x).scaled(-e)).collect();
        let mean = if centred { mean_of(x.iter().copied()) } else { Dd::ZERO };
        let spread = exponent(largest(x.iter().map(|x| (*x - mean).hi))).map(|d| d + e);
        let d = spread.max(exponent(case.eps).map(|e| e / 2)).unwrap_or(0);
        let in_units_of = |unit: i32| -> Vec<Dd> { x.iter().map(|x| (*x - mean).scaled(e - unit)).collect() };
        let square_mean = |of: &[Dd]| mean_of(of.iter().map(|d| *d * *d));
        // Beside a large eps the variance may vanish in its unit; the deviation must not.
        let own = spread.unwrap_or(0);
        let deviation = square_mean(&in_units_of(own)).sqrt().scaled(own).hi;
        let deviations = in_units_of(d);
        let var = square_mean(&deviations);
        let v = var + Dd::new(case.eps).scaled(-2 * d);
        let r = if v.hi > 0.0 { Dd::new(1.0) / v.sqrt() } else { Dd::ZERO };
        let x_hat: Vec<Dd> = deviations.iter().map(|d| *d * r).collect();

        let f = exponent(largest(dy.iter().copied())).unwrap_or(0);
        let u: Vec<Dd> =
            weight.iter().zip(&dy).map(|(weight, dy)| Dd::new(*weight) * Dd::new(*dy).scaled(-f)).collect();
        let along_ones = if centred { mean_of(u.iter().copied()) } else { Dd::ZERO };
        let along_x_hat = mean_of(u.iter().zip(&x_hat).map(|(u, x_hat)| *u * *x_hat));
        let dx = |j: usize| (r * (u[j] - along_ones - x_hat[j] * along_x_hat)).scaled(f - d);
        Exact {
            mean: mean.scaled(e),
            deviation,
            rstd: r.scaled(-d),
            y: (0..n).map(|j| x_hat[j] * Dd::new(weight[j]) + Dd::new(bias[j])).collect(),
            dx: (0..n).map(dx).collect(),
            dx_unit: (r * Dd::new(largest(u.iter().map(|u| u.hi)))).scaled(f - d).hi,
            x_hat,
        }
    }
}
