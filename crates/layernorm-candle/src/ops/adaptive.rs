//! Adaptive norms: a scale and a shift of each sample's own, from a condition (Perez et al. 2018, arXiv:1709.07871;
//! in diffusion transformers: Peebles, Xie 2023, arXiv:2212.09748, section 3.2):
//!
//! ```text
//! y = norm(x) (1 + scale) + shift
//! ```

use crate::apply::{by_kernel, by_kernels, expect_float, in_compute_type, last_axis, over_last_axis};
use crate::error::{Error, expect_device};
use crate::kernels::{Adaptive, Norm};
use candle_core::{Result, Tensor};

/// Layer norm of `x` without weight and bias, then a scale and a shift of each sample's own:
/// y = (x - mean) / sqrt(var + eps) (1 + scale) + shift.
///
/// - `x`: `[samples, ..., features]`;
/// - `scale`, `shift`: `[samples, features]`, or any shape that broadcasts to that of `x`.
///
/// [Peebles, Xie 2023](https://arxiv.org/abs/2212.09748), section 3.2. Gradients reach `x`, `scale` and `shift`. All of it
/// is one kernel where scale and shift belong to samples, or to the first axes of `x`: of one shape, `[..., 1, features]`
/// with as many axes as `x`, or `[samples, features]`, or `[features]`. Halves of one tensor (`chunk`, `narrow`) are read
/// where they lie; an `x` whose rows are not evenly spaced is made contiguous first. Other shapes of scale and shift are
/// broadcast by candle's operations after the kernel of the norm.
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

/// `norm(x) (1 + scale) + shift`: by the kernel where the two belong to samples, else composed in the type that `x` is
/// computed in.
pub(crate) fn modulated(norm: Norm, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let (scale, shift) = (per_sample("scale", scale, x)?, per_sample("shift", shift, x)?);
    if by_kernels(x) && scale.dims() == shift.dims() && are_of_samples(scale.dims(), x.dims()) {
        let features = last_axis(norm, x, None, None)?;
        return by_kernel(Adaptive(norm), x, features, Some(&scale), Some(&shift));
    }
    in_compute_type(x, |x| {
        let (scale, shift) = (scale.to_dtype(x.dtype())?, shift.to_dtype(x.dtype())?);
        over_last_axis(norm, x, None, None)?.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(&shift)
    })
}

/// `[samples, features]` with axes of one between. Views, so that halves of one tensor stay where they are.
fn per_sample(name: &'static str, given: &Tensor, x: &Tensor) -> Result<Tensor> {
    let mut all = given.clone();
    while given.rank() == 2 && all.rank() < x.rank() {
        all = all.unsqueeze(1)?;
    }
    let fits = |(&got, &of): (&usize, &usize)| got == of || got == 1;
    if all.rank() > x.rank() || !all.dims().iter().rev().zip(x.dims().iter().rev()).all(fits) {
        return Err(Error::PerSample { name, got: given.shape().clone(), x: x.shape().clone() }.into());
    }
    expect_float(name, given)?;
    expect_device(name, given.device(), x.device())?;
    Ok(all)
}

/// Has each of the first axes of `x` (or of none) values of its own, which all rows below share?
fn are_of_samples(given: &[usize], x: &[usize]) -> bool {
    let (Some((features, axes)), Some((of_x, axes_of_x))) = (given.split_last(), x.split_last()) else {
        return false;
    };
    let first = axes.len() - axes.iter().rev().take_while(|len| **len == 1).count();
    features == of_x && (first == 0 || axes.len() == axes_of_x.len() && axes[..first] == axes_of_x[..first])
}

#[cfg(test)]
mod tests {
    use super::are_of_samples;

    #[test]
    fn scales_of_samples() {
        for given in [&[5][..], &[1, 5], &[1, 1, 1, 5], &[2, 1, 1, 5], &[2, 3, 1, 5], &[2, 3, 4, 5]] {
            assert!(are_of_samples(given, &[2, 3, 4, 5]), "{given:?}");
        }
        for given in [&[][..], &[1], &[2, 1, 1, 1], &[4, 5], &[3, 4, 5], &[1, 3, 1, 5], &[2, 1, 4, 5]] {
            assert!(!are_of_samples(given, &[2, 3, 4, 5]), "{given:?}");
        }
    }
}
