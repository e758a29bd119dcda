//! The fuzzer's corpus, and bytes at random, through what the fuzzer runs (`fuzz/src/lib.rs`): on stable Rust, in every test run.

#[path = "../../../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

#[test]
fn the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/norms");
    let mut paths: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    // Under Miri each takes seconds.
    for path in paths.iter().step_by(if cfg!(miri) { 40 } else { 1 }) {
        println!("{}", path.display()); // shown if it fails
        fuzz::norms(&std::fs::read(path).unwrap());
    }
    assert!(paths.len() >= 20, "{} files in {}", paths.len(), corpus.display());
}

#[test]
fn bytes_at_random() {
    let count = match std::env::var("LAYERNORM_TEST_EFFORT") {
        _ if cfg!(miri) => 2,
        Ok(_) => 100,
        Err(_) => 600,
    };
    let mut state = 1u64;
    for i in 0..count {
        // xorshift64 (Marsaglia 2003).
        let mut byte = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32).to_le_bytes()[0]
        };
        let len = 40 << (i % 8);
        let bytes: Vec<u8> = (0..len).map(|_| byte()).collect();
        fuzz::norms(&bytes);
    }
}
