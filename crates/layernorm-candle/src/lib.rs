//! Layer normalization and its family for [candle](candle_core): the modules and functions of `candle_nn`, by the
//! kernels of [`layernorm`].
//!
//! ```
//! use candle_core::{DType, Device, Module, Var};
//! use candle_nn::{VarBuilder, VarMap};
//! use layernorm_candle::{LayerNorm, layer_norm}; // instead of candle_nn::{LayerNorm, layer_norm}
//!
//! let variables = VarMap::new();
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let norm: LayerNorm = layer_norm(4, 1e-5, vb)?;
//! let x = Var::new(&[[40000f32, 40001., 40002., 40003.]], &Device::Cpu)?;
//! let y = norm.forward(&x)?;
//! let gradients = y.powf(3.)?.sum_all()?.backward()?;
//! assert!(gradients.get(&x).is_some() && gradients.get(norm.weight()).is_some());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! In candle 0.11 that gradient of `x` is missing, without an error, and that `y` is wrong: its layer norm is not
//! recorded, and takes the variance as the difference of two large numbers.
//!
//! # What a call does
//! - **On the CPU** layer norm and RMS norm run our kernels on the tensor's own memory, as one operation of candle that
//!   allocates its result and nothing else of that size. Nothing is copied as long as the features of a row lie side by
//!   side: any contiguous tensor, a slice of one, and one whose axes before the last are swapped (heads and time, say).
//!   Another layout is made contiguous first.
//! - **Backward** is one call of the kernels that gives dx, dweight and dbias together. Candle's operations save
//!   nothing, so the statistics are taken from `x` again; and rows that are neither evenly spaced nor in evenly spaced
//!   groups (heads before time) are copied here, because dweight and dbias are sums over all rows in one order.
//! - **Group, instance and batch norm** have kernels too, with weight and bias of channels fused, and SiLU after group norm.
//!   Pictures lie with their channels second or, as views of tensors with channels last, last; y then lies as `x` does.
//!   Batch norm keeps the statistics of the batch for its backward pass.
//! - **Add and norm**: one call of the kernels gives the sum and its norm, recorded as two operations. **Adaptive norms**:
//!   one kernel, with scale and shift read where they lie, as long as they belong to samples; other shapes are broadcast
//!   by candle. **Scale, L2 and QK norm** are kernels; queries are read among the keys and values of their buffer.
//! - **On CUDA or Metal** all is composed from candle's own operations (the mean taken twice, so that large means are
//!   safe there too), which candle differentiates. The bounds and the bits of the kernels are not promised there. The
//!   features `cuda` and `metal` are candle's: switch them on for `candle-core` and `candle-nn` in your crate.
//! - **Gradients of gradients**: with candle's variable `CANDLE_GRAD_DO_NOT_DETACH` all is composed too, so these work.
//!
//! A gradient flows or there is an error; it is never lost in silence.
//!
//! # Types
//! `f16`, `bf16`, `f32` and `f64`; others are errors. Halves are computed in `f32` and the result is rounded once: by the
//! kernels as they read and write, without a copy in between; what is composed is converted to `f32` and back, recorded
//! by candle. Parameters may have any of these types. The kernels read those of the type of `x`, and `f32` beside halves;
//! others are converted first. The gradient of a parameter is summed in `f32` (`f64` for `f64`), and rounded once to the
//! parameter's type.
//!
//! # Threads
//! Rows are split over the threads of the caller's rayon pool once that pays; no bit depends on it.
//!
//! # Errors
//! All are [`candle_core::Error`]s, whose messages carry both shapes. What a caller gives never makes a panic.
//!
//! # Files
//! `ops/` has the functions, a file each with its formula; beside it lie the modules, a file each with its constructors.
//! The rest is the road from a tensor to a kernel: `apply.rs` checks and chooses, `forward.rs` and `backward.rs` are the
//! operations of candle (`add.rs` has a sum's beside its norm's), `stored.rs` and `rows.rs` find the numbers and their rows
//! in memory, `scalar.rs` says in which types, `kernels/` calls the kernels, `compose.rs` does without. `statistics.rs` is
//! batch norm's where that is composed.

mod adaptive_norm;
mod add;
mod apply;
mod backward;
mod batch_norm;
mod compose;
mod error;
mod forward;
mod group_norm;
mod instance_norm;
mod kernels;
mod layer_norm;
pub mod ops;
mod qk_norm;
mod rms_norm;
mod rows;
mod scalar;
mod scale_norm;
mod statistics;
mod stored;

pub use adaptive_norm::{AdaptiveNorm, adaptive_norm};
pub use batch_norm::{BatchNorm, batch_norm};
pub use candle_nn::{BatchNormConfig, LayerNormConfig};
pub use group_norm::{GroupNorm, group_norm};
pub use instance_norm::{InstanceNorm, InstanceNormConfig, instance_norm};
pub use layer_norm::{LayerNorm, layer_norm, layer_norm_no_bias};
pub use qk_norm::{QkNorm, qk_norm, qk_norm_with};
pub use rms_norm::{RmsNorm, rms_norm};
pub use scale_norm::{ScaleNorm, scale_norm};

/// The code of README.md, run as a test.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
