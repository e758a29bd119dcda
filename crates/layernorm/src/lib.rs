//! Layer normalization and RMS norm on plain slices, forward and backward.
//!
//! - **Right.** Stated error bounds, for any finite row and any eps; gradients never vanish silently.
//! - **The same bits.** A row's result depends on that row and the parameters alone: not on the batch, its
//!   position, stride, threads or instruction set ([`order`](ORDER_VERSION) says how).
//! - **Fast.** Each number is read once from memory and written once, past the cache where it pays.
//!
//! ```
//! use layernorm::{LayerNorm, Stats};
//!
//! let norm = LayerNorm::<f32>::new(4); // weight 1, bias 0, eps 1e-5
//! let (x, dy) = ([1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 5.0, 5.0], [0.1; 8]); // two rows
//! let (mut y, mut dx) = ([0.0; 8], [0.0; 8]);
//! let (mut saved, mut grads) = (Stats::new(2), norm.zero_grads());
//! norm.forward_saving(&x, &mut y, &mut saved)?;
//! norm.backward(&x, &dy, &saved, &mut dx, &mut grads)?;
//! # Ok::<(), layernorm::Error>(())
//! ```
//!
//! Beside [`layer_norm`] and [`rms_norm`] there are [`scale_norm`], [`l2_norm`], [`qk_norm`], [`weight_norm`],
//! [`lp_norm`] and [`mean_variance_norm`].
//!
//! The functions (and their backward and in-place forms) take [`Rows`] with any
//! stride, parameters that are absent, shared or per unit ([`Params`]), and a [`Run`] that says at which
//! [`Level`] and on which [`Threads`] to work. [`mod@reference`] is the whole family of norms in plain f64.
//!
//! # Features
//! None is on by default.
//!
//! | feature | what it adds |
//! |---|---|
//! | `half` | elements in `f16` and `bf16` of the crate `half`; and as much again to compile |
//! | `rayon` | rows over the threads of the caller's pool |

mod activation;
mod adaptive;
mod add_norm;
mod affine;
mod axes;
mod batch;
mod batch_norm;
mod by_column;
mod by_row;
mod conditional;
mod convert;
mod element;
mod error;
mod form;
mod fp8;
mod gated;
mod group_norm;
mod images;
mod layer_norm;
mod level;
mod lp_norm;
mod mean_variance_norm;
mod order;
mod over;
mod params;
mod qk_norm;
mod quantized;
mod real;
pub mod reference;
mod rms_norm;
mod rms_params;
mod rows;
mod run;
mod running;
mod scale_norm;
mod sets;
mod stats;
mod sync;
mod threads;
mod vector;
mod weight_norm;
mod wide;
mod workspace;

pub use activation::{Activation, silu, silu_backward, silu_backward_in_place, silu_in_place};
pub use adaptive::{
    AdaGradients, Modulation, ModulationGradients, ScaleIs, ada_layer_norm, ada_layer_norm_backward,
    ada_layer_norm_backward_in_place, ada_layer_norm_in_place, ada_rms_norm, ada_rms_norm_backward,
    ada_rms_norm_backward_in_place, ada_rms_norm_in_place,
};
pub use add_norm::{
    AddGradients, BiasGradient, Branch, Normalise, Residual, Upstream, add_layer_norm,
    add_layer_norm_backward, add_layer_norm_in_place, add_rms_norm, add_rms_norm_backward,
    add_rms_norm_in_place,
};
pub use axes::{
    AxesMask, OverAxes, layer_norm_axes, layer_norm_axes_backward, layer_norm_axes_backward_in_place,
    layer_norm_axes_in_place, rms_norm_axes, rms_norm_axes_backward, rms_norm_axes_backward_in_place,
    rms_norm_axes_in_place,
};
pub use batch::{Batch, BatchMut, Valid};
pub use batch_norm::{
    BatchGradients, BatchNorm, Folded, Trained, Training, batch_norm_eval, batch_norm_eval_backward,
    batch_norm_eval_backward_in_place, batch_norm_eval_in_place, batch_norm_fold, batch_norm_folded,
    batch_norm_train, batch_norm_train_backward, batch_norm_train_backward_in_place,
    batch_norm_train_in_place,
};
pub use conditional::{
    ConditionalGradients, RowsByIndex, Table, TableGradients, conditional_layer_norm,
    conditional_layer_norm_backward, conditional_layer_norm_backward_in_place,
    conditional_layer_norm_in_place, conditional_rms_norm, conditional_rms_norm_backward,
    conditional_rms_norm_backward_in_place, conditional_rms_norm_in_place,
};
pub use convert::{narrow, widen};
pub use element::{Companion, Element};
pub use error::Error;
pub use fp8::{E4M3, E5M2, Quantum};
pub use gated::{
    GateGradient, GatedGradients, GatedNormGradients, GatedResidual, gated_ada_layer_norm,
    gated_ada_layer_norm_backward, gated_ada_rms_norm, gated_ada_rms_norm_backward, gated_residual,
    gated_residual_backward, gated_residual_in_place,
};
pub use group_norm::{
    Groups, Instances, TensorGradients, group_norm, group_norm_backward, group_norm_backward_in_place,
    group_norm_in_place, instance_norm, instance_norm_backward, instance_norm_backward_in_place,
    instance_norm_in_place,
};
pub use images::{Images, Layout};
pub use layer_norm::{
    LayerNorm, layer_norm, layer_norm_backward, layer_norm_backward_in_place, layer_norm_in_place,
};
pub use level::{LEVEL_VARIABLE, Level};
pub use lp_norm::{Lp, LpNorm, lp_norm, lp_norm_backward};
pub use mean_variance_norm::{MeanVariance, mean_variance_norm, mean_variance_norm_backward};
pub use order::ORDER_VERSION;
pub use params::{Gradients, ParamGradients, ParamGrads, Params, Rounding};
pub use qk_norm::{
    HeadNorm, Heads, QkParams, qk_norm, qk_norm_backward, qk_norm_backward_in_place, qk_norm_in_place,
};
pub use quantized::{Scale, layer_norm_quantized, quantize, rms_norm_quantized};
pub use real::Real;
pub use rms_norm::{RmsNorm, rms_norm, rms_norm_backward, rms_norm_backward_in_place, rms_norm_in_place};
pub use rms_params::{Epsilon, RmsParams};
pub use rows::{Rows, RowsMut};
pub use run::{Run, Threads};
pub use running::{Convention, RunningMut, RunningRef, RunningStats};
pub use scale_norm::{
    l2_norm, l2_norm_backward, l2_norm_backward_in_place, l2_norm_in_place, scale_norm, scale_norm_backward,
    scale_norm_backward_in_place, scale_norm_in_place,
};
pub use stats::{Stats, StatsMut, StatsRef};
pub use sync::{LocalReducer, Reducer};
pub use weight_norm::{
    WeightNorm, WeightNormGradients, WeightNormInit, weight_norm, weight_norm_backward, weight_norm_init,
};
pub use workspace::Workspace;
