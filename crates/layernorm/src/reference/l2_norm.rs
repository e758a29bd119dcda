//! L2 norm and scale norm: every row by its length.

use super::{check_eps, check_len, divide, dot, reciprocal_or_zero};

/// What [`l2_norm`] and [`scale_norm`] return.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct L2Forward {
    /// The output, shaped as `x`.
    pub y: Vec<f64>,
    /// `1 / max(|x|, eps)` of each row.
    pub rnorm: Vec<f64>,
}

/// What [`scale_norm_backward`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScaleNormBackward {
    /// The gradient by `x`.
    pub dx: Vec<f64>,
    /// The gradient by the one scale.
    pub dscale: f64,
}

/// L2 norm: every row divided by its length.
///
/// ```text
/// y = x / max(|x|, eps)
/// ```
///
/// Shapes: `x` and `y` (rows, features); `rnorm` (rows). `eps` bounds the length from below, as in PyTorch's
/// `normalize` (1e-12); TensorFlow's `l2_normalize` bounds the square, so its epsilon is the square of this
/// one. A row of zeros gives zeros, at `eps = 0` too.
///
/// This is also QK norm: for queries or keys of (tokens, heads, head size) let `features` be the head size,
/// and every head of every token is a row. The variants with a learned gain per feature are
/// [`rms_norm`](super::rms_norm) and [`layer_norm`](super::layer_norm) over the same rows.
///
/// Source: Henry et al., *Query-Key Normalization for Transformers*, 2020,
/// [arXiv:2010.04245](https://arxiv.org/abs/2010.04245).
///
/// # Panics
///
/// If `x` does not consist of whole rows, or `eps` is negative or not finite.
///
/// ```
/// use layernorm::reference::l2_norm;
///
/// let out = l2_norm(&[3.0, 4.0, 0.0, 0.0], 2, 1e-12);
/// assert!((out.y[0] - 0.6).abs() < 1e-15 && (out.y[1] - 0.8).abs() < 1e-15);
/// assert_eq!((&out.y[2..], out.rnorm[0]), (&[0.0, 0.0][..], 0.2));
/// ```
pub fn l2_norm(x: &[f64], features: usize, eps: f64) -> L2Forward {
    scale_norm(x, features, 1.0, eps)
}

/// The gradient of [`l2_norm`] by `x`.
///
/// ```text
/// dx = (dy - x_hat (x_hat . dy)) / |x|      where |x| > eps
/// dx = dy / eps                             elsewhere: the length does not count there
/// ```
///
/// Shapes: `dy` and `dx` as `x`. A row of zeros at `eps = 0` has a `dx` of 0.
///
/// Source: as [`l2_norm`].
///
/// # Panics
///
/// As [`l2_norm`], and if `dy` and `x` differ in length.
///
/// ```
/// use layernorm::reference::l2_norm_backward;
///
/// // Along x nothing changes; across it the gradient is divided by the length.
/// assert_eq!(l2_norm_backward(&[1.0, 5.0], &[2.0, 0.0], 2, 1e-12), [0.0, 2.5]);
/// ```
pub fn l2_norm_backward(dy: &[f64], x: &[f64], features: usize, eps: f64) -> Vec<f64> {
    scale_norm_backward(dy, x, features, 1.0, eps).dx
}

/// Scale norm: every row set to one learned length.
///
/// ```text
/// y = scale * x / max(|x|, eps)
/// ```
///
/// Shapes: `x` and `y` (rows, features); one scale for all, `sqrt(features)` at initialisation; `eps` 1e-5 in
/// the authors' code, a lower bound of the length.
///
/// Source: Nguyen, Salazar, *Transformers without Tears*, 2019,
/// [arXiv:1910.05895](https://arxiv.org/abs/1910.05895).
///
/// # Panics
///
/// As [`l2_norm`].
///
/// ```
/// use layernorm::reference::scale_norm;
///
/// let y = scale_norm(&[3.0, 4.0], 2, 10.0, 1e-5).y;
/// assert!((y[0] - 6.0).abs() < 1e-14 && (y[1] - 8.0).abs() < 1e-14);
/// ```
pub fn scale_norm(x: &[f64], features: usize, scale: f64, eps: f64) -> L2Forward {
    check_eps(eps);
    divide("x", x.len(), features);
    let mut out = L2Forward::default();
    for x in x.chunks(features.max(1)) {
        let rnorm = reciprocal_or_zero(at_least(length(x), eps));
        out.y.extend(x.iter().map(|x| scale * x * rnorm));
        out.rnorm.push(rnorm);
    }
    out
}

/// The gradients of [`scale_norm`].
///
/// ```text
/// x_hat  = x / max(|x|, eps)
/// dx     = scale (dy - x_hat (x_hat . dy)) / |x|      where |x| > eps
/// dx     = scale dy / eps                             elsewhere
/// dscale = sum over everything of dy * x_hat
/// ```
///
/// Shapes: `dy` and `dx` as `x`; `dscale` is one number.
///
/// Source: as [`scale_norm`].
///
/// # Panics
///
/// As [`scale_norm`], and if `dy` and `x` differ in length.
///
/// ```
/// use layernorm::reference::scale_norm_backward;
///
/// let back = scale_norm_backward(&[1.0, 5.0], &[2.0, 0.0], 2, 4.0, 1e-5);
/// assert_eq!((back.dx, back.dscale), (vec![0.0, 10.0], 1.0));
/// ```
pub fn scale_norm_backward(
    dy: &[f64],
    x: &[f64],
    features: usize,
    scale: f64,
    eps: f64,
) -> ScaleNormBackward {
    check_eps(eps);
    check_len("dy", dy.len(), x.len());
    divide("x", x.len(), features);
    let mut out = ScaleNormBackward::default();
    for (dy, x) in dy.chunks(features.max(1)).zip(x.chunks(features.max(1))) {
        let rnorm = reciprocal_or_zero(at_least(length(x), eps));
        let x_hat: Vec<f64> = x.iter().map(|x| x * rnorm).collect();
        let along = dot(&x_hat, dy);
        let through_length = if length(x) > eps { along } else { 0.0 };
        out.dx.extend(dy.iter().zip(&x_hat).map(|(dy, x_hat)| scale * rnorm * (dy - x_hat * through_length)));
        out.dscale += along;
    }
    out
}

/// The larger of the two; NaN where the length is, which `f64::max` would drop.
fn at_least(length: f64, eps: f64) -> f64 {
    if length < eps { eps } else { length }
}

/// The Euclidean length.
fn length(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}
