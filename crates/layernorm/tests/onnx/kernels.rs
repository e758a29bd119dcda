//! The cases through the kernels: a function for each operator, and its arm in [`kernel`].

use crate::case::{Case, Operator};
use layernorm::{
    Activation, Batch, BatchMut, BatchNorm, Convention, Groups, Images, Instances, Layout, Lp, LpNorm,
    MeanVariance, Params, Real, Rows, RowsMut, Run, RunningStats, Stats, Workspace, group_norm,
    instance_norm, layer_norm, lp_norm, mean_variance_norm, rms_norm,
};

/// All outputs of a case, in ONNX's order.
pub(crate) type Outputs = Vec<Vec<f64>>;

/// In either type.
pub(crate) struct Kernel {
    pub(crate) in_f32: fn(&Case) -> Outputs,
    pub(crate) in_f64: fn(&Case) -> Outputs,
}

/// What runs an operator's cases.
pub(crate) fn kernel(operator: Operator) -> Kernel {
    macro_rules! runs {
        ($function:ident) => {
            Kernel { in_f32: $function::<f32>, in_f64: $function::<f64> }
        };
    }
    match operator {
        Operator::LayerNorm => runs!(layer),
        Operator::RmsNorm => runs!(rms),
        Operator::BatchNorm => runs!(batch),
        Operator::BatchNormTraining => runs!(batch_in_training),
        Operator::InstanceNorm => runs!(instance),
        Operator::GroupNorm => runs!(group),
        Operator::L1Norm | Operator::L2Norm => runs!(lp),
        Operator::MeanVarianceNorm => runs!(mean_variance),
    }
}

/// A number that a kernel computes in, and that takes ONNX's f32 without a rounding.
trait Number: Real + From<f32> + Into<f64> {}
impl<T: Real + From<f32> + Into<f64>> Number for T {}

fn layer<T: Number>(case: &Case) -> Outputs {
    let (x, weight, bias): (Vec<T>, Vec<T>, Vec<T>) = (case.input(0), case.input(1), case.input(2));
    let features = case.features();
    let rows = Rows::new(&x, features).expect("whole rows");
    let params = Params { weight: Some(&weight), bias: Some(&bias), eps: case.eps() };
    let (mut y, mut stats) = (blank::<T>(x.len()), Stats::new(rows.rows()));
    let into = RowsMut::new(&mut y, features).expect("whole rows");
    layer_norm(rows, params, into, Some(stats.as_mut()), Run::default()).expect("what fits");
    vec![wide(&y), wide(&stats.mean()), wide(&stats.rstd)]
}

fn rms<T: Number>(case: &Case) -> Outputs {
    let (x, weight): (Vec<T>, Vec<T>) = (case.input(0), case.input(1));
    let features = case.features();
    let params = Params { weight: Some(&weight), bias: None, eps: case.eps() };
    let mut y = blank::<T>(x.len());
    let into = RowsMut::new(&mut y, features).expect("whole rows");
    rms_norm(Rows::new(&x, features).expect("whole rows"), params, into, None, Run::default())
        .expect("what fits");
    vec![wide(&y)]
}

fn lp<T: Number>(case: &Case) -> Outputs {
    let p = if case.operator == Operator::L1Norm { Lp::One } else { Lp::Two };
    let of = LpNorm { shape: case.shape(), axis: case.axis(), p };
    let x: Vec<T> = case.input(0);
    let mut y = blank::<T>(x.len());
    lp_norm(&x, of, &mut y, &mut Workspace::new(), Run::default()).expect("what fits");
    vec![wide(&y)]
}

fn mean_variance<T: Number>(case: &Case) -> Outputs {
    let of = MeanVariance { shape: case.shape(), axes: &case.axes(), ..MeanVariance::default() };
    let x: Vec<T> = case.input(0);
    let mut y = blank::<T>(x.len());
    mean_variance_norm(&x, of, &mut y, &mut Workspace::new(), Run::default()).expect("what fits");
    vec![wide(&y)]
}

/// A batch norm as a case has it.
fn batch_norm<T: Number>(case: &Case) -> BatchNorm<T> {
    let running = RunningStats { mean: case.input(3), var: case.input(4), updates: 0 };
    let convention = Convention::Onnx { momentum: case.momentum() };
    let norm = BatchNorm::new(case.shape()[1]).with_convention(convention).with_eps(case.eps());
    BatchNorm { weight: Some(case.input(1)), bias: Some(case.input(2)), running, ..norm }
}

/// Input and output of a case, with the channels first.
fn batches<'a, T: Number>(case: &Case, x: &'a [T], y: &'a mut [T]) -> (Batch<'a, T>, BatchMut<'a, T>) {
    let (channels, features) = (case.shape()[1], case.shape()[1..].iter().product());
    let x = Rows::new(x, features).and_then(|x| Batch::channels_first(x, channels));
    let y = RowsMut::new(y, features).and_then(|y| BatchMut::channels_first(y, channels));
    (x.expect("whole samples"), y.expect("whole samples"))
}

fn batch<T: Number>(case: &Case) -> Outputs {
    let x: Vec<T> = case.input(0);
    let mut y = blank::<T>(x.len());
    let (from, to) = batches(case, &x, &mut y);
    batch_norm(case).forward_eval(from, to).expect("what fits");
    vec![wide(&y)]
}

fn batch_in_training<T: Number>(case: &Case) -> Outputs {
    let x: Vec<T> = case.input(0);
    let mut y = blank::<T>(x.len());
    let (from, to) = batches(case, &x, &mut y);
    let mut norm = batch_norm::<T>(case);
    norm.forward_train(from, to, &mut Stats::new(case.shape()[1])).expect("what fits");
    vec![wide(&y), wide(&norm.running.mean), wide(&norm.running.var)]
}
fn group<T: Number>(case: &Case) -> Outputs {
    let groups = usize::try_from(case.int("num_groups")).expect("a number of groups");
    by_channel::<T>(case, |images, params, x, y| {
        let norm = Groups { images, groups, params, activation: Activation::None };
        group_norm(norm, x, y, None, &mut Workspace::new(), Run::default()).expect("what fits");
    })
}

fn instance<T: Number>(case: &Case) -> Outputs {
    by_channel::<T>(case, |images, params, x, y| {
        let norm = Instances { images, params, activation: Activation::None };
        instance_norm(norm, x, y, None, &mut Workspace::new(), Run::default()).expect("what fits");
    })
}

/// A norm of images with a weight and a bias a channel.
fn by_channel<T: Number>(case: &Case, norm: impl Fn(Images, Params<'_, T>, &[T], &mut [T])) -> Outputs {
    let (x, weight, bias): (Vec<T>, Vec<T>, Vec<T>) = (case.input(0), case.input(1), case.input(2));
    let shape = case.shape();
    let images = Images::new(shape[0], shape[1], &shape[2..], Layout::ChannelsFirst).expect("images");
    let params = Params { weight: Some(&weight[..]), bias: Some(&bias), eps: case.eps() };
    let mut y = blank::<T>(x.len());
    norm(images, params, &x, &mut y);
    vec![wide(&y)]
}

/// Room for an output, full of a number that is no result.
fn blank<T: Number>(len: usize) -> Vec<T> {
    vec![T::from(f32::NAN); len]
}

fn wide<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|value| (*value).into()).collect()
}
