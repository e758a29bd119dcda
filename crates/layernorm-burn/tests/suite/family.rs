//! Every norm beyond layer and RMS norm, as values to loop over: gradients against differences, checkpointing, graphs,
//! allocations, other types.

use super::*;
use crate::copies::tensors_allocated;
use layernorm_burn::{
    HeadNormKind, adaptive_layer_norm, adaptive_rms_norm, add_layer_norm, add_rms_norm, batch_norm,
    batch_norm_eval, group_norm, head_norm, instance_norm, l2_norm, partial_rms_norm, scale_norm,
    try_weight_norm,
};

/// A function of tensors that are flat here, so that all cases have one type.
type Function = dyn Fn(&[Tensor<1>]) -> Vec<Tensor<1>>;

/// One norm with one choice of options.
struct Case {
    name: String,
    /// How many numbers each input has. The first is x.
    lens: Vec<usize>,
    of: Box<Function>,
}

fn case(
    name: impl Into<String>,
    lens: impl Into<Vec<usize>>,
    of: impl Fn(&[Tensor<1>]) -> Tensor<1> + 'static,
) -> Case {
    Case { name: name.into(), lens: lens.into(), of: Box::new(move |inputs| vec![of(inputs)]) }
}

/// The input's clone, if it is there.
fn at(inputs: &[Tensor<1>], index: usize) -> Option<Tensor<1>> {
    inputs.get(index).cloned()
}

const EPSILON: f64 = 0.01;

/// All norms with all options, of `n` samples or so.
fn cases(n: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    let (row, len) = ([n, 6], 6 * n);
    for affine in [vec![], vec![6], vec![6, 6], vec![1, 1], vec![1, 6]] {
        let lens = [vec![len], affine.clone()].concat();
        let partial = move |i: &[Tensor<1>]| {
            partial_rms_norm(i[0].clone().reshape(row), 4, at(i, 1), at(i, 2), EPSILON).flatten(0, 1)
        };
        cases.push(case(format!("partial RMS norm {affine:?}"), lens, partial));
    }
    for g in [vec![], vec![1], vec![6]] {
        let lens = [vec![len], g.clone()].concat();
        let of =
            move |i: &[Tensor<1>]| scale_norm(i[0].clone().reshape(row), at(i, 1), EPSILON).flatten(0, 1);
        cases.push(case(format!("scale norm {g:?}"), lens, of));
    }
    let of = move |i: &[Tensor<1>]| l2_norm(i[0].clone().reshape(row), EPSILON).flatten(0, 1);
    cases.push(case("L2 norm", [len], of));
    heads(n, &mut cases);
    channels(n, &mut cases);
    weights(n, &mut cases);
    adaptive_and_add(n, &mut cases);
    cases
}

fn heads(n: usize, cases: &mut Vec<Case>) {
    let shape = [n, 2, 3, 4];
    for kind in [HeadNormKind::Rms, HeadNormKind::Layer, HeadNormKind::L2] {
        for affine in [vec![], vec![4], vec![4, 4], vec![12], vec![12, 12], vec![1]] {
            let lens = [vec![24 * n], affine.clone()].concat();
            let of = move |i: &[Tensor<1>]| {
                head_norm(i[0].clone().reshape(shape), kind, at(i, 1), at(i, 2), EPSILON).flatten(0, 3)
            };
            cases.push(case(format!("{kind:?} of heads {affine:?}"), lens, of));
        }
    }
}

fn channels(n: usize, cases: &mut Vec<Case>) {
    let (flat, image) = ([n, 6], [n, 6, 2, 2]);
    for affine in [vec![], vec![6], vec![6, 6], vec![1, 1]] {
        let name = |norm: &str| format!("{norm} {affine:?}");
        let lens = |len: usize| [vec![len], affine.clone()].concat();
        let of = move |i: &[Tensor<1>]| {
            group_norm(i[0].clone().reshape(image), 3, at(i, 1), at(i, 2), EPSILON).flatten(0, 3)
        };
        cases.push(case(name("group norm"), lens(24 * n), of));
        let of = move |i: &[Tensor<1>]| {
            group_norm(i[0].clone().reshape(flat), 2, at(i, 1), at(i, 2), EPSILON).flatten(0, 1)
        };
        cases.push(case(name("group norm without positions"), lens(6 * n), of));
        let of = move |i: &[Tensor<1>]| {
            instance_norm(i[0].clone().reshape(image), at(i, 1), at(i, 2), EPSILON).flatten(0, 3)
        };
        cases.push(case(name("instance norm"), lens(24 * n), of));
        let of = move |i: &[Tensor<1>]| {
            batch_norm(i[0].clone().reshape(image), at(i, 1), at(i, 2), EPSILON).flatten(0, 3)
        };
        cases.push(case(name("batch norm"), lens(24 * n), of));
        let of = move |i: &[Tensor<1>]| {
            batch_norm(i[0].clone().reshape(flat), at(i, 1), at(i, 2), EPSILON).flatten(0, 1)
        };
        cases.push(case(name("batch norm without positions"), lens(6 * n), of));
        let of = move |i: &[Tensor<1>]| {
            let given = |seed| tensor([6], seed, &Device::flex(), DType::F64);
            let (mean, var) = (given(7), given(8) + 1.5);
            batch_norm_eval(i[0].clone().reshape(image), mean, var, at(i, 1), at(i, 2), EPSILON).flatten(0, 3)
        };
        cases.push(case(name("batch norm in evaluation"), lens(24 * n), of));
    }
}

fn weights(n: usize, cases: &mut Vec<Case>) {
    let shape = [n, 4, 2, 3];
    for (axis, units) in [(0, n), (1, 4), (3, 3), (1, 1)] {
        let of = move |i: &[Tensor<1>]| {
            let v = i[0].clone().reshape(shape);
            try_weight_norm(v, i[1].clone(), axis).expect("it fits").flatten(0, 3)
        };
        cases.push(case(format!("weight norm on axis {axis} [{units}]"), [24 * n, units], of));
    }
}

fn adaptive_and_add(n: usize, cases: &mut Vec<Case>) {
    let (shape, per_sample) = ([n, 8, 3], [n, 3]);
    for centred in [true, false] {
        for lens in [vec![24 * n, 3 * n], vec![24 * n, 3 * n, 3 * n]] {
            let of = move |i: &[Tensor<1>]| {
                let (x, scale) = (i[0].clone().reshape(shape), i[1].clone().reshape(per_sample));
                let shift = at(i, 2).map(|shift| shift.reshape(per_sample));
                let y = if centred {
                    adaptive_layer_norm(x, scale, shift, EPSILON)
                } else {
                    adaptive_rms_norm(x, scale, shift, EPSILON)
                };
                y.flatten(0, 2)
            };
            cases.push(case(format!("adaptive norm, centred: {centred} {lens:?}"), lens, of));
        }
        for affine in [vec![], vec![3], vec![3, 3]] {
            let of = move |i: &[Tensor<1>]| {
                let [x, residual] = [0, 1].map(|index| i[index].clone().reshape(shape));
                let (y, sum) = if centred {
                    add_layer_norm(x, residual, at(i, 2), at(i, 3), EPSILON)
                } else {
                    add_rms_norm(x, residual, at(i, 2), at(i, 3), EPSILON)
                };
                vec![y.flatten(0, 2), sum.flatten(0, 2)]
            };
            let name = format!("add and norm, centred: {centred} {affine:?}");
            let lens = [vec![24 * n, 24 * n], affine].concat();
            cases.push(Case { name, lens, of: Box::new(of) });
        }
    }
}

impl Case {
    fn leaves(&self, device: &Device, dtype: DType) -> Vec<Tensor<1>> {
        let leaf = |(seed, len): (u64, &usize)| {
            let leaf = tensor([*len], seed, device, dtype);
            if device.is_autodiff() { leaf.require_grad() } else { leaf }
        };
        (1..).zip(&self.lens).map(leaf).collect()
    }

    /// What is differentiated: a sum of tanh of all outputs with random weights.
    fn loss(&self, leaves: &[Tensor<1>]) -> Tensor<1> {
        let outputs = (self.of)(leaves);
        let weighted = (99..).zip(outputs).map(|(seed, y)| {
            let weights = tensor(y.dims(), seed, &y.device(), y.dtype());
            (y.tanh() * weights).sum()
        });
        weighted.reduce(|a, b| a + b).expect("an output")
    }

    fn gradients(&self, leaves: &[Tensor<1>]) -> Vec<Tensor<1>> {
        let gradients = self.loss(leaves).backward();
        let of = |(index, leaf): (usize, &Tensor<1>)| {
            leaf.grad(&gradients).unwrap_or_else(|| panic!("{}: no gradient of input {index}", self.name))
        };
        leaves.iter().enumerate().map(of).collect()
    }
}

#[test]
fn gradients_agree_with_differences() {
    const H: f64 = 1e-5;
    for case in cases(3) {
        let computed = case.gradients(&case.leaves(&Device::flex().autodiff(), DType::F64));
        let inputs = case.leaves(&Device::flex(), DType::F64);
        for (which, computed) in computed.into_iter().map(vec_of::<f64, 1>).enumerate() {
            for (index, got) in computed.into_iter().enumerate() {
                let at = |step: f64| {
                    let mut inputs = inputs.clone();
                    let mut values = vec_of::<f64, 1>(inputs[which].clone());
                    values[index] += step;
                    inputs[which] = Tensor::from_data(&values[..], (&Device::flex(), DType::F64));
                    case.loss(&inputs).into_scalar::<f64>()
                };
                let want = (at(H) - at(-H)) / (2.0 * H);
                // The truncation error of the differences is some thousand h^2.
                assert!(
                    (got - want).abs() <= 2e-7 * (1.0 + want.abs()),
                    "{}, input {which}, number {index}: {got} where differences give {want}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn checkpointing_changes_no_bit() {
    let devices = [Device::flex().autodiff(), Device::flex().autodiff().gradient_checkpointing()];
    for case in cases(3) {
        let [plain, checkpointed] = devices.each_ref().map(|device| {
            let leaves = case.leaves(device, DType::F32);
            // Something cheap before x, that a checkpointing strategy computes again.
            let mut inputs = leaves.clone();
            inputs[0] = inputs[0].clone() * 2.0 + 0.1;
            let gradients = case.loss(&inputs).backward();
            leaves.iter().map(|leaf| bits(leaf.grad(&gradients).expect("a gradient"))).collect::<Vec<_>>()
        });
        assert_eq!(plain, checkpointed, "{}", case.name);
    }
}

#[test]
fn every_tracked_leaf_gets_its_gradient_and_no_other() {
    let device = Device::flex().autodiff();
    for case in cases(3) {
        let all: Vec<_> = case.gradients(&case.leaves(&device, DType::F32)).into_iter().map(bits).collect();
        for mask in 1..1u8 << case.lens.len() {
            let tracked = |index: usize| mask & (1 << index) != 0;
            let leaf = |(index, leaf): (usize, Tensor<1>)| leaf.set_require_grad(tracked(index));
            let leaves = case.leaves(&device, DType::F32).into_iter().enumerate().map(leaf);
            let leaves: Vec<_> = leaves.collect();
            let gradients = case.loss(&leaves).backward();
            for (index, leaf) in leaves.iter().enumerate() {
                let expected = Some(all[index].clone()).filter(|_| tracked(index));
                assert_eq!(leaf.grad(&gradients).map(bits), expected, "{}, {mask:b}, {index}", case.name);
            }
        }
    }
}

#[test]
fn a_call_allocates_its_results_and_nothing_else() {
    let device = Device::flex();
    for case in cases(12_000) {
        let leaves = case.leaves(&device, DType::F32);
        let results = (case.of)(&leaves).len();
        // Units that are not rows are gathered.
        let gathered = usize::from(case.name.starts_with("weight norm") && !case.name.contains("axis 0"));
        let allocated = tensors_allocated(|| (case.of)(&leaves));
        assert_eq!(allocated, results + gathered, "{}: x is held elsewhere", case.name);
    }
}

#[test]
fn tensors_that_nobody_else_holds_are_overwritten() {
    let device = Device::flex();
    let image = || tensor::<4>([4096, 6, 2, 2], 1, &device, DType::F32);
    let (x, y) = (image(), image());
    assert_eq!(tensors_allocated(|| group_norm(x, 3, None, None, EPS)), 0, "group norm");
    assert_eq!(tensors_allocated(|| batch_norm(y, None, None, EPS)), 0, "batch norm");
    let (x, y) = (image(), image());
    assert_eq!(tensors_allocated(|| head_norm(x, HeadNormKind::Rms, None, None, EPS)), 0, "QK norm");
    assert_eq!(tensors_allocated(|| scale_norm(y, None, EPS)), 0, "scale norm");
    let (x, residual) = (image(), image());
    assert_eq!(tensors_allocated(|| add_layer_norm(x, residual, None, None, EPS)), 0, "add and layer norm");
    let (x, scale) = (image(), tensor([4096, 2], 2, &device, DType::F32));
    assert_eq!(tensors_allocated(|| adaptive_rms_norm(x, scale, None, EPS)), 0, "adaptive norm");
}

#[test]
fn backward_writes_dx_over_dy() {
    let device = Device::flex().autodiff();
    let backward = |f: &dyn Fn(Tensor<4>) -> Tensor<4>| {
        let x = tensor([4096, 6, 2, 2], 1, &device, DType::F32).require_grad();
        let loss = (f(x.clone()) * tensor(x.dims(), 2, &device, DType::F32)).sum();
        let mut dx = None;
        let allocated = tensors_allocated(|| dx = x.grad(&loss.backward()));
        assert!(dx.is_some());
        allocated
    };
    let without = backward(&|x| x);
    assert_eq!(backward(&|x| group_norm(x, 3, None, None, EPS)), without, "group norm");
    assert_eq!(backward(&|x| batch_norm(x, None, None, EPS)), without, "batch norm");
    assert_eq!(backward(&|x| head_norm(x, HeadNormKind::Layer, None, None, EPS)), without, "QK norm");
    assert_eq!(
        backward(&|x| add_layer_norm(x.clone() * 2.0, x, None, None, EPS).0),
        without + 1,
        "add, and x * 2"
    );
}

#[test]
fn half_types_are_f32_rounded_once() {
    let device = Device::flex();
    for case in cases(5).into_iter().filter(|case| !case.name.starts_with("add")) {
        for half in [DType::F16, DType::BF16] {
            let leaves = case.leaves(&device, half);
            let wide: Vec<_> = leaves.iter().map(|leaf| leaf.clone().cast(DType::F32)).collect();
            for (y, wide) in (case.of)(&leaves).into_iter().zip((case.of)(&wide)) {
                assert_eq!(y.dtype(), half, "{}", case.name);
                assert_eq!(y.into_data(), wide.cast(half).into_data(), "{} {half:?}", case.name);
            }
        }
    }
}

#[test]
fn gradients_have_the_types_of_their_tensors() {
    let device = Device::flex().autodiff();
    for case in cases(3) {
        for x in [DType::F16, DType::BF16, DType::F32, DType::F64] {
            for of_params in [DType::F16, DType::BF16, DType::F32, DType::F64] {
                let mut leaves = case.leaves(&device, of_params);
                let like_x = if case.name.starts_with("add") { 2 } else { 1 };
                leaves.splice(..like_x, case.leaves(&device, x).into_iter().take(like_x));
                let gradients = case.gradients(&leaves);
                for (leaf, gradient) in leaves.iter().zip(gradients) {
                    assert_eq!(gradient.dtype(), leaf.dtype(), "{} {x:?} {of_params:?}", case.name);
                }
            }
        }
    }
}
