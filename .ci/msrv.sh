#!/usr/bin/env bash
# The crates that promise an older Rust than CI's build with the oldest that they promise. (clippy checks the standard
# library's items against it on every machine; this checks the language and the dependencies too.)
source "$(dirname "$0")/common.sh"
missing=""
for crate in layernorm layernorm-ndarray layernorm-candle; do
    msrv="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "crates/$crate/Cargo.toml")"
    if rustup toolchain list 2>/dev/null | grep -q "^$msrv"; then
        say cargo "+$msrv" check --locked -p "$crate" --all-features --target-dir "${CARGO_TARGET_DIR:-target}/msrv"
    else
        missing+=" $msrv"
    fi
done
[ -z "$missing" ] || skip "not installed: Rust$missing (rustup toolchain install$missing --profile minimal)"
