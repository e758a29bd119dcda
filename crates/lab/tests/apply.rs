//! `layernorm apply`: what it writes, and that it writes nothing where it can't.

mod common;

use common::files::{Tensor, apply, file, numbers, text};
use common::{json, run, stderr, stdout};
use half::bf16;
use layernorm::reference::{self, Affine};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::path::Path;

const X: [f64; 12] = [1.0, 2.0, 4.0, 0.5, -3.0, 2.5, 100.0, 101.0, 102.5, -0.25, 0.0, 8.0];
const DY: [f64; 12] = [0.5, -1.0, 0.25, 1.0, 1.0, 2.0, -0.5, 0.0, 1.5, -2.0, 0.75, 0.125];
const WEIGHT: [f64; 6] = [1.0, -2.0, 0.5, 3.0, 0.25, 1.5];
const BIAS: [f64; 6] = [0.0, 1.0, -1.0, 0.5, 0.25, -0.5];

#[test]
fn outputs_have_the_right_names_shapes_types_and_numbers() {
    // Type of x, shape of x, axis, shape of the parameters (empty: none), with dy, and the accuracy of the type.
    type Case<'a> = (Dtype, &'a [usize], &'a str, Option<&'a [usize]>, bool, f64);
    let cases: [Case<'_>; 9] = [
        (Dtype::F32, &[2, 6], "-1", Some(&[6]), true, 1e-6),
        (Dtype::F64, &[2, 6], "1", Some(&[6]), true, 1e-14),
        (Dtype::F32, &[2, 2, 3], "1", Some(&[2, 3]), true, 1e-6),
        (Dtype::F32, &[2, 2, 3], "-2", Some(&[1]), true, 1e-6),
        (Dtype::F64, &[2, 2, 3], "-1", Some(&[]), true, 1e-14),
        (Dtype::F32, &[12], "0", None, true, 1e-6),
        (Dtype::F32, &[2, 6], "-1", Some(&[6]), false, 1e-6),
        (Dtype::F16, &[2, 6], "-1", Some(&[6]), true, 2e-3),
        (Dtype::BF16, &[2, 6], "-1", Some(&[6]), true, 2e-2),
    ];
    for operator in ["layer_norm", "rms_norm"] {
        for (dtype, shape, axis, parameters, dy, accuracy) in &cases {
            let what = format!("{operator} {dtype} {shape:?} axis {axis}");
            let len = |shape: &[usize]| shape.iter().product::<usize>();
            let mut tensors = vec![Tensor("x", *dtype, shape, &X)];
            if let Some(shape) = parameters {
                tensors.push(Tensor("weight", *dtype, shape, &WEIGHT[..len(shape)]));
                tensors.push(Tensor("bias", *dtype, shape, &BIAS[..len(shape)]));
            }
            if *dy {
                tensors.push(Tensor("dy", *dtype, shape, &DY));
            }
            let (output, written) = apply(operator, &file(&tensors), &["--axis", axis, "--eps", "1e-3"]);
            assert_eq!(output.status.code(), Some(0), "{what}: {}", stderr(&output));
            let written = written.expect("a file");
            let written = SafeTensors::deserialize(&written).unwrap();

            let axis = axis.parse::<isize>().unwrap();
            let axis = if axis < 0 { shape.len().strict_add_signed(axis) } else { axis.cast_unsigned() };
            let n = len(&shape[axis..]);
            let affine =
                parameters.map_or(Affine::NONE, |of| Affine::new(&WEIGHT[..len(of)], &BIAS[..len(of)]));
            let layer = operator == "layer_norm";
            let (forward, backward) = if layer {
                (
                    reference::layer_norm(&X, n, affine, 1e-3),
                    reference::layer_norm_backward(&DY, &X, n, affine, 1e-3),
                )
            } else {
                (
                    reference::rms_norm(&X, n, affine, 1e-3),
                    reference::rms_norm_backward(&DY, &X, n, affine, 1e-3),
                )
            };
            let wide = if *dtype == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
            let mut expected =
                vec![("y", *dtype, *shape, forward.y), ("rstd", wide, &shape[..axis], forward.rstd)];
            if layer {
                expected.push(("mean", wide, &shape[..axis], forward.mean));
            }
            if *dy {
                expected.push(("dx", *dtype, *shape, backward.dx));
                if let Some(shape) = parameters {
                    expected.push(("dweight", wide, shape, backward.dweight));
                    expected.push(("dbias", wide, shape, backward.dbias));
                }
            }
            assert_eq!(written.len(), expected.len(), "{what}: {:?}", written.names());
            for (name, dtype, shape, values) in expected {
                let tensor = written.tensor(name).unwrap();
                assert_eq!((tensor.dtype(), tensor.shape()), (dtype, shape), "{what}: {name}");
                for (got, value) in numbers(&tensor).into_iter().zip(values) {
                    let near = (got - value).abs() <= accuracy * value.abs().max(1.0);
                    assert!(near, "{what}: {name}: {got} for {value}");
                }
            }
        }
    }
}

/// Halves are computed in f32 and rounded to nearest even, once.
#[test]
fn halves_are_rounded_once() {
    let x: Vec<f64> = (0..1000).map(|i| f64::from(i * i % 977) / 64.0).collect();
    let (output, written) = apply("rms_norm", &file(&[Tensor("x", Dtype::BF16, &[10, 100], &x)]), &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let x: Vec<f32> = x.iter().map(|&x| bf16::from_f64(x).to_f32()).collect();
    let mut y = vec![0.0f32; 1000];
    layernorm::RmsNorm::<f32>::new(100).forward(&x, &mut y).unwrap();
    let expected: Vec<u8> = y.iter().flat_map(|&y| bf16::from_f32(y).to_le_bytes()).collect();
    let written = written.unwrap();
    assert_eq!(SafeTensors::deserialize(&written).unwrap().tensor("y").unwrap().data(), expected);
}

/// Parameters of half inputs may be kept in f32, as models do.
#[test]
fn half_inputs_take_single_parameters() {
    let tensors = [Tensor("x", Dtype::F16, &[2, 6], &X), Tensor("weight", Dtype::F32, &[6], &WEIGHT)];
    let (output, written) = apply("layer_norm", &file(&tensors), &[]);
    assert!(output.status.success() && written.is_some(), "{}", stderr(&output));
}

#[test]
fn neither_level_nor_threads_change_a_bit() {
    let x: Vec<f64> = (0..200_000).map(|i| f64::from(i % 1009) * 0.37).collect();
    let dy: Vec<f64> = (0..200_000).map(|i| f64::from(i % 499) * 0.01 - 2.0).collect();
    let shape = [200, 1000];
    let tensors = file(&[
        Tensor("x", Dtype::F32, &shape, &x),
        Tensor("dy", Dtype::F32, &shape, &dy),
        Tensor("weight", Dtype::F32, &[1000], &x[..1000]),
    ]);
    let (_, first) = apply("layer_norm", &tensors, &["--threads", "1", "--level", "portable"]);
    assert!(first.is_some());
    for threads in ["2", "3"] {
        assert!(apply("layer_norm", &tensors, &["--threads", threads]).1 == first, "{threads} threads");
    }
}

#[test]
fn nothing_at_all_can_be_normalised() {
    // Shape of x, of the parameters, of the statistics.
    let cases: [(&[usize], &[usize], &[usize]); 3] =
        [(&[0, 6], &[6], &[0]), (&[3, 0], &[0], &[3]), (&[0, 0], &[0], &[0])];
    for operator in ["layer_norm", "rms_norm"] {
        for (shape, parameters, statistics) in cases {
            let weight = &WEIGHT[..parameters[0]];
            let tensors = [
                Tensor("x", Dtype::F32, shape, &[]),
                Tensor("dy", Dtype::F32, shape, &[]),
                Tensor("weight", Dtype::F32, parameters, weight),
            ];
            let (output, written) = apply(operator, &file(&tensors), &[]);
            assert!(output.status.success(), "{operator} {shape:?}: {}", stderr(&output));
            let written = written.unwrap();
            let written = SafeTensors::deserialize(&written).unwrap();
            for (name, shape) in [("y", shape), ("dx", shape), ("dweight", parameters), ("rstd", statistics)]
            {
                let tensor = written.tensor(name).unwrap();
                assert_eq!(tensor.shape(), shape, "{operator}: {name}");
                assert!(numbers(&tensor).iter().all(|number| *number == 0.0), "{operator}: {name}");
            }
        }
    }
}

#[test]
fn what_it_did_is_told_in_words_and_in_json() {
    let input = file(&[Tensor("x", Dtype::F32, &[2, 6], &X), Tensor("gamma", Dtype::F32, &[6], &WEIGHT)]);
    let (output, _) = apply("layer_norm", &input, &[]);
    assert!(stdout(&output).contains("rstd") && stdout(&output).contains("[2, 6]"), "{}", stdout(&output));
    assert!(stderr(&output).contains("no use for: gamma"), "a misspelt name does not pass in silence");

    let (output, _) = apply("layer_norm", &input, &["--json"]);
    let told = json(&output);
    assert_eq!(told["operator"], "layer_norm");
    assert_eq!(told["ignored"], serde_json::json!(["gamma"]));
    assert_eq!(told["tensors"][0], serde_json::json!({"name": "y", "dtype": "F32", "shape": [2, 6]}));
}

/// A file with a header of our own making, and no data.
fn headed(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}

#[test]
fn bad_input_leaves_no_file_and_one_line() {
    let f32s = |name, shape, numbers| Tensor(name, Dtype::F32, shape, numbers);
    let x = || f32s("x", &[2, 6], &X);
    let sound = || file(&[x()]);
    let with = |tensor| file(&[x(), tensor]);
    let absent = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    // What is wrong, the file, more arguments, and a part of what is said.
    let cases: Vec<(&str, Vec<u8>, Vec<&str>, &str)> = vec![
        ("no tensors at all", b"".to_vec(), vec![], "not a sound safetensors file"),
        ("no header", b"hello, world".to_vec(), vec![], "not a sound safetensors file"),
        (
            "a header that ends early",
            headed("{\"x\":")[..10].to_vec(),
            vec![],
            "not a sound safetensors file",
        ),
        ("a header that is not JSON", headed("{\"x\":"), vec![], "not a sound safetensors file"),
        ("data cut off", sound()[..sound().len() - 1].to_vec(), vec![], "not a sound safetensors file"),
        ("data left over", [sound(), vec![0]].concat(), vec![], "not a sound safetensors file"),
        (
            "a shape that no memory holds",
            headed(r#"{"x":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}"#),
            vec!["--axis", "1"],
            "more numbers than memory can hold",
        ),
        ("no x", file(&[f32s("y", &[2, 6], &X)]), vec![], "needs a tensor named \"x\"; the file has y"),
        (
            "whole numbers",
            file(&[Tensor("x", Dtype::I32, &[2, 6], &X)]),
            vec![],
            "x is i32 where f16, bf16, f32 or f64",
        ),
        ("no axes", file(&[f32s("x", &[], &X[..1])]), vec![], "axis -1 is not one of the 0 axes"),
        ("an axis too far", sound(), vec!["--axis", "2"], "axis 2 is not one of the 2 axes of x: -2 to 1"),
        ("an axis too far back", sound(), vec!["--axis", "-3"], "axis -3 is not one of the 2 axes"),
        (
            "a short weight",
            with(f32s("weight", &[5], &X[..5])),
            vec![],
            "weight has shape [5] where x, of shape [2, 6]",
        ),
        (
            "a flat weight",
            file(&[f32s("x", &[1, 2, 6], &X), f32s("weight", &[12], &X)]),
            vec!["--axis", "1"],
            "[2, 6] or a single number",
        ),
        ("a long bias", with(f32s("bias", &[2, 6], &X)), vec![], "bias has shape [2, 6]"),
        ("a gradient of another shape", with(f32s("dy", &[6, 2], &X)), vec![], "dy has shape [6, 2]"),
        ("a single gradient", with(f32s("dy", &[1], &X[..1])), vec![], "dy has shape [1]"),
        (
            "a weight of another type",
            with(Tensor("weight", Dtype::F64, &[6], &WEIGHT)),
            vec![],
            "weight is f64 where f32",
        ),
        (
            "a half weight for single x",
            with(Tensor("weight", Dtype::F16, &[6], &WEIGHT)),
            vec![],
            "weight is f16 where f32",
        ),
        (
            "a gradient of another type",
            with(Tensor("dy", Dtype::BF16, &[2, 6], &DY)),
            vec![],
            "dy is bf16 where f32",
        ),
        ("a negative eps", sound(), vec!["--eps", "-1e-5"], "eps is -0.00001"),
        ("no number for eps", sound(), vec!["--eps", "NaN"], "eps is NaN"),
        ("an infinite eps", sound(), vec!["--eps", "inf"], "eps is inf"),
        ("an eps that f32 lacks", sound(), vec!["--eps", "1e39"], "eps is"),
        ("a level that is not here", sound(), vec!["--level", absent], "is not available here"),
    ];
    for operator in ["layer_norm", "rms_norm"] {
        for (what, input, more, says) in &cases {
            let (output, written) = apply(operator, input, more);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{what}: {said}");
            assert!(written.is_none(), "{what}: a file was written");
            assert!(said.contains(says), "{what}: {said:?} does not say {says:?}");
            assert_eq!(said.trim_end().lines().count(), 1, "{what}: {said}");
            assert!(output.stdout.is_empty(), "{what}: {}", stdout(&output));
        }
    }
}

#[test]
fn bad_use_is_refused() {
    let input = file(&[Tensor("x", Dtype::F32, &[2, 6], &X)]);
    for (operator, more, says) in [
        ("laser_norm", vec![], "layer_norm, rms_norm"),
        ("layer_norm", vec!["--threads", "0"], "0 is not in 1 to 1024"),
        ("layer_norm", vec!["--threads", "many"], "invalid"),
        ("layer_norm", vec!["--eps", "small"], "invalid"),
        ("layer_norm", vec!["--level", "mmx"], "portable, neon, avx2, avx512"),
        ("layer_norm", vec!["--frobnicate"], "unexpected argument"),
    ] {
        let (output, written) = apply(operator, &input, &more);
        assert_eq!(output.status.code(), Some(2), "{operator} {more:?}");
        assert!(stderr(&output).contains(says), "{operator} {more:?}: {}", stderr(&output));
        assert!(written.is_none());
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name);
    std::fs::write(here("in"), file(&[Tensor("x", Dtype::F32, &[2, 6], &X)])).unwrap();
    let attempt = |input: &str, output: &str| {
        let (input, output) = (here(input), here(output));
        run(&["apply", "layer_norm", "--input", text(&input), "--output", text(&output)])
    };
    let no_input = attempt("absent", "out");
    assert_eq!(no_input.status.code(), Some(2));
    assert!(stderr(&no_input).contains("absent"), "{}", stderr(&no_input));
    let no_folder = attempt("in", "nowhere/out");
    assert_eq!(no_folder.status.code(), Some(2));
    assert!(stderr(&no_folder).contains("nowhere"), "{}", stderr(&no_folder));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    // Onto the input itself: it has been read by then.
    let onto = attempt("in", "in");
    assert!(onto.status.success(), "{}", stderr(&onto));
    let written = std::fs::read(here("in")).unwrap();
    assert!(SafeTensors::deserialize(&written).unwrap().tensor("y").is_ok());
}

/// As other programs' files: readable by whoever may by the user's mask.
#[cfg(unix)]
#[test]
fn the_output_has_usual_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["in", "out"].map(|name| folder.path().join(name));
    std::fs::write(&from, file(&[Tensor("x", Dtype::F32, &[2, 6], &X)])).unwrap();
    run(&["apply", "layer_norm", "--input", text(&from), "--output", text(&to)]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&to), mode(&from));
}
