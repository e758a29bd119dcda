//! Adaptive norms: a scale and a shift of each sample's own, from a condition (Perez et al. 2018, arXiv:1709.07871;
//! in diffusion transformers: Peebles, Xie 2023, arXiv:2212.09748, section 3.2):
//!
//! ```text
//! y = norm(x) (1 + scale) + shift
//! ```

use crate::apply::{expect_float, in_compute_type, over_last_axis};
use crate::error::{Error, expect_device};
use crate::norm::Norm;
use candle_core::{Result, Tensor};

/// Layer norm of `x` without weight and bias, then a scale and a shift of each sample's own:
/// y = (x - mean) / sqrt(var + eps) (1 + scale) + shift.
///
/// - `x`: `[samples, ..., features]`;
/// - `scale`, `shift`: `[samples, features]`, or any shape that broadcasts to that of `x`.
///
/// [Peebles, Xie 2023](https://arxiv.org/abs/2212.09748), section 3.2. Gradients reach `x`, `scale` and `shift`. The
/// normalisation is the kernel; scale and shift are composed from candle's operations.
///
/// # Errors
/// If `scale` or `shift` doesn't broadcast, or as [`layer_norm`](super::layer_norm).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::adaptive_layer_norm;
///
/// let x = Tensor::new(&[[[1f32, 3.], [5., 9.]], [[1., 3.], [5., 9.]]], &Device::Cpu)?;
/// let scale = Tensor::new(&[[0f32, 0.], [1., 1.]], &Device::Cpu)?; // the second sample is doubled
/// let y = adaptive_layer_norm(&x, &scale, &scale.zeros_like()?, 0.0)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[-1., 1.], [-1., 1.]], [[-2., 2.], [-2., 2.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn adaptive_layer_norm(
    x: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    eps: impl Into<f64>,
) -> Result<Tensor> {
    modulated(Norm::layer(eps.into()), x, scale, shift)
}

/// RMS norm of `x` without weight, then a scale and a shift of each sample's own. As [`adaptive_layer_norm`].
///
/// # Errors
/// As [`adaptive_layer_norm`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::adaptive_rms_norm;
///
/// let x = Tensor::new(&[[1f32, 7.]], &Device::Cpu)?;
/// let (scale, shift) = (Tensor::new(&[4f32, 4.], &Device::Cpu)?, Tensor::new(&[0f32, 1.], &Device::Cpu)?);
/// assert_eq!(adaptive_rms_norm(&x, &scale, &shift, 0.0)?.to_vec2::<f32>()?, [[1., 8.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn adaptive_rms_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, eps: impl Into<f64>) -> Result<Tensor> {
    modulated(Norm::rms(eps.into()), x, scale, shift)
}

/// `norm(x) (1 + scale) + shift`, all in the type that `x` is computed in.
pub(crate) fn modulated(norm: Norm, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    in_compute_type(x, |x| {
        let scale = per_sample("scale", scale, x)?;
        let shift = per_sample("shift", shift, x)?;
        over_last_axis(norm, x, None, None)?.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(&shift)
    })
}

/// `[samples, features]` with axes of one between, in the type of `x`.
fn per_sample(name: &'static str, given: &Tensor, x: &Tensor) -> Result<Tensor> {
    let mut dims = given.dims().to_vec();
    if let ([samples, features], true) = (given.dims(), x.rank() > 2) {
        dims = vec![1; x.rank()];
        (dims[0], dims[x.rank() - 1]) = (*samples, *features);
    }
    let fits = |(&got, &of): (&usize, &usize)| got == of || got == 1;
    if dims.len() > x.rank() || !dims.iter().rev().zip(x.dims().iter().rev()).all(fits) {
        return Err(Error::PerSample { name, got: given.shape().clone(), x: x.shape().clone() }.into());
    }
    expect_float(name, given)?;
    expect_device(name, given.device(), x.device())?;
    given.to_dtype(x.dtype())?.reshape(dims)
}
