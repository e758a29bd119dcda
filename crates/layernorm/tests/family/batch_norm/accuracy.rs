//! The bounds of `docs/numerics.md`, against [`layernorm::reference`].

use super::problem::{Base, Kind, Problem, Random, Results, SHAPES, at};
use layernorm::Level;
use layernorm::reference::{self, Affine, Nchw};

/// The problem in f64, channels first: x, dy, weight and bias a channel.
pub(crate) fn in_f64<E: Kind>(of: &Problem<E>) -> (Nchw, [Vec<f64>; 4]) {
    let shape = Nchw { batch: of.samples, channels: of.channels, positions: of.positions };
    let pick = |from: &[E]| -> Vec<f64> {
        let numbers = (0..of.samples)
            .flat_map(|n| (0..of.channels).flat_map(move |k| (0..of.positions).map(move |p| (n, k, p))));
        numbers.map(|(n, k, p)| from[of.at(n, k, p)].wide()).collect()
    };
    let each = |of: &Option<Vec<E>>, absent: f64, channels: usize| -> Vec<f64> {
        (0..channels)
            .map(|k| of.as_ref().map_or(absent, |of| of[if of.len() == 1 { 0 } else { k }].wide()))
            .collect()
    };
    let k = of.channels;
    (shape, [pick(&of.x), pick(&of.dy), each(&of.weight, 1.0, k), each(&of.bias, 0.0, k)])
}

/// Where number `i` of a channels-first batch lies in a problem's.
pub(crate) fn place<E: Kind>(of: &Problem<E>, i: usize) -> (usize, usize) {
    let channel = i / of.positions % of.channels;
    (of.at(i / of.positions / of.channels, channel, i % of.positions), channel)
}

/// The worst errors of y, dx, dweight and dbias, in u of what they are measured by.
pub(crate) fn errors<E: Kind>(of: &Problem<E>, got: &Results<E>) -> [f64; 4] {
    let (shape, [x, dy, weight, bias]) = in_f64(of);
    let eps = E::Acc::of(of.eps).wide();
    let u = E::Acc::U;
    let out = reference::batch_norm_train(&x, shape, Affine::new(&weight, &bias), eps);
    let x_hat = reference::batch_norm_train(&x, shape, Affine::NONE, eps).y;
    let back = reference::batch_norm_train_backward(&dy, &x, shape, Affine::new(&weight, &bias), eps);
    // Rounding to a half is half a unit of the half, which is beside the measure.
    let half = |exact: f64| if u == E::U { 0.0 } else { E::U * exact.abs() + 2f64.powi(-25) };
    let mut largest = vec![0.0f64; of.channels];
    let mut sums = vec![[0.0f64; 2]; of.channels];
    for (i, (dy, x_hat)) in dy.iter().zip(&x_hat).enumerate() {
        let (_, k) = place(of, i);
        largest[k] = largest[k].max((weight[k] * dy).abs());
        sums[k][0] += dy.abs() * x_hat.abs().max(1.0);
        sums[k][1] += dy.abs();
    }
    let mut worst = [0.0f64; 4];
    let mut note = |which: usize, error: f64, rest: f64, unit: f64| {
        let over = (error - rest).max(0.0);
        let over = if over == 0.0 { 0.0 } else { over / (u * unit) };
        worst[which] = if over.is_nan() { f64::INFINITY } else { worst[which].max(over) };
    };
    for (i, x_hat) in x_hat.iter().enumerate() {
        let (at, k) = place(of, i);
        let measure = x_hat.abs().max(1.0);
        let (y, dx) = (out.y[i], back.dx[i]);
        let tiny = 2f64.powi(-148) * (1.0 + weight[k].abs());
        note(0, (got.y[at].wide() - y).abs(), u * y.abs() + half(y) + tiny, weight[k].abs() * measure);
        let rest = half(dx) + 2f64.powi(-148) * (1.0 + out.rstd[k]);
        note(1, (got.dx[at].wide() - dx).abs(), rest, out.rstd[k] * largest[k] * measure);
    }
    for (which, got, parameter, exact) in
        [(2, &got.dweight, &of.weight, &back.dweight), (3, &got.dbias, &of.bias, &back.dbias)]
    {
        let shared = parameter.as_ref().is_some_and(|of| of.len() == 1 && of_many(shape));
        if shared {
            let unit: f64 = sums.iter().map(|sum| sum[which - 2]).sum();
            note(which, (got[0].wide() - exact.iter().sum::<f64>()).abs(), 0.0, unit);
        } else {
            for k in 0..of.channels {
                note(which, (got[k].wide() - exact[k]).abs(), 0.0, sums[k][which - 2]);
            }
        }
    }
    worst
}

fn of_many(shape: Nchw) -> bool {
    shape.channels > 1
}

fn check<E: Kind>() {
    let mut random = Random(5);
    let mut all = [0.0f64; 4];
    for shape in SHAPES.iter().copied() {
        for last in [false, true] {
            for mean in [0.0, 1.0, 1e3, 1e5] {
                // The reference rounds in f64 too, and takes off a mean worse: what it gives is no truth to f64 then.
                if mean > 1.0 && E::Acc::U < 2f64.powi(-50) {
                    continue;
                }
                let mut problem = Problem::<E>::new(last, shape, &mut random);
                let spread = 10f64.powi(random.below(9) as i32 - 4);
                if E::U == E::Acc::U {
                    problem.x.iter_mut().for_each(|x| *x = E::of((x.wide() + mean) * spread));
                }
                // The reference rounds in f64: so f64 is held against its own size of error.
                let got = problem.run(at(Level::best()));
                let worst = errors(&problem, &got);
                let n = (shape[0] * shape[2]) as f64;
                let more = if E::Acc::U < 2f64.powi(-50) { 40.0 * (1.0 + n.sqrt()) } else { 0.0 };
                let bounds = [8.0, 16.0, 16.0 + n.log2(), 8.0 + n.log2()].map(|bound| bound + more);
                for (i, (worst, bound)) in worst.iter().zip(bounds).enumerate() {
                    assert!(
                        *worst <= bound,
                        "{i}: {worst} of {bound}, {shape:?}, last {last}, mean {mean}, eps {}",
                        problem.eps
                    );
                    all[i] = all[i].max(*worst);
                }
            }
        }
    }
    println!("worst of y, dx, dweight, dbias: {all:.2?} u, {}", std::any::type_name::<E>());
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn errors_stay_within_the_bounds() {
    check::<f32>();
    check::<half::f16>();
    check::<half::bf16>();
    check::<f64>();
}
