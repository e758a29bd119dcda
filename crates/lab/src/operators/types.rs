//! The types that an operator's tensors can have.

use super::{Kernels, Operator};
use half::{bf16, f16};
use layernorm::{Companion, E4M3, E5M2, Element, Quantum, Real};
use safetensors::Dtype;
use std::fmt::Debug;
use std::ops::Add;

/// Anything that a tensor holds, as a number.
pub trait Number: Copy + Default + Debug + PartialEq + Send + Sync + 'static {
    /// Half the distance from 1 to the next number.
    const UNIT: f64;
    /// The smallest positive number.
    const TINY: f64;
    /// The largest number.
    const LARGEST: f64;
    /// Rounded to nearest even.
    fn narrow(value: f64) -> Self;
    /// Exactly.
    fn widen(self) -> f64;
    /// Half the distance between the numbers around `value`.
    fn half_ulp(value: f64) -> f64 {
        if value == 0.0 {
            return Self::TINY / 2.0;
        }
        (Self::UNIT * libm::exp2(f64::from(libm::ilogb(value.min(Self::LARGEST))))).max(Self::TINY / 2.0)
    }
    /// The type in files.
    const DTYPE: Dtype;
    /// Its bytes in files.
    fn write(self, bytes: &mut Vec<u8>);
}

/// A type of elements.
pub trait Float: Number + Element<Acc: Number + Real + Add<Output = <Self as Element>::Acc>> {}

macro_rules! number {
    ($t:ident, $dtype:ident, $narrow:expr, $widen:expr) => {
        impl Number for $t {
            #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "in one of the two types")]
            const UNIT: f64 = $widen($t::EPSILON) / 2.0;
            const TINY: f64 = $widen($t::from_bits(1));
            const LARGEST: f64 = $widen($t::MAX);
            fn narrow(value: f64) -> Self {
                $narrow(value)
            }
            fn widen(self) -> f64 {
                $widen(self)
            }
            const DTYPE: Dtype = Dtype::$dtype;
            fn write(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }
        }
        impl Float for $t {}
    };
}

#[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
const fn single(value: f64) -> f32 {
    value as f32
}
#[allow(clippy::cast_lossless, reason = "`From` is not const")]
const fn double(value: f32) -> f64 {
    value as f64
}
/// As an f32 from which rounding to a half gives what rounding `value` to it would: towards zero, and where anything is
/// lost, the last bit is set. (`from_f64` of both halves drops the last 32 bits before it rounds.)
fn odd(value: f64) -> f32 {
    let nearest = single(value);
    if f64::from(nearest) == value || value.is_nan() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}
const fn same(value: f64) -> f64 {
    value
}

number!(f32, F32, single, double);
number!(f64, F64, same, same);
number!(f16, F16, |value| f16::from_f32(odd(value)), f16::to_f64_const);
number!(bf16, BF16, |value| bf16::from_f32(odd(value)), bf16::to_f64_const);

/// An index, for the operators that pick parameters by one.
impl Number for usize {
    const UNIT: f64 = 0.0;
    const TINY: f64 = 1.0;
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
    fn narrow(value: f64) -> Self {
        value as Self
    }
    fn widen(self) -> f64 {
        self as f64
    }
    const DTYPE: Dtype = Dtype::U64;
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.extend((self as u64).to_le_bytes());
    }
}

impl Number for bool {
    const UNIT: f64 = 0.0;
    const TINY: f64 = 1.0;
    const LARGEST: f64 = 1.0;
    fn narrow(value: f64) -> Self {
        value != 0.0
    }
    fn widen(self) -> f64 {
        f64::from(u8::from(self))
    }
    const DTYPE: Dtype = Dtype::BOOL;
    fn write(self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(self));
    }
}

/// Numbers of eight bits: what is beyond the largest saturates.
macro_rules! eight_bits {
    ($t:ident, $dtype:ident, $unit:expr, $tiny:expr, |$code:ident| $byte:expr $(, $half_ulp:item)?) => {
        impl Number for $t {
            const UNIT: f64 = $unit;
            const TINY: f64 = $tiny;
            const LARGEST: f64 = f64::INFINITY;
            fn narrow(value: f64) -> Self {
                Self::nearest(single(value))
            }
            fn widen(self) -> f64 {
                self.to_f32().into()
            }
            $($half_ulp)?
            const DTYPE: Dtype = Dtype::$dtype;
            fn write(self, bytes: &mut Vec<u8>) {
                let $code = self;
                bytes.push($byte);
            }
        }
    };
}

eight_bits!(E4M3, F8_E4M3, 1.0 / 16.0, 1.0 / 512.0, |code| code.0);
eight_bits!(E5M2, F8_E5M2, 1.0 / 8.0, 1.0 / 65536.0, |code| code.0);
// Whole numbers lie as far apart everywhere.
eight_bits!(
    i8,
    I8,
    0.5,
    1.0,
    |code| code.cast_unsigned(),
    fn half_ulp(_: f64) -> f64 {
        0.5
    }
);

/// A combination of types that the kernels know: of elements, of parameters, and of a residual.
pub trait Types: Copy + Debug + Send + Sync + 'static {
    /// The type of x.
    type E: Float;
    /// The type of the parameters: that of x, or f32 beside halves.
    type P: Number + Companion<Self::E>;
    /// The type of a residual: as the parameters.
    type R: Number + Companion<Self::E>;
    /// The same elements, parameters in the type of sums.
    type Widened: Types<E = Self::E>;
    /// The name in reports.
    const NAME: &'static str;
    /// The operator in these types.
    fn kernels(operator: &Operator) -> &Kernels<Self>;
}

/// The type of sums and statistics.
pub type Acc<T> = <<T as Types>::E as Element>::Acc;

macro_rules! types {
    ($($(#[$doc:meta])* $t:ty, $field:ident: $e:ty, $p:ty, $r:ty, $widened:ty, $name:literal;)*) => {
        $(
            impl Types for $t {
                type E = $e;
                type P = $p;
                type R = $r;
                type Widened = $widened;
                const NAME: &'static str = $name;
                fn kernels(operator: &Operator) -> &Kernels<Self> {
                    &operator.kernels.$field
                }
            }
        )*

        /// The passes of an operator in every combination of types.
        #[derive(Debug, Clone, Copy)]
        pub struct Table {
            $($(#[$doc])* pub $field: Kernels<$t>,)*
        }

        /// The passes of an operator, which are generic, in every combination of types.
        macro_rules! table {
            ($forward:expr, $backward:expr) => {
                $crate::operators::Table {
                    $($field: $crate::operators::Kernels { forward: $forward, backward: $backward },)*
                }
            };
        }
        pub(super) use table;
    };
}

/// Halves whose parameters are f32.
#[derive(Debug, Clone, Copy)]
pub struct Wide<E>(E);

/// Halves whose parameters and residual are f32.
#[derive(Debug, Clone, Copy)]
pub struct WideResidual<E>(E);

types! {
    /// Single precision.
    f32, f32: f32, f32, f32, f32, "f32";
    /// Double precision.
    f64, f64: f64, f64, f64, f64, "f64";
    /// IEEE halves.
    f16, f16: f16, f16, f16, Wide<f16>, "f16";
    /// Halves with the exponents of f32.
    bf16, bf16: bf16, bf16, bf16, Wide<bf16>, "bf16";
    /// IEEE halves, parameters in f32.
    Wide<f16>, f16_wide: f16, f32, f16, Self, "f16, f32";
    /// Halves with the exponents of f32, parameters in f32.
    Wide<bf16>, bf16_wide: bf16, f32, bf16, Self, "bf16, f32";
    /// IEEE halves, parameters and residual in f32.
    WideResidual<f16>, f16_wide_residual: f16, f32, f32, Self, "f16, f32 residual";
    /// Halves with the exponents of f32, parameters and residual in f32.
    WideResidual<bf16>, bf16_wide_residual: bf16, f32, f32, Self, "bf16, f32 residual";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_to_nearest_even() {
        // Half way, and a little more than half a way in bits that an f32 has, or only an f64.
        let half_way = 1.0 + 2f64.powi(-8);
        for (value, up) in [(half_way, 0), (half_way + 2f64.powi(-23), 1), (half_way + 2f64.powi(-52), 1)] {
            assert_eq!(bf16::narrow(value).to_bits(), bf16::ONE.to_bits() + up, "{value}");
        }
        let half_way = 1.0 + 2f64.powi(-11);
        for (value, up) in [(half_way, 0), (half_way + 2f64.powi(-23), 1), (half_way - 2f64.powi(-52), 0)] {
            assert_eq!(f16::narrow(value).to_bits(), f16::ONE.to_bits() + up, "{value}");
        }
        assert_eq!(f16::narrow(1e9), f16::INFINITY);
        assert_eq!(bf16::narrow(-1e300), bf16::NEG_INFINITY);
    }
}
