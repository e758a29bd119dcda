#!/usr/bin/env bash
# The kernels' crate alone, with no and with all features, in the development profile: there integer overflow
# and debug assertions are caught, which the release profile of the other tests does not do.
source "$(dirname "$0")/common.sh"
# Slow code, so fewer rows: all of them are the business of `test`.
export LAYERNORM_TEST_EFFORT=small
say cargo test --locked -p layernorm --no-default-features
say cargo test --locked -p layernorm --all-features
