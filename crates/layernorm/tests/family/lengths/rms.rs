//! RMS norm with its options.

use super::tools::*;

use layernorm::{
    Epsilon, Gradients, Params, RmsNorm, RmsParams, Rounding, Rows, RowsMut, Run, Workspace, reference,
    rms_norm, rms_norm_backward, rms_norm_backward_in_place, rms_norm_in_place,
};

for_all!(agrees_with_the_reference, in_place_strided_and_threaded_too, options_that_change_nothing);

/// A call with all options.
#[derive(Debug, Clone)]
struct Case<E> {
    n: usize,
    x: Vec<E>,
    dy: Vec<E>,
    weight: Option<Vec<E>>,
    bias: Option<Vec<E>>,
    eps: f64,
    offset: f64,
    partial: Option<usize>,
    epsilon: Epsilon,
}

impl<E: Number> Case<E> {
    fn random(random: &mut Random, [rows, n]: [usize; 2]) -> Self {
        let mut parameter = |centre: f64| -> Option<Vec<E>> {
            let len = [0, 1, n][random.below(3)];
            (len > 0).then(|| (0..len).map(|_| E::of(centre + random.normal() / 4.0)).collect())
        };
        let (weight, bias) = (parameter(1.0), parameter(0.0));
        let partial = [None, Some(1), Some(n.div_ceil(2)), Some(n)][random.below(4)];
        let epsilon = [Epsilon::Inside, Epsilon::Outside][random.below(2)];
        // A small first number makes the others of a row large in units of it: not what this is about.
        let mut x: Vec<E> = random.numbers(rows * n);
        x.iter_mut().step_by(n).for_each(|x| *x = E::of(1.0 + x.wide().abs()));
        Self {
            n,
            x,
            dy: random.numbers(rows * n),
            weight,
            bias,
            eps: [0.0, 1e-5, 0.25][random.below(3)],
            offset: [0.0, 1.0][random.below(2)],
            partial,
            epsilon,
        }
    }

    fn params(&self) -> RmsParams<'_, E> {
        RmsParams {
            weight: self.weight.as_deref(),
            bias: self.bias.as_deref(),
            eps: self.eps,
            weight_offset: self.offset,
            partial: self.partial,
            epsilon: self.epsilon,
            rounding: Rounding::Once,
        }
    }

    /// y, rstd, dx, dweight, dbias.
    fn run(&self, run: Run) -> Vec<Vec<f64>> {
        let rows = self.x.len() / self.n;
        let (x, dy) = (Rows::new(&self.x, self.n).unwrap(), Rows::new(&self.dy, self.n).unwrap());
        let (mut y, mut dx) = (blank::<E>(self.x.len()), blank::<E>(self.x.len()));
        let mut rstd = blank::<E::Acc>(rows);
        let mut dweight = blank::<E::Acc>(self.weight.as_ref().map_or(self.n, Vec::len));
        let mut dbias = blank::<E::Acc>(self.bias.as_ref().map_or(self.n, Vec::len));
        let into = RowsMut::new(&mut y, self.n).unwrap();
        rms_norm(x, self.params(), into, Some(&mut rstd), run).unwrap();
        let mut workspace = Workspace::new();
        let gradients = Gradients {
            dx: Some(RowsMut::new(&mut dx, self.n).unwrap()),
            params: Some(of_params(Some(&mut dweight), Some(&mut dbias), &mut workspace)),
        };
        rms_norm_backward(x, dy, self.params(), Some(&rstd), gradients, run).unwrap();
        vec![wide(&y), wide(&rstd), wide(&dx), wide(&dweight), wide(&dbias)]
    }

    /// The weights as they are used.
    fn weights(&self) -> Vec<f64> {
        let weight = |j: usize| match &self.weight {
            None => 1.0,
            Some(weight) => <E::Acc as Plain>::of(weight[j % weight.len()].wide() + self.offset).wide(),
        };
        (0..self.n).map(weight).collect()
    }
}

/// x_hat, r and dx of a row, by the equations.
fn row(x: &[f64], u: &[f64], k: usize, epsilon: Epsilon, eps: f64) -> (Vec<f64>, f64, Vec<f64>) {
    let mean_square = dot(&x[..k], &x[..k]) / k as f64;
    let (divisor, along) = match epsilon {
        Epsilon::Inside => ((mean_square + eps).sqrt(), 1.0),
        Epsilon::Outside => (mean_square.sqrt() + eps, (mean_square.sqrt() + eps) / mean_square.sqrt()),
    };
    let r = 1.0 / divisor;
    let x_hat: Vec<f64> = x.iter().map(|x| x * r).collect();
    let s = dot(u, &x_hat) / k as f64 * along;
    let dx = (0..x.len()).map(|j| r * (u[j] - if j < k { x_hat[j] * s } else { 0.0 })).collect();
    (x_hat, r, dx)
}

fn check<E: Number>(case: &Case<E>, got: &[Vec<f64>]) {
    let n = case.n;
    let (x, dy, weights) = (wide(&case.x), wide(&case.dy), case.weights());
    let k = case.partial.unwrap_or(n);
    let eps = <E::Acc as Plain>::of(case.eps).wide();
    let rows = (x.len() / n) as f64;
    let bias = |j: usize| case.bias.as_ref().map_or(0.0, |bias| bias[j % bias.len()].wide());
    let mut sums = vec![[0.0; 4]; n];
    for (i, (x, dy)) in x.chunks(n).zip(dy.chunks(n)).enumerate() {
        let u: Vec<f64> = weights.iter().zip(dy).map(|(w, dy)| w * dy).collect();
        let (x_hat, r, dx) = row(x, &u, k, case.epsilon, eps);
        near::<E::Acc>(got[1][i], r, 8.0, r, "rstd");
        let along: f64 = u.iter().zip(&x_hat).map(|(u, x_hat)| (u * x_hat).abs()).sum::<f64>() / k as f64;
        for j in 0..n {
            let y = weights[j].mul_add(x_hat[j], bias(j));
            near::<E>(
                got[0][i * n + j],
                y,
                8.0,
                (weights[j] * x_hat[j]).abs(),
                format_args!("y[{i}][{j}] of {case:?}"),
            );
            let measure = r * (u[j].abs() + x_hat[j].abs() * along);
            near::<E>(got[2][i * n + j], dx[j], 16.0, measure, format_args!("dx[{i}][{j}] of {case:?}"));
            let sums = &mut sums[j];
            let terms = [dy[j] * x_hat[j], dy[j]];
            for (k, term) in terms.into_iter().enumerate() {
                sums[k] += term;
                sums[k + 2] += term.abs() + if k == 0 { dy[j].abs() } else { 0.0 };
            }
        }
    }
    if rows == 0.0 {
        assert!(got[3].iter().chain(&got[4]).all(|sum| *sum == 0.0));
        return;
    }
    for (k, got) in [&got[3], &got[4]].into_iter().enumerate() {
        let times = 16.0 + rows.log2();
        if got.len() == n {
            let pairs = got.iter().zip(&sums);
            pairs.for_each(|(got, sums)| near::<E::Acc>(*got, sums[k], times, sums[k + 2], "sum over rows"));
        } else {
            let total = |k: usize| sums.iter().map(|sums| sums[k]).sum::<f64>();
            near::<E::Acc>(got[0], total(k), times + 14.0 + (n as f64).log2(), total(k + 2), "shared sum");
        }
    }
}

fn agrees_with_the_reference<E: Number>() {
    let mut random = Random::new(71);
    for (i, shape) in shapes().into_iter().enumerate() {
        for _ in 0..if i < 70 { 6 } else { 2 } {
            let case = Case::<E>::random(&mut random, shape);
            check(&case, &everywhere(|run| case.run(run)));
        }
    }
}

/// The equations of this file, which are needed where epsilon is outside, are the reference's.
#[test]
fn the_equations_are_those_of_the_reference() {
    let mut random = Random::new(72);
    for _ in 0..30 {
        let mut case = Case::<f64>::random(&mut random, [3, 7]);
        case.epsilon = Epsilon::Inside;
        let (n, k, weights) = (7, case.partial.unwrap_or(7), case.weights());
        let affine = reference::Affine { weight: Some(&weights), bias: None };
        let want = reference::partial_rms_norm_backward(&case.dy, &case.x, n, k, affine, case.eps).dx;
        for (i, (x, dy)) in case.x.chunks(n).zip(case.dy.chunks(n)).enumerate() {
            let u: Vec<f64> = weights.iter().zip(dy).map(|(w, dy)| w * dy).collect();
            let (.., dx) = row(x, &u, k, Epsilon::Inside, case.eps);
            for (j, dx) in dx.iter().enumerate() {
                assert!((dx - want[i * n + j]).abs() < 1e-12 * (1.0 + dx.abs()));
            }
        }
    }
}

#[test]
fn gradients_are_the_slopes() {
    let mut random = Random::new(73);
    for _ in 0..40 {
        let case = Case::<f64>::random(&mut random, [2, 6]);
        let loss = |case: &Case<f64>| dot(&case.run(Run::default())[0], &case.dy);
        let got = case.run(Run::default());
        slopes(
            &case.x,
            &got[2],
            |x| loss(&Case { x: x.to_vec(), ..case.clone() }),
            &format!("dx of {case:?}"),
        );
        if let Some(weight) = &case.weight {
            slopes(weight, &got[3], |w| loss(&Case { weight: Some(w.to_vec()), ..case.clone() }), "dweight");
        }
    }
}

fn in_place_strided_and_threaded_too<E: Number>() {
    let mut random = Random::new(74);
    for shape in shapes().into_iter().filter(|shape| shape[0] > 0) {
        let case = Case::<E>::random(&mut random, shape);
        let (rows, n, stride) = (shape[0], shape[1], shape[1] + 3);
        let want = case.run(Run::default());
        let spread = |values: &[E]| -> Vec<E> {
            let mut to = blank::<E>(rows * stride);
            values.chunks(n).enumerate().for_each(|(i, row)| to[i * stride..][..n].copy_from_slice(row));
            to
        };
        let gathered = |values: &[E]| -> Vec<f64> {
            assert!(values.chunks(stride).all(|row| is_blank(&row[n..])), "between rows");
            values.chunks(stride).flat_map(|row| wide(&row[..n])).collect()
        };
        let (mut x, mut dy) = (spread(&case.x), spread(&case.dy));
        let source = x.clone();
        let rows_of = |values| RowsMut::strided(values, rows, n, stride).unwrap();
        rms_norm_in_place(rows_of(&mut x), case.params(), None, Run::default()).unwrap();
        let source = Rows::strided(&source, rows, n, stride).unwrap();
        rms_norm_backward_in_place(source, rows_of(&mut dy), case.params(), None, None, Run::default())
            .unwrap();
        same(&[gathered(&x), gathered(&dy)], &[want[0].clone(), want[2].clone()], "strided, in place");
    }
}

fn options_that_change_nothing<E: Number>() {
    let mut random = Random::new(75);
    for shape in [[3, 5], [2, 300]] {
        let plain = Case::<E> { partial: None, offset: 0.0, ..Case::random(&mut random, shape) };
        let plain = Case { epsilon: Epsilon::Inside, ..plain };
        let want = plain.run(Run::default());
        same(&Case { partial: Some(plain.n), ..plain.clone() }.run(Run::default()), &want, "partial of all");
        let params = Params { weight: plain.weight.as_deref(), bias: plain.bias.as_deref(), eps: plain.eps };
        let mut y = blank::<E>(plain.x.len());
        let into = RowsMut::new(&mut y, plain.n).unwrap();
        rms_norm(Rows::new(&plain.x, plain.n).unwrap(), params, into, None, Run::default()).unwrap();
        same(&[wide(&y)], &want[..1], "Params");
        let outside = Case { eps: 0.0, epsilon: Epsilon::Outside, ..plain.clone() };
        let inside = Case { epsilon: Epsilon::Inside, ..outside.clone() };
        same(&outside.run(Run::default())[..2], &inside.run(Run::default())[..2], "no epsilon");
        // In steps of 1/64, so that 1 + w is exact in halves, too.
        let steps =
            |of: f64| -> Vec<E> { (0..plain.n).map(|j| E::of(of + (j % 32) as f64 / 64.0)).collect() };
        let stored = Case { weight: Some(steps(0.0)), offset: 1.0, ..plain.clone() };
        let added = Case { weight: Some(steps(1.0)), ..plain.clone() };
        same(&stored.run(Run::default()), &added.run(Run::default()), "1 + w");
    }
}

/// The roundings of models, by what they round: x_hat.
#[test]
fn roundings() {
    fn of<E: Number>() {
        let mut random = Random::new(76);
        for n in [1, 3, 8, 33, 300] {
            let (x, weight): (Vec<E>, Vec<E>) = (random.numbers(4 * n), random.numbers(n));
            let y = |weight: Option<&[E]>, rounding: Rounding| {
                let params = RmsParams { weight, rounding, ..RmsParams::default() };
                everywhere(|run| {
                    let mut y = blank::<E>(x.len());
                    let into = RowsMut::new(&mut y, n).unwrap();
                    rms_norm(Rows::new(&x, n).unwrap(), params, into, None, run).unwrap();
                    vec![wide(&y)]
                })
            };
            let x_hat = y(None, Rounding::Once);
            let weighted = x_hat[0].iter().enumerate().map(|(i, x)| E::of(x * weight[i % n].wide()).wide());
            let llama = y(Some(&weight), Rounding::Llama);
            same(&llama, &[weighted.collect()], "x_hat is rounded first");
            same(&y(Some(&weight), Rounding::T5), &llama, "T5 with a weight of the elements' type");
            let once = y(Some(&weight), Rounding::Once);
            same(&y(Some(&weight), Rounding::Gemma), &once, "Gemma");
            assert!(n < 8 || once != llama, "nothing was rounded");
        }
    }
    of::<half::f16>();
    of::<half::bf16>();
    let x: Vec<half::bf16> = Random::new(77).numbers(64);
    for weight in [&[1.7f32; 64][..], &[1.7]] {
        let y = |rounding| {
            let mut y = blank::<half::bf16>(64);
            let params = RmsParams { weight: Some(weight), rounding, ..RmsParams::default() };
            let into = RowsMut::new(&mut y, 64).unwrap();
            rms_norm(Rows::new(&x, 64).unwrap(), params, into, None, Run::default()).unwrap();
            wide(&y)
        };
        assert_eq!(y(Rounding::T5), y(Rounding::Once), "T5 with a weight in f32");
        assert_ne!(y(Rounding::Llama), y(Rounding::Once));
    }
}

#[test]
fn the_value_has_the_options() {
    let mut norm = RmsNorm::<f64>::new(2).with_eps(0.0);
    (norm.weight_offset, norm.partial) = (1.0, Some(1));
    let mut y = [0.0; 2];
    norm.forward(&[2.0, 6.0], &mut y).unwrap();
    assert_eq!(y, [2.0, 6.0]);
    (norm.epsilon, norm.eps) = (Epsilon::Outside, 2.0);
    norm.forward(&[2.0, 6.0], &mut y).unwrap();
    assert_eq!(y, [1.0, 3.0]);
}

/// Rows of zeros, huge and tiny ones; with epsilon outside, where the fast loop can't do them.
#[test]
fn special_rows() {
    for epsilon in [Epsilon::Inside, Epsilon::Outside] {
        for eps in [0.0, 1e-6] {
            let x = [0.0f32, 0.0, 3e38, -3e38, 3e-39, 4e-39, 1.0, -7.0];
            let dy = [1.0f32, 2.0, 1.0, 2.0, 1e-9, 1e-9, 1.0, 2.0];
            let case = Case {
                n: 2,
                x: x.to_vec(),
                dy: dy.to_vec(),
                weight: None,
                bias: None,
                eps,
                offset: 0.0,
                partial: None,
                epsilon,
            };
            let got = everywhere(|run| case.run(run));
            assert!(got.iter().take(1).chain(&got[2..]).flatten().all(|value| value.is_finite()), "{got:?}");
            assert_eq!(got[0][..2], [0.0; 2]);
            near::<f32>(got[0][3], -1.0, 8.0, 1.0, "huge");
            if eps == 0.0 {
                near::<f32>(got[0][5], 4.0 / 12.5f64.sqrt(), 8.0, 1.2, "tiny");
                assert_eq!(got[2][..2], [0.0; 2], "no gradient where there is nothing to divide by");
            } else {
                let r = if epsilon == Epsilon::Inside { 1e3 } else { 1e6 };
                near::<f32>(got[2][1], 2.0 * r, 8.0, 2.0 * r, "the slope at 0");
            }
        }
    }
}
