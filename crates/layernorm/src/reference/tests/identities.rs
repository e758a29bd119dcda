//! Methods that must agree with each other, and sums that must vanish.

use super::super::*;
use super::{assert_close, distance, numbers};

const SHAPE: Nchw = Nchw { batch: 2, channels: 6, positions: 4 };
const EPS: f64 = 1e-3;

#[test]
fn group_norm_with_one_group_is_layer_norm_over_channels_and_positions() {
    let (x, dy, weight, bias) =
        (numbers(1, SHAPE.len()), numbers(2, SHAPE.len()), numbers(3, 6), numbers(4, 6));
    // Layer norm sees each channel's parameter once for every position.
    let spread = |values: &[f64]| values.iter().flat_map(|v| [*v; 4]).collect::<Vec<_>>();
    let (wide_weight, wide_bias) = (spread(&weight), spread(&bias));
    let (narrow, wide) = (Affine::new(&weight, &bias), Affine::new(&wide_weight, &wide_bias));
    assert_eq!(group_norm(&x, SHAPE, 1, narrow, EPS), layer_norm(&x, 24, wide, EPS));

    let group = group_norm_backward(&dy, &x, SHAPE, 1, narrow, EPS);
    let layer = layer_norm_backward(&dy, &x, 24, wide, EPS);
    assert_eq!(group.dx, layer.dx);
    let folded = |values: &[f64]| values.chunks(4).map(|c| c.iter().sum()).collect::<Vec<f64>>();
    assert_close(&group.dweight, &folded(&layer.dweight));
    assert_close(&group.dbias, &folded(&layer.dbias));
}

#[test]
fn group_norm_with_a_group_a_channel_is_instance_norm() {
    let (x, weight, bias) = (numbers(1, SHAPE.len()), numbers(3, 6), numbers(4, 6));
    let affine = Affine::new(&weight, &bias);
    let instance = instance_norm(&x, SHAPE, affine, EPS);
    assert_eq!(group_norm(&x, SHAPE, 6, affine, EPS), instance);
    // And instance norm is layer norm over positions, written without group norm.
    let layer = layer_norm(&x, 4, Affine::NONE, EPS);
    let y: Vec<f64> =
        layer.y.iter().enumerate().map(|(i, h)| weight[i / 4 % 6] * h + bias[i / 4 % 6]).collect();
    assert_eq!(instance.y, y);
}

#[test]
fn batch_norm_of_one_sample_is_instance_norm() {
    let shape = Nchw { batch: 1, ..SHAPE };
    let (x, dy, weight, bias) =
        (numbers(1, shape.len()), numbers(2, shape.len()), numbers(3, 6), numbers(4, 6));
    let affine = Affine::new(&weight, &bias);
    assert_eq!(batch_norm_train(&x, shape, affine, EPS).y, instance_norm(&x, shape, affine, EPS).y);
    let (batch, instance) = (
        batch_norm_train_backward(&dy, &x, shape, affine, EPS),
        instance_norm_backward(&dy, &x, shape, affine, EPS),
    );
    assert_eq!(batch, instance);
}

#[test]
fn batch_norm_is_layer_norm_of_the_transpose() {
    let (rows, channels) = (5, 3);
    let x = numbers(1, rows * channels);
    let transposed: Vec<f64> = (0..rows * channels).map(|i| x[i % rows * channels + i / rows]).collect();
    let shape = Nchw { batch: rows, channels, positions: 1 };
    let batch = batch_norm_train(&x, shape, Affine::NONE, EPS);
    let layer = layer_norm(&transposed, rows, Affine::NONE, EPS);
    assert_eq!((batch.mean, batch.rstd), (layer.mean, layer.rstd));
    assert!((0..rows * channels).all(|i| batch.y[i] == layer.y[i % channels * rows + i / channels]));
}

#[test]
fn adaptive_and_conditional_norm_without_a_condition_are_the_plain_norm() {
    let (x, dy) = (numbers(1, 24), numbers(2, 24));
    let norm = RowNorm::layer(4, EPS);
    let plain = layer_norm(&x, 4, Affine::NONE, EPS);
    let plain_dx = layer_norm_backward(&dy, &x, 4, Affine::NONE, EPS).dx;
    let modulation = Modulation { scale: &[0.0; 8], shift: &[0.0; 8] };
    assert_eq!(adaptive_norm(&x, norm, modulation), plain);
    assert_eq!(adaptive_norm_backward(&dy, &x, norm, modulation).dx, plain_dx);

    let (weight, bias) = (numbers(3, 4), numbers(4, 4));
    let affine = Affine::new(&weight, &bias);
    let table = Table { entries: 1, affine, index: &[0; 6] };
    assert_eq!(conditional_norm(&x, norm, table), layer_norm(&x, 4, affine, EPS));
    assert_eq!(conditional_norm_backward(&dy, &x, norm, table), layer_norm_backward(&dy, &x, 4, affine, EPS));
}

#[test]
fn adaptive_norm_is_conditional_norm_with_one_entry_a_sample() {
    let (x, scale, shift) = (numbers(1, 24), numbers(2, 8), numbers(3, 8));
    let norm = RowNorm::rms(4, EPS);
    let weight: Vec<f64> = scale.iter().map(|scale| 1.0 + scale).collect();
    let table = Table { entries: 2, affine: Affine::new(&weight, &shift), index: &[0, 0, 0, 1, 1, 1] };
    assert_eq!(
        adaptive_norm(&x, norm, Modulation { scale: &scale, shift: &shift }),
        conditional_norm(&x, norm, table)
    );
}

#[test]
fn folded_batch_norm_is_evaluation() {
    let running = RunningStats { mean: numbers(1, 6), var: vec![0.5, 1.0, 2.0, 3.0, 4.0, 5.0], updates: 1 };
    let (x, dy, weight, bias) =
        (numbers(2, SHAPE.len()), numbers(3, SHAPE.len()), numbers(4, 6), numbers(5, 6));
    for affine in [Affine::new(&weight, &bias), Affine::NONE, Affine::new(&[2.0], &[1.0])] {
        let folded = batch_norm_fold(&running, affine, EPS);
        let eval = batch_norm_eval(&x, SHAPE, &running, affine, EPS);
        assert_close(&batch_norm_frozen(&x, SHAPE, &folded), &eval);
        let dx = batch_norm_eval_backward(&dy, &x, SHAPE, &running, affine, EPS).dx;
        assert_close(&batch_norm_frozen_backward(&dy, SHAPE, &folded), &dx);
    }
}

#[test]
fn partial_rms_over_all_features_is_rms_norm() {
    let (x, dy, weight) = (numbers(1, 15), numbers(2, 15), numbers(3, 5));
    let affine = Affine { weight: Some(&weight), bias: None };
    assert_eq!(partial_rms_norm(&x, 5, 5, affine, EPS), rms_norm(&x, 5, affine, EPS));
    assert_eq!(
        partial_rms_norm_backward(&dy, &x, 5, 5, affine, EPS),
        rms_norm_backward(&dy, &x, 5, affine, EPS)
    );
}

#[test]
fn layer_norm_is_rms_norm_of_the_centred_row() {
    let x = numbers(1, 7);
    let mean = x.iter().sum::<f64>() / 7.0;
    let centred: Vec<f64> = x.iter().map(|x| x - mean).collect();
    assert_close(&layer_norm(&x, 7, Affine::NONE, EPS).y, &rms_norm(&centred, 7, Affine::NONE, EPS).y);
}

#[test]
fn scale_norm_with_the_root_of_the_features_is_rms_norm_without_eps() {
    let (x, dy) = (numbers(1, 21), numbers(2, 21));
    let scale = 7f64.sqrt();
    assert_close(&scale_norm(&x, 7, scale, 0.0).y, &rms_norm(&x, 7, Affine::NONE, 0.0).y);
    let scaled = scale_norm_backward(&dy, &x, 7, scale, 0.0).dx;
    assert_close(&scaled, &rms_norm_backward(&dy, &x, 7, Affine::NONE, 0.0).dx);
}

#[test]
fn add_norm_without_a_residual_is_the_norm() {
    let (x, dy, weight) = (numbers(1, 12), numbers(2, 12), numbers(3, 4));
    let affine = Affine { weight: Some(&weight), bias: None };
    let out = add_norm(&x, &[0.0; 12], RowNorm::layer(4, EPS), affine);
    let plain = layer_norm(&x, 4, affine, EPS);
    assert_eq!((out.y, out.sum.as_slice(), out.mean, out.rstd), (plain.y, &x[..], plain.mean, plain.rstd));
    let gradients = AddNormGradients { dy: &dy, dsum: &[0.0; 12] };
    let back = add_norm_backward(gradients, &out.sum, RowNorm::layer(4, EPS), affine);
    let plain = layer_norm_backward(&dy, &x, 4, affine, EPS);
    assert_eq!((back.dx, back.dweight), (plain.dx, plain.dweight));
}

#[test]
fn without_eps_the_gradient_is_orthogonal_to_what_the_norm_removes() {
    let (x, dy, weight) = (numbers(1, 9), numbers(2, 9), numbers(3, 9));
    let affine = Affine { weight: Some(&weight), bias: None };
    let sum_with = |dx: &[f64], with: &[f64]| dx.iter().zip(with).map(|(a, b)| a * b).sum::<f64>();

    let layer = layer_norm_backward(&dy, &x, 9, affine, 0.0).dx;
    let x_hat = layer_norm(&x, 9, Affine::NONE, 0.0).y;
    assert!(distance(&layer, &[0.0; 9]) > 0.1, "a gradient of 0 would prove nothing");
    assert_close(&[sum_with(&layer, &[1.0; 9]), sum_with(&layer, &x_hat)], &[0.0, 0.0]);

    let rms = rms_norm_backward(&dy, &x, 9, affine, 0.0).dx;
    assert_close(&[sum_with(&rms, &x)], &[0.0]);
    assert!(sum_with(&rms, &[1.0; 9]).abs() > 1e-3, "RMS norm sees the mean");

    let dv = weight_norm_backward(&dy, &x, &[1.5]).dv;
    assert_close(&[sum_with(&dv, &x)], &[0.0]);

    let shape = Nchw { batch: 9, channels: 1, positions: 1 };
    let batch = batch_norm_train_backward(&dy, &x, shape, Affine::NONE, 0.0).dx;
    assert_close(&[sum_with(&batch, &[1.0; 9]), sum_with(&batch, &x_hat)], &[0.0, 0.0]);
}

#[test]
fn the_spectral_norm_of_the_layer_norm_jacobian_is_rstd() {
    // The Jacobian is r times an orthogonal projection: applied twice it is r times itself.
    let (x, dy) = (numbers(1, 9), numbers(2, 9));
    let r = layer_norm(&x, 9, Affine::NONE, 0.0).rstd[0];
    let once = layer_norm_backward(&dy, &x, 9, Affine::NONE, 0.0).dx;
    let twice = layer_norm_backward(&once, &x, 9, Affine::NONE, 0.0).dx;
    assert_close(&twice, &once.iter().map(|d| r * d).collect::<Vec<_>>());
}

#[test]
fn a_layer_initialised_from_data_has_mean_0_and_the_asked_spread() {
    let (rows, inputs, units, scale) = (40, 5, 3, 0.7);
    let (x, v) = (numbers(1, rows * inputs), numbers(2, units * inputs));
    let init = weight_norm_init(&x, &v, inputs, scale, 1e-10);
    let w = weight_norm(&v, &init.gain).w;
    for unit in 0..units {
        let out: Vec<f64> = x
            .chunks(inputs)
            .map(|x| x.iter().zip(&w[unit * inputs..]).map(|(x, w)| x * w).sum::<f64>() + init.bias[unit])
            .collect();
        let mean = out.iter().sum::<f64>() / rows as f64;
        let var = out.iter().map(|t| (t - mean) * (t - mean)).sum::<f64>() / rows as f64;
        assert!(mean.abs() < 1e-12 && (var.sqrt() - scale).abs() < 1e-9, "mean {mean}, variance {var}");
    }
}
