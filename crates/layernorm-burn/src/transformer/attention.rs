//! Causal multi-head attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2), for each head:
//!
//! ```text
//! Q = x W_q + b_q    K = x W_k + b_k    V = x W_v + b_v      split over heads
//! A = softmax(Q K^T / sqrt(d_head))                           a token sees itself and the tokens before it
//! y = concat(A V) W_o + b_o
//! ```
//!
//! With QK-norm (Henry et al. 2020; Dehghani et al. 2023), Q and K are normalised over `d_head` before the product, so
//! that no logit can grow beyond what its gains allow.

use super::residual::{expect_by_row, normalised};
use crate::{Norm, NormConfig};
use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Tensor};

/// Configuration of a [`CausalAttention`].
///
/// ```
/// use layernorm_burn::NormConfig;
/// use layernorm_burn::transformer::CausalAttentionConfig;
///
/// let attention = CausalAttentionConfig::new(64, 4).with_qk_norm(Some(NormConfig::rms())).init(&Default::default());
/// assert!(attention.query_norm.is_some());
/// ```
#[derive(Config, Debug)]
pub struct CausalAttentionConfig {
    /// The number of features of a token.
    pub d_model: usize,
    /// The number of heads; it divides `d_model`.
    pub n_heads: usize,
    /// A norm of queries and keys over the features of a head. Default: none
    pub qk_norm: Option<NormConfig>,
    /// If the four linear layers have biases. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// How the linear layers begin. Default: as `burn::nn::Linear`, uniform within 1/sqrt(d_model)
    #[config(default = "super::feed_forward::linear_default()")]
    pub initializer: Initializer,
}

impl CausalAttentionConfig {
    /// A [`CausalAttention`].
    ///
    /// # Panics
    /// If `n_heads` does not divide `d_model`, or QK-norm is not a norm by rows.
    pub fn init(&self, device: &Device) -> CausalAttention {
        let Self { d_model, n_heads, .. } = *self;
        assert!(
            n_heads > 0 && d_model.is_multiple_of(n_heads),
            "d_model is {d_model} and n_heads is {n_heads}: heads share the features evenly"
        );
        self.qk_norm.iter().for_each(expect_by_row);
        let linear = || {
            LinearConfig::new(d_model, d_model)
                .with_bias(self.bias)
                .with_initializer(self.initializer.clone())
                .init(device)
        };
        let norm = || self.qk_norm.as_ref().map(|norm| norm.init(d_model / n_heads, device));
        CausalAttention {
            query: linear(),
            key: linear(),
            value: linear(),
            output: linear(),
            query_norm: norm(),
            key_norm: norm(),
            n_heads,
        }
    }
}

/// Causal self-attention with several heads.
///
/// The linear layers are named as in `burn::nn::attention::MultiHeadAttention`, so a record of the one loads into the
/// other (without QK-norm). The scores of all pairs of tokens are held at once.
///
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use layernorm_burn::transformer::{CausalAttentionConfig, KeyValueCache};
///
/// let device = Device::flex();
/// let attention = CausalAttentionConfig::new(8, 2).init(&device);
/// let x = Tensor::<3>::random([1, 6, 8], Distribution::Default, &device);
/// let whole = attention.forward(x.clone());
///
/// let mut cache = KeyValueCache::new(); // the same in pieces: four tokens, then two
/// let first = attention.forward_cache(x.clone().slice([0..1, 0..4]), &mut cache);
/// let rest = attention.forward_cache(x.slice([0..1, 4..6]), &mut cache);
/// let pieces = Tensor::cat(vec![first, rest], 1);
/// pieces.into_data().assert_approx_eq::<f32>(&whole.into_data(), Default::default());
/// ```
#[derive(Module, Debug)]
pub struct CausalAttention {
    /// To the queries of all heads.
    pub query: Linear,
    /// To the keys of all heads.
    pub key: Linear,
    /// To the values of all heads.
    pub value: Linear,
    /// From the heads' results back to a token's features.
    pub output: Linear,
    /// The norm of each head's queries.
    pub query_norm: Option<Norm>,
    /// The norm of each head's keys.
    pub key_norm: Option<Norm>,
    n_heads: usize,
}

impl CausalAttention {
    /// Attention of whole sequences.
    ///
    /// # Shapes
    /// - x, output: `[batch, tokens, d_model]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_model`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_cache(x, &mut KeyValueCache::new())
    }

    /// Attention of the tokens that follow those of `cache`, and adds them to it.
    ///
    /// Any number of tokens at a time: a prompt, then one by one. Each call copies the keys and values once, as it
    /// reads them once.
    ///
    /// # Shapes
    /// - x, output: `[batch, tokens, d_model]`, with the batch of the cache
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_model`, or its batch is not that of the cache.
    pub fn forward_cache(&self, x: Tensor<3>, cache: &mut KeyValueCache) -> Tensor<3> {
        let [batch, tokens, d_model] = x.dims();
        let query = normalised(&self.query_norm, self.heads(self.query.forward(x.clone())));
        let key = normalised(&self.key_norm, self.heads(self.key.forward(x.clone())));
        let value = self.heads(self.value.forward(x));

        let before = cache.len();
        let (key, value) = cache.extended(key, value);
        let [_, _, _, d_head] = query.dims();
        let scores = query.matmul(key.transpose()).div_scalar((d_head as f64).sqrt());
        let weights = softmax(causal(scores, before), 3);
        self.output.forward(weights.matmul(value).swap_dims(1, 2).reshape([batch, tokens, d_model]))
    }

    /// `[batch, tokens, d_model]` to `[batch, heads, tokens, d_head]`.
    fn heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, d_model] = x.dims();
        x.reshape([batch, tokens, self.n_heads, d_model / self.n_heads]).swap_dims(1, 2)
    }
}

/// Shuts out, for each of the last tokens, those after it.
fn causal(scores: Tensor<4>, before: usize) -> Tensor<4> {
    let [_, _, tokens, all] = scores.dims();
    if tokens == 1 {
        return scores;
    }
    let before = i64::try_from(before).expect("fewer tokens than 2^63");
    let hidden = Tensor::<2, Bool>::tril_mask([tokens, all], before, &scores.device());
    // Minus infinity, and not some large number: a hidden token must not weigh anything, whatever the scores.
    scores.mask_fill(hidden.unsqueeze(), f64::NEG_INFINITY)
}

/// The keys and values of the tokens so far, of one attention layer.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::transformer::{CausalAttentionConfig, KeyValueCache};
///
/// let device = Device::flex();
/// let attention = CausalAttentionConfig::new(8, 2).init(&device);
/// let mut cache = KeyValueCache::new();
/// attention.forward_cache(Tensor::ones([3, 5, 8], &device), &mut cache);
/// assert_eq!(cache.len(), 5);
/// ```
#[derive(Debug, Clone, Default)]
pub struct KeyValueCache {
    /// Keys and values, each `[batch, heads, tokens, d_head]`.
    held: Option<(Tensor<4>, Tensor<4>)>,
}

impl KeyValueCache {
    /// A cache of no tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.held.as_ref().map_or(0, |(key, _)| key.dims()[2])
    }

    /// Whether it holds no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes these in, and gives all.
    fn extended(&mut self, key: Tensor<4>, value: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = match self.held.take() {
            Some((keys, values)) => {
                assert_eq!(
                    keys.dims()[0],
                    key.dims()[0],
                    "the cache holds {:?} (batch, heads, tokens, features) and {:?} follow: the batch must be the same",
                    keys.dims(),
                    key.dims()
                );
                (Tensor::cat(vec![keys, key], 2), Tensor::cat(vec![values, value], 2))
            }
            None => (key, value),
        };
        self.held = Some(all.clone());
        all
    }
}
