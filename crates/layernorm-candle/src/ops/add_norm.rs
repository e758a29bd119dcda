//! A residual addition and the norm of the sum, which is what stands between two layers of a transformer:
//!
//! ```text
//! s = x + residual        y = norm(s)
//! ```

use crate::add::add_and_norm;
use crate::apply::{by_kernels, last_axis, over_rows};
use crate::error::{Error, expect_device};
use crate::kernels::Norm;
use candle_core::{Result, Tensor};

/// The sum `x + residual` and its layer norm, as `(y, sum)`: y to go on with, the sum as the next residual.
///
/// - `x`, `residual`: `[..., features]`, of the same shape and type;
/// - `weight`, `bias`: as in [`layer_norm`](super::layer_norm).
///
/// What is normalised is the sum as stored. Gradients of both results reach `x` and `residual`. One call of the kernels
/// gives both results, each in memory of its own, wherever the rows of `x` and `residual` are evenly spaced; elsewhere the
/// addition is candle's, because the kernels would need a copy.
///
/// # Errors
/// If `x` and `residual` differ in shape or type, or as [`layer_norm`](super::layer_norm).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::add_layer_norm;
///
/// let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
/// let (y, sum) = add_layer_norm(&x, &x, None, None, 0.0)?;
/// assert_eq!(sum.to_vec2::<f32>()?, [[2., 4.]]);
/// assert_eq!(y.to_vec2::<f32>()?, [[-1., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn add_layer_norm<'a>(
    x: &Tensor,
    residual: &Tensor,
    weight: impl Into<Option<&'a Tensor>>,
    bias: impl Into<Option<&'a Tensor>>,
    eps: impl Into<f64>,
) -> Result<(Tensor, Tensor)> {
    normed_sum(Norm::layer(eps.into()), x, residual, weight.into(), bias.into())
}

/// The sum `x + residual` and its RMS norm, as `(y, sum)`. As [`add_layer_norm`].
///
/// # Errors
/// As [`add_layer_norm`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::add_rms_norm;
///
/// let x = Tensor::new(&[[1f32, 7.]], &Device::Cpu)?;
/// let (y, sum) = add_rms_norm(&x, &x, None, 0.0)?;
/// assert_eq!(sum.to_vec2::<f32>()?, [[2., 14.]]);
/// assert_eq!(y.to_vec2::<f32>()?, [[0.2, 1.4]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn add_rms_norm<'a>(
    x: &Tensor,
    residual: &Tensor,
    weight: impl Into<Option<&'a Tensor>>,
    eps: impl Into<f64>,
) -> Result<(Tensor, Tensor)> {
    normed_sum(Norm::rms(eps.into()), x, residual, weight.into(), None)
}

/// `(y, sum)`, by layer or RMS norm.
pub(crate) fn normed_sum(
    norm: Norm,
    x: &Tensor,
    residual: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let name = "residual";
    if x.shape() != residual.shape() {
        return Err(Error::OtherShape { name, got: residual.shape().clone(), x: x.shape().clone() }.into());
    }
    if x.dtype() != residual.dtype() {
        return Err(Error::OtherType { name, got: residual.dtype(), x: x.dtype() }.into());
    }
    expect_device(name, residual.device(), x.device())?;
    let features = last_axis(norm, x, weight, bias)?;
    if by_kernels(x)
        && let Some([sum, y]) = add_and_norm(norm, [x, residual], features, [weight, bias])?
    {
        return Ok((y, sum));
    }
    let sum = (x + residual)?;
    Ok((over_rows(norm, &sum, features, weight, bias)?, sum))
}
