//! What must not change a bit, and whether it does.

use super::errors::{Sets, has_types, one_thread};
use super::rows::{Draw, Spread};
use super::{Checker, Equal};
use crate::error::Error;
use crate::interrupt;
use crate::operators::{
    Acc, Extent, How, Layout, Mode, Number, Operator, Problem, Slot, Tensors, Types, View, Wide,
    WideResidual, differing, with,
};
use crate::report::model::BitCase;
use half::{bf16, f16};
use indicatif::ProgressBar;
use layernorm::{Level, Rounding, Run, Threads};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::ops::Range;

/// Here outputs of 2 MiB are written past the caches, for which a call waits until 16 MiB by itself: the same code, and less
/// to compute.
const STREAM_FROM: usize = 2 << 20;

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
struct Bits<'a, T: Types> {
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
fn tests<'a, T: Types>() -> [(&'static str, Test<'a, T>); 10] {
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
        ("parameters of halves, in halves or in f32", Bits::widened),
    ]
}

/// A batch for an operator: its index in [`SHAPES`], and the tests in certain types.
type Job = (&'static Operator, u32, One);

type One = fn(&Checker<'_>, &[ThreadPool], &'static Operator, u32) -> Result<Vec<Equal>, Error>;

fn jobs(checker: &Checker<'_>) -> Vec<Job> {
    fn if_it_has<T: Types>(operator: &Operator) -> Option<One> {
        has_types::<T>(operator).then_some(one::<T> as One)
    }
    let mut jobs: Vec<Job> = Vec::new();
    for (i, &operator) in checker.operators.iter().enumerate() {
        let halves: Vec<One> = [
            if_it_has::<f16>(operator),
            if_it_has::<bf16>(operator),
            if_it_has::<Wide<f16>>(operator),
            if_it_has::<Wide<bf16>>(operator),
            if_it_has::<WideResidual<f16>>(operator),
            if_it_has::<WideResidual<bf16>>(operator),
        ]
        .into_iter()
        .flatten()
        .collect();
        // A quick check of many operators divides the shapes among them.
        let shares = if checker.thorough { 1 } else { checker.shares().min(SHAPES.len()) };
        for (index, shape) in (0u32..).zip(0..SHAPES.len()).filter(|(_, shape)| shape % shares == i % shares)
        {
            jobs.extend([(operator, index, one::<f32> as One), (operator, index, one::<f64> as One)]);
            // Of the halves' types, one a shape, by turns.
            let some = if checker.thorough {
                0..halves.len()
            } else {
                shape % halves.len()..shape % halves.len() + 1
            };
            jobs.extend(halves[some].iter().map(|&one| (operator, index, one)));
        }
    }
    jobs
}

/// The steps of [`run`].
pub(super) fn steps(checker: &Checker<'_>) -> u64 {
    jobs(checker).len() as u64
}

/// Everything, for every operator, in all types.
pub(super) fn run(checker: &Checker<'_>, bar: &ProgressBar) -> Result<Vec<BitCase>, Error> {
    let pools = THREADS.map(crate::cli::pool).into_iter().collect::<Result<Vec<_>, _>>()?;
    let one = |&(operator, shape, one): &Job| {
        let results = one(checker, &pools, operator, shape);
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
fn one<T: Types>(
    checker: &Checker<'_>,
    pools: &[ThreadPool],
    operator: &'static Operator,
    shape: u32,
) -> Result<Vec<Equal>, Error> {
    let (rows, n) = SHAPES[shape as usize];
    let draw = &mut Draw::new(checker.seed ^ 0xb175, shape);
    let x: Vec<f64> = (0..rows).flat_map(|_| Spread::Normal.row(draw, n, 3.0)).collect();
    let sets = Sets { rows, x: &x, scale: 1.0, eps: 1e-5, turn: shape };
    let (problem, inputs) = sets.inputs::<T>(operator, draw);
    let mut base = inputs.clone();
    let best = checker.levels.last().copied().unwrap_or(Level::Portable);
    let written = operator.run(&problem, &one_thread(best), &mut base)?;
    let run = Run::default().with_level(best).with_threads(Threads::Pool).with_stream_from(STREAM_FROM);
    let how = How { run, ..How::default() };
    let bits = Bits { checker, pools, operator, problem, inputs, how, base, written };
    let mut results = Vec::new();
    for (_, test) in tests() {
        interrupt::check(checker.stop)?;
        results.push(test(&bits)?);
    }
    Ok(results)
}

impl<T: Types> Bits<'_, T> {
    fn extent(&self, slot: Slot) -> Extent {
        (self.operator.extent)(slot)
    }

    /// The outputs that have numbers for each item (a row, or a sample), and how many.
    fn item_by_item(&self) -> impl Iterator<Item = (Slot, usize)> {
        self.written.iter().filter_map(|&slot| Some((slot, self.problem.of_item(self.extent(slot))?)))
    }

    /// Compares outputs of some items with those of the whole batch.
    fn compare_items(&self, equal: &mut Equal, part: &Tensors<T>, items: Range<usize>) {
        for (slot, width) in self.item_by_item() {
            let base = self.base.get(slot).map(|base| base.part(items.start * width..items.end * width));
            equal.views(base, part.get(slot));
        }
    }

    /// The inputs of some items.
    fn part(&self, items: Range<usize>) -> (Problem, Tensors<T>) {
        let mut inputs = Tensors::default();
        for slot in self.operator.reads() {
            if let Some(all) = self.inputs.get(slot) {
                let part = match self.problem.of_item(self.extent(slot)) {
                    Some(width) => all.part(items.start * width..items.end * width),
                    None => all,
                };
                inputs.set(slot, part);
            }
        }
        (self.problem.with_items(items.len()), inputs)
    }

    /// Everything, as after a first call; what that changed, as before it.
    fn again(&self) -> Tensors<T> {
        let mut tensors = self.base.clone();
        for &slot in self.operator.forward.updates {
            self.inputs.get(slot).into_iter().for_each(|before| tensors.set(slot, before));
        }
        tensors
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
            let how = How { run: self.how.run.with_level(level), ..self.how };
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
        let items = self.problem.items();
        let n = self.problem.len(Extent::Whole) / items;
        // Each size of the shape that is made for it; else both sides of each threshold, and some more.
        let near = |numbers: usize| (numbers / n).saturating_sub(1)..=numbers / n + 2;
        let [two_threads, streaming] = [1 << 16, STREAM_FROM / size_of::<T::E>()].map(near);
        let some = |size: usize| size < 20 || size.is_multiple_of(97) || self.checker.thorough || n == 64;
        let wanted = |size: &usize| {
            two_threads.contains(size) || streaming.contains(size) || (*size <= BATCH && some(*size))
        };
        let mut equal = Equal::default();
        for size in (1..=items).filter(wanted) {
            let (problem, inputs) = self.part(0..size);
            let part = self.pools[1].install(|| self.run(&problem, &self.how, inputs))?;
            self.compare_items(&mut equal, &part, 0..size);
        }
        Ok(equal)
    }

    fn alone(&self) -> Result<Equal, Error> {
        let mut equal = Equal::default();
        let items = self.problem.items();
        let step = if self.checker.thorough { 1 } else { (items / 100).max(1) };
        for item in (0..items).step_by(step) {
            let (problem, inputs) = self.part(item..item + 1);
            let alone = self.run(&problem, &self.how, inputs)?;
            self.compare_items(&mut equal, &alone, item..item + 1);
        }
        Ok(equal)
    }

    fn strides(&self) -> Result<Equal, Error> {
        let n = self.problem.features();
        let mut equal = Equal::default();
        if !self.operator.able.strided {
            return Ok(equal);
        }
        let whole = |slot: &Slot| self.extent(*slot) == Extent::Whole;
        for (offsets, pads) in
            [([0, 1], [1, 0]), ([3, 5], [0, 0]), ([3, 0], [0, 3]), ([5, 2], [16, 17]), ([1, 7], [32, 1])]
        {
            let layout = [0, 1].map(|i| Layout { offset: offsets[i], stride: n + pads[i] });
            let how = How { layout: Some(layout), ..self.how };
            let mut apart = self.again();
            for slot in self.operator.reads().filter(whole) {
                if let Some(all) = self.inputs.get(slot) {
                    apart.fill(slot, self.lay_out(&all.widened(), layout[0]));
                }
            }
            let between = vec![BETWEEN; self.problem.rows() * n];
            for &slot in self.written.iter().filter(|slot| whole(slot)) {
                apart.fill(slot, self.lay_out(&between, layout[1]));
            }
            let kernels = T::kernels(self.operator);
            self.pools[1].install(|| (kernels.forward)(&self.problem, &how, &mut apart))?;
            self.pools[1].install(|| (kernels.backward)(&self.problem, &how, &mut apart))?;
            for &slot in &self.written {
                if let (Some(base), true) = (self.base.get(slot), whole(&slot)) {
                    let mut expected = Tensors::<T>::default();
                    expected.fill(slot, self.lay_out(&base.widened(), layout[1]));
                    equal.views(expected.get(slot), apart.get(slot));
                } else {
                    equal.views(self.base.get(slot), apart.get(slot));
                }
            }
        }
        Ok(equal)
    }

    /// Rows apart, with [`BETWEEN`] between them.
    fn lay_out(&self, rows: &[f64], layout: Layout) -> Vec<f64> {
        // A line more at the end.
        let mut all = vec![BETWEEN; layout.offset + self.problem.rows() * layout.stride + 16];
        for (i, row) in rows.chunks(self.problem.features()).enumerate() {
            all[layout.offset + i * layout.stride..][..row.len()].copy_from_slice(row);
        }
        all
    }

    fn in_place(&self) -> Result<Equal, Error> {
        let mut equal = Equal::default();
        let kernels = T::kernels(self.operator);
        let how = How { in_place: true, ..self.how };
        let able = self.operator.able;
        for (pass, places) in [(kernels.forward, able.in_place), (kernels.backward, able.backward_in_place)] {
            if places.is_empty() {
                continue;
            }
            let mut tensors = self.again();
            self.pools[1].install(|| pass(&self.problem, &how, &mut tensors))?;
            for &(changed, result) in places {
                equal.views(self.base.get(result), tensors.get(changed));
            }
            let moved = |slot: &Slot| !self.operator.forward.updates.contains(slot);
            let others: Vec<Slot> = self.written.iter().copied().filter(moved).collect();
            equal.compare(&self.base, &tensors, &others);
        }
        Ok(equal)
    }

    fn unsaved(&self) -> Result<Equal, Error> {
        let mut equal = Equal::default();
        if self.operator.forward.saves.is_empty() || !self.operator.able.unsaved {
            return Ok(equal);
        }
        let mut tensors = self.base.clone();
        for &slot in self.operator.forward.saves {
            tensors.clear(slot);
        }
        (T::kernels(self.operator).backward)(&self.problem, &self.how, &mut tensors)?;
        let backward = self.operator.backward.writes;
        let gradients: Vec<Slot> =
            self.written.iter().copied().filter(|slot| backward.contains(slot)).collect();
        equal.compare(&self.base, &tensors, &gradients);
        Ok(equal)
    }

    /// The gradients of parameters.
    fn sums(&self) -> impl Iterator<Item = (Slot, Vec<f64>)> {
        let sums = Slot::SUMS.into_iter().filter(|slot| self.written.contains(slot));
        sums.filter_map(|slot| Some((slot, self.base.get(slot)?.widened())))
    }

    fn shards(&self) -> Result<Equal, Error> {
        let items = self.problem.items();
        let mut equal = Equal::default();
        if self.operator.able.shards {
            for size in (3..).map(|k| 1 << k).take_while(|&size| size < items) {
                let mut totals: Vec<Tensors<T>> = Vec::new();
                for start in (0..items).step_by(size) {
                    let shard = start..items.min(start + size);
                    let (problem, inputs) = self.part(shard.clone());
                    let how = How { first_row: start, ..self.how };
                    let part = self.pools[1].install(|| self.run(&problem, &how, inputs))?;
                    self.compare_items(&mut equal, &part, shard);
                    let mut total = Tensors::default();
                    for (slot, _) in self.sums() {
                        part.get(slot).into_iter().for_each(|sums| total.set(slot, sums));
                    }
                    totals.push(total);
                }
                for (slot, whole) in self.sums() {
                    // One number for all features is summed over rows first, features last: no node of the tree.
                    let extent = self.extent(slot);
                    let by_item = self.problem.of_item(extent).is_some();
                    if by_item || whole.len() != self.problem.len(extent) || whole.len() == 1 {
                        continue;
                    }
                    let parts = totals.iter().filter_map(|total| Some(total.get(slot)?.widened())).collect();
                    equal.holds(differing(&whole, &pairwise::<Acc<T>>(parts)) == 0);
                }
            }
        }
        Ok(equal.and(self.accumulated()?))
    }

    /// Added to what the gradients hold, in one addition of the finished total.
    fn accumulated(&self) -> Result<Equal, Error> {
        let mut equal = Equal::default();
        if !self.operator.able.accumulates {
            return Ok(equal);
        }
        let mut tensors = self.base.clone();
        let before = |len: usize| {
            let numbers = (1u8..=100).cycle().map(|i| Acc::<T>::narrow(f64::from(i) * 0.37).widen());
            numbers.take(len).collect::<Vec<f64>>()
        };
        for (slot, total) in self.sums() {
            tensors.fill(slot, before(total.len()));
        }
        let how = How { accumulate: true, ..self.how };
        (T::kernels(self.operator).backward)(&self.problem, &how, &mut tensors)?;
        for (slot, total) in self.sums() {
            let expected = add::<Acc<T>>(before(total.len()), &total);
            equal.holds(tensors.get(slot).is_some_and(|got| differing(&expected, &got.widened()) == 0));
        }
        Ok(equal)
    }

    /// Some rows get what is not a number. It must show in those rows, and nowhere else but in the sums over rows.
    fn poisoned(&self) -> Result<Equal, Error> {
        let (rows, n, x) = (self.problem.rows(), self.problem.features(), self.operator.input());
        let poison = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        let places: Vec<usize> = (0..3).map(|i| i * rows / 3).collect();
        let mut inputs = self.inputs.clone();
        if let Some(mut numbers) = inputs.get(x).map(View::widened) {
            for (&row, poison) in places.iter().zip(poison) {
                numbers[self.problem.place(row, row % n)] = poison;
            }
            inputs.fill(x, numbers);
        }
        let got = self.pools[1].install(|| self.run(&self.problem, &self.how, inputs))?;
        let mut equal = Equal::default();
        for &slot in &self.written {
            let (Some(base), Some(got)) = (self.base.get(slot), got.get(slot)) else { continue };
            let (base, got) = (base.widened(), got.widened());
            let whole = self.extent(slot) == Extent::Whole;
            let normalises = self.operator.able.normalises && self.problem.options.mode == Mode::Train;
            let must_show =
                slot.kind().holds_nan() && (normalises || self.operator.forward.writes.contains(&slot));
            for row in 0..rows {
                if whole {
                    let of =
                        |all: &[f64]| (0..n).map(|j| all[self.problem.place(row, j)]).collect::<Vec<_>>();
                    let got = of(&got);
                    if places.contains(&row) && !must_show {
                        continue;
                    }
                    if places.contains(&row) {
                        equal.holds(got.iter().any(|got| !got.is_finite()));
                    } else {
                        equal.holds(differing(&of(&base), &got) == 0);
                    }
                } else if self.problem.one_a_set(self.extent(slot)) && !places.contains(&row) {
                    equal.holds(differing(&base[row..=row], &got[row..=row]) == 0);
                }
            }
        }
        Ok(equal)
    }

    /// Parameters of halves become f32 anyway.
    fn widened(&self) -> Result<Equal, Error> {
        let mut equal = Equal::default();
        // T5 rounds by what type its weights have.
        if T::NAME == <T::Widened as Types>::NAME || self.problem.options.rounding == Rounding::T5 {
            return Ok(equal);
        }
        let mut wide = Tensors::<T::Widened>::default();
        for slot in self.operator.reads() {
            if let Some(values) = self.inputs.get(slot) {
                wide.fill(slot, values.widened());
            }
        }
        let problem = &self.problem;
        self.pools[1].install(|| self.operator.run(problem, &self.how, &mut wide))?;
        for &slot in &self.written {
            let same = self.base.get(slot).zip(wide.get(slot)).is_some_and(|(a, b)| {
                let b = with!(b, values => values.iter().map(|value| value.widen()).collect::<Vec<f64>>());
                differing(&a.widened(), &b) == 0
            });
            equal.holds(same);
        }
        Ok(equal)
    }
}

/// The tree of adjacent pairs; an odd one moves up.
fn pairwise<A: Number>(mut totals: Vec<Vec<f64>>) -> Vec<f64> {
    while totals.len() > 1 {
        let mut pairs = totals.into_iter();
        let mut above = Vec::new();
        while let Some(left) = pairs.next() {
            above.push(match pairs.next() {
                Some(right) => add::<A>(left, &right),
                None => left,
            });
        }
        totals = above;
    }
    totals.pop().unwrap_or_default()
}

/// Sums in the type of sums: an f64 sum of two f32s, rounded to f32, is their f32 sum.
fn add<A: Number>(left: Vec<f64>, right: &[f64]) -> Vec<f64> {
    left.into_iter().zip(right).map(|(left, right)| A::narrow(left + *right).widen()).collect()
}
