#!/usr/bin/env bash
# The examples, as a user starts them; candle's are run by its own tests. They are built as the tests were, with the same crates
# in one command, so that Burn is not built again.
source "$(dirname "$0")/common.sh"
say cargo build --release --locked --workspace --exclude layernorm-candle --examples
target="${CARGO_TARGET_DIR:-target}"
ran=" "

# example NAME WANTED [ARGUMENTS]: it succeeds, and WANTED is in what it prints.
example() {
    local name=$1 wanted=$2
    shift 2
    ran+="$name "
    printf '\n$ %s\n' "$name $*"
    "$target/release/examples/$name" "$@" | tee "$folder/printed"
    grep -qF "$wanted" "$folder/printed" || { echo "$name did not print '$wanted'"; exit 1; }
}
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

example features "The columns after layer norm"
example features "written to" --rows --rms --out "$folder/rows.csv"
example frozen_batch_norm "share of pictures told right"

# Timings, for a quiet machine, show nothing here.
ran+="overhead "
for file in crates/*/examples/*.rs; do
    [[ "$file" == crates/layernorm-candle/* ]] && continue
    name="$(basename "$file" .rs)"
    [[ "$ran" == *" $name "* ]] || { echo "$file: no line of this script runs it"; exit 1; }
done
