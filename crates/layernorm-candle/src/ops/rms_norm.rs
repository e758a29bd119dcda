//! Root mean square normalization (Zhang, Sennrich 2019, arXiv:1910.07467, equation 4), over the last axis:
//!
//! ```text
//! y = weight x / sqrt(mean(x^2) + eps)
//! ```

use crate::apply::over_last_axis;
use crate::kernels::Norm;
use candle_core::{Result, Tensor};

/// RMS norm of `x` over its last axis: y = weight x / sqrt(mean(x^2) + eps).
///
/// - `x`: `[..., features]`, of type f16, bf16, f32 or f64;
/// - `weight`: `[features]`, `[1]`, or `None`.
///
/// [Zhang, Sennrich 2019](https://arxiv.org/abs/1910.07467), equation 4, with eps inside the root as in every
/// framework. Gradients reach `x` and `weight`; in candle 0.11's function of this name and signature, none does.
///
/// # Errors
/// As [`layer_norm`](super::layer_norm).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::rms_norm;
///
/// let x = Tensor::new(&[[1f32, 7.]], &Device::Cpu)?; // root mean square 5
/// let weight = Tensor::new(&[5f32, 10.], &Device::Cpu)?;
/// assert_eq!(rms_norm(&x, &weight, 0.0)?.to_vec2::<f32>()?, [[1.0, 14.0]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn rms_norm<'a>(
    x: &Tensor,
    weight: impl Into<Option<&'a Tensor>>,
    eps: impl Into<f64>,
) -> Result<Tensor> {
    over_last_axis(Norm::rms(eps.into()), x, weight.into(), None)
}
