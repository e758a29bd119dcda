#!/usr/bin/env bash
# The formatting of all sources.
source "$(dirname "$0")/common.sh"
say cargo fmt --all --check
