//! Finite differences of every parameter of the methods that work by channel.

use super::super::*;
use super::{assert_gradient, loss, numbers};

const SHAPE: Nchw = Nchw { batch: 2, channels: 6, positions: 3 };
const EPS: f64 = 0.05;

/// Checks one method, with a parameter for each channel and with shared ones.
fn check(
    forward: impl Fn(&[f64], Affine) -> Vec<f64>,
    backward: impl Fn(&[f64], &[f64], Affine) -> Backward,
) {
    let (x, dy) = (numbers(11, SHAPE.len()), numbers(12, SHAPE.len()));
    for (weights, biases) in [(SHAPE.channels, SHAPE.channels), (1, SHAPE.channels), (SHAPE.channels, 1)] {
        let (weight, bias) = (numbers(13, weights), numbers(14, biases));
        let of = |x: &[f64], affine: Affine| loss(&dy, &forward(x, affine));
        let affine = Affine::new(&weight, &bias);
        let back = backward(&dy, &x, affine);
        assert_gradient(&back.dx, &x, |x| of(x, affine));
        assert_gradient(&back.dweight, &weight, |weight| of(&x, Affine::new(weight, &bias)));
        assert_gradient(&back.dbias, &bias, |bias| of(&x, Affine::new(&weight, bias)));
    }
    let back = backward(&dy, &x, Affine::NONE);
    assert_gradient(&back.dx, &x, |x| loss(&dy, &forward(x, Affine::NONE)));
    assert!(back.dweight.is_empty() && back.dbias.is_empty());
}

#[test]
fn group_norm_with_any_number_of_groups() {
    for groups in [1, 2, 3, 6] {
        check(
            |x, affine| group_norm(x, SHAPE, groups, affine, EPS).y,
            |dy, x, affine| group_norm_backward(dy, x, SHAPE, groups, affine, EPS),
        );
    }
}

#[test]
fn instance_norm_by_channel_and_sample() {
    check(
        |x, affine| instance_norm(x, SHAPE, affine, EPS).y,
        |dy, x, affine| instance_norm_backward(dy, x, SHAPE, affine, EPS),
    );
}

#[test]
fn batch_norm_in_training_flows_through_the_statistics() {
    check(
        |x, affine| batch_norm_train(x, SHAPE, affine, EPS).y,
        |dy, x, affine| batch_norm_train_backward(dy, x, SHAPE, affine, EPS),
    );
}

#[test]
fn batch_norm_in_evaluation_does_not() {
    let var = numbers(15, SHAPE.channels).iter().map(|v| v * v).collect();
    let running = RunningStats { mean: numbers(16, SHAPE.channels), var, updates: 1 };
    check(
        |x, affine| batch_norm_eval(x, SHAPE, &running, affine, EPS),
        |dy, x, affine| batch_norm_eval_backward(dy, x, SHAPE, &running, affine, EPS),
    );
}

#[test]
fn frozen_batch_norm_is_linear() {
    let folded = Folded { scale: numbers(17, SHAPE.channels), shift: numbers(18, SHAPE.channels) };
    let (x, dy) = (numbers(11, SHAPE.len()), numbers(12, SHAPE.len()));
    let dx = batch_norm_frozen_backward(&dy, SHAPE, &folded);
    assert_gradient(&dx, &x, |x| loss(&dy, &batch_norm_frozen(x, SHAPE, &folded)));
}
