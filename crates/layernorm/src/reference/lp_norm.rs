//! Lp norm: every line along one axis by the sum of its magnitudes, or by its length.

use super::axes::{gather, scatter, sets};
use super::{check_len, dot, reciprocal_or_zero};

/// What [`lp_norm`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LpForward {
    /// The output, shaped as `x`.
    pub y: Vec<f64>,
    /// `1 / |x|_p` of each line, in the order of the other axes; 0 for a line of zeros.
    pub rnorm: Vec<f64>,
}

/// Lp norm: every line along an axis divided by its p-norm.
///
/// ```text
/// |x|_1 = sum(|x|)      |x|_2 = sqrt(sum(x^2))
/// y     = x / |x|_p
/// ```
///
/// Shapes: `x` and `y` any, row-major, normalised along `axis`; `rnorm` that shape without the axis. There is
/// no `eps`: a line of zeros gives zeros, by ONNX's definition. Along the last axis with `p` 2 this is
/// [`l2_norm`](super::l2_norm) at `eps = 0`.
///
/// Source: ONNX's operator
/// [`LpNormalization`](https://onnx.ai/onnx/operators/onnx__LpNormalization.html), version 22, which has these
/// two `p`.
///
/// # Panics
///
/// If `x` does not have the shape, the shape does not have the axis, or `p` is neither 1 nor 2.
///
/// ```
/// use layernorm::reference::lp_norm;
///
/// let x = [3.0, 0.0, -1.0, 0.0]; // two rows; a line of axis 0 is a column
/// assert_eq!(lp_norm(&x, &[2, 2], 0, 1).y, [0.75, 0.0, -0.25, 0.0]);
/// assert_eq!(lp_norm(&x, &[2, 2], 1, 2).y, [1.0, 0.0, -1.0, 0.0]);
/// ```
pub fn lp_norm(x: &[f64], shape: &[usize], axis: usize, p: u32) -> LpForward {
    check_p(p);
    let mut out = LpForward { y: vec![0.0; x.len()], rnorm: Vec::new() };
    for line in sets("x", x.len(), shape, &[axis]) {
        let x = gather(x, &line);
        let rnorm = reciprocal_or_zero(norm(&x, p));
        scatter(&mut out.y, &line, x.iter().map(|x| x * rnorm));
        out.rnorm.push(rnorm);
    }
    out
}

/// The gradient of [`lp_norm`] by `x`.
///
/// ```text
/// dx = (dy - sign(x) (y . dy)) / |x|_1      p = 1, with sign(0) = 0
/// dx = (dy - y (y . dy)) / |x|_2            p = 2
/// ```
///
/// Shapes: `dy` and `dx` as `x`. A line of zeros has a `dx` of 0. At `p` 1 a single 0 is a corner of the norm,
/// where the middle of its slopes is taken.
///
/// Source: as [`lp_norm`]; both are `(dy - (slope of the norm) (y . dy)) / norm`.
///
/// # Panics
///
/// As [`lp_norm`], and if `dy` and `x` differ in length.
///
/// ```
/// use layernorm::reference::lp_norm_backward;
///
/// // y = (3/4, -1/4): a larger first number takes from the second one's share.
/// assert_eq!(lp_norm_backward(&[1.0, 0.0], &[3.0, -1.0], &[2], 0, 1), [0.0625, 0.1875]);
/// ```
pub fn lp_norm_backward(dy: &[f64], x: &[f64], shape: &[usize], axis: usize, p: u32) -> Vec<f64> {
    check_p(p);
    check_len("dy", dy.len(), x.len());
    let mut out = vec![0.0; x.len()];
    for line in sets("x", x.len(), shape, &[axis]) {
        let (dy, x) = (gather(dy, &line), gather(x, &line));
        let rnorm = reciprocal_or_zero(norm(&x, p));
        let y: Vec<f64> = x.iter().map(|x| x * rnorm).collect();
        let along = dot(&y, &dy);
        let slope = |j: usize| if p == 1 { sign(x[j]) } else { y[j] };
        scatter(&mut out, &line, dy.iter().enumerate().map(|(j, dy)| rnorm * (dy - slope(j) * along)));
    }
    out
}

fn check_p(p: u32) {
    assert!(p == 1 || p == 2, "p is {p}, expected 1 or 2");
}

fn norm(x: &[f64], p: u32) -> f64 {
    if p == 1 { x.iter().map(|x| x.abs()).sum() } else { dot(x, x).sqrt() }
}

/// As `f64::signum`, but 0 at 0.
fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}
