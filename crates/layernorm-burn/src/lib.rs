//! Layer normalization and its family for [Burn](burn): the modules and functions of `burn::nn`, by the kernels
//! of [`layernorm`].
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use layernorm_burn::{LayerNorm, LayerNormConfig}; // instead of burn::nn::{LayerNorm, LayerNormConfig}
//!
//! let device = Device::flex().autodiff();
//! let norm: LayerNorm = LayerNormConfig::new(4).init(&device);
//! let x = Tensor::<2>::from_data([[40000.0, 40001.0, 40002.0, 40003.0]], &device).require_grad();
//! let y = norm.forward(x.clone());
//! let gradients = y.powi_scalar(3).sum().backward();
//! assert!(x.grad(&gradients).is_some() && norm.gamma.grad(&gradients).is_some());
//! ```
//!
//! # What a call does
//! - **On Burn's CPU backend (Flex)** it runs our kernels on the tensor's own memory. Nothing is copied as long as
//!   the features of a row lie side by side and the rows at one distance (any contiguous tensor, and a slice of
//!   one); group norm and weight norm take contiguous tensors. The result goes into `x` itself where nobody else holds
//!   `x`, else into one new buffer.
//! - **With autodiff** the forward pass saves some numbers a row (or group, or channel), and the backward pass is one
//!   call that gives dx, dgamma and dbeta together. Under gradient checkpointing `x` is recomputed like any other
//!   activation. Gradients are of first order, as everywhere in Burn.
//! - **On any other device** it composes Burn's own operations (the same formulas, differentiable, fused by Burn
//!   where Burn fuses). There the bounds and the bits of the kernels are not promised.
//!
//! # Types
//! `f32`, `f64`, `f16` and `bf16` are read and written as they are; halves are computed in `f32` and rounded once. Other
//! float types (`flex32`) are converted to `f32`, and the result back to the type of `x`. Parameters of the type of `x` are
//! read as they are, and so are those of `f32` beside halves; others are converted. Burn records the conversions, so
//! gradients arrive in the types of their tensors. The gradient of a parameter is summed in `f32` (`f64` for `f64`), and
//! rounded once. A quantized `x` is an error: dequantize it first.
//!
//! # Threads
//! Rows are split over the threads of the caller's rayon pool once that pays; no bit depends on it. A backward
//! pass that is itself inside a rayon worker stays on that thread: Burn holds the lock of the autodiff graph
//! around it, and a worker that waits may pick up another task that needs the same lock.
//!
//! # Errors
//! Burn's tensor operations return tensors and panic on mismatched shapes, and so do [`layer_norm`] and the
//! modules, with the shapes in the message. [`try_layer_norm`], [`LayerNorm::try_forward`] and their sisters
//! return the same as an [`Error`].
//!
//! # A value for the choice
//! [`NormConfig`] makes a [`Norm`] of any kind, so that a model is written once for all of them: none, layer, RMS,
//! partial RMS, batch, group, instance and scale norm. Weight norm is about weights; with [`NormLinear`] it is chosen by
//! the same value.
//!
//! # Recurrent networks
//! [`recurrent`] has RNN, LSTM and GRU in which any of these norms can stand, as the papers have them.
//!
//! # Transformers
//! [`transformer`] has blocks of causal attention with a cache, with any norm by rows in any [`Placement`]: pre, post,
//! sandwich, none. The two swapped lines stand there as a formula that runs.
//!
//! [`Placement`]: transformer::Placement
//!
//! # Files
//! One file a norm ([`layer_norm`] and [`LayerNorm`] in `layer_norm.rs`, and so on): formula, function, module, the kernels on
//! slices and x_hat from Burn's operations. `norm.rs` is the choice among all. The rest is the road that they share:
//! `apply.rs` checks and chooses, `ops.rs` is what a backend must offer, `flex.rs` and `memory.rs` how the CPU backend does,
//! `autodiff.rs` how it is recorded, `compose.rs` what other devices get. `channels.rs` is for the norms of channels. To give
//! a norm kernels is to add them in its file, and its lines in `operator.rs`. In [`recurrent`] a file is a cell, with its
//! equations on top; in [`transformer`], a part of one.

mod adaptive_norm;
mod add_norm;
mod affine;
mod apply;
mod autodiff;
mod batch_norm;
mod channels;
mod compose;
mod error;
mod flex;
mod group_norm;
mod instance_norm;
mod layer_norm;
mod memory;
mod norm;
mod norm_linear;
mod operator;
mod ops;
mod partial_rms_norm;
mod qk_norm;
pub mod recurrent;
mod rms_norm;
mod scale_norm;
pub mod transformer;
mod weight_norm;

pub use adaptive_norm::{
    AdaptiveNorm, AdaptiveNormConfig, adaptive_layer_norm, adaptive_rms_norm, try_adaptive_layer_norm,
    try_adaptive_rms_norm,
};
pub use add_norm::{add_layer_norm, add_rms_norm, try_add_layer_norm, try_add_rms_norm};
pub use affine::Affine;
pub use batch_norm::{
    BatchMode, BatchNorm, BatchNormConfig, Running, RunningStatistics, batch_norm, batch_norm_eval,
    try_batch_norm, try_batch_norm_eval,
};
pub use error::Error;
pub use group_norm::{GroupNorm, GroupNormConfig, group_norm, try_group_norm};
pub use instance_norm::{InstanceNorm, InstanceNormConfig, instance_norm, try_instance_norm};
pub use layer_norm::{LayerNorm, LayerNormConfig, layer_norm, try_layer_norm};
pub use norm::{Norm, NormConfig, NormKind};
pub use norm_linear::{NormLinear, NormLinearConfig};
pub use partial_rms_norm::{partial_rms_norm, try_partial_rms_norm};
pub use qk_norm::{HeadNorm, HeadNormKind, QkNorm, QkNormConfig, head_norm, try_head_norm};
pub use rms_norm::{RmsNorm, RmsNormConfig, rms_norm, try_rms_norm};
pub use scale_norm::{ScaleNorm, ScaleNormConfig, l2_norm, scale_norm, try_l2_norm, try_scale_norm};
pub use weight_norm::{WeightNorm, try_weight_norm, weight_norm};

/// The code of README.md, run as a test.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

/// The code of docs/formulas.md, run as a test.
#[doc = include_str!("../../../docs/formulas.md")]
#[cfg(doctest)]
struct Formulas;
