//! The types that the kernels read, as both crates know them.

use crate::error::Error;
use candle_core::{DType, Result, Tensor, WithDType};
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};
use layernorm::{Companion, Element};

/// A type that x may have. It is computed in `Acc`: itself, or f32 if it is a half.
pub(crate) trait Scalar: Element<Acc: WithDType + Companion<Self>> + WithDType {
    /// So many zeros, of memory that the system hands out zeroed.
    fn zeros(len: usize) -> Vec<Self>;
}

impl Scalar for f32 {
    fn zeros(len: usize) -> Vec<Self> {
        vec![0.0; len]
    }
}

impl Scalar for f64 {
    fn zeros(len: usize) -> Vec<Self> {
        vec![0.0; len]
    }
}

impl Scalar for f16 {
    fn zeros(len: usize) -> Vec<Self> {
        vec![0u16; len].reinterpret_into() // of halves, `vec!` would write each
    }
}

impl Scalar for bf16 {
    fn zeros(len: usize) -> Vec<Self> {
        vec![0u16; len].reinterpret_into()
    }
}

/// The type that x is computed in.
pub(crate) fn compute_type(x: &Tensor) -> Result<DType> {
    match x.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => Ok(DType::F32),
        DType::F64 => Ok(DType::F64),
        got => Err(Error::Type { name: "x", got }.into()),
    }
}

/// `$call` of the numbers of x, of whichever type they are.
macro_rules! with_numbers {
    ($x:expr, $numbers:ident => $call:expr) => {
        match $x {
            CpuStorage::F32($numbers) => $call,
            CpuStorage::F64($numbers) => $call,
            CpuStorage::F16($numbers) => $call,
            CpuStorage::BF16($numbers) => $call,
            other => Err(Error::Type { name: "x", got: other.dtype() }.into()),
        }
    };
}
pub(crate) use with_numbers;
