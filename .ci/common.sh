# Sourced by every step: stand in the root, stop at the first failure, and be able to skip aloud.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

# End this step as skipped, which `run` counts apart from passed.
skip() {
    echo "SKIPPED: $*"
    exit 77
}

# Print a command, then run it.
say() {
    printf '\n$ %s\n' "$*"
    "$@"
}
