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

# These compare numbers, and take no way through the unsafe code that the others do not take; f64 and f16 take those of f32
# and bf16.
skips=(--skip ::f64:: --skip ::f16:: --skip reference:: --skip accuracy:: --skip gradients:: --skip identities:: --skip conformance::)
# One type of it takes more than six minutes; the tables have a test of their own.
skips+=(--skip laid_out_parameters)
# Powers of two by `powi` are exact on every machine, but Miri would add random errors to them; and the corpus lies in files.
export MIRIFLAGS="-Zmiri-deterministic-floats -Zmiri-disable-isolation"
# The rest of the family goes through the same loops, in tests that would take hours here.
targets=(--lib --test kernels --test no_alloc --test corpus)
# The release profile leaves out the assertions that Miri makes better.
miri() { cargo +nightly miri test --release --locked -p layernorm --all-features "${targets[@]}" --target-dir "${CARGO_TARGET_DIR:-target}/miri" "$@"; }

say miri --no-run
# Miri uses one core, so two shares at once.
log="$(mktemp)"
miri -- ::f32:: "${skips[@]}" >"$log" 2>&1 &
say miri -- --skip ::f32:: "${skips[@]}" || failed=1
wait $! || failed=1
cat "$log"
rm "$log"
[ -z "${failed:-}" ]
