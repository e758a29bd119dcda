#!/usr/bin/env bash
# The kernels' unsafe code under Miri, which finds undefined behaviour. Needs a nightly Rust.
source "$(dirname "$0")/common.sh"
rustup toolchain list 2>/dev/null | grep -q '^nightly' \
    || skip "no nightly Rust (rustup toolchain install nightly --component miri,rust-src)"
if ! cargo +nightly miri --version >/dev/null 2>&1 \
    || ! rustup +nightly component list --installed | grep -q '^rust-src'; then
    say rustup +nightly component add miri rust-src || skip "Miri cannot be had for this nightly"
fi
# Rust's own library for Miri is built here, once.
say cargo +nightly miri setup
say cargo +nightly miri test --locked -p layernorm --lib --target-dir target/miri
