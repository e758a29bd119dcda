//! Where PyTorch has the same thing, it says the same: `golden.txt` is what it made of the same numbers, by `golden.py`.

use super::*;
use burn::module::Param;
use burn::nn::Linear;
use burn::nn::activation::ActivationConfig;
use layernorm_burn::recurrent::{Cell, CellKind, RecurrentConfig};
use layernorm_burn::transformer::{BlockConfig, Placement};
use layernorm_burn::{BatchMode, NormConfig, batch_norm, group_norm, instance_norm, weight_norm};

/// The numbers of a name.
fn golden(name: &str) -> Vec<f64> {
    let line = include_str!("golden.txt").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("golden.txt has no {name}"));
    line.split(' ').map(|number| number.parse().expect("a number")).collect()
}

fn compare(name: &str, got: &[f64], tolerance: f64) {
    let want = golden(name);
    assert_eq!(got.len(), want.len(), "{name}");
    for (got, want) in got.iter().zip(&want) {
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{name}: {got}, in PyTorch {want}");
    }
}

fn leaf<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    tensor(shape, seed, &Device::flex().autodiff(), DType::F64).require_grad()
}

/// A gradient and what it belongs to.
type Leaves<'a> = &'a [(&'a str, &'a dyn Fn(&burn::tensor::Gradients) -> Vec<f64>)];

fn grad<const D: usize>(of: &Tensor<D>) -> impl Fn(&burn::tensor::Gradients) -> Vec<f64> {
    move |gradients| vec_of(of.grad(gradients).expect("a gradient"))
}

/// y, and the gradients of sum(y * numbers).
fn case<const D: usize>(name: &str, y: Tensor<D>, leaves: Leaves<'_>, tolerance: f64) {
    compare(&format!("{name}.y"), &vec_of::<f64, D>(y.clone().without_autodiff()), tolerance);
    let gradients = (y.clone() * tensor(y.dims(), 99, &y.device(), DType::F64)).sum().backward();
    for (leaf, gradient) in leaves {
        compare(&format!("{name}.d{leaf}"), &gradient(&gradients), tolerance);
    }
}

#[test]
fn layer_norm_is_pytorchs() {
    let (x, gamma, beta) = (leaf([3, 4, 6], 1), leaf([6], 2), leaf([6], 3));
    let y = layer_norm(x.clone(), gamma.clone(), beta.clone(), EPS);
    let leaves: Leaves<'_> = &[("x", &grad(&x)), ("gamma", &grad(&gamma)), ("beta", &grad(&beta))];
    case("layer_norm", y, leaves, 1e-12);
}

#[test]
fn norms_of_channels_are_pytorchs() {
    type Norm = fn(Tensor<3>, Tensor<1>, Tensor<1>) -> Tensor<3>;
    let norms: [(&str, Norm); 3] = [
        ("group_norm", |x, gamma, beta| group_norm(x, 3, gamma, beta, EPS)),
        ("instance_norm", |x, gamma, beta| instance_norm(x, gamma, beta, EPS)),
        ("batch_norm_train", |x, gamma, beta| batch_norm(x, gamma, beta, EPS)),
    ];
    for (name, norm) in norms {
        let (x, gamma, beta) = (leaf([4, 6, 5], 1), leaf([6], 2), leaf([6], 3));
        let y = norm(x.clone(), gamma.clone(), beta.clone());
        let leaves: Leaves<'_> = &[("x", &grad(&x)), ("gamma", &grad(&gamma)), ("beta", &grad(&beta))];
        case(name, y, leaves, 1e-12);
    }
}

/// Running statistics are kept in f32, so equal to about 1e-7.
#[test]
fn running_statistics_and_their_use_are_pytorchs() {
    let (x, gamma, beta) = (leaf([4, 6, 5], 1), leaf([6], 2), leaf([6], 3));
    let mut norm = NormConfig::batch().with_mode(BatchMode::Train).init(6, &x.device());
    norm.gamma = Some(Param::from_tensor(gamma));
    norm.beta = Some(Param::from_tensor(beta));
    norm.forward(x.clone());
    let [mean, var] = norm.running[0]
        .values()
        .map(|kept| vec_of::<f32, 1>(kept.without_autodiff()).into_iter().map(f64::from).collect::<Vec<_>>());
    compare("batch_norm.mean", &mean, 1e-6);
    compare("batch_norm.var", &var, 1e-6);
    let norm = norm.with_mode(BatchMode::Eval);
    let y = norm.forward(x.clone());
    let [gamma, beta] = [&norm.gamma, &norm.beta].map(|p| p.as_ref().expect("an affine norm").val());
    let leaves: Leaves<'_> = &[("x", &grad(&x)), ("gamma", &grad(&gamma)), ("beta", &grad(&beta))];
    case("batch_norm_eval", y, leaves, 1e-6);
}

#[test]
fn weight_norm_is_pytorchs() {
    let (x, v, g) = (leaf([3, 6], 1), leaf([6, 4], 2), leaf([4], 3));
    let y = x.clone().matmul(weight_norm(v.clone(), g.clone())) + leaf([4], 4).unsqueeze();
    case("weight_norm", y, &[("x", &grad(&x)), ("g", &grad(&g)), ("v", &grad(&v))], 1e-12);
}

fn param<const D: usize>(shape: [usize; D], seed: u64) -> Param<Tensor<D>> {
    Param::from_tensor(leaf(shape, seed))
}

#[test]
fn plain_cells_are_pytorchs() {
    for (name, kind) in [("rnn", CellKind::Rnn), ("lstm", CellKind::Lstm), ("gru", CellKind::Gru)] {
        let x = leaf([2, 5, 3], 1);
        let mut network = RecurrentConfig::new(kind, 3, 4).init(&x.device());
        match &mut network.cells[0] {
            Cell::Rnn(cell) => {
                (cell.w_x, cell.w_h, cell.b) = (param([3, 4], 2), param([4, 4], 3), Some(param([4], 4)));
            }
            Cell::Lstm(cell) => {
                (cell.w_x, cell.w_h, cell.b) = (param([3, 16], 2), param([4, 16], 3), Some(param([16], 4)));
            }
            Cell::Gru(cell) => {
                (cell.w_x, cell.w_h, cell.b) = (param([3, 8], 2), param([4, 8], 3), Some(param([8], 4)));
                (cell.w, cell.u, cell.b_hat) = (param([3, 4], 5), param([4, 4], 6), Some(param([4], 7)));
            }
        }
        let (y, _) = network.forward(x.clone(), None, None);
        case(name, y, &[("x", &grad(&x))], 1e-12);
    }
}

#[test]
fn blocks_are_pytorchs() {
    let linear = |[from, to]: [usize; 2], weight, bias| Linear {
        weight: param([from, to], weight),
        bias: Some(param([to], bias)),
    };
    for (name, placement) in [("post", Placement::Post), ("pre", Placement::Pre)] {
        let x = leaf([2, 5, 8], 1);
        let config = BlockConfig::new(8, 2).with_d_ff(Some(12)).with_placement(placement);
        let mut block = config.with_activation(ActivationConfig::Gelu).init(&x.device());
        block.attention.query = linear([8, 8], 2, 5);
        block.attention.key = linear([8, 8], 3, 6);
        block.attention.value = linear([8, 8], 4, 7);
        block.attention.output = linear([8, 8], 8, 9);
        block.feed_forward.linear_inner = linear([8, 12], 10, 11);
        block.feed_forward.linear_outer = linear([12, 8], 12, 13);
        for (residual, seed) in [(&mut block.around_attention, 14), (&mut block.around_feed_forward, 16)] {
            let norm = match placement {
                Placement::Pre => &mut residual.before,
                _ => &mut residual.after,
            };
            let norm = norm.as_mut().expect("the placement has this norm");
            (norm.gamma, norm.beta) = (Some(param([8], seed)), Some(param([8], seed + 1)));
        }
        let y = block.forward(x.clone());
        case(name, y, &[("x", &grad(&x))], 1e-12);
    }
}
