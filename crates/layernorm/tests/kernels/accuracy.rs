//! The error bounds of `docs/numerics.md`, at every level (all give the same bits, so one is measured).

use crate::case::{Case, EPSILONS, Norm, Results, assert_same};
use crate::dd::Dd;
use crate::level::{Effort, at, best, levels};
use crate::number::{Number, Stored, Value, power_of_two};
use crate::oracle::{Exact, Oracle, spread};
use crate::random::Random;
use crate::rows::{self, Shape};
use layernorm::Real;

for_all!(ordinary_rows, breaking_rows, rows_at_the_ends_of_the_range, gradients_of_many_rows);

mod with_all_digits {
    use super::*;
    for_both!(hostile_rows);
}

/// The worst error of each output, in u times its measure.
#[derive(Debug, Default)]
struct Worst {
    y: f64,
    mean: f64,
    rstd: f64,
    dx: f64,
    dweight: f64,
    dbias: f64,
}

/// An error and what it may be at most: `times * u * measure + rest`.
struct Bound {
    times: f64,
    measure: f64,
    rest: f64,
}

impl Bound {
    /// Panics unless `got` is that near to `exact`; gives the error in u of the measure.
    /// Of a half, the rounding to it comes on top.
    #[track_caller]
    fn check<T: Stored>(&self, got: T, exact: Dd, context: impl Fn() -> String) -> f64 {
        let unit = T::Acc::UNIT_ROUNDOFF * self.measure;
        let before = self.times * unit + self.rest;
        let rounding = T::half_ulp(exact.hi.abs() + before);
        let most = before + rounding;
        let may_overflow = T::GREATEST * (1.0 - 32.0 * T::Acc::UNIT_ROUNDOFF) - T::half_ulp(T::GREATEST);
        if exact.hi.abs() > may_overflow && !got.wide().is_nan() {
            assert!(
                got.wide().abs() > T::GREATEST * 0.98 && got.wide().signum() == exact.hi.signum(),
                "{got} {exact:?}"
            );
            return 0.0;
        }
        let error = exact.distance(got.wide());
        assert!(
            error <= most,
            "{}: {got:?} where {:?} is right: {} u, {} allowed",
            context(),
            exact.hi,
            error / unit,
            self.times
        );
        if unit > 0.0 { (error - self.rest - rounding).max(0.0) / unit } else { 0.0 }
    }
}

impl Worst {
    /// All bounds of a case.
    fn check<T: Oracle>(&mut self, case: &Case<T>, got: &Results<T>, of: &str) {
        let n = case.n;
        let exact: Vec<Exact> = (0..case.rows()).map(|row| T::exact(case, row)).collect();
        let context = |what: &str, row: usize, j: usize| {
            format!("{of}: {what}[{row}][{j}], {:?} {}, N {n}, eps {}", case.norm, T::NAME, case.eps)
        };
        for (row, exact) in exact.iter().enumerate() {
            self.statistics(case, got, row, exact, &context);
            self.row(case, got, row, exact, &context);
        }
        self.sums_over_rows(case, got, &exact, &context);
    }

    fn statistics<T: Oracle>(
        &mut self,
        case: &Case<T>,
        got: &Results<T>,
        row: usize,
        exact: &Exact,
        context: &dyn Fn(&str, usize, usize) -> String,
    ) {
        let bound = Bound { times: 8.0, measure: exact.rstd.hi, rest: T::Acc::SMALLEST };
        self.rstd = self.rstd.max(bound.check(got.rstd[row], exact.rstd, || context("rstd", row, 0)));
        if case.norm == Norm::Layer && got.c[row].finite() {
            // m + c, as two numbers, is the mean to within a few u of the deviation.
            let (m, c) = (got.m[row].wide(), got.c[row].wide());
            // Deviations far below a huge eps are counted in units of its root.
            let vanishing = 4.0 * f64::from_bits(1) * case.eps.sqrt();
            let bound = Bound {
                times: 8.0,
                measure: exact.deviation,
                rest: T::Acc::UNIT_ROUNDOFF * c.abs() + T::Acc::SMALLEST + vanishing,
            };
            let left = (exact.mean - Dd::new(m)).distance(c);
            let most = bound.times * bound.measure * T::Acc::UNIT_ROUNDOFF + bound.rest;
            assert!(
                left <= most,
                "{}: {m:e} + {c:e} is {left:e} off, {most:e} allowed",
                context("mean", row, 0)
            );
            if exact.deviation > 0.0 {
                self.mean = self.mean.max((left - bound.rest) / exact.deviation / T::Acc::UNIT_ROUNDOFF);
            }
        }
    }

    fn row<T: Oracle>(
        &mut self,
        case: &Case<T>,
        got: &Results<T>,
        row: usize,
        exact: &Exact,
        context: &dyn Fn(&str, usize, usize) -> String,
    ) {
        let n = case.n;
        let weight = spread(&case.weight, 1.0, n);
        for (j, weight) in weight.iter().enumerate() {
            let (x_hat, w) = (exact.x_hat[j].hi.abs(), weight.abs());
            let at_least_one = x_hat.max(1.0);
            let measure = w * if case.norm == Norm::Layer { at_least_one } else { x_hat };
            let rest = T::Acc::UNIT_ROUNDOFF * exact.y[j].hi.abs() + T::Acc::SMALLEST * w.max(1.0);
            let bound = Bound { times: 8.0, measure, rest };
            self.y = self.y.max(bound.check(got.y[row * n + j], exact.y[j], || context("y", row, j)));

            let rest =
                T::Acc::SMALLEST * (1.0 + 4.0 * exact.rstd.hi.min(power_of_two(T::Acc::RANGE_OF_R[1])));
            let bound = Bound { times: 16.0, measure: exact.dx_unit * at_least_one, rest };
            self.dx = self.dx.max(bound.check(got.dx[row * n + j], exact.dx[j], || context("dx", row, j)));
        }
    }

    fn sums_over_rows<T: Oracle>(
        &mut self,
        case: &Case<T>,
        got: &Results<T>,
        exact: &[Exact],
        context: &dyn Fn(&str, usize, usize) -> String,
    ) {
        let (n, rows) = (case.n, case.rows() as f64);
        let of_sum = 8.0 + rows.log2();
        // sum dy x_hat, sum dy, and what their errors are measured by, of each feature.
        let column = |j: usize| {
            let (mut dweight, mut dbias, mut s_weight, mut s_bias) = (Dd::ZERO, Dd::ZERO, 0.0, 0.0);
            for (row, exact) in exact.iter().enumerate() {
                let (dy, x_hat) = (case.dy[row * n + j].wide(), exact.x_hat[j]);
                dweight = dweight + Dd::new(dy) * x_hat;
                dbias = dbias + Dd::new(dy);
                s_weight += dy.abs() * x_hat.hi.abs().max(1.0);
                s_bias += dy.abs();
            }
            [(dweight, s_weight), (dbias, s_bias)]
        };
        let columns: Vec<_> = (0..n).map(column).collect();
        let worst = [&mut self.dweight, &mut self.dbias];
        for (i, (worst, got)) in worst.into_iter().zip([&got.dweight, &got.dbias]).enumerate() {
            let of_terms = if i == 0 { 8.0 } else { 0.0 };
            let shared = got.len() == 1 && n > 1;
            if shared {
                let sum = |(total, s): (Dd, f64), (more, t): (Dd, f64)| (total + more, s + t);
                let (total, measure) = columns.iter().map(|column| column[i]).fold((Dd::ZERO, 0.0), sum);
                let of_row = (T::Acc::B / T::Acc::W) as f64
                    + (T::Acc::W as f64).log2()
                    + 1.0
                    + (n as f64 / T::Acc::B as f64).log2().max(0.0);
                let bound =
                    Bound { times: of_sum + of_terms + of_row, measure, rest: T::Acc::SMALLEST * n as f64 };
                bound.check(got[0], total, || context(["dweight", "dbias"][i], 0, 0));
                continue;
            }
            for (j, column) in columns.iter().enumerate() {
                let (total, measure) = column[i];
                let bound = Bound { times: of_sum + of_terms, measure, rest: T::Acc::SMALLEST * rows };
                *worst = worst.max(bound.check(got[j], total, || context(["dweight", "dbias"][i], 0, j)));
            }
        }
    }

    fn report<T: Value>(&self, corpus: &str, norm: Norm) {
        println!("worst of {corpus}, {norm:?} {}: {self:.2?}", T::NAME);
    }
}

/// The results at the best level, which all others must have too.
fn run<T: Stored>(case: &Case<T>, of: &str) -> Results<T> {
    let results = case.run(best());
    for level in levels().into_iter().filter(|level| at(*level) != best()) {
        assert_same(&case.run(at(level)), &results, || format!("{of}: {level}, N {}", case.n));
    }
    results
}

/// Distributions, with |mean| / deviation up to 1e5.
fn ordinary_rows<T: Oracle>() {
    let mut random = Random::new(11);
    let short: &[usize] =
        Effort::of(&[7], &[1, 2, 7, 64, 513], &[1, 2, 3, 7, 16, 33, 64, 100, 128, 256, 257]);
    let long: &[usize] =
        Effort::of(&[], &[4096], &[512, 513, 768, 1000, 1024, 1536, 4096, 5000, 16_384, 65_536]);
    let means: &[f64] = Effort::of(&[1e5], &[0.0, 1e5], &[0.0, 1.0, 1e1, 1e3, 1e4, 1e5]);
    // A row of f16 has to have room for its mean.
    let means: Vec<f64> = means.iter().map(|mean| mean.min(T::GREATEST / 16.0)).collect();
    for norm in Norm::BOTH {
        let mut worst = Worst::default();
        for n in short.iter().chain(long) {
            let rows = (Effort::of(1, 200, 3000) / n).clamp(1, 12);
            for shape in Shape::some() {
                for mean in means.iter().map(Some).chain([None]) {
                    let mut x = vec![];
                    for _ in 0..rows {
                        let row = shape.row(&mut random, *n);
                        let row = mean.map_or(row.clone(), |mean| rows::with_mean(&mut random, row, *mean));
                        x.extend(rows::rounded::<T>(&row));
                    }
                    let case = Case::new(norm, x, *n, &mut random);
                    let of = format!("{shape:?}, mean {mean:?}");
                    worst.check(&case, &run(&case, &of), &of);
                }
            }
        }
        worst.report::<T>("ordinary rows", norm);
    }
}

fn breaking_rows<T: Oracle>() {
    let mut random = Random::new(12);
    for norm in Norm::BOTH {
        let mut worst = Worst::default();
        for (i, row) in
            rows::breaking(Effort::of(20, 5000, 65_536)).iter().enumerate().step_by(Effort::of(6, 1, 1))
        {
            for eps in Effort::of(vec![0.0], EPSILONS.to_vec(), EPSILONS.to_vec()) {
                let case = Case { eps, ..Case::new(norm, rows::rounded::<T>(row), row.len(), &mut random) };
                let of = format!("breaking row {i}");
                worst.check(&case, &run(&case, &of), &of);
            }
        }
        worst.report::<T>("breaking rows", norm);
    }
}

/// Rows of huge and of tiny numbers, down to the last subnormals, at any eps that fits the type.
fn rows_at_the_ends_of_the_range<T: Oracle>() {
    let mut random = Random::new(13);
    let lengths: &[usize] = Effort::of(&[3], &[2, 33, 600], &[1, 2, 3, 16, 33, 100, 513, 1500]);
    let mut epsilons = EPSILONS.to_vec();
    epsilons.extend([1e-30, 1e-45, 1e36, 3e38, T::Acc::SMALLEST, T::Acc::LARGEST]);
    for norm in Norm::BOTH {
        let mut worst = Worst::default();
        for exponent in rows::scales::<T>().into_iter().step_by(Effort::of(4, 1, 1)) {
            for (n, shape) in lengths.iter().flat_map(|n| Shape::some().iter().map(|shape| (*n, *shape))) {
                let centre = random.pick(&[0.0, 0.0, 1.0, 1e3]);
                let row = shape.row(&mut random, n);
                let x = rows::scaled::<T>(&rows::with_mean(&mut random, row, centre), exponent);
                let mut case = Case { eps: random.pick(&epsilons), ..Case::new(norm, x, n, &mut random) };
                // So that dx, about dy / x, fits the type; but the sums of dy must fit it too.
                let exponent = exponent.min(T::EXPONENTS[1] - 30);
                for dy in &mut case.dy {
                    *dy = T::of(dy.wide() * power_of_two(exponent));
                }
                let of = format!("{shape:?}, dy * 2^{exponent}");
                worst.check(&case, &run(&case, &of), &of);
            }
        }
        worst.report::<T>("rows at the ends of the range", norm);
    }
}

/// The sums over rows, over thousands of them: ordinary, and made to round the same way each time.
fn gradients_of_many_rows<T: Oracle>() {
    let mut random = Random::new(14);
    for norm in Norm::BOTH {
        let mut worst = Worst::default();
        for rows in Effort::of(vec![9], vec![100, 1000], vec![9, 100, 1000, 10_000]) {
            let n = 5;
            let x: Vec<T> = (0..rows * n).map(|_| T::of(random.normal())).collect();
            let mut case = Case::new(norm, x, n, &mut random);
            for (i, dy) in case.dy.iter_mut().enumerate() {
                // In one column a large number is followed by numbers of half its last digit.
                let hostile = if i < n { 1.0 } else { T::Acc::UNIT_ROUNDOFF };
                *dy = if i % n == 0 { T::of(hostile) } else { *dy };
            }
            worst.check(&case, &run(&case, "many rows"), &format!("{rows} rows"));
        }
        worst.report::<T>("many rows", norm);
    }
}

/// A row whose squares are lost one by one: 1, and then, at each step of the order, a sum of half a unit in
/// the last digit of 1.
fn hostile<T: Number>(n: usize) -> Vec<T> {
    let one_in = |count: usize| T::of((T::UNIT_ROUNDOFF / count as f64).sqrt() * (1.0 - 1e-5));
    let up = |index: usize| 1 << index.ilog2();
    let number = |j: usize| match (j / T::B, j % T::W) {
        (0, 0) => {
            if j == 0 {
                T::of(1.0)
            } else {
                one_in(1)
            }
        }
        (0, lane) => one_in(up(lane) * (T::B / T::W)),
        (block, _) => one_in(up(block) * T::B),
    };
    (0..n).map(number).collect()
}

/// Rows made against the order go past the bound for ordinary rows, and stay within the proved one.
fn hostile_rows<T: Oracle + Number + Stored<Acc = T>>() {
    let mut random = Random::new(15);
    let blocks: &[usize] = Effort::of(&[], &[1, 16], &[1, 2, 16, 256, 1024]);
    for (blocks, norm) in blocks.iter().flat_map(|blocks| Norm::BOTH.map(|norm| (*blocks, norm))) {
        let n = blocks * T::B;
        let case = Case::new(norm, hostile::<T>(n), n, &mut random);
        let case = Case { weight: None, bias: None, eps: 0.0, ..case };
        let (got, exact) = (run(&case, "hostile"), T::exact(&case, 0));
        let h = (T::B / T::W) as f64 + (T::W as f64).log2() + f64::from(blocks.ilog2());
        let times = if norm == Norm::Layer { 1.5 * h + 8.5 } else { (h + 2.0) / 2.0 + 3.0 };
        let mut worst: f64 = 0.0;
        for (j, y) in got.y.iter().enumerate() {
            let x_hat = exact.x_hat[j].hi.abs();
            let measure = if norm == Norm::Layer { x_hat.max(1.0) } else { x_hat };
            let bound = Bound { times, measure, rest: T::UNIT_ROUNDOFF * x_hat };
            worst = worst.max(bound.check(*y, exact.y[j], || format!("hostile y[{j}], {norm:?}, N {n}")));
        }
        println!("worst of a hostile row, {norm:?} {}, N {n}: {worst:.1} u of {times} u", T::NAME);
        assert!(norm == Norm::Layer || blocks < 256 || worst > 7.5, "not hostile: {worst}");
    }
}
