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
//! # Files
//! One file a norm ([`layer_norm`] and [`LayerNorm`] in `layer_norm.rs`, and so on): formula, module, its kernels
//! on slices, its composition. The rest is the road that all share: `apply.rs` checks and chooses, `ops.rs` is
//! what a backend must offer, `flex.rs` how the CPU backend does, `autodiff.rs` how it is recorded. To add a norm
//! is to add its file and its line in `norm.rs`.

mod apply;
mod autodiff;
mod error;
mod flex;
mod layer_norm;
mod norm;
mod ops;
mod rms_norm;

pub use error::Error;
pub use layer_norm::{LayerNorm, LayerNormConfig, layer_norm, try_layer_norm};
pub use rms_norm::{RmsNorm, RmsNormConfig, rms_norm, try_rms_norm};

/// The code of README.md, run as a test.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
