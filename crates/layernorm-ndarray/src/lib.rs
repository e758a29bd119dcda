//! Layer normalization and its family, of [ndarray]'s views, along any axes, in any layout, forward and backward, by
//! the kernels of [`layernorm`].
//!
//! ```
//! use layernorm_ndarray::{Norm, layer_norm_in_place};
//! use ndarray::{Axis, array};
//!
//! let mut x = array![[1.0f32, 2.0, 3.0], [10.0, 20.0, 60.0]];
//! layer_norm_in_place(x.view_mut(), Norm::<f32>::over(Axis(1)), None, Default::default())?;
//! assert!(x.sum_axis(Axis(1)).iter().all(|sum| sum.abs() < 1e-6));
//! # Ok::<(), layernorm_ndarray::Error>(())
//! ```
//!
//! Elements are f32, f64, or by the feature `half` `f16` and `bf16` of the crate of that name. A [`Norm`] says over which [`Axes`], and with which
//! weight, bias and eps; each index of the other axes is a row, in logical order.
//!
//! # Norms
//! | over | functions | say what |
//! |---|---|---|
//! | the rows along some axes | [`layer_norm()`], [`rms_norm()`], [`scale_norm()`], [`l2_norm()`], [`qk_norm()`] | [`Norm`], [`Rms`], [`Scaled`], [`Heads`] |
//! | the same, of a sum or with parameters of each sample | [`add_layer_norm()`], [`add_rms_norm()`], [`ada_layer_norm()`], [`ada_rms_norm()`] | [`Norm`], [`Modulation`] |
//! | samples of channels, wherever the axis of channels is | [`group_norm()`], [`instance_norm()`], [`batch_norm_train()`], [`batch_norm_eval()`] | [`Norm::by_channel`], [`Groups`] |
//! | the units of a layer's weights | [`weight_norm()`], [`weight_norm_init()`] | [`Gains`] |
//!
//! Each has its gradients, in functions named `..._backward`, and most a form in place.
//!
//! # Layouts
//! Every layout gives the same bits, those of the kernels on slices of the same rows: C, Fortran, slices with steps,
//! reversed or swapped axes, broadcast inputs. Of the norms in the first line of the table above:
//!
//! | the rows | what happens |
//! |---|---|
//! | features side by side, rows evenly spaced: contiguous arrays, slices of columns, columns of a Fortran matrix | one call of the kernels on the array's own memory; nothing is copied or allocated |
//! | features side by side, rows in evenly spaced blocks of 1024 numbers or more: heads and time swapped | one call a block, as above. For dweight and dbias, which are one sum over all rows, as below |
//! | anything else | some rows at a time are gathered into a buffer of about 128 KiB (16 rows, if those are more), and results scattered. The call allocates the buffer, in a backward pass two of them, for each thread; what already lies as the kernels want it is not copied |
//!
//! The others take all rows in one call. An array that lies as their documentation says (rows evenly spaced; images without gaps,
//! channels first or last) is read and written where it lies, and any other is copied whole. They allocate some axes, and workspaces.
//!
//! What lies between the rows of a view is neither read nor written, so one view of a matrix may be normalised while
//! another part of it is being written.
//!
//! # Threads
//! With the feature `rayon`, rows are split over the threads of the caller's pool where that pays. No bit depends on it.
//!
//! # Errors
//! An [`Error`] carries both shapes, and comes before anything is written. What a caller gives never makes a panic.
//!
//! # Files
//! A file for each norm has its functions, with the formula on top; `norm.rs`, `modulation.rs` and `gradients.rs` are what a caller says.
//! The rest are roads to the kernels. All begin at `layout.rs`, which finds where rows lie, and `memory.rs` (the only unsafe code),
//! which makes rows of memory and gathers and scatters.
//! - Norms of rows: `views.rs` checks, `forward.rs` and `backward.rs` choose the way, `operator.rs` names the kernels, `threads.rs`
//!   splits tiles.
//! - All rows at once: `whole.rs` has the operands. `images.rs` finds samples, channels and positions, and `by_channel.rs` checks
//!   and calls.

mod adaptive;
mod add_norm;
mod backward;
mod batch_norm;
mod by_channel;
mod error;
mod forward;
mod gradients;
mod group_norm;
mod images;
mod instance_norm;
mod l2_norm;
mod layer_norm;
mod layout;
mod memory;
mod modulation;
mod norm;
mod operator;
mod qk_norm;
mod rms_norm;
mod scale_norm;
mod threads;
mod views;
mod weight_norm;
mod whole;

pub use adaptive::{
    ada_layer_norm, ada_layer_norm_backward, ada_layer_norm_in_place, ada_rms_norm, ada_rms_norm_backward,
    ada_rms_norm_in_place,
};
pub use add_norm::{
    AddGradients, add_layer_norm, add_layer_norm_backward, add_layer_norm_in_place, add_rms_norm,
    add_rms_norm_backward, add_rms_norm_in_place,
};
pub use batch_norm::{
    batch_norm_eval, batch_norm_eval_backward, batch_norm_eval_backward_in_place, batch_norm_eval_in_place,
    batch_norm_train, batch_norm_train_backward, batch_norm_train_backward_in_place,
    batch_norm_train_in_place,
};
pub use error::Error;
pub use gradients::{ArrayGradients, Gradients, ParamGradients};
pub use group_norm::{
    Groups, group_norm, group_norm_array, group_norm_backward, group_norm_backward_in_place,
    group_norm_in_place,
};
pub use instance_norm::{
    instance_norm, instance_norm_array, instance_norm_backward, instance_norm_backward_in_place,
    instance_norm_in_place,
};
pub use l2_norm::{l2_norm, l2_norm_array, l2_norm_backward, l2_norm_backward_in_place, l2_norm_in_place};
pub use layer_norm::{
    layer_norm, layer_norm_array, layer_norm_backward, layer_norm_backward_arrays,
    layer_norm_backward_in_place, layer_norm_in_place,
};
pub use modulation::Modulation;
pub use norm::{Axes, Norm, Rms};
pub use qk_norm::{Heads, qk_norm, qk_norm_backward, qk_norm_backward_in_place, qk_norm_in_place};
pub use rms_norm::{
    rms_norm, rms_norm_array, rms_norm_backward, rms_norm_backward_arrays, rms_norm_backward_in_place,
    rms_norm_in_place,
};
pub use scale_norm::{
    Scaled, scale_norm, scale_norm_array, scale_norm_backward, scale_norm_backward_in_place,
    scale_norm_in_place,
};
pub use weight_norm::{Gains, WeightNormGradients, weight_norm, weight_norm_backward, weight_norm_init};

/// The code of README.md, run as a test.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;
