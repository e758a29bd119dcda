//! Instance norm as a module. Candle has none; the names are those of its neighbours, the defaults PyTorch's.

use crate::group_norm::expect_channels;
use crate::ops;
use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// How an [`InstanceNorm`] is made. An eps alone converts into one.
///
/// ```
/// let config = layernorm_candle::InstanceNormConfig::from(1e-6);
/// assert!(!config.affine);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InstanceNormConfig {
    /// Added to the variance. Default: 1e-5.
    pub eps: f64,
    /// If there are a weight and a bias for each channel. Default: false, as in PyTorch.
    pub affine: bool,
}

impl Default for InstanceNormConfig {
    fn default() -> Self {
        Self { eps: 1e-5, affine: false }
    }
}

impl From<f64> for InstanceNormConfig {
    fn from(eps: f64) -> Self {
        Self { eps, ..Self::default() }
    }
}

/// Instance norm, by the statistics of each channel of each sample: [`ops::instance_norm`] as a module. It keeps no
/// running statistics.
///
/// ```
/// use candle_core::{Device, Module, Tensor};
/// use layernorm_candle::InstanceNorm;
///
/// let norm = InstanceNorm::new(1, None, 0.0);
/// let y = norm.forward(&Tensor::new(&[[[1f32, 3.]], [[40., 20.]]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec3::<f32>()?, [[[-1., 1.]], [[1., -1.]]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct InstanceNorm {
    num_channels: usize,
    weight_and_bias: Option<(Tensor, Tensor)>,
    eps: f64,
}

impl InstanceNorm {
    /// Instance norm of `num_channels` channels, with these weight and bias.
    pub fn new(num_channels: usize, weight_and_bias: Option<(Tensor, Tensor)>, eps: f64) -> Self {
        Self { num_channels, weight_and_bias, eps }
    }

    /// Weight (scale) and bias of each channel, if there are.
    pub fn weight_and_bias(&self) -> Option<(&Tensor, &Tensor)> {
        self.weight_and_bias.as_ref().map(|(weight, bias)| (weight, bias))
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }
}

impl Module for InstanceNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        expect_channels(x, self.num_channels)?;
        let (weight, bias) = self.weight_and_bias().unzip();
        ops::instance_norm(x, weight, bias, self.eps)
    }
}

/// An [`InstanceNorm`]; with `affine`, from the variables `weight` and `bias` at `vb`, 1 and 0 where `vb` makes new ones.
///
/// # Errors
/// If `vb` lacks the variables or has them in other shapes.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
/// use layernorm_candle::{InstanceNormConfig, instance_norm};
///
/// let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
/// assert!(instance_norm(4, 1e-5, vb.clone())?.weight_and_bias().is_none());
/// assert!(instance_norm(4, InstanceNormConfig { eps: 1e-5, affine: true }, vb)?.weight_and_bias().is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn instance_norm<C: Into<InstanceNormConfig>>(
    num_channels: usize,
    config: C,
    vb: VarBuilder,
) -> Result<InstanceNorm> {
    let InstanceNormConfig { eps, affine } = config.into();
    let weight_and_bias = if affine {
        let weight = vb.get_with_hints(num_channels, "weight", Init::Const(1.))?;
        Some((weight, vb.get_with_hints(num_channels, "bias", Init::Const(0.))?))
    } else {
        None
    };
    Ok(InstanceNorm { num_channels, weight_and_bias, eps })
}
