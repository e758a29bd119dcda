//! A recurrent layer with a linear read-out.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use layernorm_burn::recurrent::{Recurrent, RecurrentConfig};

use crate::rng::{Purpose, Rng};

/// A recurrent layer, and what it says of its hidden state.
#[derive(Module, Debug)]
pub struct Net {
    /// The layer.
    pub network: Recurrent,
    /// From hidden states to logits.
    pub head: Linear,
}

impl Net {
    /// A network whose matrices depend on the seed alone: uniform within 1 / sqrt(units).
    pub fn new(config: &RecurrentConfig, classes: usize, seed: u64, device: &Device) -> Self {
        let network = config.init(device);
        let head = LinearConfig::new(config.d_hidden, classes).with_bias(false).init(device);
        let bound = 1.0 / (config.d_hidden as f32).sqrt();
        Self { network, head }.map(&mut Matrices { rng: Rng::new(seed, Purpose::Weights, 0), bound })
    }
}

/// Draws all matrices, and leaves gains and biases where they are.
struct Matrices {
    rng: Rng,
    bound: f32,
}

impl ModuleMapper for Matrices {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 2 {
            return param;
        }
        let (id, old, _) = param.consume();
        let shape = old.dims();
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| self.rng.range(-self.bound, self.bound)).collect();
        let new = Tensor::from_data(TensorData::new(values, shape), &old.device());
        let learns = new.is_autodiff();
        Param::initialized(id, new.set_require_grad(learns))
    }
}

/// Numbers as a tensor of `[batch, time, features]`.
pub fn sequences(values: Vec<f32>, shape: [usize; 3], device: &Device) -> Tensor<3> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Labels as a column.
pub fn column(labels: &[u32], device: &Device) -> Tensor<2, Int> {
    let labels: Vec<i32> = labels.iter().map(|&label| i32::try_from(label).expect("a few classes")).collect();
    let count = labels.len();
    Tensor::from_data(TensorData::new(labels, [count, 1]), device)
}
