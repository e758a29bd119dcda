//! The normalization family in plain `f64`: forward and backward, formula by formula.
//!
//! This module is written to be read and to be trusted, not to be fast. It is written from the equations,
//! shares no code with the kernels, and is the oracle that they are tested against. Every function here runs
//! as documentation: formula, shapes, conventions, source, example.
//!
//! | method | functions | statistics over |
//! |---|---|---|
//! | layer norm | [`layer_norm`], [`layer_norm_backward`] | a row |
//! | RMS norm | [`rms_norm`], [`partial_rms_norm`] and their backward | a row, or its first features |
//! | residual add, then a norm | [`add_norm`], [`add_norm_backward`] | a row |
//! | adaptive norm | [`adaptive_norm`], [`gated_residual`] and their backward | a row |
//! | conditional norm | [`conditional_norm`], [`conditional_norm_backward`] | a row |
//! | scale norm, L2 norm, QK norm | [`scale_norm`], [`l2_norm`] and their backward | a row |
//! | group, instance norm | [`group_norm`], [`instance_norm`] and their backward | channels and positions of a sample |
//! | batch norm | [`batch_norm_train`], [`batch_norm_eval`], [`batch_norm_frozen`] and their backward | a channel of the batch |
//! | Lp norm, of ONNX | [`lp_norm`], [`lp_norm_backward`] | a line along an axis |
//! | mean-variance norm, of ONNX | [`mean_variance_norm`], [`mean_variance_norm_backward`] | any axes |
//! | weight norm | [`weight_norm`], [`weight_norm_backward`], [`weight_norm_init`] | a unit's weights |
//!
//! # Conventions
//!
//! - Arrays are slices, row-major. A *row* is `features` contiguous numbers. Images are [`Nchw`].
//! - `dy` is the gradient of a scalar loss by `y`; `dx`, `dweight`, `dbias` are its gradients by `x` and the
//!   parameters. `u = weight * dy` and `r = rstd` in all formulas.
//! - Variances are biased (divided by `n`) unless a name says otherwise. `eps` stands *inside* the root:
//!   `rstd = 1 / sqrt(var + eps)`. [`scale_norm`] and [`l2_norm`] compare a length with it instead, and
//!   [`mean_variance_norm`] adds it to the root.
//! - Where `var + eps` is 0, `rstd` is 0: a constant row with `eps = 0` gives `y = bias` and `dx = 0`. A
//!   length of 0 is treated alike.
//! - Sums run in index order. The mean is taken twice, `m = mean(x)` and then `m + mean(x - m)`: so the mean
//!   of a constant row is that constant, and a mean far larger than the spread costs no accuracy.
//! - Numbers are expected in the range of `f32`: squares must neither overflow nor vanish in `f64`.
//!
//! # Panics
//!
//! Lengths that do not fit panic with a message that carries both numbers. This is an oracle; it is the only
//! place in the crate that does so.
//!
//! # Example
//!
//! ```
//! use layernorm::reference::{Affine, layer_norm, layer_norm_backward};
//!
//! let x = [1.0, 3.0, 10.0, 20.0]; // two rows of two features
//! let affine = Affine::new(&[1.0, 2.0], &[0.0, 0.5]);
//! let out = layer_norm(&x, 2, affine, 0.0);
//! assert_eq!(out.y, [-1.0, 2.5, -1.0, 2.5]);
//!
//! let back = layer_norm_backward(&[1.0, 0.0, 0.0, 1.0], &x, 2, affine, 0.0);
//! assert_eq!(back.dweight, [-1.0, 1.0]);
//! assert_eq!(back.dbias, [1.0, 1.0]);
//! ```

mod adaptive;
mod add_norm;
mod affine;
mod axes;
mod batch_norm;
mod batch_norm_eval;
mod conditional;
mod group_norm;
mod l2_norm;
mod layer_norm;
mod lp_norm;
mod mean_variance_norm;
mod nchw;
mod rms_norm;
mod row_norm;
mod running_stats;
mod weight_norm;

#[cfg(test)]
mod tests;

pub use adaptive::{
    GatedResidualBackward, Modulation, ModulationBackward, adaptive_norm, adaptive_norm_backward,
    gated_residual, gated_residual_backward,
};
pub use add_norm::{AddNormBackward, AddNormForward, AddNormGradients, add_norm, add_norm_backward};
pub use affine::{Affine, Backward, Forward};
pub use batch_norm::{BatchForward, batch_norm_train, batch_norm_train_backward};
pub use batch_norm_eval::{
    Folded, batch_norm_eval, batch_norm_eval_backward, batch_norm_fold, batch_norm_frozen,
    batch_norm_frozen_backward,
};
pub use conditional::{Table, conditional_norm, conditional_norm_backward};
pub use group_norm::{group_norm, group_norm_backward, instance_norm, instance_norm_backward};
pub use l2_norm::{L2Forward, ScaleNormBackward, l2_norm, l2_norm_backward, scale_norm, scale_norm_backward};
pub use layer_norm::{layer_norm, layer_norm_backward};
pub use lp_norm::{LpForward, lp_norm, lp_norm_backward};
pub use mean_variance_norm::{mean_variance_norm, mean_variance_norm_backward};
pub use nchw::Nchw;
pub use rms_norm::{partial_rms_norm, partial_rms_norm_backward, rms_norm, rms_norm_backward};
pub use row_norm::{RowNorm, Statistics};
pub use running_stats::{Convention, RunningStats};
pub use weight_norm::{
    WeightNormBackward, WeightNormForward, WeightNormInit, weight_norm, weight_norm_backward,
    weight_norm_init,
};

/// Panics, with both numbers, unless `name` holds `expected` numbers.
fn check_len(name: &str, found: usize, expected: usize) {
    assert!(found == expected, "{name} holds {found} numbers, expected {expected}");
}

/// Panics unless `eps` is finite and not negative.
fn check_eps(eps: f64) {
    assert!(eps.is_finite() && eps >= 0.0, "eps is {eps}, expected a finite number from 0 up");
}

/// `len / parts`; panics, with both numbers, where `parts` does not divide `len`. Nothing divided by nothing
/// is 0.
fn divide(name: &str, len: usize, parts: usize) -> usize {
    assert!(len.is_multiple_of(parts), "{name}: {len} cannot be divided by {parts}");
    len.checked_div(parts).unwrap_or(0)
}

/// The arithmetic mean; 0 for no numbers.
fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// `sum(a * b)`.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `1 / value`, or 0 where there is nothing to divide by.
fn reciprocal_or_zero(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { 1.0 / value }
}
