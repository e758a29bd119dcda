#!/usr/bin/env bash
# Lints, with warnings as errors. The release profile shares Burn's build scripts and macros with the tests.
source "$(dirname "$0")/common.sh"
say cargo clippy --release --locked --workspace --exclude layernorm-candle --all-targets -- -D warnings
# By itself, because candle and Burn in one command would build Burn with other features than the tests have.
say cargo clippy --locked -p layernorm-candle --all-targets -- -D warnings
# Features unify across a workspace, so each combination that a user can have is looked at by itself.
say cargo clippy --locked -p layernorm --no-default-features -- -D warnings
say cargo clippy --locked -p layernorm --all-features --all-targets -- -D warnings
say cargo clippy --locked -p layernorm-ndarray --no-default-features -- -D warnings
say cargo clippy --locked -p layernorm-ndarray --all-features --all-targets -- -D warnings
say cargo clippy --locked -p layernorm-lab --no-default-features --all-targets -- -D warnings
