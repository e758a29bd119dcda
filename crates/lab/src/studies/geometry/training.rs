//! A real training by plain SGD at a constant rate, and the rate that the first layer's weights feel.

use burn::optim::SgdConfig;
use burn::tensor::Device;

use super::NAME;
use crate::data::Images;
use crate::models::fit::Fit;
use crate::models::norm::{EPSILON, NormKind};
use crate::models::train::{nll, random};
use crate::models::unbiased::Unbiased;
use crate::models::weights::{drawn, he};
use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};

const WIDTH: usize = 64;
const BATCH: usize = 32;
/// The rate of SGD, the same for all.
pub const RATE: f64 = 0.3;

/// A training that goes on in pieces.
pub struct Training<'a> {
    images: &'a Images,
    device: Device,
    fit: Fit<Unbiased>,
    rng: Rng,
    /// The weights as they stand, their squared length at the start, and all squared steps since.
    weights: Vec<f64>,
    start: f64,
    steps: f64,
    done: usize,
}

impl<'a> Training<'a> {
    /// At its beginning.
    pub fn new(kind: NormKind, images: &'a Images, seed: u64) -> Self {
        let device = Device::flex().autodiff();
        let model = drawn(Unbiased::new(kind, EPSILON, [images.size(), WIDTH], &device), seed, he);
        let fit = Fit::new(model, SgdConfig::new().init());
        let rng = Rng::new(seed, Purpose::Study(NAME), 1);
        let weights = fit.model.weights();
        let start = squared(&weights);
        Self { images, device, fit, rng, weights, start, steps: 0.0, done: 0 }
    }

    /// So many updates. Follows the squared length of the first layer's weights, relative to the start, and what it would
    /// be if every step stood at a right angle to them.
    pub fn advance(&mut self, updates: usize, measured: &mut Measured) {
        for _ in 0..updates {
            self.update();
            if self.done.is_multiple_of((updates / 20).max(1)) {
                let growth = squared(&self.weights) / self.start;
                measured.point("squared length", self.done as f64, growth);
                measured.point("start and squared steps", self.done as f64, 1.0 + self.steps / self.start);
                measured.point("effective rate", self.done as f64, 1.0 / growth);
            }
        }
        measured.set("growth of the squared length", squared(&self.weights) / self.start);
        measured.set("growth by the steps alone", 1.0 + self.steps / self.start);
    }

    fn update(&mut self) {
        let (x, labels) = random(self.images, BATCH, &mut self.rng, &self.device);
        self.fit.update(RATE, |model| nll(model.forward(x), labels));
        let after = self.fit.model.weights();
        let step: Vec<f64> = after.iter().zip(&self.weights).map(|(after, before)| after - before).collect();
        self.steps += squared(&step);
        self.weights = after;
        self.done += 1;
    }
}

fn squared(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum()
}
