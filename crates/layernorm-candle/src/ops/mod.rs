//! The norms as functions of tensors, with the signatures of `candle_nn::ops` where that has them.
//!
//! In all of them a parameter is a tensor of one value for each feature (or channel), or of one for all, or `None`
//! (1 for a weight, 0 for a bias); and the result has the shape and the type of `x`.

mod adaptive;
mod add_norm;
pub(crate) mod channels;
mod group_norm;
mod instance_norm;
mod layer_norm;
mod qk_norm;
mod rms_norm;
mod scale_norm;

pub use adaptive::{adaptive_layer_norm, adaptive_rms_norm};
pub use add_norm::{add_layer_norm, add_rms_norm};
pub use group_norm::{group_norm, group_norm_silu};
pub use instance_norm::instance_norm;
pub use layer_norm::layer_norm;
pub use qk_norm::{qk_layer_norm, qk_rms_norm};
pub use rms_norm::rms_norm;
pub use scale_norm::{l2_norm, scale_norm};

pub(crate) use adaptive::modulated;
pub(crate) use add_norm::normed_sum;
