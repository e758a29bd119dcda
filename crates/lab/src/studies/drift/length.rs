//! A network that collects evidence, step by step, trained on sequences of up to twenty steps and tested on sixty. With
//! batch norm by time step it keeps statistics for each of the twenty.
//!
//! Each sequence belongs to one of four classes, and each of its steps is noise with a hint of the class. So more steps
//! make the answer surer, and a network that goes on as it did gets better beyond the lengths that it was trained on.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, s};
use layernorm_burn::recurrent::{Cell, Recurrent, RecurrentConfig};
use layernorm_burn::{BatchMode, Norm, NormConfig, NormKind, Running};

use super::net::{Net, column, sequences};
use crate::models::adam::adam;
use crate::models::fit::Fit;
use crate::models::train::nll;
use crate::rng::Rng;

/// The longest sequence in training.
pub const LONGEST: usize = 20;
/// The length in tests.
pub const BEYOND: usize = 60;
const CLASSES: usize = 4;
const UNITS: usize = 24;
/// How much a step's input leans towards its class; the noise has standard deviation 1.
const HINT: f32 = 0.6;
/// Adam's rate.
pub const RATE: f64 = 5e-3;

/// An RNN with this norm.
fn config(norm: NormConfig) -> RecurrentConfig {
    RecurrentConfig::rnn(CLASSES, UNITS).with_norm(norm)
}

/// The norm of an arm: batch norm has statistics for each step of the longest sequence.
pub fn norm(kind: NormKind) -> NormConfig {
    NormConfig::new(kind).with_steps(LONGEST)
}

/// Some sequences with their classes, and how far each goes, the longest first.
struct Batch {
    x: Tensor<3>,
    labels: Tensor<2, Int>,
    lengths: Vec<usize>,
}

impl Batch {
    /// `size` sequences of the lengths that `length` draws.
    fn new(size: usize, rng: &mut Rng, device: &Device, mut length: impl FnMut(&mut Rng) -> usize) -> Self {
        let mut lengths: Vec<usize> = (0..size).map(|_| length(rng)).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let classes = u32::try_from(CLASSES).expect("four");
        let labels: Vec<u32> = (0..size).map(|_| rng.below(classes)).collect();
        let mut values = Vec::with_capacity(size * lengths[0] * CLASSES);
        for &label in &labels {
            for feature in (0..lengths[0]).flat_map(|_| 0..classes) {
                values.push(rng.bell() + if feature == label { HINT } else { 0.0 });
            }
        }
        Self {
            x: sequences(values, [size, lengths[0], CLASSES], device),
            labels: column(&labels, device),
            lengths,
        }
    }

    /// In training: lengths from 4 to the longest, of which there are at least two, as batch norm needs company.
    fn for_training(size: usize, rng: &mut Rng, device: &Device) -> Self {
        let span = u32::try_from(LONGEST - 3).expect("short");
        let mut drawn = 0;
        Self::new(size, rng, device, |rng| {
            drawn += 1;
            if drawn <= 2 { LONGEST } else { 4 + rng.below(span) as usize }
        })
    }

    /// Logits at each step, of the sequences that reach it.
    fn logits(&self, net: &Net) -> Vec<Tensor<2>> {
        let cell = &net.network.cells[0];
        let at = |t: usize, alive: usize| self.x.clone().slice([0..alive, t..t + 1]).squeeze_dim::<2>(1);
        let mut state = cell.initial(&at(0, self.lengths.len()));
        (0..self.lengths[0])
            .map(|t| {
                let alive = self.lengths.iter().take_while(|&&length| length > t).count();
                state.h = state.h.clone().slice(s![0..alive]);
                state = cell.step(at(t, alive), state.clone(), t);
                net.head.forward(state.h.clone())
            })
            .collect()
    }

    /// The mean loss over all steps of all sequences.
    fn loss(&self, net: &Net) -> Tensor<1> {
        let logits = self.logits(net);
        let labels = logits.iter().map(|logits| self.labels.clone().slice(s![0..logits.dims()[0]])).collect();
        nll(Tensor::cat(logits, 0), Tensor::cat(labels, 0))
    }
}

/// A network of this kind in training.
pub struct Evidence {
    fit: Fit<Net>,
    kind: NormKind,
    batch: usize,
    rng: Rng,
    device: Device,
}

impl Evidence {
    /// From its beginning, with batches of this size.
    pub fn new(kind: NormKind, batch: usize, seed: u64, rng: Rng) -> Self {
        let device = Device::flex().autodiff();
        let net = Net::new(&config(norm(kind)), CLASSES, seed, &device);
        Self { fit: Fit::new(net, adam()), kind, batch, rng, device }
    }

    /// One update; nothing where batch norm would have to train on a batch of one.
    pub fn update(&mut self) {
        if self.kind == NormKind::Batch && self.batch < 2 {
            return;
        }
        let batch = Batch::for_training(self.batch, &mut self.rng, &self.device);
        self.fit.update(RATE, |net| batch.loss(net));
    }

    /// Right answers after each step of long sequences, in per cent.
    pub fn accuracy(&self, sequences: usize, rng: &mut Rng) -> Vec<f64> {
        let device = Device::flex();
        let batch = Batch::new(sequences, rng, &device, |_| BEYOND);
        let net = self.fit.model.valid();
        let right = |logits: Tensor<2>| {
            let best = logits.argmax(1).equal(batch.labels.clone());
            100.0 * f64::from(best.int().sum().into_scalar::<i32>()) / sequences as f64
        };
        batch.logits(&net).into_iter().map(right).collect()
    }

    /// How far the kept variances are off those of many long sequences, at each step: the mean over units of
    /// |ln(kept / of the many)|. Empty for a norm that keeps none.
    pub fn off(&self, sequences: usize, rng: &mut Rng) -> Vec<f64> {
        let net = self.fit.model.valid();
        let kept = &norm_of(&net.network).running;
        if kept.is_empty() {
            return Vec::new();
        }
        let device = Device::flex();
        let batch = Batch::new(sequences, rng, &device, |_| BEYOND);
        let many = measuring(&net, &device);
        batch.logits(&many);
        let many = norm_of(&many.network).running.iter();
        let variances = |t: Tensor<1>| t.into_data().try_into_vec::<f32>().expect("f32 in, f32 out");
        many.enumerate()
            .map(|(t, many)| {
                let [_, kept] = kept[t.min(LONGEST - 1)].values();
                let [_, many] = many.values();
                let logs = variances(kept / many).into_iter().map(|ratio| libm::log(f64::from(ratio)).abs());
                logs.sum::<f64>() / UNITS as f64
            })
            .collect()
    }
}

/// The same network, which takes each step's statistics from the batch that it is given, and keeps them as they are.
fn measuring(net: &Net, device: &Device) -> Net {
    let at_once = Running::new().with_momentum(1.0);
    let norm = NormConfig::batch().with_steps(BEYOND).with_running(at_once).with_mode(BatchMode::Train);
    let mut copy = Net { network: config(norm).init(device), head: net.head.clone() };
    if let (Cell::Rnn(to), Cell::Rnn(from)) = (&mut copy.network.cells[0], &net.network.cells[0]) {
        (to.w_x, to.w_h, to.b) = (from.w_x.clone(), from.w_h.clone(), from.b.clone());
        (to.norm.gamma, to.norm.beta) = (from.norm.gamma.clone(), from.norm.beta.clone());
    }
    copy
}

fn norm_of(network: &Recurrent) -> &Norm {
    match &network.cells[0] {
        Cell::Rnn(cell) => &cell.norm,
        _ => unreachable!("the network is an RNN"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn rng() -> Rng {
        Rng::new(1, Purpose::Check, 0)
    }

    #[test]
    fn sequences_end_when_they_end() {
        let device = Device::flex();
        let batch = Batch::for_training(16, &mut rng(), &device);
        let net = Net::new(&config(norm(NormKind::Layer)), CLASSES, 0, &device);
        let logits = batch.logits(&net);
        assert_eq!(logits.len(), LONGEST);
        for (t, logits) in logits.iter().enumerate() {
            assert_eq!(logits.dims()[0], batch.lengths.iter().filter(|&&length| length > t).count());
        }
        // The same as the runner with whole sequences, for the first one, which is among the longest.
        let (outputs, _) = net.network.forward(batch.x.clone(), None, None);
        let whole = net.head.forward(outputs).slice([0..1, LONGEST - 1..LONGEST]).into_data();
        let last = logits[LONGEST - 1].clone().slice(s![0..1]).into_data();
        let [a, b] = [whole, last].map(|data| data.try_into_vec::<f32>().unwrap());
        a.iter().zip(&b).for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} and {b}"));
    }

    #[test]
    fn it_learns_and_kept_statistics_approach_the_true_ones() {
        let mut evidence = Evidence::new(NormKind::Batch, 16, 0, rng());
        let before = evidence.off(200, &mut rng());
        (0..60).for_each(|_| evidence.update());
        let after = evidence.off(200, &mut rng());
        assert_eq!((before.len(), after.len()), (BEYOND, BEYOND));
        assert!(after[1] < 0.5 * before[1], "{} from {}", after[1], before[1]);
        let accuracy = evidence.accuracy(400, &mut rng());
        assert!(accuracy[LONGEST - 1] > 40.0, "{accuracy:?}");
    }

    #[test]
    fn a_batch_of_one_leaves_batch_norm_untrained() {
        let mut evidence = Evidence::new(NormKind::Batch, 1, 0, rng());
        let before = evidence.accuracy(50, &mut rng());
        evidence.update();
        assert_eq!(evidence.accuracy(50, &mut rng()), before);
        let mut evidence = Evidence::new(NormKind::Layer, 1, 0, rng());
        let before = evidence.accuracy(50, &mut rng());
        (0..5).for_each(|_| evidence.update());
        assert_ne!(evidence.accuracy(50, &mut rng()), before);
    }
}
