//! Tests of the kernels, from outside.
//!
//! - [`accuracy`]: the error bounds, against [`layernorm::reference`] (f32) and double-double (f64).
//! - [`same_as_naive`]: every bit, against [`naive`], which is written from `docs/numerics.md`.
//! - [`same_bits`]: bits do not depend on level, batch, position, stride, alignment, threads, shards.
//! - [`properties`]: the same over random shapes and strides; nothing is written between rows.
//! - [`special_rows`]: constant rows, NaN and infinity, no rows, no features.
//! - [`refused`]: every wrong argument is an error that carries the numbers, before anything is written.
//! - [`gradients`]: finite differences. [`identities`]: what holds between results.
//! - [`convert`]: halves from and to f32. [`quantized`]: norms stored in eight bits.
//! - [`conformance`]: the published vectors.
//!
//! All levels of the machine are tested; what it lacks is printed as skipped, and required by
//! `LAYERNORM_REQUIRE_LEVELS`.

#![allow(clippy::cast_possible_truncation, reason = "numbers are rounded to f32, and small ones to integers")]
#![allow(clippy::missing_assert_message, reason = "in helpers too, the values say what went wrong")]

/// Each test for some types of elements.
macro_rules! for_types {
    ([$($t:ident)*], $tests:tt) => { $(for_types!($t, $tests);)* };
    ($t:ident, [$($test:ident),* $(,)?]) => {
        mod $t {
            #[allow(unused_imports, reason = "f32 and f64 are no imports")]
            use half::{bf16, f16};
            $(#[test] fn $test() { super::$test::<$t>() })*
        }
    };
}

/// Each test for f32, f64 and the halves.
macro_rules! for_all {
    ($($test:ident),* $(,)?) => { for_types!([f32 f64 f16 bf16], [$($test),*]); };
}

/// Each test for f32 and for f64: what is about the arithmetic, which is f32 in halves, or asks for more digits than they have.
macro_rules! for_both {
    ($($test:ident),* $(,)?) => { for_types!([f32 f64], [$($test),*]); };
}

mod case;
mod dd;
mod level;
mod naive;
mod number;
mod oracle;
mod random;
mod rows;

mod accuracy;
// Miri would take minutes to read them, and other tests go the same ways.
#[cfg(not(miri))]
mod conformance;
mod convert;
mod gradients;
mod identities;
mod properties;
mod quantized;
mod refused;
mod same_as_naive;
mod same_bits;
mod special_rows;
