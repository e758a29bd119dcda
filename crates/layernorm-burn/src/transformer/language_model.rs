//! From tokens to the logits of the next token:
//!
//! ```text
//! x = E[token] + P[position]      logits = Transformer(x) W
//! ```

use super::{Transformer, TransformerCache, TransformerConfig};
use burn::config::Config;
use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};

/// Configuration of a [`LanguageModel`].
///
/// ```
/// use layernorm_burn::transformer::{BlockConfig, LanguageModelConfig, TransformerConfig};
///
/// let stack = TransformerConfig::new(2, BlockConfig::new(8, 2));
/// let model = LanguageModelConfig::new(50, stack).with_positions(Some(16)).init(&Default::default());
/// assert_eq!(model.output.weight.dims(), [8, 50]);
/// ```
#[derive(Config, Debug)]
pub struct LanguageModelConfig {
    /// The number of different tokens.
    pub vocabulary: usize,
    /// The stack between.
    pub transformer: TransformerConfig,
    /// The number of positions that have a learnt vector, added to the token's: no longer sequence can be read then.
    /// Default: none, and the model tells tokens' order from causality alone
    pub positions: Option<usize>,
    /// How both embeddings begin. Default: as `burn::nn::Embedding`, normal with standard deviation 1
    #[config(default = "Initializer::Normal { mean: 0.0, std: 1.0 }")]
    pub initializer: Initializer,
}

impl LanguageModelConfig {
    /// A [`LanguageModel`].
    ///
    /// # Panics
    /// If `n_heads` does not divide `d_model`, or a norm is not one by rows.
    pub fn init(&self, device: &Device) -> LanguageModel {
        let block = &self.transformer.block;
        let embedding = |count| {
            EmbeddingConfig::new(count, block.d_model).with_initializer(self.initializer.clone()).init(device)
        };
        LanguageModel {
            token: embedding(self.vocabulary),
            position: self.positions.map(embedding),
            transformer: self.transformer.init(device),
            output: LinearConfig::new(block.d_model, self.vocabulary)
                .with_bias(false)
                .with_initializer(block.initializer.clone())
                .init(device),
        }
    }
}

/// A causal language model: embeddings, a [`Transformer`], and a linear layer to the logits of the next token.
///
/// ```
/// use burn::tensor::{Device, Int, Tensor};
/// use layernorm_burn::transformer::{BlockConfig, LanguageModelConfig, TransformerConfig};
///
/// let device = Device::flex();
/// let model = LanguageModelConfig::new(50, TransformerConfig::new(2, BlockConfig::new(8, 2))).init(&device);
/// let prompt = Tensor::<2, Int>::from_data([[3, 1, 4, 1, 5]], &device);
///
/// let mut cache = model.transformer.new_cache();
/// let logits = model.forward_cache(prompt, &mut cache);
/// let next = logits.slice([0..1, 4..5]).argmax(2).reshape([1, 1]);
/// assert_eq!(model.forward_cache(next, &mut cache).dims(), [1, 1, 50]); // one token more
/// ```
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// A vector for each token.
    pub token: Embedding,
    /// A vector for each position.
    pub position: Option<Embedding>,
    /// The stack between.
    pub transformer: Transformer,
    /// To the logits.
    pub output: Linear,
}

impl LanguageModel {
    /// The logits of the next token after each token of whole sequences.
    ///
    /// # Shapes
    /// - tokens: `[batch, tokens]`
    /// - output: `[batch, tokens, vocabulary]`
    ///
    /// # Panics
    /// If there are more tokens than positions.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.forward_cache(tokens, &mut self.transformer.new_cache())
    }

    /// The same for the tokens that follow those of `cache`: a prompt, then one token at a time.
    ///
    /// # Shapes
    /// - tokens: `[batch, tokens]`, with the batch of the cache
    /// - output: `[batch, tokens, vocabulary]`
    ///
    /// # Panics
    /// If there are more tokens than positions, with those of the cache; or as [`Transformer::forward_cache`].
    pub fn forward_cache(&self, tokens: Tensor<2, Int>, cache: &mut TransformerCache) -> Tensor<3> {
        let [_, count] = tokens.dims();
        let (from, to) = (cache.len(), cache.len() + count);
        let x = self.token.forward(tokens);
        let x = match &self.position {
            Some(position) => x + rows(position, from, to),
            None => x,
        };
        self.output.forward(self.transformer.forward_cache(x, cache))
    }
}

/// Vectors `from..to` of an embedding, for every sequence: `[1, tokens, d_model]`.
fn rows(embedding: &Embedding, from: usize, to: usize) -> Tensor<3> {
    let all = embedding.weight.val();
    let [positions, d_model] = all.dims();
    assert!(to <= positions, "tokens {from}..{to} were given and there are {positions} positions");
    all.slice([from..to, 0..d_model]).unsqueeze()
}
