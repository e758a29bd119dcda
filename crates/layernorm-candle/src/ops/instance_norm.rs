//! Instance normalization (Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022): layer norm of each channel of a sample.

use super::channels::{over_groups, split};
use crate::error::Error;
use candle_core::{Result, Tensor};
use layernorm::Activation;

/// Instance norm of `x`: y = weight (x - mean) / sqrt(var + eps) + bias, with the mean and the variance of each channel
/// of each sample.
///
/// - `x`: `[samples, channels, ...]` of three axes or more;
/// - `weight`, `bias`: `[channels]`, `[1]`, or `None`.
///
/// [Ulyanov, Vedaldi, Lempitsky 2016](https://arxiv.org/abs/1607.08022). The same as
/// [`group_norm`](super::group_norm) with as many groups as channels.
///
/// # Errors
/// If the shapes don't fit, or as [`layer_norm`](super::layer_norm).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::instance_norm;
///
/// let x = Tensor::new(&[[[1f32, 3.], [30., 10.]]], &Device::Cpu)?;
/// let weight = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
/// assert_eq!(instance_norm(&x, &weight, None, 0.0)?.to_vec3::<f32>()?, [[[-1., 1.], [2., -2.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn instance_norm<'a>(
    x: &Tensor,
    weight: impl Into<Option<&'a Tensor>>,
    bias: impl Into<Option<&'a Tensor>>,
    eps: impl Into<f64>,
) -> Result<Tensor> {
    let norm = "instance-norm";
    let [_, channels, values] = split(norm, x, 3)?;
    if channels * values == 0 {
        return Err(Error::Empty { norm, what: "channel", x: x.shape().clone() }.into());
    }
    over_groups(x, channels, [weight.into(), bias.into()], eps.into(), Activation::None)
}
