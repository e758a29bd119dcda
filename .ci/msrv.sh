#!/usr/bin/env bash
# The kernels' crate builds with the oldest Rust that it promises. (clippy checks the standard library's items
# against it on every machine; this checks the language too.)
source "$(dirname "$0")/common.sh"
msrv="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' crates/layernorm/Cargo.toml)"
rustup toolchain list 2>/dev/null | grep -q "^$msrv" \
    || skip "Rust $msrv is not installed (rustup toolchain install $msrv --profile minimal)"
say cargo "+$msrv" check --locked -p layernorm --all-features --target-dir "${CARGO_TARGET_DIR:-target}/msrv"
