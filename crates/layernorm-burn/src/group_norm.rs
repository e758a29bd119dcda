//! Group normalization (Wu, He 2018, arXiv:1803.08494), each group of channels of a sample over all its positions:
//!
//! ```text
//! mu  = mean over channels of the group and positions        var = the same of (x - mu)^2
//! y   = gamma (x - mu) / sqrt(var + epsilon) + beta          one gamma and beta a channel
//! ```
//!
//! A group lies in one piece, so the layer norm's kernels serve it; the affine part is composed from Burn's
//! operations. Kernels of its own follow.

use crate::affine::affine;
use crate::apply::widened;
use crate::layer_norm::layer_norm;
use burn::tensor::Tensor;

/// Group norm of `x`: every group of channels of a sample by its mean and variance.
///
/// - `x`: `[batch, channels, ...]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[channels]`, of `[1]` (one for all channels), or `None` (1 and 0);
/// - the result has the shape and the type of `x`.
///
/// One group is layer norm over channels and positions, but for the affine parameters, which are per channel here. As
/// many groups as channels is [`instance_norm`](crate::instance_norm()). A group that doesn't vary gives exactly beta.
///
/// # Panics
/// If `groups` doesn't divide the channels, if `x` has no axis of channels, or if a parameter doesn't fit.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::group_norm;
///
/// let x = Tensor::<2>::from_data([[1.0, 3.0, 10.0, 30.0]], &Device::flex());
/// assert_eq!(group_norm(x, 2, None, None, 0.0).into_data(), [[-1.0f32, 1.0, -1.0, 1.0]].into());
/// ```
#[track_caller]
pub fn group_norm<const D: usize>(
    x: Tensor<D>,
    groups: usize,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    let (gamma, beta) = (gamma.into(), beta.into());
    let shape = x.dims();
    assert!(D >= 2, "x has shape {shape:?}: group norm needs [batch, channels, ...]");
    assert!(
        groups > 0 && shape[1].is_multiple_of(groups),
        "x has shape {shape:?}: its {} channels cannot be split into {groups} groups",
        shape[1]
    );
    let rows = shape[0] * groups;
    let len = shape.iter().product::<usize>() / rows.max(1);
    widened(x, |x| {
        let x_hat = layer_norm(x.reshape([rows, len]), None, None, epsilon).reshape(shape);
        affine(x_hat, 1, gamma, beta)
    })
}
