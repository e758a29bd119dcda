//! Masks: section 16 of `docs/numerics.md` as plain loops over numbers, bit for bit.

use crate::axes::{Case, Results, Setting, assert_all_same, settings, the_same_bits};
use crate::batch_norm::naive::{negative, row as sum, tree};
use crate::batch_norm::problem::Wide;
use crate::tools::{Number, Random, SENTINEL, assert_same};
use half::{bf16, f16};
use layernorm::{Run, Stats, narrow};

fn of<A: Number>(value: f64) -> A {
    A::of(value)
}

/// As an element. (Of the crate `half` not the way from f64, which does not see the last bits of an f32.)
fn stored<T: Number>(value: T::Acc) -> T {
    let mut to = [T::of(0.0)];
    narrow(&[value], &mut to, Run::default()).unwrap();
    to[0]
}

/// dweight and dbias of a parameter: of dy and x_hat, or of sums of runs.
fn over_rows<A: Wide + Number>(terms: &[[A; 2]], by_feature: bool) -> [A; 2] {
    let chunk = |terms: &[[A; 2]]| {
        terms.iter().fold([of::<A>(0.0); 2], |[w, b], [dy, along]| {
            [if by_feature { dy.fused(*along, w) } else { w.plus(*along) }, b.plus(*dy)]
        })
    };
    [0, 1].map(|i| tree(0, terms.chunks(8).map(|terms| chunk(terms)[i]).collect()))
}

/// m, c and r of some numbers, which need no more range than their type has; of none, 0.
fn statistics<A: Wide + Number>(x: &[A], rms: bool, eps: f64) -> [A; 3] {
    let (n, zero) = (of::<A>(x.len() as f64), of::<A>(0.0));
    if x.is_empty() {
        return [zero; 3];
    }
    let mean = |add: &dyn Fn(A, A) -> A| sum::<A>(x.len(), |lane, j| add(lane, x[j])).over(n);
    let (mut m, mut c, mut var) = (zero, zero, mean(&|lane, x| x.fused(x, lane)));
    if !rms {
        m = mean(&|lane, x| lane.plus(x));
        for repeated in [false, true] {
            let d = |x: A| x.plus(negative(m));
            c = mean(&|lane, x| lane.plus(d(x)));
            var = negative(c).fused(c, mean(&|lane, x| d(x).fused(d(x), lane)));
            if repeated || var >= c.times(c) {
                break;
            }
            m = m.plus(c);
        }
        var = if var < zero { zero } else { var };
    }
    [m, c, of::<A>(1.0).over(var.plus(of(eps)).root())]
}

/// Everything that a masked case gives.
fn naive<T: Number>(case: &Case<T>) -> Results<T>
where
    T::Acc: Number + Wide,
{
    let wide = |value: T| of::<T::Acc>(value.wide());
    let unwritten = |of: &[T]| vec![T::of(SENTINEL); of.len()];
    let (mut y, mut dx, mut stats) = (unwritten(&case.x), unwritten(&case.x), Stats::new(case.rows()));
    let run: usize = {
        let shared = case.over.iter().filter(|axis| !case.affine.contains(axis));
        shared.map(|axis| case.shape[*axis]).product()
    };
    let by_feature = run == 1 && case.affine.iter().all(|axis| case.over.contains(axis));
    let mut terms = vec![vec![]; case.weight.len()];
    for (row, places) in case.places().iter().enumerate().filter(|(_, places)| !places.is_empty()) {
        let n = places.len();
        let (mut order, others): (Vec<usize>, Vec<usize>) =
            (0..n).partition(|j| case.mask.as_ref().unwrap()[places[*j][1]]);
        let valid = order.len();
        order.extend(others);
        let of_row = |of: &[T], k: usize| places.iter().map(|place| wide(of[place[k]])).collect::<Vec<_>>();
        let (x, dy) = (of_row(&case.x, 0), of_row(&case.dy, 0));
        let (weight, bias) = (of_row(&case.weight, 2), of_row(&case.bias, 2));
        let used: Vec<_> = order[..valid].iter().map(|j| x[*j]).collect();
        let [m, c, r] = statistics(&used, case.rms, case.eps);
        stats.rstd[row] = r;
        if !case.rms {
            (stats.m[row], stats.c[row]) = (m, c);
        }
        let shift = negative(c.times(r));
        let x_hat = |j: usize| {
            if valid == 0 { of(0.0) } else { x[j].plus(negative(m)).fused(r, shift) }
        };
        let u = |j: usize| weight[j].times(dy[j]);
        let count = of::<T::Acc>(valid as f64);
        let a = sum(n, |lane, i| u(order[i]).fused(x_hat(order[i]), lane)).over(count);
        let b = if case.rms { of(0.0) } else { sum(n, |lane: T::Acc, i| lane.plus(u(order[i]))).over(count) };
        for (i, j) in order.iter().copied().enumerate() {
            y[places[j][0]] = stored(x_hat(j).fused(weight[j], bias[j]));
            let rest = if i < valid {
                negative(x_hat(j)).fused(a, u(j).plus(negative(b)))
            } else {
                // Nothing goes through the statistics; a zero keeps or loses its sign as if it did.
                negative(x_hat(j)).fused(of(0.0), u(j))
            };
            let value = if valid == 0 { of(0.0) } else { r.times(rest) };
            dx[places[j][0]] = stored(value);
        }
        for first in (0..n).step_by(run) {
            let products = sum(run, |lane, i| dy[first + i].fused(x_hat(first + i), lane));
            let ones = sum(run, |lane: T::Acc, i| lane.plus(dy[first + i]));
            let term = if by_feature { [dy[first], x_hat(first)] } else { [ones, products] };
            terms[places[first][2]].push(term);
        }
    }
    let (dweight, dbias) = terms.iter().map(|terms| over_rows(terms, by_feature).into()).unzip();
    Results { y, stats, dx, dweight, dbias }
}

/// Masks as they come: by position, by feature, constant over a row, at random; and all and nothing.
fn masks<T: Number>(case: &Case<T>) -> Vec<(&'static str, Case<T>)>
where
    T::Acc: Number,
{
    let (len, rank) = (case.shape.iter().product::<usize>(), case.shape.len());
    let over: Vec<usize> = case.over.clone();
    let rows: Vec<usize> = (0..rank).filter(|axis| !over.contains(axis)).collect();
    let last: Vec<usize> = case.over.iter().max().copied().into_iter().collect();
    let mut random = Random(len as u64);
    let mut one_in = |n: u64| (0..len).map(|_| random.bits().is_multiple_of(n)).collect::<Vec<_>>();
    let (few, half, most) =
        (one_in(10), one_in(2), one_in(10).into_iter().map(|few| !few).collect::<Vec<_>>());
    let padded = (0..len).map(|i| i % 150 < 97).collect();
    let with =
        |mask: Vec<bool>, lacks: &[usize]| Case { mask: Some(mask), lacks: lacks.to_vec(), ..case.clone() };
    vec![
        ("all", with(vec![true; len], &[])),
        ("none", with(vec![false; len], &[])),
        ("all of a row or none", with(half.clone(), &over)),
        ("by feature", with(most.clone(), &rows)),
        ("not by the last axis", with(half.clone(), &last)),
        ("few", with(few, &[])),
        ("half", with(half, &[])),
        ("most", with(most, &[])),
        ("padded", with(padded, &[])),
    ]
}

/// Rows of more numbers than are looked at together.
const LONG: [Setting; 3] =
    [(&[3, 700], &[1], &[1]), (&[4, 3, 130], &[1, 2], &[1]), (&[2, 130, 3], &[1, 2], &[1])];

fn against_naive<T: Number>()
where
    T::Acc: Number + Wide,
{
    let long = LONG.into_iter().filter(|_| !cfg!(miri));
    for (seed, (shape, over, affine)) in settings().into_iter().chain(long).enumerate() {
        let rms = seed % 2 == 1;
        let mut case = Case::<T> { rms, ..Case::new(shape, over, affine, seed as u64) };
        case.dy.iter_mut().step_by(7).for_each(|dy| *dy = T::of(-0.0));
        case.bias.iter_mut().step_by(3).for_each(|bias| *bias = T::of(-0.0));
        for (name, case) in masks(&case) {
            let what = format!("{name}: {shape:?} over {over:?} by {affine:?}, rms {rms}");
            assert_all_same(&case.run(false, true, Run::default()), &naive(&case), &what);
            the_same_bits(&case, &what);
        }
    }
}

#[test]
fn f32_is_as_written() {
    against_naive::<f32>();
}

#[test]
fn f64_is_as_written() {
    against_naive::<f64>();
}

#[test]
fn f16_is_as_written() {
    against_naive::<f16>();
}

#[test]
fn bf16_is_as_written() {
    against_naive::<bf16>();
}

/// Bit for bit: x_hat is rounded before it is multiplied, and the same everywhere, where f64 would have more of it.
#[test]
fn out_of_range_x_hat_is_rounded() {
    for scale in [1e30f32, 1e-30] {
        let (shape, over, affine) = if cfg!(miri) { settings()[0] } else { LONG[0] };
        let mut case = Case::<f32> { eps: 0.0, ..Case::new(shape, over, affine, 31) };
        case.x.iter_mut().for_each(|x| *x *= scale);
        for (name, case) in masks(&case) {
            let mut plain = case.clone();
            plain.weight.fill(1.0);
            plain.bias.fill(-0.0);
            let x_hat = plain.run(false, true, Run::default()).y;
            let got = case.run(false, true, Run::default());
            let n = case.weight.len();
            for (i, x_hat) in x_hat.iter().enumerate() {
                let y = x_hat.mul_add(case.weight[i % n], case.bias[i % n]);
                assert_same(&[got.y[i]], &[y], name);
            }
            // Of the valid numbers it is that of a row that they are by themselves.
            for row in case.places() {
                let valid = row.iter().filter(|place| case.mask.as_ref().unwrap()[place[1]]);
                let [x, x_hat]: [Vec<f32>; 2] =
                    [&case.x, &x_hat].map(|of| valid.clone().map(|place| of[place[0]]).collect());
                let mut alone = Case { eps: 0.0, ..Case::new(&[1, x.len()], &[1], &[1], 0) };
                alone.x = x;
                alone.weight.fill(1.0);
                alone.bias.fill(-0.0);
                assert_same(&x_hat, &alone.run(false, true, Run::default()).y, name);
            }
            for j in 0..n {
                let terms: Vec<_> = (j..x_hat.len()).step_by(n).map(|i| [case.dy[i], x_hat[i]]).collect();
                let [dweight, dbias] = over_rows(&terms, true);
                assert_same(&[got.dweight[j], got.dbias[j]], &[dweight, dbias], name);
            }
            the_same_bits(&case, name);
        }
    }
}
