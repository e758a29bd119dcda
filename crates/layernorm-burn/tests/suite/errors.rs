//! Refusals: typed, with both shapes; panics only where Burn's own would be.

use super::*;
use layernorm_burn::{Error, LayerNormConfig, RmsNormConfig, try_layer_norm, try_rms_norm};
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
