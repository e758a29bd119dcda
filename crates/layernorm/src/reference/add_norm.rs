//! Residual add, then layer or RMS norm: both the sum and its norm are outputs.

use super::{Affine, Backward, RowNorm, check_len};

/// What [`add_norm`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddNormForward {
    /// The norm of the sum.
    pub y: Vec<f64>,
    /// The new residual, `x + residual`.
    pub sum: Vec<f64>,
    /// The mean of each row of the sum; empty for RMS.
    pub mean: Vec<f64>,
    /// `1 / sqrt(var + eps)` of each row of the sum.
    pub rstd: Vec<f64>,
}

/// The gradients by both outputs of [`add_norm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AddNormGradients<'a> {
    /// The gradient by the normalised output.
    pub dy: &'a [f64],
    /// The gradient by the sum: zeros where nothing else uses it.
    pub dsum: &'a [f64],
}

/// What [`add_norm_backward`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddNormBackward {
    /// The gradient by `x`, and the same numbers are the gradient by the residual.
    pub dx: Vec<f64>,
    /// The gradient by the weight; empty where it is absent.
    pub dweight: Vec<f64>,
    /// The gradient by the bias; empty where it is absent.
    pub dbias: Vec<f64>,
}

/// Adds a residual, then normalises the sum by row.
///
/// ```text
/// sum = x + residual
/// y   = norm(sum)            layer or RMS norm, with weight and bias
/// ```
///
/// Shapes: `x`, `residual`, `sum`, `y` (rows, features); `mean` and `rstd` (rows). In a pre-norm transformer
/// `sum` is the new residual stream and `y` the next sublayer's input; in a post-norm one only `y` is used.
///
/// Source: Vaswani et al., 2017, [arXiv:1706.03762](https://arxiv.org/abs/1706.03762) (post-norm); Xiong et
/// al., 2020, [arXiv:2002.04745](https://arxiv.org/abs/2002.04745) (both).
///
/// # Panics
///
/// If `x` and `residual` differ in length, do not consist of whole rows, or as the norm does.
///
/// ```
/// use layernorm::reference::{Affine, RowNorm, add_norm};
///
/// let out = add_norm(&[1.0, 0.0], &[0.0, 7.0], RowNorm::rms(2, 0.0), Affine::NONE);
/// assert_eq!(out.sum, [1.0, 7.0]);
/// assert_eq!(out.rstd, [0.2]);
/// ```
pub fn add_norm(x: &[f64], residual: &[f64], norm: RowNorm, affine: Affine) -> AddNormForward {
    check_len("residual", residual.len(), x.len());
    let sum: Vec<f64> = x.iter().zip(residual).map(|(x, residual)| x + residual).collect();
    let out = norm.forward(&sum, affine);
    AddNormForward { y: out.y, sum, mean: out.mean, rstd: out.rstd }
}

/// The gradients of [`add_norm`], from the gradients by both of its outputs and the `sum` that it returned.
///
/// ```text
/// dx = dresidual = dsum + (gradient of the norm at sum, from dy)
/// ```
///
/// `dweight` and `dbias` are those of the norm. Shapes: `dy`, `dsum`, `dx` as `sum`.
///
/// Source: the chain rule; the sum reaches the loss along both outputs.
///
/// # Panics
///
/// If `dy`, `dsum` and `sum` differ in length, or as the norm does.
///
/// ```
/// use layernorm::reference::{AddNormGradients, Affine, RowNorm, add_norm_backward};
///
/// let both = AddNormGradients { dy: &[0.0, 0.0], dsum: &[1.0, 2.0] };
/// let back = add_norm_backward(both, &[1.0, 7.0], RowNorm::layer(2, 1e-5), Affine::NONE);
/// assert_eq!(back.dx, [1.0, 2.0]); // nothing came through the norm
/// ```
pub fn add_norm_backward(
    gradients: AddNormGradients,
    sum: &[f64],
    norm: RowNorm,
    affine: Affine,
) -> AddNormBackward {
    check_len("dsum", gradients.dsum.len(), sum.len());
    let Backward { dx, dweight, dbias } = norm.backward(gradients.dy, sum, affine);
    let dx = dx.iter().zip(gradients.dsum).map(|(through_norm, dsum)| dsum + through_norm).collect();
    AddNormBackward { dx, dweight, dbias }
}
