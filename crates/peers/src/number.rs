//! The types of numbers, as all libraries know them.

use candle_core::WithDType;
use clap::ValueEnum;
use half::{bf16, f16};
use serde::Serialize;

use crate::copy::Word;
use crate::error::Error;
use crate::peers::{Job, ours};
use crate::work::Work;

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
pub trait Number: bytemuck::Pod + Word + WithDType + burn::tensor::Element {
    /// Its name.
    const NAME: Dtype;
    /// Rounded to nearest.
    fn narrow(value: f64) -> Self;
    /// Exactly.
    fn widen(self) -> f64;
    /// Our kernels, where there are some for this type.
    ///
    /// # Errors
    /// [`Error::Lacks`].
    fn ours(job: &Job<'_, Self>) -> Result<Box<dyn Work<Self> + Send>, Error>;
}

macro_rules! number {
    ($t:ty, $name:ident, $narrow:expr, $ours:expr) => {
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
            fn ours(job: &Job<'_, Self>) -> Result<Box<dyn Work<Self> + Send>, Error> {
                let ours: fn(&Job<'_, Self>) -> Result<Box<dyn Work<Self> + Send>, Error> = $ours;
                ours(job)
            }
        }
    };
}

number!(f32, F32, |value| value as f32, ours::prepare);
number!(f64, F64, |value| value, ours::prepare);
// The day that our kernels take these types, `ours::prepare` here too.
number!(bf16, Bf16, bf16::from_f64, |_| Err(Error::lacks("no bf16 yet")));
number!(f16, F16, f16::from_f64, |_| Err(Error::lacks("no f16 yet")));
