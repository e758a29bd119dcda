//! `layernorm apply` of the operators beside layer and RMS norm: what they read and write, against the reference.

mod common;

use common::applied::{Output, check, some};
use common::files::{Tensor, apply, file, numbers};
use common::{stderr, stdout};
use layernorm::reference::{self, Affine, Nchw, RowNorm, RunningStats};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// Shape of x: samples, tokens, features.
const X: [usize; 3] = [2, 3, 4];
const ROWS: [usize; 2] = [2, 3];

#[test]
fn a_residual_is_added_and_normalised() {
    let (x, residual, dy, dout) = (some(0.0), some(3.0), some(5.0), some(8.0));
    let (weight, bias) = ([1.0, -2.0, 0.5, 3.0], [0.0, 1.0, -1.0, 0.5]);
    let affine = Affine::new(&weight, &bias);
    for (operator, norm) in
        [("add_layer_norm", RowNorm::layer(4, 1e-3)), ("add_rms_norm", RowNorm::rms(4, 1e-3))]
    {
        let out = reference::add_norm(&x, &residual, norm, affine);
        let gradients = reference::AddNormGradients { dy: &dy, dsum: &dout };
        let back = reference::add_norm_backward(gradients, &out.sum, norm, affine);
        let mut expected: Vec<Output<'_>> = vec![
            ("y", &X, out.y),
            ("residual_out", &X, out.sum),
            ("rstd", &ROWS, out.rstd),
            ("dx", &X, back.dx.clone()),
            ("dresidual", &X, back.dx),
            ("dweight", &[4], back.dweight),
            ("dbias", &[4], back.dbias),
        ];
        if operator == "add_layer_norm" {
            expected.push(("mean", &ROWS, out.mean));
        }
        let inputs: [(&str, &[usize], &[f64]); 6] = [
            ("x", &X, &x),
            ("residual", &X, &residual),
            ("weight", &[4], &weight),
            ("bias", &[4], &bias),
            ("dy", &X, &dy),
            ("dresidual_out", &X, &dout),
        ];
        check(operator, &["--eps", "1e-3"], &inputs, &expected);
    }
}

/// A residual stream in f32 beside branches in halves stays f32.
#[test]
fn a_residual_may_be_wider() {
    let (x, residual) = (some(0.0), some(3.0));
    let tensors = [Tensor("x", Dtype::BF16, &X, &x), Tensor("residual", Dtype::F32, &X, &residual)];
    let (output, written) = apply("add_rms_norm", &file(&tensors), &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let written = written.unwrap();
    let written = SafeTensors::deserialize(&written).unwrap();
    assert_eq!(written.tensor("y").unwrap().dtype(), Dtype::BF16);
    let out = written.tensor("residual_out").unwrap();
    assert_eq!(out.dtype(), Dtype::F32);
    let sums: Vec<f64> = x.iter().zip(&residual).map(|(x, residual)| x + residual).collect();
    assert_eq!(numbers(&out), sums);
}

/// By hand: dropout with probability 1/2 keeps one number of two, doubled.
#[test]
fn a_mask_and_a_bias_meet_the_branch() {
    let inputs: [(&str, &[usize], &[f64]); 4] = [
        ("x", &[1, 2], &[1.0, 2.0]),
        ("residual", &[1, 2], &[0.5, 4.0]),
        ("mask", &[1, 2], &[2.0, 0.0]),
        ("branch_bias", &[2], &[0.25, 1.0]),
    ];
    let expected: [Output<'_>; 4] = [
        ("residual_out", &[1, 2], vec![3.0, 4.0]),
        ("y", &[1, 2], vec![-1.0, 1.0]),
        ("mean", &[1], vec![3.5]),
        ("rstd", &[1], vec![2.0]),
    ];
    check("add_layer_norm", &["--eps", "0"], &inputs, &expected);
}

#[test]
fn each_sample_is_modulated() {
    let (x, dy) = (some(0.0), some(5.0));
    let (scale, shift) = (&some(1.0)[..8], &some(2.0)[..8]);
    let modulation = reference::Modulation { scale, shift };
    for (operator, norm) in
        [("ada_layer_norm", RowNorm::layer(4, 1e-6)), ("ada_rms_norm", RowNorm::rms(4, 1e-6))]
    {
        let out = reference::adaptive_norm(&x, norm, modulation);
        let back = reference::adaptive_norm_backward(&dy, &x, norm, modulation);
        let mut expected: Vec<Output<'_>> = vec![
            ("y", &X, out.y),
            ("rstd", &ROWS, out.rstd),
            ("dx", &X, back.dx),
            ("dscale", &[2, 4], back.dscale),
            ("dshift", &[2, 4], back.dshift),
        ];
        if operator == "ada_layer_norm" {
            expected.push(("mean", &ROWS, out.mean));
        }
        let inputs: [(&str, &[usize], &[f64]); 4] =
            [("x", &X, &x), ("scale", &[2, 4], scale), ("shift", &[2, 4], shift), ("dy", &X, &dy)];
        check(operator, &[], &inputs, &expected);
    }
}

#[test]
fn a_gate_lets_the_branch_in() {
    let (x, residual, dout) = (some(0.0), some(3.0), some(8.0));
    let gate = &some(1.0)[..8];
    let out = reference::gated_residual(&residual, gate, &x, 4);
    let back = reference::gated_residual_backward(&dout, gate, &x, 4);
    let inputs: [(&str, &[usize], &[f64]); 4] =
        [("x", &X, &x), ("residual", &X, &residual), ("gate", &[2, 4], gate), ("dresidual_out", &X, &dout)];
    let expected: [Output<'_>; 3] =
        [("residual_out", &X, out.clone()), ("dx", &X, back.dbranch), ("dgate", &[2, 4], back.dgate)];
    check("gated_residual", &[], &inputs, &expected);

    // And normalised at once.
    let (scale, shift) = (&some(6.0)[..8], &some(2.0)[..8]);
    let modulation = reference::Modulation { scale, shift };
    let inputs: [(&str, &[usize], &[f64]); 5] = [
        ("x", &X, &x),
        ("residual", &X, &residual),
        ("gate", &[2, 4], gate),
        ("scale", &[2, 4], scale),
        ("shift", &[2, 4], shift),
    ];
    let layer = reference::adaptive_norm(&out, RowNorm::layer(4, 1e-6), modulation);
    let rms = reference::adaptive_norm(&out, RowNorm::rms(4, 1e-6), modulation);
    let of = |norm: reference::Forward| -> Vec<Output<'_>> {
        vec![("residual_out", &X, out.clone()), ("y", &X, norm.y), ("rstd", &ROWS, norm.rstd)]
    };
    let mean = ("mean", &ROWS[..], layer.mean.clone());
    check("gated_ada_layer_norm", &[], &inputs, &[of(layer), vec![mean]].concat());
    check("gated_ada_rms_norm", &[], &inputs, &of(rms));
}

#[test]
fn each_row_picks_its_parameters() {
    let (x, dy) = (some(0.0), some(5.0));
    let (weight, bias) = (&some(1.0)[..12], &some(2.0)[..12]);
    let index = [2, 0, 2, 1, 0, 2];
    let as_numbers = index.map(|index| index as f64);
    let table = reference::Table { entries: 3, affine: Affine::new(weight, bias), index: &index };
    for (operator, norm) in
        [("conditional_layer_norm", RowNorm::layer(4, 1e-5)), ("conditional_rms_norm", RowNorm::rms(4, 1e-5))]
    {
        let out = reference::conditional_norm(&x, norm, table);
        let back = reference::conditional_norm_backward(&dy, &x, norm, table);
        let mut expected: Vec<Output<'_>> = vec![
            ("y", &X, out.y),
            ("rstd", &ROWS, out.rstd),
            ("dx", &X, back.dx),
            ("dweight", &[3, 4], back.dweight),
            ("dbias", &[3, 4], back.dbias),
        ];
        if operator == "conditional_layer_norm" {
            expected.push(("mean", &ROWS, out.mean));
        }
        let inputs: [(&str, &[usize], &[f64]); 5] = [
            ("x", &X, &x),
            ("weight", &[3, 4], weight),
            ("bias", &[3, 4], bias),
            ("index", &ROWS, &as_numbers),
            ("dy", &X, &dy),
        ];
        check(operator, &[], &inputs, &expected);
    }
}

#[test]
fn rows_get_a_length() {
    let inputs: [(&str, &[usize], &[f64]); 3] =
        [("x", &[1, 2], &[2.0, 0.0]), ("scale", &[1], &[4.0]), ("dy", &[1, 2], &[1.0, 5.0])];
    let expected: [Output<'_>; 4] = [
        ("y", &[1, 2], vec![4.0, 0.0]),
        ("rnorm", &[1], vec![0.5]),
        ("dx", &[1, 2], vec![0.0, 10.0]),
        ("dscale", &[1], vec![1.0]),
    ];
    check("scale_norm", &[], &inputs, &expected);

    let inputs: [(&str, &[usize], &[f64]); 2] = [("x", &[1, 2], &[3.0, 4.0]), ("dy", &[1, 2], &[0.0, 25.0])];
    let expected: [Output<'_>; 3] =
        [("y", &[1, 2], vec![0.6, 0.8]), ("rnorm", &[1], vec![0.2]), ("dx", &[1, 2], vec![-2.4, 1.8])];
    check("l2_norm", &[], &inputs, &expected);
}

/// Units along the first axis, and along the second.
#[test]
fn weights_get_a_length() {
    let inputs: [(&str, &[usize], &[f64]); 3] = [
        ("v", &[2, 2], &[3.0, 4.0, 0.0, 2.0]),
        ("g", &[2], &[10.0, 1.0]),
        ("dw", &[2, 2], &[1.0, 0.0, 0.0, 3.0]),
    ];
    let expected: [Output<'_>; 4] = [
        ("w", &[2, 2], vec![6.0, 8.0, 0.0, 1.0]),
        ("rnorm", &[2], vec![0.2, 0.5]),
        ("dv", &[2, 2], vec![1.28, -0.96, 0.0, 0.0]),
        ("dg", &[2], vec![0.6, 3.0]),
    ];
    check("weight_norm", &[], &inputs, &expected);
    let inputs: [(&str, &[usize], &[f64]); 2] =
        [("v", &[2, 2], &[3.0, 0.0, 4.0, 2.0]), ("g", &[2], &[10.0, 1.0])];
    let expected: [Output<'_>; 2] =
        [("w", &[2, 2], vec![6.0, 0.0, 8.0, 1.0]), ("rnorm", &[2], vec![0.2, 0.5])];
    check("weight_norm", &["--axis", "1"], &inputs, &expected);
}

#[test]
fn mean_and_variance_are_taken_away() {
    let (x, dy) = (some(0.0), some(5.0));
    let out = reference::mean_variance_norm(&x, &X, &[1, 2], 0.5);
    let back = reference::mean_variance_norm_backward(&dy, &x, &X, &[1, 2], 0.5);
    let inputs: [(&str, &[usize], &[f64]); 2] = [("x", &X, &x), ("dy", &X, &dy)];
    let expected: [Output<'_>; 2] = [("y", &X, out.y), ("dx", &X, back)];
    check("mean_variance_norm", &["--axis", "1", "--eps", "0.5"], &inputs, &expected);
}

/// Samples, channels, positions, and the same with channels last.
fn channels_last(of: &[f64]) -> Vec<f64> {
    let mut to = vec![0.0; 24];
    for (i, value) in of.iter().enumerate() {
        let (sample, channel, position) = (i / 12, i / 3 % 4, i % 3);
        to[(sample * 3 + position) * 4 + channel] = *value;
    }
    to
}

const IMAGES: Nchw = Nchw { batch: 2, channels: 4, positions: 3 };
const FIRST: [usize; 3] = [2, 4, 3];
const LAST: [usize; 3] = [2, 3, 4];

#[test]
fn groups_of_channels_are_normalised() {
    let (x, dy) = (some(0.0), some(5.0));
    let (weight, bias) = ([1.0, -2.0, 0.5, 3.0], [0.0, 1.0, -1.0, 0.5]);
    let affine = Affine::new(&weight, &bias);
    for (operator, groups, more) in [
        ("group_norm", 2, &["--groups", "2"][..]),
        ("instance_norm", 4, &[]),
        ("group_norm", 1, &["--groups", "1"]),
    ] {
        let out = reference::group_norm(&x, IMAGES, groups, affine, 1e-5);
        let back = reference::group_norm_backward(&dy, &x, IMAGES, groups, affine, 1e-5);
        let statistics = [2, groups];
        for (layout, shape) in [("nchw", &FIRST), ("nhwc", &LAST)] {
            let lay = |of: &[f64]| if layout == "nchw" { of.to_vec() } else { channels_last(of) };
            let (x, dy) = (lay(&x), lay(&dy));
            let inputs: [(&str, &[usize], &[f64]); 4] =
                [("x", shape, &x), ("dy", shape, &dy), ("weight", &[4], &weight), ("bias", &[4], &bias)];
            let expected: [Output<'_>; 6] = [
                ("y", shape, lay(&out.y)),
                ("mean", &statistics, out.mean.clone()),
                ("rstd", &statistics, out.rstd.clone()),
                ("dx", shape, lay(&back.dx)),
                ("dweight", &[4], back.dweight.clone()),
                ("dbias", &[4], back.dbias.clone()),
            ];
            check(operator, &[more, &["--layout", layout]].concat(), &inputs, &expected);
        }
    }
}

#[test]
fn batches_are_normalised_and_remembered() {
    let (x, dy) = (some(0.0), some(5.0));
    let (weight, bias) = ([1.0, -2.0, 0.5, 3.0], [0.0, 1.0, -1.0, 0.5]);
    let affine = Affine::new(&weight, &bias);
    let out = reference::batch_norm_train(&x, IMAGES, affine, 1e-3);
    let back = reference::batch_norm_train_backward(&dy, &x, IMAGES, affine, 1e-3);
    let (mean, var) = ([0.5, -1.0, 0.0, 2.0], [1.0, 0.25, 4.0, 2.0]);
    let mut running = RunningStats { mean: mean.to_vec(), var: var.to_vec(), updates: 0 };
    running.update(&out, reference::Convention::PyTorch { momentum: Some(0.25) });
    for (layout, shape) in [("nchw", &FIRST), ("nhwc", &LAST)] {
        let lay = |of: &[f64]| if layout == "nchw" { of.to_vec() } else { channels_last(of) };
        let (x, dy) = (lay(&x), lay(&dy));
        let inputs: [(&str, &[usize], &[f64]); 6] = [
            ("x", shape, &x),
            ("dy", shape, &dy),
            ("weight", &[4], &weight),
            ("bias", &[4], &bias),
            ("running_mean", &[4], &mean),
            ("running_var", &[4], &var),
        ];
        let expected: [Output<'_>; 8] = [
            ("y", shape, lay(&out.y)),
            ("mean", &[4], out.mean.clone()),
            ("rstd", &[4], out.rstd.clone()),
            ("running_mean", &[4], running.mean.clone()),
            ("running_var", &[4], running.var.clone()),
            ("dx", shape, lay(&back.dx)),
            ("dweight", &[4], back.dweight.clone()),
            ("dbias", &[4], back.dbias.clone()),
        ];
        let more = ["--eps", "1e-3", "--layout", layout, "--momentum", "0.25", "--mode", "train"];
        check("batch_norm", &more, &inputs, &expected);
    }

    // In evaluation the running statistics are those that come in, and none are told.
    let before = RunningStats { mean: mean.to_vec(), var: var.to_vec(), updates: 0 };
    let y = reference::batch_norm_eval(&x, IMAGES, &before, affine, 1e-3);
    let back = reference::batch_norm_eval_backward(&dy, &x, IMAGES, &before, affine, 1e-3);
    let inputs: [(&str, &[usize], &[f64]); 6] = [
        ("x", &FIRST, &x),
        ("dy", &FIRST, &dy),
        ("weight", &[4], &weight),
        ("bias", &[4], &bias),
        ("running_mean", &[4], &mean),
        ("running_var", &[4], &var),
    ];
    let expected: [Output<'_>; 4] = [
        ("y", &FIRST, y),
        ("dx", &FIRST, back.dx),
        ("dweight", &[4], back.dweight),
        ("dbias", &[4], back.dbias),
    ];
    check("batch_norm", &["--eps", "1e-3", "--mode", "eval"], &inputs, &expected);
}

#[test]
fn misuse_is_told_and_leaves_no_file() {
    let f32s = |name, shape, numbers| Tensor(name, Dtype::F32, shape, numbers);
    let numbers = some(0.0);
    let x = || f32s("x", &X, &numbers);
    let flat = || f32s("x", &[24], &numbers);
    let residual = || f32s("residual", &X, &numbers);
    let weight = || f32s("weight", &[3, 4], &numbers[..12]);
    type Case<'a> = (&'a str, Vec<Tensor<'a>>, Vec<&'a str>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (
            "add_layer_norm",
            vec![x()],
            vec![],
            "add_layer_norm needs a tensor named \"residual\"; the file has x",
        ),
        (
            "add_rms_norm",
            vec![x(), f32s("residual", &[24], &numbers)],
            vec![],
            "residual has shape [24] where x, of shape [2, 3, 4]",
        ),
        (
            "add_rms_norm",
            vec![x(), Tensor("residual", Dtype::F16, &X, &numbers)],
            vec![],
            "residual is f16 where f32",
        ),
        (
            "add_rms_norm",
            vec![x(), residual()],
            vec!["--groups", "2"],
            "has no use for --groups; it takes --eps",
        ),
        ("layer_norm", vec![x()], vec!["--mode", "eval"], "layer_norm has no use for --mode"),
        ("layer_norm", vec![x()], vec!["--momentum", "0.1"], "layer_norm has no use for --momentum"),
        ("rms_norm", vec![x()], vec!["--layout", "nhwc"], "rms_norm has no use for --layout"),
        ("batch_norm", vec![x()], vec!["--axis", "1"], "batch_norm has no use for --axis"),
        ("group_norm", vec![x()], vec!["--groups", "2"], "3 channels can't be divided into 2 groups"),
        ("group_norm", vec![x()], vec!["--groups", "0"], "3 channels can't be divided into 0 groups"),
        ("group_norm", vec![x()], vec![], "3 channels can't be divided into 32 groups"),
        ("group_norm", vec![flat()], vec![], "group_norm needs samples and channels, and x has 1 axes"),
        (
            "group_norm",
            vec![x(), f32s("weight", &[4], &numbers[..4])],
            vec!["--groups", "3"],
            "weight has shape [4] where x, of shape [2, 3, 4], needs [3] or a single number",
        ),
        ("group_norm", vec![f32s("x", &[2, 3, 0], &[])], vec!["--groups", "3"], "3 channels of 0 positions"),
        ("instance_norm", vec![x()], vec!["--groups", "3"], "instance_norm has no use for --groups"),
        ("weight_norm", vec![f32s("v", &X, &numbers)], vec![], "needs a tensor named \"g\""),
        ("weight_norm", vec![x()], vec![], "needs a tensor named \"v\"; the file has x"),
        (
            "weight_norm",
            vec![f32s("v", &X, &numbers), f32s("g", &[3], &numbers[..3])],
            vec![],
            "g has shape [3] where v, of shape [2, 3, 4], needs [2]",
        ),
        (
            "weight_norm",
            vec![f32s("v", &X, &numbers), f32s("g", &[2], &numbers[..2])],
            vec!["--eps", "0"],
            "weight_norm has no use for --eps; it takes --axis",
        ),
        (
            "ada_layer_norm",
            vec![flat(), f32s("scale", &[24], &numbers)],
            vec![],
            "needs samples and features",
        ),
        (
            "ada_layer_norm",
            vec![x(), f32s("scale", &[4], &numbers[..4])],
            vec![],
            "scale has shape [4] where x, of shape [2, 3, 4], needs [2, 4]",
        ),
        ("scale_norm", vec![x(), f32s("scale", &[4], &numbers[..4])], vec![], "needs a single number"),
        (
            "conditional_rms_norm",
            vec![x(), weight(), f32s("index", &ROWS, &numbers[..6])],
            vec![],
            "index is f32 where i32 or i64",
        ),
        (
            "conditional_rms_norm",
            vec![x(), weight(), Tensor("index", Dtype::I32, &ROWS, &[0.0, 1.0, 2.0, 0.0, -1.0, 0.0])],
            vec![],
            "index has the index -1",
        ),
        (
            "conditional_rms_norm",
            vec![x(), weight(), Tensor("index", Dtype::I32, &ROWS, &[0.0, 1.0, 2.0, 0.0, 3.0, 0.0])],
            vec![],
            "row 4 has index 3 of a table with 3 entries",
        ),
        ("batch_norm", vec![flat()], vec![], "batch_norm needs samples and channels, and x has 1 axes"),
        ("batch_norm", vec![x()], vec!["--mode", "eval"], "running mean"),
        (
            "batch_norm",
            vec![x(), Tensor("running_mean", Dtype::F16, &[3], &numbers[..3])],
            vec![],
            "running_mean is f16 where f32",
        ),
        (
            "batch_norm",
            vec![f32s("x", &[1, 24], &numbers)],
            vec![],
            "a channel has 1 values where training needs 2",
        ),
        (
            "batch_norm",
            vec![
                x(),
                f32s("running_mean", &[3], &numbers[..3]),
                Tensor("running_var", Dtype::F32, &[3], &[1.0, 2.0, 0.5]),
            ],
            vec!["--momentum", "7"],
            "momentum is 7",
        ),
    ];
    for (operator, tensors, more, says) in cases {
        let (output, written) = apply(operator, &file(&tensors), &more);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{operator} {more:?}: {said}");
        assert!(written.is_none(), "{operator} {more:?}: a file was written");
        assert!(said.contains(says), "{operator} {more:?}: {said:?} does not say {says:?}");
        assert!(output.stdout.is_empty(), "{operator} {more:?}: {}", stdout(&output));
    }
}
