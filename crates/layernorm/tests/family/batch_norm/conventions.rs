//! Running statistics by each convention, evaluation by them, and what folding gives.

use super::accuracy::{in_f64, place};
use super::problem::{Base, Kind, Problem, Random, at};
use layernorm::reference::{self, Affine};
use layernorm::{
    BatchGradients, Convention, Level, ParamGradients, RunningRef, RunningStats, Workspace, batch_norm_eval,
    batch_norm_eval_backward, batch_norm_eval_backward_in_place, batch_norm_eval_in_place, batch_norm_fold,
    batch_norm_folded,
};

fn pairs() -> Vec<(Convention, reference::Convention)> {
    use {Convention as Ours, reference::Convention as Its};
    let mut pairs = vec![
        (Ours::PYTORCH, Its::PYTORCH),
        (Ours::KERAS, Its::KERAS),
        (Ours::TF_KERAS, Its::TF_KERAS),
        (Ours::FLAX, Its::FLAX),
        (Ours::ONNX, Its::ONNX),
        (Ours::PyTorch { momentum: None }, Its::PyTorch { momentum: None }),
    ];
    for momentum in [0.0, 0.25, 1.0] {
        pairs.push((Ours::PyTorch { momentum: Some(momentum) }, Its::PyTorch { momentum: Some(momentum) }));
        pairs.push((Ours::Keras { momentum }, Its::Keras { momentum }));
        pairs.push((Ours::TfKeras { momentum }, Its::TfKeras { momentum }));
        pairs.push((Ours::Flax { momentum }, Its::Flax { momentum }));
        pairs.push((Ours::Onnx { momentum }, Its::Onnx { momentum }));
    }
    pairs
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn running_statistics_move_as_the_frameworks_move_them() {
    let mut random = Random(20);
    for (ours, its) in pairs() {
        assert_eq!((ours.eps(), ours.unbiased()), (its.eps(), its.unbiased()));
        for last in [false, true] {
            let mut running = RunningStats::<f32>::new(5);
            let mut expected = reference::RunningStats::new(5);
            for _ in 0..4 {
                let mut problem = Problem::<f32>::new(last, [6, 5, 3], &mut random);
                problem.x.iter_mut().for_each(|x| *x += 2.0);
                problem.train(running.as_mut(ours), Level::best());
                let (shape, [x, ..]) = in_f64(&problem);
                let batch = reference::batch_norm_train(&x, shape, Affine::NONE, problem.eps);
                expected.update(&batch, its);
                let pairs =
                    running.mean.iter().zip(&expected.mean).chain(running.var.iter().zip(&expected.var));
                for (got, expected) in pairs {
                    assert!(
                        (f64::from(*got) - expected).abs() <= 20.0 * f32::U * expected.abs().max(1.0),
                        "{ours:?}"
                    );
                }
            }
            assert_eq!(running.updates, 4);
        }
    }
}

fn given<E: Kind>() {
    let mut random = Random(21);
    let shapes: &[_] = &[[3, 5, 7], [9, 40, 1], [2, 3, 300], [1, 1, 1], [20, 33, 2]];
    for shape in shapes.iter().copied().take(if cfg!(miri) { 1 } else { usize::MAX }) {
        for last in [false, true] {
            let problem = Problem::<E>::new(last, shape, &mut random);
            let run = at(Level::best()).run;
            let (mean, mut var): (Vec<E::Acc>, Vec<E::Acc>) =
                (random.normals(shape[1]), random.normals(shape[1]));
            var.iter_mut().for_each(|var| *var = E::Acc::of(var.wide().abs() + 0.01));
            let running = RunningRef { mean: &mean, var: &var };
            let (mut y, mut workspace) = (problem.x.clone(), Workspace::new());
            batch_norm_eval(
                problem.view(&problem.x),
                problem.params(),
                running,
                problem.view_mut(&mut y),
                &mut workspace,
                run,
            )
            .unwrap();
            let mut in_place = problem.x.clone();
            batch_norm_eval_in_place(
                problem.view_mut(&mut in_place),
                problem.params(),
                running,
                &mut workspace,
                run,
            )
            .unwrap();
            assert_eq!(y, in_place);
            let folded = batch_norm_fold(problem.params(), running).unwrap();
            let mut by_folded = problem.x.clone();
            batch_norm_folded(problem.view(&problem.x), &folded, problem.view_mut(&mut by_folded), run)
                .unwrap();

            let mut dx = problem.x.clone();
            let gradient =
                |of: &Option<Vec<E>>| vec![E::Acc::of(1.0); of.as_ref().map_or(shape[1], Vec::len)];
            let (mut dweight, mut dbias) = (gradient(&problem.weight), gradient(&problem.bias));
            let params = ParamGradients {
                dweight: Some(&mut dweight),
                dbias: Some(&mut dbias),
                accumulate: true,
                first_row: 0,
                workspace: &mut workspace,
            };
            let gradients = BatchGradients { dx: Some(problem.view_mut(&mut dx)), params };
            let of = |numbers| problem.view(numbers);
            batch_norm_eval_backward(
                of(&problem.x),
                of(&problem.dy),
                problem.params(),
                running,
                gradients,
                run,
            )
            .unwrap();
            let mut dy = problem.dy.clone();
            let params = ParamGradients {
                dweight: None,
                dbias: None,
                accumulate: false,
                first_row: 0,
                workspace: &mut workspace,
            };
            batch_norm_eval_backward_in_place(
                of(&problem.x),
                problem.view_mut(&mut dy),
                problem.params(),
                running,
                params,
                run,
            )
            .unwrap();
            assert_eq!(dx, dy);

            let (nchw, [x, dy, weight, bias]) = in_f64(&problem);
            let wide = |of: &[E::Acc]| of.iter().map(|of| of.wide()).collect::<Vec<_>>();
            let stats = reference::RunningStats { mean: wide(&mean), var: wide(&var), updates: 1 };
            let (affine, eps) = (Affine::new(&weight, &bias), E::Acc::of(problem.eps).wide());
            let exact = reference::batch_norm_eval(&x, nchw, &stats, affine, eps);
            let back = reference::batch_norm_eval_backward(&dy, &x, nchw, &stats, affine, eps);
            let u = E::Acc::U;
            let half =
                |exact: f64| if E::U == u { u * exact.abs() } else { E::U * exact.abs() + 2f64.powi(-25) };
            // The reference rounds in f64 too: it is no truth to f64, but near it.
            let times = if u < 2f64.powi(-50) { 4.0 } else { 1.0 };
            let near = |got: f64, exact: f64, unit: f64| {
                let allowed = times * (u * unit + half(exact) * 1.01);
                assert!((got - exact).abs() <= allowed, "{got} {exact} {unit}, {shape:?}");
            };
            for i in 0..x.len() {
                let (at, k) = place(&problem, i);
                let r = 1.0 / (stats.var[k] + eps).sqrt();
                let x_hat = (x[i] - stats.mean[k]) * r;
                near(y[at].wide(), exact[i], 4.0 * (weight[k] * x_hat).abs());
                near(
                    by_folded[at].wide(),
                    exact[i],
                    4.0 * (weight[k] * r).abs() * (x[i].abs() + stats.mean[k].abs()) + bias[k].abs(),
                );
                near(dx[at].wide(), back.dx[i], 4.0 * back.dx[i].abs());
            }
            let sums: f64 = dy.iter().map(|dy| dy.abs()).sum::<f64>() * 8.0;
            for (got, exact, parameter) in
                [(&dweight, &back.dweight, &problem.weight), (&dbias, &back.dbias, &problem.bias)]
            {
                let shared = parameter.as_ref().is_some_and(|of| of.len() == 1);
                let exact = if shared { vec![exact.iter().sum()] } else { exact.clone() };
                for (got, exact) in got.iter().zip(exact) {
                    near(got.wide(), 1.0 + exact, 20.0 * (1.0 + sums) / 2.0);
                }
            }
        }
    }
}

#[test]
fn evaluation_stays_within_its_bound_and_folding_agrees() {
    given::<f32>();
    given::<f64>();
    given::<half::f16>();
    given::<half::bf16>();
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn folded_into_a_layer_its_output_is_normalised() {
    let mut random = Random(22);
    let (inputs, channels) = (4, 3);
    let weight: Vec<f64> = random.normals(inputs * channels);
    let (bias, x): (Vec<f64>, Vec<f64>) = (random.normals(channels), random.normals(inputs));
    let layer = |weight: &[f64], bias: &[f64]| -> Vec<f64> {
        (0..channels)
            .map(|k| bias[k] + (0..inputs).map(|i| weight[k * inputs + i] * x[i]).sum::<f64>())
            .collect()
    };
    let running = RunningStats { mean: random.normals(channels), var: vec![0.5, 1.0, 2.0], updates: 1 };
    let params = layernorm::Params { weight: Some(&[2.0, 3.0, -1.0]), bias: Some(&[0.5]), eps: 1e-3 };
    let folded = batch_norm_fold(params, running.as_ref()).unwrap();
    let (mut new_weight, mut new_bias) = (weight.clone(), bias.clone());
    folded.into_layer(&mut new_weight, &mut new_bias).unwrap();
    let z = layer(&weight, &bias);
    for (k, y) in layer(&new_weight, &new_bias).into_iter().enumerate() {
        let expected =
            params.weight.unwrap()[k] * (z[k] - running.mean[k]) / (running.var[k] + 1e-3).sqrt() + 0.5;
        assert!((y - expected).abs() < 1e-13, "{y} {expected}");
    }
}
