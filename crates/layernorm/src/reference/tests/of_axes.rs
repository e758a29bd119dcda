//! The two methods over chosen axes, Lp norm and mean-variance norm: against the methods by row and by channel,
//! finite differences, numbers worked out by hand, and edges.

use super::super::axes::sets;
use super::super::*;
use super::{assert_close, assert_gradient, loss, numbers};

const SHAPE: [usize; 4] = [2, 3, 4, 2];
const LEN: usize = 48;
const EPS: f64 = 0.3;

#[test]
fn a_set_is_what_differs_along_the_axes_alone() {
    assert_eq!(sets("x", 6, &[2, 3], &[1]), [[0, 1, 2], [3, 4, 5]]);
    assert_eq!(sets("x", 6, &[2, 3], &[0]), [[0, 3], [1, 4], [2, 5]]);
    assert_eq!(sets("x", 8, &[2, 2, 2], &[2, 0]), [[0, 1, 4, 5], [2, 3, 6, 7]]);
    assert_eq!(sets("x", 2, &[2], &[]), [[0], [1]]);
    assert_eq!(sets("x", 1, &[], &[]), [[0]]);
    assert!(sets("x", 0, &[2, 0], &[1]).is_empty());
}

#[test]
fn lp_norm_of_a_right_triangle() {
    let x = [3.0, -4.0];
    assert_close(&lp_norm(&x, &[2], 0, 1).y, &[3.0 / 7.0, -4.0 / 7.0]);
    assert_close(&lp_norm(&x, &[2], 0, 2).y, &[0.6, -0.8]);
    // dy = e_0, y . dy = 3/7: dx = (1 - 3/7, 3/7) / 7. And 3/5: dx = (1 - 9/25, 12/25) / 5.
    assert_close(&lp_norm_backward(&[1.0, 0.0], &x, &[2], 0, 1), &[4.0 / 49.0, 3.0 / 49.0]);
    assert_close(&lp_norm_backward(&[1.0, 0.0], &x, &[2], 0, 2), &[0.128, 0.096]);
}

#[test]
fn lp_norm_of_p_2_along_rows_is_l2_norm_without_eps() {
    let (x, dy) = (numbers(1, LEN), numbers(2, LEN));
    let (lp, l2) = (lp_norm(&x, &[6, 8], 1, 2), l2_norm(&x, 8, 0.0));
    assert_eq!((lp.y, lp.rnorm), (l2.y, l2.rnorm));
    assert_close(&lp_norm_backward(&dy, &x, &[6, 8], 1, 2), &l2_norm_backward(&dy, &x, 8, 0.0));
}

#[test]
fn lp_norm_along_a_column_is_that_of_the_transposed_row() {
    let (x, dy) = (numbers(1, 15), numbers(2, 15));
    let transposed = |x: &[f64]| (0..15).map(|i| x[i % 3 * 5 + i / 3]).collect::<Vec<f64>>();
    for p in [1, 2] {
        let (columns, rows) = (lp_norm(&x, &[3, 5], 0, p), lp_norm(&transposed(&x), &[5, 3], 1, p));
        assert_eq!((transposed(&columns.y), columns.rnorm), (rows.y, rows.rnorm));
        assert_eq!(
            transposed(&lp_norm_backward(&dy, &x, &[3, 5], 0, p)),
            lp_norm_backward(&transposed(&dy), &transposed(&x), &[5, 3], 1, p)
        );
    }
}

#[test]
fn lp_norm_has_the_gradient_of_finite_differences() {
    // Away from 0, where p = 1 has a corner.
    let x: Vec<f64> = numbers(1, LEN).iter().map(|x| x + x.signum()).collect();
    let dy = numbers(2, LEN);
    for axis in 0..4 {
        for p in [1, 2] {
            let dx = lp_norm_backward(&dy, &x, &SHAPE, axis, p);
            assert_gradient(&dx, &x, |x| loss(&dy, &lp_norm(x, &SHAPE, axis, p).y));
        }
    }
}

#[test]
fn mean_variance_norm_by_hand_with_eps_outside_the_root() {
    // Mean 5, deviation 2: with 3 more, deviations are divided by 5. (Inside the root: by sqrt(7).)
    let x = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
    let out = mean_variance_norm(&x, &[8], &[0], 3.0);
    assert_close(&out.y, &[-0.6, -0.2, -0.2, -0.2, 0.0, 0.0, 0.4, 0.8]);
    assert_close(&[out.mean[0], out.rstd[0]], &[5.0, 0.2]);
}

#[test]
fn mean_variance_norm_without_eps_is_the_norm_of_those_axes() {
    let (x, dy) = (numbers(1, LEN), numbers(2, LEN));
    let shape = Nchw { batch: 2, channels: 3, positions: 8 };
    let of = |axes: &[usize]| {
        let out = mean_variance_norm(&x, &SHAPE, axes, 0.0);
        (out.y, out.mean, mean_variance_norm_backward(&dy, &x, &SHAPE, axes, 0.0))
    };
    let near = |(y, mean, dx): (Vec<f64>, Vec<f64>, Vec<f64>), want: [&[f64]; 3]| {
        assert_close(&y, want[0]);
        assert_close(&mean, want[1]);
        assert_close(&dx, want[2]);
    };
    let (batch, none) = (batch_norm_train(&x, shape, Affine::NONE, 0.0), Affine::NONE);
    let dx = batch_norm_train_backward(&dy, &x, shape, none, 0.0).dx;
    near(of(&[0, 2, 3]), [&batch.y, &batch.mean, &dx]);
    let instance = instance_norm(&x, shape, none, 0.0);
    let dx = instance_norm_backward(&dy, &x, shape, none, 0.0).dx;
    near(of(&[2, 3]), [&instance.y, &instance.mean, &dx]);
    let layer = layer_norm(&x, 24, none, 0.0);
    near(of(&[1, 2, 3]), [&layer.y, &layer.mean, &layer_norm_backward(&dy, &x, 24, none, 0.0).dx]);
}

#[test]
fn mean_variance_norm_has_the_gradient_of_finite_differences() {
    let (x, dy) = (numbers(1, LEN), numbers(2, LEN));
    for axes in [&[0, 2, 3][..], &[2, 3], &[1], &[0, 1, 2, 3]] {
        let dx = mean_variance_norm_backward(&dy, &x, &SHAPE, axes, EPS);
        assert_gradient(&dx, &x, |x| loss(&dy, &mean_variance_norm(x, &SHAPE, axes, EPS).y));
    }
}

#[test]
fn zeros_constants_and_nothing() {
    let (zeros, dy) = ([0.0; 3], [1.0, 2.0, 6.0]);
    for p in [1, 2] {
        assert_eq!(lp_norm(&zeros, &[3], 0, p), LpForward { y: zeros.to_vec(), rnorm: vec![0.0] });
        assert_eq!(lp_norm_backward(&dy, &zeros, &[3], 0, p), zeros);
        assert_eq!(lp_norm(&[], &[2, 0], 1, p), LpForward::default());
    }
    // A single 0 is a corner at p = 1: neither of its slopes counts.
    assert_eq!(lp_norm_backward(&[1.0, 1.0], &[0.0, 2.0], &[2], 0, 1), [0.5, 0.0]);

    let out = mean_variance_norm(&[0.1; 3], &[3], &[0], 0.0);
    assert_eq!(out, Forward { y: zeros.to_vec(), mean: vec![0.1], rstd: vec![0.0] });
    assert_eq!(mean_variance_norm_backward(&dy, &[0.1; 3], &[3], &[0], 0.0), zeros);
    assert_eq!(mean_variance_norm(&[0.1; 3], &[3], &[0], 1e-9).y, zeros);
    assert_eq!(mean_variance_norm_backward(&dy, &[0.1; 3], &[3], &[0], 0.5), [-4.0, -2.0, 6.0]);
    assert_eq!(mean_variance_norm(&[], &[0, 3], &[0], 0.0), Forward::default());
}
