#!/usr/bin/env bash
# The kernels' tests on aarch64, where the level is NEON: on this machine, or under qemu on another.
source "$(dirname "$0")/common.sh"
if [ "$(uname -m)" = aarch64 ]; then
    echo "This machine is aarch64: the other steps have run these tests."
    exit 0
fi
target=aarch64-unknown-linux-gnu
tools="qemu-aarch64 aarch64-linux-gnu-gcc"
if ! command -v $tools >/dev/null; then
    install="apt-get install -y --no-install-recommends qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    # CI may install packages on its own machine; a developer's is left alone.
    if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        { say apt-get update -qq && say $install; } || skip "$tools cannot be installed here"
    else
        skip "$tools not installed ($install)"
    fi
fi
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    say rustup target add $target || skip "Rust's library for $target cannot be had (rustup target add $target)"
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
# Emulated, so fewer rows; and a level that is not there must fail, not skip.
export LAYERNORM_TEST_EFFORT=small LAYERNORM_REQUIRE_LEVELS=portable,neon
tests() { say cargo test --release --locked -p layernorm --all-features --target $target "$@"; }
tests --lib --test kernels --test no_alloc --test onnx --test corpus
# Of the rest of the family what this machine can get wrong: the bits.
tests --test family -- bits
