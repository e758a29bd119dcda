//! RMS norm: every row by its root mean square, over all features or the first few.

use super::{Affine, Backward, Forward, RowNorm, Statistics};

/// RMS norm over rows of `features` numbers.
///
/// ```text
/// r     = 1 / sqrt(sum(x^2) / n + eps)
/// x_hat = x r
/// y     = weight * x_hat + bias
/// ```
///
/// Shapes: as [`layer_norm`](super::layer_norm), but without a mean. The mean square is uncentred: it is not
/// the variance. `eps` stands inside the root, as in LLaMA, T5 and `torch.nn.RMSNorm`; the authors' PyTorch
/// code adds it outside, to the root mean square. Most models have no bias. Gemma's `1 + w`: see [`Affine`].
///
/// Source: Zhang, Sennrich, *Root Mean Square Layer Normalization*, 2019,
/// [arXiv:1910.07467](https://arxiv.org/abs/1910.07467).
///
/// # Panics
///
/// If `x` does not consist of whole rows, a parameter fits neither 1 nor `features`, or `eps` is negative or
/// not finite.
///
/// ```
/// use layernorm::reference::{Affine, rms_norm};
///
/// // mean square 4, one weight for all features
/// let out = rms_norm(&[1.0, 3.0, 0.0, 3.0, 1.0], 5, Affine { weight: Some(&[10.0]), bias: None }, 0.0);
/// assert_eq!(out.y, [5.0, 15.0, 0.0, 15.0, 5.0]);
/// assert_eq!(out.rstd, [0.5]);
/// assert!(out.mean.is_empty());
/// ```
pub fn rms_norm(x: &[f64], features: usize, affine: Affine, eps: f64) -> Forward {
    RowNorm::rms(features, eps).forward(x, affine)
}

/// The gradients of [`rms_norm`].
///
/// ```text
/// u       = weight * dy
/// dx      = r (u - x_hat mean(u x_hat))
/// dweight = sum over rows of dy * x_hat
/// dbias   = sum over rows of dy
/// ```
///
/// Shapes: as [`layer_norm_backward`](super::layer_norm_backward). At `eps = 0`, `sum(dx * x)` of a row is 0.
///
/// Source: as [`rms_norm`].
///
/// # Panics
///
/// As [`rms_norm`], and if `dy` and `x` differ in length.
///
/// ```
/// use layernorm::reference::{Affine, rms_norm_backward};
///
/// let x = [1.0, 7.0]; // x_hat = (0.2, 1.4)
/// let back = rms_norm_backward(&[1.0, 0.0], &x, 2, Affine::NONE, 0.0);
/// assert!((back.dx[0] - 0.2 * (1.0 - 0.2 * 0.1)).abs() < 1e-15);
/// assert!((back.dx[1] - 0.2 * (0.0 - 1.4 * 0.1)).abs() < 1e-15);
/// ```
pub fn rms_norm_backward(dy: &[f64], x: &[f64], features: usize, affine: Affine, eps: f64) -> Backward {
    RowNorm::rms(features, eps).backward(dy, x, affine)
}

/// Partial RMS norm (pRMSNorm): the mean square of the `first` features scales the whole row.
///
/// ```text
/// r = 1 / sqrt(sum over j < first of x_j^2 / first + eps)
/// y = weight * x r + bias        for every feature
/// ```
///
/// Shapes: as [`rms_norm`]. The authors take `first = floor(p * features)` with `p` about 6%.
///
/// Source: section 3.1 of Zhang, Sennrich, 2019, [arXiv:1910.07467](https://arxiv.org/abs/1910.07467).
///
/// # Panics
///
/// As [`rms_norm`], and if `first` is not between 1 and `features`.
///
/// ```
/// use layernorm::reference::{Affine, partial_rms_norm};
///
/// // The first two features have a mean square of 4; the third does not count.
/// let out = partial_rms_norm(&[2.0, 2.0, 50.0], 3, 2, Affine::NONE, 0.0);
/// assert_eq!(out.y, [1.0, 1.0, 25.0]);
/// ```
pub fn partial_rms_norm(x: &[f64], features: usize, first: usize, affine: Affine, eps: f64) -> Forward {
    RowNorm { statistics: Statistics::PartialRms { first }, features, eps }.forward(x, affine)
}

/// The gradients of [`partial_rms_norm`].
///
/// ```text
/// dx_j = r (u_j - x_hat_j sum(u x_hat) / first)   for j < first, the sum over all features
/// dx_j = r u_j                                    for the others
/// ```
///
/// `dweight` and `dbias` as in [`rms_norm_backward`]; shapes too.
///
/// Source: as [`partial_rms_norm`].
///
/// # Panics
///
/// As [`partial_rms_norm`], and if `dy` and `x` differ in length.
///
/// ```
/// use layernorm::reference::{Affine, partial_rms_norm_backward};
///
/// // Only the third output is asked for: the first two features act through r alone.
/// let back = partial_rms_norm_backward(&[0.0, 0.0, 1.0], &[3.0, 4.0, 5.0], 3, 1, Affine::NONE, 0.0);
/// assert!((back.dx[0] + 5.0 / 9.0).abs() < 1e-15); // d(x2 / x0) / dx0
/// assert_eq!(back.dx[1..], [0.0, 1.0 / 3.0]);
/// ```
pub fn partial_rms_norm_backward(
    dy: &[f64],
    x: &[f64],
    features: usize,
    first: usize,
    affine: Affine,
    eps: f64,
) -> Backward {
    RowNorm { statistics: Statistics::PartialRms { first }, features, eps }.backward(dy, x, affine)
}
