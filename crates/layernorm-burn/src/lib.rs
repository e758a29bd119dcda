//! Layer normalization and RMS norm for [Burn](burn): the modules and functions of `burn::nn`, by the kernels
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
//!   one). The result goes into `x` itself where nobody else holds `x`, else into one new buffer.
//! - **With autodiff** the forward pass saves three numbers a row (RMS norm: one), and the backward pass is one
//!   call that gives dx, dgamma and dbeta together. Under gradient checkpointing `x` is recomputed like any other
//!   activation. Gradients are of first order, as everywhere in Burn.
//! - **On any other device** it composes Burn's own operations (the same formulas, differentiable, fused by Burn
//!   where Burn fuses). There the bounds and the bits of the kernels are not promised.
//!
//! # Types
//! `f32` and `f64` are computed as they are. Other float types (`f16`, `bf16`, `flex32`) are converted to `f32`,
//! with the parameters, and the result back to the type of `x`; Burn records the conversions, so gradients arrive
//! in the types of their tensors. Parameters of another type than `x` are converted too. A quantized `x` is an
//! error: dequantize it first.
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
//! the same value. Layer and RMS norm are our kernels; the others are composed, and say so.
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
//! One file a norm ([`layer_norm`] and [`LayerNorm`] in `layer_norm.rs`, and so on): formula, function, and for those
//! with kernels the module, the kernels on slices and the composition. `norm.rs` is the choice among all. The rest is
//! the road that those with kernels share: `apply.rs` checks and chooses, `ops.rs` is what a backend must offer,
//! `flex.rs` how the CPU backend does, `autodiff.rs` how it is recorded. To give a norm kernels is to add them in its
//! file, and its line in `operator.rs`. In [`recurrent`] a file is a cell, with its equations on top;
//! in [`transformer`], a part of one.

mod affine;
mod apply;
mod autodiff;
mod batch_norm;
mod error;
mod flex;
mod group_norm;
mod instance_norm;
mod layer_norm;
mod norm;
mod norm_linear;
mod operator;
mod ops;
mod partial_rms_norm;
pub mod recurrent;
mod rms_norm;
mod scale_norm;
pub mod transformer;
mod weight_norm;

pub use affine::Affine;
pub use batch_norm::{BatchMode, Running, RunningStatistics, batch_norm};
pub use error::Error;
pub use group_norm::group_norm;
pub use instance_norm::instance_norm;
pub use layer_norm::{LayerNorm, LayerNormConfig, layer_norm, try_layer_norm};
pub use norm::{Norm, NormConfig, NormKind};
pub use norm_linear::{NormLinear, NormLinearConfig};
pub use partial_rms_norm::partial_rms_norm;
pub use rms_norm::{RmsNorm, RmsNormConfig, rms_norm, try_rms_norm};
pub use scale_norm::scale_norm;
pub use weight_norm::{WeightNorm, weight_norm};

/// The code of README.md, run as a test.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

/// The code of docs/formulas.md, run as a test.
#[doc = include_str!("../../../docs/formulas.md")]
#[cfg(doctest)]
struct Formulas;
