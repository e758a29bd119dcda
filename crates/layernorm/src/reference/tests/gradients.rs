//! Finite differences of every parameter of the methods that work by row, and of weight norm.

use super::super::*;
use super::{assert_gradient, loss, numbers};

const ROWS: usize = 3;
const FEATURES: usize = 5;
const ALL: [Statistics; 3] = [Statistics::Layer, Statistics::Rms, Statistics::PartialRms { first: 2 }];

fn norms() -> impl Iterator<Item = RowNorm> {
    ALL.into_iter().map(|statistics| RowNorm { statistics, features: FEATURES, eps: 0.05 })
}

/// The public function of each of the three.
fn forward(norm: RowNorm, x: &[f64], affine: Affine) -> Forward {
    match norm.statistics {
        Statistics::Layer => layer_norm(x, norm.features, affine, norm.eps),
        Statistics::Rms => rms_norm(x, norm.features, affine, norm.eps),
        Statistics::PartialRms { first } => partial_rms_norm(x, norm.features, first, affine, norm.eps),
    }
}

fn backward(norm: RowNorm, dy: &[f64], x: &[f64], affine: Affine) -> Backward {
    match norm.statistics {
        Statistics::Layer => layer_norm_backward(dy, x, norm.features, affine, norm.eps),
        Statistics::Rms => rms_norm_backward(dy, x, norm.features, affine, norm.eps),
        Statistics::PartialRms { first } => {
            partial_rms_norm_backward(dy, x, norm.features, first, affine, norm.eps)
        }
    }
}

#[test]
fn layer_rms_and_partial_rms_norm_with_shared_and_own_parameters() {
    let (x, dy) = (numbers(1, ROWS * FEATURES), numbers(2, ROWS * FEATURES));
    for norm in norms() {
        for (weights, biases) in [(FEATURES, FEATURES), (1, FEATURES), (FEATURES, 1), (1, 1)] {
            let (weight, bias) = (numbers(3, weights), numbers(4, biases));
            let affine = Affine::new(&weight, &bias);
            let of = |x: &[f64], affine: Affine| loss(&dy, &forward(norm, x, affine).y);
            let back = backward(norm, &dy, &x, affine);
            assert_gradient(&back.dx, &x, |x| of(x, affine));
            assert_gradient(&back.dweight, &weight, |weight| of(&x, Affine::new(weight, &bias)));
            assert_gradient(&back.dbias, &bias, |bias| of(&x, Affine::new(&weight, bias)));
        }
    }
}

#[test]
fn absent_parameters_are_one_and_zero() {
    let (x, dy, weight) = (numbers(1, ROWS * FEATURES), numbers(2, ROWS * FEATURES), numbers(3, FEATURES));
    for norm in norms() {
        let back = backward(norm, &dy, &x, Affine::NONE);
        assert_gradient(&back.dx, &x, |x| loss(&dy, &forward(norm, x, Affine::NONE).y));
        assert!(back.dweight.is_empty() && back.dbias.is_empty());
        let spelled = Affine::new(&[1.0], &[0.0]);
        assert_eq!(forward(norm, &x, Affine::NONE), forward(norm, &x, spelled));
        assert_eq!(back.dx, backward(norm, &dy, &x, spelled).dx);

        let back = backward(norm, &dy, &x, Affine { weight: Some(&weight), bias: None });
        assert_eq!((back.dweight.len(), back.dbias.len()), (FEATURES, 0));
    }
}

#[test]
fn add_norm_takes_both_gradients() {
    let (x, residual) = (numbers(1, ROWS * FEATURES), numbers(2, ROWS * FEATURES));
    let (dy, dsum) = (numbers(3, ROWS * FEATURES), numbers(4, ROWS * FEATURES));
    let (weight, bias) = (numbers(5, FEATURES), numbers(6, FEATURES));
    for norm in norms() {
        let of = |x: &[f64], residual: &[f64], affine: Affine| {
            let out = add_norm(x, residual, norm, affine);
            loss(&dy, &out.y) + loss(&dsum, &out.sum)
        };
        let affine = Affine::new(&weight, &bias);
        let sum = add_norm(&x, &residual, norm, affine).sum;
        let back = add_norm_backward(AddNormGradients { dy: &dy, dsum: &dsum }, &sum, norm, affine);
        assert_gradient(&back.dx, &x, |x| of(x, &residual, affine));
        assert_gradient(&back.dx, &residual, |residual| of(&x, residual, affine));
        assert_gradient(&back.dweight, &weight, |weight| of(&x, &residual, Affine::new(weight, &bias)));
        assert_gradient(&back.dbias, &bias, |bias| of(&x, &residual, Affine::new(&weight, bias)));
    }
}

#[test]
fn adaptive_norm_sums_over_the_positions_of_a_sample() {
    let (samples, positions) = (2, 3);
    let len = samples * positions * FEATURES;
    let (x, dy) = (numbers(1, len), numbers(2, len));
    let (scale, shift) = (numbers(3, samples * FEATURES), numbers(4, samples * FEATURES));
    for norm in norms() {
        let of = |x: &[f64], modulation: Modulation| loss(&dy, &adaptive_norm(x, norm, modulation).y);
        let modulation = Modulation { scale: &scale, shift: &shift };
        let back = adaptive_norm_backward(&dy, &x, norm, modulation);
        assert_gradient(&back.dx, &x, |x| of(x, modulation));
        assert_gradient(&back.dscale, &scale, |scale| of(&x, Modulation { scale, shift: &shift }));
        assert_gradient(&back.dshift, &shift, |shift| of(&x, Modulation { scale: &scale, shift }));
    }
}

#[test]
fn gated_residual_reaches_residual_gate_and_branch() {
    let (residual, branch, dy, gate) = (numbers(1, 24), numbers(2, 24), numbers(3, 24), numbers(4, 8));
    let back = gated_residual_backward(&dy, &gate, &branch, 4);
    assert_gradient(&back.dresidual, &residual, |residual| {
        loss(&dy, &gated_residual(residual, &gate, &branch, 4))
    });
    assert_gradient(&back.dgate, &gate, |gate| loss(&dy, &gated_residual(&residual, gate, &branch, 4)));
    assert_gradient(&back.dbranch, &branch, |branch| loss(&dy, &gated_residual(&residual, &gate, branch, 4)));
}

#[test]
fn conditional_norm_scatters_to_the_entries_picked() {
    let (entries, index) = (4, [2, 0, 2, 1, 2]);
    let len = index.len() * FEATURES;
    let (x, dy) = (numbers(1, len), numbers(2, len));
    let (weight, bias) = (numbers(3, entries * FEATURES), numbers(4, entries * FEATURES));
    for norm in norms() {
        let of = |x: &[f64], affine: Affine| {
            loss(&dy, &conditional_norm(x, norm, Table { entries, affine, index: &index }).y)
        };
        let affine = Affine::new(&weight, &bias);
        let back = conditional_norm_backward(&dy, &x, norm, Table { entries, affine, index: &index });
        assert_gradient(&back.dx, &x, |x| of(x, affine));
        assert_gradient(&back.dweight, &weight, |weight| of(&x, Affine::new(weight, &bias)));
        assert_gradient(&back.dbias, &bias, |bias| of(&x, Affine::new(&weight, bias)));
        assert!(back.dweight[3 * FEATURES..].iter().all(|d| *d == 0.0), "no row picked entry 3");
    }
}

#[test]
fn scale_and_l2_norm_above_and_below_their_epsilon() {
    let (x, dy, scale) = (numbers(1, ROWS * FEATURES), numbers(2, ROWS * FEATURES), [1.7]);
    for eps in [0.0, 1e-5, 100.0] {
        let back = scale_norm_backward(&dy, &x, FEATURES, scale[0], eps);
        assert_gradient(&back.dx, &x, |x| loss(&dy, &scale_norm(x, FEATURES, scale[0], eps).y));
        assert_gradient(&[back.dscale], &scale, |scale| {
            loss(&dy, &scale_norm(&x, FEATURES, scale[0], eps).y)
        });
        let dx = l2_norm_backward(&dy, &x, FEATURES, eps);
        assert_gradient(&dx, &x, |x| loss(&dy, &l2_norm(x, FEATURES, eps).y));
    }
}

#[test]
fn weight_norm_of_direction_and_gain() {
    let (v, gain, dw) = (numbers(1, 12), numbers(2, 3), numbers(3, 12));
    let back = weight_norm_backward(&dw, &v, &gain);
    assert_gradient(&back.dv, &v, |v| loss(&dw, &weight_norm(v, &gain).w));
    assert_gradient(&back.dgain, &gain, |gain| loss(&dw, &weight_norm(&v, gain).w));
}
