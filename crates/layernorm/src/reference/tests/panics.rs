//! Lengths that do not fit panic, and the message carries both numbers.

use super::super::*;
use std::panic::{UnwindSafe, catch_unwind};

#[track_caller]
fn assert_panics<T>(call: impl FnOnce() -> T + UnwindSafe, message: &str) {
    let Err(payload) = catch_unwind(call) else { panic!("no panic; expected: {message}") };
    let found = payload.downcast_ref::<String>().map_or("a panic without a message", String::as_str);
    assert_eq!(found, message);
}

const SHAPE: Nchw = Nchw { batch: 2, channels: 3, positions: 1 };

#[test]
fn by_row() {
    let norm = RowNorm::layer(2, 0.0);
    let none = Affine::NONE;
    assert_panics(|| layer_norm(&[0.0; 5], 2, none, 0.0), "x: 5 cannot be divided by 2");
    assert_panics(|| layer_norm(&[0.0; 5], 0, none, 0.0), "x: 5 cannot be divided by 0");
    let wide = Affine { weight: Some(&[1.0; 3]), bias: None };
    assert_panics(|| rms_norm(&[0.0; 4], 2, wide, 0.0), "weight holds 3 numbers, expected 1 or 2");
    let empty = Affine { weight: None, bias: Some(&[]) };
    assert_panics(|| rms_norm(&[0.0; 4], 2, empty, 0.0), "bias holds 0 numbers, expected 1 or 2");
    assert_panics(
        || layer_norm_backward(&[0.0; 2], &[0.0; 4], 2, none, 0.0),
        "dy holds 2 numbers, expected 4",
    );
    for first in [0, 3] {
        assert_panics(
            || partial_rms_norm(&[0.0; 4], 2, first, none, 0.0),
            &format!("the mean square of the first {first} features, expected 1 to 2"),
        );
    }
    assert_panics(|| add_norm(&[0.0; 4], &[0.0; 2], norm, none), "residual holds 2 numbers, expected 4");
    let both = AddNormGradients { dy: &[0.0; 4], dsum: &[0.0; 2] };
    assert_panics(|| add_norm_backward(both, &[0.0; 4], norm, none), "dsum holds 2 numbers, expected 4");
    assert_panics(
        || scale_norm_backward(&[0.0; 2], &[0.0; 4], 2, 1.0, 0.0),
        "dy holds 2 numbers, expected 4",
    );
    assert_panics(|| weight_norm(&[0.0; 5], &[0.0; 2]), "v: 5 cannot be divided by 2");
    assert_panics(|| weight_norm_backward(&[0.0; 2], &[0.0; 4], &[0.0; 2]), "dw holds 2 numbers, expected 4");
    assert_panics(
        || weight_norm_init(&[], &[0.0; 2], 2, 1.0, 0.0),
        "x holds 0 rows, expected at least 1 to initialise from",
    );
}

#[test]
fn with_a_condition() {
    let norm = RowNorm::layer(2, 0.0);
    let uneven = Modulation { scale: &[0.0; 4], shift: &[0.0; 2] };
    assert_panics(|| adaptive_norm(&[0.0; 4], norm, uneven), "shift holds 2 numbers, expected 4");
    let two_samples = Modulation { scale: &[0.0; 4], shift: &[0.0; 4] };
    assert_panics(
        || adaptive_norm(&[0.0; 6], norm, two_samples),
        "rows over samples: 3 cannot be divided by 2",
    );
    assert_panics(
        || gated_residual(&[0.0; 4], &[0.0; 2], &[0.0; 2], 2),
        "branch holds 2 numbers, expected 4",
    );
    let table = |entries, index| Table { entries, affine: Affine::new(&[0.0; 4], &[0.0; 4]), index };
    assert_panics(|| conditional_norm(&[0.0; 2], norm, table(2, &[2])), "index 2 of a table with 2 entries");
    assert_panics(
        || conditional_norm(&[0.0; 2], norm, table(2, &[0, 1])),
        "index holds 2 numbers, expected 1",
    );
    assert_panics(|| conditional_norm(&[0.0; 2], norm, table(3, &[0])), "weight holds 4 numbers, expected 6");
}

#[test]
fn of_images() {
    let none = Affine::NONE;
    assert_panics(
        || group_norm(&[0.0; 6], SHAPE, 2, none, 0.0),
        "channels over groups: 3 cannot be divided by 2",
    );
    assert_panics(
        || group_norm(&[0.0; 6], SHAPE, 0, none, 0.0),
        "channels over groups: 3 cannot be divided by 0",
    );
    assert_panics(|| instance_norm(&[0.0; 5], SHAPE, none, 0.0), "x holds 5 numbers, expected 6");
    let no_channels = Nchw { channels: 0, ..SHAPE };
    assert_panics(
        || batch_norm_train(&[], no_channels, none, 0.0),
        "0 channels of 1 positions: there is nothing to normalise",
    );
    let alone = Nchw { batch: 1, ..SHAPE };
    assert_panics(
        || batch_norm_train(&[0.0; 3], alone, none, 0.0),
        "a channel holds 1 numbers, expected at least 2 in training",
    );
    assert_panics(
        || batch_norm_eval(&[0.0; 6], SHAPE, &RunningStats::new(2), none, 0.0),
        "the running mean holds 2 numbers, expected 3",
    );
    let huge = Nchw { batch: usize::MAX, channels: 2, positions: 2 };
    assert_panics(
        || group_norm(&[0.0; 4], huge, 1, none, 0.0),
        &format!("x holds 4 numbers, expected {}", usize::MAX),
    );
}

#[test]
fn of_axes() {
    assert_panics(|| lp_norm(&[0.0; 5], &[2, 3], 0, 1), "x holds 5 numbers, expected 6");
    assert_panics(|| lp_norm(&[0.0; 6], &[2, 3], 2, 1), "axis 2 of an array with 2 axes");
    assert_panics(|| lp_norm(&[0.0; 6], &[2, 3], 0, 3), "p is 3, expected 1 or 2");
    assert_panics(|| lp_norm_backward(&[0.0; 2], &[0.0; 6], &[6], 0, 2), "dy holds 2 numbers, expected 6");
    assert_panics(|| mean_variance_norm(&[0.0; 6], &[2, 3], &[0, 5], 0.0), "axis 5 of an array with 2 axes");
    assert_panics(
        || mean_variance_norm_backward(&[0.0; 2], &[0.0; 6], &[6], &[0], 0.0),
        "dy holds 2 numbers, expected 6",
    );
}

#[test]
fn of_epsilon() {
    for eps in [-1e-5, f64::NAN, f64::INFINITY] {
        let message = format!("eps is {eps}, expected a finite number from 0 up");
        assert_panics(|| layer_norm(&[0.0; 2], 2, Affine::NONE, eps), &message);
        assert_panics(|| scale_norm(&[0.0; 2], 2, 1.0, eps), &message);
        assert_panics(|| batch_norm_train(&[0.0; 6], SHAPE, Affine::NONE, eps), &message);
        assert_panics(|| group_norm(&[0.0; 6], SHAPE, 3, Affine::NONE, eps), &message);
        assert_panics(|| mean_variance_norm(&[0.0; 2], &[2], &[0], eps), &message);
        assert_panics(|| batch_norm_fold(&RunningStats::new(2), Affine::NONE, eps), &message);
        assert_panics(|| weight_norm_init(&[0.0; 2], &[0.0; 2], 2, 1.0, eps), &message);
    }
}
