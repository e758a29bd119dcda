//! `layernorm bench`: is it fast on this machine?
use crate::error::Error;
use clap::Args;
use std::sync::atomic::AtomicBool;

/// The arguments of `layernorm bench`.
#[derive(Debug, Clone, Default, Args)]
pub struct BenchArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `layernorm bench`.
///
/// # Errors
/// Ctrl-C.
pub fn command(_: &BenchArgs, _: &AtomicBool) -> Result<(), Error> {
    Ok(())
}
