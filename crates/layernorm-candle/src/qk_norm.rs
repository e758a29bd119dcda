//! Norms of queries and keys as one module.

use crate::layer_norm::{LayerNorm, layer_norm};
use candle_core::{Module, Result, Tensor};
use candle_nn::{LayerNormConfig, VarBuilder};

/// A norm for queries and one for keys, over the features of a head:
/// [`ops::qk_rms_norm`](crate::ops::qk_rms_norm) or [`ops::qk_layer_norm`](crate::ops::qk_layer_norm) as a module.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use layernorm_candle::{QkNorm, qk_norm};
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let norm: QkNorm = qk_norm(8, 1e-6, vb.pp("self_attn"))?; // self_attn.q_norm.weight, self_attn.k_norm.weight
/// let q = Tensor::randn(0f32, 1., (1, 5, 2, 8), &Device::Cpu)?.transpose(1, 2)?; // heads before time: no copy
/// let (q, k) = norm.forward(&q, &q)?;
/// assert_eq!((q.dims(), k.dims()), (&[1, 2, 5, 8][..], &[1, 2, 5, 8][..]));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct QkNorm {
    q: LayerNorm,
    k: LayerNorm,
}

impl QkNorm {
    /// These two norms.
    pub fn new(q: impl Into<LayerNorm>, k: impl Into<LayerNorm>) -> Self {
        Self { q: q.into(), k: k.into() }
    }

    /// The norm of queries.
    pub fn q(&self) -> &LayerNorm {
        &self.q
    }

    /// The norm of keys.
    pub fn k(&self) -> &LayerNorm {
        &self.k
    }

    /// The norms of `q` and `k`, each `[..., head_features]`.
    ///
    /// # Errors
    /// As the `forward` of the two norms.
    pub fn forward(&self, q: &Tensor, k: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.q.forward(q)?, self.k.forward(k)?))
    }
}

/// A [`QkNorm`] by RMS norm, from the variables `q_norm.weight` and `k_norm.weight` at `vb`: the names of Qwen 3, Gemma 3
/// and OLMo 2 in the library Transformers.
///
/// # Errors
/// If `vb` lacks the variables or has them in other shapes.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
///
/// let norm = layernorm_candle::qk_norm(8, 1e-6, VarBuilder::zeros(DType::F32, &Device::Cpu))?;
/// assert!(!norm.q().remove_mean());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn qk_norm(head_features: usize, eps: f64, vb: VarBuilder) -> Result<QkNorm> {
    qk_norm_with(head_features, LayerNormConfig { eps, remove_mean: false, affine: false }, vb)
}

/// A [`QkNorm`] by any [`LayerNormConfig`], from `q_norm` and `k_norm` at `vb`.
///
/// # Errors
/// As [`qk_norm`].
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
///
/// let norm = layernorm_candle::qk_norm_with(8, 1e-5, VarBuilder::zeros(DType::F32, &Device::Cpu))?;
/// assert!(norm.k().remove_mean() && norm.k().bias().is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn qk_norm_with<C: Into<LayerNormConfig>>(
    head_features: usize,
    config: C,
    vb: VarBuilder,
) -> Result<QkNorm> {
    let config = config.into();
    let norm = |name| layer_norm(head_features, config, vb.pp(name));
    Ok(QkNorm { q: norm("q_norm")?, k: norm("k_norm")? })
}
