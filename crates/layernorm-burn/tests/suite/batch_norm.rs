//! Batch norm as a module: running statistics, modes, and the module of `burn::nn` beside it.

use super::*;
use burn::module::Module;
use layernorm::{
    Batch, BatchMut, Convention, Params, Rows, RowsMut, Run, RunningStats, Stats, Training, Workspace,
};
use layernorm_burn::{BatchMode, BatchNorm, BatchNormConfig, Error, batch_norm_eval};

const SHAPE: [usize; 3] = [5, 4, 3];

fn batch(seed: u64, device: &Device) -> Tensor<3> {
    tensor::<3>(SHAPE, seed, device, DType::F32) * 2.0 + 1.0
}

fn kept(norm: &BatchNorm) -> [Vec<u32>; 2] {
    [&norm.running_mean, &norm.running_var].map(|state| bits(state.value_sync()))
}

#[test]
fn running_statistics_are_those_of_the_kernels() {
    let device = Device::flex().autodiff();
    let norm = BatchNormConfig::new(4).init(&device);
    let mut running = RunningStats::<f32>::new(4);
    for seed in 0..3 {
        let x = batch(seed, &device);
        let values = vec_of::<f32, 3>(x.clone().without_autodiff());
        let (mut y, mut saved, mut workspace) = (vec![0.0; values.len()], Stats::new(4), Workspace::new());
        let mut training = Training::new(saved.as_mut(), &mut workspace);
        // Burn's convention: the weight of the new batch, and the biased variance.
        training.running = Some(running.as_mut(Convention::Flax { momentum: 0.9 }));
        let from = Batch::channels_first(Rows::new(&values, 12).expect("rows"), 4).expect("channels");
        let to = BatchMut::channels_first(RowsMut::new(&mut y, 12).expect("rows"), 4).expect("channels");
        layernorm::batch_norm_train(from, Params::<f32>::default(), to, training, Run::default())
            .expect("a batch");
        assert_eq!(bits(norm.forward(x)), bits(Tensor::<1>::from_data(&y[..], &Device::flex())));
    }
    let expected = [&running.mean, &running.var].map(|of| of.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    assert_eq!(kept(&norm), expected);
}

#[test]
fn it_is_that_of_burn() {
    let device = Device::flex().autodiff();
    let ours = BatchNormConfig::new(4).with_momentum(0.3).init(&device);
    let theirs = burn::nn::BatchNormConfig::new(4).with_momentum(0.3).init(&device);
    let close = |a: Tensor<3>, b: Tensor<3>| {
        let [a, b] = [a, b].map(|t| vec_of::<f32, 3>(t.without_autodiff()));
        a.iter().zip(&b).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} and {b}"));
    };
    for seed in 0..3 {
        let x = batch(seed, &device);
        close(ours.forward(x.clone()), theirs.forward(x));
    }
    let x = batch(7, &device);
    close(ours.valid().forward(x.clone().inner()), theirs.valid().forward(x.clone().inner()));
    let (ours, theirs) = (ours.freeze(), theirs.freeze());
    let before = kept(&ours);
    close(ours.forward(x.clone()), theirs.forward(x));
    assert_eq!(kept(&ours), before, "a frozen norm keeps its statistics");
}

#[test]
fn modes_choose_statistics_and_gradients() {
    let device = Device::flex().autodiff();
    let seasoned = BatchNormConfig::new(4).init(&device);
    seasoned.forward(batch(1, &device));
    for mode in [BatchMode::Auto, BatchMode::Train, BatchMode::Eval, BatchMode::Frozen] {
        let norm = seasoned.clone().with_mode(mode);
        let (before, x) = (kept(&norm), batch(2, &device).require_grad());
        let gradients = norm.forward(x.clone()).tanh().sum().backward();
        let trains = matches!(mode, BatchMode::Auto | BatchMode::Train);
        assert_eq!(kept(&norm) != before, trains, "{mode:?}: the running statistics");
        assert_eq!(norm.beta.grad(&gradients).is_some(), mode != BatchMode::Frozen, "{mode:?}: beta");
        assert!(x.grad(&gradients).is_some(), "{mode:?}: x");
    }
}

#[test]
fn half_batches_train_and_evaluate() {
    for half in [DType::F16, DType::BF16] {
        let device = Device::flex().autodiff();
        let norm = BatchNormConfig::new(4).init(&device);
        let y = norm.forward(batch(1, &device).cast(half));
        assert_eq!((y.dtype(), norm.running_var.value_sync().dtype()), (half, DType::F32));
        let wide = BatchNormConfig::new(4).init(&device);
        wide.forward(batch(1, &device).cast(half).cast(DType::F32));
        assert_eq!(kept(&norm), kept(&wide), "statistics of halves are those of the same numbers in f32");
        assert_eq!(norm.valid().forward(batch(2, &Device::flex()).cast(half)).dtype(), half);
    }
}

#[test]
fn a_refused_batch_moves_nothing() {
    let norm = BatchNormConfig::new(4).init(&Device::flex()).with_mode(BatchMode::Train);
    norm.forward(batch(1, &Device::flex()));
    let before = kept(&norm);
    let error = norm.try_forward(Tensor::<2>::ones([1, 4], &Device::flex())).unwrap_err();
    assert_eq!(error, Error::OneNumber { count: 1, x: vec![1, 4] });
    let error = norm.try_forward(Tensor::<2>::ones([3, 5], &Device::flex())).unwrap_err();
    assert_eq!(error, Error::OtherChannels { channels: 4, x: vec![3, 5] });
    assert_eq!(kept(&norm), before);
}

#[test]
fn a_negative_variance_is_nan_in_its_channel() {
    let device = Device::flex().autodiff();
    let x = tensor::<2>([3, 2], 1, &device, DType::F32).require_grad();
    let [mean, var] = [[0.0, 0.0], [-1.0, 1.0]].map(|of| Tensor::<1>::from_data(of, &Device::flex()));
    let y = batch_norm_eval(x.clone(), mean, var, None, None, EPS);
    let dx = x.grad(&y.clone().sum().backward()).expect("dx");
    for of in [y.without_autodiff(), dx] {
        let of = vec_of::<f32, 2>(of);
        assert!(
            of.iter().step_by(2).all(|v| v.is_nan()) && of.iter().skip(1).step_by(2).all(|v| v.is_finite())
        );
    }
}
