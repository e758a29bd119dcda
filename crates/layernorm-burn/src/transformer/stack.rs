//! Blocks one after the other, with the norms that stand outside of them.

use super::residual::normalised;
use super::{Block, BlockConfig, KeyValueCache};
use crate::Norm;
use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// Configuration of a [`Transformer`].
///
/// ```
/// use layernorm_burn::transformer::{BlockConfig, Placement, TransformerConfig};
///
/// // GPT-2's arrangement, and Peri-LN with its norm of the embedding.
/// let gpt2 = TransformerConfig::new(12, BlockConfig::new(8, 2)).with_scale_residual(true);
/// let peri = TransformerConfig::new(12, BlockConfig::new(8, 2).with_placement(Placement::Sandwich))
///     .with_embedding_norm(true);
/// assert!(gpt2.init(&Default::default()).embedding_norm.is_none());
/// assert!(peri.init(&Default::default()).embedding_norm.is_some());
/// ```
#[derive(Config, Debug)]
pub struct TransformerConfig {
    /// The number of blocks.
    pub n_layers: usize,
    /// Each of them.
    pub block: BlockConfig,
    /// If the weights that write to the residual stream, of which there are two in each block, begin divided by
    /// sqrt(2 n_layers), so that the stream's variance does not grow with depth at first: GPT-2's. Default: false
    #[config(default = false)]
    pub scale_residual: bool,
    /// If the input is normalised, as in one form of Peri-LN. Default: false
    #[config(default = false)]
    pub embedding_norm: bool,
}

impl TransformerConfig {
    /// A [`Transformer`], with a final norm where the placement needs one.
    ///
    /// # Panics
    /// If `n_heads` does not divide `d_model`, or a norm is not one by rows.
    pub fn init(&self, device: &Device) -> Transformer {
        let norm = |wanted: bool| wanted.then(|| self.block.norm.init(self.block.d_model, device));
        let factor = 1.0 / (2.0 * self.n_layers as f64).sqrt();
        let block = |_| match self.block.init(device) {
            block if self.scale_residual => block.with_residual_scaled(factor),
            block => block,
        };
        Transformer {
            embedding_norm: norm(self.embedding_norm),
            blocks: (0..self.n_layers).map(block).collect(),
            final_norm: norm(self.block.placement.needs_final_norm()),
        }
    }
}

/// A stack of [`Block`]s on vectors: bring your own embedding, or take [`LanguageModel`](super::LanguageModel).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::transformer::{BlockConfig, TransformerConfig};
///
/// let device = Device::flex();
/// let transformer = TransformerConfig::new(2, BlockConfig::new(8, 2)).init(&device);
/// let x = Tensor::<3>::ones([1, 5, 8], &device);
/// assert_eq!(transformer.forward(x.clone()).dims(), [1, 5, 8]);
///
/// let mut cache = transformer.new_cache();
/// transformer.forward_cache(x, &mut cache);
/// assert_eq!(cache.len(), 5);
/// ```
#[derive(Module, Debug)]
pub struct Transformer {
    /// On the way in.
    pub embedding_norm: Option<Norm>,
    /// The blocks, from the first to the last.
    pub blocks: Vec<Block>,
    /// On the way out.
    pub final_norm: Option<Norm>,
}

impl Transformer {
    /// Whole sequences.
    ///
    /// # Shapes
    /// - x, output: `[batch, tokens, d_model]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_model`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_cache(x, &mut self.new_cache())
    }

    /// A cache of no tokens, for this many blocks.
    pub fn new_cache(&self) -> TransformerCache {
        TransformerCache { blocks: vec![KeyValueCache::new(); self.blocks.len()] }
    }

    /// The tokens that follow those of `cache`: see
    /// [`CausalAttention::forward_cache`](super::CausalAttention::forward_cache).
    ///
    /// # Shapes
    /// - x, output: `[batch, tokens, d_model]`, with the batch of the cache
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_model`, its batch is not that of the cache, or the cache was made for
    /// another number of blocks.
    pub fn forward_cache(&self, x: Tensor<3>, cache: &mut TransformerCache) -> Tensor<3> {
        assert_eq!(
            cache.blocks.len(),
            self.blocks.len(),
            "the cache is for {} blocks and there are {}",
            cache.blocks.len(),
            self.blocks.len()
        );
        let x = normalised(&self.embedding_norm, x);
        let pairs = self.blocks.iter().zip(&mut cache.blocks);
        let x = pairs.fold(x, |x, (block, cache)| block.forward_cache(x, cache));
        normalised(&self.final_norm, x)
    }
}

/// The caches of a [`Transformer`]'s blocks: made by [`Transformer::new_cache`].
#[derive(Debug, Clone)]
pub struct TransformerCache {
    blocks: Vec<KeyValueCache>,
}

impl TransformerCache {
    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.blocks.first().map_or(0, KeyValueCache::len)
    }

    /// Whether it holds no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
