//! Norms of queries and keys, head by head, before their product (Henry et al. 2020, arXiv:2010.04245; with layer norm:
//! Dehghani et al. 2023, arXiv:2302.05442, section 2), so that attention's logits stay bounded.

use super::{layer_norm, rms_norm};
use candle_core::{Result, Tensor};

/// RMS norm of queries and keys over the features of a head.
///
/// - `q`, `k`: `[..., head_features]`, in any order of the axes before. Heads are read where they lie, without a copy: in a
///   buffer of queries, keys and values too (`reshape` to heads first and `narrow` then, because candle's `reshape` copies
///   what is narrowed), and as `[batch, heads, time, ...]` out of a `transpose(1, 2)`. There the backward pass copies, so
///   normalise before you transpose;
/// - weights: as in [`rms_norm`].
///
/// # Errors
/// As [`rms_norm`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::qk_rms_norm;
///
/// let q = Tensor::randn(0f32, 1., (1, 5, 2, 8), &Device::Cpu)?.transpose(1, 2)?; // heads before time
/// let weight = Tensor::ones(8, candle_core::DType::F32, &Device::Cpu)?;
/// let (q, k) = qk_rms_norm(&q, &q, &weight, &weight, 1e-6)?;
/// assert_eq!((q.dims(), k.dims()), (&[1, 2, 5, 8][..], &[1, 2, 5, 8][..]));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn qk_rms_norm<'a>(
    q: &Tensor,
    k: &Tensor,
    q_weight: impl Into<Option<&'a Tensor>>,
    k_weight: impl Into<Option<&'a Tensor>>,
    eps: impl Into<f64>,
) -> Result<(Tensor, Tensor)> {
    let eps = eps.into();
    Ok((rms_norm(q, q_weight, eps)?, rms_norm(k, k_weight, eps)?))
}

/// Layer norm of queries and keys over the features of a head, with weights and without biases. As [`qk_rms_norm`].
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use layernorm_candle::ops::qk_layer_norm;
///
/// let q = Tensor::new(&[[1f32, 3.]], &Device::Cpu)?;
/// let (q, _) = qk_layer_norm(&q, &q, None, None, 0.0)?;
/// assert_eq!(q.to_vec2::<f32>()?, [[-1., 1.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn qk_layer_norm<'a>(
    q: &Tensor,
    k: &Tensor,
    q_weight: impl Into<Option<&'a Tensor>>,
    k_weight: impl Into<Option<&'a Tensor>>,
    eps: impl Into<f64>,
) -> Result<(Tensor, Tensor)> {
    let eps = eps.into();
    Ok((layer_norm(q, q_weight, None, eps)?, layer_norm(k, k_weight, None, eps)?))
}
