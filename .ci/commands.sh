#!/usr/bin/env bash
# The program itself, as a user starts it: exit codes, and numbers that can be done in the head.
source "$(dirname "$0")/common.sh"
target="${CARGO_TARGET_DIR:-target}"
built="$(ls "$target"/release/deps/libburn_flex-*.rlib 2>/dev/null | wc -l)"
say cargo build --release --locked
# The tour and the tests must ask for the same features of everything below Burn, or a user builds it twice.
[ "$built" -eq 0 ] || [ "$built" -eq "$(ls "$target"/release/deps/libburn_flex-*.rlib | wc -l)" ] \
    || { echo "the program built Burn once more than the tests: compare 'cargo tree -e features'"; exit 1; }
layernorm="$target/release/layernorm"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# Expect this exit code of a command.
expect() {
    local wanted=$1 got=0
    shift
    printf '\n$ %s\n' "$*"
    "$@" || got=$?
    [ "$got" -eq "$wanted" ] || { echo "exit code $got, expected $wanted"; exit 1; }
}

expect 0 $layernorm --help >/dev/null
expect 0 $layernorm study list
expect 0 $layernorm study list neighbours
expect 0 $layernorm claims --runs "$folder" >/dev/null
expect 0 $layernorm check

# Two rows, 1 3 and 0 4: at eps 0 both become -1 1.
header='{"x":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
one='\x00\x00\x80\x3f' three='\x00\x00\x40\x40' zero='\x00\x00\x00\x00' four='\x00\x00\x80\x40' minus_one='\x00\x00\x80\xbf'
printf "\\x$(printf %x ${#header})\0\0\0\0\0\0\0$header$one$three$zero$four" >"$folder/in.safetensors"
expect 0 $layernorm apply layer_norm --input "$folder/in.safetensors" --output "$folder/out.safetensors" --eps 0
LC_ALL=C grep -aqP "$minus_one$one$minus_one$one" "$folder/out.safetensors" || { echo "y is not -1 1 -1 1"; exit 1; }
expect 2 $layernorm apply layer_norm --input "$folder/none.safetensors" --output "$folder/no.safetensors"
expect 2 $layernorm apply no_norm --input "$folder/in.safetensors" --output "$folder/no.safetensors"
[ ! -e "$folder/no.safetensors" ] || { echo "a refused call left an output file"; exit 1; }
