//! Types other than f32.

use super::*;
use burn::tensor::FloatDType;

#[test]
fn half_types_are_f32_rounded_once() {
    let device = Device::flex();
    for norm in NORMS {
        for half in [DType::F16, DType::BF16] {
            let x = tensor::<2>([5, 33], 1, &device, half);
            let gamma = tensor::<1>([33], 2, &device, half);
            let y = norm.of(x.clone(), Some(gamma.clone()), None);
            assert_eq!(y.dtype(), half);
            let wide = norm.of(x.cast(FloatDType::F32), Some(gamma.cast(FloatDType::F32)), None);
            let rounded = wide.cast(FloatDType::from(half)).cast(FloatDType::F32);
            assert_eq!(bits(y.cast(FloatDType::F32)), bits(rounded), "{norm:?} {half:?}");
        }
    }
}

#[test]
fn half_squares_do_not_overflow() {
    let x = Tensor::<2>::from_data([[30000.0, -30000.0, 20000.0, 1.0]], (&Device::flex(), DType::F16));
    for norm in NORMS {
        let y = norm.of(x.clone(), None, None).cast(FloatDType::F32);
        assert!(vec_of::<f32, 2>(y).iter().all(|v| v.is_finite()), "{norm:?}");
    }
}

#[test]
fn gradients_have_the_types_of_their_tensors() {
    let device = Device::flex().autodiff();
    for [x_type, gamma_type] in [
        [DType::F16, DType::F32],
        [DType::BF16, DType::BF16],
        [DType::F32, DType::F64],
        [DType::F64, DType::F32],
        [DType::F64, DType::F64],
    ] {
        let x = tensor::<2>([4, 8], 1, &device, x_type).require_grad();
        let gamma = tensor::<1>([8], 2, &device, gamma_type).require_grad();
        let y = layer_norm(x.clone(), gamma.clone(), None, EPS);
        assert_eq!(y.dtype(), x_type);
        let gradients = y.tanh().sum().backward();
        assert_eq!(x.grad(&gradients).expect("x").dtype(), x_type);
        assert_eq!(gamma.grad(&gradients).expect("gamma").dtype(), gamma_type);
    }
}

#[test]
fn f64_is_computed_in_f64() {
    let device = Device::flex();
    let x = Tensor::<2>::from_data([[1e9, 1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0]], (&device, DType::F64));
    let exact = |deviation: f64| deviation / (1.25 + EPS).sqrt();
    let y = vec_of::<f64, 2>(layer_norm(x.clone(), None, None, EPS));
    for (got, deviation) in y.into_iter().zip([-1.5, -0.5, 0.5, 1.5]) {
        assert!((got - exact(deviation)).abs() <= 1e-15, "{got} and {}", exact(deviation));
    }
    let y = vec_of::<f64, 2>(rms_norm(x, None, None, EPS));
    assert!(y[3] > y[0] && (y[3] - y[0] - 3e-9).abs() < 1e-15, "f32 could not tell them apart: {y:?}");
}
