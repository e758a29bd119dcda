//! Residual add and norm.

use crate::common::*;
use crate::random::Random;
use layernorm::reference::{AddNormGradients, Affine, add_norm_backward};
use layernorm::{
    AddGradients, BiasGradient, Branch, Companion, Error, Gradients, Normalise, ParamGradients, Params,
    Residual, Rows, RowsMut, Run, Stats, StatsMut, StatsRef, Upstream, Workspace, add_layer_norm,
    add_layer_norm_backward, add_layer_norm_in_place, add_rms_norm, add_rms_norm_backward,
    add_rms_norm_in_place,
};

for_all_types!(
    the_sum_is_exact_and_its_norm_within_the_bounds,
    gradients_are_within_the_bounds,
    fused_is_our_own_unfused_calls,
    the_same_bits_everywhere,
    streamed_outputs_are_the_same,
    unrounded_sums,
);

#[derive(Debug, Clone)]
struct Case<E, R> {
    norm: Norm,
    n: usize,
    x: Vec<E>,
    residual: Vec<R>,
    branch_bias: Option<Vec<R>>,
    mask: Option<Vec<E>>,
    weight: Option<Vec<R>>,
    bias: Option<Vec<R>>,
    dy: Vec<E>,
    upstream: Option<Vec<R>>,
    eps: f64,
    first_row: usize,
}

/// How a case is called.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    hole: usize,
    in_place: bool,
    without_saved: bool,
    unrounded: bool,
}

impl<E: Number, R: Number + Companion<E>> Case<E, R> {
    fn random(norm: Norm, rows: usize, n: usize, random: &mut Random) -> Self {
        let len = rows * n;
        let keep = random.pick(&[0.5, 0.9]);
        let mask = (0..len).map(|_| E::of(if random.unit() < keep { 1.0 / keep } else { 0.0 })).collect();
        Self {
            norm,
            n,
            x: normal(random, len),
            residual: normal(random, len),
            branch_bias: random.pick(&[true, false]).then(|| normal(random, n)),
            mask: random.pick(&[true, false]).then_some(mask),
            weight: random.pick(&[true, false]).then(|| normal(random, n)),
            bias: random.pick(&[true, false]).then(|| normal(random, n)),
            dy: normal(random, len),
            upstream: random.pick(&[true, false]).then(|| normal(random, len)),
            eps: random.pick(&[0.0, 1e-5, 0.1]),
            first_row: random.pick(&[0, 5]),
        }
    }

    fn params(&self) -> Params<'_, R> {
        Params { weight: self.weight.as_deref(), bias: self.bias.as_deref(), eps: self.eps }
    }

    /// The sum, as the documentation says: in the type of statistics, and rounded once.
    fn sum(&self) -> Vec<f64> {
        let acc = in_acc::<E>;
        let one = |i: usize| {
            let mut branch = self.x[i].wide();
            if let Some(bias) = &self.branch_bias {
                branch = acc(branch + bias[i % self.n].wide());
            }
            let residual = self.residual[i].wide();
            match &self.mask {
                // A product of two f32 is exact in f64, but the sum is not: as in the kernel, by an fma of the type.
                Some(mask) if size_of::<E::Acc>() == 4 => {
                    f64::from((mask[i].wide() as f32).mul_add(branch as f32, residual as f32))
                }
                Some(mask) => mask[i].wide().mul_add(branch, residual),
                None => acc(branch + residual),
            }
        };
        (0..self.x.len()).map(|i| R::of(one(i)).wide()).collect()
    }

    fn run(&self, way: Way, run: Run) -> Results {
        let (n, rows) = (self.n, self.x.len() / self.n);
        let blank = || Strided::blank(rows, n, way.hole);
        let x = Strided::new(&self.x, n, way.hole);
        let residual = Strided::new(&self.residual, n, way.hole);
        let mask = self.mask.as_ref().map(|mask| Strided::new(mask, n, way.hole));
        let mut workspace = Workspace::new();
        let normalise =
            if way.unrounded { Normalise::Unrounded(&mut workspace) } else { Normalise::AsStored };
        let branch =
            Branch { bias: self.branch_bias.as_deref(), mask: mask.as_ref().map(Strided::rows), normalise };
        let (mut out, mut y) =
            if way.in_place { (residual.clone(), x.clone()) } else { (blank_of(&residual), blank()) };
        let mut saved: Stats<E::Acc> = Stats::new(rows);
        let stats = saved.as_mut();
        let params = self.params();
        match (self.norm, way.in_place) {
            (Norm::Layer, false) => {
                let of = Residual { residual: residual.rows(), out: out.rows_mut(), branch };
                add_layer_norm(x.rows(), of, params, y.rows_mut(), Some(stats), run)
            }
            (Norm::Layer, true) => {
                add_layer_norm_in_place(y.rows_mut(), out.rows_mut(), branch, params, Some(stats), run)
            }
            (Norm::Rms, false) => {
                let of = Residual { residual: residual.rows(), out: out.rows_mut(), branch };
                add_rms_norm(x.rows(), of, params, y.rows_mut(), Some(stats.rstd), run)
            }
            (Norm::Rms, true) => {
                add_rms_norm_in_place(y.rows_mut(), out.rows_mut(), branch, params, Some(stats.rstd), run)
            }
        }
        .unwrap();

        let dy = Strided::new(&self.dy, n, way.hole);
        let upstream = self.upstream.as_ref().map(|of| Strided::new(of, n, way.hole));
        let mut dresidual = match &upstream {
            Some(upstream) if way.in_place => upstream.clone(),
            _ => blank_of(&residual),
        };
        let mut dx = blank();
        let zeros = || vec![E::acc(SENTINEL); n];
        let (mut dweight, mut dbias, mut dbranch) = (zeros(), zeros(), zeros());
        let (mut of_params, mut of_bias) = (Workspace::new(), Workspace::new());
        let gradients = AddGradients {
            upstream: match &upstream {
                None => Upstream::Nothing,
                Some(_) if way.in_place => Upstream::InPlace,
                Some(upstream) => Upstream::Apart(upstream.rows()),
            },
            dresidual: dresidual.rows_mut(),
            mask: mask.as_ref().map(Strided::rows),
            dx: Some(dx.rows_mut()),
            branch_bias: Some(BiasGradient {
                dbias: &mut dbranch,
                accumulate: false,
                first_row: self.first_row,
                workspace: &mut of_bias,
            }),
            params: Some(ParamGradients {
                dweight: Some(&mut dweight),
                dbias: Some(&mut dbias),
                accumulate: false,
                first_row: self.first_row,
                workspace: &mut of_params,
            }),
        };
        let back = (!way.without_saved).then(|| saved.as_ref());
        match self.norm {
            Norm::Layer => add_layer_norm_backward(out.rows(), dy.rows(), params, back, gradients, run),
            Norm::Rms => {
                let rstd = back.map(|back| back.rstd);
                add_rms_norm_backward(out.rows(), dy.rows(), params, rstd, gradients, run)
            }
        }
        .unwrap();
        vec![
            ("out", out.wide()),
            ("y", y.wide()),
            ("m", wide_acc::<E>(&saved.m)),
            ("c", wide_acc::<E>(&saved.c)),
            ("rstd", wide_acc::<E>(&saved.rstd)),
            ("dresidual", dresidual.wide()),
            ("dx", dx.wide()),
            ("dweight", wide_acc::<E>(&dweight)),
            ("dbias", wide_acc::<E>(&dbias)),
            ("dbranch", wide_acc::<E>(&dbranch)),
        ]
    }
}

fn blank_of<R: Number>(like: &Strided<R>) -> Strided<R> {
    let rows = like.rows();
    let blank = vec![R::of(SENTINEL); rows.rows() * rows.features()];
    // As far apart as the others: the holes are found from the rows.
    let hole = like.hole();
    Strided::new(&blank, rows.features(), hole)
}

fn parameter<R: Number>(values: &Option<Vec<R>>, absent: f64, n: usize) -> Vec<f64> {
    values.as_ref().map_or_else(|| vec![absent; n], |values| wide(values))
}

fn the_sum_is_exact_and_its_norm_within_the_bounds<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(1);
    for n in lengths() {
        for norm in Norm::BOTH {
            let case = Case::<E, R>::random(norm, random.pick(&[0, 1, 2, 3, 9]), n, &mut random);
            let got = case.run(Way::default(), best());
            let sum = case.sum();
            same(&format!("{norm:?} {n} out"), get(&got, "out"), &sum);
            let (weight, bias) = (parameter(&case.weight, 1.0, n), parameter(&case.bias, 0.0, n));
            let eps = in_acc::<E>(case.eps);
            let plain = layernorm::reference::add_norm(
                &sum,
                &vec![0.0; sum.len()],
                norm.reference(n, eps),
                Affine::NONE,
            );
            let exact: Vec<f64> =
                plain.y.iter().enumerate().map(|(i, x_hat)| x_hat * weight[i % n] + bias[i % n]).collect();
            near(&format!("{norm:?} {n} y"), get(&got, "y"), &exact, |i| {
                y_bound::<E>(plain.y[i], weight[i % n], exact[i])
            });
        }
    }
}

fn gradients_are_within_the_bounds<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(2);
    for n in lengths() {
        for norm in Norm::BOTH {
            let rows = random.pick(&[0, 1, 2, 3, 9, 20]);
            let case = Case::<E, R>::random(norm, rows, n, &mut random);
            let got = case.run(Way::default(), best());
            let (sum, dy) = (case.sum(), wide(&case.dy));
            let (eps, weight) = (in_acc::<E>(case.eps), parameter(&case.weight, 1.0, n));
            let upstream = case.upstream.as_ref().map_or_else(|| vec![0.0; sum.len()], |of| wide(of));
            let (zeros, norm_of) = (vec![0.0; n], norm.reference(n, eps));
            let affine = Affine::new(&weight, &zeros);
            let both = AddNormGradients { dy: &dy, dsum: &upstream };
            let exact = add_norm_backward(both, &sum, norm_of, affine);
            let plain = layernorm::reference::add_norm(&sum, &vec![0.0; sum.len()], norm_of, Affine::NONE);
            let unit = |row: usize| {
                let at = |j: usize| (weight[j] * dy[row * n + j]).abs();
                plain.rstd[row] * (0..n).map(at).fold(0.0, f64::max)
            };
            let bound = |i: usize| {
                dx_bound::<E, R>(unit(i / n), plain.y[i], exact.dx[i].abs().max(upstream[i].abs()))
            };
            near(&format!("{norm:?} {n} dresidual"), get(&got, "dresidual"), &exact.dx, bound);
            // dx and the gradient of the bias follow from dresidual as it is stored.
            let stored = get(&got, "dresidual");
            let mask = |i: usize| case.mask.as_ref().map_or(1.0, |mask| mask[i].wide());
            let dx: Vec<f64> =
                (0..sum.len()).map(|i| E::of(in_acc::<E>(stored[i] * mask(i))).wide()).collect();
            same(&format!("{norm:?} {n} dx"), get(&got, "dx"), &dx);
            for (what, term) in [
                ("dweight", &(|i: usize| dy[i] * plain.y[i]) as &dyn Fn(usize) -> f64),
                ("dbias", &|i| dy[i]),
                ("dbranch", &|i| stored[i] * mask(i)),
            ] {
                let total = |j: usize| (0..rows).map(|row| term(row * n + j)).sum::<f64>();
                let size = |j: usize| {
                    let one = |i: usize| term(i).abs() + if what == "dweight" { dy[i].abs() } else { 0.0 };
                    (0..rows).map(|row| one(row * n + j)).sum::<f64>()
                };
                let exact: Vec<f64> = (0..n).map(total).collect();
                near(&format!("{norm:?} {n} {what}"), get(&got, what), &exact, |j| {
                    sum_bound::<E>(rows, size(j))
                });
            }
        }
    }
}

/// The norm of the stored sum, and its gradients, by the functions for norms alone.
fn fused_is_our_own_unfused_calls<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(3);
    for n in lengths() {
        for norm in Norm::BOTH {
            let rows = random.pick(&[1, 2, 3, 9, 20]);
            let mut case = Case::<E, R>::random(norm, rows, n, &mut random);
            let halves = E::U != E::ACC_U;
            if halves {
                // dx of the norm alone is rounded to a half before anything can be added to it.
                case.upstream = None;
            }
            let got = case.run(Way::default(), best());
            // In the type of the residual; where that is wider, y is rounded afterwards.
            let sum: Vec<R> = of(get(&got, "out"));
            let unfused = unfused(&case, &sum);
            let narrow = |values: &[f64]| -> Vec<f64> { wide(&of::<E>(values)) };
            let what = format!("{norm:?} {rows} x {n} {}", E::NAME);
            same(&what, get(&got, "y"), &narrow(get(&unfused, "y")));
            for stats in ["m", "c", "rstd", "dweight", "dbias"] {
                same(&format!("{what}: {stats}"), get(&got, stats), get(&unfused, stats));
            }
            let mut dresidual = get(&unfused, "dx").to_vec();
            if let Some(upstream) = &case.upstream {
                let add = |(dx, upstream): (&mut f64, &R)| *dx = R::of(*dx + upstream.wide()).wide();
                dresidual.iter_mut().zip(upstream).for_each(add);
            }
            same(&format!("{what}: dresidual"), get(&got, "dresidual"), &dresidual);
        }
    }
}

/// A norm alone over the sum, all in the residual's type.
fn unfused<E: Number, R: Number + Companion<E>>(case: &Case<E, R>, sum: &[R]) -> Results {
    let n = case.n;
    let rows = sum.len() / n;
    let (mut y, mut dx) = (vec![R::of(0.0); sum.len()], vec![R::of(0.0); sum.len()]);
    let dy: Vec<R> = of(&wide(&case.dy));
    let mut saved: Stats<E::Acc> = Stats::new(rows);
    let (mut dweight, mut dbias) = (vec![E::acc(0.0); n], vec![E::acc(0.0); n]);
    let mut workspace = Workspace::new();
    let params = case.params();
    let (x, into) = (Rows::new(sum, n).unwrap(), RowsMut::new(&mut y, n).unwrap());
    let of_params = ParamGradients {
        dweight: Some(&mut dweight),
        dbias: Some(&mut dbias),
        accumulate: false,
        first_row: case.first_row,
        workspace: &mut workspace,
    };
    let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, n).unwrap()), params: Some(of_params) };
    let dy = Rows::new(&dy, n).unwrap();
    let StatsMut { m, c, rstd } = saved.as_mut();
    match case.norm {
        Norm::Layer => {
            layernorm::layer_norm(x, params, into, Some(StatsMut { m, c, rstd }), best()).unwrap();
            let saved = StatsRef { m, c, rstd };
            layernorm::layer_norm_backward(x, dy, params, Some(saved), gradients, best()).unwrap();
        }
        Norm::Rms => {
            layernorm::rms_norm(x, params, into, Some(rstd), best()).unwrap();
            layernorm::rms_norm_backward(x, dy, params, Some(rstd), gradients, best()).unwrap();
        }
    }
    vec![
        ("y", wide(&y)),
        ("m", wide_acc::<E>(&saved.m)),
        ("c", wide_acc::<E>(&saved.c)),
        ("rstd", wide_acc::<E>(&saved.rstd)),
        ("dx", wide(&dx)),
        ("dweight", wide_acc::<E>(&dweight)),
        ("dbias", wide_acc::<E>(&dbias)),
    ]
}

fn the_same_bits_everywhere<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(4);
    for (rows, n) in [(9, 1), (9, 7), (33, 40), (20, 257), (200, 600), (3, 9_000)] {
        if !affordable(rows * n) {
            continue;
        }
        for norm in Norm::BOTH {
            for unrounded in [false, true] {
                let mut case = Case::<E, R>::random(norm, rows, n, &mut random);
                hard_rows(&mut case.residual, n, &mut random);
                let way = Way { unrounded, ..Way::default() };
                let what = format!("{norm:?} {rows} x {n}, unrounded {unrounded}");
                everywhere(&what, |run| case.run(way, run));
                let expected = case.run(way, best());
                for other in [
                    Way { hole: 3, ..way },
                    Way { in_place: true, ..way },
                    Way { hole: 1, in_place: true, ..way },
                ] {
                    same_results(&format!("{what}, {other:?}"), &case.run(other, best()), &expected);
                }
                if !unrounded {
                    let other = Way { without_saved: true, ..way };
                    same_results(&format!("{what}, {other:?}"), &case.run(other, best()), &expected);
                }
            }
        }
    }
}

fn streamed_outputs_are_the_same<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(5);
    for (rows, n) in [(18_000, 60), (480, 2200)] {
        if !affordable(rows * n) {
            continue;
        }
        let mut case = Case::<E, R>::random(Norm::Layer, rows, n, &mut random);
        hard_rows(&mut case.residual, n, &mut random);
        for unrounded in [false, true] {
            here_and_there(&format!("{rows} x {n}"), |run| {
                case.run(Way { unrounded, ..Way::default() }, run)
            });
        }
    }
}

/// y is the norm of the sum in f32, and what is stored is that sum rounded.
fn unrounded_sums<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(6);
    for (rows, n) in [(5, 3), (9, 70), (4, 300), (200, 600)] {
        if !affordable(rows * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let case = Case::<E, R>::random(norm, rows, n, &mut random);
            let got = case.run(Way { unrounded: true, ..Way::default() }, best());
            let stored = case.run(Way::default(), best());
            same("out", get(&got, "out"), get(&stored, "out"));
            if E::U == E::ACC_U || E::NAME != R::NAME {
                same_results("the same where nothing is rounded", &got, &stored);
                continue;
            }
            // Parameters and all in f32, which the halves are in too.
            let wide_case = Case::<f32, f32> {
                norm,
                n,
                x: of(&wide(&case.x)),
                residual: of(&wide(&case.residual)),
                branch_bias: case.branch_bias.as_ref().map(|of_it| of(&wide(of_it))),
                mask: case.mask.as_ref().map(|of_it| of(&wide(of_it))),
                weight: case.weight.as_ref().map(|of_it| of(&wide(of_it))),
                bias: case.bias.as_ref().map(|of_it| of(&wide(of_it))),
                dy: of(&wide(&case.dy)),
                upstream: None,
                eps: case.eps,
                first_row: 0,
            };
            let in_f32 = wide_case.run(Way::default(), best());
            same("y", get(&got, "y"), &wide(&of::<E>(get(&in_f32, "y"))));
            same("rstd", get(&got, "rstd"), get(&in_f32, "rstd"));
            same("out", get(&got, "out"), &wide(&of::<E>(get(&in_f32, "out"))));
        }
    }
}

#[test]
fn agree_with_differences_of_the_loss() {
    let mut random = Random::new(7);
    for (rows, n) in [(1, 1), (2, 2), (3, 7), (2, 20)] {
        if !affordable(rows * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let mut case = Case::<f64, f64>::random(norm, rows, n, &mut random);
            case.eps = 0.1;
            case.branch_bias = Some(normal(&mut random, n));
            case.weight = Some(normal(&mut random, n));
            let upstream: Vec<f64> = normal(&mut random, rows * n);
            case.upstream = Some(upstream.clone());
            let loss = |case: &Case<f64, f64>| -> f64 {
                let got = case.run(Way::default(), best());
                let dot =
                    |what, by: &[f64]| -> f64 { get(&got, what).iter().zip(by).map(|(a, b)| a * b).sum() };
                dot("y", &case.dy) + dot("out", &upstream)
            };
            let got = case.run(Way::default(), best());
            is_gradient("dx", get(&got, "dx"), &case.x, |x| loss(&Case { x: x.to_vec(), ..case.clone() }));
            is_gradient("dresidual", get(&got, "dresidual"), &case.residual, |residual| {
                loss(&Case { residual: residual.to_vec(), ..case.clone() })
            });
            is_gradient("dbranch", get(&got, "dbranch"), &case.branch_bias.clone().unwrap(), |bias| {
                loss(&Case { branch_bias: Some(bias.to_vec()), ..case.clone() })
            });
            is_gradient("dweight", get(&got, "dweight"), &case.weight.clone().unwrap(), |weight| {
                loss(&Case { weight: Some(weight.to_vec()), ..case.clone() })
            });
        }
    }
}

#[test]
fn sums_go_on_where_the_batch_was_cut() {
    let mut random = Random::new(8);
    let (rows, n) = (40, 9);
    let whole = Case::<f32, f32> { first_row: 0, ..Case::random(Norm::Rms, rows, n, &mut random) };
    let expected = whole.run(Way::default(), best());
    let half = |range: std::ops::Range<usize>| {
        let cut = |of: &Vec<f32>| of[range.start * n..range.end * n].to_vec();
        let case = Case {
            x: cut(&whole.x),
            residual: cut(&whole.residual),
            mask: whole.mask.as_ref().map(cut),
            dy: cut(&whole.dy),
            upstream: whole.upstream.as_ref().map(cut),
            first_row: range.start,
            ..whole.clone()
        };
        case.run(Way::default(), best())
    };
    let [first, second] = [half(0..32), half(32..40)];
    for what in ["dweight", "dbias", "dbranch"] {
        let add = |(a, b): (&f64, &f64)| f64::from(*a as f32 + *b as f32);
        let sum: Vec<f64> = get(&first, what).iter().zip(get(&second, what)).map(add).collect();
        same(what, &sum, get(&expected, what));
    }
}

/// One wrong size at a time, of each argument.
#[test]
fn wrong_sizes_are_refused_before_anything_is_written() {
    const N: usize = 4;
    let right = [3usize; 8];
    for wrong in 0..=8 {
        let mut rows = right;
        if wrong < 8 {
            rows[wrong] = 2;
        }
        let [of_y, of_residual, of_out, of_mask, of_bias, of_saved, of_dy, of_dresidual] = rows;
        let x = Strided::<f32>::blank(3, N, 0);
        let blank = |rows: usize| Strided::<f32>::blank(rows, N, 0);
        let (mut y, residual, mut out, mask) =
            (blank(of_y), blank(of_residual), blank(of_out), blank(of_mask));
        let bias = vec![1.0f32; of_bias + 1];
        let mut rstd = vec![SENTINEL as f32; of_saved];
        let forward = {
            let branch =
                Branch { bias: Some(&bias), mask: Some(mask.rows()), normalise: Normalise::AsStored };
            let residual = Residual { residual: residual.rows(), out: out.rows_mut(), branch };
            add_rms_norm(x.rows(), residual, Params::default(), y.rows_mut(), Some(&mut rstd), best())
        };
        let (dy, mut dresidual, mut dx) = (blank(of_dy), blank(of_dresidual), blank(of_y));
        let (mut dbias, mut workspace) = (vec![SENTINEL as f32; of_bias + 1], Workspace::new());
        let backward = {
            let gradients = AddGradients {
                upstream: Upstream::Apart(residual.rows()),
                dresidual: dresidual.rows_mut(),
                mask: Some(mask.rows()),
                dx: Some(dx.rows_mut()),
                branch_bias: Some(BiasGradient {
                    dbias: &mut dbias,
                    accumulate: false,
                    first_row: 0,
                    workspace: &mut workspace,
                }),
                params: None,
            };
            add_rms_norm_backward(
                x.rows(),
                dy.rows(),
                Params::<f32>::default(),
                Some(&rstd),
                gradients,
                best(),
            )
        };
        let shape = |what| Err(Error::Shape { what, expected: (3, N), got: (2, N) });
        let length = |what, expected, got| Err(Error::Length { what, expected, got });
        let expected: [Result<(), Error>; 2] = match wrong {
            0 => [shape("y"), shape("dx")],
            1 => [shape("residual"), shape("upstream")],
            2 => [shape("out"), Ok(())],
            3 => [shape("mask"), shape("mask")],
            4 => [length("the branch's bias", N, 3), length("the gradient of the branch's bias", N, 3)],
            5 => [length("rstd", 3, 2), length("rstd", 3, 2)],
            6 => [Ok(()), shape("dy")],
            7 => [Ok(()), shape("dresidual")],
            _ => [Ok(()), Ok(())],
        };
        assert_eq!([&forward, &backward], [&expected[0], &expected[1]], "wrong size {wrong}");
        if forward.is_err() {
            assert!(y.untouched() && out.untouched() && rstd.iter().all(|r| f64::from(*r) == SENTINEL));
        }
        if backward.is_err() {
            assert!(
                dresidual.untouched() && dx.untouched() && dbias.iter().all(|d| f64::from(*d) == SENTINEL)
            );
        }
    }
    let (x, mut r) = (Strided::<f32>::blank(1, N, 0), Strided::<f32>::blank(1, N, 0));
    let branch = Branch::<f32, f32>::default();
    let params = Params { eps: -1.0, ..Params::<f32>::default() };
    let refused = add_layer_norm_in_place(x.clone().rows_mut(), r.rows_mut(), branch, params, None, best());
    assert!(matches!(refused, Err(Error::Epsilon { .. })) && r.untouched());
}
