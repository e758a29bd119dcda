//! Layer norm and residual connections, two by two: a deep network with both, either, or none of them.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use layernorm_burn::NormConfig;
use layernorm_burn::transformer::{Placement, Residual, ResidualConfig};

use super::Size;
use crate::data::Images;
use crate::models::adam::adam;
use crate::models::fit::{self, Fit};
use crate::models::train::{nll, of_update};
use crate::models::weights::{Deviation, drawn, he};
use crate::report::model::Measured;

/// Features of a layer, and pictures of an update.
const WIDTH: usize = 64;
const BATCH: usize = 64;

/// Adam's rates and the first weights' deviations, of which each arm takes its best: He's keeps a plain network's
/// scale and lets a residual one explode; the smaller one, which is PyTorch's and Burn's, the other way round.
const RATES: [f64; 2] = [1e-3, 3e-3];
const BEGINNINGS: [(&str, Deviation); 2] = [("He's weights", he), ("small weights", small)];

/// How many trainings an arm has.
pub const STEPS: usize = RATES.len() * BEGINNINGS.len();

/// With or without each of the two.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// x -> F(norm(x)) in place of F(x).
    pub norm: bool,
    /// x -> x + F(x) in place of F(x).
    pub residual: bool,
}

/// A network of `depth` layers F(x) = relu(x W + b) between two linear ones.
#[derive(Module, Debug)]
struct Deep {
    input: Linear,
    layers: Vec<Layer>,
    output: Linear,
}

#[derive(Module, Debug)]
struct Layer {
    around: Residual,
    linear: Linear,
    residual: bool,
}

impl Deep {
    fn new(parts: Parts, inputs: usize, depth: usize, device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let placement = if parts.norm { Placement::Pre } else { Placement::None };
        let layer = |_| Layer {
            around: ResidualConfig::new(WIDTH, placement, NormConfig::layer()).init(device),
            linear: linear(WIDTH, WIDTH),
            residual: parts.residual,
        };
        Self {
            input: linear(inputs, WIDTH),
            layers: (0..depth).map(layer).collect(),
            output: linear(WIDTH, 10),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.layers.iter().fold(self.input.forward(x), |x, layer| layer.forward(x));
        self.output.forward(x)
    }
}

impl Layer {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let f = |x| relu(self.linear.forward(x));
        if self.residual {
            return self.around.forward(x, f);
        }
        f(match &self.around.before {
            Some(norm) => norm.forward(x),
            None => x,
        })
    }
}

/// Training number `step`, on digits.
pub fn train(parts: Parts, size: &Size, images: &Images, seed: u64, step: usize, measured: &mut Measured) {
    let device = Device::flex().autodiff();
    let (rate, (_, deviation)) = (RATES[step % RATES.len()], BEGINNINGS[step / RATES.len()]);
    let model = drawn(Deep::new(parts, images.size(), size.layers, &device), seed, deviation);
    let losses = Fit::new(model, adam()).train(
        size.crossed,
        |_| rate,
        |model, update| {
            let (x, labels) = of_update(images, BATCH, seed, update, &device);
            nll(model.forward(x), labels)
        },
    );
    measured.set(&run_name(step), fit::late(&losses, 10f64.ln()));
    measured.curves.insert(run_name(step), fit::curve(&losses, 25));
}

/// The name of a training's curve and of its final loss.
pub fn run_name(step: usize) -> String {
    format!("loss at {:e} from {}", RATES[step % RATES.len()], BEGINNINGS[step / RATES.len()].0)
}

/// A variance of a third of one over the inputs, as PyTorch's uniform weights have.
fn small(inputs: usize, _: usize) -> f32 {
    (1.0 / (3.0 * inputs as f32)).sqrt()
}
