//! The worst errors against the oracles, at every level, over distributions and breaking rows.

use super::judge::{Ran, Worst};
use super::rows::{Draw, Spread, breaking, breaking_f64};
use super::{Checker, Equal};
use crate::error::Error;
use crate::interrupt;
use crate::operators::{Float, How, Operator, Problem, Slot, Tensors, differing};
use indicatif::ProgressBar;
use layernorm::{Level, Run, Threads};
use rayon::prelude::*;

/// Lengths of rows: around lanes (32, 16), blocks (256, 128), pairs and trees of blocks.
const LENGTHS: &[usize] = &[
    1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 64, 100, 127, 128, 129, 255, 256, 257, 511, 512, 513, 768, 1024,
    1500, 4096, 16385, 65536,
];

/// |mean| / std.
const MEANS: &[f64] = &[0.0, 1.0, -1e3, 1e5];

const EPS: &[f64] = &[0.0, 1e-12, 1e-6, 1e-5, 1e-3];

/// Rows of one kind, and how they are normalised.
#[derive(Debug, Clone)]
struct Case {
    at: String,
    rows: Rows,
    eps: f64,
    /// The index of the case: the seed of its parameters and gradient, and of its rows.
    index: u32,
}

#[derive(Debug, Clone)]
enum Rows {
    Spread { spread: Spread, mean: f64, rows: usize, n: usize },
    Given(Vec<f64>),
}

/// Everything that a case gives.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) worst: Worst,
    /// Every level against the first.
    pub(super) levels: Equal,
}

impl Findings {
    pub(super) fn merge(self, other: Self) -> Self {
        Self { worst: self.worst.merge(other.worst), levels: self.levels.and(other.levels) }
    }
}

/// All errors in `T`.
pub(super) fn run<T: Float>(checker: &Checker<'_>, bar: &ProgressBar) -> Result<Findings, Error> {
    let cases = cases::<T>(checker);
    bar.inc_length(cases.len() as u64);
    let judge = |case: &Case| {
        interrupt::check(checker.stop)?;
        let findings = judge_case::<T>(checker, case)?;
        bar.inc(1);
        Ok(findings)
    };
    cases.par_iter().with_max_len(1).map(judge).try_reduce(Findings::default, |a, b| Ok(a.merge(b)))
}

/// The cases in `T`; f64 takes a part of them, because double-doubles are slow.
fn cases<T: Float>(checker: &Checker<'_>) -> Vec<Case> {
    let double = T::NAME == f64::NAME;
    let budget = match (checker.thorough, double) {
        (false, false) => 4096,
        (false, true) => 256,
        (true, false) => 1 << 18,
        (true, true) => 1 << 14,
    };
    let longest = if checker.thorough {
        usize::MAX
    } else if double {
        5000
    } else {
        65536
    };
    let mut cases = Vec::new();
    for (i, spread) in Spread::ALL.into_iter().enumerate() {
        for (j, &mean) in MEANS.iter().enumerate() {
            for (k, &n) in LENGTHS.iter().enumerate().filter(|(_, n)| **n <= longest) {
                // A quick check takes a long row for each spread and each mean, not for each pair.
                if !checker.thorough && n > 5000 && (i + j + k) % MEANS.len() != 0 {
                    continue;
                }
                let rows = (budget / n).clamp(1, 64);
                let at = format!("{}, mean {} std, N = {n}", spread.name(), mean);
                cases.push((at, Rows::Spread { spread, mean, rows, n }, EPS[(i + j + k) % EPS.len()]));
            }
        }
    }
    let given = if double {
        [breaking(checker.seed), breaking_f64(checker.seed)].concat()
    } else {
        breaking(checker.seed)
    };
    for (name, row) in given.into_iter().filter(|(_, row)| row.len() <= longest) {
        cases.extend(EPS.iter().map(|&eps| (format!("{name}, eps {eps:e}"), Rows::Given(row.clone()), eps)));
    }
    (0..).zip(cases).map(|(index, (at, rows, eps))| Case { at, rows, eps, index }).collect()
}

fn judge_case<T: Float>(checker: &Checker<'_>, case: &Case) -> Result<Findings, Error> {
    let draw = &mut Draw::new(checker.seed, case.index);
    let (rows, x) = match &case.rows {
        Rows::Given(row) => (1, row.clone()),
        Rows::Spread { spread, mean, rows, n } => {
            // Of a size that f32 and f64 can square.
            let scale = draw.power_of_ten(-3.0, 3.0);
            let x = (0..*rows).flat_map(|_| spread.row(draw, *n, *mean)).map(|x| x * scale);
            (*rows, x.collect())
        }
    };
    let problem = Problem::matrix(rows, x.len() / rows, case.eps);
    let mut inputs = inputs::<T>(&problem, &x, case.index, draw);
    inputs.dy = Some(gradient(&problem, case.index, draw));
    let ran = Ran { operator: checker.operators[0], level: Level::Portable, at: &case.at, rows };
    let mut findings = Findings::default();
    for &operator in &checker.operators {
        findings = findings.merge(judge_inputs(checker, &problem, &inputs, Ran { operator, ..ran })?);
    }
    Ok(findings)
}

/// One operator at every level.
fn judge_inputs<T: Float>(
    checker: &Checker<'_>,
    problem: &Problem,
    inputs: &Tensors<T>,
    ran: Ran<'_>,
) -> Result<Findings, Error> {
    let expected = (T::kernels(ran.operator).oracle)(problem, inputs);
    let mut findings = Findings::default();
    let mut first: Option<Tensors<T>> = None;
    for &level in &checker.levels {
        let mut tensors = inputs.clone();
        let written = ran.operator.run(problem, &one_thread(level), &mut tensors)?;
        for of in expected.iter().filter(|of| written.contains(&of.slot)) {
            let output = tensors.get(of.slot).map_or(&[][..], Vec::as_slice);
            findings.worst.judge(Ran { level, ..ran }, output, of);
        }
        match &first {
            None => first = Some(tensors),
            Some(first) => findings.levels.compare(first, &tensors, &written),
        }
    }
    Ok(findings)
}

/// In the calling thread, at this level.
pub(super) fn one_thread(level: Level) -> How {
    How { run: Run::default().with_level(level).with_threads(Threads::One), ..How::default() }
}

/// x with parameters: per unit, shared or absent, by turns.
pub(super) fn inputs<T: Float>(problem: &Problem, x: &[f64], turn: u32, draw: &mut Draw) -> Tensors<T> {
    let n = problem.features();
    let mut parameters = |len: usize| {
        let parameters = (0..len).map(|_| T::narrow(draw.normal() * draw.power_of_ten(-1.0, 1.0)));
        Some(parameters.collect::<Vec<T>>())
    };
    let (weight, bias) = match turn % 4 {
        0 | 1 => (parameters(n), parameters(n)),
        2 => (parameters(1), parameters(1)),
        _ => (None, None),
    };
    Tensors { x: Some(x.iter().map(|&x| T::narrow(x)).collect()), weight, bias, ..Tensors::default() }
}

/// Gradients of the output: normal, with a heavy tail, constant (nothing is left of it), or of one output only.
fn gradient<T: Float>(problem: &Problem, turn: u32, draw: &mut Draw) -> Vec<T> {
    let (n, size) = (problem.features().max(1), draw.power_of_ten(-2.0, 2.0));
    let spread = match turn / 4 % 5 {
        0 | 1 => Spread::Normal,
        2 => Spread::Cauchy,
        3 => Spread::OneHot,
        _ => return vec![T::narrow(size); problem.rows() * n],
    };
    let rows = (0..problem.rows()).flat_map(|_| spread.row(draw, n, 0.0));
    rows.map(|dy| T::narrow(dy * size)).collect()
}

/// Rows of a batch of random rows.
const BATCH: u64 = 64;

/// Random rows, forward, in f32: at the widest level, and one batch of fifteen at every level.
pub(super) fn random_rows(checker: &Checker<'_>, rows: u64, bar: &ProgressBar) -> Result<Findings, Error> {
    let batches = rows.div_ceil(BATCH);
    bar.inc_length(batches);
    let judge = |index: u32| {
        interrupt::check(checker.stop)?;
        let levels = if index.is_multiple_of(15) {
            &checker.levels[..]
        } else {
            &checker.levels[checker.levels.len() - 1..]
        };
        let checker = Checker { levels: levels.to_vec(), operators: checker.operators.clone(), ..*checker };
        let findings = random_batch(&checker, index)?;
        bar.inc(1);
        Ok(findings)
    };
    let batches = u32::try_from(batches).unwrap_or(u32::MAX);
    (0..batches).into_par_iter().map(judge).try_reduce(Findings::default, |a, b| Ok(a.merge(b)))
}

/// One batch: all of its rows are alike.
fn random_batch(checker: &Checker<'_>, index: u32) -> Result<Findings, Error> {
    let draw = &mut Draw::new(checker.seed ^ 0xfeed, index);
    // Lengths about even in their logarithm: as many of 4 to 7 numbers as of 1024 to 2047.
    let octave = 1 << draw.below(11);
    let n = octave + draw.below(octave);
    let spread = draw.any(&Spread::ALL);
    let mean = if draw.below(4) == 0 { 0.0 } else { draw.power_of_ten(-1.0, 5.0) };
    let (scale, eps) = (draw.power_of_ten(-3.0, 3.0), draw.any(EPS));
    let x: Vec<f64> = (0..BATCH).flat_map(|_| spread.row(draw, n, mean)).map(|x| x * scale).collect();
    let problem = Problem::matrix(x.len() / n, n, eps);
    let inputs = inputs::<f32>(&problem, &x, index, draw);
    let at = format!("random: {}, mean {mean:.0} std, N = {n}", spread.name());
    let mut findings = Findings::default();
    for &operator in &checker.operators {
        let ran = Ran { operator, level: Level::Portable, at: &at, rows: problem.rows() };
        findings = findings.merge(judge_inputs(checker, &problem, &inputs, ran)?);
    }
    Ok(findings)
}

impl Equal {
    /// Compares the outputs that were written.
    pub(super) fn compare<T: Float>(&mut self, a: &Tensors<T>, b: &Tensors<T>, written: &[Slot]) {
        for &slot in written {
            let [a, b] = [a, b].map(|tensors| tensors.get(slot).map_or(&[][..], Vec::as_slice));
            self.slices(a, b);
        }
    }

    /// Compares two slices.
    pub(super) fn slices<T: Float>(&mut self, a: &[T], b: &[T]) {
        self.cases += 1;
        self.differing += u64::from(differing(a, b) > 0);
    }
}

/// Which operators a check goes through.
pub(super) fn operators(names: &[&'static Operator]) -> Vec<&'static Operator> {
    if names.is_empty() { crate::operators::ALL.iter().collect() } else { names.to_vec() }
}
