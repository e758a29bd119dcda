//! f16 and bf16 as elements.
#![allow(private_interfaces, private_bounds, reason = "as in `private`, whose traits these are")]

use super::private::{Beside, Stored, to_f32};
use super::*;
use crate::ParamGradients;
use half::{bf16, f16};

impl Element for f16 {
    type Acc = f32;
}
impl Element for bf16 {
    type Acc = f32;
}

impl Companion<f16> for f32 {}
impl Companion<bf16> for f32 {}

macro_rules! beside {
    ($half:ty) => {
        impl Beside<$half> for f32 {
            const WIDE: bool = true;
            fn values(values: &[Self]) -> Values<'_, $half> {
                Values::Wide(values)
            }
            fn mixed(rows: Rows<'_, Self>) -> Mixed<'_, $half> {
                Mixed::Wide(rows.source())
            }
            fn mixed_in_place(rows: RowsMut<'_, Self>) -> (Mixed<'_, $half>, MixedMut<'_, $half>) {
                let (from, to) = rows.in_place();
                (Mixed::Wide(from), MixedMut::Wide(to))
            }
        }
    };
}
beside!(f16);
beside!(bf16);

stored!(f16, true, Self::to_f32, |x| Self::from_f32(odd(x)));
stored!(bf16, true, Self::to_f32, |x| Self::from_f32(odd(x)));

/// To f32 such that rounding that to a half gives what rounding `value` to the half would: towards zero, with
/// the last bit set where anything was lost (rounding to odd).
fn odd(value: f64) -> f32 {
    let nearest = to_f32(value);
    if f64::from(nearest) == value || value.is_nan() {
        return nearest;
    }
    let away = f64::from(nearest).abs() > value.abs();
    f32::from_bits((nearest.to_bits() - u32::from(away)) | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At the middle of two halves, and a step of f64 beside it, which f32 does not see.
    fn rounds_once<E: Stored + Copy + Into<f64>>(
        of_bits: fn(u16) -> E,
        to_bits: fn(E) -> u16,
        infinity: u16,
    ) {
        for bits in (0..infinity - 1).step_by(if cfg!(miri) { 997 } else { 1 }) {
            let [below, above]: [f64; 2] = [bits, bits + 1].map(|bits| of_bits(bits).into());
            let middle = (below + above) / 2.0;
            let of = |value: f64| to_bits(E::from_f64(value));
            assert_eq!(of(middle.next_down()), bits, "below {middle:e}");
            assert_eq!(of(middle), bits + bits % 2, "{middle:e}");
            assert_eq!(of(middle.next_up()), bits + 1, "above {middle:e}");
            assert_eq!(of(-middle.next_up()), (bits + 1) | 0x8000, "below {:e}", -middle);
        }
        assert_eq!(to_bits(E::from_f64(1e300)), infinity);
        assert_eq!(to_bits(E::from_f64(1e-300)), 0);
        assert!(Into::<f64>::into(E::from_f64(f64::NAN)).is_nan(), "a NaN stays one");
    }

    #[test]
    fn f64_is_rounded_once_to_halves() {
        rounds_once(f16::from_bits, f16::to_bits, f16::INFINITY.to_bits());
        rounds_once(bf16::from_bits, bf16::to_bits, bf16::INFINITY.to_bits());
    }
}
