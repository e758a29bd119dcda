//! `cargo +nightly fuzz run norms`, or `bash .ci/fuzz.sh` for a minute of it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| layernorm_fuzz::norms(data));
