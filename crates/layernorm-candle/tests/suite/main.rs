//! One binary, because each would link candle again. A file for each promise.

mod against_candle;
mod batch_norm;
mod bits;
mod checkpoints;
mod copies;
mod errors;
mod examples;
mod gradients;
mod migrating;
mod models;
mod second_order;
mod types;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};

const EPS: f64 = 1e-5;
const CPU: Device = Device::Cpu;

/// The two norms with kernels, as a value to loop over.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Norm {
    Layer,
    Rms,
}

const NORMS: [Norm; 2] = [Norm::Layer, Norm::Rms];

impl Norm {
    /// Of RMS norm, the function has no bias; the module may (see `bits.rs`).
    fn of(self, x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor> {
        match self {
            Self::Layer => layernorm_candle::ops::layer_norm(x, weight, bias, EPS),
            Self::Rms => {
                let y = layernorm_candle::ops::rms_norm(x, weight, EPS)?;
                bias.map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))
            }
        }
    }
}

/// Numbers in -1..1 that depend on `seed` alone (splitmix64).
fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..len).map(|_| (next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0).collect()
}

/// A tensor of such numbers.
fn tensor(shape: &[usize], seed: u64, dtype: DType) -> Result<Tensor> {
    Tensor::from_vec(numbers(shape.iter().product(), seed), shape, &CPU)?.to_dtype(dtype)
}

/// A variable of such numbers.
fn variable(shape: &[usize], seed: u64, dtype: DType) -> Result<Var> {
    Var::from_tensor(&tensor(shape, seed, dtype)?)
}

/// The numbers of a tensor, in order.
fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// The bits of a tensor (of numbers that f64 holds, so all types alike), every NaN the same.
fn bits(tensor: &Tensor) -> Result<Vec<u64>> {
    let canonical = |v: f64| if v.is_nan() { f64::NAN.to_bits() } else { v.to_bits() };
    Ok(values(tensor)?.into_iter().map(canonical).collect())
}

/// Both have the same bits.
#[track_caller]
fn assert_same(got: &Tensor, expected: &Tensor, what: &str) -> Result<()> {
    let (got, expected) = (bits(got)?, bits(expected)?);
    assert_eq!(got.len(), expected.len(), "{what}");
    let differs = got.iter().zip(&expected).position(|(got, expected)| got != expected);
    if let Some(index) = differs {
        let [got, expected] = [got, expected].map(|bits| f64::from_bits(bits[index]));
        panic!("{what}: {got:e} where {expected:e} is expected, at {index}");
    }
    Ok(())
}

/// The gradient of a variable, which must have one.
fn gradient<'a>(gradients: &'a GradStore, of: &Tensor) -> &'a Tensor {
    gradients.get(of).expect("a gradient")
}

/// Both are the same within `tolerance` of the larger of 1 and what is expected.
#[track_caller]
fn assert_close(got: &Tensor, expected: &Tensor, tolerance: f64, what: &str) -> Result<()> {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    for (index, (got, expected)) in values(got)?.into_iter().zip(values(expected)?).enumerate() {
        assert!(
            (got - expected).abs() <= tolerance * (1.0 + expected.abs()),
            "{what}: {got} where {expected} is expected, at {index}"
        );
    }
    Ok(())
}
