//! Tests of the operators beside plain layer and RMS norm, a module each.

#![allow(clippy::cast_possible_truncation, reason = "numbers are rounded to narrower types")]
#![allow(clippy::missing_assert_message, reason = "the values say what went wrong")]
#![allow(clippy::too_many_arguments, reason = "functions in tests may have many")]

mod common;
#[path = "../kernels/random.rs"]
#[allow(dead_code, reason = "the kernels' tests use more of it")]
mod random;

mod adaptive;
mod add_norm;
mod conditional;
mod gated;
