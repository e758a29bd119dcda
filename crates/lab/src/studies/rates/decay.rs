//! Weight decay on normalized weights is a learning rate that rises, exactly: the gradient of a function that does not
//! feel the scale of w falls as 1/|w|, so
//!
//! ```text
//! w <- (1 - q) w - rate gradient(w)
//! ```
//!
//! gives at update t, up to its length, the weights that a rate times (1 - q)^-(2t + 1) gives without decay. In the same
//! way weights of double length need four times the rate (van Laarhoven 2017; Li, Arora 2019).

use burn::module::Param;
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};

use super::Size;
use super::sweep::BATCH;
use crate::data::Images;
use crate::models::fit::Fit;
use crate::models::norm::NormKind;
use crate::models::train::{nll, of_update};
use crate::models::unbiased::Unbiased;
use crate::models::weights::{drawn, he};

const WIDTH: usize = 32;
const RATE: f64 = 0.25;
/// The share of the weights that goes at each update.
const DECAY: f64 = 0.005;

/// What happens to the first layer's weights besides plain descent. The last layer always learns at the plain rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Plain,
    /// Weight decay.
    Decay,
    /// The rate rises as the decay would have it.
    Rising,
    /// Twice the first weights and four times the rate.
    DoubleAndFour,
    /// Four times the rate alone.
    Four,
}

impl Change {
    pub const ALL: [Self; 5] = [Self::Plain, Self::Decay, Self::Rising, Self::DoubleAndFour, Self::Four];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Decay => "weight decay",
            Self::Rising => "rising rate",
            Self::DoubleAndFour => "twice the weights, four times the rate",
            Self::Four => "four times the rate",
        }
    }

    /// How much of the old weights stays, and how many times the plain step is taken, at update number `update`.
    fn step(self, update: usize) -> (f64, f64) {
        match self {
            Self::Plain => (1.0, 1.0),
            Self::Decay => (1.0 - DECAY, 1.0),
            Self::Rising => (1.0, (1.0 - DECAY).powf(-(2.0 * update as f64 + 1.0))),
            Self::DoubleAndFour | Self::Four => (1.0, 4.0),
        }
    }
}

/// The losses of a training, at eps 0, where the invariance is exact.
pub fn losses(kind: NormKind, change: Change, size: &Size, images: &Images, seed: u64) -> Vec<f64> {
    let device = Device::flex().autodiff();
    let mut model = drawn(Unbiased::new(kind, 0.0, [images.size(), WIDTH], &device), seed, he);
    if change == Change::DoubleAndFour {
        set(&mut model, |weight| 2.0 * weight);
    }
    let mut fit = Fit::new(model, SgdConfig::new().init());
    (0..size.decay)
        .map(|update| {
            let before = fit.model.weights();
            let (x, labels) = of_update(images, BATCH, seed, update, &device);
            let loss = fit.update(RATE, |model| nll(model.forward(x), labels));
            let (kept, taken) = change.step(update);
            if (kept, taken) != (1.0, 1.0) {
                let mut before = before.into_iter();
                set(&mut fit.model, |after| {
                    let before = before.next().expect("as many weights as before");
                    kept * before + taken * (after - before)
                });
            }
            loss
        })
        .collect()
}

/// Gives each of the first layer's weights another value.
fn set(model: &mut Unbiased, mut of: impl FnMut(f64) -> f64) {
    #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
    let values: Vec<f32> = model.weights().into_iter().map(|weight| of(weight) as f32).collect();
    let param = &model.first.weight;
    let data = TensorData::new(values, param.val().shape());
    let tensor = Tensor::<2>::from_data(data, &param.val().device()).require_grad();
    model.first.weight = Param::initialized(param.id, tensor);
}

/// The mean distance of two curves of losses.
pub fn gap(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decayed_step_keeps_what_it_should() {
        assert_eq!(Change::Decay.step(7), (0.995, 1.0));
        let (kept, taken) = Change::Rising.step(1);
        assert!(kept == 1.0 && (taken * 0.995f64.powi(3) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn gaps_are_mean_distances() {
        assert_eq!(gap(&[1.0, 2.0], &[2.0, 0.0]), 1.5);
    }
}
