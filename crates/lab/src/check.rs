//! `layernorm check`: is it right on this machine?

mod bits;
mod errors;
mod floating;
mod judge;
mod rows;
mod show;

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Args;
use half::{bf16, f16};
use layernorm::Level;

use crate::console;
use crate::error::Error;
use crate::operators::{Operator, Wide, WideResidual, by_name};
use crate::report::model::{BitCase, CheckSummary, LevelStatus};

pub use show::show;

/// Random rows of a thorough check.
const RANDOM_ROWS: u64 = 10_000_000;

/// Odd, and like no other number: multiples of it are scattered over all numbers.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The arguments of `layernorm check`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_long_help = "\
Two things are judged.

Errors. Every output of every operator is compared with an oracle: f32 kernels and those of halves with the crate's
reference in f64, f64 kernels with double-doubles (106 bits). An error is given in u, half the distance from 1 to the
next number of the type that sums are in (2^-24 for f32 and halves, 2^-53 for f64), times the scale of the bound; the
table shows the worst and what is allowed. Halves may err by half the distance to their own next number besides.
  y        8 |weight| max(1, |x_hat|) + |y|     with nothing subtracted, as in rms_norm: 8 |weight x_hat| + |y|
  mean     8 std + |mean|
  rstd     8 rstd
  dx       16 rstd max|weight dy| max(1, |x_hat|)
  dweight  (16 + log2 rows) sum |dy| max(1, |x_hat|)
  dbias    (8 + log2 rows) sum |dy|
scale, shift, gate and the like as the weight and bias that they are. What is made of y (SiLU of it, y in eight bits) may
err by what y may, carried through. Options are varied with the rows. Asked for everything, a quick check divides the
rows among the operators, a thorough one its random rows; asked for one or two, they take them all. Rows are normal, uniform, lognormal, Cauchy, one-hot, ramps and random walks, with means up to 1e5 standard
deviations; rows that broke other libraries; rows at the ends of the type's range, and constant ones.

Bits. What must not change a bit is varied, and results are compared bit by bit.

An instruction set that this machine lacks is listed as skipped: it did not pass, it was not tested.
Nothing is written. Exit status: 0 everything held, 1 something did not, 2 bad use, 130 Ctrl-C.

Examples:
  layernorm check
  layernorm check --operators rms_norm --level avx2
  layernorm check --thorough --json > check.json
  layernorm check --thorough --errors --rows 100000 --operators qk_norm,lp_norm")]
pub struct CheckArgs {
    /// 10 million random rows, longer rows, more of everything: some minutes
    #[arg(long)]
    pub thorough: bool,
    /// So many random rows instead
    #[arg(long, value_name = "N", requires = "thorough")]
    pub rows: Option<u64>,
    /// Judge errors alone, not bits
    #[arg(long)]
    pub errors: bool,
    /// Only these operators, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "OP", value_parser = by_name())]
    pub operators: Vec<&'static Operator>,
    /// Only this instruction set
    #[arg(long, value_parser = crate::cli::level())]
    pub level: Option<Level>,
    /// Another seed, other rows
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is checked.
struct Checker<'a> {
    operators: Vec<&'static Operator>,
    /// The levels of this machine, the plainest first.
    levels: Vec<Level>,
    thorough: bool,
    seed: u64,
    stop: &'a AtomicBool,
}

impl Checker<'_> {
    /// Into how many parts work is divided among many operators: each piece is done by two of them.
    fn shares(&self) -> usize {
        self.operators.len().div_ceil(2)
    }

    /// Does an operator, by its place in the list, take number `index` of the work? Scattered, so that no operator meets
    /// the same lengths alone, or the same options.
    fn takes(&self, operator: usize, index: u32) -> bool {
        let scattered = u64::from(index).wrapping_mul(SCATTER) >> 32;
        scattered % self.shares() as u64 == (operator % self.shares()) as u64
    }
}

/// How often something was compared, and how often it differed.
#[derive(Debug, Clone, Copy, Default)]
struct Equal {
    cases: u64,
    differing: u64,
}

impl Equal {
    fn and(self, other: Self) -> Self {
        Self { cases: self.cases + other.cases, differing: self.differing + other.differing }
    }

    fn holds(&mut self, held: bool) {
        self.cases += 1;
        self.differing += u64::from(!held);
    }
}

/// `layernorm check`: says whether everything held.
///
/// # Errors
/// A level that the machine lacks, or Ctrl-C.
pub fn command(arguments: &CheckArgs, stop: &AtomicBool) -> Result<bool, Error> {
    let summary = run(arguments, stop)?;
    if arguments.json {
        console::print_json(&summary)?
    } else {
        console::print(&show(&summary))?
    }
    Ok(summary.passed)
}

/// Checks.
///
/// # Errors
/// A level that the machine lacks, or Ctrl-C.
pub fn run(arguments: &CheckArgs, stop: &AtomicBool) -> Result<CheckSummary, Error> {
    let start = Instant::now();
    let levels = match arguments.level {
        Some(level) if level.is_available() => vec![level],
        Some(asked) => return Err(layernorm::Error::Level { asked, best: Level::best() }.into()),
        None => Level::available().collect(),
    };
    let checker = Checker {
        operators: errors::operators(&arguments.operators),
        levels,
        thorough: arguments.thorough,
        seed: arguments.seed,
        stop,
    };
    let bar = console::progress(if arguments.errors { 0 } else { bits::steps(&checker) }, "check");
    let mut findings = errors::run::<f32>(&checker, &bar)?.merge(errors::run::<f64>(&checker, &bar)?);
    findings =
        findings.merge(errors::run::<f16>(&checker, &bar)?).merge(errors::run::<bf16>(&checker, &bar)?);
    findings = findings.merge(errors::run::<Wide<f16>>(&checker, &bar)?);
    findings = findings.merge(errors::run::<Wide<bf16>>(&checker, &bar)?);
    findings = findings.merge(errors::run::<WideResidual<f16>>(&checker, &bar)?);
    findings = findings.merge(errors::run::<WideResidual<bf16>>(&checker, &bar)?);
    if checker.thorough {
        findings =
            findings.merge(errors::random_rows(&checker, arguments.rows.unwrap_or(RANDOM_ROWS), &bar)?);
    }
    let levels = findings.levels;
    let mut bits = vec![BitCase {
        what: "instruction sets, on all rows above".into(),
        cases: levels.cases,
        differing: levels.differing,
    }];
    if !arguments.errors {
        bits.extend(bits::run(&checker, &bar)?);
    }
    bar.finish_and_clear();
    let errors = findings.worst.into_report();
    let kept = errors.iter().all(|error| error.worst <= error.bound);
    Ok(CheckSummary {
        passed: kept && bits.iter().all(|case| case.differing == 0),
        command: command_line(arguments),
        seconds: start.elapsed().as_secs_f64(),
        levels: Level::ALL.map(|level| status(level, &checker.levels)).into(),
        errors,
        bits,
        notes: notes(arguments),
    })
}

fn status(level: Level, tested: &[Level]) -> LevelStatus {
    let note = match (tested.contains(&level), level.is_available()) {
        (true, _) if level == Level::best() => "tested; the default here",
        (true, _) => "tested",
        (_, true) => "skipped: not asked for",
        _ => "skipped: this machine lacks it",
    };
    LevelStatus { name: level.to_string(), available: tested.contains(&level), note: note.into() }
}

fn notes(arguments: &CheckArgs) -> Vec<String> {
    let mut notes =
        vec![format!("seed {}; order of additions, version {}", arguments.seed, layernorm::ORDER_VERSION)];
    let flushing = floating::flushing();
    if flushing.is_empty() {
        notes.push("the floating-point environment is the default one: the smallest numbers are kept".into());
    }
    notes.extend(flushing.into_iter().map(|what| format!("{what}; bits and bounds are promised without it")));
    notes
}

/// The command that repeats it.
fn command_line(arguments: &CheckArgs) -> String {
    let mut command = "layernorm check".to_owned();
    if arguments.thorough {
        command += " --thorough";
    }
    if let Some(rows) = arguments.rows {
        command += &format!(" --rows {rows}");
    }
    if arguments.errors {
        command += " --errors";
    }
    if !arguments.operators.is_empty() {
        let names: Vec<&str> = arguments.operators.iter().map(|operator| operator.name).collect();
        command += &format!(" --operators {}", names.join(","));
    }
    if let Some(level) = arguments.level {
        command += &format!(" --level {level}");
    }
    if arguments.seed != 0 {
        command += &format!(" --seed {}", arguments.seed);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::{ALL, How, Kernels, Number, Pass, Problem, Table, Tensors};
    use indicatif::ProgressBar;

    static GO_ON: AtomicBool = AtomicBool::new(false);

    fn checker(operator: &'static Operator) -> Checker<'static> {
        let levels = Level::available().collect();
        Checker { operators: vec![operator], levels, thorough: false, seed: 0, stop: &GO_ON }
    }

    const fn with_forward(forward: Pass<f32>) -> Table {
        let kernels = ALL[0].kernels;
        Table { f32: Kernels { forward, ..kernels.f32 }, ..kernels }
    }

    /// Layer norm by the mean of squares, as some libraries do it.
    fn one_pass(problem: &Problem, how: &How, tensors: &mut Tensors<f32>) -> Result<(), layernorm::Error> {
        (ALL[0].kernels.f32.forward)(problem, how, tensors)?;
        let (Some(x), Some(y)) = (&tensors.x, &mut tensors.y) else { return Ok(()) };
        let n = problem.features() as f32;
        let parameter = |values: &Option<Vec<f32>>, absent: f32, j: usize| {
            values.as_ref().map_or(absent, |values| values[if values.len() == 1 { 0 } else { j }])
        };
        for (x, y) in x.chunks(problem.features()).zip(y.chunks_mut(problem.features())) {
            let mean = x.iter().sum::<f32>() / n;
            let var = x.iter().map(|x| x * x).sum::<f32>() / n - mean * mean;
            let r = 1.0 / (var + f32::narrow(problem.eps())).sqrt();
            for (j, (x, y)) in x.iter().zip(y).enumerate() {
                *y = (x - mean) * r * parameter(&tensors.weight, 1.0, j) + parameter(&tensors.bias, 0.0, j);
            }
        }
        Ok(())
    }

    #[test]
    fn an_inaccurate_kernel_is_found_out() {
        static ONE_PASS: Operator = Operator { name: "one_pass", kernels: with_forward(one_pass), ..ALL[0] };
        let findings = errors::run::<f32>(&checker(&ONE_PASS), &ProgressBar::hidden()).unwrap();
        for error in findings.worst.into_report() {
            assert_eq!(error.worst > error.bound, error.quantity == "y", "{error:?}");
        }
    }

    /// Layer norm that looks at the size of its batch, lets NaN out of its row and writes between rows.
    fn careless(problem: &Problem, how: &How, tensors: &mut Tensors<f32>) -> Result<(), layernorm::Error> {
        (ALL[0].kernels.f32.forward)(problem, how, tensors)?;
        let poisoned = tensors.x.as_ref().is_some_and(|x| x.iter().any(|x| x.is_nan()));
        let Some(y) = tensors.y.as_mut() else { return Ok(()) };
        if problem.rows() == 683 {
            y[0] = y[0].next_up();
        }
        if poisoned {
            y[problem.features()] = f32::NAN;
        }
        if let Some([_, layout]) = how.layout
            && layout.stride > problem.features()
        {
            y[layout.offset + problem.features()] = 0.0;
        }
        Ok(())
    }

    #[test]
    fn a_careless_kernel_is_found_out() {
        static CARELESS: Operator = Operator { name: "careless", kernels: with_forward(careless), ..ALL[0] };
        for case in bits::run(&checker(&CARELESS), &ProgressBar::hidden()).unwrap() {
            let found = ["batches", "rows apart", "NaN"].iter().any(|start| case.what.starts_with(start));
            assert_eq!(case.differing > 0, found, "{case:?}");
        }
    }

    #[test]
    fn every_level_is_listed_and_none_passes_untested() {
        let levels = [Level::Portable];
        for level in Level::ALL {
            let status = status(level, &levels);
            assert_eq!(status.available, level == Level::Portable);
            assert_eq!(status.note.starts_with("skipped"), level != Level::Portable, "{status:?}");
        }
    }
}
