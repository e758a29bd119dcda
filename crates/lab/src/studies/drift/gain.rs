//! Gains of 0.1 and of 1 in a recurrent network that must remember: the first step of a sequence shows one of four
//! symbols, all others noise, and at the end it is asked for.

use burn::tensor::{Device, Tensor, TensorData};
use layernorm_burn::recurrent::{Cell, CellState, RecurrentConfig, RecurrentState};
use layernorm_burn::{Affine, NormConfig, NormKind};

use super::net::{Net, column, sequences};
use crate::models::adam::adam;
use crate::models::fit::Fit;
use crate::models::train::nll;
use crate::rng::Rng;

/// Steps of a sequence.
pub const STEPS: usize = 20;
const SYMBOLS: usize = 4;
/// Channels of noise, beside those of the symbols.
const NOISE: usize = 2;
const UNITS: usize = 24;
const BATCH: usize = 32;
/// Adam's rate.
pub const RATE: f64 = 5e-3;
/// The standard deviation of the first hidden state: with none at all, batch norm's statistics of the first step would
/// be 0, as the authors of recurrent batch norm found.
const FIRST: f32 = 0.1;

/// An LSTM with this norm at this first gain: no biases in the norms of summed inputs, as in recurrent batch norm.
fn config(kind: NormKind, gain: f64) -> RecurrentConfig {
    let norm = NormConfig::new(kind).with_initial_gamma(gain).with_steps(STEPS);
    let config =
        RecurrentConfig::lstm(SYMBOLS + NOISE, UNITS).with_norm(norm.clone().with_beta(Affine::None));
    config.with_norm_memory(Some(norm))
}

/// A network in training.
pub struct Recall {
    fit: Fit<Net>,
    rng: Rng,
    device: Device,
}

impl Recall {
    /// From its beginning. The bias of the forget gate is 1, as usual.
    pub fn new(kind: NormKind, gain: f64, seed: u64, rng: Rng) -> Self {
        let device = Device::flex().autodiff();
        let mut net = Net::new(&config(kind, gain), SYMBOLS, seed, &device);
        if let Cell::Lstm(cell) = &mut net.network.cells[0] {
            let bias: Vec<f32> = (0..4 * UNITS).map(|unit| if unit < UNITS { 1.0 } else { 0.0 }).collect();
            let bias = || burn::module::Param::from_data(TensorData::new(bias, [4 * UNITS]), &device);
            cell.b = Some(bias());
        }
        Self { fit: Fit::new(net, adam()), rng, device }
    }

    /// One update on new sequences; the loss before it.
    pub fn update(&mut self) -> f64 {
        let (rng, device) = (&mut self.rng, &self.device);
        let symbols: Vec<u32> = (0..BATCH).map(|_| rng.below(4)).collect();
        let mut values = vec![0.0; BATCH * STEPS * (SYMBOLS + NOISE)];
        for (sequence, &symbol) in values.chunks_mut(STEPS * (SYMBOLS + NOISE)).zip(&symbols) {
            sequence[symbol as usize] = 1.0;
            for step in sequence.chunks_mut(SYMBOLS + NOISE) {
                step[SYMBOLS..].fill_with(|| rng.bell());
            }
        }
        let x = sequences(values, [BATCH, STEPS, SYMBOLS + NOISE], device);
        let h: Vec<f32> = (0..BATCH * UNITS).map(|_| FIRST * rng.bell()).collect();
        let h = Tensor::<2>::from_data(TensorData::new(h, [BATCH, UNITS]), device);
        let first = RecurrentState { t: 0, layers: vec![CellState { c: Some(h.zeros_like()), h }] };
        let labels = column(&symbols, device);
        self.fit.update(RATE, |net| {
            let (_, last) = net.network.forward(x, None, Some(first));
            nll(net.head.forward(last.layers[0].h.clone()), labels)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    #[test]
    fn gains_start_where_they_say() {
        let recall = Recall::new(NormKind::Batch, 0.1, 0, Rng::new(1, Purpose::Check, 0));
        let Cell::Lstm(cell) = &recall.fit.model.network.cells[0] else { panic!("it is an LSTM") };
        for norm in [&cell.norm_x, &cell.norm_h, &cell.norm_c] {
            let gamma = norm.gamma.as_ref().unwrap().val().into_data().try_into_vec::<f32>().unwrap();
            assert!(gamma.iter().all(|&gain| gain == 0.1), "{gamma:?}");
            assert_eq!(norm.running.len(), STEPS);
        }
        assert!(cell.norm_x.beta.is_none() && cell.norm_c.beta.is_some());
    }

    #[test]
    fn the_same_seed_gives_the_same_losses() {
        let losses = || {
            let mut recall = Recall::new(NormKind::Layer, 1.0, 3, Rng::new(3, Purpose::Check, 0));
            (0..3).map(|_| recall.update()).collect::<Vec<_>>()
        };
        assert_eq!(losses(), losses());
    }
}
