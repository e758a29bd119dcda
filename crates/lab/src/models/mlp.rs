//! The paper's network for permutation-invariant MNIST: linear, norm, ReLU, twice; then linear.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};

use super::norm::{Norm, NormKind};
use crate::rng::{Purpose, Rng};

/// A multi-layer perceptron with a normalization before each ReLU.
#[derive(Module, Debug)]
pub struct Mlp {
    linears: Vec<Linear>,
    norms: Vec<Norm>,
}

/// The shape of an [`Mlp`].
#[derive(Clone, Debug)]
pub struct MlpShape {
    /// Features of the input, of each hidden layer and of the output.
    pub widths: Vec<usize>,
    /// The normalization.
    pub norm: NormKind,
}

impl Mlp {
    /// A network whose first weights depend on `seed` alone, so that all arms of a seed start from the same ones:
    /// uniform within ±1/sqrt(inputs), as Burn's and PyTorch's linear layers do.
    pub fn new(shape: &MlpShape, seed: u64, device: &Device) -> Self {
        let layers = shape.widths.windows(2).enumerate();
        let linears = layers
            .map(|(layer, widths)| {
                let index = u32::try_from(layer).expect("fewer layers than 2^32");
                linear([widths[0], widths[1]], &mut Rng::new(seed, Purpose::Weights, index), device)
            })
            .collect();
        // The paper puts batch norm on the softmax's inputs too, and layer norm on hidden layers only.
        let normalized = shape.widths.len() - if shape.norm == NormKind::Batch { 0 } else { 1 };
        let norms =
            shape.widths[1..normalized].iter().map(|&width| Norm::new(shape.norm, width, device)).collect();
        Self { linears, norms }
    }

    /// Logits, `[batch, classes]`.
    pub fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        let last = self.linears.len() - 1;
        for (layer, linear) in self.linears.iter().enumerate() {
            x = linear.forward(x);
            if let Some(norm) = self.norms.get(layer) {
                x = norm.forward(x);
            }
            if layer < last {
                x = relu(x);
            }
        }
        x
    }
}

/// A linear layer: uniform within ±1/sqrt(inputs).
pub fn linear([inputs, outputs]: [usize; 2], rng: &mut Rng, device: &Device) -> Linear {
    let bound = 1.0 / (inputs as f32).sqrt();
    let mut draw = |count| (0..count).map(|_| rng.range(-bound, bound)).collect::<Vec<f32>>();
    let weight = TensorData::new(draw(inputs * outputs), [inputs, outputs]);
    let bias = TensorData::new(draw(outputs), [outputs]);
    Linear { weight: Param::from_data(weight, device), bias: Some(Param::from_data(bias, device)) }
}
