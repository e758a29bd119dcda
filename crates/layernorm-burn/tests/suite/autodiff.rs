//! How the norms sit in a graph: nothing is cut, nothing is computed for nobody, sharing adds up.

use super::*;
use burn::tensor::activation::relu;

/// The gradients of x, gamma and beta, each where it is tracked. `dy` comes back transposed, from a product.
fn gradients(norm: Norm, device: &Device, tracked: [bool; 3]) -> [Option<Vec<u32>>; 3] {
    let track = |on: bool, t: Tensor<1>| if on { t.require_grad() } else { t };
    let x = tensor([6, 4], 1, device, DType::F32);
    let x = if tracked[0] { x.require_grad() } else { x };
    let gamma = track(tracked[1], tensor([4], 2, device, DType::F32));
    let beta = track(tracked[2], tensor([4], 3, device, DType::F32));
    // The product is an anchor that needs a gradient in any case.
    let anchor = tensor([6, 3], 4, device, DType::F32).require_grad();
    let hidden = relu(x.clone() * 2.0) - x.clone();
    let y = norm.of(hidden, Some(gamma.clone()), Some(beta.clone()));
    let gradients = y.transpose().matmul(anchor.clone()).sum().backward();
    assert!(anchor.grad(&gradients).is_some(), "the graph goes on behind the norm");
    [x.grad(&gradients).map(bits), gamma.grad(&gradients).map(bits), beta.grad(&gradients).map(bits)]
}

#[test]
fn every_tracked_leaf_gets_its_gradient_and_no_other() {
    let device = Device::flex().autodiff();
    for norm in NORMS {
        let all = gradients(norm, &device, [true; 3]);
        assert!(all.iter().all(Option::is_some), "{norm:?}");
        for mask in 0..8u8 {
            let tracked = [mask & 1 != 0, mask & 2 != 0, mask & 4 != 0];
            let some = gradients(norm, &device, tracked);
            for input in 0..3 {
                let expected = all[input].clone().filter(|_| tracked[input]);
                assert_eq!(some[input], expected, "{norm:?}, tracked {tracked:?}, input {input}");
            }
        }
    }
}

#[test]
fn checkpointing_changes_no_bit() {
    let (plain, checkpointed) =
        (Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing());
    for norm in NORMS {
        for mask in 0..8u8 {
            let tracked = [mask & 1 != 0, mask & 2 != 0, mask & 4 != 0];
            assert_eq!(gradients(norm, &plain, tracked), gradients(norm, &checkpointed, tracked), "{norm:?}");
        }
    }
}

#[test]
fn deep_stacks_are_checkpointed_right() {
    let gradient = |device: Device| {
        let x = tensor([8, 16], 1, &device, DType::F32).require_grad();
        let gamma = tensor([16], 2, &device, DType::F32).require_grad();
        let mut h = x.clone();
        for _ in 0..5 {
            let branch = layer_norm(relu(h.clone()) * 1.5, gamma.clone(), None, EPS);
            h = h + rms_norm(branch, gamma.clone(), None, EPS).tanh();
        }
        let gradients = h.sum().backward();
        (bits(x.grad(&gradients).expect("x")), bits(gamma.grad(&gradients).expect("gamma")))
    };
    let device = Device::flex().autodiff();
    assert_eq!(gradient(device.clone()), gradient(device.gradient_checkpointing()));
}

#[test]
fn a_tensor_used_twice_gets_both_parts() {
    let device = Device::flex().autodiff();
    for norm in NORMS {
        // One vector as gamma and beta and in a residual, one x as input and residual.
        let x = tensor([3, 4], 1, &device, DType::F64).require_grad();
        let w = tensor([4], 2, &device, DType::F64).require_grad();
        let y = norm.of(x.clone(), Some(w.clone()), Some(w.clone())) + x.clone() * w.clone().unsqueeze();
        let together = y.tanh().sum().backward();

        // The same with a leaf for each role.
        let [x1, x2] = [(); 2].map(|()| tensor::<2>([3, 4], 1, &device, DType::F64).require_grad());
        let [w1, w2, w3] = [(); 3].map(|()| tensor::<1>([4], 2, &device, DType::F64).require_grad());
        let y = norm.of(x1.clone(), Some(w1.clone()), Some(w2.clone())) + x2.clone() * w3.clone().unsqueeze();
        let apart = y.tanh().sum().backward();

        let x_parts = [x1, x2].map(|x| x.grad(&apart).expect("every x has its part"));
        let w_parts = [w1, w2, w3].map(|w| w.grad(&apart).expect("every w has its part"));
        let close = |got: Vec<f64>, parts: Vec<Vec<f64>>| {
            for (index, got) in got.into_iter().enumerate() {
                let sum: f64 = parts.iter().map(|part| part[index]).sum();
                assert!((got - sum).abs() <= 1e-14 * (1.0 + sum.abs()), "{norm:?}: {got} and {sum}");
            }
        };
        close(vec_of(x.grad(&together).expect("x")), x_parts.map(vec_of::<f64, 2>).to_vec());
        close(vec_of(w.grad(&together).expect("w")), w_parts.map(vec_of::<f64, 1>).to_vec());
    }
}

#[test]
fn an_output_used_twice_leaves_its_gradient_to_both() {
    // dy is then shared with another node, and the norm must not write dx over it.
    let device = Device::flex().autodiff();
    let x = tensor([3, 4], 1, &device, DType::F32).require_grad();
    let other = tensor([3, 4], 2, &device, DType::F32).require_grad();
    let weights = tensor([3, 4], 3, &device, DType::F32);
    let gradients =
        ((layer_norm(x.clone(), None, None, EPS) + other.clone()) * weights.clone()).sum().backward();
    assert_eq!(bits(other.grad(&gradients).expect("other")), bits(weights.inner()));
    assert!(x.grad(&gradients).is_some());
}

#[test]
fn the_input_is_not_touched_while_somebody_holds_it() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let x = tensor([3, 4], 1, &device, DType::F32);
        let before = bits(x.clone());
        let y = layer_norm(x.clone(), None, None, EPS);
        assert_eq!(bits(x.clone()), before);
        assert_eq!(bits(layer_norm(x, None, None, EPS)), bits(y), "in place and apart");
    }
}

#[test]
fn constant_rows_have_gradient_zero_even_at_eps_0() {
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::from_data([[7.1, 7.1, 7.1], [0.0, 0.0, 0.0]], &device).require_grad();
    let y = layer_norm(x.clone(), None, None, 0.0);
    assert_eq!(vec_of::<f32, 2>(y.clone()), [0.0; 6]);
    let gradients = (y.clone() * y + 1.0).sum().backward();
    assert_eq!(vec_of::<f32, 2>(x.grad(&gradients).expect("x")), [0.0; 6]);
}
