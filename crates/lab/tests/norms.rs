//! `layernorm apply` of norms with options: over any axes, of heads, in eight bits, and as known models do them.

mod common;

use common::applied::{Output, check, some};
use common::files::{Tensor, apply, file, numbers};
use common::stderr;
use layernorm::reference::{self, Affine, Nchw};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// By hand: weights that are stored as what they differ from 1 by, the mean square of the first number alone.
#[test]
fn rms_norm_as_models_do_it() {
    let inputs: [(&str, &[usize], &[f64]); 2] = [("x", &[1, 2], &[2.0, 6.0]), ("weight", &[2], &[0.5, 1.0])];
    let expected: [Output<'_>; 2] = [("y", &[1, 2], vec![1.5, 6.0]), ("rstd", &[1], vec![0.5])];
    check("rms_norm", &["--weight-offset", "1", "--partial", "1", "--eps", "0"], &inputs, &expected);

    let inputs: [(&str, &[usize], &[f64]); 1] = [("x", &[1, 2], &[3.0, -3.0])];
    let expected: [Output<'_>; 2] = [("y", &[1, 2], vec![0.75, -0.75]), ("rstd", &[1], vec![0.25])];
    check("rms_norm", &["--epsilon", "outside", "--eps", "1"], &inputs, &expected);
}

/// x_hat = 1.00388 is 1 in bf16 first, so 257 of it are 257, which rounds to 256; at once they are 258.
#[test]
fn llama_rounds_twice() {
    let x = [2.015_625, 2.0];
    let x_hat = x[0] / ((x[0] * x[0] + 4.0f64) / 2.0).sqrt();
    assert!(x_hat > 1.0038 && x_hat < 1.0 + 2f64.powi(-8), "{x_hat}");
    let inputs = [Tensor("x", Dtype::BF16, &[1, 2], &x), Tensor("weight", Dtype::F32, &[2], &[257.0; 2])];
    let first = |rounding: &str| {
        let more = ["--eps", "0", "--rounding", rounding];
        let (output, written) = apply("rms_norm", &file(&inputs), &more);
        assert!(output.status.success(), "{}", stderr(&output));
        numbers(&SafeTensors::deserialize(&written.unwrap()).unwrap().tensor("y").unwrap())[0]
    };
    assert_eq!(["once", "gemma", "t5", "llama"].map(first), [258.0, 258.0, 258.0, 256.0]);
}

/// By hand: two channels of two positions over the channels, and a line of which one number takes no part.
#[test]
fn any_axes_are_normalised_together() {
    let inputs: [(&str, &[usize], &[f64]); 2] =
        [("x", &[1, 2, 2], &[1.0, 20.0, 3.0, 10.0]), ("weight", &[2], &[1.0, 2.0])];
    let expected: [Output<'_>; 3] = [
        ("y", &[1, 2, 2], vec![-1.0, 1.0, 2.0, -2.0]),
        ("mean", &[1, 2], vec![2.0, 15.0]),
        ("rstd", &[1, 2], vec![1.0, 0.2]),
    ];
    check("layer_norm_axes", &["--eps", "0"], &inputs, &expected);

    let x = ("x", &[3, 2][..], &[1.0, 5.0, 3.0, 5.0, 10.0, 7.0][..]);
    let valid = ("valid", &[3, 2][..], &[1.0, 1.0, 1.0, 0.0, 0.0, 1.0][..]);
    let expected: [Output<'_>; 3] = [
        ("y", &[3, 2], vec![-1.0, -1.0, 1.0, -1.0, 8.0, 1.0]),
        ("mean", &[2], vec![2.0, 6.0]),
        ("rstd", &[2], vec![1.0, 1.0]),
    ];
    check("layer_norm_axes", &["--eps", "0", "--over", "-2"], &[x, valid], &expected);

    let (x, dy) = (some(0.0), some(5.0));
    let (weight, affine) = ([1.0, -2.0, 0.5, 3.0], ["--over", "1,-1", "--affine", "2", "--eps", "1e-3"]);
    let wide: Vec<f64> = (0..12).map(|i| weight[i % 4]).collect();
    let out = reference::rms_norm(&x, 12, Affine { weight: Some(&wide), bias: None }, 1e-3);
    let back = reference::rms_norm_backward(&dy, &x, 12, Affine { weight: Some(&wide), bias: None }, 1e-3);
    let dweight = (0..4).map(|i| (0..3).map(|k| back.dweight[4 * k + i]).sum()).collect();
    let inputs: [(&str, &[usize], &[f64]); 3] =
        [("x", &[2, 3, 4], &x), ("dy", &[2, 3, 4], &dy), ("weight", &[4], &weight)];
    let expected: [Output<'_>; 4] = [
        ("y", &[2, 3, 4], out.y),
        ("rstd", &[2], out.rstd),
        ("dx", &[2, 3, 4], back.dx),
        ("dweight", &[4], dweight),
    ];
    check("rms_norm_axes", &affine, &inputs, &expected);
}

/// Weights of all heads, and of each.
#[test]
fn heads_are_normalised() {
    let x = ("x", &[1, 2, 2][..], &[3.0, -3.0, 0.5, 0.5][..]);
    for (shape, weight, y) in [
        (&[2][..], &[1.0, 2.0][..], vec![1.0, -2.0, 1.0, 2.0]),
        (&[2, 2], &[1.0, 2.0, 3.0, 4.0], vec![1.0, -2.0, 3.0, 4.0]),
    ] {
        check("qk_norm", &["--eps", "0"], &[x, ("weight", shape, weight)], &[("y", &[1, 2, 2], y)]);
    }
    let x = ("x", &[1, 1, 2][..], &[3.0, 4.0][..]);
    check("qk_norm", &["--norm", "l2"], &[x], &[("y", &[1, 1, 2], vec![0.6, 0.8])]);
    check("qk_norm", &["--norm", "layer", "--eps", "0"], &[x], &[("y", &[1, 1, 2], vec![-1.0, 1.0])]);
}

#[test]
fn lines_get_length_one() {
    let x = [3.0, 0.0, -1.0, 0.0];
    let inputs: [(&str, &[usize], &[f64]); 2] = [("x", &[2, 2], &x), ("dy", &[2, 2], &[1.0, 0.0, 0.0, 0.0])];
    let dx = vec![0.0625, 0.0, 0.1875, 0.0];
    let expected: [Output<'_>; 2] = [("y", &[2, 2], vec![0.75, 0.0, -0.25, 0.0]), ("dx", &[2, 2], dx)];
    check("lp_norm", &["--axis", "0", "--p", "1"], &inputs, &expected);
    let inputs: [(&str, &[usize], &[f64]); 1] = [("x", &[1, 2], &[3.0, 4.0])];
    check("lp_norm", &[], &inputs, &[("y", &[1, 2], vec![0.6, 0.8])]);
}

#[test]
fn silu_follows_a_group_norm() {
    let (x, dy) = (some(0.0), some(5.0));
    let images = Nchw { batch: 2, channels: 4, positions: 3 };
    let (weight, bias) = ([1.0, -2.0, 0.5, 3.0], [0.0, 1.0, -1.0, 0.5]);
    let affine = Affine::new(&weight, &bias);
    let out = reference::group_norm(&x, images, 2, affine, 1e-5);
    let sigmoid = |z: &f64| 1.0 / (1.0 + (-z).exp());
    let slope = |(dy, z): (&f64, &f64)| dy * sigmoid(z) * (1.0 + z * (1.0 - sigmoid(z)));
    let dz: Vec<f64> = dy.iter().zip(&out.y).map(slope).collect();
    let back = reference::group_norm_backward(&dz, &x, images, 2, affine, 1e-5);
    let shape = &[2, 4, 3];
    let inputs: [(&str, &[usize], &[f64]); 4] =
        [("x", shape, &x), ("dy", shape, &dy), ("weight", &[4], &weight), ("bias", &[4], &bias)];
    let expected: [Output<'_>; 6] = [
        ("y", shape, out.y.iter().map(|z| z * sigmoid(z)).collect()),
        ("mean", &[2, 2], out.mean),
        ("rstd", &[2, 2], out.rstd),
        ("dx", shape, back.dx),
        ("dweight", &[4], back.dweight),
        ("dbias", &[4], back.dbias),
    ];
    check("group_norm_silu", &["--groups", "2"], &inputs, &expected);
}

/// The largest number of each row becomes the largest of its eight bits.
#[test]
fn outputs_are_stored_in_eight_bits() {
    for (operator, name, dtype, largest, y) in [
        ("rms_norm_int8", "y_int8", Dtype::I8, 127.0, [127.0, -64.0]),
        ("rms_norm_e4m3", "y_e4m3", Dtype::F8_E4M3, 448.0, [448.0, -224.0]),
        ("rms_norm_e5m2", "y_e5m2", Dtype::F8_E5M2, 57344.0, [57344.0, -28672.0]),
    ] {
        let input =
            [Tensor("x", Dtype::BF16, &[1, 2], &[7.0, -3.5]), Tensor("dy", Dtype::BF16, &[1, 2], &[1.0; 2])];
        let (output, written) = apply(operator, &file(&input), &["--eps", "0"]);
        assert!(output.status.success() && stderr(&output).contains("no use for: dy"), "{}", stderr(&output));
        let written = written.unwrap();
        let written = SafeTensors::deserialize(&written).unwrap();
        let (codes, scale) = (written.tensor(name).unwrap(), written.tensor("y_scale").unwrap());
        assert_eq!((codes.dtype(), codes.shape(), numbers(&codes)), (dtype, &[1, 2][..], y.to_vec()));
        // 7 / sqrt((49 + 12.25) / 2), rounded to bf16, is 1.265625.
        let expected = (1.265_625f32 / largest).into();
        assert_eq!((scale.dtype(), scale.shape(), numbers(&scale)), (Dtype::F32, &[1][..], vec![expected]));
        assert_eq!(written.len(), 2, "{:?}", written.names());
    }
}
