//! `layernorm-peers`: our kernels, other libraries and a memory copy, timed in turns in one run on the same numbers.
//!
//! `operators.rs` says what can be timed and `preset.rs` what is, `peers/` has a file for each library, `rounds.rs` takes
//! the times, `show.rs` and `overhead.rs` make tables of them, and `document.rs` writes these into a document.
#![allow(unreachable_pub, reason = "in a program, `pub` says what a module offers to the others")]

mod agree;
mod cli;
// The lab's own, so that both programs mean the same by a copy and by a machine, and speak and stop alike.
#[path = "../../lab/src/console.rs"]
mod console;
#[path = "../../lab/src/bench/copy.rs"]
mod copy;
mod document;
mod error;
#[path = "../../lab/src/interrupt.rs"]
mod interrupt;
#[path = "../../lab/src/report/machine.rs"]
mod machine;
mod notes;
mod number;
mod operators;
mod overhead;
mod peers;
mod preset;
mod report;
mod rounds;
mod run;
mod shape;
mod show;
mod tensors;
mod work;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("layernorm-peers: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
