//! Layer norm: every row by its own mean and variance.

use super::{Affine, Backward, Forward, RowNorm};

/// Layer norm over rows of `features` numbers.
///
/// ```text
/// mean  = sum(x) / n
/// var   = sum((x - mean)^2) / n
/// x_hat = (x - mean) / sqrt(var + eps)
/// y     = weight * x_hat + bias
/// ```
///
/// Shapes: `x` and `y` (rows, features); `mean` and `rstd` (rows); weight and bias (features), shared or
/// absent. No features: nothing happens. `eps` inside the root and the biased variance, as in every
/// framework; the paper itself has no `eps`. To normalise over several axes, let `features` be their product.
///
/// Source: Ba, Kiros, Hinton, *Layer Normalization*, 2016,
/// [arXiv:1607.06450](https://arxiv.org/abs/1607.06450).
///
/// # Panics
///
/// If `x` does not consist of whole rows, a parameter fits neither 1 nor `features`, or `eps` is negative or
/// not finite.
///
/// ```
/// use layernorm::reference::{Affine, layer_norm};
///
/// // mean 5, variance 4
/// let out = layer_norm(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 8, Affine::NONE, 0.0);
/// assert_eq!(out.y, [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]);
/// assert_eq!((out.mean, out.rstd), (vec![5.0], vec![0.5]));
///
/// // A constant row has nothing to say.
/// assert_eq!(layer_norm(&[0.1; 3], 3, Affine::new(&[2.0], &[7.0]), 0.0).y, [7.0; 3]);
/// ```
pub fn layer_norm(x: &[f64], features: usize, affine: Affine, eps: f64) -> Forward {
    RowNorm::layer(features, eps).forward(x, affine)
}

/// The gradients of [`layer_norm`].
///
/// ```text
/// u       = weight * dy
/// dx      = r (u - mean(u) - x_hat mean(u x_hat))
/// dweight = sum over rows of dy * x_hat
/// dbias   = sum over rows of dy
/// ```
///
/// Shapes: `dy` and `dx` as `x`; `dweight` and `dbias` as the parameters, summed over the features too where
/// a parameter is shared, empty where it is absent. At `eps = 0`, `sum(dx)` and `sum(dx * x_hat)` of a row
/// are 0.
///
/// Source: as [`layer_norm`]; the mean and the variance depend on every number of the row, hence the two
/// means.
///
/// # Panics
///
/// As [`layer_norm`], and if `dy` and `x` differ in length.
///
/// ```
/// use layernorm::reference::{Affine, layer_norm_backward};
///
/// let x = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
/// let back = layer_norm_backward(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], &x, 8, Affine::NONE, 0.0);
/// assert_eq!(back.dx[0], 0.5 * (1.0 - 1.0 / 8.0 - 1.5 * 1.5 / 8.0));
/// assert_eq!(back.dx.iter().sum::<f64>(), 0.0);
/// ```
pub fn layer_norm_backward(dy: &[f64], x: &[f64], features: usize, affine: Affine, eps: f64) -> Backward {
    RowNorm::layer(features, eps).backward(dy, x, affine)
}
