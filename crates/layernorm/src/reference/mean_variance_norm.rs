//! Mean-variance norm: every set by its mean and its standard deviation, with `eps` outside the root.

use super::axes::{gather, scatter, sets};
use super::{Forward, RowNorm, check_eps, check_len, dot, mean, reciprocal_or_zero};

/// Mean-variance norm over any axes.
///
/// ```text
/// mean, var over the axes
/// x_hat = (x - mean) / (sqrt(var) + eps)
/// y     = x_hat
/// ```
///
/// Shapes: `x` and `y` any, row-major; a set is what differs along `axes` alone, and [`Forward`] has the mean
/// and the `rstd = 1 / (sqrt(var) + eps)` of each, in the order of the other axes. ONNX's axes are 0, 2, 3 by
/// default, that is channels over the batch as in batch norm, and its `eps` is 1e-9 always.
///
/// `eps` is *outside* the root, unlike everywhere else: beside a deviation of `s` it counts as an epsilon of
/// about `2 s eps` inside. No parameters. A constant set gives zeros.
///
/// Source: ONNX's operator
/// [`MeanVarianceNormalization`](https://onnx.ai/onnx/operators/onnx__MeanVarianceNormalization.html), version
/// 13: its function body, which has the `eps` that its formula leaves out. (The body takes the variance as
/// `E[x^2] - E[x]^2`: the same number in exact arithmetic, so this oracle makes no difference.)
///
/// # Panics
///
/// If `x` does not have the shape, the shape does not have one of the axes, or `eps` is negative or not finite.
///
/// ```
/// use layernorm::reference::mean_variance_norm;
///
/// // Two samples of two channels: (1, 5) and (7, 7) are normalised.
/// let out = mean_variance_norm(&[1.0, 7.0, 5.0, 7.0], &[2, 2], &[0], 0.0);
/// assert_eq!((out.y, out.mean), (vec![-1.0, 0.0, 1.0, 0.0], vec![3.0, 7.0]));
/// // Deviation 2, and 2 more.
/// assert_eq!(mean_variance_norm(&[1.0, 5.0], &[2], &[0], 2.0).y, [-0.5, 0.5]);
/// ```
pub fn mean_variance_norm(x: &[f64], shape: &[usize], axes: &[usize], eps: f64) -> Forward {
    check_eps(eps);
    let mut out = Forward { y: vec![0.0; x.len()], ..Forward::default() };
    for set in sets("x", x.len(), shape, axes) {
        let row = Set::new(&gather(x, &set), eps);
        scatter(&mut out.y, &set, row.x_hat);
        out.mean.push(row.mean);
        out.rstd.push(row.rstd);
    }
    out
}

/// The gradient of [`mean_variance_norm`] by `x`.
///
/// ```text
/// s  = sqrt(var)
/// dx = r (dy - mean(dy)) - x_hat mean(dy x_hat) / s      r = 1 / (s + eps)
/// ```
///
/// Shapes: `dy` and `dx` as `x`. Without `eps`, `r = 1 / s` and this is layer norm's. A constant set is a corner
/// of the deviation, where the middle of its slopes is taken, 0: `dx = r (dy - mean(dy))`, and 0 at `eps = 0`.
///
/// Source: as [`mean_variance_norm`], with `ds/dx = (x - mean) / (n s)`.
///
/// # Panics
///
/// As [`mean_variance_norm`], and if `dy` and `x` differ in length.
///
/// ```
/// use layernorm::reference::mean_variance_norm_backward;
///
/// // Of two numbers only their order is left, but for eps.
/// assert_eq!(mean_variance_norm_backward(&[1.0, 0.0], &[1.0, 5.0], &[2], &[0], 0.0), [0.0, 0.0]);
/// assert_eq!(mean_variance_norm_backward(&[1.0, 0.0], &[1.0, 5.0], &[2], &[0], 2.0), [0.0625, -0.0625]);
/// ```
pub fn mean_variance_norm_backward(
    dy: &[f64],
    x: &[f64],
    shape: &[usize],
    axes: &[usize],
    eps: f64,
) -> Vec<f64> {
    check_eps(eps);
    check_len("dy", dy.len(), x.len());
    let mut out = vec![0.0; x.len()];
    for set in sets("x", x.len(), shape, axes) {
        let dy = gather(dy, &set);
        let row = Set::new(&gather(x, &set), eps);
        let mean_dy = mean(&dy);
        let by_deviation = dot(&dy, &row.x_hat) / dy.len() as f64 * reciprocal_or_zero(row.deviation);
        let dx =
            dy.iter().zip(&row.x_hat).map(|(dy, x_hat)| row.rstd * (dy - mean_dy) - x_hat * by_deviation);
        scatter(&mut out, &set, dx);
    }
    out
}

/// One normalised set.
struct Set {
    mean: f64,
    deviation: f64,
    rstd: f64,
    x_hat: Vec<f64>,
}

impl Set {
    fn new(x: &[f64], eps: f64) -> Self {
        let row = RowNorm::layer(x.len(), 0.0).normalise(x);
        let (mean, deviation) = (row.mean.unwrap_or(0.0), row.var.sqrt());
        let rstd = reciprocal_or_zero(deviation + eps);
        Set { mean, deviation, rstd, x_hat: x.iter().map(|x| (x - mean) * rstd).collect() }
    }
}
