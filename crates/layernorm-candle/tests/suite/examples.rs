//! The examples run. Cargo builds them where a run of this test alone has not.

use std::process::Command;

/// What an example prints.
fn printed(example: &str, arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "run",
        "--quiet",
        "--locked",
        "--manifest-path",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release"); // as this test was built
    }
    let output = cargo.args(["--example", example, "--"]).args(arguments).output().expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_checkpoint_has_the_same_logits_before_and_after_the_swap() {
    let text = printed("swap", &[]);
    assert!(
        text.contains("candle:") && text.contains("ours:") && text.contains("largest difference"),
        "{text}"
    );
}

#[test]
fn a_small_gpt_trains_and_writes() {
    let text = printed("char_gpt", &["--steps", "2", "--letters", "5"]);
    let written = text.lines().last().map(|line| line.chars().count());
    assert!(text.contains("step     1:") && text.contains("This is"), "{text}");
    assert!(written > Some(0), "{text}");
}
