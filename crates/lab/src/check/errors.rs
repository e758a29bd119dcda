//! The worst errors against the oracles, at every level, over distributions and breaking rows.

use super::judge::{Ran, Worst};
use super::rows::{Draw, Spread, breaking, breaking_f64};
use super::{Checker, Equal};
use crate::error::Error;
use crate::interrupt;
use crate::operators::{
    Acc, Extent, Given, How, Kind, Number, Operator, Options, Problem, Slot, Tensors, Types, View,
};
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
pub(super) fn run<T: Types>(checker: &Checker<'_>, bar: &ProgressBar) -> Result<Findings, Error> {
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

/// The cases in `T`; f64 takes a part of them, because double-doubles are slow, and so do halves, to leave time.
fn cases<T: Types>(checker: &Checker<'_>) -> Vec<Case> {
    let (double, single) = (T::NAME == "f64", T::NAME == "f32");
    let budget = match (checker.thorough, single) {
        (false, true) => 4096,
        (false, false) => 256,
        (true, true) => 1 << 18,
        (true, false) => 1 << 14,
    };
    let longest = match (checker.thorough, single) {
        (true, _) => usize::MAX,
        (_, false) => 5000,
        (_, true) => 65536,
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

fn judge_case<T: Types>(checker: &Checker<'_>, case: &Case) -> Result<Findings, Error> {
    let draw = &mut Draw::new(checker.seed, case.index);
    let (rows, x, scale) = match &case.rows {
        Rows::Given(row) => (1, row.clone(), 0.0),
        Rows::Spread { spread, mean, rows, n } => {
            // Of a size that f32 and f64 can square.
            let scale = draw.power_of_ten(-3.0, 3.0);
            let x = (0..*rows).flat_map(|_| spread.row(draw, *n, *mean)).map(|x| x * scale);
            (*rows, x.collect(), scale)
        }
    };
    let sets = Sets { rows, x: &x, scale, eps: case.eps, turn: case.index };
    judge_operators::<T>(checker, &sets, &case.at, draw)
}

/// Those operators whose turn it is.
fn judge_operators<T: Types>(
    checker: &Checker<'_>,
    sets: &Sets<'_>,
    at: &str,
    draw: &mut Draw,
) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    for (i, &operator) in checker.operators.iter().enumerate() {
        if !has_types::<T>(operator) || !(checker.thorough || checker.takes(i, sets.turn)) {
            continue;
        }
        let (problem, inputs) = sets.inputs::<T>(operator, draw);
        let ran = Ran { operator, level: Level::Portable, at, rows: sets.rows };
        findings = findings.merge(judge_inputs(checker, &problem, &inputs, ran)?);
    }
    Ok(findings)
}

/// Do these types make a difference to the operator? Parameters in f32 don't where it has none.
pub(super) fn has_types<T: Types>(operator: &Operator) -> bool {
    let wide = |unit: f64| unit < T::E::UNIT;
    match (wide(T::P::UNIT), wide(T::R::UNIT)) {
        (_, true) => operator.has(Kind::R),
        (true, _) => operator.has(Kind::P),
        _ => true,
    }
}

/// One operator at every level.
fn judge_inputs<T: Types>(
    checker: &Checker<'_>,
    problem: &Problem,
    inputs: &Tensors<T>,
    ran: Ran<'_>,
) -> Result<Findings, Error> {
    let expected = (ran.operator.oracle)(problem, &Given::new(problem, inputs));
    let mut findings = Findings::default();
    let mut first: Option<Tensors<T>> = None;
    for &level in &checker.levels {
        let mut tensors = inputs.clone();
        let written = ran.operator.run(problem, &one_thread(level), &mut tensors)?;
        for of in expected.iter().filter(|of| written.contains(&of.slot)) {
            findings.worst.judge(Ran { level, ..ran }, &tensors, of);
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

/// Numbers to be normalised in sets, from which an operator's inputs are made.
pub(super) struct Sets<'a> {
    pub(super) rows: usize,
    /// The sets, one after the other.
    pub(super) x: &'a [f64],
    /// How large the numbers are; 0 where nothing may be added to them.
    pub(super) scale: f64,
    pub(super) eps: f64,
    /// What varies the parameters, the gradient and the shape.
    pub(super) turn: u32,
}

impl Sets<'_> {
    /// An operator's inputs.
    pub(super) fn inputs<T: Types>(&self, operator: &Operator, draw: &mut Draw) -> (Problem, Tensors<T>) {
        let turn = self.turn as usize;
        let n = self.x.len() / self.rows;
        let mut options = Options { eps: self.eps, ..Options::default() };
        operator.flags.iter().for_each(|flag| flag.vary(&mut options, n, turn));
        let problem = Problem::of_sets(operator, self.rows, n, options, turn);
        let mut tensors = Tensors::default();
        // The number of entries that an index picks from.
        let entries = 1 + turn % 5;
        for slot in operator.reads() {
            let extent = (operator.extent)(slot);
            let len = if extent == Extent::Entries { entries * n } else { problem.len(extent) };
            let numbers: Option<Vec<f64>> = if slot == operator.input() {
                Some(self.arranged(&problem, room::<T>(operator)))
            } else if Some(slot) == operator.output_gradient() {
                Some(gradient(&problem, self.turn, draw))
            } else {
                match slot {
                    Slot::Index => Some((0..len).map(|_| draw.below(entries) as f64).collect()),
                    Slot::Valid if turn.is_multiple_of(2) => None,
                    Slot::Valid => Some((0..len).map(|_| f64::from(u8::from(draw.below(4) > 0))).collect()),
                    // Of the size of x, so that the sum is like x; nothing where x is peculiar.
                    // A dropout mask, where there is one.
                    Slot::Mask if turn.is_multiple_of(2) => None,
                    Slot::Mask => {
                        Some((0..len).map(|_| if draw.below(4) == 0 { 0.0 } else { 4.0 / 3.0 }).collect())
                    }
                    Slot::BranchBias if turn % 3 < 2 || self.scale == 0.0 => None,
                    Slot::Residual => {
                        let largest = room::<T>(operator);
                        let number = |_| (draw.normal() * self.scale).clamp(-largest, largest);
                        Some((0..len).map(number).collect())
                    }
                    Slot::RunningMean => Some((0..len).map(|_| draw.normal() * self.scale).collect()),
                    Slot::RunningVar => Some((0..len).map(|_| draw.power_of_ten(-2.0, 2.0)).collect()),
                    _ => {
                        let lens: Vec<usize> =
                            problem.shapes(extent).iter().map(|dims| dims.iter().product()).collect();
                        let len = match turn % 4 {
                            _ if extent == Extent::Entries => Some(len),
                            2 if extent.can_be_shared() => Some(1),
                            3 if extent.can_be_shared() => None,
                            other => Some(lens[other % lens.len()]),
                        };
                        let number = |draw: &mut Draw| draw.normal() * draw.power_of_ten(-1.0, 1.0);
                        len.map(|len| (0..len).map(|_| number(draw)).collect())
                    }
                }
            };
            if let Some(numbers) = numbers {
                tensors.fill(slot, numbers);
            }
        }
        (problem, tensors)
    }

    /// The sets where the operator looks for them, none of them beyond what there is room for.
    fn arranged(&self, problem: &Problem, largest: f64) -> Vec<f64> {
        let n = problem.features();
        let mut x = vec![0.0; self.x.len()];
        for (i, value) in self.x.iter().enumerate() {
            x[problem.place(i / n, i % n)] = value.clamp(-largest, largest);
        }
        x
    }
}

/// The largest number that an operator can take without leaving its type, whose results could be anything: where there
/// is a residual, a sum must fit, and where there is a gate, sums of products.
fn room<T: Types>(operator: &Operator) -> f64 {
    let reads = |slot| operator.reads().any(|reads| reads == slot);
    match (reads(Slot::Residual), reads(Slot::Gate)) {
        (_, true) => (T::E::LARGEST / 64.0).min(Acc::<T>::LARGEST * 1e-12),
        (true, _) => T::E::LARGEST / 4.0,
        _ => T::E::LARGEST,
    }
}

/// Gradients of the output: normal, with a heavy tail, constant (nothing is left of it), or of one output only.
fn gradient(problem: &Problem, turn: u32, draw: &mut Draw) -> Vec<f64> {
    let (rows, n, size) = (problem.rows(), problem.features(), draw.power_of_ten(-2.0, 2.0));
    let spread = match turn / 4 % 5 {
        0 | 1 => Spread::Normal,
        2 => Spread::Cauchy,
        3 => Spread::OneHot,
        _ => return vec![size; rows * n],
    };
    let mut dy = vec![0.0; rows * n];
    for row in 0..rows {
        for (j, value) in spread.row(draw, n, 0.0).into_iter().enumerate() {
            dy[problem.place(row, j)] = value * size;
        }
    }
    dy
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
    let at = format!("random: {}, mean {mean:.0} std, N = {n}", spread.name());
    let mut findings = Findings::default();
    for (_, &operator) in checker.operators.iter().enumerate().filter(|(i, _)| checker.takes(*i, index)) {
        let sets = Sets { rows: x.len() / n, x: &x, scale, eps, turn: index };
        let (problem, mut inputs) = sets.inputs::<f32>(operator, draw);
        operator.output_gradient().into_iter().for_each(|slot| inputs.clear(slot));
        let ran = Ran { operator, level: Level::Portable, at: &at, rows: sets.rows };
        findings = findings.merge(judge_inputs(checker, &problem, &inputs, ran)?);
    }
    Ok(findings)
}

impl Equal {
    /// Compares the outputs that were written.
    pub(super) fn compare<T: Types>(&mut self, a: &Tensors<T>, b: &Tensors<T>, written: &[Slot]) {
        for &slot in written {
            self.views(a.get(slot), b.get(slot));
        }
    }

    /// Compares two tensors, or parts of them: an absent one equals nothing.
    pub(super) fn views<T: Types>(&mut self, a: Option<View<'_, T>>, b: Option<View<'_, T>>) {
        self.holds(a.zip(b).is_some_and(|(a, b)| a.differing(b) == 0));
    }
}

/// Which operators a check goes through.
pub(super) fn operators(names: &[&'static Operator]) -> Vec<&'static Operator> {
    if names.is_empty() { crate::operators::ALL.iter().collect() } else { names.to_vec() }
}
