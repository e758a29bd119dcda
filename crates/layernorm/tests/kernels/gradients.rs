//! The gradients against finite differences of the forward pass, in f64.

use crate::case::{Case, Many, Norm};
use crate::level::{Effort, best};
use crate::random::Random;

/// sum dy y.
fn loss(case: &Case<f64>) -> f64 {
    case.run(best()).y.iter().zip(&case.dy).map(|(y, dy)| y * dy).sum()
}

/// The derivative of the loss by the number that `place` finds: a difference of fourth order.
fn slope(case: &Case<f64>, place: impl Fn(&mut Case<f64>) -> &mut f64) -> f64 {
    let h = 1e-3;
    let at = |steps: f64| {
        let mut moved = case.clone();
        *place(&mut moved) += steps * h;
        loss(&moved)
    };
    (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * h)
}

#[track_caller]
fn near(got: f64, slope: f64, what: &str) {
    assert!((got - slope).abs() <= 1e-8 * (1.0 + slope.abs()), "{what}: {got}, by differences {slope}");
}

#[test]
fn agree_with_differences_of_the_loss() {
    let mut random = Random::new(41);
    for n in Effort::of(vec![2], vec![2, 7], vec![1, 2, 3, 7, 20, 40]) {
        for (norm, many) in Norm::BOTH
            .into_iter()
            .flat_map(|norm| Many::ALL.map(|many| (norm, many)))
            .step_by(Effort::of(3, 1, 1))
        {
            let rows = Effort::of(1, 3, 3);
            let x = (0..rows * n).map(|_| random.normal() * 2.0 + 1.0).collect();
            let case = Case::new(norm, x, n, &mut random).with_params([many; 2], &mut random);
            let case = Case { eps: 0.1, ..case };
            let got = case.run(best());
            for i in 0..rows * n {
                near(got.dx[i], slope(&case, |case| &mut case.x[i]), &format!("{norm:?} {n} dx[{i}]"));
            }
            for j in 0..case.weight.as_ref().map_or(0, Vec::len) {
                let by_weight = slope(&case, |case| &mut case.weight.as_mut().unwrap()[j]);
                near(got.dweight[j], by_weight, &format!("{norm:?} {n} dweight[{j}]"));
                let by_bias = slope(&case, |case| &mut case.bias.as_mut().unwrap()[j]);
                near(got.dbias[j], by_bias, &format!("{norm:?} {n} dbias[{j}]"));
            }
        }
    }
}

/// The gradient of a constant row with eps is not 0: the loss does move (see `docs/numerics.md`).
#[test]
fn a_constant_row_with_eps_has_the_true_gradient() {
    let mut random = Random::new(42);
    let case = Case::new(Norm::Layer, vec![0.7; 5], 5, &mut random);
    let case = Case { eps: 0.25, weight: None, bias: None, ..case };
    let got = case.run(best());
    let mean = case.dy.iter().sum::<f64>() / 5.0;
    for i in 0..5 {
        near(got.dx[i], slope(&case, |case| &mut case.x[i]), "dx");
        near(got.dx[i], 2.0 * (case.dy[i] - mean), "r (u - mean(u))");
    }
}
