//! Made-up data of six structures, and seven choices of what one statistic is taken over.
//!
//! A sample is `[channels, positions]`. In each structure something carries the answer, and something else varies that
//! says nothing about it; the right statistic is the one that removes the second and leaves the first.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use layernorm_burn::{Norm, NormConfig, layer_norm};

use crate::models::adam::adam;
use crate::models::fit::Fit;
use crate::models::mlp::{Mlp, MlpShape};
use crate::models::norm::{EPSILON, NormKind};
use crate::models::train::{nll, wrong};
use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};

const CHANNELS: usize = 6;
const POSITIONS: usize = 12;
const NUMBERS: usize = CHANNELS * POSITIONS;
/// Groups of channels, and blocks of positions.
const PARTS: usize = 3;
const CLASSES: usize = 4;
const BATCH: usize = 64;
const TEST: usize = 1000;
/// How much of a number is answer, beside noise of 1: so little that even the best reader errs now and then.
const SIGNAL: f32 = 0.35;
/// In words.
pub const SHAPE: &str =
    "6 channels, 12 positions, 4 classes; read by a network 72-32-4 with ReLU, Adam at 3e-3";

/// What varies without meaning, and what carries the answer.
#[derive(Clone, Copy, Debug)]
pub struct Structure {
    /// The key of its error.
    pub name: &'static str,
    /// In words, for a table.
    pub label: &'static str,
    make: fn(&mut [f32], usize, &World, &mut Rng),
}

/// What all samples of a seed share.
struct World {
    /// For each class, what each number is about.
    templates: Vec<Vec<f32>>,
    /// For each class, what each channel is about.
    levels: Vec<Vec<f32>>,
    /// For each channel, its unit of measurement and where its values lie.
    units: Vec<[f32; 2]>,
}

/// All structures.
pub const STRUCTURES: [Structure; 6] = [
    Structure {
        name: "channels",
        label: "channels in space: each channel of a sample has its own light and contrast",
        make: |x, class, world, rng| varied(x, class, world, rng, |index| index / POSITIONS),
    },
    Structure {
        name: "tokens",
        label: "tokens: each position has its own size",
        make: |x, class, world, rng| varied(x, class, world, rng, |index| index % POSITIONS),
    },
    Structure {
        name: "blocks",
        label: "space-time: each block of positions has its own light and contrast",
        make: |x, class, world, rng| {
            varied(x, class, world, rng, |index| index % POSITIONS / (POSITIONS / PARTS));
        },
    },
    Structure {
        name: "modalities",
        label: "modalities: groups of channels, each 30 times as large as the one before and of its own contrast",
        make: |x, class, world, rng| {
            let group = |index: usize| index / (NUMBERS / PARTS);
            varied(x, class, world, rng, group);
            x.iter_mut().enumerate().for_each(|(index, x)| *x *= [1.0, 30.0, 900.0][group(index)]);
        },
    },
    Structure {
        name: "states",
        label: "states: each channel is a quantity in its own unit, and its level is the answer",
        make: |x, class, world, rng| {
            for (index, x) in x.iter_mut().enumerate() {
                let channel = index / POSITIONS;
                let [unit, zero] = world.units[channel];
                *x = unit * (zero + SIGNAL * world.levels[class][channel] + rng.bell());
            }
        },
    },
    Structure {
        name: "size",
        label: "size: how large the sample is, is the answer",
        make: |x, class, _, rng| {
            let size = (class as f32 + rng.range(-0.4, 0.4)).exp2();
            x.iter_mut().for_each(|x| *x = size * rng.bell());
        },
    },
];

/// The class's template with noise, and each part of the sample, by `part` of the index, in a scale and at a place of
/// its own.
fn varied(x: &mut [f32], class: usize, world: &World, rng: &mut Rng, part: fn(usize) -> usize) {
    let parts: Vec<[f32; 2]> =
        (0..NUMBERS).map(|_| [rng.range(-3.0, 3.0).exp2(), rng.range(-10.0, 10.0)]).collect();
    for (index, x) in x.iter_mut().enumerate() {
        let [scale, shift] = parts[part(index)];
        *x = scale * (SIGNAL * world.templates[class][index] + rng.bell() + shift);
    }
}

/// What one statistic is taken over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// No normalization.
    None,
    /// A whole sample.
    Sample,
    /// A position, over all channels.
    Position,
    /// A block of positions, over all channels.
    Block,
    /// A group of channels.
    Group,
    /// A channel of a sample.
    Channel,
    /// A channel over the batch.
    Batch,
}

#[derive(Module, Debug)]
struct Reader {
    /// Used by [`Choice::Batch`] alone.
    batch: Norm,
    mlp: Mlp,
}

impl Reader {
    fn forward(&self, choice: Choice, x: Tensor<3>) -> Tensor<2> {
        self.mlp.forward(self.normalize(choice, x).flatten(1, 2))
    }

    /// The samples, normalized as chosen.
    fn normalize(&self, choice: Choice, x: Tensor<3>) -> Tensor<3> {
        let shape @ [samples, channels, positions] = x.dims();
        let norm = |x: Tensor<3>| layer_norm(x, None, None, EPSILON);
        let block = positions / PARTS;
        match choice {
            Choice::None => x,
            Choice::Sample => norm(x.reshape([samples, 1, channels * positions])).reshape(shape),
            Choice::Position => norm(x.swap_dims(1, 2)).swap_dims(1, 2),
            Choice::Block => {
                let apart = [samples, channels, PARTS, block];
                let blocks = x.reshape(apart).swap_dims(1, 2).reshape([samples, PARTS, channels * block]);
                norm(blocks).reshape([samples, PARTS, channels, block]).swap_dims(1, 2).reshape(shape)
            }
            Choice::Group => norm(x.reshape([samples, PARTS, channels * positions / PARTS])).reshape(shape),
            Choice::Channel => norm(x),
            Choice::Batch => self.batch.forward(x),
        }
    }
}

/// Trains a reader of a structure, and notes its error on new samples in per cent.
pub fn read(structure: &Structure, choice: Choice, updates: usize, seed: u64, measured: &mut Measured) {
    let stream = |index| Rng::new(seed, Purpose::Study("axis"), index);
    let world = World::new(&mut stream(0));
    let device = Device::flex().autodiff();
    let shape = MlpShape { widths: vec![NUMBERS, 32, CLASSES], norm: NormKind::Plain };
    let batch = NormConfig::batch().with_epsilon(EPSILON).init(CHANNELS, &device);
    let mut reader = Fit::new(Reader { batch, mlp: Mlp::new(&shape, seed, &device) }, adam());
    let mut rng = stream(1);
    for _ in 0..updates {
        let (x, labels) = samples(structure, BATCH, &world, &mut rng);
        let labels =
            labels.iter().map(|&label| i32::try_from(label).expect("few classes")).collect::<Vec<_>>();
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [BATCH, 1]), &device);
        let x = Tensor::<3>::from_data(x, &device);
        reader.update(3e-3, |model| nll(model.forward(choice, x), labels));
    }
    let (x, labels) = samples(structure, TEST, &world, &mut stream(2));
    let logits = reader.model.valid().forward(choice, Tensor::from_data(x, &device.inner()));
    measured.set(structure.name, 100.0 * wrong(logits, labels) as f64 / TEST as f64);
}

fn samples(structure: &Structure, count: usize, world: &World, rng: &mut Rng) -> (TensorData, Vec<usize>) {
    let mut numbers = vec![0.0; count * NUMBERS];
    let label = |x: &mut [f32]| {
        let class = rng.below(u32::try_from(CLASSES).expect("few classes")) as usize;
        (structure.make)(x, class, world, rng);
        class
    };
    let labels = numbers.chunks_mut(NUMBERS).map(label).collect();
    (TensorData::new(numbers, [count, CHANNELS, POSITIONS]), labels)
}

impl World {
    fn new(rng: &mut Rng) -> Self {
        let mut bells = |count: usize| (0..count).map(|_| rng.bell()).collect::<Vec<f32>>();
        let templates = (0..CLASSES).map(|_| bells(NUMBERS)).collect();
        let levels = (0..CLASSES).map(|_| bells(CHANNELS)).collect();
        let units = (0..CHANNELS).map(|_| [rng.range(-7.0, 7.0).exp2(), 5.0 * rng.bell()]).collect();
        Self { templates, levels, units }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of a structure, normalized, as one row of numbers each.
    fn normalized(structure: &Structure, choice: Choice) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let world = World::new(&mut Rng::new(1, Purpose::Study("axis"), 0));
        let (x, _) = samples(structure, 50, &world, &mut Rng::new(1, Purpose::Study("axis"), 1));
        let shape = MlpShape { widths: vec![NUMBERS, 4], norm: NormKind::Plain };
        let batch = NormConfig::batch().init(CHANNELS, &device);
        let reader = Reader { batch, mlp: Mlp::new(&shape, 0, &device) };
        let y = reader.normalize(choice, Tensor::from_data(x, &device)).into_data();
        y.try_into_vec::<f32>().unwrap().chunks(NUMBERS).map(<[f32]>::to_vec).collect()
    }

    #[test]
    fn each_choice_has_its_own_unit() {
        type Part = fn(usize) -> usize;
        let parts: [(Choice, Part); 5] = [
            (Choice::Sample, |_| 0),
            (Choice::Position, |index| index % POSITIONS),
            (Choice::Block, |index| index % POSITIONS / 4),
            (Choice::Group, |index| index / 24),
            (Choice::Channel, |index| index / POSITIONS),
        ];
        for (choice, part) in parts {
            for sample in normalized(&STRUCTURES[0], choice) {
                for wanted in 0..=part(NUMBERS - 1) {
                    let numbers =
                        || (0..NUMBERS).filter(|&index| part(index) == wanted).map(|index| sample[index]);
                    let mean = numbers().sum::<f32>() / numbers().count() as f32;
                    let square = numbers().map(|x| x * x).sum::<f32>() / numbers().count() as f32;
                    assert!(
                        mean.abs() < 1e-3 && (square - 1.0).abs() < 0.01,
                        "{choice:?} {wanted}: {mean}, {square}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_whole_batch_has_one_scale_a_channel() {
        let samples = normalized(&STRUCTURES[4], Choice::Batch);
        for channel in 0..CHANNELS {
            let numbers = || samples.iter().flat_map(|sample| &sample[channel * POSITIONS..][..POSITIONS]);
            let mean = numbers().sum::<f32>() / numbers().count() as f32;
            assert!(mean.abs() < 1e-3, "{channel}: {mean}");
        }
    }
}
