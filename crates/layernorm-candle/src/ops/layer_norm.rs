//! Layer normalization (Ba, Kiros, Hinton 2016, arXiv:1607.06450, equation 4), over the last axis:
//!
//! ```text
//! mu = mean(x)    var = mean((x - mu)^2)
//! y  = weight (x - mu) / sqrt(var + eps) + bias
//! ```

use crate::apply::over_last_axis;
use crate::kernels::Norm;
use candle_core::{Result, Tensor};

/// Layer norm of `x` over its last axis: y = weight (x - mean) / sqrt(var + eps) + bias.
///
/// - `x`: `[..., features]`, of type f16, bf16, f32 or f64;
/// - `weight`, `bias`: `[features]`, `[1]`, or `None`.
///
/// [Ba, Kiros, Hinton 2016](https://arxiv.org/abs/1607.06450), equation 4. Gradients reach `x`, `weight` and `bias`;
/// in candle 0.11's function of this name and signature, none does.
///
/// # Errors
/// If a parameter has another length than `x` has features, if `eps` is negative or not finite, if a type is not one
/// of these, or if tensors are on different devices.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::layer_norm;
///
/// let x = Tensor::new(&[[1f32, 2., 3.], [5., 5., 5.]], &Device::Cpu)?;
/// let bias = Tensor::new(&[0.5f32], &Device::Cpu)?; // one for all features
/// let y = layer_norm(&x, None, &bias, 1e-5)?;
/// assert_eq!(y.get(1)?.to_vec1::<f32>()?, [0.5; 3]); // a constant row gives exactly the bias
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn layer_norm<'a>(
    x: &Tensor,
    weight: impl Into<Option<&'a Tensor>>,
    bias: impl Into<Option<&'a Tensor>>,
    eps: impl Into<f64>,
) -> Result<Tensor> {
    over_last_axis(Norm::layer(eps.into()), x, weight.into(), bias.into())
}
