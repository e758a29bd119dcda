//! What eps does: it bends the invariance to scale, and it keeps rows that don't vary from being divided by nothing.

use burn::tensor::{DType, Device, Tensor, TensorData};
use layernorm_burn::{layer_norm, rms_norm};

use super::table::Method;
use crate::models::norm::EPSILON;
use crate::rng::Rng;

/// The factor on all pre-activations whose effect is measured.
pub const FACTOR: f64 = 2.0;
/// Units of a row.
const UNITS: usize = 48;

/// Standard deviations of the pre-activations, in even steps of a quarter of a decade.
pub fn deviations() -> impl Iterator<Item = f64> {
    (-12..=4).map(|quarter| 10f64.powf(f64::from(quarter) / 4.0))
}

/// The relative change of a norm's outputs when pre-activations of this standard deviation are doubled, with the
/// usual eps, in f64.
pub fn bend(method: Method, deviation: f64, rng: &mut Rng) -> f64 {
    let row: Vec<f64> = (0..UNITS).map(|_| f64::from(rng.bell())).collect();
    let row = Tensor::<2>::from_data(TensorData::new(row, [1, UNITS]), (&Device::flex(), DType::F64));
    let row = layer_norm(row, None, None, 0.0) * deviation;
    let norm = |x| match method {
        Method::Rms => rms_norm(x, None, None, EPSILON),
        _ => layer_norm(x, None, None, EPSILON),
    };
    let (before, after) = (norm(row.clone()), norm(row * FACTOR));
    let length = |x: Tensor<2>| x.square().sum().sqrt().into_scalar::<f64>();
    length(after - before.clone()) / length(before)
}

/// What theory says for [`bend`], to first order in eps over the variance: eps (1 - 1/d^2) / (2 sigma^2).
pub fn predicted(deviation: f64) -> f64 {
    EPSILON * (1.0 - FACTOR.powi(-2)) / (2.0 * deviation * deviation)
}

/// Rows, of some number repeated, that [`ruined`] looks at.
pub const CONSTANT_ROWS: usize = 200;

/// How many of some rows that don't vary come out as anything but zeros, up to a hundredth: by the textbook's
/// operations in f32 with eps 0, by the same with the usual eps, and by our kernels with eps 0.
pub fn ruined(rng: &mut Rng) -> [usize; 3] {
    let values: Vec<f32> = (0..CONSTANT_ROWS).map(|_| rng.range(0.1, 10.0)).collect();
    let column = Tensor::<2>::from_data(TensorData::new(values, [CONSTANT_ROWS, 1]), &Device::flex());
    let rows = column.expand([CONSTANT_ROWS, UNITS]);
    let textbook = |eps: f64| {
        let centred = rows.clone() - rows.clone().mean_dim(1);
        let variance = centred.clone().square().mean_dim(1);
        centred / (variance + eps).sqrt()
    };
    [textbook(0.0), textbook(EPSILON), layer_norm(rows.clone(), None, None, 0.0)].map(|y| {
        let y = y.into_data().try_into_vec::<f32>().expect("f32 in, f32 out");
        // A NaN is no zero.
        y.chunks(UNITS).filter(|row| !row.iter().all(|y| y.abs() < 0.01)).count()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    #[test]
    fn bending_is_what_the_formula_of_layer_norm_gives() {
        // y is x / sqrt(sigma^2 + eps), so doubling changes it by the factor
        // sqrt((sigma^2 + eps) / (sigma^2 + eps / 4)) - 1: for sigma^2 = eps that is sqrt(2 / 1.25) - 1.
        let bent = bend(Method::Layer, EPSILON.sqrt(), &mut Rng::new(1, Purpose::Check, 0));
        assert!((bent - (1.6f64.sqrt() - 1.0)).abs() < 1e-12, "{bent}");
    }

    #[test]
    fn prediction_is_first_order() {
        // 1e-5 (1 - 1/4) / (2 * 0.01)
        assert!((predicted(0.1) - 3.75e-4).abs() < 1e-18);
    }
}
