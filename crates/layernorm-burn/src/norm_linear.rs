//! A linear map and its norm, so that a model chooses among all norms with one value, weight norm included:
//!
//! ```text
//! y = norm(x W + b)                        for a norm of activations
//! y = x W + b,  W = gamma v / |v|          for weight norm
//! ```

use crate::norm::{Norm, NormConfig, NormKind};
use crate::weight_norm::WeightNorm;
use burn::config::Config;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// Configuration of a [`NormLinear`].
///
/// ```
/// use layernorm_burn::{NormConfig, NormLinearConfig};
///
/// let layer = NormLinearConfig::new(8, 4, NormConfig::layer()).with_bias(false).init(&Default::default());
/// assert!(layer.linear.bias.is_none());
/// ```
#[derive(Config, Debug)]
pub struct NormLinearConfig {
    /// Features of the input.
    pub d_input: usize,
    /// Features of the output: the units.
    pub d_output: usize,
    /// The norm.
    pub norm: NormConfig,
    /// If the linear map has a bias. In front of batch norm it has no effect. Default: true
    #[config(default = true)]
    pub bias: bool,
}

impl NormLinearConfig {
    /// A [`NormLinear`] with Burn's usual first weights.
    ///
    /// # Panics
    /// As [`NormConfig::init`], but weight norm is welcome.
    #[track_caller]
    pub fn init(&self, device: &Device) -> NormLinear {
        let linear = LinearConfig::new(self.d_input, self.d_output).with_bias(self.bias).init(device);
        match self.norm.kind {
            NormKind::Weight => NormLinear {
                linear: linear.apply_reparameterization(WeightNorm::everywhere()),
                norm: NormConfig::none().init(self.d_output, device),
            },
            _ => NormLinear { linear, norm: self.norm.init(self.d_output, device) },
        }
    }
}

/// A linear map followed by its norm; with weight norm, a linear map with normalised weights.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{NormConfig, NormLinearConfig};
///
/// let device = Device::flex();
/// for norm in [NormConfig::none(), NormConfig::batch(), NormConfig::weight()] {
///     let layer = NormLinearConfig::new(8, 4, norm).init(&device);
///     assert_eq!(layer.forward(Tensor::<2>::ones([2, 8], &device)).dims(), [2, 4]);
/// }
/// ```
#[derive(Module, Debug)]
pub struct NormLinear {
    /// The linear map. With weight norm its `weight` carries a [`WeightNorm`].
    pub linear: Linear,
    /// The norm of its outputs; none with weight norm.
    pub norm: Norm,
}

impl NormLinear {
    /// The norm of the linear map of `x`.
    ///
    /// # Shapes
    /// - x: `[..., d_input]`; of rank 2 for a norm of channels
    /// - output: `[..., d_output]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_input`, and as [`Norm::forward`].
    #[track_caller]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.norm.forward(self.linear.forward(x))
    }
}
