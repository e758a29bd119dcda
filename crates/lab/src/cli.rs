//! The command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use layernorm::Level;
use std::sync::atomic::AtomicBool;

use crate::apply::ApplyArgs;
use crate::bench::BenchArgs;
use crate::check::CheckArgs;
use crate::error::Error;

/// Layer norm and its family: is it right on this machine, is it fast, and does it do what the papers say?
///
/// Without a command: the tour. It checks, times and studies, in about three minutes, and leaves a page to read in
/// report/index.html.
#[derive(Debug, Parser)]
#[command(
    name = "layernorm",
    version,
    after_long_help = "\
Exit status: 0 everything held, 1 a check or a claim failed, 2 bad use or input, 130 Ctrl-C.
Every command takes --json: one JSON document on standard output, progress on standard error.
The variable LAYERNORM_LEVEL sets the instruction set that calls use where none is asked for; RAYON_NUM_THREADS sets
the number of threads. Neither changes a bit of any result.

Examples:
  layernorm                               the tour
  layernorm check                         a few seconds: errors against exact oracles, equality of bits
  layernorm bench --shapes 512x768        how long a call takes, beside a copy of the same bytes
  layernorm study list                    what the papers claim; with a study's name, how it will be judged
  layernorm study run --all               all studies, in about eight minutes
  layernorm apply layer_norm --input in.safetensors --output out.safetensors"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Compare every operator, at every instruction set of this machine, with exact oracles
    Check(CheckArgs),
    /// Time every operator beside a memory copy of the same bytes
    Bench(BenchArgs),
    #[cfg(feature = "studies")]
    /// List the studies, or run one to its verdict
    Study(crate::study::StudyArgs),
    #[cfg(feature = "studies")]
    /// Make the page of all results so far
    Report(crate::report::ReportArgs),
    #[cfg(feature = "studies")]
    /// Go through what has been said about layer norm, claim by claim, with what came out
    #[command(after_long_help = "\
Takes the results from runs/; what was not run, and what nothing covers, says so.
Exit status: 0 nothing was found not reproduced, 1 something was, 2 bad use or input.

Examples:
  layernorm claims
  layernorm claims --out docs/claims.md")]
    Claims(crate::ledger::ClaimsArgs),
    #[cfg(not(feature = "studies"))]
    /// (Not in this build) List the studies, or run one to its verdict
    #[command(disable_help_flag = true)]
    Study(Rest),
    #[cfg(not(feature = "studies"))]
    /// (Not in this build) Make the page of all results so far
    #[command(disable_help_flag = true)]
    Report(Rest),
    #[cfg(not(feature = "studies"))]
    /// (Not in this build) Go through what has been said about layer norm, claim by claim
    #[command(disable_help_flag = true)]
    Claims(Rest),
    /// Run one operator on your own tensors
    #[command(after_long_help = APPLY_HELP)]
    Apply(ApplyArgs),
}

const APPLY_HELP: &str = "\
The input file has x, of type f16, bf16, f32 or f64, and what else the operator needs or takes, by name. Parameters and
residuals have x's type, or f32 beside f16 and bf16; statistics and gradients of parameters are f32 (f64 for f64 input).
  layer_norm, rms_norm
    weight, bias      shaped x.shape[axis..], or one number for all; may be absent
    dy                shaped as x: then gradients are computed too. So it is with all operators
    written: y as x; mean (layer norm only) and rstd shaped x.shape[..axis];
             with dy also dx as x, dweight and dbias shaped as weight and bias
    --weight-offset, --partial, --epsilon and --rounding are what models with rms_norm do differently
  layer_norm_int8, layer_norm_e4m3, layer_norm_e5m2, and rms_norm_...: the same in eight bits, forward alone
    written: y_int8 (or y_e4m3, y_e5m2) as x, y_scale (f32) shaped x.shape[..axis]: y is about y_scale y_int8
  layer_norm_axes, rms_norm_axes: over the axes of --over, with parameters along those of --affine
    valid             as x, bool: which numbers take part in the statistics; may be absent
    weight, bias      shaped as the axes of --affine. mean and rstd are shaped as x without the axes of --over
  qk_norm             x ends with heads and their features; weight and bias are shaped [features] or [heads, features], both
                      alike, or are one number for all; --norm says by what heads are measured
  add_layer_norm, add_rms_norm: y = norm(residual_out), residual_out = residual + mask (x + branch_bias)
    residual          as x; written: residual_out, with dy dresidual and dx
    mask, branch_bias as x, and shaped x.shape[axis..]; may be absent
    dresidual_out     the gradient of the new residual from elsewhere; may be absent
  ada_layer_norm, ada_rms_norm: y = (1 + scale) x_hat + shift
    scale, shift      shaped x.shape[0], x.shape[axis..]: one row for each sample; written with dy: dscale, dshift
  gated_residual, gated_ada_layer_norm, gated_ada_rms_norm: the same of residual_out = residual + gate x
    gate              shaped as scale; written with the gradients: dgate
  conditional_layer_norm, conditional_rms_norm: y = weight[index] x_hat + bias[index]
    index             shaped x.shape[..axis], i32 or i64; weight and bias have an entry for each index
  scale_norm          scale, one number; l2_norm has no parameters; both write rnorm, one over the length
  lp_norm             y alone, and dx: each line along --axis by its length, Euclidean or (--p 1) the sum of magnitudes
  weight_norm         v instead of x, g (one number a unit), dw instead of dy; writes w, dv, dg. --axis is that of units
  mean_variance_norm  y alone, and dx
  group_norm, group_norm_silu, instance_norm, batch_norm: x has samples and channels first (--layout nhwc: channels last)
    weight, bias      one number a channel, or one for all; may be absent. mean and rstd are shaped [samples, groups],
                      for batch_norm [channels]
    running_mean, running_var  of batch_norm, one number a channel: changed in training by PyTorch's formula and written;
                      --mode eval normalises by them

Halves are computed in f32 and rounded once. An option that an operator has no use for is an error.

Examples:
  layernorm apply layer_norm --input in.safetensors --output out.safetensors
  layernorm apply rms_norm --input in.safetensors --output out.safetensors --eps 1e-6 --axis -2";

/// Words for a command that this build lacks.
#[cfg(not(feature = "studies"))]
#[derive(Debug, clap::Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

impl Cli {
    /// Obeys, and says whether everything that was judged held.
    ///
    /// # Errors
    /// Bad use, bad input, or Ctrl-C.
    pub fn run(self) -> Result<bool, Error> {
        match self.command {
            Some(Command::Check(arguments)) => crate::check::command(&arguments, stop()),
            Some(Command::Bench(arguments)) => crate::bench::command(&arguments, stop()).map(|()| true),
            Some(Command::Apply(arguments)) => crate::apply::run(&arguments).map(|()| true),
            #[cfg(feature = "studies")]
            Some(Command::Study(arguments)) => crate::study::run(&arguments),
            #[cfg(feature = "studies")]
            Some(Command::Report(arguments)) => crate::report::run(&arguments),
            #[cfg(feature = "studies")]
            Some(Command::Claims(arguments)) => crate::ledger::run(&arguments),
            #[cfg(feature = "studies")]
            None => crate::tour::run(),
            #[cfg(not(feature = "studies"))]
            Some(Command::Study(_)) => Err(Error::WithoutStudies { command: "study" }),
            #[cfg(not(feature = "studies"))]
            Some(Command::Report(_)) => Err(Error::WithoutStudies { command: "report" }),
            #[cfg(not(feature = "studies"))]
            Some(Command::Claims(_)) => Err(Error::WithoutStudies { command: "claims" }),
            #[cfg(not(feature = "studies"))]
            None => Err(Error::WithoutTour),
        }
    }
}

/// What Ctrl-C sets.
fn stop() -> &'static AtomicBool {
    crate::interrupt::ctrl_c()
}

/// An instruction-set level by its name.
pub fn level() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(["portable", "neon", "avx2", "avx512"]).try_map(|name| name.parse::<Level>())
}

/// A number of threads: 1 to 1024.
///
/// # Errors
/// Another number, or none.
pub fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=1024) => Ok(threads),
        Ok(threads) => Err(format!("{threads} is not in 1 to 1024")),
        Err(error) => Err(format!("{error}")),
    }
}

/// A pool of that many threads.
///
/// # Errors
/// Threads that the system refuses.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool, Error> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| Error::Threads { threads, source })
}
