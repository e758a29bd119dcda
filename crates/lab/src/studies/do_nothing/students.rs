//! A student network learns to imitate a teacher of its own shape.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use layernorm_burn::{Affine, Norm, NormConfig};

use crate::models::adam::adam;
use crate::models::fit::Fit;
use crate::models::mlp::linear;
use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};

const INPUTS: usize = 16;
const HIDDEN: usize = 32;
const OUTPUTS: usize = 8;
const BATCH: usize = 64;
const RATE: f64 = 3e-3;
/// In words.
pub const SHAPE: &str = "16-32-8, layer norm, ReLU, batches of 64 that are never seen again";

#[derive(Module, Debug)]
struct Network {
    first: Linear,
    norm: Norm,
    second: Linear,
}

impl Network {
    fn new(affine: Affine, rng: &mut Rng, device: &Device) -> Self {
        Self {
            first: linear([INPUTS, HIDDEN], rng, device),
            norm: NormConfig::layer().with_affine(affine).init(HIDDEN, device),
            second: linear([HIDDEN, OUTPUTS], rng, device),
        }
    }

    /// One with a gain and a bias of its own for each unit.
    fn teacher(rng: &mut Rng, device: &Device) -> Self {
        let mut teacher = Self::new(Affine::PerUnit, rng, device);
        let gains = (0..HIDDEN).map(|_| rng.range(-2.0, 2.0).exp2()).collect();
        let biases = (0..HIDDEN).map(|_| rng.bell()).collect();
        let parameter = |values: Vec<f32>| Some(Param::from_data(TensorData::new(values, [HIDDEN]), device));
        (teacher.norm.gamma, teacher.norm.beta) = (parameter(gains), parameter(biases));
        teacher
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(relu(self.norm.forward(self.first.forward(x))))
    }
}

/// A student with its teacher.
pub struct Student {
    teacher: Network,
    fit: Fit<Network>,
    device: Device,
    inputs: Rng,
    done: usize,
}

impl Student {
    /// One that has learnt nothing yet.
    pub fn new(study: &'static str, affine: Affine, seed: u64) -> Self {
        let stream = |index: u32| Rng::new(seed, Purpose::Study(study), 1000 + index);
        let device = Device::flex().autodiff();
        let teacher = Network::teacher(&mut stream(0), &device.clone().inner());
        let network = Network::new(affine, &mut stream(1), &device);
        Self { teacher, fit: Fit::new(network, adam()), device, inputs: stream(2), done: 0 }
    }

    /// So many updates, with their mean error as a part of the variance of the teacher's outputs.
    pub fn learn(&mut self, updates: usize, measured: &mut Measured) {
        let mut total = 0.0;
        for _ in 0..updates {
            let numbers: Vec<f32> = (0..BATCH * INPUTS).map(|_| self.inputs.bell()).collect();
            let numbers = TensorData::new(numbers, [BATCH, INPUTS]);
            let wanted =
                self.teacher.forward(Tensor::from_data(numbers.clone(), &self.device.clone().inner()));
            let variance = wanted.clone().sub(wanted.clone().mean_dim(0)).square().mean();
            let variance = f64::from(variance.into_scalar::<f32>());
            let x = Tensor::from_data(numbers, &self.device);
            let wanted = Tensor::<2>::from_data(wanted.into_data(), &self.device);
            total +=
                self.fit.update(RATE, |network| (network.forward(x) - wanted).square().mean()) / variance;
        }
        self.done += updates;
        let error = total / updates as f64;
        measured.point("loss", self.done as f64, error);
        // The last span's is the one that stays.
        measured.set("error", error);
    }
}
