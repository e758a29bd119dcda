//! A small classifier is trained, and then one picture's answer is read while the other pictures of its batch change.

use burn::module::Module;
use burn::tensor::Device;
use burn::tensor::activation::softmax;

use super::exchange::differing;
use crate::data::Split;
use crate::models::mlp::{Mlp, MlpShape};
use crate::models::norm::NormKind;
use crate::models::train::{Recipe, Training, best, tensors};
use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};
use crate::study::Unit;

/// Pictures in a batch: the one that is read, and its neighbours.
pub const BATCH: usize = 32;
/// Times that the neighbours are exchanged.
pub const EXCHANGES: usize = 8;
const EPOCHS: u64 = 3;

/// One picture's answers, batch by batch, in training mode and in inference.
struct Answers {
    /// Probabilities of the ten digits.
    modes: [Vec<Vec<f32>>; 2],
    label: usize,
}

/// Trains a classifier with this norm, and reads its answers to `pictures` pictures.
pub fn read(norm: NormKind, data: &Split, pictures: usize, seed: u64, measured: &mut Measured) {
    let shape = MlpShape { widths: vec![data.train.size(), 64, 64, 10], norm };
    let recipe = Recipe { shape, batch: BATCH, epochs: EPOCHS, rate: 1e-3, spans: 1, tests: 1, ticks: 1 };
    let mut training = Training::new(recipe, data, seed, None).expect("nothing saved that could be wrong");
    while training.advance().expect("an update can't fail") {}
    let model = training.model();
    // Taken before the passes in training mode, which move batch norm's running statistics.
    let served = model.valid();
    let mut rng = Rng::new(seed, Purpose::Study("neighbours"), 1);
    let mut worst: Option<(f32, Answers)> = None;
    for picture in 0..pictures {
        let answers = answers([model, &served], data, picture, &mut rng);
        answers.count(measured);
        let range = answers.range();
        if worst.as_ref().is_none_or(|(most, _)| range > *most) {
            worst = Some((range, answers));
        }
    }
    for (name, answers) in
        ["training mode", "inference"].iter().zip(worst.iter().flat_map(|(_, a)| a.right()))
    {
        for (exchange, p) in answers.into_iter().enumerate() {
            measured.point(name, (exchange + 1) as f64, 100.0 * f64::from(p));
        }
    }
}

fn answers(models: [&Mlp; 2], data: &Split, picture: usize, rng: &mut Rng) -> Answers {
    let device = Device::flex().autodiff();
    let devices = [device.clone(), device.inner()];
    let count = u32::try_from(data.test.len()).expect("few pictures");
    let mut modes = [Vec::new(), Vec::new()];
    for _ in 0..EXCHANGES {
        let members: Vec<usize> =
            std::iter::once(picture).chain((1..BATCH).map(|_| rng.below(count) as usize)).collect();
        for ((mode, model), device) in modes.iter_mut().zip(models).zip(&devices) {
            let (x, _) = tensors(&data.test, &members, device);
            let p = softmax(model.forward(x), 1).narrow(0, 0, 1).into_data();
            mode.push(p.try_into_vec().expect("f32 in, f32 out"));
        }
    }
    Answers { modes, label: usize::from(data.test.labels[picture]) }
}

impl Answers {
    fn count(&self, measured: &mut Measured) {
        let [training, inference] = &self.modes;
        for (name, mode) in [("training", training), ("inference", inference)] {
            let others = || mode[1..].iter().map(|p| (best(p) != best(&mode[0]), differing(p, &mode[0])));
            measured.add(
                &format!("answers changed in {name}"),
                others().filter(|(changed, _)| *changed).count() as f64,
            );
            measured.add(
                &format!("numbers moved in {name}"),
                others().map(|(_, bits)| bits).sum::<usize>() as f64,
            );
        }
        let modes_differ = training.iter().zip(inference).filter(|(a, b)| best(a) != best(b)).count();
        measured.add("answers changed between modes", modes_differ as f64);
        measured.add("answers compared", (EXCHANGES - 1) as f64);
        measured.add("modes compared", EXCHANGES as f64);
    }

    /// The right digit's probability, batch by batch.
    fn right(&self) -> [Vec<f32>; 2] {
        self.modes.each_ref().map(|mode| mode.iter().map(|p| p[self.label]).collect())
    }

    /// How far the right digit's probability ranges in training mode.
    fn range(&self) -> f32 {
        let [training, _] = self.right();
        let low = training.iter().copied().fold(f32::INFINITY, f32::min);
        training.iter().copied().fold(f32::NEG_INFINITY, f32::max) - low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_against_the_first_batch() {
        let sure = vec![0.9, 0.1];
        let flips = vec![sure.clone(), vec![0.2, 0.8], sure.clone()];
        let answers = Answers { modes: [flips, vec![sure.clone(), sure.clone(), sure]], label: 0 };
        let mut measured = Measured::default();
        answers.count(&mut measured);
        assert_eq!(measured.values["answers changed in training"], 1.0);
        assert_eq!(measured.values["numbers moved in training"], 2.0);
        assert_eq!(measured.values["answers changed in inference"], 0.0);
        assert_eq!(measured.values["answers changed between modes"], 1.0);
        assert!((answers.range() - 0.7).abs() < 1e-6);
    }
}
