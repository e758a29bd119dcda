//! Numbers worked out by hand.

use super::super::*;
use super::assert_close;

/// Mean 5, variance 4, standard deviation 2.
const ROW: [f64; 8] = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];

#[test]
fn layer_norm_with_weight_bias_and_eps() {
    // var + eps = 6.25, r = 0.4
    let out = layer_norm(&ROW, 8, Affine::new(&[10.0], &[1.0]), 2.25);
    assert_close(&out.y, &[-11.0, -3.0, -3.0, -3.0, 1.0, 1.0, 9.0, 17.0]);
    assert_close(&[out.mean[0], out.rstd[0]], &[5.0, 0.4]);
}

#[test]
fn layer_norm_backward_of_one_output() {
    // x_hat = (-3, -1, -1, -1, 0, 0, 2, 4) / 2; u = e_7, so mean(u) = 1/8 and mean(u x_hat) = 2/8;
    // dx = 1/2 (u - 1/8 - x_hat / 4)
    let dy = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];
    let back = layer_norm_backward(&dy, &ROW, 8, Affine::new(&[1.0; 8], &[0.0; 8]), 0.0);
    assert_eq!(back.dx, [0.125, 0.0, 0.0, 0.0, -0.0625, -0.0625, -0.1875, 0.1875]);
    assert_eq!(back.dweight, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0]);
    assert_eq!(back.dbias, dy);
}

#[test]
fn rms_norm_and_its_gradient() {
    // mean square 4, r = 1/2, x_hat = (2, 1, 0, 0, 0); dy = e_0: mean(u x_hat) = 2/5
    let x = [4.0, 2.0, 0.0, 0.0, 0.0];
    let affine = Affine { weight: Some(&[1.0, 3.0, 1.0, 1.0, 1.0]), bias: Some(&[0.5]) };
    assert_eq!(rms_norm(&x, 5, affine, 0.0).y, [2.5, 3.5, 0.5, 0.5, 0.5]);
    let back = rms_norm_backward(&[1.0, 0.0, 0.0, 0.0, 0.0], &x, 5, affine, 0.0);
    assert_close(&back.dx, &[0.5 * (1.0 - 0.8), 0.5 * (0.0 - 0.4), 0.0, 0.0, 0.0]);
    assert_eq!((back.dweight, back.dbias), (vec![2.0, 0.0, 0.0, 0.0, 0.0], vec![1.0]));
}

#[test]
fn rms_norm_is_not_layer_norm_without_a_mean() {
    // (3, 5): mean 4, variance 1, mean square 17
    assert_close(&rms_norm(&[3.0, 5.0], 2, Affine::NONE, 0.0).rstd, &[1.0 / 17f64.sqrt()]);
    assert_close(&layer_norm(&[3.0, 5.0], 2, Affine::NONE, 0.0).rstd, &[1.0]);
}

#[test]
fn group_norm_of_two_samples() {
    // Four channels of two positions in two groups: standard deviations 1, 2, 0 and 1.
    let x = [1.0, 3.0, 1.0, 3.0, 5.0, 9.0, 9.0, 5.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 1.0, -1.0];
    let shape = Nchw { batch: 2, channels: 4, positions: 2 };
    let out = group_norm(&x, shape, 2, Affine::new(&[1.0, 2.0, 1.0, 2.0], &[0.0, 0.0, 0.0, 7.0]), 0.0);
    assert_eq!(out.mean, [2.0, 7.0, 0.0, 0.0]);
    assert_eq!(out.rstd, [1.0, 0.5, 0.0, 1.0]);
    assert_eq!(out.y, [-1.0, 1.0, -2.0, 2.0, -1.0, 1.0, 9.0, 5.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0, 9.0, 5.0]);
}

#[test]
fn batch_norm_over_samples_and_positions() {
    // Channel 0: (2, 4 | 4, 4 | 5, 5 | 7, 9); channel 1: constant.
    let x = [2.0, 4.0, 3.0, 3.0, 4.0, 4.0, 3.0, 3.0, 5.0, 5.0, 3.0, 3.0, 7.0, 9.0, 3.0, 3.0];
    let shape = Nchw { batch: 4, channels: 2, positions: 2 };
    let out = batch_norm_train(&x, shape, Affine::new(&[2.0, 2.0], &[0.0, 6.0]), 0.0);
    assert_eq!((out.mean, out.var, out.rstd), (vec![5.0, 3.0], vec![4.0, 0.0], vec![0.5, 0.0]));
    assert_eq!(out.y, [-3.0, -1.0, 6.0, 6.0, -1.0, -1.0, 6.0, 6.0, 0.0, 0.0, 6.0, 6.0, 2.0, 4.0, 6.0, 6.0]);
}

#[test]
fn scale_norm_of_a_right_triangle() {
    // |x| = 5, x_hat = (0.6, 0.8); dy = (1, 0): x_hat . dy = 0.6, dx = 2/5 (1 - 0.36, -0.48)
    assert_close(&scale_norm(&[3.0, 4.0], 2, 2.0, 1e-5).y, &[1.2, 1.6]);
    let back = scale_norm_backward(&[1.0, 0.0], &[3.0, 4.0], 2, 2.0, 1e-5);
    assert_close(&back.dx, &[0.4 * 0.64, 0.4 * -0.48]);
    assert_close(&[back.dscale], &[0.6]);
    // Shorter than eps: divided by eps alone.
    assert_close(&scale_norm(&[3.0, 4.0], 2, 2.0, 10.0).y, &[0.6, 0.8]);
    assert_close(&scale_norm_backward(&[1.0, 0.0], &[3.0, 4.0], 2, 2.0, 10.0).dx, &[0.2, 0.0]);
}

#[test]
fn weight_norm_of_a_right_triangle() {
    // w = 10 (0.6, 0.8); dgain = 0.6; dv = 2 (1, 0) - 10 * 0.6 / 25 (3, 4)
    assert_close(&weight_norm(&[3.0, 4.0], &[10.0]).w, &[6.0, 8.0]);
    let back = weight_norm_backward(&[1.0, 0.0], &[3.0, 4.0], &[10.0]);
    assert_close(&back.dgain, &[0.6]);
    assert_close(&back.dv, &[1.28, -0.96]);
}
