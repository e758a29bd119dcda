//! Scale norm (Nguyen, Salazar 2019, arXiv:1910.05895, equation 3) and L2 norm, over the last axis:
//!
//! ```text
//! y = scale x / max(|x|, eps)        |x| = sqrt(sum(x^2))
//! ```

use crate::apply::{expect_float, over_last_axis};
use crate::error::{Error, expect_device};
use crate::kernels::Norm;
use candle_core::{Result, Tensor};

/// Scale norm of `x` over its last axis: y = scale x / max(|x|, eps), where |x| is the Euclidean length.
///
/// - `x`: `[..., features]`, of type f16, bf16, f32 or f64;
/// - `scale`: one number.
///
/// [Nguyen, Salazar 2019](https://arxiv.org/abs/1910.05895), equation 3; the authors take eps 1e-5. A row of zeros gives
/// zeros. Gradients reach `x` and `scale`.
///
/// # Errors
/// If `scale` is more than one number, or as [`layer_norm`](super::layer_norm).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::scale_norm;
///
/// let x = Tensor::new(&[[3f32, 4.]], &Device::Cpu)?;
/// let y = scale_norm(&x, &Tensor::new(&[10f32], &Device::Cpu)?, 1e-5)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[6., 8.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn scale_norm(x: &Tensor, scale: &Tensor, eps: impl Into<f64>) -> Result<Tensor> {
    if scale.elem_count() != 1 || scale.rank() > 1 {
        return Err(Error::Scale { got: scale.shape().clone(), x: x.shape().clone() }.into());
    }
    expect_float("scale", scale)?;
    expect_device("scale", scale.device(), x.device())?;
    over_last_axis(Norm::length(eps.into()), x, Some(&scale.reshape(1)?), None)
}

/// L2 norm of `x` over its last axis: y = x / max(|x|, eps), where |x| is the Euclidean length. PyTorch's `normalize`,
/// whose eps is 1e-12. As [`scale_norm`] otherwise.
///
/// # Errors
/// As [`layer_norm`](super::layer_norm).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::l2_norm;
///
/// let x = Tensor::new(&[[0f32, -4.], [0., 0.]], &Device::Cpu)?;
/// assert_eq!(l2_norm(&x, 1e-12)?.to_vec2::<f32>()?, [[0., -1.], [0., 0.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn l2_norm(x: &Tensor, eps: impl Into<f64>) -> Result<Tensor> {
    over_last_axis(Norm::length(eps.into()), x, None, None)
}
