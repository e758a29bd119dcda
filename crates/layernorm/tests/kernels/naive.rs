//! The bit oracle: sections 1 to 6 of `docs/numerics.md` as plain loops over numbers. It shares nothing with
//! the kernels but the document.

use crate::case::{Case, Norm, Results};
use crate::number::{Number, Stored, power_of_two};
use layernorm::ORDER_VERSION;

/// The version that this file implements.
const _: () = assert!(ORDER_VERSION == 0, "the order has changed: so must this file");

/// Section 2: leaves of consecutive indices, from `first` on.
pub(crate) fn tree<T: Number>(mut first: usize, mut nodes: Vec<T>) -> T {
    while nodes.len() > 1 {
        let mut above = Vec::new();
        let mut rest = &nodes[..];
        if first % 2 == 1 {
            above.push(rest[0]);
            rest = &rest[1..];
        }
        for pair in rest.chunks(2) {
            above.push(if pair.len() == 2 { pair[0] + pair[1] } else { pair[0] });
        }
        nodes = above;
        first /= 2;
    }
    nodes.first().copied().unwrap_or(T::of(0.0))
}

/// Section 3, for numbers of type `A` in the order of `T`: `add(lane, j)` is the lane with term j added.
fn sum<T: Number, A: Number>(n: usize, add: impl Fn(A, usize) -> A) -> A {
    let block = |start: usize| {
        let mut lanes = vec![A::of(0.0); T::W];
        for j in start..n.min(start + T::B) {
            let lane = &mut lanes[(j - start) % T::W];
            *lane = add(*lane, j);
        }
        tree(0, lanes)
    };
    tree(0, (0..n).step_by(T::B).map(block).collect())
}

fn mean<T: Number, A: Number>(n: usize, add: impl Fn(A, usize) -> A) -> A {
    sum::<T, A>(n, add) / A::of(n as f64)
}

fn parameter<T: Number>(values: &Option<Vec<T>>, absent: f64, j: usize) -> T {
    match values {
        None => T::of(absent),
        Some(values) if values.len() == 1 => values[0],
        Some(values) => values[j],
    }
}

/// m, c and r.
#[derive(Clone, Copy)]
struct Stats<T> {
    m: T,
    c: T,
    r: T,
}

/// Section 4 for one row; `None` where it leaves the row to section 6.
fn statistics<E: Stored<Acc = T>, T: Number>(case: &Case<E>, x: &[T]) -> Option<Stats<T>> {
    let n = x.len();
    let (mut m, mut c) = (T::of(0.0), T::of(0.0));
    let mut var;
    match case.norm {
        Norm::Rms => var = mean::<T, T>(n, |lane, j| x[j].fused(x[j], lane)),
        Norm::Layer => {
            m = mean::<T, T>(n, |lane, j| lane + x[j]);
            let mut first_time = true;
            loop {
                let d = |j: usize| x[j] - m;
                c = mean::<T, T>(n, |lane, j| lane + d(j));
                var = (-c).fused(c, mean::<T, T>(n, |lane, j| d(j).fused(d(j), lane)));
                if !(first_time && var < c * c) {
                    break;
                }
                m += c;
                first_time = false;
            }
            if var < T::of(0.0) {
                var = T::of(0.0);
            }
        }
    }
    let v = var + T::of(case.eps);
    let [low, high] = T::RANGE_OF_V.map(power_of_two);
    (low <= v.wide() && v.wide() <= high).then(|| Stats { m, c, r: T::of(1.0) / v.root() })
}

fn x_hat<T: Number>(norm: Norm, x: T, of: Stats<T>) -> T {
    let shift = -(of.c * of.r);
    let deviation = if norm == Norm::Layer { x - of.m } else { x };
    deviation.fused(of.r, shift)
}

fn exponent(value: f64) -> i32 {
    if value == 0.0 || !value.is_finite() {
        return 0;
    }
    let (mut value, mut exponent) = (value.abs(), 0);
    while value >= 2.0 {
        (value, exponent) = (value / 2.0, exponent + 1);
    }
    while value < 1.0 {
        (value, exponent) = (value * 2.0, exponent - 1);
    }
    exponent
}

fn scale(value: f64, e: i32) -> f64 {
    let q = e / 3;
    value * power_of_two(q) * power_of_two(q) * power_of_two(e - 2 * q)
}

/// The largest absolute value; NaN is skipped.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |max, value| if value.abs() > max { value.abs() } else { max })
}

/// Section 6: the row in f64, scaled.
struct Wide {
    x_exponent: i32,
    d_exponent: i32,
    stats: Stats<f64>,
    x_hat: Vec<f64>,
}

impl Wide {
    fn new<E: Stored<Acc = T>, T: Number>(case: &Case<E>, x: &[T]) -> Self {
        let n = x.len();
        let eps = T::of(case.eps).wide();
        let x_exponent = exponent(largest(x.iter().map(|x| x.wide())));
        let x: Vec<f64> = x.iter().map(|x| scale(x.wide(), -x_exponent)).collect();
        let centred = case.norm == Norm::Layer;
        let mut m = if centred { mean::<T, f64>(n, |lane, j| x[j].mul_add(1.0, lane)) } else { 0.0 };

        let scaled_deviations = |m: f64| -> (i32, Vec<f64>) {
            let spread = largest(x.iter().map(|x| x - m));
            let mut candidates = vec![];
            if spread > 0.0 {
                candidates.push(exponent(spread) + x_exponent);
            }
            if eps > 0.0 {
                candidates.push(exponent(eps) / 2);
            }
            let d_exponent = candidates.into_iter().max().unwrap_or(x_exponent);
            (d_exponent, x.iter().map(|x| scale(x - m, x_exponent - d_exponent)).collect())
        };
        let moments = |d: &[f64]| {
            let c = if centred { mean::<T, f64>(n, |lane, j| d[j].mul_add(1.0, lane)) } else { 0.0 };
            (c, (-c).mul_add(c, mean::<T, f64>(n, |lane, j| d[j].mul_add(d[j], lane))))
        };
        let (mut d_exponent, mut d) = scaled_deviations(m);
        let (mut c, mut var) = moments(&d);
        if centred && var < c * c {
            m += scale(c, d_exponent - x_exponent);
            (d_exponent, d) = scaled_deviations(m);
            (c, var) = moments(&d);
        }
        if var < 0.0 {
            var = 0.0;
        }
        let v = var + scale(eps, -2 * d_exponent);
        let r = if v == 0.0 { 0.0 } else { 1.0 / v.sqrt() };
        let x_hat = d.iter().map(|d| d.mul_add(r, -(c * r))).collect();
        Self { x_exponent, d_exponent, stats: Stats { m, c, r }, x_hat }
    }

    fn saved<T: Number>(&self) -> Stats<T> {
        let mean = scale(self.stats.m, self.x_exponent);
        let m = T::of(mean);
        let c = T::of((mean - m.wide()) + scale(self.stats.c, self.d_exponent));
        Stats { m, c, r: T::of(scale(self.stats.r, -self.d_exponent)) }
    }

    fn dx<E: Stored<Acc = T>, T: Number>(&self, case: &Case<E>, dy: &[T]) -> Vec<E> {
        let n = dy.len();
        let weights: Vec<f64> = (0..n).map(|j| parameter(&case.weight, 1.0, j).wide()).collect();
        let e = exponent(largest(weights.iter().copied()));
        let f = exponent(largest(dy.iter().map(|dy| dy.wide())));
        let w: Vec<f64> = weights.iter().map(|w| scale(*w, -e)).collect();
        let g: Vec<f64> = dy.iter().map(|dy| scale(dy.wide(), -f)).collect();
        let centred = case.norm == Norm::Layer;
        let u = |j: usize| w[j] * g[j];
        let b = if centred { mean::<T, f64>(n, |lane, j| u(j).mul_add(1.0, lane)) } else { 0.0 };
        let a = mean::<T, f64>(n, |lane, j| u(j).mul_add(self.x_hat[j], lane));
        let one = |j: usize| {
            let o = (-self.x_hat[j]).mul_add(a, u(j) - b);
            E::of(scale(self.stats.r * o, e + f - self.d_exponent))
        };
        (0..n).map(one).collect()
    }
}

/// Section 5 for one row, but for the sums over rows: dx and the x_hat of dweight.
fn backward<E: Stored<Acc = T>, T: Number>(
    case: &Case<E>,
    x: &[T],
    dy: &[T],
    saved: Stats<T>,
) -> (Vec<E>, Vec<T>) {
    let n = x.len();
    let [low, high] = T::RANGE_OF_R.map(power_of_two);
    let u = |j: usize| parameter(&case.weight, 1.0, j) * dy[j];
    if low <= saved.r.wide() && saved.r.wide() <= high {
        let x_hat: Vec<T> = x.iter().map(|x| x_hat(case.norm, *x, saved)).collect();
        let a = mean::<T, T>(n, |lane, j| u(j).fused(x_hat[j], lane));
        let b = match case.norm {
            Norm::Layer => mean::<T, T>(n, |lane, j| lane + u(j)),
            Norm::Rms => T::of(0.0),
        };
        if a.finite() && b.finite() {
            let dx = |j: usize| E::round(saved.r * (-x_hat[j]).fused(a, u(j) - b));
            return ((0..n).map(dx).collect(), x_hat);
        }
    }
    let wide = Wide::new(case, x);
    (wide.dx(case, dy), wide.x_hat.iter().map(|x_hat| T::of(*x_hat)).collect())
}

/// Everything that a case gives. T is the type that elements E accumulate in.
pub(crate) fn run<E: Stored<Acc = T>, T: Number>(case: &Case<E>) -> Results<E> {
    let n = case.n;
    let [all_x, all_dy] =
        [&case.x, &case.dy].map(|numbers| numbers.iter().map(|x| x.acc()).collect::<Vec<T>>());
    let mut to =
        Results { y: vec![], m: vec![], c: vec![], rstd: vec![], dx: vec![], dweight: vec![], dbias: vec![] };
    let mut x_hats = vec![];
    for (x, dy) in all_x.chunks(n).zip(all_dy.chunks(n)) {
        let affine = |j: usize| (parameter(&case.weight, 1.0, j), parameter(&case.bias, -0.0, j));
        let stats = match statistics(case, x) {
            Some(stats) => {
                to.y.extend(x.iter().enumerate().map(|(j, x)| {
                    let (weight, bias) = affine(j);
                    E::round(x_hat(case.norm, *x, stats).fused(weight, bias))
                }));
                stats
            }
            None => {
                let wide = Wide::new(case, x);
                to.y.extend(wide.x_hat.iter().enumerate().map(|(j, x_hat)| {
                    let (weight, bias) = affine(j);
                    E::of(x_hat.mul_add(weight.wide(), bias.wide()))
                }));
                wide.saved()
            }
        };
        if case.norm == Norm::Layer {
            to.m.push(stats.m);
            to.c.push(stats.c);
        }
        to.rstd.push(stats.r);
        let (dx, x_hat) = backward(case, x, dy, stats);
        to.dx.extend(dx);
        x_hats.push(x_hat);
    }
    let totals = |add: &dyn Fn(T, usize, usize) -> T| {
        (0..n).map(|j| over_rows(case, |sum, row| add(sum, row, j))).collect()
    };
    let dweight: Vec<T> = totals(&|sum, row, j| all_dy[row * n + j].fused(x_hats[row][j], sum));
    let dbias: Vec<T> = totals(&|sum, row, j| sum + all_dy[row * n + j]);
    to.dweight = of_parameter(&case.weight, dweight);
    to.dbias = of_parameter(&case.bias, dbias);
    to
}

/// Chunks of eight by global index, then their tree.
fn over_rows<E: Stored<Acc = T>, T: Number>(case: &Case<E>, add: impl Fn(T, usize) -> T) -> T {
    let mut chunks: Vec<(usize, T)> = vec![];
    for row in 0..case.rows() {
        let chunk = (case.first_row + row) / 8;
        if chunks.last().is_none_or(|(last, _)| *last != chunk) {
            chunks.push((chunk, T::of(0.0)));
        }
        let (_, sum) = chunks.last_mut().unwrap();
        *sum = add(*sum, row);
    }
    tree(chunks.first().map_or(0, |(first, _)| *first), chunks.into_iter().map(|(_, sum)| sum).collect())
}

/// A shared parameter's gradient is the sum over the features.
fn of_parameter<T: Number>(parameter: &Option<Vec<T>>, totals: Vec<T>) -> Vec<T> {
    match parameter {
        Some(values) if values.len() == 1 && totals.len() != 1 => {
            vec![sum::<T, T>(totals.len(), |lane, j| lane + totals[j])]
        }
        _ => totals,
    }
}
