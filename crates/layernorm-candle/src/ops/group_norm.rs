//! Group normalization (Wu, He 2018, arXiv:1803.08494, equation 7): layer norm of each group of channels of a sample.

use super::channels::{affine, expect_parameter, split};
use crate::apply::{in_compute_type, over_rows};
use crate::error::Error;
use crate::norm::Norm;
use candle_core::{Result, Tensor};

/// Group norm of `x`: y = weight (x - mean) / sqrt(var + eps) + bias, with the mean and the variance of each group of
/// neighbouring channels of each sample.
///
/// - `x`: `[samples, channels, ...]` of three axes or more;
/// - `num_groups` divides `channels`: with as many groups as channels it is instance norm, with one a layer norm of
///   all but the first axis;
/// - `weight`, `bias`: `[channels]`, `[1]`, or `None`.
///
/// [Wu, He 2018](https://arxiv.org/abs/1803.08494), equation 7. The normalisation is the kernel of layer norm, whose
/// rows the groups are; weight and bias, one a channel, are composed from candle's operations.
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
    let (weight, bias, norm) = (weight.into(), bias.into(), "group-norm");
    let [_, channels, values] = split(norm, x, 3)?;
    if num_groups == 0 || !channels.is_multiple_of(num_groups) {
        return Err(Error::Groups { groups: num_groups, channels }.into());
    }
    let features = channels / num_groups * values;
    if features == 0 {
        return Err(Error::Empty { norm, what: "group", x: x.shape().clone() }.into());
    }
    expect_parameter("weight", weight, x, channels)?;
    expect_parameter("bias", bias, x, channels)?;
    let norm = Norm::layer(eps.into());
    in_compute_type(x, |x| affine(over_rows(norm, x, features, None, None)?, weight, bias))
}
