//! `layernorm study list` and `layernorm study run`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::store::Previous;
use super::{Budget, Card, Control, Error, Request, Study, runner};
use crate::console::{print, print_json};
use crate::interrupt::ctrl_c;
use crate::report::model::{Finding, StudyOutcome, Verdict};
use crate::studies;

/// The arguments of `layernorm study`.
#[derive(Debug, Args)]
pub struct StudyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StudyCommand,
}

/// What to do with studies.
#[derive(Debug, Subcommand)]
pub enum StudyCommand {
    /// Show the studies, the claims that they test and the rules that will judge them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a study to its verdict
    #[command(after_long_help = "\
Writes runs/NAME/BUDGET/result.json; `layernorm report` makes a page of all results.
Ctrl-C saves the state and exits with 130; the same command with --resume goes on to the same bits.
Exit status: 0 reproduced or inconclusive, 1 a claim was not reproduced, 2 bad use or input.

Examples:
  layernorm study run neighbours
  layernorm study run mnist --budget standard --data folder/with/mnist")]
    Run(RunArgs),
}

/// The arguments of `layernorm study run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Which study: see `layernorm study list`
    pub name: String,
    /// How much to spend
    #[arg(long, value_enum, default_value_t = Budget::Quick)]
    pub budget: Budget,
    /// How many seeds; more seeds give a narrower interval [default: the budget's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: Option<u64>,
    /// The first seed; the others follow it
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1 << 62))]
    pub seed: u64,
    /// Folder of real data, for a study that can use it (mnist: the four idx files, plain or .gz)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: PathBuf,
    /// Continue an interrupted run; its settings must be the same
    #[arg(long, conflicts_with = "fresh")]
    pub resume: bool,
    /// Discard an unfinished run and begin anew
    #[arg(long)]
    pub fresh: bool,
    /// Arms and seeds that run at a time, which no result depends on [default: the processor's threads]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub threads: Option<u64>,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// Obeys, and says whether all claims that were judged held: none was found not reproduced.
///
/// # Errors
/// See [`Error`]; standard output that can't be written to.
pub fn run(arguments: &StudyArgs) -> Result<bool, crate::error::Error> {
    match &arguments.command {
        StudyCommand::List { json: true } => print_json(&list_json())?,
        StudyCommand::List { json: false } => print(&list())?,
        StudyCommand::Run(arguments) => {
            let outcome = run_one(arguments)?;
            if arguments.json {
                print_json(&outcome)?
            } else {
                print(&summary(&outcome))?
            }
            return Ok(outcome.verdict != Verdict::NotReproduced);
        }
    }
    Ok(true)
}

/// Runs the study that the arguments name.
fn run_one(arguments: &RunArgs) -> Result<StudyOutcome, Error> {
    let study = studies::find(&arguments.name)?;
    let count = arguments.seeds.unwrap_or_else(|| arguments.budget.pick(study.card().seeds, 2));
    let request = Request {
        budget: arguments.budget,
        seeds: (arguments.seed..arguments.seed + count).collect(),
        data: arguments.data.clone(),
    };
    let previous = match (arguments.resume, arguments.fresh) {
        (true, _) => Previous::Resume,
        (_, true) => Previous::Discard,
        _ => Previous::Respect,
    };
    let control = Control {
        out: arguments.out.clone(),
        threads: arguments.threads.map_or_else(all_threads, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        previous,
        stop: ctrl_c(),
        command: repeat(study.card(), &request, arguments),
    };
    runner::run(study, &request, &control)
}

/// The command that repeats a run.
fn repeat(card: &Card, request: &Request, arguments: &RunArgs) -> String {
    let mut command = format!("layernorm study run {} --budget {}", card.name, request.budget.name());
    if let Some(seeds) = arguments.seeds {
        command += &format!(" --seeds {seeds}");
    }
    if arguments.seed != 0 {
        command += &format!(" --seed {}", arguments.seed);
    }
    if let Some(data) = &request.data {
        command += &format!(" --data {}", data.display());
    }
    command
}

/// As many as the processor runs at once.
pub fn all_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// All studies in words.
pub fn list() -> String {
    studies::ALL.iter().map(|study| describe(study.card())).collect::<Vec<_>>().join("\n")
}

fn describe(card: &Card) -> String {
    let mut text =
        format!("{}: {}\n  {}\n  Measures: {}\n", card.name, card.title, card.question, card.metric);
    let arms: Vec<&str> = card.arms.iter().map(|arm| arm.label).collect();
    text += &format!("  Compares: {}\n", arms.join("; "));
    for claim in card.claims {
        text += &format!("  {} [{}] {}\n", claim.id, claim.source, claim.says);
        text += &format!("     Effect: {}.\n     {}\n", claim.measure, claim.rule.words(claim.unit));
    }
    let [quick, standard, full] = card.takes;
    text + &format!("  Takes: quick {quick}; standard {standard}; full {full}\n")
}

fn list_json() -> serde_json::Value {
    let claim = |claim: &super::Claim| {
        serde_json::json!({
            "id": claim.id, "says": claim.says, "source": claim.source, "measure": claim.measure,
            "unit": claim.unit, "rule": claim.rule.words(claim.unit),
        })
    };
    let study = |study: &&dyn Study| {
        let card = study.card();
        serde_json::json!({
            "name": card.name, "title": card.title, "question": card.question, "metric": card.metric,
            "arms": card.arms.iter().map(|arm| arm.label).collect::<Vec<_>>(),
            "claims": card.claims.iter().map(claim).collect::<Vec<_>>(),
        })
    };
    studies::ALL.iter().map(study).collect()
}

/// The outcome in a few lines.
pub fn summary(outcome: &StudyOutcome) -> String {
    let seeds = outcome.settings.seeds.len();
    let mut text = format!("{}: {} ({seeds} seeds)\n", outcome.name, outcome.verdict.words());
    for finding in &outcome.findings {
        text += &format!("  {}: {}\n", finding.verdict.words(), finding.says);
        text += &format!("    {}: {}\n", finding.measure, effect(finding));
    }
    text.trim_end().to_owned()
}

fn effect(finding: &Finding) -> String {
    let effect = &finding.effect;
    match effect.interval {
        Some([low, high]) => format!("{:.3} {} (95% {low:.3} to {high:.3})", effect.mean, effect.unit),
        None => format!("{:.3} {}", effect.mean, effect.unit),
    }
}

/// Runs a study as the tour does: quick, on all processors, going on where an interrupted tour stopped.
///
/// # Errors
/// See [`Error`].
pub fn run_quick(study: &dyn Study, out: &Path) -> Result<StudyOutcome, Error> {
    let card = study.card();
    let request = Request { budget: Budget::Quick, seeds: (0..card.seeds[0]).collect(), data: None };
    let control = Control {
        out: out.to_owned(),
        threads: all_threads(),
        previous: Previous::ResumeIfSame,
        stop: ctrl_c(),
        command: format!("layernorm study run {} --budget quick", card.name),
    };
    runner::run(study, &request, &control)
}
