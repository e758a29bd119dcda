//! `layernorm apply` of an operator in several types, held against what is expected.

use super::files::{Tensor, apply, file, numbers};
use super::stderr;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

/// 24 numbers of both signs and of several sizes.
pub(crate) fn some(seed: f64) -> Vec<f64> {
    (0..24).map(|i| ((f64::from(i) * 7.0 + seed) % 11.0 - 4.0) * 0.25).collect()
}

/// What is expected: name, shape and numbers.
pub(crate) type Output<'a> = (&'a str, &'a [usize], Vec<f64>);

/// Applies an operator to tensors of f32, f64, and bf16, whose names are of inputs of x's type or of statistics
/// (`running_mean`, `running_var`), whole numbers (`index`) or truths (`valid`), and compares all that it writes.
#[track_caller]
pub(crate) fn check(
    operator: &str,
    more: &[&str],
    inputs: &[(&str, &[usize], &[f64])],
    expected: &[Output<'_>],
) {
    for (dtype, accuracy) in [(Dtype::F64, 1e-13), (Dtype::F32, 1e-5), (Dtype::BF16, 4e-2)] {
        let wide = if dtype == Dtype::F64 { Dtype::F64 } else { Dtype::F32 };
        let of_type = |name: &str| match name {
            "index" => Dtype::I32,
            "valid" => Dtype::BOOL,
            _ if name.starts_with("running") => wide,
            _ => dtype,
        };
        let tensors: Vec<Tensor<'_>> =
            inputs.iter().map(|(name, shape, numbers)| Tensor(name, of_type(name), shape, numbers)).collect();
        let (output, written) = apply(operator, &file(&tensors), more);
        assert_eq!(output.status.code(), Some(0), "{operator} {dtype}: {}", stderr(&output));
        assert!(!stderr(&output).contains("no use"), "{operator}: {}", stderr(&output));
        let written = written.expect("a file");
        let written = SafeTensors::deserialize(&written).unwrap();
        let mut names: Vec<&str> = written.names().into_iter().collect();
        let mut wanted: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
        names.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(names, wanted, "{operator} {dtype}");
        for (name, shape, values) in expected {
            let tensor = written.tensor(name).unwrap();
            let like_x = ["y", "w", "dx", "dv", "dresidual", "residual_out"].contains(name);
            let expected = if like_x { dtype } else { wide };
            assert_eq!((tensor.dtype(), tensor.shape()), (expected, *shape), "{operator} {dtype}: {name}");
            assert_eq!(numbers(&tensor).len(), values.len(), "{operator} {dtype}: {name}");
            let size = values.iter().fold(1.0, |max: f64, value| max.max(value.abs()));
            for (got, value) in numbers(&tensor).into_iter().zip(values) {
                let near = (got - value).abs() <= accuracy * size;
                assert!(near, "{operator} {dtype}: {name}: {got} for {value}");
            }
        }
    }
}
