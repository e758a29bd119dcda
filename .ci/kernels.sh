#!/usr/bin/env bash
# The kernels' crate alone, with no and with all features, in the development profile: there integer overflow
# and debug assertions are caught, which the release profile of the other tests does not do.
source "$(dirname "$0")/common.sh"
say cargo test --locked -p layernorm --no-default-features
say cargo test --locked -p layernorm --all-features
