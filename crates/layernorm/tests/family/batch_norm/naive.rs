//! Section 11 of `docs/numerics.md` as plain loops over numbers, for channels that need no more range.

use super::problem::{Problem, Results, Wide};
use layernorm::Stats;

/// Leaves of consecutive indices, from `first` on.
pub(crate) fn tree<T: Wide>(mut first: usize, mut nodes: Vec<T>) -> T {
    while nodes.len() > 1 {
        let mut above = Vec::new();
        let mut rest = &nodes[..];
        if first % 2 == 1 {
            above.push(rest[0]);
            rest = &rest[1..];
        }
        for pair in rest.chunks(2) {
            above.push(if pair.len() == 2 { pair[0].plus(pair[1]) } else { pair[0] });
        }
        nodes = above;
        first /= 2;
    }
    nodes.first().copied().unwrap_or(T::of(0.0))
}

/// A sum over a row.
pub(crate) fn row<T: Wide>(n: usize, add: impl Fn(T, usize) -> T) -> T {
    let block = |start: usize| {
        let mut lanes = vec![T::of(0.0); T::W];
        for j in start..n.min(start + T::B) {
            let lane = &mut lanes[(j - start) % T::W];
            *lane = add(*lane, j);
        }
        tree(0, lanes)
    };
    tree(0, (0..n).step_by(T::B).map(block).collect())
}

/// A sum over the numbers of a channel, counted by samples and positions.
fn channel<T: Wide>(of: &Problem<T>, first: usize, add: impl Fn(T, usize) -> T) -> T {
    let mut chunks: Vec<(usize, T)> = vec![];
    for r in 0..of.rows() {
        let chunk = (first + r) / 8;
        if chunks.last().is_none_or(|(last, _)| *last != chunk) {
            chunks.push((chunk, T::of(0.0)));
        }
        let (_, sum) = chunks.last_mut().unwrap();
        *sum = if of.last {
            add(*sum, r)
        } else {
            sum.plus(row(of.positions, |lane, j| add(lane, r * of.positions + j)))
        };
    }
    tree(chunks.first().map_or(0, |(first, _)| *first), chunks.into_iter().map(|(_, sum)| sum).collect())
}

fn parameter<T: Wide>(values: &Option<Vec<T>>, absent: f64, channel: usize) -> T {
    match values {
        None => T::of(absent),
        Some(values) if values.len() == 1 => values[0],
        Some(values) => values[channel],
    }
}

pub(crate) fn negative<T: Wide>(value: T) -> T {
    value.times(T::of(-1.0))
}

/// Everything that a problem gives.
pub(crate) fn run<T: Wide>(of: &Problem<T>) -> Results<T> {
    let zeros = vec![T::of(0.0); of.x.len()];
    let (mut y, mut dx) = (zeros.clone(), zeros);
    let mut saved = Stats::new(of.channels);
    let (mut dweight, mut dbias) = (vec![], vec![]);
    let valid = of.valid();
    let count = valid.iter().filter(|valid| **valid).count();
    let n = T::of(count as f64);
    for k in 0..of.channels {
        let places = of.places(k);
        let x = |i: usize| of.x[places[i]];
        let taken = |sum: T, i: usize, add: &dyn Fn(T) -> T| if valid[i] { add(sum) } else { sum };
        let mut m = channel(of, 0, |sum, i| taken(sum, i, &|sum| sum.plus(x(i)))).over(n);
        let mut repeated = false;
        let (c, mut var) = loop {
            let d = |i: usize| x(i).plus(negative(m));
            let c = channel(of, 0, |sum, i| taken(sum, i, &|sum| sum.plus(d(i)))).over(n);
            let squares = channel(of, 0, |sum, i| taken(sum, i, &|sum| d(i).fused(d(i), sum))).over(n);
            let var = negative(c).fused(c, squares);
            let less = var < c.times(c);
            if repeated || !less {
                break (c, var);
            }
            m = m.plus(c);
            repeated = true;
        };
        if var < T::of(0.0) {
            var = T::of(0.0);
        }
        let r = T::of(1.0).over(var.plus(T::of(of.eps)).root());
        [saved.m[k], saved.c[k], saved.rstd[k]] = [m, c, r];
        let shift = negative(c.times(r));
        let x_hat = |i: usize| x(i).plus(negative(m)).fused(r, shift);
        let (weight, bias) = (parameter(&of.weight, 1.0, k), parameter(&of.bias, -0.0, k));
        let dy = |i: usize| of.dy[places[i]];
        let products = channel(of, of.first, |sum, i| dy(i).fused(x_hat(i), sum));
        let ones = channel(of, of.first, |sum, i| sum.plus(dy(i)));
        let (a, b) = (products.over(n), ones.over(n));
        for i in 0..places.len() {
            y[places[i]] = x_hat(i).fused(weight, bias);
            let o = if valid[i] { negative(x_hat(i)).fused(a, dy(i).plus(negative(b))) } else { dy(i) };
            dx[places[i]] = o.times(r).times(weight);
        }
        dweight.push(products);
        dbias.push(ones);
    }
    let shared = |of: &Option<Vec<T>>, totals: Vec<T>| match of {
        Some(values) if values.len() == 1 && totals.len() != 1 => {
            vec![row(totals.len(), |lane: T, k| lane.plus(totals[k]))]
        }
        _ => totals,
    };
    let (dweight, dbias) = (shared(&of.weight, dweight), shared(&of.bias, dbias));
    Results { y, saved, dx, dweight, dbias }
}
