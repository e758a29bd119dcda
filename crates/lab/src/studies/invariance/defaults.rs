//! Whether gain 1 and bias 0 are good first values: a small network that starts from these and from others.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use layernorm_burn::{NormConfig, NormLinear, NormLinearConfig};

use crate::data::Images;
use crate::models::adam::adam;
use crate::models::fit::Fit;
use crate::models::mlp::linear;
use crate::models::norm::EPSILON;
use crate::models::train::{nll, random};
use crate::rng::{Purpose, Rng};

/// Samples of an update.
const BATCH: usize = 32;
/// Units of a hidden layer.
const HIDDEN: usize = 48;
/// Adam's rate.
pub const RATE: f64 = 2e-3;

/// Where all gains and biases start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start {
    /// All gains.
    pub gain: f64,
    /// All biases.
    pub bias: f64,
}

/// Two hidden layers, each linear, layer norm, ReLU; then a linear one.
#[derive(Module, Debug)]
struct Net {
    layers: Vec<NormLinear>,
}

impl Net {
    fn new(inputs: usize, start: Start, seed: u64, device: &Device) -> Self {
        let hidden = NormConfig::layer().with_epsilon(EPSILON).with_initial_gamma(start.gain);
        let sizes =
            [(inputs, HIDDEN, hidden.clone()), (HIDDEN, HIDDEN, hidden), (HIDDEN, 10, NormConfig::none())];
        let layers = (0u32..).zip(sizes).map(|(index, (inputs, units, norm))| {
            let mut layer = NormLinearConfig::new(inputs, units, norm).init(device);
            let mut rng = Rng::new(seed, Purpose::Weights, index);
            layer.linear = linear([inputs, units], &mut rng, device);
            layer.linear.bias = Some(Param::from_tensor(Tensor::zeros([units], device)));
            let beta = || Param::from_tensor(Tensor::full([units], start.bias, device));
            layer.norm.beta = layer.norm.beta.map(|_| beta());
            layer
        });
        Self { layers: layers.collect() }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (last, hidden) = self.layers.split_last().expect("three layers");
        last.forward(hidden.iter().fold(x, |x, layer| relu(layer.forward(x))))
    }
}

/// A network in training.
pub struct Training<'a> {
    images: &'a Images,
    fit: Fit<Net>,
    rng: Rng,
    device: Device,
}

impl<'a> Training<'a> {
    /// From its beginning; weights and samples depend on the seed alone.
    pub fn new(images: &'a Images, start: Start, seed: u64) -> Self {
        let device = Device::flex().autodiff();
        let net = Net::new(images.size(), start, seed, &device);
        Self { images, fit: Fit::new(net, adam()), rng: Rng::new(seed, Purpose::Order, 0), device }
    }

    /// One update on random pictures; the loss before it.
    pub fn update(&mut self) -> f64 {
        let (x, labels) = random(self.images, BATCH, &mut self.rng, &self.device);
        self.fit.update(RATE, |net| nll(net.forward(x), labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;

    #[test]
    fn starts_are_where_they_say() {
        let device = Device::flex();
        let net = Net::new(9, Start { gain: 0.25, bias: -1.0 }, 0, &device);
        let norm = &net.layers[1].norm;
        let values = |p: &Option<Param<Tensor<1>>>| {
            p.as_ref().unwrap().val().into_data().try_into_vec::<f32>().unwrap()
        };
        assert_eq!((values(&norm.gamma), values(&norm.beta)), (vec![0.25; HIDDEN], vec![-1.0; HIDDEN]));
        assert!(net.layers[2].norm.gamma.is_none());
    }

    #[test]
    fn it_learns() {
        let data = data::digits(None, 200, 0).unwrap();
        let mut training = Training::new(&data.train, Start { gain: 1.0, bias: 0.0 }, 0);
        let losses: Vec<f64> = (0..60).map(|_| training.update()).collect();
        assert!(losses[59] < 0.8 * losses[0], "{losses:?}");
    }
}
