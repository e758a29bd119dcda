#!/usr/bin/env bash
# The test command of the README, word for word.
source "$(dirname "$0")/common.sh"
command="cargo test --release --workspace"
grep -qxF "$command" README.md || { echo "README.md does not have the line '$command'"; exit 1; }
say $command
