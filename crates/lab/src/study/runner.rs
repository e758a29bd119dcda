//! The runner: every study's units on all processors, with progress, checkpoints, interruption and resuming.
//!
//! A unit stays on one thread from its first step to its last, and threads share nothing but the queue; so the
//! number of threads can change how long a study takes and nothing else.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::store::{Previous, RunFolder};
use super::{Card, Error, Plan, Request, Results, Study, verdict};
use crate::report::machine::Machine;
use crate::report::model::{Arm, Finding, Measured, Settings, StudyOutcome};

/// An unfinished unit is saved this often.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(20);

/// How to run, which no number may depend on.
#[derive(Debug)]
pub struct Control<'a> {
    /// The folder of all runs.
    pub out: PathBuf,
    /// Units at a time.
    pub threads: usize,
    /// What to do with an earlier run.
    pub previous: Previous,
    /// Set from outside to stop at the next step.
    pub stop: &'a AtomicBool,
    /// The command that repeats the run.
    pub command: String,
    /// The command that goes on after Ctrl-C.
    pub again: String,
}

/// Runs a study to its verdict, or until it is stopped.
///
/// # Errors
/// See [`Error`]; [`Error::Interrupted`] after `control.stop`, with everything saved.
pub fn run(study: &dyn Study, request: &Request, control: &Control<'_>) -> Result<StudyOutcome, Error> {
    let card = study.card();
    let plan = study.plan(request)?;
    let settings = Settings {
        study: card.name.to_owned(),
        budget: request.budget.name().to_owned(),
        seeds: request.seeds.clone(),
        details: plan.settings(),
    };
    let folder = RunFolder::open(&control.out, &settings, control.previous)?;
    let units = Crew::new(card, &*plan, &folder, control, &request.seeds).work()?;
    let results = Results::new(card, &request.seeds, units);
    let outcome = judge(card, &*plan, settings, results, &control.command);
    folder.keep_outcome(&outcome)?;
    Ok(outcome)
}

/// Applies the card's rules to the measurements.
fn judge(card: &Card, plan: &dyn Plan, settings: Settings, results: Results, command: &str) -> StudyOutcome {
    let findings: Vec<Finding> = card
        .claims
        .iter()
        .map(|claim| {
            let effects = results.seeds().map(|seed| (claim.effect)(&seed)).collect();
            let (effect, verdict) = claim.rule.judge(effects, claim.unit);
            Finding {
                claim: claim.id.to_owned(),
                says: claim.says.to_owned(),
                source: claim.source.to_owned(),
                measure: claim.measure.to_owned(),
                rule: claim.rule.words(claim.unit),
                verdict,
                effect,
            }
        })
        .collect();
    let arm =
        |arm: &super::Arm| Arm { name: arm.name.to_owned(), label: arm.label.to_owned(), tone: arm.tone };
    StudyOutcome {
        name: card.name.to_owned(),
        title: card.title.to_owned(),
        question: card.question.to_owned(),
        metric: card.metric.to_owned(),
        arms: card.arms.iter().map(arm).collect(),
        settings,
        verdict: verdict::weakest(findings.iter().map(|finding| finding.verdict)),
        findings,
        figures: plan.figures(&results),
        notes: plan.notes(),
        seconds: results.units().iter().map(|unit| unit.seconds).sum(),
        units: results.units().to_vec(),
        command: command.to_owned(),
        machine: Machine::here(),
    }
}

/// The threads that work on one study, and what they share.
struct Crew<'a> {
    card: &'a Card,
    plan: &'a dyn Plan,
    folder: &'a RunFolder,
    control: &'a Control<'a>,
    /// Arms and seeds, the longest first, so that no thread ends long after the others.
    queue: Vec<(usize, u64)>,
    next: AtomicUsize,
    failed: AtomicBool,
    bar: ProgressBar,
}

impl<'a> Crew<'a> {
    fn new(
        card: &'a Card,
        plan: &'a dyn Plan,
        folder: &'a RunFolder,
        control: &'a Control<'a>,
        seeds: &[u64],
    ) -> Self {
        let arms = 0..card.arms.len();
        let mut queue: Vec<_> =
            seeds.iter().flat_map(|&seed| arms.clone().map(move |arm| (arm, seed))).collect();
        queue.sort_by_key(|&(arm, _)| std::cmp::Reverse(plan.ticks(arm)));
        let bar = ProgressBar::new(queue.iter().map(|&(arm, _)| plan.ticks(arm)).sum());
        let style = ProgressStyle::with_template(
            "{prefix:>10} [{bar:32}] {percent:>3}%  {elapsed} gone, {eta} to go  {msg}",
        );
        bar.set_style(style.expect("the template is right").progress_chars("=> "));
        bar.set_prefix(card.name);
        Self {
            card,
            plan,
            folder,
            control,
            queue,
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            bar,
        }
    }

    /// Works through the queue. The first error stops all threads.
    fn work(self) -> Result<Vec<Measured>, Error> {
        let done = Mutex::new(Ok(Vec::new()));
        let most = if self.plan.alone() { 1 } else { self.queue.len().max(1) };
        let threads = self.control.threads.clamp(1, most);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(&(arm, seed)) = self.queue.get(self.next.fetch_add(1, Ordering::Relaxed)) {
                        if self.failed.load(Ordering::Relaxed) {
                            break;
                        }
                        let result = self.one(arm, seed);
                        let mut done = done.lock().expect("no thread panics while it holds the list");
                        match (result, &mut *done) {
                            (Ok(unit), Ok(list)) => list.push(unit),
                            (Err(error), list @ Ok(_)) => {
                                *list = Err(error);
                                self.failed.store(true, Ordering::Relaxed);
                            }
                            (_, Err(_)) => {}
                        }
                    }
                });
            }
        });
        self.bar.finish_and_clear();
        done.into_inner().expect("no thread panicked")
    }

    /// One unit, from wherever it stands to its end.
    fn one(&self, arm: usize, seed: u64) -> Result<Measured, Error> {
        let name = self.card.arms[arm].name;
        if let Some(measured) = self.folder.finished(name, seed)? {
            self.bar.inc(self.plan.ticks(arm));
            return Ok(measured);
        }
        let (before, saved) = match self.folder.state(name, seed)? {
            Some(saved) => unwrap_state(&saved, name, seed)?,
            None => (0.0, None),
        };
        let (start, mut last_saved) = (Instant::now(), Instant::now());
        let mut unit = self.plan.unit(arm, seed, saved.as_deref())?;
        let mut seen = unit.done();
        self.bar.inc(seen);
        self.bar.set_message(format!("{}, seed {seed}", self.card.arms[arm].label));
        let keep = |unit: &dyn super::Unit| match unit.save()? {
            Some(state) => {
                let seconds = before + start.elapsed().as_secs_f64();
                self.folder.keep_state(name, seed, &[&seconds.to_le_bytes()[..], &state].concat())
            }
            None => Ok(()),
        };
        loop {
            if self.stopped() {
                keep(&*unit)?;
                return Err(Error::Interrupted { again: self.control.again.clone() });
            }
            let more = unit.advance()?;
            self.bar.inc(unit.done() - seen);
            seen = unit.done();
            if !more {
                break;
            }
            if last_saved.elapsed() > BETWEEN_CHECKPOINTS {
                keep(&*unit)?;
                last_saved = Instant::now();
            }
        }
        let measured = unit.finish()?;
        let seconds = before + start.elapsed().as_secs_f64();
        let measured = Measured { arm: name.to_owned(), seed, seconds, ..measured };
        self.folder.keep(&measured)?;
        Ok(measured)
    }

    fn stopped(&self) -> bool {
        self.control.stop.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }
}

/// A state as the crew keeps it: the seconds spent so far, then the unit's own bytes.
fn unwrap_state(saved: &[u8], arm: &str, seed: u64) -> Result<(f64, Option<Vec<u8>>), Error> {
    match saved.split_first_chunk::<8>() {
        Some((seconds, state)) => Ok((f64::from_le_bytes(*seconds), Some(state.to_vec()))),
        None => Err(Error::State {
            unit: format!("{arm}, seed {seed}"),
            reason: format!("{} bytes, expected at least 8", saved.len()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::report::model::{Figure, Tone, Verdict};
    use crate::study::{Arm, Budget, Claim, Rule, Unit};

    /// Arm `two` counts twice as fast as arm `one`.
    struct Toy {
        /// Stops the run after this many steps, if any.
        stop_after: usize,
        steps: AtomicUsize,
        stop: AtomicBool,
    }
    struct ToyPlan<'a>(&'a Toy);
    struct Count<'a> {
        toy: &'a Toy,
        by: u64,
        value: u64,
        steps: u64,
    }

    static CARD: Card = Card {
        name: "toy",
        title: "A toy",
        question: "Does two count faster than one?",
        metric: "the count",
        arms: &[
            Arm { name: "one", label: "one", tone: Tone::Plain },
            Arm { name: "two", label: "two", tone: Tone::Layer },
        ],
        claims: &[Claim {
            id: "T1",
            says: "two counts faster",
            source: "here",
            measure: "difference of counts",
            effect: |seed| seed.value("two", "count") - seed.value("one", "count"),
            unit: "counts",
            rule: Rule::Exceeds(1.0),
        }],
        takes: ["", "", ""],
        seeds: [3, 3, 3],
        real_data: false,
    };

    impl Study for &'static Toy {
        fn card(&self) -> &'static Card {
            &CARD
        }
        fn plan(&self, _: &Request) -> Result<Box<dyn Plan>, Error> {
            Ok(Box::new(ToyPlan(self)))
        }
    }

    impl Plan for ToyPlan<'_> {
        fn settings(&self) -> BTreeMap<String, String> {
            BTreeMap::new()
        }
        fn ticks(&self, _: usize) -> u64 {
            10
        }
        fn unit(&self, arm: usize, seed: u64, saved: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
            let by = arm as u64 + 1;
            let (value, steps) = match saved {
                None => (seed, 0),
                Some(bytes) => {
                    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                    (word(0), word(8))
                }
            };
            Ok(Box::new(Count { toy: self.0, by, value, steps }))
        }
        fn figures(&self, _: &Results) -> Vec<Figure> {
            Vec::new()
        }
    }

    impl Unit for Count<'_> {
        fn done(&self) -> u64 {
            self.steps
        }
        fn advance(&mut self) -> Result<bool, Error> {
            // Not commutative, so that a lost or repeated step shows.
            self.value = self.value * 3 + self.by;
            self.steps += 1;
            if self.toy.steps.fetch_add(1, Ordering::Relaxed) + 1 == self.toy.stop_after {
                self.toy.stop.store(true, Ordering::Relaxed);
            }
            Ok(self.steps < 10)
        }
        fn save(&self) -> Result<Option<Vec<u8>>, Error> {
            Ok(Some([self.value.to_le_bytes(), self.steps.to_le_bytes()].concat()))
        }
        fn finish(self: Box<Self>) -> Result<Measured, Error> {
            let values = [("count".to_owned(), self.value as f64)].into();
            Ok(Measured { values, ..Measured::default() })
        }
    }

    fn toy(out: &Path, stop_after: usize, threads: usize, previous: Previous) -> Result<StudyOutcome, Error> {
        let toy: &'static Toy =
            Box::leak(Box::new(Toy { stop_after, steps: AtomicUsize::new(0), stop: AtomicBool::new(false) }));
        let request = Request { budget: Budget::Quick, seeds: vec![0, 1, 2], data: None };
        let control = Control {
            out: out.to_owned(),
            threads,
            previous,
            stop: &toy.stop,
            command: "layernorm toy".to_owned(),
            again: "layernorm toy --resume".to_owned(),
        };
        run(&toy, &request, &control)
    }

    fn counts(outcome: &StudyOutcome) -> Vec<(String, u64, f64)> {
        outcome.units.iter().map(|unit| (unit.arm.clone(), unit.seed, unit.values["count"])).collect()
    }

    #[test]
    fn threads_and_interruptions_change_nothing() {
        let out = tempfile::tempdir().unwrap();
        let whole = toy(out.path(), 0, 1, Previous::Respect).unwrap();
        assert_eq!(whole.verdict, Verdict::Reproduced);
        assert_eq!(whole.units.len(), 6);
        assert_eq!(counts(&toy(out.path(), 0, 4, Previous::Respect).unwrap()), counts(&whole));
        for stop_after in [1, 7, 10, 33, 59] {
            let out = tempfile::tempdir().unwrap();
            let stopped = toy(out.path(), stop_after, 2, Previous::Respect).unwrap_err();
            assert!(matches!(stopped, Error::Interrupted { .. }), "{stopped}");
            assert_eq!(stopped.exit_code(), 130);
            assert!(!out.path().join("toy/quick/result.json").exists());
            assert_eq!(counts(&toy(out.path(), 0, 2, Previous::Resume).unwrap()), counts(&whole));
        }
    }

    #[test]
    fn an_outcome_can_be_read_back() {
        let out = tempfile::tempdir().unwrap();
        let outcome = toy(out.path(), 0, 1, Previous::Respect).unwrap();
        let read = crate::study::store::outcomes(out.path(), &["toy", "absent"]).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(counts(&read[0]), counts(&outcome));
        assert_eq!(read[0].findings[0].effect, outcome.findings[0].effect);
    }
}
