//! Weight norm as a function and as the reparameterization of a linear map.

use super::*;
use burn::module::{Module, Param};
use burn::optim::{AdamConfig, GradientsParams};
use layernorm::reference;
use layernorm_burn::{NormConfig, NormLinear, NormLinearConfig, WeightNorm, weight_norm};

/// `[inputs, units]` as `[units, inputs]`.
fn transposed(values: &[f64], units: usize) -> Vec<f64> {
    (0..units).flat_map(|unit| values.iter().skip(unit).step_by(units).copied()).collect()
}

#[test]
fn agrees_with_the_reference() {
    let device = Device::flex().autodiff();
    let (inputs, units) = (5, 3);
    let v = tensor::<2>([inputs, units], 1, &device, DType::F64).require_grad();
    let gamma = tensor::<1>([units], 2, &device, DType::F64).require_grad();
    let dw = tensor::<2>([inputs, units], 3, &device, DType::F64);
    let w = weight_norm(v.clone(), gamma.clone());
    let gradients = (w.clone() * dw.clone()).sum().backward();
    let rows = |t: Tensor<2>| transposed(&vec_of::<f64, 2>(t.without_autodiff()), units);
    let (v_rows, g) = (rows(v.clone()), vec_of::<f64, 1>(gamma.clone().without_autodiff()));
    let back = reference::weight_norm_backward(&rows(dw), &v_rows, &g);
    let pairs = [
        (rows(w), reference::weight_norm(&v_rows, &g).w),
        (rows(v.grad(&gradients).expect("dv")), back.dv),
        (vec_of(gamma.grad(&gradients).expect("dgamma")), back.dgain),
    ];
    for (got, want) in pairs {
        assert_eq!(got.len(), want.len());
        got.iter().zip(&want).for_each(|(a, b)| assert!((a - b).abs() < 1e-13, "{a} where {b} is right"));
    }
}

#[test]
fn a_unit_of_zeros_stays_zero() {
    let device = Device::flex().autodiff();
    let v = Tensor::<2>::from_data([[0.0, 3.0], [0.0, 4.0]], &device).require_grad();
    let w = weight_norm(v.clone(), Tensor::<1>::from_data([5.0, 5.0], &device));
    let dv = v.grad(&w.clone().tanh().sum().backward()).expect("dv");
    assert_eq!(vec_of::<f32, 2>(w.without_autodiff()), [0.0, 3.0, 0.0, 4.0]);
    let dv = vec_of::<f32, 2>(dv);
    assert_eq!([dv[0], dv[2]], [0.0, 0.0]);
    assert!(dv.iter().all(|dv| dv.is_finite()), "{dv:?}");
}

fn layer(device: &Device) -> NormLinear {
    let mut layer = NormLinearConfig::new(5, 3, NormConfig::none()).init(device);
    layer.linear.weight = Param::from_tensor(tensor([5, 3], 1, device, DType::F32));
    layer.linear = layer.linear.apply_reparameterization(WeightNorm::everywhere());
    layer
}

#[test]
fn a_linear_map_begins_unchanged_and_learns_length_and_direction() {
    let device = Device::flex().autodiff();
    let layer = layer(&device);
    let plain = tensor::<2>([5, 3], 1, &device, DType::F32);
    let before = vec_of::<f32, 2>(layer.linear.weight.val().without_autodiff());
    for (w, v) in before.iter().zip(vec_of::<f32, 2>(plain.without_autodiff())) {
        assert!((w - v).abs() <= 1e-6, "{w} began as {v}");
    }

    let x = tensor::<2>([7, 5], 2, &device, DType::F32);
    let gradients = GradientsParams::from_grads(layer.forward(x).tanh().sum().backward(), &layer);
    let gamma = |layer: &NormLinear| {
        let weight_norm = layer.linear.weight.reparameterization::<WeightNorm>().expect("it was attached");
        vec_of::<f32, 1>(weight_norm.gamma.val().without_autodiff())
    };
    let base = |layer: &NormLinear| vec_of::<f32, 2>(layer.linear.weight.base().without_autodiff());
    let (gamma_before, base_before) = (gamma(&layer), base(&layer));
    let layer = AdamConfig::new().init().step(1e-2, layer, gradients);
    assert_ne!(gamma(&layer), gamma_before);
    assert_ne!(base(&layer), base_before);
}

#[test]
fn the_length_of_v_does_not_count() {
    let device = Device::flex();
    let (v, gamma) = (tensor::<2>([5, 3], 1, &device, DType::F64), tensor::<1>([3], 2, &device, DType::F64));
    let (w, scaled) = (weight_norm(v.clone(), gamma.clone()), weight_norm(v * 4.0, gamma));
    assert_eq!(vec_of::<f64, 2>(w), vec_of::<f64, 2>(scaled));
}
