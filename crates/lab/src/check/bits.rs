//! What must not change a bit, and whether it does.

use super::errors::{inputs, one_thread};
use super::rows::{Draw, Spread};
use super::{Checker, Equal};
use crate::error::Error;
use crate::interrupt;
use crate::operators::{Extent, Float, How, Layout, Operator, Problem, Slot, Tensors};
use crate::report::model::BitCase;
use indicatif::ProgressBar;
use layernorm::{Level, Run, Threads};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::ops::Range;

/// Rows and features. The kernels change their ways where rows are longer than a block (256 numbers; f64: 128), where
/// an output reaches 2 MiB (683 rows of 768 in f32), where rows of such an output are longer than 2 KiB (512 numbers
/// in f32), and, over threads, at 32768 numbers for each.
const SHAPES: &[(usize, usize)] = &[
    (1000, 64),
    (700, 768),
    (40, 513),
    (67, 31),
    (9, 8192),
    (129, 4096),
    (3, 100_000),
    (9001, 61),
    (1030, 512),
    (1025, 256),
];

/// Threads that a batch is split over.
const THREADS: [usize; 4] = [1, 2, 3, 7];

/// The largest batch.
const BATCH: usize = 1000;

/// What lies between rows, and must still lie there afterwards.
const BETWEEN: f64 = 12345.0;

/// A batch, an operator, and what it gives in one thread at the widest level.
struct Bits<'a, T> {
    checker: &'a Checker<'a>,
    pools: &'a [ThreadPool],
    operator: &'static Operator,
    problem: Problem,
    inputs: Tensors<T>,
    /// At that level, over the threads of the pool.
    how: How,
    base: Tensors<T>,
    written: Vec<Slot>,
}

type Test<'a, T> = fn(&Bits<'a, T>) -> Result<Equal, Error>;

/// Everything that is varied, and how.
fn tests<'a, T: Float>() -> [(&'static str, Test<'a, T>); 9] {
    [
        ("instruction sets, over threads", Bits::levels),
        ("1, 2, 3 and 7 threads", Bits::threads),
        ("batches of 1 to 1000 rows", Bits::batches),
        ("a row alone, and at its place in a batch", Bits::alone),
        ("rows apart and unaligned, nothing written between", Bits::strides),
        ("in place", Bits::in_place),
        ("statistics saved, or taken again", Bits::unsaved),
        ("a batch split at aligned rows, gradients added to others", Bits::shards),
        ("NaN and infinities in other rows", Bits::poisoned),
    ]
}

/// A batch for an operator: its index in [`SHAPES`], and whether in f64.
type Job = (&'static Operator, u32, bool);

fn jobs(checker: &Checker<'_>) -> Vec<Job> {
    let shapes = || (0u32..).zip(SHAPES).map(|(index, _)| index);
    let of =
        |&operator| shapes().flat_map(move |shape| [false, true].map(|double| (operator, shape, double)));
    checker.operators.iter().flat_map(of).collect()
}

/// The steps of [`run`].
pub(super) fn steps(checker: &Checker<'_>) -> u64 {
    jobs(checker).len() as u64
}

/// Everything, for every operator, in f32 and f64.
pub(super) fn run(checker: &Checker<'_>, bar: &ProgressBar) -> Result<Vec<BitCase>, Error> {
    let pools = THREADS.map(crate::cli::pool).into_iter().collect::<Result<Vec<_>, _>>()?;
    let one = |&(operator, shape, double): &Job| {
        let results = if double {
            one::<f64>(checker, &pools, operator, shape)
        } else {
            one::<f32>(checker, &pools, operator, shape)
        };
        bar.inc(1);
        results
    };
    let results: Vec<Vec<Equal>> =
        jobs(checker).par_iter().with_max_len(1).map(one).collect::<Result<_, _>>()?;
    let cases = tests::<f32>().into_iter().enumerate().map(|(test, (what, _))| {
        let of = results.iter().fold(Equal::default(), |all, of| all.and(of[test]));
        BitCase { what: what.into(), cases: of.cases, differing: of.differing }
    });
    Ok(cases.collect())
}

/// Every test of one job.
fn one<T: Float>(
    checker: &Checker<'_>,
    pools: &[ThreadPool],
    operator: &'static Operator,
    shape: u32,
) -> Result<Vec<Equal>, Error> {
    let (rows, n) = SHAPES[shape as usize];
    let draw = &mut Draw::new(checker.seed ^ 0xb175, shape);
    let problem = Problem::matrix(rows, n, 1e-5);
    let mut normal =
        |mean: f64| (0..rows).flat_map(|_| Spread::Normal.row(draw, n, mean)).collect::<Vec<_>>();
    let (x, dy) = (normal(3.0), normal(0.0));
    let mut inputs = inputs::<T>(&problem, &x, shape, draw);
    inputs.dy = Some(dy.iter().map(|&dy| T::narrow(dy)).collect());
    let mut base = inputs.clone();
    let best = checker.levels.last().copied().unwrap_or(Level::Portable);
    let written = operator.run(&problem, &one_thread(best), &mut base)?;
    let how = How { run: Run::default().with_level(best).with_threads(Threads::Pool), ..How::default() };
    let bits = Bits { checker, pools, operator, problem, inputs, how, base, written };
    let mut results = Vec::new();
    for (_, test) in tests() {
        interrupt::check(checker.stop)?;
        results.push(test(&bits)?);
    }
    Ok(results)
}

impl<T: Float> Bits<'_, T> {
    fn extent(&self, slot: Slot) -> Extent {
        (self.operator.extent)(slot)
    }

    /// The outputs that have an entry (or entries) for each row.
    fn row_by_row(&self) -> impl Iterator<Item = (Slot, usize)> {
        let n = self.problem.features();
        self.written.iter().filter_map(move |&slot| match self.extent(slot) {
            Extent::Whole => Some((slot, n)),
            Extent::Rows => Some((slot, 1)),
            Extent::Units => None,
        })
    }

    /// Compares outputs of some rows with those of the whole batch.
    fn compare_rows(&self, equal: &mut Equal, part: &Tensors<T>, rows: Range<usize>) {
        for (slot, width) in self.row_by_row() {
            if let (Some(base), Some(part)) = (self.base.get(slot), part.get(slot)) {
                equal.slices(&base[rows.start * width..rows.end * width], part);
            }
        }
    }

    /// The inputs of some rows.
    fn part(&self, rows: Range<usize>) -> (Problem, Tensors<T>) {
        let n = self.problem.features();
        let Operator { forward, backward, .. } = self.operator;
        let mut inputs = Tensors::default();
        for &slot in [forward.needs, forward.takes, backward.needs].into_iter().flatten() {
            let range = match self.extent(slot) {
                Extent::Whole => rows.start * n..rows.end * n,
                Extent::Rows => rows.clone(),
                Extent::Units => 0..self.inputs.get(slot).map_or(0, Vec::len),
            };
            *inputs.slot(slot) = self.inputs.get(slot).map(|all| all[range].to_vec());
        }
        (Problem::matrix(rows.len(), n, self.problem.eps), inputs)
    }

    fn run(&self, problem: &Problem, how: &How, mut inputs: Tensors<T>) -> Result<Tensors<T>, Error> {
        self.operator.run(problem, how, &mut inputs)?;
        Ok(inputs)
    }

    /// In the pool of `THREADS[pool]`.
    fn run_in_pool(&self, pool: usize, how: &How) -> Result<Tensors<T>, Error> {
        self.pools[pool].install(|| self.run(&self.problem, how, self.inputs.clone()))
    }

    fn levels(&self) -> Result<Equal, Error> {
        let mut equal = Equal::default();
        for &level in &self.checker.levels {
            let how = How { run: Run::default().with_level(level).with_threads(Threads::Pool), ..self.how };
            equal.compare(&self.base, &self.run_in_pool(1, &how)?, &self.written);
        }
        Ok(equal)
    }

    fn threads(&self) -> Result<Equal, Error> {
        let mut equal = Equal::default();
        for pool in 0..THREADS.len() {
            equal.compare(&self.base, &self.run_in_pool(pool, &self.how)?, &self.written);
        }
        Ok(equal)
    }

    fn batches(&self) -> Result<Equal, Error> {
        let (rows, n) = (self.problem.rows(), self.problem.features());
        // Each size of the shape that is made for it; else both sides of each threshold, and some more.
        let near = |numbers: usize| (numbers / n).saturating_sub(1)..=numbers / n + 2;
        let [two_threads, streaming] = [1 << 16, (2 << 20) / size_of::<T>()].map(near);
        let some = |size: usize| size < 20 || size.is_multiple_of(97) || self.checker.thorough || n == 64;
        let wanted = |size: &usize| {
            two_threads.contains(size) || streaming.contains(size) || (*size <= BATCH && some(*size))
        };
        let mut equal = Equal::default();
        for size in (1..=rows).filter(wanted) {
            let (problem, inputs) = self.part(0..size);
            let part = self.pools[1].install(|| self.run(&problem, &self.how, inputs))?;
            self.compare_rows(&mut equal, &part, 0..size);
        }
        Ok(equal)
    }

    fn alone(&self) -> Result<Equal, Error> {
        let mut equal = Equal::default();
        let step = if self.checker.thorough { 1 } else { (self.problem.rows() / 100).max(1) };
        for row in (0..self.problem.rows()).step_by(step) {
            let (problem, inputs) = self.part(row..row + 1);
            let alone = self.run(&problem, &self.how, inputs)?;
            self.compare_rows(&mut equal, &alone, row..row + 1);
        }
        Ok(equal)
    }

    fn strides(&self) -> Result<Equal, Error> {
        let n = self.problem.features();
        let mut equal = Equal::default();
        for (offsets, pads) in
            [([0, 1], [1, 0]), ([3, 5], [0, 0]), ([3, 0], [0, 3]), ([5, 2], [16, 17]), ([1, 7], [32, 1])]
        {
            let layout = [0, 1].map(|i| Layout { offset: offsets[i], stride: n + pads[i] });
            let how = How { layout: Some(layout), ..self.how };
            let mut apart = self.base.clone();
            for slot in [Slot::X, Slot::Dy] {
                *apart.slot(slot) = self.inputs.get(slot).map(|all| self.lay_out(all, layout[0]));
            }
            let between = vec![T::narrow(BETWEEN); self.problem.rows() * n];
            for slot in [Slot::Y, Slot::Dx] {
                *apart.slot(slot) = Some(self.lay_out(&between, layout[1]));
            }
            let kernels = T::kernels(self.operator);
            self.pools[1].install(|| (kernels.forward)(&self.problem, &how, &mut apart))?;
            self.pools[1].install(|| (kernels.backward)(&self.problem, &how, &mut apart))?;
            for &slot in &self.written {
                if let (Some(base), Some(got)) = (self.base.get(slot), apart.get(slot)) {
                    let laid_out =
                        (self.extent(slot) == Extent::Whole).then(|| self.lay_out(base, layout[1]));
                    equal.slices(laid_out.as_ref().unwrap_or(base), got);
                }
            }
        }
        Ok(equal)
    }

    /// Rows apart, with [`BETWEEN`] between them.
    fn lay_out(&self, rows: &[T], layout: Layout) -> Vec<T> {
        // A line more at the end.
        let mut all = vec![T::narrow(BETWEEN); layout.offset + self.problem.rows() * layout.stride + 16];
        for (i, row) in rows.chunks(self.problem.features()).enumerate() {
            all[layout.offset + i * layout.stride..][..row.len()].copy_from_slice(row);
        }
        all
    }

    fn in_place(&self) -> Result<Equal, Error> {
        let mut equal = Equal::default();
        let kernels = T::kernels(self.operator);
        let how = How { in_place: true, ..self.how };
        for (pass, changed, result) in
            [(kernels.forward, Slot::X, Slot::Y), (kernels.backward, Slot::Dy, Slot::Dx)]
        {
            let mut tensors = self.base.clone();
            self.pools[1].install(|| pass(&self.problem, &how, &mut tensors))?;
            if let (Some(base), Some(got)) = (self.base.get(result), tensors.get(changed)) {
                equal.slices(base, got);
            }
            equal.compare(&self.base, &tensors, &self.written);
        }
        Ok(equal)
    }

    fn unsaved(&self) -> Result<Equal, Error> {
        let mut tensors = self.base.clone();
        for &slot in self.operator.forward.saves {
            *tensors.slot(slot) = None;
        }
        (T::kernels(self.operator).backward)(&self.problem, &self.how, &mut tensors)?;
        let gradients: Vec<Slot> = self
            .written
            .iter()
            .copied()
            .filter(|slot| self.operator.backward.writes.contains(slot))
            .collect();
        let mut equal = Equal::default();
        equal.compare(&self.base, &tensors, &gradients);
        Ok(equal)
    }

    fn shards(&self) -> Result<Equal, Error> {
        let rows = self.problem.rows();
        let mut equal = Equal::default();
        let sizes = (3..).map(|k| 1 << k).take_while(|&size| size < rows);
        for size in sizes {
            let mut totals: Vec<[Option<Vec<T>>; 2]> = Vec::new();
            for start in (0..rows).step_by(size) {
                let shard = start..rows.min(start + size);
                let (problem, inputs) = self.part(shard.clone());
                let how = How { first_row: start, ..self.how };
                let part = self.pools[1].install(|| self.run(&problem, &how, inputs))?;
                self.compare_rows(&mut equal, &part, shard);
                totals.push([part.dweight, part.dbias]);
            }
            let whole = [&self.base.dweight, &self.base.dbias];
            for (i, whole) in
                whole.into_iter().enumerate().filter_map(|(i, whole)| Some((i, whole.as_ref()?)))
            {
                // One number for all features is summed over rows first, over features last: no node of the tree.
                if whole.len() != self.problem.features() {
                    continue;
                }
                let parts = totals.iter_mut().filter_map(|total| total[i].take()).collect();
                equal.slices(whole, &pairwise(parts));
            }
        }
        equal = equal.and(self.accumulated()?);
        Ok(equal)
    }

    /// Added to what the gradients hold, in one addition of the finished total.
    fn accumulated(&self) -> Result<Equal, Error> {
        let mut tensors = self.base.clone();
        let before = |total: &Vec<T>| {
            (1u8..=100).cycle().map(|i| T::narrow(f64::from(i) * 0.37)).take(total.len()).collect()
        };
        let [dweight, dbias]: [Option<Vec<T>>; 2] =
            [&self.base.dweight, &self.base.dbias].map(|total| total.as_ref().map(before));
        (tensors.dweight, tensors.dbias) = (dweight.clone(), dbias.clone());
        let how = How { accumulate: true, ..self.how };
        (T::kernels(self.operator).backward)(&self.problem, &how, &mut tensors)?;
        let mut equal = Equal::default();
        for (slot, before) in [(Slot::Dweight, dweight), (Slot::Dbias, dbias)] {
            if let (Some(before), Some(total), Some(got)) = (before, self.base.get(slot), tensors.get(slot)) {
                equal.slices(&add(before, total), got);
            }
        }
        Ok(equal)
    }

    /// Some rows get what is not a number. It must show in those rows, and nowhere else but in the sums over rows.
    fn poisoned(&self) -> Result<Equal, Error> {
        let (rows, n) = (self.problem.rows(), self.problem.features());
        let poison = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(T::narrow);
        let places: Vec<usize> = (0..3).map(|i| i * rows / 3).collect();
        let mut inputs = self.inputs.clone();
        for (&row, poison) in places.iter().zip(poison) {
            if let Some(x) = inputs.x.as_mut() {
                x[row * n + row % n] = poison;
            }
        }
        let got = self.pools[1].install(|| self.run(&self.problem, &self.how, inputs))?;
        let mut equal = Equal::default();
        for (slot, width) in self.row_by_row() {
            let (Some(base), Some(got)) = (self.base.get(slot), got.get(slot)) else { continue };
            for row in 0..rows {
                let [base, got] = [base, got].map(|all| &all[row * width..(row + 1) * width]);
                if !places.contains(&row) {
                    equal.slices(base, got);
                } else if self.extent(slot) == Extent::Whole {
                    equal.holds(got.iter().any(|got| got.widen().is_nan()));
                }
            }
        }
        Ok(equal)
    }
}

/// The tree of adjacent pairs; an odd one moves up.
fn pairwise<T: Float>(mut totals: Vec<Vec<T>>) -> Vec<T> {
    while totals.len() > 1 {
        let mut pairs = totals.into_iter();
        let mut above = Vec::new();
        while let Some(left) = pairs.next() {
            above.push(match pairs.next() {
                Some(right) => add(left, &right),
                None => left,
            });
        }
        totals = above;
    }
    totals.pop().unwrap_or_default()
}

fn add<T: Float>(left: Vec<T>, right: &[T]) -> Vec<T> {
    left.into_iter().zip(right).map(|(left, right)| left + *right).collect()
}
