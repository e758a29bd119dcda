//! A network with one hidden layer that its norm makes invariant: no bias stands before the norm.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use super::norm::{Norm, NormKind};

/// Linear without a bias, norm, ReLU, linear to ten classes.
#[derive(Module, Debug)]
pub struct Unbiased {
    /// The weights that are normalized.
    pub first: Linear,
    norm: Norm,
    last: Linear,
}

impl Unbiased {
    /// Inputs and hidden units are `widths`.
    pub fn new(kind: NormKind, epsilon: f64, widths: [usize; 2], device: &Device) -> Self {
        let [inputs, hidden] = widths;
        Self {
            first: LinearConfig::new(inputs, hidden).with_bias(false).init(device),
            norm: Norm::with_epsilon(kind, epsilon, hidden, device),
            last: LinearConfig::new(hidden, 10).init(device),
        }
    }

    /// Logits, `[batch, 10]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.last.forward(relu(self.norm.forward(self.first.forward(x))))
    }

    /// The first layer's weights.
    pub fn weights(&self) -> Vec<f64> {
        let weights = self.first.weight.val().into_data().try_into_vec::<f32>().expect("the model is f32");
        weights.into_iter().map(f64::from).collect()
    }
}
