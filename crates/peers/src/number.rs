//! The types of numbers, as all libraries know them.

use candle_core::WithDType;
use clap::ValueEnum;
use half::{bf16, f16};
use serde::Serialize;

use crate::copy::Word;

/// The type of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Single precision
    F32,
    /// Double precision
    F64,
    /// The upper half of an f32
    Bf16,
    /// Half precision
    F16,
}

impl Dtype {
    /// Its name in tables and in `peers.py`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// How far, in multiples of a tensor's largest number, two libraries may be apart: wide enough for any order of
    /// additions and for intermediate results of this type, far too narrow for a wrong formula.
    pub fn tolerance(self) -> f64 {
        match self {
            Self::F32 => 1e-4,
            Self::F64 => 1e-11,
            Self::Bf16 => 3e-2,
            Self::F16 => 4e-3,
        }
    }
}

/// A number that every library takes.
pub trait Number:
    bytemuck::Pod + Word + WithDType + burn::tensor::Element + layernorm::Element<Acc: Into<f64>>
{
    /// Its name.
    const NAME: Dtype;
    /// Rounded to nearest.
    fn narrow(value: f64) -> Self;
    /// Exactly.
    fn widen(self) -> f64;
    /// Exactly, in the type that our kernels' sums have.
    fn acc(self) -> Self::Acc;
}

macro_rules! number {
    ($t:ty, $name:ident, $narrow:expr) => {
        impl Number for $t {
            const NAME: Dtype = Dtype::$name;
            #[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
            fn narrow(value: f64) -> Self {
                let narrow: fn(f64) -> Self = $narrow;
                narrow(value)
            }
            fn widen(self) -> f64 {
                self.into()
            }
            fn acc(self) -> Self::Acc {
                self.into()
            }
        }
    };
}

number!(f32, F32, |value| value as f32);
number!(f64, F64, |value| value);
number!(bf16, Bf16, bf16::from_f64);
number!(f16, F16, f16::from_f64);
