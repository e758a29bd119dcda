//! A small causal transformer with the norm in one of four places: gradients at its beginning, and its training with
//! and without warm-up.

use burn::nn::Linear;
use burn::nn::activation::ActivationConfig;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor};
use layernorm_burn::transformer::{
    BlockConfig, LanguageModel, LanguageModelConfig, Placement, TransformerConfig,
};

use super::language::{Language, SYMBOLS};
use super::{NAME, Size};
use crate::models::adam::adam;
use crate::models::fit::{self, Fit};
use crate::models::weights::{drawn, xavier};
use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};

/// Features of a token, heads, and tokens of a text.
const WIDTH: usize = 32;
const HEADS: usize = 4;
const LENGTH: usize = 16;

/// Texts whose gradients are measured, for each model.
const TEXTS: usize = 4;

/// Adam's rates.
pub const RATES: [f64; 2] = [1e-3, 3e-3];

/// One placement with one seed, step by step: first gradients at each depth, then a training for each rate,
/// at once and with warm-up.
pub struct Blocks<'a> {
    placement: Placement,
    size: &'a Size,
    seed: u64,
    language: Language,
    device: Device,
}

impl<'a> Blocks<'a> {
    /// An arm of the study.
    pub fn new(placement: Placement, size: &'a Size, seed: u64) -> Self {
        let language = Language::new(&mut Rng::new(seed, Purpose::Study(NAME), 0));
        Self { placement, size, seed, language, device: Device::flex().autodiff() }
    }

    /// How many steps there are. Warm-up is a question to post and pre alone, and what has no norm at all does not
    /// train from these weights: once shows it.
    pub fn steps(&self) -> usize {
        let trainings = match self.placement {
            Placement::None => 1,
            Placement::Sandwich => RATES.len(),
            Placement::Post | Placement::Pre => 2 * RATES.len(),
        };
        self.size.depths.len() + trainings
    }

    /// Takes one.
    pub fn step(&self, step: usize, measured: &mut Measured) {
        match step.checked_sub(self.size.depths.len()) {
            None => self.gradients(self.size.depths[step], measured),
            Some(training) => {
                let (rate, warm_up) = (training % RATES.len(), training >= RATES.len());
                self.training(RATES[rate], warm_up, measured);
            }
        }
    }

    /// A model of this depth at its beginning; `draw` tells apart models of one seed.
    fn model(&self, depth: usize, draw: u64) -> LanguageModel {
        let block = BlockConfig::new(WIDTH, HEADS)
            .with_placement(self.placement)
            .with_activation(ActivationConfig::Relu);
        let config = LanguageModelConfig::new(SYMBOLS as usize, TransformerConfig::new(depth, block))
            .with_positions(Some(LENGTH));
        drawn(config.init(&self.device), self.seed << 8 | draw, xavier)
    }

    /// Texts number `index`, the same for every arm of a seed.
    fn texts(&self, index: usize) -> [Tensor<2, Int>; 2] {
        let index = u32::try_from(index + 1).expect("fewer updates than 2^32");
        let mut rng = Rng::new(self.seed, Purpose::Study(NAME), index);
        self.language.batch([self.size.batch, LENGTH], &mut rng, &self.device)
    }

    /// The gradient of each block's last matrix before any training, by the loss at one position as in Xiong et al.:
    /// the mean of its norm over models, and over texts at the end of each.
    fn gradients(&self, depth: usize, measured: &mut Measured) {
        let [read, next] = self.texts(0);
        let mut norms = vec![0.0; depth];
        for draw in 0..self.size.draws {
            let model = self.model(depth, draw);
            for text in 0..TEXTS.min(self.size.batch) {
                let text = [&read, &next].map(|symbols| symbols.clone().slice(text..text + 1));
                let at_end = log_likelihood(&model, text).slice([0..1, LENGTH - 1..LENGTH]).sum().neg();
                let gradients = at_end.backward();
                for (norm, block) in norms.iter_mut().zip(&model.transformer.blocks) {
                    *norm += norm_of(&block.feed_forward.linear_outer, &gradients);
                }
            }
        }
        let count = self.size.draws as f64 * TEXTS.min(self.size.batch) as f64;
        for (layer, norm) in norms.iter().enumerate() {
            measured.point(&format!("gradient by layer of {depth}"), (layer + 1) as f64, norm / count);
        }
        measured.point("gradient of the last layer", depth as f64, norms[depth - 1] / count);
    }

    /// Trains by Adam at this rate, reached at once or in a straight line over the first third.
    fn training(&self, rate: f64, warm_up: bool, measured: &mut Measured) {
        let updates = self.size.updates;
        let rise = if warm_up { updates.div_ceil(3) } else { 1 };
        let losses = Fit::new(self.model(self.size.depth, 0), adam()).train(
            updates,
            |update| rate * ((update + 1) as f64 / rise as f64).min(1.0),
            |model, update| log_likelihood(model, self.texts(update)).mean().neg(),
        );
        let name = run_name(rate, warm_up);
        measured.set(&name, fit::late(&losses, f64::from(SYMBOLS).ln()));
        measured.curves.insert(name, fit::curve(&losses, 25));
    }
}

/// The name of a training's curve and of its final loss.
pub fn run_name(rate: f64, warm_up: bool) -> String {
    format!("loss at {rate:e} {}", if warm_up { "with warm-up" } else { "at once" })
}

/// The logarithm of the probability of each next symbol, `[batch, length]`.
fn log_likelihood(model: &LanguageModel, [read, next]: [Tensor<2, Int>; 2]) -> Tensor<2> {
    log_softmax(model.forward(read), 2).gather(2, next.unsqueeze_dim(2)).squeeze_dim(2)
}

/// The Euclidean norm of the gradient of a layer's matrix.
fn norm_of(linear: &Linear, gradients: &burn::tensor::Gradients) -> f64 {
    let gradient = linear.weight.val().grad(gradients).expect("a trained weight has a gradient");
    let values = gradient.into_data().try_into_vec::<f32>().expect("the model is f32");
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}
