//! Running the program.

#[allow(dead_code, reason = "not every test file applies operators to tensors")]
pub(crate) mod applied;
#[allow(dead_code, reason = "not every test file has tensors")]
pub(crate) mod files;

use std::process::{Command, Output};

/// The program.
pub(crate) fn layernorm(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layernorm"));
    command.args(arguments).env_remove("LAYERNORM_LEVEL");
    command
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    layernorm(arguments).output().expect("the program starts")
}

/// Its standard output.
#[allow(dead_code, reason = "not every test file looks at it")]
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// Its standard error.
#[allow(dead_code, reason = "not every test file looks at it")]
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}

/// The one JSON document that it printed.
#[allow(dead_code, reason = "not every test file looks at it")]
pub(crate) fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).expect("one JSON document on standard output")
}
