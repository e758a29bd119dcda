//! The feed-forward network of a block, for each token by itself:
//!
//! ```text
//! y = act(x W_1 + b_1) W_2 + b_2
//! ```

use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::activation::{Activation, ActivationConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// Configuration of a [`FeedForward`].
///
/// ```
/// use burn::nn::activation::ActivationConfig;
/// use layernorm_burn::transformer::FeedForwardConfig;
///
/// let ffn = FeedForwardConfig::new(8, 32).with_activation(ActivationConfig::Relu).init(&Default::default());
/// assert_eq!(ffn.linear_inner.weight.dims(), [8, 32]);
/// ```
#[derive(Config, Debug)]
pub struct FeedForwardConfig {
    /// The number of features of a token.
    pub d_model: usize,
    /// The number of hidden features.
    pub d_ff: usize,
    /// The function between the two linear layers. Default: GELU
    #[config(default = "ActivationConfig::Gelu")]
    pub activation: ActivationConfig,
    /// If the linear layers have biases. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// How the linear layers begin. Default: as `burn::nn::Linear`, uniform within 1/sqrt(inputs)
    #[config(default = "linear_default()")]
    pub initializer: Initializer,
}

impl FeedForwardConfig {
    /// A [`FeedForward`].
    pub fn init(&self, device: &Device) -> FeedForward {
        let linear = |from, to| {
            LinearConfig::new(from, to)
                .with_bias(self.bias)
                .with_initializer(self.initializer.clone())
                .init(device)
        };
        FeedForward {
            linear_inner: linear(self.d_model, self.d_ff),
            linear_outer: linear(self.d_ff, self.d_model),
            activation: self.activation.init(device),
        }
    }
}

/// Two linear layers with an activation between.
///
/// The linear layers are named as in `burn::nn::PositionWiseFeedForward`.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::transformer::FeedForwardConfig;
///
/// let device = Device::flex();
/// let ffn = FeedForwardConfig::new(8, 32).init(&device);
/// assert_eq!(ffn.forward(Tensor::<3>::ones([2, 5, 8], &device)).dims(), [2, 5, 8]);
/// ```
#[derive(Module, Debug)]
pub struct FeedForward {
    /// From `d_model` to `d_ff`.
    pub linear_inner: Linear,
    /// From `d_ff` to `d_model`.
    pub linear_outer: Linear,
    /// Between the two.
    pub activation: Activation,
}

impl FeedForward {
    /// The network on the last axis of `x`.
    ///
    /// # Shapes
    /// - x, output: `[..., d_model]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_model`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.linear_outer.forward(self.activation.forward(self.linear_inner.forward(x)))
    }
}

/// What `burn::nn::LinearConfig` begins with.
pub(super) fn linear_default() -> Initializer {
    LinearConfig::new(1, 1).initializer
}
