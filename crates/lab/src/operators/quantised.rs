//! Layer and RMS norm stored in eight bits, each row with its scale.

use super::by_row::{self, Forms, input, output};
use super::tensors::Tensors;
use super::types::{Number, table};
use super::{Able, Expected, Extent, Flag, Given, How, Operator, Problem, Signature, Slot, Structure, Types};
use layernorm::{E4M3, E5M2, Error, Quantum, Scale, layer_norm_quantized, reference, rms_norm_quantized};
use twofloat::TwoFloat;

/// A type of eight bits, and the tensor that has it.
trait Eight: Quantum {
    const SLOT: Slot;
    fn place<T: Types>(tensors: &mut Tensors<T>) -> &mut Option<Vec<Self>>;
}

macro_rules! eight {
    ($($t:ident, $slot:ident, $field:ident;)*) => {$(
        impl Eight for $t {
            const SLOT: Slot = Slot::$slot;
            fn place<T: Types>(tensors: &mut Tensors<T>) -> &mut Option<Vec<Self>> {
                &mut tensors.$field
            }
        }
    )*};
}
eight!(i8, YInt8, y_int8; E4M3, YE4m3, y_e4m3; E5M2, YE5m2, y_e5m2;);

/// An entry for each norm and type.
macro_rules! entries {
    ($($entry:ident: $name:literal, $norm:literal, $centred:literal, $t:ident, $slot:ident;)*) => {$(
        #[doc = concat!($norm, " as ", $name, " stores it.")]
        pub const $entry: Operator = Operator {
            name: $name,
            formula: concat!("y / y_scale of ", $norm, ", rounded to eight bits; y_scale = max|y| / the largest number"),
            structure: Structure::Rows,
            flags: &[Flag::Eps, Flag::Axis],
            eps: 1e-5,
            forward: Signature {
                needs: &[Slot::X],
                takes: &[Slot::Weight, Slot::Bias],
                writes: &[Slot::$slot, Slot::YScale],
                saves: &[],
                updates: &[],
            },
            backward: Signature::NONE,
            extent: |slot| if slot == Slot::YScale { Extent::Rows } else { by_row::extent(slot) },
            able: Able { strided: true, ..Able::NONE },
            untimed: &[],
            kernels: table!(forward::<_, $t, $centred>, |_, _, _| Ok(())),
            oracle: expected::<$t, $centred>,
        };
    )*};
}
entries! {
    LAYER_INT8: "layer_norm_int8", "layer_norm", true, i8, YInt8;
    LAYER_E4M3: "layer_norm_e4m3", "layer_norm", true, E4M3, YE4m3;
    LAYER_E5M2: "layer_norm_e5m2", "layer_norm", true, E5M2, YE5m2;
    RMS_INT8: "rms_norm_int8", "rms_norm", false, i8, YInt8;
    RMS_E4M3: "rms_norm_e4m3", "rms_norm", false, E4M3, YE4m3;
    RMS_E5M2: "rms_norm_e5m2", "rms_norm", false, E5M2, YE5m2;
}

/// What is stored, and by what it is scaled, from what the norm must give: y errs by its own bound, is rounded to x's type
/// and (of f64) to f32, and the scale, a row's largest y, errs as y does. Half a step of the eight bits comes on top.
/// Nothing is known where a row's largest is within its own error.
fn expected<Q: Eight, const CENTRED: bool>(problem: &Problem, given: &Given) -> Vec<Expected> {
    let forms = if CENTRED {
        Forms { forward: reference::layer_norm, backward: reference::layer_norm_backward }
    } else {
        Forms { forward: reference::rms_norm, backward: reference::rms_norm_backward }
    };
    let all = by_row::expected(problem, given, &forms, CENTRED);
    let Some(y) = all.into_iter().find(|of| of.slot == Slot::Y) else { return Vec::new() };
    let half_ulp = given.element_half_ulp.or(given.double.then_some(f32::half_ulp as fn(f64) -> f64));
    let (largest, single) = (f64::from(Q::LARGEST), f32::UNIT);
    let errs = |i: usize| {
        let size = y.values[i].hi().abs();
        let rounded = half_ulp.map_or(0.0, |half_ulp| half_ulp(size));
        given.unit * (y.bound * y.scales[i] + size) + rounded + f32::TINY
    };
    let (mut codes, mut of_codes, mut scales, mut of_scales) = (vec![], vec![], vec![], vec![]);
    let n = problem.features();
    for row in (0..problem.rows()).map(|row| row * n..(row + 1) * n) {
        let most = row.clone().map(|i| y.values[i].hi().abs()).fold(0.0, f64::max);
        let scale = if most == 0.0 { 1.0 } else { most / largest };
        let off = row.clone().map(errs).fold(0.0, f64::max) / largest + single * scale + f32::TINY;
        let known = off < scale / 2.0;
        let in_units = |error: f64| if known { error / (y.bound * given.unit) } else { f64::INFINITY };
        scales.push(TwoFloat::from(scale));
        of_scales.push(if most == 0.0 { 0.0 } else { in_units(off) });
        for i in row {
            let code = (y.values[i].hi() / scale).clamp(-largest, largest);
            codes.push(TwoFloat::from(code));
            let error = (errs(i) + code.abs() * off) / (scale - off) + single * code.abs();
            of_codes.push(if most == 0.0 { 0.0 } else { in_units(error) });
        }
    }
    let one = |slot, values, scales| Expected { slot, values, scales, bound: y.bound, rounding: false };
    vec![one(Q::SLOT, codes, of_codes), one(Slot::YScale, scales, of_scales)]
}

fn forward<T: Types, Q: Eight, const CENTRED: bool>(
    problem: &Problem,
    how: &How,
    tensors: &mut Tensors<T>,
) -> Result<(), Error> {
    // Taken out, for the time in which other tensors are read.
    let mut to = Q::place(tensors).take();
    let Tensors { x, weight, bias, y_scale, .. } = tensors;
    let params = by_row::params(problem, weight, bias);
    let scale = Scale::OfRows(y_scale.as_deref_mut().unwrap_or_default());
    let y = output(problem, how, 1, &mut to)?;
    let x = input(problem, how, x)?;
    let done = if CENTRED {
        layer_norm_quantized(x, params, y, scale, how.run)
    } else {
        rms_norm_quantized(x, params, y, scale, how.run)
    };
    *Q::place(tensors) = to;
    done
}
