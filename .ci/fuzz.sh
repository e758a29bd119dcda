#!/usr/bin/env bash
# A minute of fuzzing with the address sanitizer, from the corpus that is kept: `FUZZ_SECONDS=3600 bash .ci/fuzz.sh` for more.
# What is found lies in fuzz/artifacts; the stable tests run the corpus too (crates/layernorm/tests/corpus.rs).
source "$(dirname "$0")/common.sh"
rustup toolchain list 2>/dev/null | grep -q '^nightly' || skip "no nightly Rust (rustup toolchain install nightly)"
cargo +nightly fuzz --version >/dev/null 2>&1 || skip "no cargo-fuzz (cargo install cargo-fuzz)"

# What is new is tried, but not kept in the repository: `cargo +nightly fuzz run norms` by hand does that.
found="$(mktemp -d)"
trap 'rm -r "$found"' EXIT
say cargo +nightly fuzz run --fuzz-dir fuzz --target-dir "${CARGO_TARGET_DIR:-target}/fuzz" norms \
    "$found" fuzz/corpus/norms -- -max_total_time="${FUZZ_SECONDS:-60}" -max_len=16384 -timeout=20 -print_final_stats=1
