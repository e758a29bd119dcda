//! Group norm as a module: `candle_nn::group_norm`, name by name.

use crate::error::Error;
use crate::ops;
use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Group norm with a weight and a bias for each channel: [`ops::group_norm`] as a module.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use layernorm_candle::{GroupNorm, group_norm}; // instead of candle_nn::{GroupNorm, group_norm}
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let norm: GroupNorm = group_norm(2, 4, 1e-5, vb)?;
/// let y = norm.forward(&Tensor::randn(0f32, 1., (1, 4, 3, 3), &Device::Cpu)?)?;
/// assert_eq!(y.dims(), [1, 4, 3, 3]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    num_channels: usize,
    num_groups: usize,
}

impl GroupNorm {
    /// Group norm with these parameters.
    ///
    /// # Errors
    /// If `num_groups` doesn't divide `num_channels`.
    pub fn new(
        weight: Tensor,
        bias: Tensor,
        num_channels: usize,
        num_groups: usize,
        eps: f64,
    ) -> Result<Self> {
        if num_groups == 0 || !num_channels.is_multiple_of(num_groups) {
            return Err(Error::Groups { groups: num_groups, channels: num_channels }.into());
        }
        Ok(Self { weight, bias, eps, num_channels, num_groups })
    }

    /// The weight (scale) of each channel.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias of each channel.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// The norm and then SiLU, as one operation: see [`ops::group_norm_silu`].
    ///
    /// # Errors
    /// As `forward`.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use layernorm_candle::GroupNorm;
    ///
    /// let (weight, bias) = (Tensor::ones(4, DType::F32, &Device::Cpu)?, Tensor::zeros(4, DType::F32, &Device::Cpu)?);
    /// let norm = GroupNorm::new(weight, bias, 4, 2, 1e-5)?;
    /// let y = norm.forward_silu(&Tensor::zeros((1, 4, 3, 3), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(y.sum_all()?.to_scalar::<f32>()?, 0.);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        expect_channels(x, self.num_channels)?;
        ops::group_norm_silu(x, self.num_groups, &self.weight, &self.bias, self.eps)
    }
}

impl Module for GroupNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        expect_channels(x, self.num_channels)?;
        ops::group_norm(x, self.num_groups, &self.weight, &self.bias, self.eps)
    }
}

/// A module of some channels takes no other `x`.
pub(crate) fn expect_channels(x: &Tensor, channels: usize) -> Result<()> {
    match x.dims().get(1) {
        Some(&got) if got != channels => {
            Err(Error::OtherChannels { x: x.shape().clone(), got, channels }.into())
        }
        _ => Ok(()), // too few axes are found later
    }
}

/// A [`GroupNorm`] from the variables `weight` and `bias` at `vb`; weight 1 and bias 0 where `vb` makes new ones.
///
/// # Errors
/// If `num_groups` doesn't divide `num_channels`, or `vb` lacks the variables or has them in other shapes.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
///
/// let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
/// assert!(layernorm_candle::group_norm(3, 4, 1e-5, vb).is_err());
/// ```
pub fn group_norm(num_groups: usize, num_channels: usize, eps: f64, vb: VarBuilder) -> Result<GroupNorm> {
    let weight = vb.get_with_hints(num_channels, "weight", Init::Const(1.))?;
    let bias = vb.get_with_hints(num_channels, "bias", Init::Const(0.))?;
    GroupNorm::new(weight, bias, num_channels, num_groups, eps)
}
