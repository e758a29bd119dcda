//! A classifier with a choice of norms and a remedy against learning by heart.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Int, Tensor, TensorData};
use layernorm_burn::{Norm, NormConfig};

use crate::data::{Images, Split};
use crate::models::adam::adam;
use crate::models::fit::Fit;
use crate::models::mlp::linear;
use crate::models::norm::EPSILON;
use crate::models::train::{tensors, wrong};
use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};

/// In words.
pub const SHAPE: &str = "784-128-128-10, ReLU, Adam at 1e-3, batches of 32; with a bottleneck 784-128-2-10";
/// In words.
pub const REMEDIES: &str = "dropout of a half of the hidden units; 1e-3 times half the squared weights; shifts by up to 2 \
                            pixels; a tenth of a label for all digits alike";
const BATCH: usize = 32;
const HIDDEN: usize = 128;
const SHIFT: u32 = 2;
const SMOOTHING: f64 = 0.1;
const DECAY: f64 = 1e-3;

/// What a learner is.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Before each ReLU.
    pub norms: Norms,
    /// Against learning by heart.
    pub remedy: Remedy,
    /// With a second hidden layer of two units.
    pub narrow: bool,
}

/// Which norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// None.
    None,
    /// Layer norm.
    Layer,
    /// Batch norm.
    Batch,
    /// Batch norm and at once layer norm, in each layer.
    Both,
    /// Batch norm in the first layer, layer norm in the second.
    Turns,
}

/// Against learning by heart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing.
    None,
    /// Half of the hidden units are left out, at random.
    Dropout,
    /// Large weights cost.
    WeightDecay,
    /// Pictures move about.
    Shifts,
    /// Labels are not quite sure.
    LabelSmoothing,
}

#[derive(Module, Debug)]
struct Network {
    linears: Vec<Linear>,
    /// The norms of each hidden layer, one after the other.
    norms: Vec<Vec<Norm>>,
}

impl Network {
    fn new(recipe: Recipe, inputs: usize, seed: u64, device: &Device) -> Self {
        let widths = [inputs, HIDDEN, if recipe.narrow { 2 } else { HIDDEN }, 10];
        let layer = |(index, pair): (u32, &[usize])| {
            linear([pair[0], pair[1]], &mut Rng::new(seed, Purpose::Weights, index), device)
        };
        let linears = (0u32..).zip(widths.windows(2)).map(layer).collect();
        let norms = |layer: usize| match (recipe.norms, layer) {
            (Norms::None, _) => vec![],
            (Norms::Layer, _) | (Norms::Turns, 1) => vec![NormConfig::layer()],
            (Norms::Batch | Norms::Turns, _) => vec![NormConfig::batch()],
            (Norms::Both, _) => vec![NormConfig::batch(), NormConfig::layer()],
        };
        let make = |layer: usize| {
            let init = |norm: NormConfig| norm.with_epsilon(EPSILON).init(widths[layer + 1], device);
            norms(layer).into_iter().map(init).collect()
        };
        Self { linears, norms: vec![make(0), make(1)] }
    }

    /// Logits; hidden units are multiplied by `masks`, where there are any.
    fn forward(&self, mut x: Tensor<2>, masks: &[Tensor<2>]) -> Tensor<2> {
        for (layer, linear) in self.linears.iter().enumerate() {
            x = linear.forward(x);
            if let Some(norms) = self.norms.get(layer) {
                x = relu(norms.iter().fold(x, |x, norm| norm.forward(x)));
            }
            if let Some(mask) = masks.get(layer) {
                x = x * mask.clone();
            }
        }
        x
    }

    /// Half the sum of all squared weights.
    fn weight(&self) -> Tensor<1> {
        let squares = self.linears.iter().map(|linear| linear.weight.val().square().sum());
        squares.reduce(|a, b| a + b).expect("three layers") * 0.5
    }
}

/// A network that learns.
pub struct Learner<'a> {
    recipe: Recipe,
    data: &'a Split,
    seed: u64,
    device: Device,
    fit: Fit<Network>,
    /// For dropout and shifts.
    chance: Rng,
}

impl<'a> Learner<'a> {
    /// One that has learnt nothing yet.
    pub fn new(recipe: Recipe, data: &'a Split, seed: u64) -> Self {
        let device = Device::flex().autodiff();
        let fit = Fit::new(Network::new(recipe, data.train.size(), seed, &device), adam());
        Self { recipe, data, seed, device, fit, chance: Rng::new(seed, Purpose::Study("not-for"), 0) }
    }

    /// Learns from all pictures once, and notes the errors.
    pub fn epoch(&mut self, epoch: usize, measured: &mut Measured) {
        let count = u32::try_from(self.data.train.len()).expect("few pictures");
        let index = u32::try_from(epoch).expect("few epochs");
        let order = Rng::new(self.seed, Purpose::Order, index).permutation(count);
        for chosen in order.chunks_exact(BATCH) {
            self.update(&chosen.iter().map(|&index| index as usize).collect::<Vec<_>>());
        }
        let network = self.fit.model.valid();
        for (name, images) in [("train error", &self.data.train), ("test error", &self.data.test)] {
            let error = error(&network, images, &self.device.clone().inner());
            measured.point(name, (epoch + 1) as f64, error);
            measured.set(name, error);
        }
    }

    fn update(&mut self, chosen: &[usize]) {
        let remedy = self.recipe.remedy;
        let (x, labels) = if remedy == Remedy::Shifts {
            let moved = shifted(&self.data.train, chosen, &mut self.chance);
            tensors(&moved, &(0..chosen.len()).collect::<Vec<_>>(), &self.device)
        } else {
            tensors(&self.data.train, chosen, &self.device)
        };
        let masks: Vec<Tensor<2>> = match remedy {
            Remedy::Dropout => (0..2).map(|_| mask(&mut self.chance, &self.device)).collect(),
            _ => Vec::new(),
        };
        let smoothing = if remedy == Remedy::LabelSmoothing { SMOOTHING } else { 0.0 };
        self.fit.update(1e-3, |network| {
            let loss = loss(network.forward(x, &masks), labels, smoothing);
            if remedy == Remedy::WeightDecay { loss + network.weight() * DECAY } else { loss }
        });
    }
}

/// The negative log-likelihood of labels that are spread a little over all digits.
fn loss(logits: Tensor<2>, labels: Tensor<2, Int>, smoothing: f64) -> Tensor<1> {
    let log_p = log_softmax(logits, 1);
    let right = log_p.clone().gather(1, labels).mean();
    (right * (1.0 - smoothing) + log_p.mean() * smoothing).neg()
}

/// 0 or 2 for each hidden unit, at equal odds, so that the mean stays.
fn mask(chance: &mut Rng, device: &Device) -> Tensor<2> {
    let numbers: Vec<f32> =
        (0..BATCH * HIDDEN).map(|_| if chance.below(2) == 0 { 0.0 } else { 2.0 }).collect();
    Tensor::from_data(TensorData::new(numbers, [BATCH, HIDDEN]), device)
}

/// The chosen pictures, each moved by up to two pixels both ways, paper coming in at the edge.
fn shifted(images: &Images, chosen: &[usize], chance: &mut Rng) -> Images {
    let mut moved = Images { rows: images.rows, columns: images.columns, ..Images::default() };
    for &index in chosen {
        let [down, right] = [(); 2].map(|()| chance.below(2 * SHIFT + 1) as usize);
        let shift = SHIFT as usize;
        let pixel = |row: usize, column: usize| {
            let (row, column) = ((row + down).checked_sub(shift)?, (column + right).checked_sub(shift)?);
            (row < images.rows && column < images.columns)
                .then(|| images.picture(index)[row * images.columns + column])
        };
        let all = (0..images.size()).map(|at| pixel(at / images.columns, at % images.columns).unwrap_or(0));
        moved.pixels.extend(all);
        moved.labels.push(images.labels[index]);
    }
    moved
}

/// Error in per cent, in inference mode.
fn error(network: &Network, images: &Images, device: &Device) -> f64 {
    let all: Vec<usize> = (0..images.len()).collect();
    let wrong_in = |chunk: &[usize]| {
        let (x, _) = tensors(images, chunk, device);
        wrong(network.forward(x, &[]), chunk.iter().map(|&index| usize::from(images.labels[index])))
    };
    100.0 * all.chunks(500).map(wrong_in).sum::<usize>() as f64 / images.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_move_whole_pictures() {
        let mut pixels = vec![0; 49];
        pixels[24] = 9;
        let images = Images { rows: 7, columns: 7, pixels, labels: vec![3] };
        let moved = shifted(&images, &[0; 50], &mut Rng::new(0, Purpose::Study("not-for"), 0));
        assert_eq!((moved.len(), moved.labels[7]), (50, 3));
        let mut places = std::collections::BTreeSet::new();
        for index in 0..50 {
            let at = moved.picture(index).iter().position(|&p| p == 9).unwrap();
            assert!((1..6).contains(&(at / 7)) && [1, 2, 3, 4, 5].contains(&(at % 7)), "{at}");
            assert_eq!(moved.picture(index).iter().filter(|&&p| p > 0).count(), 1);
            places.insert(at);
        }
        assert!(places.len() > 10, "{places:?}");
    }

    #[test]
    fn smoothing_by_hand() {
        let device = Device::flex();
        let logits = Tensor::<2>::from_data([[0.0f32, 3f32.ln()]], &device);
        let value = |smoothing| {
            let labels = Tensor::<2, Int>::from_data([[1]], &device);
            loss(logits.clone(), labels, smoothing).into_scalar::<f32>()
        };
        // Probabilities are 1/4 and 3/4.
        assert!((value(0.0) - 0.287_682).abs() < 1e-5);
        assert!((value(0.1) - (0.9 * 0.287_682 + 0.1 * (0.287_682 + 1.386_294) / 2.0)).abs() < 1e-5);
    }

    #[test]
    fn masks_keep_the_mean() {
        let mask = mask(&mut Rng::new(0, Purpose::Study("not-for"), 0), &Device::flex());
        let numbers: Vec<f32> = mask.into_data().try_into_vec().unwrap();
        let mean = numbers.iter().sum::<f32>() / numbers.len() as f32;
        assert!(numbers.iter().all(|&m| m == 0.0 || m == 2.0) && (mean - 1.0).abs() < 0.1, "{mean}");
    }
}
