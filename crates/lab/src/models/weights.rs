//! First weights for any model, by the lab's own random numbers: Burn's depend on the platform and on who drew before.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};

use crate::rng::{Purpose, Rng};

/// The standard deviation of a linear layer's weights, by its inputs and outputs.
pub type Deviation = fn(inputs: usize, outputs: usize) -> f32;

/// Glorot and Bengio 2010: keeps the scale forward and backward alike, for layers without an activation.
pub fn xavier(inputs: usize, outputs: usize) -> f32 {
    (2.0 / (inputs + outputs) as f32).sqrt()
}

/// He et al. 2015: keeps the scale through a ReLU.
pub fn he(inputs: usize, _: usize) -> f32 {
    (2.0 / inputs as f32).sqrt()
}

/// The model with linear weights drawn from a bell of this deviation, biases 0, and embeddings from a bell of deviation
/// 1. Other parameters, the norms' gains and biases, stay as they are. Depends on `seed` and the model's shape alone.
pub fn drawn<M: Module>(model: M, seed: u64, deviation: impl Fn(usize, usize) -> f32) -> M {
    model.map(&mut Draw { seed, deviation, drawn: 0, inside: Vec::new() })
}

struct Draw<F> {
    seed: u64,
    deviation: F,
    /// Parameters so far: each has a stream of random numbers of its own.
    drawn: u32,
    /// The modules around, from the outermost to the innermost.
    inside: Vec<String>,
}

impl<F: Fn(usize, usize) -> f32> ModuleMapper for Draw<F> {
    fn enter_module(&mut self, _: &str, container_type: &str) {
        self.inside.push(container_type.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.inside.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        let deviation = match (self.inside.last().map(String::as_str), &shape[..]) {
            (Some("Struct:Linear"), &[inputs, outputs]) => (self.deviation)(inputs, outputs),
            (Some("Struct:Linear"), _) => 0.0,
            (Some("Struct:Embedding"), _) => 1.0,
            _ => return param,
        };
        let mut rng = Rng::new(self.seed, Purpose::Weights, self.drawn);
        self.drawn += 1;
        let values: Vec<f32> = (0..shape.num_elements()).map(|_| deviation * rng.bell()).collect();
        with_value(param, TensorData::new(values, shape))
    }
}

fn with_value<const D: usize>(param: Param<Tensor<D>>, data: TensorData) -> Param<Tensor<D>> {
    let device: Device = param.lazy_device();
    let tensor = Tensor::from_data(data, &device);
    Param::initialized(param.id, if device.is_autodiff() { tensor.require_grad() } else { tensor })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::list_param_ids;
    use layernorm_burn::transformer::{BlockConfig, LanguageModelConfig, TransformerConfig};

    #[test]
    fn depend_on_the_seed_alone_and_learn() {
        let config = LanguageModelConfig::new(5, TransformerConfig::new(2, BlockConfig::new(16, 2)));
        let make = |seed| drawn(config.init(&Device::flex().autodiff()), seed, xavier);
        let data = |model: &layernorm_burn::transformer::LanguageModel| {
            let block = &model.transformer.blocks[1];
            let tensors = [&block.attention.value, &block.feed_forward.linear_inner].map(|l| l.weight.val());
            tensors.map(|weight| weight.into_data().try_into_vec::<f32>().unwrap())
        };
        let (model, again, other) = (make(3), make(3), make(4));
        assert_eq!(data(&model), data(&again));
        assert_ne!(data(&model), data(&other));
        for (values, variance) in data(&model).iter().zip([2.0 / 32.0, 2.0 / 80.0]) {
            let mean_square = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
            assert!((mean_square / variance - 1.0).abs() < 0.3, "{mean_square} and not {variance}");
        }
        let tokens = Tensor::from_data([[1, 2, 3]], &Device::flex().autodiff());
        let gradients = model.forward(tokens).tanh().sum().backward();
        let gradients = burn::optim::GradientsParams::from_grads(gradients, &model);
        assert_eq!(gradients.len(), list_param_ids(&model).len());
    }
}
