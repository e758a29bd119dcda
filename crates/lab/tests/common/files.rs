//! Tensors in files, and `layernorm apply` on them.

use super::run;
use half::{bf16, f16};
use layernorm::{E4M3, E5M2, Quantum};
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;

/// A tensor: name, type, shape and numbers.
pub(crate) struct Tensor<'a>(
    pub(crate) &'a str,
    pub(crate) Dtype,
    pub(crate) &'a [usize],
    pub(crate) &'a [f64],
);

#[allow(clippy::cast_possible_truncation, reason = "rounding to the type is what is wanted")]
fn bytes(dtype: Dtype, numbers: &[f64]) -> Vec<u8> {
    let one = |&number: &f64| match dtype {
        Dtype::F64 => number.to_le_bytes().to_vec(),
        Dtype::F32 => (number as f32).to_le_bytes().to_vec(),
        Dtype::F16 => f16::from_f64(number).to_le_bytes().to_vec(),
        Dtype::BF16 => bf16::from_f64(number).to_le_bytes().to_vec(),
        Dtype::I32 => (number as i32).to_le_bytes().to_vec(),
        Dtype::BOOL => vec![u8::from(number != 0.0)],
        other => panic!("{other} in a test"),
    };
    numbers.iter().flat_map(one).collect()
}

/// A tensor's numbers.
pub(crate) fn numbers(tensor: &TensorView<'_>) -> Vec<f64> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).into()).collect(),
        Dtype::BF16 => data.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).into()).collect(),
        Dtype::I8 => data.iter().map(|b| b.cast_signed().into()).collect(),
        Dtype::F8_E4M3 => data.iter().map(|b| E4M3(*b).to_f32().into()).collect(),
        Dtype::F8_E5M2 => data.iter().map(|b| E5M2(*b).to_f32().into()).collect(),
        other => panic!("{other} in an output"),
    }
}

/// A file of these tensors.
pub(crate) fn file(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let bytes: Vec<_> = tensors.iter().map(|Tensor(_, dtype, _, numbers)| bytes(*dtype, numbers)).collect();
    let views = tensors.iter().zip(&bytes).map(|(Tensor(name, dtype, shape, _), bytes)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), bytes).expect("a sound tensor"))
    });
    safetensors::serialize(views, None).expect("a sound file")
}

/// Applies an operator to a file in a folder of its own; gives the program's output and the file, if it is there.
pub(crate) fn apply(operator: &str, input: &[u8], more: &[&str]) -> (std::process::Output, Option<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["in.safetensors", "out.safetensors"].map(|name| folder.path().join(name));
    std::fs::write(&from, input).unwrap();
    let paths = ["--input", text(&from), "--output", text(&to)];
    let output = run(&[&["apply", operator], &paths[..], more].concat());
    let written = std::fs::read(&to).ok();
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 1 + usize::from(written.is_some()), "nothing else is left behind: {left:?}");
    (output, written)
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
