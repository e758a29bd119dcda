//! `layernorm`: is it right, is it fast, and does it do what the papers say?
#![allow(unreachable_pub, reason = "in a program, `pub` says what a module offers to the others")]

mod apply;
mod bench;
mod check;
mod cli;
mod console;
#[cfg(feature = "studies")]
mod data;
mod error;
mod interrupt;
#[cfg(feature = "studies")]
mod ledger;
#[cfg(feature = "studies")]
mod models;
mod operators;
#[cfg_attr(not(feature = "studies"), allow(dead_code, reason = "the page comes with the studies"))]
mod report;
#[cfg_attr(not(feature = "studies"), allow(dead_code, reason = "the studies draw more"))]
mod rng;
#[cfg(feature = "studies")]
mod studies;
#[cfg(feature = "studies")]
mod study;
#[cfg(feature = "studies")]
mod tour;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("layernorm: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
