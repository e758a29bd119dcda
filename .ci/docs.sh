#!/usr/bin/env bash
# The documentation builds without a warning: no dead link, nothing undocumented.
source "$(dirname "$0")/common.sh"
export RUSTDOCFLAGS="-D warnings"
say cargo doc --release --locked --workspace --exclude layernorm-candle --no-deps
say cargo doc --locked -p layernorm-candle --no-deps
