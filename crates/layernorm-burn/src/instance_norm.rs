//! Instance normalization (Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022), each channel of a sample over its
//! positions:
//!
//! ```text
//! mu = mean over positions     var = the same of (x - mu)^2     y = gamma (x - mu) / sqrt(var + epsilon) + beta
//! ```
//!
//! It is group norm with one channel a group, and computed as such.

use crate::group_norm::group_norm;
use burn::tensor::Tensor;

/// Instance norm of `x`: every channel of a sample by its mean and variance.
///
/// - `x`: `[batch, channels, ...]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[channels]`, of `[1]` (one for all channels), or `None` (1 and 0);
/// - the result has the shape and the type of `x`.
///
/// # Panics
/// If `x` has no axis of channels, or if a parameter doesn't fit.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::instance_norm;
///
/// let x = Tensor::<3>::from_data([[[1.0, 3.0], [10.0, 30.0]]], &Device::flex());
/// assert_eq!(instance_norm(x, None, None, 0.0).into_data(), [[[-1.0f32, 1.0], [-1.0, 1.0]]].into());
/// ```
#[track_caller]
pub fn instance_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    assert!(D >= 2, "x has shape {:?}: instance norm needs [batch, channels, ...]", x.dims());
    let channels = x.dims()[1];
    group_norm(x, channels, gamma, beta, epsilon)
}
