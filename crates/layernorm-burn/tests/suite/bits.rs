//! The tensors get the bits of the slice kernels, wherever they lie in memory.

use super::*;
use burn::tensor::s;
use layernorm::{Gradients, ParamGradients, Params, Rows, RowsMut, Run, Stats, Workspace};

const SHAPES: [[usize; 2]; 7] = [[1, 1], [3, 7], [8, 64], [1, 5000], [300, 513], [4096, 64], [2, 70_000]];

#[allow(clippy::cast_possible_truncation, reason = "rounding, as Burn does to the same numbers")]
fn f32s(len: usize, seed: u64) -> Vec<f32> {
    numbers(len, seed).into_iter().map(|v| v as f32).collect()
}

/// y, dx, dgamma, dbeta from slices.
fn by_slices(norm: Norm, [rows, features]: [usize; 2]) -> [Vec<f32>; 4] {
    let (x, dy) = (f32s(rows * features, 1), f32s(rows * features, 4));
    let (gamma, beta) = (f32s(features, 2), f32s(features, 3));
    let params = Params { weight: Some(&gamma), bias: Some(&beta), eps: EPS };
    let mut out = [vec![0.0; x.len()], vec![0.0; x.len()], vec![0.0; features], vec![0.0; features]];
    let [y, dx, dgamma, dbeta] = &mut out;
    let (x, dy) = (Rows::new(&x, features).expect("x"), Rows::new(&dy, features).expect("dy"));
    let y = RowsMut::new(y, features).expect("y");
    let gradients = Gradients {
        dx: Some(RowsMut::new(dx, features).expect("dx")),
        params: Some(ParamGradients {
            dweight: Some(dgamma),
            dbias: Some(dbeta),
            accumulate: false,
            first_row: 0,
            workspace: &mut Workspace::new(),
        }),
    };
    match norm {
        Norm::Layer => {
            let mut saved = Stats::new(rows);
            layernorm::layer_norm(x, params, y, Some(saved.as_mut()), Run::default()).expect("forward");
            layernorm::layer_norm_backward(x, dy, params, Some(saved.as_ref()), gradients, Run::default())
        }
        Norm::Rms => {
            let mut rstd = vec![0.0; rows];
            layernorm::rms_norm(x, params, y, Some(&mut rstd), Run::default()).expect("forward");
            layernorm::rms_norm_backward(x, dy, params, Some(&rstd), gradients, Run::default())
        }
    }
    .expect("backward");
    out
}

fn same(got: Vec<u32>, want: &[f32], what: &str) {
    let want: Vec<u32> = want.iter().map(|v| v.to_bits()).collect();
    assert!(got == want, "{what} has other bits than the slice kernel");
}

#[test]
fn forward_and_backward_are_those_of_the_slices() {
    let device = Device::flex().autodiff();
    for norm in NORMS {
        for shape in SHAPES {
            let [y, dx, dgamma, dbeta] = by_slices(norm, shape);
            let x = tensor(shape, 1, &device, DType::F32).require_grad();
            let gamma = tensor([shape[1]], 2, &device, DType::F32).require_grad();
            let beta = tensor([shape[1]], 3, &device, DType::F32).require_grad();
            let result = norm.of(x.clone(), Some(gamma.clone()), Some(beta.clone()));
            same(bits(result.clone()), &y, &format!("{norm:?} {shape:?} y"));
            let gradients = (result * tensor(shape, 4, &device, DType::F32)).sum().backward();
            let of = |t: Option<Tensor<1>>| bits(t.expect("a gradient"));
            same(bits(x.grad(&gradients).expect("dx")), &dx, &format!("{norm:?} {shape:?} dx"));
            same(of(gamma.grad(&gradients)), &dgamma, &format!("{norm:?} {shape:?} dgamma"));
            same(of(beta.grad(&gradients)), &dbeta, &format!("{norm:?} {shape:?} dbeta"));

            // Without autodiff, where x is overwritten.
            let device = Device::flex();
            let [gamma, beta] = [2, 3].map(|seed| Some(tensor([shape[1]], seed, &device, DType::F32)));
            let x = tensor(shape, 1, &device, DType::F32);
            same(bits(norm.of(x, gamma, beta)), &y, &format!("{norm:?} {shape:?} y in place"));
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_layout() {
    let device = Device::flex();
    for norm in NORMS {
        let x = tensor::<3>([4, 6, 40], 1, &device, DType::F32);
        let layouts: [(&str, Tensor<3>); 5] = [
            ("apart", x.clone()),
            ("transposed", x.clone().swap_dims(1, 2).mul_scalar(1.0).swap_dims(1, 2)),
            ("rows swapped", x.clone().swap_dims(0, 1).mul_scalar(1.0).swap_dims(0, 1)),
            ("columns of a wider one", Tensor::cat(vec![x.clone(), x.clone()], 2).slice(s![.., .., 40..])),
            ("rows of a longer one", Tensor::cat(vec![x.clone(), x.clone()], 0).slice(s![4.., .., ..])),
        ];
        let expected = bits(norm.of(x.clone(), None, None));
        for (name, layout) in layouts {
            assert_eq!(bits(layout.clone()), bits(x.clone()), "{name}: the layouts hold the same numbers");
            assert!(bits(norm.of(layout, None, None)) == expected, "{norm:?} {name}");
        }
        let row = x.clone().slice(s![2..3, 3..4, ..]);
        assert_eq!(bits(norm.of(row, None, None)), expected[(2 * 6 + 3) * 40..][..40], "{norm:?} alone");
        let broadcast = norm.of(x.clone().slice(s![0..1, 0..1, ..]).expand([4, 6, 40]), None, None);
        assert_eq!(bits(broadcast), expected[..40].repeat(24), "{norm:?} broadcast");
    }
}

#[test]
fn large_means_keep_their_deviations() {
    let device = Device::flex();
    let x = Tensor::<2>::from_data([[40000.0, 40001.0, 40002.0, 40003.0]], &device);
    let exact = |deviation: f64| deviation / (1.25 + EPS).sqrt();
    for (got, want) in
        vec_of::<f32, 2>(layer_norm(x, None, None, EPS)).into_iter().zip([-1.5, -0.5, 0.5, 1.5])
    {
        assert!((f64::from(got) - exact(want)).abs() <= 4.0 * 2f64.powi(-24), "{got} where {}", exact(want));
    }

    // mean / deviation = 1e5, against the reference of the kernels in f64.
    let row: Vec<f32> = f32s(768, 8).into_iter().map(|v| v + 60000.0).collect();
    let wide: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
    let mean = wide.iter().sum::<f64>() / 768.0;
    let var = wide.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 768.0;
    let y = layer_norm(Tensor::<2>::from_data(TensorData::new(row, [1, 768]), &device), None, None, EPS);
    for (got, x) in vec_of::<f32, 2>(y).into_iter().zip(wide) {
        let want = (x - mean) / (var + EPS).sqrt();
        assert!((f64::from(got) - want).abs() <= 8.0 * 2f64.powi(-24) * want.abs().max(1.0), "{got}, {want}");
    }
}

#[test]
fn nan_spoils_its_own_row() {
    let device = Device::flex();
    let x = Tensor::<2>::from_data([[1.0, f32::NAN, 3.0], [1.0, 2.0, 4.0]], &device);
    let alone = layer_norm(x.clone().slice(s![1..2, ..]), None, None, EPS);
    let y = bits(layer_norm(x, None, None, EPS));
    assert_eq!(y[..3], [f32::NAN.to_bits(); 3]);
    assert_eq!(y[3..], bits(alone));
}
