//! Every kind of norm against the reference in f64, forward and backward, and the identities between them.

use super::*;
use burn::module::{Module, Param};
use burn::store::ModuleRecord;
use layernorm::reference::{self, Backward, Convention, Nchw, RunningStats};
use layernorm_burn::{Affine, BatchMode, Norm as AnyNorm, NormConfig, NormKind};

const SHAPE: [usize; 3] = [3, 4, 5];
const IMAGES: Nchw = Nchw { batch: 3, channels: 4, positions: 5 };

pub(crate) fn every_kind() -> Vec<NormConfig> {
    vec![
        NormConfig::none(),
        NormConfig::layer(),
        NormConfig::rms(),
        NormConfig::partial_rms(0.5),
        NormConfig::batch(),
        NormConfig::group(2),
        NormConfig::instance(),
        NormConfig::scale(),
    ]
}

/// The features of a tensor of `SHAPE`, or its channels.
fn units(kind: NormKind) -> usize {
    if kind.is_by_row() { SHAPE[2] } else { SHAPE[1] }
}

/// The norm in f64, with random parameters.
fn random(config: &NormConfig, device: &Device) -> AnyNorm {
    let mut norm = config.init(units(config.kind), device);
    let parameter = |seed| {
        move |p: Param<Tensor<1>>| Param::from_tensor(tensor(p.dims(), seed, device, DType::F64) + 0.5)
    };
    norm.gamma = norm.gamma.map(parameter(11));
    norm.beta = norm.beta.map(parameter(12));
    norm
}

/// y and the gradients that the reference gives for this dy.
fn expected(norm: &AnyNorm, epsilon: f64, x: &[f64], dy: &[f64]) -> (Vec<f64>, Backward) {
    let values =
        |p: &Option<Param<Tensor<1>>>| p.as_ref().map(|p| vec_of::<f64, 1>(p.val().without_autodiff()));
    let (gamma, beta) = (values(&norm.gamma), values(&norm.beta));
    let affine = reference::Affine { weight: gamma.as_deref(), bias: beta.as_deref() };
    let d = units(norm.kind());
    match norm.kind() {
        NormKind::Layer => (
            reference::layer_norm(x, d, affine, epsilon).y,
            reference::layer_norm_backward(dy, x, d, affine, epsilon),
        ),
        NormKind::Rms => (
            reference::rms_norm(x, d, affine, epsilon).y,
            reference::rms_norm_backward(dy, x, d, affine, epsilon),
        ),
        NormKind::PartialRms { .. } => (
            reference::partial_rms_norm(x, d, 2, affine, epsilon).y, // half of 5, rounded down
            reference::partial_rms_norm_backward(dy, x, d, 2, affine, epsilon),
        ),
        NormKind::Batch => (
            reference::batch_norm_train(x, IMAGES, affine, epsilon).y,
            reference::batch_norm_train_backward(dy, x, IMAGES, affine, epsilon),
        ),
        NormKind::Group { groups } => (
            reference::group_norm(x, IMAGES, groups, affine, epsilon).y,
            reference::group_norm_backward(dy, x, IMAGES, groups, affine, epsilon),
        ),
        NormKind::Instance => (
            reference::instance_norm(x, IMAGES, affine, epsilon).y,
            reference::instance_norm_backward(dy, x, IMAGES, affine, epsilon),
        ),
        NormKind::Scale => {
            let g = gamma.expect("scale norm has one gain")[0];
            let back = reference::scale_norm_backward(dy, x, d, g, epsilon);
            let dweight = vec![back.dscale];
            (reference::scale_norm(x, d, g, epsilon).y, Backward { dx: back.dx, dweight, dbias: vec![] })
        }
        _ => (x.to_vec(), Backward { dx: dy.to_vec(), dweight: vec![], dbias: vec![] }),
    }
}

#[track_caller]
fn assert_close(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= 1e-12 * (1.0 + want.abs()), "{what}: {got} where {want} is right");
    }
}

/// y, dx, dgamma, dbeta by autodiff.
fn computed(norm: &AnyNorm, x: Tensor<3>, dy: Tensor<3>) -> (Vec<f64>, Backward) {
    let x = x.require_grad();
    let y = norm.forward(x.clone());
    let gradients = (y.clone() * dy).sum().backward();
    let of = |p: &Option<Param<Tensor<1>>>| {
        p.as_ref().map_or_else(Vec::new, |p| vec_of(p.grad(&gradients).expect("a parameter has a gradient")))
    };
    let dx = vec_of(x.grad(&gradients).expect("x has a gradient"));
    (vec_of(y.without_autodiff()), Backward { dx, dweight: of(&norm.gamma), dbias: of(&norm.beta) })
}

#[test]
fn every_kind_agrees_with_the_reference() {
    let device = Device::flex().autodiff();
    for config in every_kind() {
        for (affine, epsilon) in
            [(None, 1e-5), (None, 0.0), (Some(Affine::None), 1e-3), (Some(Affine::Shared), 0.1)]
        {
            let config = affine.map_or(config.clone(), |affine| config.clone().with_affine(affine));
            if config.kind == NormKind::Scale && (config.gamma, config.beta) != (Affine::Shared, Affine::None)
            {
                continue; // the reference has one gain and no bias
            }
            let config = config.with_epsilon(epsilon);
            let norm = random(&config, &device);
            let (x, dy) = (tensor(SHAPE, 1, &device, DType::F64), tensor(SHAPE, 2, &device, DType::F64));
            let [x_values, dy_values] = [&x, &dy].map(|t| vec_of::<f64, 3>(t.clone().without_autodiff()));
            let (want_y, want) = expected(&norm, epsilon, &x_values, &dy_values);
            let (y, got) = computed(&norm, x, dy);
            let what = |part: &str| format!("{part} of {config:?}");
            assert_close(&y, &want_y, &what("y"));
            assert_close(&got.dx, &want.dx, &what("dx"));
            assert_close(&got.dweight, &want.dweight, &what("dgamma"));
            assert_close(&got.dbias, &want.dbias, &what("dbeta"));
        }
    }
}

#[test]
fn nothing_varies_and_epsilon_is_0() {
    let device = Device::flex().autodiff();
    for config in every_kind().into_iter().filter(|config| config.kind != NormKind::None) {
        // Constant, and for the norms without a centre zero.
        let constant = if matches!(config.kind, NormKind::Rms | NormKind::PartialRms { .. } | NormKind::Scale)
        {
            0.0
        } else {
            0.3
        };
        let norm = random(&config.with_epsilon(0.0).with_mode(BatchMode::Train), &device);
        let x = Tensor::full(SHAPE, constant, (&device, DType::F64));
        let (y, back) = computed(&norm, x, tensor(SHAPE, 2, &device, DType::F64));
        let beta = norm.beta.as_ref().map_or_else(|| vec![0.0], |beta| vec_of(beta.val().without_autodiff()));
        let kind = norm.kind();
        assert!(y.iter().all(|y| beta.contains(y)), "{kind:?}: {y:?} holds only the bias {beta:?}");
        assert!(back.dx.iter().all(|dx| *dx == 0.0), "{kind:?}: dx is {:?}", back.dx);
        assert!(back.dweight.iter().all(|dgamma| *dgamma == 0.0), "{kind:?}: dgamma is {:?}", back.dweight);
    }
}

#[test]
fn one_group_is_layer_norm_of_channels_and_positions() {
    let device = Device::flex();
    let x = tensor::<4>([2, 6, 3, 2], 1, &device, DType::F32);
    let [gamma, beta] = [2, 3].map(|seed| tensor::<1>([6], seed, &device, DType::F32));
    let grouped = layernorm_burn::group_norm(x.clone(), 1, gamma.clone(), beta.clone(), EPS);
    let each = |of: Tensor<1>| of.reshape([6, 1]).repeat_dim(1, 6).flatten(0, 1);
    let layered = layer_norm(x.flatten::<2>(1, 3), each(gamma), each(beta), EPS);
    assert_eq!(bits(grouped), bits(layered));
}

#[test]
fn as_many_groups_as_channels_are_instance_norm() {
    let device = Device::flex();
    let x = tensor::<3>([2, 6, 8], 1, &device, DType::F32);
    let [groups, instances] = [NormConfig::group(6), NormConfig::instance()].map(|c| c.init(6, &device));
    assert_eq!(bits(groups.forward(x.clone())), bits(instances.forward(x)));
}

#[test]
fn a_whole_share_is_rms_norm_and_no_gain_is_l2_norm() {
    let device = Device::flex();
    let x = tensor::<2>([4, 6], 1, &device, DType::F64);
    let y = |config: NormConfig| vec_of::<f64, 2>(config.init(6, &device).forward(x.clone()));
    assert_close(&y(NormConfig::partial_rms(1.0)), &y(NormConfig::rms()), "share 1");
    let l2 = reference::l2_norm(&vec_of::<f64, 2>(x.clone()), 6, 1e-5).y;
    assert_close(&y(NormConfig::scale().with_affine(Affine::None)), &l2, "no gain");
}

#[test]
fn a_short_row_is_divided_by_epsilon_in_scale_norm() {
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::from_data([[3e-3, 4e-3]], (&device, DType::F64)).require_grad();
    let y = layernorm_burn::scale_norm(x.clone(), None, 0.5);
    let dx = x.grad(&y.clone().sum().backward()).expect("dx");
    assert_close(&vec_of::<f64, 2>(y.without_autodiff()), &[6e-3, 8e-3], "y");
    assert_close(&vec_of::<f64, 2>(dx), &[2.0, 2.0], "dx");
}

#[test]
fn running_statistics_are_those_of_pytorch() {
    let device = Device::flex();
    let norm = NormConfig::batch().with_mode(BatchMode::Train).init(4, &device);
    let mut running = RunningStats::new(4);
    for seed in 0..3 {
        let x = tensor(SHAPE, seed, &device, DType::F32);
        let values: Vec<f64> = vec_of::<f32, 3>(x.clone()).into_iter().map(f64::from).collect();
        let batch = reference::batch_norm_train(&values, IMAGES, reference::Affine::NONE, 1e-5);
        running.update(&batch, Convention::PYTORCH);
        norm.forward(x);
    }
    let statistics = norm.running[0].values();
    for (got, want) in statistics.into_iter().zip([running.mean, running.var]) {
        for (got, want) in vec_of::<f32, 1>(got).into_iter().zip(want) {
            assert!((f64::from(got) - want).abs() < 1e-6, "{got} where {want} is right");
        }
    }
}

/// Batch norm that has seen a batch, in this mode.
fn seasoned(mode: BatchMode, device: &Device) -> AnyNorm {
    let norm = random(&NormConfig::batch().with_epsilon(0.0).with_mode(BatchMode::Train), device);
    norm.forward(tensor(SHAPE, 3, device, DType::F64));
    norm.with_mode(mode)
}

fn statistics(norm: &AnyNorm) -> [Vec<f32>; 2] {
    norm.running[0].values().map(|t| vec_of(t.without_autodiff()))
}

#[test]
fn eval_is_inverted_exactly_by_its_own_statistics() {
    let device = Device::flex();
    let norm = seasoned(BatchMode::Eval, &device);
    let x = tensor(SHAPE, 1, &device, DType::F64);
    let y = norm.forward(x.clone());
    let channel = |t: Tensor<1>| t.cast(DType::F64).reshape([1, 4, 1]);
    let [mean, var] = norm.running[0].values().map(channel);
    let [gamma, beta] = [&norm.gamma, &norm.beta].map(|p| channel(p.as_ref().expect("an affine norm").val()));
    let back = (y - beta) / gamma * var.sqrt() + mean;
    assert_close(&vec_of::<f64, 3>(back), &vec_of::<f64, 3>(x), "x back from y");
}

#[test]
fn modes_choose_statistics_and_gradients() {
    let device = Device::flex().autodiff();
    let x = tensor::<3>(SHAPE, 1, &device, DType::F64);
    for mode in [BatchMode::Auto, BatchMode::Train, BatchMode::Eval, BatchMode::Frozen] {
        let norm = seasoned(mode, &device);
        let before = statistics(&norm);
        let gradients = norm.forward(x.clone()).tanh().sum().backward();
        let trains = matches!(mode, BatchMode::Auto | BatchMode::Train);
        assert_eq!(statistics(&norm) != before, trains, "{mode:?}: the running statistics");
        let learns = norm.gamma.as_ref().expect("a gain").grad(&gradients).is_some();
        assert_eq!(learns, mode != BatchMode::Frozen, "{mode:?}: the gradient of gamma");
        for state in norm.running[0].values() {
            assert!(state.grad(&gradients).is_none(), "{mode:?}: the gradient of a statistic");
        }
    }
}

#[test]
fn auto_follows_burn() {
    let device = Device::flex().autodiff();
    let norm = seasoned(BatchMode::Auto, &device);
    let x = tensor::<3>(SHAPE, 1, &device, DType::F64);
    let y = |norm: &AnyNorm, x: &Tensor<3>| vec_of::<f64, 3>(norm.forward(x.clone()).without_autodiff());
    let frozen = norm.clone().freeze();
    let eval = y(&norm.clone().with_mode(BatchMode::Eval), &x);
    assert_eq!(y(&frozen, &x), eval, "freeze() stops the training of statistics");
    assert_eq!(y(&norm.valid(), &x.clone().without_autodiff()), eval, "valid() evaluates");
    assert_ne!(y(&norm, &x), eval, "autodiff trains");
}

#[test]
fn batch_norm_is_that_of_burn() {
    let device = Device::flex().autodiff();
    let ours = NormConfig::batch().with_running(layernorm_burn::Running { momentum: 0.1, unbiased: false });
    let (ours, theirs) = (ours.init(4, &device), burn::nn::BatchNormConfig::new(4).init(&device));
    let x = tensor::<3>(SHAPE, 1, &device, DType::F32);
    let close = |a: Tensor<3>, b: Tensor<3>| {
        let [a, b] = [a, b].map(|t| vec_of::<f32, 3>(t.without_autodiff()));
        a.iter().zip(&b).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} and {b}"));
    };
    close(ours.forward(x.clone()), theirs.forward(x.clone()));
    let inner = x.without_autodiff();
    close(ours.valid().forward(inner.clone()), theirs.valid().forward(inner));
}

#[test]
fn records_go_round() {
    let device = Device::flex();
    for config in every_kind() {
        let norm = random(&config.clone().with_mode(BatchMode::Train), &device);
        let x = tensor::<3>(SHAPE, 1, &device, DType::F64);
        norm.forward(x.clone());
        let norm = norm.with_mode(BatchMode::Eval);
        let y = vec_of::<f64, 3>(norm.forward(x.clone()));
        let bytes = norm.into_record().into_bytes().expect("a record");
        let record = ModuleRecord::from_bytes(bytes).expect("the same record");
        let fresh = random(&config.with_mode(BatchMode::Eval), &device);
        assert_eq!(vec_of::<f64, 3>(fresh.load_record(record).forward(x)), y);
    }
}

#[test]
fn half_types_are_computed_in_f32() {
    let device = Device::flex();
    for config in every_kind() {
        let norm = config.clone().with_mode(BatchMode::Train).init(units(config.kind), &device);
        let x = tensor::<3>(SHAPE, 1, &device, DType::F16);
        let want = norm.forward(x.clone().cast(DType::F32)).cast(DType::F16);
        assert_eq!(norm.forward(x).into_data(), want.into_data(), "{:?}", config.kind);
    }
}

#[test]
#[should_panic(
    expected = "x has shape [1, 4], so 1 numbers a channel: batch norm needs at least 2 in training"
)]
fn one_number_a_channel_cannot_train() {
    let norm = NormConfig::batch().with_mode(BatchMode::Train).init(4, &Device::flex());
    norm.forward(Tensor::<2>::ones([1, 4], &Device::flex()));
}

#[test]
#[should_panic(expected = "the norm has 4 channels and x has shape [2, 3]: axis 1 of x must be 4")]
fn other_channels_are_refused() {
    NormConfig::group(2).init(4, &Device::flex()).forward(Tensor::<2>::ones([2, 3], &Device::flex()));
}

#[test]
#[should_panic(expected = "weight norm normalises weights, not activations: use NormLinearConfig")]
fn weight_norm_of_activations_is_refused() {
    NormConfig::weight().init(4, &Device::flex());
}
