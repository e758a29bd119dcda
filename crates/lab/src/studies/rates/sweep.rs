//! Networks of digits at every learning rate, and from first weights of every size.

use burn::optim::{ModuleOptimizer, SgdConfig};
use burn::tensor::Device;

use super::Size;
use crate::data::Images;
use crate::models::adam::adam;
use crate::models::fit::{self, Fit};
use crate::models::mlp::{Mlp, MlpShape};
use crate::models::norm::NormKind;
use crate::models::train::{nll, of_update};
use crate::models::weights::{drawn, he};
use crate::report::model::Measured;

const WIDTH: usize = 32;
pub const BATCH: usize = 32;

/// How the gradient is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Sgd,
    Adam,
}

impl Method {
    pub const ALL: [Self; 2] = [Self::Sgd, Self::Adam];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "SGD",
            Self::Adam => "Adam",
        }
    }

    fn optimizer(self) -> ModuleOptimizer {
        match self {
            Self::Sgd => SgdConfig::new().init(),
            Self::Adam => adam(),
        }
    }

    /// The learning rates that are tried, each four times the one before.
    pub fn rates(self) -> Vec<f64> {
        let lowest = match self {
            Self::Sgd => -8,
            Self::Adam => -14,
        };
        (0..8).map(|step| 2f64.powi(lowest + 2 * step)).collect()
    }
}

/// First weights, relative to He's.
pub const SCALES: [f64; 5] = [1.0 / 16.0, 0.25, 1.0, 4.0, 16.0];

/// A rate is usable if the loss at the end is below half that of guessing.
fn usable(loss: f64) -> bool {
    loss < 10f64.ln() / 2.0
}

/// A network that is trained in many ways.
pub struct Sweep<'a> {
    pub kind: NormKind,
    pub size: &'a Size,
    pub images: &'a Images,
    pub seed: u64,
}

impl Sweep<'_> {
    /// The loss at the end of a training.
    fn loss(&self, method: Method, depth: usize, rate: f64, scale: f64) -> f64 {
        let device = Device::flex().autodiff();
        let widths = [vec![self.images.size()], vec![WIDTH; depth], vec![10]].concat();
        let model = Mlp::new(&MlpShape { widths, norm: self.kind }, self.seed, &device);
        #[allow(clippy::cast_possible_truncation, reason = "powers of two")]
        let scale = scale as f32;
        let model = drawn(model, self.seed, |inputs, outputs| scale * he(inputs, outputs));
        let losses = Fit::new(model, method.optimizer()).train(
            self.size.updates,
            |_| rate,
            |model, update| {
                let (x, labels) = of_update(self.images, BATCH, self.seed, update, &device);
                nll(model.forward(x), labels)
            },
        );
        fit::late(&losses, 10f64.ln())
    }

    /// The training number `index` of those at every rate, at one depth.
    pub fn rate(&self, method: Method, depth: usize, index: usize, measured: &mut Measured) {
        let rate = method.rates()[index];
        measured.point(&by_rate(method, depth), rate, self.loss(method, depth, rate, 1.0));
    }

    /// The training number `index` of those from every size of first weights, at the rate that was best for He's.
    pub fn scale(&self, method: Method, depth: usize, index: usize, measured: &mut Measured) {
        let rate = best(&measured.curves[&by_rate(method, depth)]);
        let scale = SCALES[index];
        measured.point(&by_scale(method), scale, self.loss(method, depth, rate, scale));
    }
}

/// The name of the curve of losses by rate.
pub fn by_rate(method: Method, depth: usize) -> String {
    format!("loss by rate, {}, {depth} layers", method.name())
}

/// The name of the curve of losses by first weights.
pub fn by_scale(method: Method) -> String {
    format!("loss by first weights, {}", method.name())
}

/// The rate of the lowest loss.
fn best(curve: &[[f64; 2]]) -> f64 {
    curve.iter().min_by(|a, b| a[1].total_cmp(&b[1])).map_or(f64::NAN, |point| point[0])
}

/// The largest usable rate, in doublings. Where no rate is usable, one step of four below the lowest.
pub fn largest(curve: &[[f64; 2]]) -> f64 {
    let Some(lowest) = curve.first() else { return f64::NAN };
    let usable = curve.iter().filter(|point| usable(point[1]));
    usable.map(|point| point[0]).fold(lowest[0] / 4.0, f64::max).log2()
}

/// The width of the window of usable rates in doublings: two for each.
pub fn window(curve: &[[f64; 2]]) -> f64 {
    2.0 * curve.iter().filter(|point| usable(point[1])).count() as f64
}

/// The highest loss of a curve less its lowest.
pub fn spread(curve: &[[f64; 2]]) -> f64 {
    let losses = || curve.iter().map(|point| point[1]);
    losses().fold(f64::NEG_INFINITY, f64::max) - losses().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_off_their_curves() {
        let curve = [[0.25, 2.0], [1.0, 0.5], [4.0, 0.1], [16.0, 2.3]];
        assert_eq!((largest(&curve), window(&curve), best(&curve)), (2.0, 4.0, 4.0));
        assert!((spread(&curve) - 2.2).abs() < 1e-12);
        assert_eq!(largest(&[[0.25, 2.0], [1.0, 2.0]]), -4.0);
        assert_eq!(window(&[[0.25, 2.0]]), 0.0);
    }
}
