//! Constant rows, empty inputs, single elements, numbers that are none.

use super::super::*;
use super::numbers;

/// Constants whose plain mean is off by a rounding for most lengths, among them values from all of `f64`'s
/// mantissa.
const CONSTANTS: [f64; 7] = [0.0, 0.1, -0.3, 1.0 / 3.0, 16777217.0, 1e30, -1e-30];

#[test]
fn a_constant_row_at_eps_0_gives_the_bias_and_no_gradient() {
    for len in [1, 2, 3, 7, 10, 49, 1000, 65_537] {
        let (dy, bias) = (numbers(1, len), numbers(2, len));
        let affine = Affine::new(&[3.0], &bias);
        for constant in CONSTANTS {
            let x = vec![constant; len];
            let out = layer_norm(&x, len, affine, 0.0);
            assert_eq!((&out.y, out.mean[0], out.rstd[0]), (&bias, constant, 0.0), "{constant} x {len}");
            let back = layer_norm_backward(&dy, &x, len, affine, 0.0);
            assert!(back.dx.iter().chain(&back.dweight).all(|d| *d == 0.0), "{constant} x {len}");
        }
    }
}

#[test]
fn a_constant_row_gives_the_bias_at_any_eps() {
    for eps in [1e-12, 1e-6, 1e-5, 1e-3] {
        let out = layer_norm(&[0.1; 7], 7, Affine::new(&[3.0], &[0.7]), eps);
        assert_eq!((out.y, out.rstd[0]), (vec![0.7; 7], 1.0 / eps.sqrt()));
    }
}

#[test]
fn one_element_a_group_gives_the_bias_and_no_gradient() {
    for eps in [0.0, 1e-5] {
        let affine = Affine::new(&[3.0], &[0.7]);
        assert_eq!(layer_norm(&[5.0, -2.0], 1, affine, eps).y, [0.7, 0.7]);
        assert_eq!(layer_norm_backward(&[1.0, 2.0], &[5.0, -2.0], 1, affine, eps).dx, [0.0, 0.0]);
        let shape = Nchw { batch: 1, channels: 2, positions: 1 };
        assert_eq!(group_norm(&[5.0, -2.0], shape, 2, affine, eps).y, [0.7, 0.7]);
        assert_eq!(group_norm_backward(&[1.0, 2.0], &[5.0, -2.0], shape, 2, affine, eps).dx, [0.0, 0.0]);
    }
}

#[test]
fn rows_of_zeros_without_eps() {
    let (zeros, dy) = ([0.0; 3], [1.0, 2.0, 3.0]);
    let affine = Affine::new(&[3.0], &[0.7]);
    assert_eq!(rms_norm(&zeros, 3, affine, 0.0).y, [0.7; 3]);
    assert_eq!(rms_norm_backward(&dy, &zeros, 3, affine, 0.0).dx, zeros);
    // The features outside the mean square have nothing to be scaled by either.
    assert_eq!(partial_rms_norm(&[0.0, 0.0, 5.0], 3, 2, affine, 0.0).y, [0.7; 3]);
    assert_eq!(l2_norm(&zeros, 3, 0.0), L2Forward { y: zeros.to_vec(), rnorm: vec![0.0] });
    assert_eq!(l2_norm_backward(&dy, &zeros, 3, 0.0), zeros);
    assert_eq!(scale_norm_backward(&dy, &zeros, 3, 2.0, 0.0).dscale, 0.0);
    assert_eq!(weight_norm(&zeros, &[2.0]).w, zeros);
    let back = weight_norm_backward(&dy, &zeros, &[2.0]);
    assert_eq!((back.dv, back.dgain), (zeros.to_vec(), vec![0.0]));
    assert_eq!(weight_norm_init(&[1.0, 2.0], &[0.0], 1, 1.0, 0.0).gain, [0.0]);
}

#[test]
fn a_channel_without_variance_at_eps_0() {
    let running = RunningStats { mean: vec![3.0], var: vec![0.0], updates: 1 };
    let shape = Nchw { batch: 1, channels: 1, positions: 2 };
    let affine = Affine::new(&[3.0], &[0.7]);
    assert_eq!(batch_norm_eval(&[1.0, 2.0], shape, &running, affine, 0.0), [0.7, 0.7]);
    assert_eq!(
        batch_norm_eval_backward(&[1.0, 2.0], &[1.0, 2.0], shape, &running, affine, 0.0).dx,
        [0.0, 0.0]
    );
    assert_eq!(batch_norm_fold(&running, affine, 0.0), Folded { scale: vec![0.0], shift: vec![0.7] });
}

#[test]
fn no_rows_and_no_features_are_fine() {
    let affine = Affine::new(&[1.0, 2.0], &[3.0]);
    assert_eq!(layer_norm(&[], 2, affine, 0.0), Forward::default());
    let back = rms_norm_backward(&[], &[], 2, affine, 0.0);
    assert_eq!((back.dx, back.dweight, back.dbias), (vec![], vec![0.0, 0.0], vec![0.0]));
    assert_eq!(layer_norm(&[], 0, Affine::new(&[], &[]), 0.0), Forward::default());
    assert_eq!(partial_rms_norm(&[], 0, 0, Affine::NONE, 0.0), Forward::default());
    assert_eq!(l2_norm(&[], 0, 0.0), L2Forward::default());
    assert_eq!(weight_norm(&[], &[]), WeightNormForward::default());
    assert!(gated_residual(&[], &[], &[], 4).is_empty());
    let modulation = Modulation { scale: &[], shift: &[] };
    assert_eq!(adaptive_norm(&[], RowNorm::layer(4, 0.0), modulation), Forward::default());
    let table = Table { entries: 0, affine: Affine::NONE, index: &[] };
    assert_eq!(conditional_norm(&[], RowNorm::rms(4, 0.0), table), Forward::default());

    let none = Nchw { batch: 0, channels: 2, positions: 3 };
    assert_eq!(group_norm(&[], none, 1, affine, 0.0), Forward::default());
    assert_eq!(group_norm_backward(&[], &[], none, 1, affine, 0.0).dweight, [0.0, 0.0]);
    assert!(batch_norm_eval(&[], none, &RunningStats::new(2), affine, 0.0).is_empty());
}

#[test]
fn a_number_that_is_none_spoils_its_own_row_only() {
    for bad in [f64::NAN, f64::INFINITY] {
        let mut x = numbers(1, 9);
        let fine = [
            layer_norm(&x, 3, Affine::NONE, 0.1).y,
            rms_norm(&x, 3, Affine::NONE, 0.1).y,
            l2_norm(&x, 3, 0.1).y,
        ];
        x[4] = bad;
        let spoilt = [
            layer_norm(&x, 3, Affine::NONE, 0.1).y,
            rms_norm(&x, 3, Affine::NONE, 0.1).y,
            l2_norm(&x, 3, 0.1).y,
        ];
        for (fine, spoilt) in fine.iter().zip(&spoilt) {
            assert_eq!((&fine[..3], &fine[6..]), (&spoilt[..3], &spoilt[6..]));
            assert!(spoilt[4].is_nan());
        }
        if bad.is_nan() {
            assert!(spoilt.iter().all(|y| y[3..6].iter().all(|y| y.is_nan())));
        }
    }
}

#[test]
fn a_mean_far_above_the_spread_costs_nothing() {
    // Integers, so that the shift is exact and both rows have the same normalised values.
    let row: Vec<f64> = (0..1000).map(|i| f64::from(i * 7919 % 1000)).collect();
    let far: Vec<f64> = row.iter().map(|x| x + 1e9).collect();
    let (near, far) = (layer_norm(&row, 1000, Affine::NONE, 0.0), layer_norm(&far, 1000, Affine::NONE, 0.0));
    super::assert_close(&far.y, &near.y);
}

#[test]
fn the_range_of_f32_is_no_trouble() {
    for scale in [3e38, 1e-30, 1e-45] {
        let x = [scale, -scale, scale, -scale];
        super::assert_close(&layer_norm(&x, 4, Affine::NONE, 0.0).y, &[1.0, -1.0, 1.0, -1.0]);
        super::assert_close(&rms_norm(&x, 4, Affine::NONE, 0.0).y, &[1.0, -1.0, 1.0, -1.0]);
    }
}
