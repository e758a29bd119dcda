//! The conventions of running statistics, against the formulas of their frameworks.

use super::super::*;
use super::{assert_close, numbers};

/// Mean 5; biased variance 4; unbiased 32 / 7.
const CHANNEL: [f64; 8] = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
const SHAPE: Nchw = Nchw { batch: 4, channels: 1, positions: 2 };

#[test]
fn one_update_from_the_start_by_each_convention() {
    let batch = batch_norm_train(&CHANNEL, SHAPE, Affine::NONE, 1e-5);
    let unbiased = 32.0 / 7.0;
    for (convention, mean, var) in [
        (Convention::PYTORCH, 0.1 * 5.0, 0.9 + 0.1 * unbiased),
        (Convention::PyTorch { momentum: None }, 5.0, unbiased),
        (Convention::KERAS, 0.01 * 5.0, 0.99 + 0.01 * 4.0),
        (Convention::TF_KERAS, 0.01 * 5.0, 0.99 + 0.01 * unbiased),
        (Convention::FLAX, 0.01 * 5.0, 0.99 + 0.01 * 4.0),
        (Convention::ONNX, 0.1 * 5.0, 0.9 + 0.1 * 4.0),
        (Convention::Onnx { momentum: 0.75 }, 0.25 * 5.0, 0.75 + 0.25 * 4.0),
        (Convention::PyTorch { momentum: Some(0.75) }, 0.75 * 5.0, 0.25 + 0.75 * unbiased),
    ] {
        let mut running = RunningStats::new(1);
        running.update(&batch, convention);
        assert_close(&[running.mean[0], running.var[0]], &[mean, var]);
        assert_eq!(running.updates, 1);
    }
}

#[test]
fn without_momentum_all_batches_weigh_the_same() {
    let shape = Nchw { batch: 4, channels: 2, positions: 1 };
    let batches: Vec<_> = (1..=5)
        .map(|seed| batch_norm_train(&numbers(seed, shape.len()), shape, Affine::NONE, 1e-5))
        .collect();
    let mut running = RunningStats::new(2);
    batches.iter().for_each(|batch| running.update(batch, Convention::PyTorch { momentum: None }));
    for channel in 0..2 {
        let average = |value: fn(&BatchForward) -> &Vec<f64>| {
            batches.iter().map(|batch| value(batch)[channel]).sum::<f64>() / 5.0
        };
        assert_close(&[running.mean[channel]], &[average(|batch| &batch.mean)]);
        assert_close(&[running.var[channel]], &[average(|batch| &batch.var) * 4.0 / 3.0]);
    }
}

#[test]
fn the_variance_of_the_output_is_biased_in_every_convention() {
    let batch = batch_norm_train(&CHANNEL, SHAPE, Affine::NONE, 0.0);
    assert_eq!(batch.y, [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]);
    assert_eq!((batch.var[0], batch.count), (4.0, 8));
}

#[test]
fn evaluation_with_the_statistics_of_a_batch_gives_the_training_output() {
    let shape = Nchw { batch: 3, channels: 4, positions: 5 };
    let (x, weight, bias) = (numbers(1, shape.len()), numbers(2, 4), numbers(3, 4));
    let affine = Affine::new(&weight, &bias);
    let batch = batch_norm_train(&x, shape, affine, 1e-3);
    let mut running = RunningStats::new(4);
    running.update(&batch, Convention::Flax { momentum: 0.0 });
    assert_close(&batch_norm_eval(&x, shape, &running, affine, 1e-3), &batch.y);
}

#[test]
fn default_epsilons() {
    let eps =
        [Convention::PYTORCH, Convention::KERAS, Convention::TF_KERAS, Convention::FLAX, Convention::ONNX]
            .map(Convention::eps);
    assert_eq!(eps, [1e-5, 1e-3, 1e-3, 1e-5, 1e-5]);
}
