//! `layernorm study list` and `layernorm study run`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::store::{self, Previous};
use super::{Budget, Card, Control, Error, Request, Study, runner, verdict};
use crate::console::{print, print_json, table};
use crate::interrupt::ctrl_c;
use crate::report::headline;
use crate::report::model::{StudyOutcome, Verdict};
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
    /// Show the studies; with a name, its claims and the rules that will judge them
    #[command(after_long_help = "\
Examples:
  layernorm study list
  layernorm study list neighbours")]
    List {
        /// Which study, in full [default: all, in brief]
        name: Option<String>,
        /// Print JSON, in full
        #[arg(long)]
        json: bool,
    },
    /// Run a study, or all of them, to the verdict
    #[command(after_long_help = "\
Writes runs/NAME/BUDGET/result.json; `layernorm report` makes a page of all results, `layernorm claims` the ledger.
Ctrl-C saves the state and exits with 130; the same command with --resume goes on to the same bits. With --all,
--resume runs no finished study again.
Exit status: 0 reproduced or inconclusive, 1 a claim was not reproduced, 2 bad use or input.

Examples:
  layernorm study run neighbours
  layernorm study run mnist --budget standard --data folder/with/mnist
  layernorm study run --all")]
    Run(RunArgs),
}

/// The arguments of `layernorm study run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Which study: see `layernorm study list`
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub name: Option<String>,
    /// All studies, one after the other
    #[arg(long)]
    pub all: bool,
    /// How much to spend
    #[arg(long, value_enum, default_value_t = Budget::Quick)]
    pub budget: Budget,
    /// How many seeds; more seeds give a narrower interval [default: the budget's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: Option<u64>,
    /// The first seed; the others follow it
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1 << 62))]
    pub seed: u64,
    /// Folder of real data, MNIST's four idx files, plain or .gz; with --all, for the studies that can use them
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
    /// Print the outcome, or with --all a list of outcomes, as JSON
    #[arg(long)]
    pub json: bool,
}

/// Obeys, and says whether all claims that were judged held: none was found not reproduced.
///
/// # Errors
/// See [`Error`]; standard output that can't be written to.
pub fn run(arguments: &StudyArgs) -> Result<bool, crate::error::Error> {
    match &arguments.command {
        StudyCommand::List { name, json } => {
            let asked = match name {
                Some(name) => &[studies::find(name)?],
                None => studies::ALL,
            };
            match (json, name) {
                (true, _) => print_json(&list_json(asked))?,
                (false, Some(_)) => print(&describe(asked[0].card()))?,
                (false, None) => print(&list())?,
            }
            Ok(true)
        }
        StudyCommand::Run(arguments) if arguments.all => {
            let outcomes = run_all(arguments)?;
            if arguments.json {
                print_json(&outcomes)?
            } else {
                print(&overview(&outcomes))?
            }
            Ok(outcomes.iter().all(|outcome| outcome.verdict != Verdict::NotReproduced))
        }
        StudyCommand::Run(arguments) => {
            let study = studies::find(arguments.name.as_deref().unwrap_or_default())?;
            let outcome = run_one(study, arguments)?;
            if arguments.json {
                print_json(&outcome)?
            } else {
                print(&summary(&outcome))?
            }
            Ok(outcome.verdict != Verdict::NotReproduced)
        }
    }
}

/// Runs all studies, one after the other.
fn run_all(arguments: &RunArgs) -> Result<Vec<StudyOutcome>, crate::error::Error> {
    // Before the first one runs for minutes only to find the second one unfinished.
    if !arguments.resume && !arguments.fresh {
        for study in studies::ALL {
            store::no_unfinished(&arguments.out, study.card().name, arguments.budget)?;
        }
    }
    let mut outcomes = Vec::new();
    for study in studies::ALL {
        let outcome = run_one(*study, arguments)?;
        if !arguments.json {
            print(&summary(&outcome))?;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

fn run_one(study: &dyn Study, arguments: &RunArgs) -> Result<StudyOutcome, Error> {
    let card = study.card();
    let count = arguments.seeds.unwrap_or_else(|| arguments.budget.pick(card.seeds, 2));
    let data = match &arguments.data {
        Some(_) if !card.real_data && arguments.all => None,
        Some(_) if !card.real_data => return Err(Error::OwnData { study: card.name }),
        data => data.clone(),
    };
    let seeds = (arguments.seed..arguments.seed + count).collect();
    let request = Request { budget: arguments.budget, seeds, data };
    let previous = match (arguments.resume, arguments.fresh) {
        (true, _) if arguments.all => Previous::ResumeOrBegin,
        (true, _) => Previous::Resume,
        (_, true) => Previous::Discard,
        _ => Previous::Respect,
    };
    let command = repeat(card.name, &request, arguments);
    let again = if arguments.all { repeat("--all", &request, arguments) } else { command.clone() };
    let control = Control {
        out: arguments.out.clone(),
        threads: arguments.threads.map_or_else(all_threads, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        previous,
        stop: ctrl_c(),
        command,
        again: format!("{again} --resume"),
    };
    runner::run(study, &request, &control)
}

/// The command that repeats a run.
fn repeat(which: &str, request: &Request, arguments: &RunArgs) -> String {
    let mut command = format!("layernorm study run {which} --budget {}", request.budget.name());
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

/// All studies in brief.
fn list() -> String {
    let brief = |study: &&dyn Study| {
        let card = study.card();
        let mut ids: Vec<&str> = card.claims.iter().map(|claim| claim.id).collect();
        ids.dedup();
        vec![card.name.to_owned(), ids.join(" "), card.takes[0].to_owned(), card.title.to_owned()]
    };
    let rows: Vec<Vec<String>> = studies::ALL.iter().map(brief).collect();
    let words = "\nIn full, with the rules that will judge them: layernorm study list NAME. \
                 Run one: layernorm study run NAME; all: layernorm study run --all";
    table(&["study", "claims", "takes", "about"], 4, &rows) + words
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
    let data = if card.real_data { "  Data: drawn by the program, or MNIST by --data\n" } else { "" };
    text + data + &format!("  Takes: quick {quick}; standard {standard}; full {full}\n")
}

fn list_json(asked: &[&dyn Study]) -> serde_json::Value {
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
    asked.iter().map(study).collect()
}

/// All outcomes together, a line each.
fn overview(outcomes: &[StudyOutcome]) -> String {
    let row = |outcome: &StudyOutcome| {
        let count = |verdict| {
            let count = outcome.findings.iter().filter(|finding| finding.verdict == verdict).count();
            if count == 0 { String::new() } else { count.to_string() }
        };
        let [yes, no, open] = [Verdict::Reproduced, Verdict::NotReproduced, Verdict::Inconclusive].map(count);
        let took = headline::duration(outcome.seconds * 1e9);
        vec![outcome.name.clone(), outcome.verdict.words().to_owned(), yes, no, open, took]
    };
    let rows: Vec<Vec<String>> = outcomes.iter().map(row).collect();
    let together = verdict::weakest(outcomes.iter().map(|outcome| outcome.verdict)).words();
    let headings = ["study", "verdict", "reproduced", "not reproduced", "inconclusive", "work"];
    format!("\n{}\nAll together: {together}. The page of it: layernorm report\n", table(&headings, 2, &rows))
}

/// The outcome in a few lines.
pub fn summary(outcome: &StudyOutcome) -> String {
    let seeds = outcome.settings.seeds.len();
    let mut text = format!("{}: {} ({seeds} seeds)\n", outcome.name, outcome.verdict.words());
    for finding in &outcome.findings {
        text += &format!("  {}: {}\n", finding.verdict.words(), finding.says);
        text += &format!("    {}: {}\n", finding.measure, headline::effect(&finding.effect));
    }
    text.trim_end().to_owned()
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
        again: "layernorm".to_owned(),
    };
    runner::run(study, &request, &control)
}
