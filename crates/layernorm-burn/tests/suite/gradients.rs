//! Gradients against central differences, in f64.

use super::*;
use burn::tensor::s;

/// A leaf of this shape, and how the norm sees it.
struct View {
    name: &'static str,
    shape: [usize; 3],
    of: fn(Tensor<3>) -> Tensor<3>,
}

const VIEWS: [View; 6] = [
    View { name: "contiguous", shape: [2, 3, 5], of: |x| x },
    View { name: "one row", shape: [1, 1, 7], of: |x| x },
    View { name: "transposed", shape: [5, 3, 2], of: |x| x.swap_dims(0, 2) },
    View { name: "columns", shape: [2, 3, 9], of: |x| x.slice(s![.., .., 2..7]) },
    View { name: "swapped rows", shape: [3, 2, 5], of: |x| x.swap_dims(0, 1) },
    View { name: "broadcast", shape: [1, 3, 5], of: |x| x.expand([2, 3, 5]) },
];

/// Lengths of gamma and beta, 0 for none, 5 for one a feature.
const AFFINE: [[usize; 2]; 6] = [[0, 0], [5, 0], [0, 5], [5, 5], [1, 1], [1, 5]];

/// What is differentiated: a sum of tanh(y) with random weights.
fn loss(norm: Norm, view: &View, [x, gamma, beta]: &[Vec<f64>; 3], device: &Device) -> Loss {
    let x = Tensor::<3>::from_data(TensorData::new(x.clone(), view.shape), (device, DType::F64));
    let vector = |v: &Vec<f64>| {
        let data = TensorData::new(v.clone(), [v.len()]);
        (!v.is_empty()).then(|| Tensor::<1>::from_data(data, (device, DType::F64)))
    };
    let (mut leaf, mut gamma, mut beta) = (x, vector(gamma), vector(beta));
    if device.is_autodiff() {
        leaf = leaf.require_grad();
        gamma = gamma.map(|gamma| gamma.require_grad());
        beta = beta.map(|beta| beta.require_grad());
    }
    let y = norm.of((view.of)(leaf.clone()), gamma.clone(), beta.clone());
    let weights = tensor(y.dims(), 99, device, DType::F64);
    Loss { value: (y.tanh() * weights).sum(), leaf, gamma, beta }
}

struct Loss {
    value: Tensor<1>,
    leaf: Tensor<3>,
    gamma: Option<Tensor<1>>,
    beta: Option<Tensor<1>>,
}

/// The derivative of the loss in each coordinate of input `which`, from two evaluations on a device without autodiff.
fn differences(norm: Norm, view: &View, inputs: &[Vec<f64>; 3], which: usize) -> Vec<f64> {
    const H: f64 = 1e-5;
    let at = |index: usize, step: f64| {
        let mut inputs = inputs.clone();
        inputs[which][index] += step;
        loss(norm, view, &inputs, &Device::flex()).value.into_scalar::<f64>()
    };
    (0..inputs[which].len()).map(|index| (at(index, H) - at(index, -H)) / (2.0 * H)).collect()
}

fn check(norm: Norm, view: &View, lens: [usize; 2]) {
    let features = (view.of)(Tensor::zeros(view.shape, &Device::flex())).dims()[2];
    let len = |len: usize| if len == 5 { features } else { len };
    let inputs =
        [numbers(view.shape.iter().product(), 1), numbers(len(lens[0]), 2), numbers(len(lens[1]), 3)];
    let result = loss(norm, view, &inputs, &Device::flex().autodiff());
    let gradients = result.value.backward();
    let computed = [
        result.leaf.grad(&gradients).map(vec_of::<f64, 3>),
        result.gamma.map(|gamma| vec_of(gamma.grad(&gradients).expect("gamma has a gradient"))),
        result.beta.map(|beta| vec_of(beta.grad(&gradients).expect("beta has a gradient"))),
    ];
    for (which, computed) in computed.into_iter().enumerate() {
        let computed: Vec<f64> = computed.unwrap_or_default();
        let expected = differences(norm, view, &inputs, which);
        assert_eq!(computed.len(), expected.len(), "{norm:?} {} {lens:?}, input {which}", view.name);
        for (got, want) in computed.iter().zip(&expected) {
            // The truncation error of the differences is some thousand h^2.
            assert!(
                (got - want).abs() <= 1e-7 * (1.0 + want.abs()),
                "{norm:?} {} {lens:?}, input {which}: {got} where differences give {want}",
                view.name
            );
        }
    }
}

#[test]
fn agree_with_differences() {
    for norm in NORMS {
        for view in &VIEWS {
            for lens in AFFINE {
                check(norm, view, lens);
            }
        }
    }
}

#[test]
fn of_two_axes() {
    let device = Device::flex().autodiff();
    for norm in NORMS {
        let x3 = tensor([1, 4, 6], 5, &device, DType::F64).require_grad();
        let x2 = tensor([4, 6], 5, &device, DType::F64).require_grad();
        let gradients = (norm.of(x3.clone(), None, None).tanh().sum()).backward();
        let gradients2 = (norm.of(x2.clone(), None, None).tanh().sum()).backward();
        let (g3, g2) = (x3.grad(&gradients).expect("x3"), x2.grad(&gradients2).expect("x2"));
        assert_eq!(vec_of::<f64, 3>(g3), vec_of::<f64, 2>(g2));
    }
}
