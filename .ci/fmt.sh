#!/usr/bin/env bash
# The formatting of all sources.
source "$(dirname "$0")/common.sh"
say cargo fmt --all --check
# A workspace of its own. The rest of CI leaves it out: its frameworks take too long to build.
say cargo fmt --manifest-path crates/peers/Cargo.toml --check
