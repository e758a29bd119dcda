//! Instance normalization (Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022): layer norm of each channel of a sample.

use super::channels::{affine, expect_parameter, split};
use crate::apply::{in_compute_type, over_rows};
use crate::error::Error;
use crate::norm::Norm;
use candle_core::{Result, Tensor};

/// Instance norm of `x`: y = weight (x - mean) / sqrt(var + eps) + bias, with the mean and the variance of each channel
/// of each sample.
///
/// - `x`: `[samples, channels, ...]` of three axes or more;
/// - `weight`, `bias`: `[channels]`, `[1]`, or `None`.
///
/// [Ulyanov, Vedaldi, Lempitsky 2016](https://arxiv.org/abs/1607.08022). As in [`group_norm`](super::group_norm), the
/// kernel of layer norm does the rows and candle's operations weight and bias.
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
    let (weight, bias, norm) = (weight.into(), bias.into(), "instance-norm");
    let [_, channels, values] = split(norm, x, 3)?;
    if values == 0 {
        return Err(Error::Empty { norm, what: "channel", x: x.shape().clone() }.into());
    }
    expect_parameter("weight", weight, x, channels)?;
    expect_parameter("bias", bias, x, channels)?;
    let norm = Norm::layer(eps.into());
    in_compute_type(x, |x| affine(over_rows(norm, x, values, None, None)?, weight, bias))
}
