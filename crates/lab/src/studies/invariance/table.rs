//! Table 1 of the paper, cell by cell, at eps = 0 and in f64: what a layer's outputs do when its weights or its data are
//! re-scaled or re-centred.

use burn::tensor::{DType, Device, Tensor, TensorData};
use layernorm_burn::{batch_norm, layer_norm, partial_rms_norm, rms_norm, weight_norm};

use crate::rng::Rng;

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Batch norm.
    Batch,
    /// Weight norm.
    Weight,
    /// Layer norm.
    Layer,
    /// RMS norm.
    Rms,
    /// RMS norm by a sixteenth of the units.
    PartialRms,
}

/// A column of the table: what is done to weights or data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// All weights times d.
    ScaleMatrix,
    /// All weights times d, and every unit's weight vector shifted by the same vector.
    RecentreMatrix,
    /// One unit's weights times d.
    ScaleVector,
    /// All cases times d.
    ScaleData,
    /// All cases times d, and shifted by the same vector.
    RecentreData,
    /// One case times d.
    ScaleCase,
}

impl Change {
    /// The columns in the paper's order.
    pub const ALL: [Self; 6] = [
        Self::ScaleMatrix,
        Self::RecentreMatrix,
        Self::ScaleVector,
        Self::ScaleData,
        Self::RecentreData,
        Self::ScaleCase,
    ];

    /// The column's heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::ScaleMatrix => "weight matrix re-scaled",
            Self::RecentreMatrix => "weight matrix re-centred",
            Self::ScaleVector => "one weight vector re-scaled",
            Self::ScaleData => "dataset re-scaled",
            Self::RecentreData => "dataset re-centred",
            Self::ScaleCase => "one case re-scaled",
        }
    }
}

impl Method {
    /// What Table 1 says of this row: invariant or not, column by column. RMS norm's row is that of Zhang and Sennrich.
    pub fn in_the_paper(self) -> [bool; 6] {
        match self {
            Self::Batch => [true, false, true, true, true, false],
            Self::Weight => [true, false, true, false, false, false],
            Self::Layer => [true, true, false, true, false, true],
            Self::Rms | Self::PartialRms => [true, false, false, true, false, true],
        }
    }

    /// The layer's outputs before its nonlinearity. `sums` adds to the summed inputs of each case.
    fn outputs(self, layer: &Layer, sums: Option<Tensor<2>>) -> Vec<f64> {
        let Layer { x, w, gain, bias } = layer.clone();
        let w = if self == Self::Weight { weight_norm(w, gain.clone()) } else { w };
        let summed = x.matmul(w);
        let a = sums.into_iter().fold(summed, |a, shift| a + shift);
        let y = match self {
            Self::Batch => batch_norm(a, gain, bias, 0.0),
            Self::Weight => a + bias.unsqueeze(),
            Self::Layer => layer_norm(a, gain, bias, 0.0),
            Self::Rms => rms_norm(a, gain, bias, 0.0),
            Self::PartialRms => partial_rms_norm(a, UNITS / 16, gain, bias, 0.0),
        };
        y.into_data().try_into_vec().expect("f64 in, f64 out")
    }
}

/// Cases in the dataset.
const CASES: usize = 32;
/// Features of a case.
const FEATURES: usize = 24;
/// Units of the layer.
const UNITS: usize = 48;

/// A layer with random weights, gains and biases, and a random dataset whose mean isn't 0.
#[derive(Clone)]
pub struct Layer {
    x: Tensor<2>,
    w: Tensor<2>,
    gain: Tensor<1>,
    bias: Tensor<1>,
}

impl Layer {
    /// Drawn from `rng`.
    pub fn new(rng: &mut Rng) -> Self {
        let centre = random([1, FEATURES], rng);
        Self {
            x: random([CASES, FEATURES], rng) + centre,
            w: random([FEATURES, UNITS], rng) * 0.2,
            gain: random([UNITS], rng) * 0.2 + 1.0,
            bias: random([UNITS], rng) * 0.2,
        }
    }

    /// After a change, whose sizes are drawn too.
    fn changed(&self, change: Change, rng: &mut Rng) -> Self {
        let Self { x, w, gain, bias } = self.clone();
        let d = f64::from(rng.range(1.5, 4.0));
        let d = if rng.below(2) == 0 { d } else { 1.0 / d };
        let (x, w) = match change {
            Change::ScaleMatrix => (x, w * d),
            Change::RecentreMatrix => (x, w * d + random([FEATURES, 1], rng) * 0.2),
            Change::ScaleVector => (x, w * first([1, UNITS], d)),
            Change::ScaleData => (x * d, w),
            Change::RecentreData => (x * d + random([1, FEATURES], rng), w),
            Change::ScaleCase => (x * first([CASES, 1], d), w),
        };
        Self { x, w, gain, bias }
    }

    /// How far the outputs move by a change: the largest move of any number, over the root mean square of all.
    pub fn moved(&self, method: Method, change: Change, rng: &mut Rng) -> f64 {
        let after = method.outputs(&self.changed(change, rng), None);
        distance(&method.outputs(self, None), &after)
    }

    /// The same when a number is added to all summed inputs of a case, another one in each case.
    pub fn moved_by_shifted_sums(&self, method: Method, rng: &mut Rng) -> f64 {
        let shift = random([CASES, 1], rng);
        distance(&method.outputs(self, None), &method.outputs(self, Some(shift)))
    }
}

/// The largest difference over the root mean square of `before`.
fn distance(before: &[f64], after: &[f64]) -> f64 {
    let size = (before.iter().map(|y| y * y).sum::<f64>() / before.len() as f64).sqrt();
    before.iter().zip(after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max) / size
}

/// Below this nothing has moved but the last digits.
const ROUNDING: f64 = 1e-9;
/// From here on something has moved.
const MOVED: f64 = 1e-2;

/// Whether outputs that moved this far are invariant; `None` where it is neither rounding nor a real move.
pub fn invariant(moved: f64) -> Option<bool> {
    match moved {
        moved if moved < ROUNDING => Some(true),
        moved if moved > MOVED => Some(false),
        _ => None,
    }
}

/// Bell-shaped numbers in f64.
fn random<const D: usize>(shape: [usize; D], rng: &mut Rng) -> Tensor<D> {
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| f64::from(rng.bell())).collect();
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64))
}

/// `d`, then ones.
fn first(shape: [usize; 2], d: f64) -> Tensor<2> {
    let mut values = vec![1.0; shape[0] * shape[1]];
    values[0] = d;
    Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    #[test]
    fn a_change_changes_what_it_says() {
        let mut rng = Rng::new(1, Purpose::Check, 0);
        let layer = Layer::new(&mut rng);
        let differs = |a: &Tensor<2>, b: &Tensor<2>| {
            let [a, b] = [a, b].map(|t| t.clone().into_data().try_into_vec::<f64>().unwrap());
            a.iter().zip(&b).filter(|(a, b)| a != b).count()
        };
        for (change, x, w) in [
            (Change::ScaleMatrix, 0, FEATURES * UNITS),
            (Change::RecentreMatrix, 0, FEATURES * UNITS),
            (Change::ScaleVector, 0, FEATURES),
            (Change::ScaleData, CASES * FEATURES, 0),
            (Change::RecentreData, CASES * FEATURES, 0),
            (Change::ScaleCase, FEATURES, 0),
        ] {
            let changed = layer.changed(change, &mut rng);
            assert_eq!((differs(&changed.x, &layer.x), differs(&changed.w, &layer.w)), (x, w), "{change:?}");
        }
    }

    #[test]
    fn distance_is_the_largest_move() {
        assert_eq!(distance(&[3.0, -3.0], &[3.0, -1.5]), 0.5);
    }

    #[test]
    fn between_rounding_and_a_move_is_no_answer() {
        assert_eq!([1e-15, 0.5, 1e-5, f64::NAN].map(invariant), [Some(true), Some(false), None, None]);
    }
}
