//! A block: attention, then a feed-forward network, each with its residual connection and its norms.

use super::{
    CausalAttention, CausalAttentionConfig, FeedForward, FeedForwardConfig, KeyValueCache, Placement,
    Residual, ResidualConfig,
};
use crate::NormConfig;
use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::activation::ActivationConfig;
use burn::tensor::{Device, Tensor};

/// Configuration of a [`Block`].
///
/// ```
/// use layernorm_burn::NormConfig;
/// use layernorm_burn::transformer::{BlockConfig, Placement};
///
/// let block = BlockConfig::new(64, 4)
///     .with_placement(Placement::Sandwich)
///     .with_norm(NormConfig::rms())
///     .with_qk_norm(Some(NormConfig::rms()))
///     .init(&Default::default());
/// assert_eq!(block.feed_forward.linear_inner.weight.dims(), [64, 256]);
/// ```
#[derive(Config, Debug)]
pub struct BlockConfig {
    /// The number of features of a token.
    pub d_model: usize,
    /// The number of heads; it divides `d_model`.
    pub n_heads: usize,
    /// The number of hidden features of the feed-forward network. Default: four times `d_model`
    pub d_ff: Option<usize>,
    /// Where the norms stand. Default: `Placement::Pre`
    #[config(default = "Placement::Pre")]
    pub placement: Placement,
    /// Which norm. Default: layer norm
    #[config(default = "NormConfig::layer()")]
    pub norm: NormConfig,
    /// A norm of queries and keys over the features of a head. Default: none
    pub qk_norm: Option<NormConfig>,
    /// The function inside the feed-forward network. Default: GELU
    #[config(default = "ActivationConfig::Gelu")]
    pub activation: ActivationConfig,
    /// If the linear layers have biases. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// How the linear layers begin. Default: as `burn::nn::Linear`, uniform within 1/sqrt(inputs)
    #[config(default = "super::feed_forward::linear_default()")]
    pub initializer: Initializer,
}

impl BlockConfig {
    /// A [`Block`].
    ///
    /// # Panics
    /// If `n_heads` does not divide `d_model`, or a norm is not one by rows.
    pub fn init(&self, device: &Device) -> Block {
        let attention = CausalAttentionConfig {
            d_model: self.d_model,
            n_heads: self.n_heads,
            qk_norm: self.qk_norm.clone(),
            bias: self.bias,
            initializer: self.initializer.clone(),
        };
        let feed_forward = FeedForwardConfig {
            d_model: self.d_model,
            d_ff: self.d_ff.unwrap_or(4 * self.d_model),
            activation: self.activation.clone(),
            bias: self.bias,
            initializer: self.initializer.clone(),
        };
        let residual = ResidualConfig::new(self.d_model, self.placement, self.norm.clone());
        Block {
            attention: attention.init(device),
            around_attention: residual.init(device),
            feed_forward: feed_forward.init(device),
            around_feed_forward: residual.init(device),
        }
    }
}

/// A transformer block: `R_2(FFN, R_1(attention, x))`, where `R` is the [`Residual`] of its [`Placement`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::transformer::{BlockConfig, Placement};
///
/// let device = Device::flex();
/// let x = Tensor::<3>::ones([2, 5, 8], &device);
/// for placement in [Placement::None, Placement::Post, Placement::Pre, Placement::Sandwich] {
///     let block = BlockConfig::new(8, 2).with_placement(placement).init(&device);
///     assert_eq!(block.forward(x.clone()).dims(), [2, 5, 8]);
/// }
/// ```
#[derive(Module, Debug)]
pub struct Block {
    /// The first sublayer: tokens look at each other.
    pub attention: CausalAttention,
    /// The way around it.
    pub around_attention: Residual,
    /// The second sublayer: each token by itself.
    pub feed_forward: FeedForward,
    /// The way around it.
    pub around_feed_forward: Residual,
}

impl Block {
    /// Whole sequences.
    ///
    /// # Shapes
    /// - x, output: `[batch, tokens, d_model]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_model`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_cache(x, &mut KeyValueCache::new())
    }

    /// The tokens that follow those of `cache`: see [`CausalAttention::forward_cache`].
    ///
    /// # Shapes
    /// - x, output: `[batch, tokens, d_model]`, with the batch of the cache
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_model`, or its batch is not that of the cache.
    pub fn forward_cache(&self, x: Tensor<3>, cache: &mut KeyValueCache) -> Tensor<3> {
        let x = self.around_attention.forward(x, |x| self.attention.forward_cache(x, cache));
        self.around_feed_forward.forward(x, |x| self.feed_forward.forward(x))
    }

    /// With what its two sublayers put on the stream at first multiplied by `factor`.
    pub(super) fn with_residual_scaled(mut self, factor: f64) -> Self {
        for linear in [&mut self.attention.output, &mut self.feed_forward.linear_outer] {
            // Detached, or the weight would be the result of an operation, where an optimizer needs a leaf.
            linear.weight = linear.weight.clone().map(|weight| {
                let learns = weight.is_require_grad();
                weight.mul_scalar(factor).detach().set_require_grad(learns)
            });
        }
        self
    }
}
