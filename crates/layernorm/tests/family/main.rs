//! Tests of the family beside layer norm and RMS norm: an operator or a kin of operators is a module.
//!
//! Against [`layernorm::reference`], within the bounds of `docs/numerics.md`; bits against bits at every level, on one
//! thread and on many; gradients against finite differences; and what is refused.

#![allow(clippy::cast_possible_truncation, reason = "numbers are rounded to f32, and small ones to integers")]
#![allow(clippy::missing_assert_message, reason = "in helpers too, the values say what went wrong")]
#![allow(clippy::too_many_arguments, reason = "functions in tests may have many")]

mod common;
#[path = "../kernels/random.rs"]
#[allow(dead_code, reason = "the kernels' tests use more of it")]
mod random;

mod adaptive;
mod add_norm;
mod axes;
mod batch_norm;
mod conditional;
mod gated;
mod group;
mod lengths;
mod masks;
#[cfg(not(miri))]
mod properties;
mod silu;
mod tools;
