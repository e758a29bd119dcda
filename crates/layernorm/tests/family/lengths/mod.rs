//! Norms by a root mean square, a length or a deviation beside epsilon: RMS norm's options, scale, L2, QK, weight, Lp
//! and mean-variance norm.

/// Each test for every type of elements.
macro_rules! for_all {
    ($($test:ident),* $(,)?) => {
        for_all!(@ [f32 f32, f64 f64, f16 half::f16, bf16 half::bf16] [$($test)*]);
    };
    (@ [$($name:ident $t:ty),*] $tests:tt) => {
        $(mod $name { for_all!(@@ $t, $tests); })*
    };
    (@@ $t:ty, [$($test:ident)*]) => {
        $(#[test] fn $test() { super::$test::<$t>() })*
    };
}

mod companions;
mod heads;
mod refused;
mod rms;
mod scale;
mod tensors;
mod tools;
mod weights;
