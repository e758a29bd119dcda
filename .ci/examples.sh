#!/usr/bin/env bash
# The examples, as a user starts them. They are built as the tests were, with the same crates in one command, so that Burn and
# candle are not built again.
source "$(dirname "$0")/common.sh"
say cargo build --release --locked --workspace --exclude layernorm-candle --examples
say cargo build --locked -p layernorm-candle --examples
target="${CARGO_TARGET_DIR:-target}"
# Small products, for which candle's threads would wait for each other.
export RAYON_NUM_THREADS=1
ran=" "

# example PROFILE NAME WANTED [ARGUMENTS]: it succeeds, and WANTED is in what it prints.
example() {
    local program="$target/$1/examples/$2" name=$2 wanted=$3
    shift 3
    ran+="$name "
    printf '\n$ %s\n' "$name $*"
    "$program" "$@" | tee "$folder/printed"
    grep -qF "$wanted" "$folder/printed" || { echo "$name did not print '$wanted'"; exit 1; }
}
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

example release features "The columns after layer norm"
example release features "written to" --rows --rms --out "$folder/rows.csv"
example debug swap "largest difference"
example debug char_gpt "letters of text" --steps 5

# Not an example of use but a timing, for a quiet machine.
ran+="overhead "
for file in crates/*/examples/*.rs; do
    name="$(basename "$file" .rs)"
    [[ "$ran" == *" $name "* ]] || { echo "$file: no line of this script runs it"; exit 1; }
done
