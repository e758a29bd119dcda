//! Tests of the operators beside layer norm and RMS norm: one module each.

#![allow(clippy::cast_possible_truncation, reason = "numbers are rounded to f32, and small ones to integers")]
#![allow(clippy::missing_assert_message, reason = "in helpers too, the values say what went wrong")]

mod batch_norm;
