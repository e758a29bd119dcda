//! Refusals: typed, with both shapes; panics only where Burn's own would be.

use super::*;
use layernorm_burn::{
    AdaptiveNormConfig, BatchNormConfig, Error, GroupNormConfig, HeadNormKind, InstanceNormConfig,
    LayerNormConfig, RmsNormConfig, adaptive_layer_norm, batch_norm_eval, group_norm, head_norm, scale_norm,
    try_adaptive_layer_norm, try_add_layer_norm, try_add_rms_norm, try_batch_norm, try_batch_norm_eval,
    try_group_norm, try_head_norm, try_instance_norm, try_layer_norm, try_rms_norm, try_scale_norm,
    try_weight_norm,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

fn message_of(work: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(work)).expect_err("a panic");
    payload.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn parameters_of_another_length() {
    let device = Device::flex();
    let x = || Tensor::<3>::zeros([2, 5, 4], &device);
    let v = |len: usize| Tensor::<1>::zeros([len], &device);
    for bad in [0, 3, 5] {
        let error = |name| Error::Parameter { name, len: bad, features: 4, x: vec![2, 5, 4] };
        assert_eq!(try_layer_norm(x(), v(bad), v(4), EPS).err(), Some(error("gamma")));
        assert_eq!(try_layer_norm(x(), v(4), v(bad), EPS).err(), Some(error("beta")));
        assert_eq!(try_rms_norm(x(), v(bad), None, EPS).err(), Some(error("gamma")));
    }
    assert!(try_layer_norm(x(), v(1), v(4), EPS).is_ok(), "shared gamma");
    let message = message_of(|| drop(layer_norm(x(), v(3), None, EPS)));
    assert_eq!(
        message,
        "gamma has shape [3] and x has shape [2, 5, 4]: \
         gamma needs 4 values, one for each feature, or one for all"
    );
}

#[test]
fn modules_take_only_their_own_features() {
    let device = Device::flex();
    let x = || Tensor::<2>::zeros([2, 4], &device);
    for d_model in [1, 3] {
        let error = Error::Features { d_model, x: vec![2, 4] };
        assert_eq!(LayerNormConfig::new(d_model).init(&device).try_forward(x()).err(), Some(error.clone()));
        assert_eq!(RmsNormConfig::new(d_model).init(&device).try_forward(x()).err(), Some(error));
    }
    let message = message_of(|| drop(LayerNormConfig::new(3).init(&device).forward(x())));
    assert_eq!(message, "the norm has 3 features and x has shape [2, 4]: the last axis of x must be 3");
}

#[test]
fn epsilon() {
    let device = Device::flex();
    let x = |dtype| tensor::<2>([2, 4], 1, &device, dtype);
    for bad in [-1e-9, f64::NAN, f64::INFINITY] {
        let error = try_layer_norm(x(DType::F32), None, None, bad);
        assert!(matches!(error, Err(Error::Kernel(layernorm::Error::Epsilon { .. }))), "{bad}");
        assert!(try_rms_norm(x(DType::F64), None, None, bad).is_err(), "{bad}");
        let message = message_of(|| drop(LayerNormConfig::new(4).with_epsilon(bad).init(&device)));
        assert!(message.contains("must be finite and not negative"), "{message}");
        message_of(|| drop(RmsNormConfig::new(4).with_epsilon(bad).init(&device)));
    }
    // An epsilon that only f64 can hold.
    assert!(try_layer_norm(x(DType::F32), None, None, 1e300).is_err());
    assert!(try_layer_norm(x(DType::F64), None, None, 1e300).is_ok());
    assert!(try_rms_norm(x(DType::F32), None, None, 0.0).is_ok());
}

#[test]
fn norms_of_channels_refuse_what_does_not_fit() {
    let device = Device::flex();
    let x = || Tensor::<3>::zeros([2, 6, 3], &device);
    let v = |len: usize| Tensor::<1>::zeros([len], &device);
    let channels = |name, len| Error::Channels { name, len, channels: 6, x: vec![2, 6, 3] };
    assert_eq!(try_group_norm(x(), 2, v(2), None, EPS).err(), Some(channels("gamma", 2)));
    assert_eq!(try_instance_norm(x(), None, v(3), EPS).err(), Some(channels("beta", 3)));
    assert_eq!(try_batch_norm(x(), v(6), v(0), EPS).err(), Some(channels("beta", 0)));
    assert_eq!(try_batch_norm_eval(x(), v(6), v(5), None, None, EPS).err(), Some(channels("var", 5)));
    assert_eq!(try_batch_norm_eval(x(), v(6), v(6), v(7), None, EPS).err(), Some(channels("gamma", 7)));
    for groups in [0, 4, 7] {
        let error = Error::Groups { channels: 6, groups, x: vec![2, 6, 3] };
        assert_eq!(try_group_norm(x(), groups, None, None, EPS).err(), Some(error));
    }
    let flat = Tensor::<1>::zeros([6], &device);
    assert!(matches!(
        try_group_norm(flat.clone(), 2, None, None, EPS),
        Err(Error::Rank { norm: "group", .. })
    ));
    assert!(matches!(try_batch_norm(flat, None, None, EPS), Err(Error::Rank { norm: "batch", .. })));
    for shape in [[2, 0, 3], [2, 6, 0]] {
        let error = Some(Error::Empty { x: shape.to_vec() });
        let empty = || Tensor::<3>::zeros(shape, &device);
        assert_eq!(try_group_norm(empty(), 1, None, None, EPS).err(), error);
        assert_eq!(try_instance_norm(empty(), None, None, EPS).err(), error);
        assert_eq!(try_batch_norm(empty(), None, None, EPS).err(), error);
    }
    for module in [3, 5] {
        let error = Some(Error::OtherChannels { channels: module, x: vec![2, 6, 3] });
        assert_eq!(GroupNormConfig::new(1, module).init(&device).try_forward(x()).err(), error);
        assert_eq!(InstanceNormConfig::new(module).init(&device).try_forward(x()).err(), error);
        assert_eq!(BatchNormConfig::new(module).init(&device).try_forward(x()).err(), error);
    }
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(try_group_norm(x(), 2, None, None, bad).is_err(), "{bad}");
        assert!(try_batch_norm(x(), None, None, bad).is_err(), "{bad}");
        assert!(try_batch_norm_eval(x(), v(6), v(6), None, None, bad).is_err(), "{bad}");
        assert!(try_scale_norm(x(), None, bad).is_err(), "{bad}");
        assert!(try_head_norm(x(), HeadNormKind::Layer, None, None, bad).is_err(), "{bad}");
    }
}

#[test]
fn heads_have_parameters_together_or_each_its_own() {
    let device = Device::flex();
    let x = || Tensor::<3>::zeros([5, 2, 4], &device);
    let v = |len: usize| Tensor::<1>::zeros([len], &device);
    let norm = |gamma, beta| try_head_norm(x(), HeadNormKind::Rms, gamma, beta, EPS).map(|y| y.dims());
    for (gamma, beta) in [(4, 4), (8, 8), (1, 4)] {
        assert_eq!(norm(v(gamma), v(beta)), Ok([5, 2, 4]), "{gamma} and {beta}");
    }
    for (gamma, beta, name, len) in
        [(8, 4, "gamma", 8), (4, 8, "beta", 8), (1, 8, "beta", 8), (2, 4, "gamma", 2)]
    {
        let error = Error::Heads { name, len, features: 4, all: 8, x: vec![5, 2, 4] };
        assert_eq!(norm(v(gamma), v(beta)), Err(error));
    }
    let flat = Tensor::<1>::zeros([4], &device);
    assert!(matches!(try_head_norm(flat, HeadNormKind::L2, None, None, EPS), Err(Error::Rank { .. })));
}

#[test]
fn weights_samples_and_residuals_must_fit() {
    let device = Device::flex();
    let v = |len: usize| Tensor::<1>::zeros([len], &device);
    let weights = || Tensor::<3>::zeros([5, 2, 4], &device);
    let error = Error::Units { len: 4, units: 2, axis: 1, v: vec![5, 2, 4] };
    assert_eq!(try_weight_norm(weights(), v(4), 1).err(), Some(error));
    let error = Error::Axis { axis: 3, rank: 3, v: vec![5, 2, 4] };
    assert_eq!(try_weight_norm(weights(), v(4), 3).err(), Some(error));
    let row = |shape| Tensor::<2>::zeros(shape, &device);
    for (scale, shift, name, got) in [
        ([5, 3], [5, 4], "scale", vec![5, 3]),
        ([1, 4], [5, 4], "scale", vec![1, 4]),
        ([5, 4], [4, 4], "shift", vec![4, 4]),
    ] {
        let error = Error::Samples { name, got, samples: 5, features: 4, x: vec![5, 2, 4] };
        assert_eq!(try_adaptive_layer_norm(weights(), row(scale), row(shift), EPS).err(), Some(error));
    }
    let norm = AdaptiveNormConfig::new(4, 3).init(&device);
    assert!(norm.try_forward(weights(), row([5, 3])).is_ok(), "a condition of each sample");
    let error =
        Error::Samples { name: "condition", got: vec![5, 2], samples: 5, features: 3, x: vec![5, 2, 4] };
    assert_eq!(norm.try_forward(weights(), row([5, 2])).err(), Some(error));
    let error = Error::Shape { name: "residual", got: vec![5, 2, 3], x: vec![5, 2, 4] };
    let other = Tensor::<3>::zeros([5, 2, 3], &device);
    assert_eq!(try_add_rms_norm(weights(), other, None, None, EPS).err(), Some(error));
    let half = weights().cast(DType::F16);
    let error = Error::Type { name: "residual", got: DType::F16, x: DType::F32 };
    assert_eq!(try_add_layer_norm(weights(), half, None, None, EPS).err(), Some(error));
}

#[test]
fn no_numbers_are_no_error() {
    let device = Device::flex().autodiff();
    for shape in [[0, 4, 3], [2, 0, 3], [2, 4, 0], [0, 0, 0]] {
        let x = || Tensor::<3>::zeros(shape, &device).require_grad();
        let v = |len: usize| Tensor::<1>::zeros([len], &device).require_grad();
        let [samples, heads, features] = shape;
        for kind in [HeadNormKind::Rms, HeadNormKind::Layer, HeadNormKind::L2] {
            let (shared, own) = (v(features), v(heads * features));
            let y = head_norm(x(), kind, shared.clone(), shared, EPS);
            let y = if heads > 0 { y + head_norm(x(), kind, own.clone(), own, EPS) } else { y };
            y.sum().backward();
        }
        let rows = |of: usize| Tensor::<2>::zeros([of, features], &device).require_grad();
        let y = scale_norm(x(), v(1), EPS) + adaptive_layer_norm(x(), rows(samples), rows(samples), EPS);
        let (sums, _) = try_add_rms_norm(x(), x(), v(features), None, EPS).expect("it fits");
        let weights = (0..3).map(|axis| try_weight_norm(x(), v(shape[axis]), axis).expect("it fits"));
        let all = weights.fold(y + sums, |a, b| a + b);
        assert_eq!(all.dims(), shape);
        all.sum().backward();
    }
}

#[test]
fn no_samples_are_no_error() {
    let device = Device::flex().autodiff();
    let x = || Tensor::<3>::zeros([0, 4, 3], &device).require_grad();
    let zeros = |len: usize| Tensor::<1>::zeros([len], &device).require_grad();
    let gamma = zeros(4);
    let grouped = group_norm(x(), 2, gamma.clone(), None, EPS);
    let evaluated = batch_norm_eval(x(), zeros(4), zeros(4), gamma.clone(), None, EPS);
    let scaled =
        scale_norm(x(), None, EPS) + adaptive_layer_norm(x(), Tensor::zeros([0, 3], &device), None, EPS);
    let gradients = (grouped + evaluated + scaled).sum().backward();
    assert_eq!(vec_of::<f32, 1>(gamma.grad(&gradients).expect("zeros")), [0.0; 4]);
}

#[test]
fn nothing_to_do_is_no_error() {
    let device = Device::flex().autodiff();
    for shape in [[0, 4], [3, 0], [0, 0]] {
        for norm in NORMS {
            let x = Tensor::<2>::zeros(shape, &device).require_grad();
            let [gamma, beta] = [(); 2].map(|()| Tensor::<1>::ones([shape[1]], &device).require_grad());
            let y = norm.of(x.clone(), Some(gamma.clone()), Some(beta.clone()));
            assert_eq!(y.dims(), shape);
            let gradients = y.sum().backward();
            assert_eq!(x.grad(&gradients).expect("dx").dims(), shape);
            for parameter in [gamma, beta] {
                let gradient = parameter.grad(&gradients).expect("a gradient of zeros");
                assert_eq!(vec_of::<f32, 1>(gradient), vec![0.0; shape[1]], "{norm:?} {shape:?}");
            }
        }
    }
}
