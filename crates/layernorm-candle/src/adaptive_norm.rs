//! An adaptive norm as a module: the map from a condition to scale and shift, and the norm that they modulate.

use crate::error::Error;
use crate::kernels::Norm;
use crate::ops::modulated;
use candle_core::{Result, Tensor};
use candle_nn::{LayerNormConfig, Linear, Module, VarBuilder, linear};

/// Layer norm whose scale and shift come from a condition of each sample (a time step, a class, a text):
///
/// ```text
/// scale, shift = linear(silu(condition))
/// y = norm(x) (1 + scale) + shift
/// ```
///
/// [Peebles, Xie 2023](https://arxiv.org/abs/2212.09748), section 3.2. The variables and the order of the two halves
/// are those of `AdaLayerNormContinuous` in the library Diffusers. Without `remove_mean` it is RMS norm that is
/// modulated; [`ops::adaptive_layer_norm`](crate::ops::adaptive_layer_norm) takes scale and shift as they are.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use layernorm_candle::{AdaptiveNorm, adaptive_norm};
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let norm: AdaptiveNorm = adaptive_norm(8, 3, 1e-6, vb.pp("norm"))?;
/// let x = Tensor::randn(0f32, 1., (2, 5, 8), &Device::Cpu)?;
/// let condition = Tensor::randn(0f32, 1., (2, 3), &Device::Cpu)?;
/// assert_eq!(norm.forward(&x, &condition)?.dims(), [2, 5, 8]);
/// assert!(variables.data().lock().expect("one thread").contains_key("norm.linear.weight"));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AdaptiveNorm {
    linear: Linear,
    features: usize,
    norm: Norm,
}

impl AdaptiveNorm {
    /// An adaptive norm of `features` features, whose scales and shifts are the two halves of what `linear` makes. Of
    /// `config`, eps and `remove_mean` count.
    pub fn new<C: Into<LayerNormConfig>>(linear: Linear, features: usize, config: C) -> Self {
        let config = config.into();
        Self { linear, features, norm: Norm::with_mean_removed(config.remove_mean, config.eps) }
    }

    /// The norm of `x`, `[samples, ..., features]`, modulated by `condition`, `[samples, condition_features]`.
    ///
    /// # Errors
    /// If the shapes don't fit, or as [`ops::adaptive_layer_norm`](crate::ops::adaptive_layer_norm).
    pub fn forward(&self, x: &Tensor, condition: &Tensor) -> Result<Tensor> {
        let weight = self.linear.weight();
        let features = weight.dim(1)?;
        if condition.rank() != 2
            || condition.dims()[1] != features
            || ![x.dims().first(), Some(&1)].contains(&condition.dims().first())
        {
            let condition = condition.shape().clone();
            return Err(Error::Condition { condition, x: x.shape().clone(), features }.into());
        }
        let both = self.linear.forward(&condition.silu()?)?;
        let half = |index| both.narrow(1, index * self.features, self.features);
        modulated(self.norm, x, &half(0)?, &half(1)?)
    }
}

/// An [`AdaptiveNorm`] from the variables `linear.weight`, `[2 features, condition_features]`, and `linear.bias` at `vb`.
///
/// # Errors
/// If `vb` lacks the variables or has them in other shapes.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
///
/// let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
/// assert!(layernorm_candle::adaptive_norm(8, 3, 1e-6, vb).is_ok());
/// ```
pub fn adaptive_norm<C: Into<LayerNormConfig>>(
    features: usize,
    condition_features: usize,
    config: C,
    vb: VarBuilder,
) -> Result<AdaptiveNorm> {
    let linear = linear(condition_features, 2 * features, vb.pp("linear"))?;
    Ok(AdaptiveNorm::new(linear, features, config))
}
