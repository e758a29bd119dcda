//! A residual addition and the norm of the sum, which is what stands between two layers of a transformer:
//!
//! ```text
//! s = x + residual        y = norm(s)
//! ```

use super::{layer_norm, rms_norm};
use crate::error::Error;
use candle_core::{Result, Tensor};

/// The sum `x + residual` and its layer norm, as `(y, sum)`: y to go on with, the sum as the next residual.
///
/// - `x`, `residual`: `[..., features]`, of the same shape and type;
/// - `weight`, `bias`: as in [`layer_norm`].
///
/// What is normalised is the sum as stored. Gradients of both results reach `x` and `residual`. The addition is
/// candle's, the norm the kernel.
///
/// # Errors
/// If `x` and `residual` differ in shape, or as [`layer_norm`].
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
    let sum = add(x, residual)?;
    Ok((layer_norm(&sum, weight, bias, eps)?, sum))
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
    let sum = add(x, residual)?;
    Ok((rms_norm(&sum, weight, eps)?, sum))
}

/// `x + residual`, of one shape.
pub(crate) fn add(x: &Tensor, residual: &Tensor) -> Result<Tensor> {
    if x.shape() != residual.shape() {
        let got = residual.shape().clone();
        return Err(Error::OtherShape { name: "residual", got, x: x.shape().clone() }.into());
    }
    x + residual
}
