//! Lp norm and mean-variance norm, along any axes.

use super::tools::*;
use layernorm::{
    Lp, LpNorm, MeanVariance, Params, Rows, RowsMut, Run, Workspace, l2_norm, layer_norm, lp_norm,
    lp_norm_backward, mean_variance_norm, mean_variance_norm_backward, reference,
};

for_all!(mean_variance_agrees_with_the_reference, lp_agrees_with_the_reference);

fn shapes() -> Vec<Vec<usize>> {
    [&[7][..], &[3, 4], &[5, 1, 3], &[2, 3, 4, 5], &[40, 300], &[2, 0, 3], &[0]]
        .map(<[usize]>::to_vec)
        .to_vec()
}

fn mean_variance<E: Number>(x: &[E], dy: &[E], of: MeanVariance<'_>, run: Run) -> Vec<Vec<f64>> {
    let (mut y, mut dx) = (blank::<E>(x.len()), blank::<E>(x.len()));
    let mut workspace = Workspace::new();
    mean_variance_norm(x, of, &mut y, &mut workspace, run).unwrap();
    mean_variance_norm_backward(x, dy, of, &mut dx, &mut workspace, run).unwrap();
    vec![wide(&y), wide(&dx)]
}

fn lp<E: Number>(x: &[E], dy: &[E], of: LpNorm<'_>, run: Run) -> Vec<Vec<f64>> {
    let (mut y, mut dx) = (blank::<E>(x.len()), blank::<E>(x.len()));
    let mut workspace = Workspace::new();
    lp_norm(x, of, &mut y, &mut workspace, run).unwrap();
    lp_norm_backward(x, dy, of, &mut dx, &mut workspace, run).unwrap();
    vec![wide(&y), wide(&dx)]
}

/// For each number, the largest magnitude of `values` in its set, and how many there are in it.
fn largest(values: &[f64], shape: &[usize], axes: &[usize]) -> Vec<f64> {
    let key = |mut i: usize| -> Vec<usize> {
        let mut key = vec![];
        for (axis, size) in shape.iter().enumerate().rev() {
            if !axes.contains(&axis) {
                key.push(i % size);
            }
            i /= size;
        }
        key
    };
    let keys: Vec<_> = (0..values.len()).map(key).collect();
    let mut all = std::collections::HashMap::new();
    for (key, value) in keys.iter().zip(values) {
        let most: &mut f64 = all.entry(key).or_default();
        *most = most.max(value.abs());
    }
    keys.iter().map(|key| all[key]).collect()
}

fn mean_variance_agrees_with_the_reference<E: Number>() {
    let mut random = Random::new(111);
    for shape in shapes() {
        let len = shape.iter().product();
        for set in 0..1usize << shape.len() {
            let axes: Vec<usize> = (0..shape.len()).rev().filter(|axis| set >> axis & 1 == 1).collect();
            let (x, dy): (Vec<E>, Vec<E>) = (random.numbers(len), random.numbers(len));
            for eps in [1e-9, 0.5] {
                let of = MeanVariance { shape: &shape, axes: &axes, eps };
                let got = everywhere(|run| mean_variance(&x, &dy, of, run));
                let (x, dy, eps) = (wide(&x), wide(&dy), <E::Acc as Plain>::of(eps).wide());
                let want = reference::mean_variance_norm(&x, &shape, &axes, eps);
                let back = reference::mean_variance_norm_backward(&dy, &x, &shape, &axes, eps);
                let most_dy = largest(&dy, &shape, &axes);
                let deviation: Vec<f64> = want.rstd.iter().map(|r| 1.0 / r - eps).collect();
                let sets = want.rstd.len().max(1);
                for i in 0..len {
                    let what = format!("{shape:?} {axes:?} {eps} [{i}]");
                    near::<E>(got[0][i], want.y[i], 8.0, want.y[i].abs().max(1.0), &what);
                    let worst = want.rstd.iter().copied().fold(0.0, f64::max);
                    let along = deviation
                        .iter()
                        .copied()
                        .filter(|s| *s > 0.0)
                        .fold(0.0, |max: f64, s| max.max(1.0 / s));
                    // A set of one number has exactly no gradient.
                    let measure = if len == sets {
                        0.0
                    } else {
                        (worst + along) * most_dy[i] * want.y[i].abs().max(1.0)
                    };
                    near::<E>(got[1][i], back[i], 16.0, measure, &what);
                }
            }
        }
    }
}

fn lp_agrees_with_the_reference<E: Number>() {
    let mut random = Random::new(112);
    for shape in shapes() {
        let len = shape.iter().product();
        for (axis, p) in (0..shape.len()).flat_map(|axis| [(axis, Lp::One), (axis, Lp::Two)]) {
            let (mut x, dy): (Vec<E>, Vec<E>) = (random.numbers(len), random.numbers(len));
            // A zero here and there; a line of them where lines are short.
            x.iter_mut().take(len / 3).step_by(2).for_each(|x| *x = E::of(0.0));
            let of = LpNorm { shape: &shape, axis, p };
            let got = everywhere(|run| lp(&x, &dy, of, run));
            let power = if p == Lp::One { 1 } else { 2 };
            let (x, dy) = (wide(&x), wide(&dy));
            let want = reference::lp_norm(&x, &shape, axis, power);
            let back = reference::lp_norm_backward(&dy, &x, &shape, axis, power);
            let most_dy = largest(&dy, &shape, &[axis]);
            let worst = want.rnorm.iter().copied().fold(0.0, f64::max);
            for i in 0..len {
                let what = format!("{shape:?} {axis} {p:?} [{i}]");
                near::<E>(got[0][i], want.y[i], 8.0, want.y[i].abs(), &what);
                near::<E>(got[1][i], back[i], 16.0, worst * most_dy[i] * 3.0, &what);
            }
        }
    }
}

#[test]
fn gradients_are_the_slopes() {
    let mut random = Random::new(113);
    let shape = [2, 3, 4];
    // Away from 0, where an L1 norm has its corners.
    let x: Vec<f64> = random.numbers::<f64>(24).iter().map(|x| x + x.signum() / 4.0).collect();
    let dy = random.numbers::<f64>(24);
    for (axis, p) in [0, 1, 2].into_iter().flat_map(|axis| [(axis, Lp::One), (axis, Lp::Two)]) {
        let of = LpNorm { shape: &shape, axis, p };
        let got = lp(&x, &dy, of, Run::default());
        slopes(&x, &got[1], |x| dot(&lp(x, &dy, of, Run::default())[0], &dy), "Lp");
    }
    for axes in [&[0, 2][..], &[1], &[2, 1]] {
        let of = MeanVariance { shape: &shape, axes, eps: 0.3 };
        let got = mean_variance(&x, &dy, of, Run::default());
        slopes(&x, &got[1], |x| dot(&mean_variance(x, &dy, of, Run::default())[0], &dy), "mean-variance");
    }
}

/// Without epsilon they are norms that have names of their own, to the bit, along the last axis.
#[test]
fn along_the_last_axis() {
    let mut random = Random::new(114);
    let (x, dy): (Vec<f32>, Vec<f32>) = (random.numbers(6 * 35), random.numbers(6 * 35));
    let of = LpNorm { shape: &[2, 3, 35], axis: 2, p: Lp::Two };
    let mut y = blank::<f32>(x.len());
    let rows = Rows::new(&x, 35).unwrap();
    l2_norm(rows, 0.0, RowsMut::new(&mut y, 35).unwrap(), None, Run::default()).unwrap();
    same(&lp(&x, &dy, of, Run::default())[..1], &[wide(&y)], "L2 norm");
    let of = MeanVariance { shape: &[2, 3, 35], axes: &[2], eps: 0.0 };
    let params = Params::<f32> { eps: 0.0, ..Params::default() };
    layer_norm(rows, params, RowsMut::new(&mut y, 35).unwrap(), None, Run::default()).unwrap();
    same(&mean_variance(&x, &dy, of, Run::default())[..1], &[wide(&y)], "layer norm");
}

/// Lines of zeros, of numbers whose sums overflow, and of subnormal ones; constant sets.
#[test]
fn special_lines() {
    for p in [Lp::One, Lp::Two] {
        let one = if p == Lp::One { 0.5 } else { 0.5f64.sqrt() };
        let x = [0.0f32, 0.0, 3e38, -3e38, 1e-44, 1e-44];
        let of = LpNorm { shape: &[3, 2], axis: 1, p };
        let got = everywhere(|run| lp(&x, &[0.0; 6], of, run));
        for (got, want) in got[0].iter().zip([0.0, 0.0, one, -one, one, one]) {
            near::<f32>(*got, want, 8.0, 1.0, "f32");
        }
        let x = [0.0f64, -0.0, 1.7e308, -1.7e308, 5e-324, 5e-324];
        let got = everywhere(|run| lp(&x, &[0.0; 6], of, run));
        for (got, want) in got[0].iter().zip([0.0, 0.0, one, -one, one, one]) {
            near::<f64>(*got, want, 8.0, 1.0, "f64");
        }
        let got = everywhere(|run| lp(&[0.0f32; 4], &[1.0; 4], LpNorm { shape: &[4], axis: 0, p }, run));
        assert_eq!(got, [[0.0; 4], [0.0; 4]], "a line of zeros");
        let got = everywhere(|run| {
            lp(&[1.0, f32::NAN, 3.0, 4.0], &[1.0; 4], LpNorm { shape: &[2, 2], axis: 1, p }, run)
        });
        assert!(got[0][..2].iter().all(|y| y.is_nan()) && got[0][2..].iter().all(|y| y.is_finite()));
    }
    let of = MeanVariance { shape: &[2, 3], axes: &[1], eps: 1e-9 };
    let got = everywhere(|run| mean_variance(&[0.1f32, 0.1, 0.1, 3e38, -3e38, 0.0], &[0.0; 6], of, run));
    assert_eq!(got[0][..3], [0.0; 3], "a constant set");
    near::<f32>(got[0][3], 1.5f64.sqrt(), 8.0, 1.3, "huge numbers");
}
