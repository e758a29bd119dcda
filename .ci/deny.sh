#!/usr/bin/env bash
# Licences, banned crates and sources of all dependencies. Advisories need a network and are left to the user:
# cargo deny check advisories.
source "$(dirname "$0")/common.sh"
cargo deny --version >/dev/null 2>&1 || skip "cargo-deny is not installed (cargo install cargo-deny --locked)"
say cargo deny --offline --all-features check licenses bans sources
