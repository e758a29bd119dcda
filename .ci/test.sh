#!/usr/bin/env bash
# The test command of the README, word for word, and the one for the crate that stands apart from it.
source "$(dirname "$0")/common.sh"
command="cargo test --release --workspace --exclude layernorm-candle"
grep -qxF "$command" README.md || { echo "README.md does not have the line '$command'"; exit 1; }
say $command
say cargo test --locked -p layernorm-candle
# With threads, which nothing in the workspace switches on for this crate.
say cargo test --release --locked -p layernorm-ndarray --all-features
