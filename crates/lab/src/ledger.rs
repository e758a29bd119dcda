//! The ledger: every claim of the list with what came out, or with why nothing covers it. `layernorm claims` draws it
//! from the results of the studies that were run.

pub mod claims;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::console::{print, print_json};
use crate::error::Error;
use crate::report::headline;
use crate::report::model::{Finding, StudyOutcome, Verdict};
use crate::studies;
use crate::study::{store, verdict};
use claims::{CHAPTERS, Entry};

/// The arguments of `layernorm claims`.
#[derive(Debug, Args)]
pub struct ClaimsArgs {
    /// Folder of the runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub runs: PathBuf,
    /// Write Markdown into this file; its links lead to ../report/index.html
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is known of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Studies judged it: the weakest of their findings.
    Judged(Verdict),
    /// Studies judge it, and none was run.
    NotRun,
    /// The tests that are named cover it.
    Tested,
    /// Nothing covers it.
    Open,
}

/// A claim with what covers it.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Its name, such as `M1`.
    pub id: &'static str,
    /// What is said.
    pub says: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// What is known.
    pub answer: Answer,
    /// Names of the studies that judge it.
    pub studies: Vec<&'static str>,
    /// What they found, each with its study.
    pub findings: Vec<(String, Finding)>,
    /// Files of tests that cover it.
    pub tests: &'static [&'static str],
    /// What nothing covers, and why.
    pub open: &'static str,
}

/// Draws the ledger, and says whether no claim was found not reproduced.
///
/// # Errors
/// Results that can't be read, a file that can't be written.
pub fn run(arguments: &ClaimsArgs) -> Result<bool, Error> {
    let names: Vec<&str> = studies::ALL.iter().map(|study| study.card().name).collect();
    let outcomes = store::outcomes(&arguments.runs, &names)?;
    let lines: Vec<Line> = claims::entries().map(|entry| line(entry, &outcomes)).collect();
    if let Some(path) = &arguments.out {
        std::fs::write(path, markdown(&lines, &outcomes)).map_err(Error::io(path))?;
    }
    match (arguments.json, &arguments.out) {
        (true, _) => print_json(&lines)?,
        (false, Some(path)) => print(&format!("{}: {}", path.display(), counts(&lines)))?,
        (false, None) => print(&markdown(&lines, &outcomes))?,
    }
    Ok(lines.iter().all(|line| line.answer != Answer::Judged(Verdict::NotReproduced)))
}

/// A claim with what the studies found.
fn line(entry: &'static Entry, outcomes: &[StudyOutcome]) -> Line {
    let &Entry { id, says, source, tests, open } = entry;
    let cards = studies::ALL.iter().map(|study| study.card());
    let judges = cards.filter(|card| card.claims.iter().any(|claim| claim.id == id));
    let studies: Vec<&'static str> = judges.map(|card| card.name).collect();
    let found = |outcome: &StudyOutcome| {
        let name = outcome.name.clone();
        let here = outcome.findings.iter().filter(|finding| finding.claim == id).cloned();
        here.map(move |finding| (name.clone(), finding)).collect::<Vec<_>>()
    };
    let findings: Vec<(String, Finding)> = outcomes.iter().flat_map(found).collect();
    let answer = match (findings.is_empty(), studies.is_empty(), tests.is_empty()) {
        (false, ..) => Answer::Judged(verdict::weakest(findings.iter().map(|(_, finding)| finding.verdict))),
        (_, false, _) => Answer::NotRun,
        (_, _, false) => Answer::Tested,
        _ => Answer::Open,
    };
    Line { id, says, source, answer, studies, findings, tests, open }
}

impl Answer {
    /// With a sign that can be found at a glance.
    pub fn words(self) -> &'static str {
        match self {
            Self::Judged(Verdict::Reproduced) => "✓ reproduced",
            Self::Judged(Verdict::NotReproduced) => "✗ not reproduced",
            Self::Judged(Verdict::Inconclusive) => "? inconclusive",
            Self::NotRun => "not run",
            Self::Tested => "✓ tested",
            Self::Open => "not covered",
        }
    }
}

/// How many of each answer.
fn counts(lines: &[Line]) -> String {
    let answers = [Verdict::Reproduced, Verdict::NotReproduced, Verdict::Inconclusive].map(Answer::Judged);
    let answers = answers.into_iter().chain([Answer::Tested, Answer::NotRun, Answer::Open]);
    let count = |answer| (lines.iter().filter(|line| line.answer == answer).count(), answer);
    let some = answers.map(count).filter(|(count, _)| *count > 0);
    let parts: Vec<String> = some.map(|(count, answer)| format!("{count} {}", answer.words())).collect();
    format!("{} claims: {}", lines.len(), parts.join(", "))
}

fn markdown(lines: &[Line], outcomes: &[StudyOutcome]) -> String {
    let mut text = format!(
        "# Claims\n\n\
         What has been said about layer normalization, and what came of it here. {}.\n\n\
         A study's rule is fixed in the program before it runs (`layernorm study list NAME`); its verdict is the rule's. \
         A claim that several findings speak to is as good as the weakest of them. This file is written by\n\n\
         ```sh\nlayernorm study run --all\nlayernorm claims --out docs/claims.md\n```\n\n\
         The pictures are in the page that `layernorm report` makes; the links lead there.\n",
        counts(lines)
    );
    let mut lines = lines.iter();
    for chapter in CHAPTERS {
        text += &format!("\n## {}\n", chapter.title);
        lines.by_ref().take(chapter.entries.len()).for_each(|line| text += &section(line));
    }
    text + &runs(outcomes)
}

/// One claim in Markdown.
fn section(line: &Line) -> String {
    let mut text =
        format!("\n### {}: {}\n\n{} *({})*\n\n", line.id, line.answer.words(), line.says, line.source);
    for (study, finding) in &line.findings {
        text += &format!(
            "- {}: {} **{}** ([{study}](../report/index.html#{study}) in `layernorm report`)\n",
            Answer::Judged(finding.verdict).words(),
            finding.says,
            headline::effect(&finding.effect),
        );
    }
    if line.answer == Answer::NotRun {
        for study in &line.studies {
            text += &format!("- not run: `layernorm study run {study}`\n");
        }
    }
    for test in line.tests {
        text += &format!("- ✓ tested: [{test}](../{test})\n");
    }
    if !line.open.is_empty() {
        text += &format!("- not covered: {}\n", line.open);
    }
    text
}

/// What the numbers come from.
fn runs(outcomes: &[StudyOutcome]) -> String {
    let mut text = "\n## The runs\n\n".to_owned();
    for outcome in outcomes {
        let again = &outcome.command;
        let seeds = outcome.settings.seeds.len();
        text += &format!("- {}: {seeds} seeds; again: `{again}`\n", outcome.name);
    }
    if outcomes.is_empty() { text + "None yet.\n" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids of the list that this ledger answers.
    fn ids() -> Vec<String> {
        let groups = [("M", 8), ("G", 6), ("R", 9), ("C", 4), ("D", 7), ("E", 7), ("N", 6), ("S", 5)];
        groups.iter().flat_map(|(group, count)| (1..=*count).map(move |n| format!("{group}{n}"))).collect()
    }

    #[test]
    fn every_claim_is_there_once_in_order() {
        assert_eq!(claims::entries().map(|entry| entry.id).collect::<Vec<_>>(), ids());
        let lines: Vec<Line> = claims::entries().map(|entry| line(entry, &[])).collect();
        let text = markdown(&lines, &[]);
        for id in ids() {
            assert_eq!(text.matches(&format!("\n### {id}: ")).count(), 1, "{id}");
        }
    }

    #[test]
    fn every_judged_claim_is_in_the_list() {
        for card in studies::ALL.iter().map(|study| study.card()) {
            for claim in card.claims {
                let listed = claims::entries().any(|entry| entry.id == claim.id);
                assert!(listed, "{} judges {}, which is not in the list", card.name, claim.id);
            }
        }
    }

    #[test]
    fn tests_that_are_named_exist() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for entry in claims::entries() {
            for test in entry.tests {
                assert!(root.join(test).is_file(), "{}: no file {test}", entry.id);
            }
        }
    }

    #[test]
    fn what_is_not_covered_says_why() {
        for entry in claims::entries() {
            let line = line(entry, &[]);
            let covered = matches!(line.answer, Answer::NotRun | Answer::Tested);
            assert!(covered || !entry.open.is_empty(), "{} is not covered, and does not say why", entry.id);
        }
    }
}
