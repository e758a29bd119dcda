//! The cases through [`layernorm::reference`], in f64, with the unit in which errors of each number are told.

use crate::case::{Case, Operator};
use layernorm::reference::{
    Affine, Convention, Nchw, RunningStats, batch_norm_eval, batch_norm_train, group_norm, instance_norm,
    layer_norm, lp_norm, mean_variance_norm, rms_norm,
};

/// ONNX adds it to the deviation in every case; the operator has no attribute for it.
const EPS_OF_MEAN_VARIANCE_NORM: f64 = 1e-9;

/// The true numbers of one output.
pub(crate) struct Output {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
    /// What an error of each is measured by, as in section 9 of `docs/numerics.md`:
    ///
    /// - y of a centred norm: |weight| max(1, |x_hat|) + |y|. Where there is no mean to be taken off, |y|.
    /// - a mean: deviation + |mean|. 1 / deviation, and a variance: itself.
    pub(crate) units: Vec<f64>,
}

/// All outputs of a case, in ONNX's order.
pub(crate) fn run(case: &Case) -> Vec<Output> {
    let x: Vec<f64> = case.input(0);
    let outputs = match case.operator {
        Operator::LayerNorm => layer(case, &x),
        Operator::RmsNorm => {
            let weight: Vec<f64> = case.input(1);
            let affine = Affine { weight: Some(&weight), bias: None };
            vec![by_itself(rms_norm(&x, case.features(), affine, case.eps()).y)]
        }
        Operator::BatchNorm => {
            let running = RunningStats { mean: case.input(3), var: case.input(4), updates: 0 };
            vec![by_channel(case, |affine| batch_norm_eval(&x, nchw(case), &running, affine, case.eps()))]
        }
        Operator::BatchNormTraining => batch_in_training(case, &x),
        Operator::InstanceNorm => {
            vec![by_channel(case, |affine| instance_norm(&x, nchw(case), affine, case.eps()).y)]
        }
        Operator::GroupNorm => {
            let groups = usize::try_from(case.int("num_groups")).expect("a number of groups");
            vec![by_channel(case, |affine| group_norm(&x, nchw(case), groups, affine, case.eps()).y)]
        }
        Operator::L1Norm => vec![by_itself(lp_norm(&x, case.shape(), case.axis(), 1).y)],
        Operator::L2Norm => vec![by_itself(lp_norm(&x, case.shape(), case.axis(), 2).y)],
        Operator::MeanVarianceNorm => {
            let y = mean_variance_norm(&x, case.shape(), &case.axes(), EPS_OF_MEAN_VARIANCE_NORM).y;
            vec![(y.clone(), y.iter().map(|y| y.abs().max(1.0)).collect())]
        }
    };
    let shape = |output: usize| match (case.operator, output) {
        (_, 0) => case.shape().to_vec(),
        // The statistics of rows keep the axes that were normalised, as 1.
        (Operator::LayerNorm, _) => {
            case.shape().iter().enumerate().map(|(i, size)| if i < case.axis() { *size } else { 1 }).collect()
        }
        _ => vec![case.shape()[1]],
    };
    let outputs = outputs.into_iter().enumerate();
    outputs.map(|(i, (values, units))| Output { shape: shape(i), values, units }).collect()
}

type ValuesAndUnits = (Vec<f64>, Vec<f64>);

fn by_itself(values: Vec<f64>) -> ValuesAndUnits {
    let units = values.iter().map(|value| value.abs()).collect();
    (values, units)
}

fn layer(case: &Case, x: &[f64]) -> Vec<ValuesAndUnits> {
    let (weight, bias): (Vec<f64>, Vec<f64>) = (case.input(1), case.input(2));
    let of = |affine| layer_norm(x, case.features(), affine, case.eps());
    let (plain, out) = (of(Affine::NONE), of(Affine::new(&weight, &bias)));
    let units = units(&plain.y, &out.y, |i| weight[i % case.features()]);
    let of_mean = out.mean.iter().zip(&out.rstd).map(|(mean, rstd)| 1.0 / rstd + mean.abs()).collect();
    vec![(out.y, units), (out.mean, of_mean), by_itself(out.rstd)]
}

fn batch_in_training(case: &Case, x: &[f64]) -> Vec<ValuesAndUnits> {
    let y = by_channel(case, |affine| batch_norm_train(x, nchw(case), affine, case.eps()).y);
    let batch = batch_norm_train(x, nchw(case), Affine::NONE, case.eps());
    let mut running = RunningStats { mean: case.input(3), var: case.input(4), updates: 0 };
    running.update(&batch, Convention::Onnx { momentum: case.momentum() });
    let of_mean = running.mean.iter().zip(&batch.rstd).map(|(mean, rstd)| 1.0 / rstd + mean.abs()).collect();
    vec![y, (running.mean, of_mean), by_itself(running.var)]
}

/// A norm with a weight and a bias a channel.
fn by_channel(case: &Case, norm: impl Fn(Affine) -> Vec<f64>) -> ValuesAndUnits {
    let (weight, bias): (Vec<f64>, Vec<f64>) = (case.input(1), case.input(2));
    let Nchw { channels, positions, .. } = nchw(case);
    let (x_hat, y) = (norm(Affine::NONE), norm(Affine::new(&weight, &bias)));
    let units = units(&x_hat, &y, |i| weight[i / positions % channels]);
    (y, units)
}

fn units(x_hat: &[f64], y: &[f64], weight: impl Fn(usize) -> f64) -> Vec<f64> {
    let pairs = x_hat.iter().zip(y).enumerate();
    pairs.map(|(i, (x_hat, y))| weight(i).abs() * x_hat.abs().max(1.0) + y.abs()).collect()
}

fn nchw(case: &Case) -> Nchw {
    let shape = case.shape();
    Nchw { batch: shape[0], channels: shape[1], positions: shape[2..].iter().product() }
}
