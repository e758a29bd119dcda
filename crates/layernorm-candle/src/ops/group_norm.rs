//! Group normalization (Wu, He 2018, arXiv:1803.08494, equation 7): layer norm of each group of channels of a sample.

use super::channels::{over_groups, split};
use crate::error::Error;
use candle_core::{Result, Tensor};
use layernorm::Activation;

/// Group norm of `x`: y = weight (x - mean) / sqrt(var + eps) + bias, with the mean and the variance of each group of
/// neighbouring channels of each sample.
///
/// - `x`: `[samples, channels, ...]` of three axes or more;
/// - `num_groups` divides `channels`: with as many groups as channels it is instance norm, with one a layer norm of
///   all but the first axis;
/// - `weight`, `bias`: `[channels]`, `[1]`, or `None`.
///
/// [Wu, He 2018](https://arxiv.org/abs/1803.08494), equation 7. A tensor whose channels are last in memory (one
/// of `[samples, ..., channels]`, permuted) is read as it lies, and so is y written.
///
/// # Errors
/// If the shapes don't fit, or as [`layer_norm`](super::layer_norm).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::group_norm;
///
/// let x = Tensor::new(&[[[1f32, 3.], [3., 1.], [7., 7.], [7., 7.]]], &Device::Cpu)?; // 4 channels
/// let y = group_norm(&x, 2, None, None, 0.0)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[-1., 1.], [1., -1.], [0., 0.], [0., 0.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn group_norm<'a>(
    x: &Tensor,
    num_groups: usize,
    weight: impl Into<Option<&'a Tensor>>,
    bias: impl Into<Option<&'a Tensor>>,
    eps: impl Into<f64>,
) -> Result<Tensor> {
    grouped(x, num_groups, [weight.into(), bias.into()], eps.into(), Activation::None)
}

/// [`group_norm`], then SiLU (y times its sigmoid), as one operation: what stands before each convolution of many
/// diffusion models.
///
/// # Errors
/// As [`group_norm`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::{group_norm, group_norm_silu};
///
/// let x = Tensor::new(&[[[1f32, 3.], [3., 1.]]], &Device::Cpu)?;
/// let y = group_norm_silu(&x, 1, None, None, 1e-5)?;
/// let apart = group_norm(&x, 1, None, None, 1e-5)?.silu()?;
/// assert!((y - apart)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn group_norm_silu<'a>(
    x: &Tensor,
    num_groups: usize,
    weight: impl Into<Option<&'a Tensor>>,
    bias: impl Into<Option<&'a Tensor>>,
    eps: impl Into<f64>,
) -> Result<Tensor> {
    grouped(x, num_groups, [weight.into(), bias.into()], eps.into(), Activation::Silu)
}

fn grouped(
    x: &Tensor,
    groups: usize,
    parameters: [Option<&Tensor>; 2],
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let norm = "group-norm";
    let [_, channels, positions] = split(norm, x, 3)?;
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::Groups { groups, channels }.into());
    }
    if channels * positions == 0 {
        return Err(Error::Empty { norm, what: "group", x: x.shape().clone() }.into());
    }
    over_groups(x, groups, parameters, eps, activation)
}
