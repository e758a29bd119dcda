//! Transformers: blocks of causal attention and a feed-forward network, with the norm where a [`Placement`] says.
//!
//! # Pre against post
//! The two are one swap apart, and the swap decides how deep a network trains (Xiong et al. 2020, arXiv:2002.04745):
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use layernorm_burn::layer_norm;
//!
//! let norm = |x: Tensor<2>| layer_norm(x, None, None, 1e-5);
//! let f = |x: Tensor<2>| x * 0.5 + 3.0; // stands for attention or a feed-forward network
//!
//! let post = |x: Tensor<2>| norm(x.clone() + f(x)); // "Attention is all you need"; BERT
//! let pre = |x: Tensor<2>| x.clone() + f(norm(x)); // GPT-2 and most since; a last norm ends the stack
//!
//! let x = Tensor::from_data([[100.0, -100.0]], &Device::flex());
//! // Post normalises the stream itself: whatever came in, the same goes on, its scale forgotten.
//! post(x.clone()).into_data().assert_approx_eq::<f32>(&[[1.0, -1.0]].into(), Default::default());
//! // Pre leaves the stream alone and adds to it: the way from the first layer to the last is open.
//! pre(x).into_data().assert_approx_eq::<f32>(&[[103.5, -97.5]].into(), Default::default());
//! ```
//!
//! [`Residual`] is these lines as a module, with the other placements; [`Block`] puts it around its two sublayers.
//!
//! # Decoding
//! [`Transformer`] and [`LanguageModel`] take tokens at once or piece by piece, with a cache of keys and values. Both
//! give the same up to the rounding of Burn's matrix products, at any length.
//!
//! # Which bits are ours to promise
//! A token's result depends on the tokens before it and on nothing else in real arithmetic. The norms keep that to
//! the last bit. Burn's matrix products and softmax are Burn's: on its CPU backend a later token changes no bit of an
//! earlier one (their lengths being equal), which a test keeps an eye on; the number of sequences in a batch, or of
//! tokens in a call, may move a product's last bits.

mod attention;
mod block;
mod feed_forward;
mod language_model;
mod residual;
mod stack;

pub use attention::{CausalAttention, CausalAttentionConfig, KeyValueCache};
pub use block::{Block, BlockConfig};
pub use feed_forward::{FeedForward, FeedForwardConfig};
pub use language_model::{LanguageModel, LanguageModelConfig};
pub use residual::{Placement, Residual, ResidualConfig};
pub use stack::{Transformer, TransformerCache, TransformerConfig};
