//! The transformer: its equations, its cache, and who depends on whom.

mod cache;
mod equations;
mod gradients;
mod modules;

use super::*;
use burn::module::{Module, ModuleMapper, Param};
use layernorm_burn::NormConfig;
use layernorm_burn::transformer::{
    BlockConfig, LanguageModel, LanguageModelConfig, Placement, TransformerConfig,
};

const PLACEMENTS: [Placement; 4] = [Placement::None, Placement::Post, Placement::Pre, Placement::Sandwich];

/// Gives every parameter of a module the numbers that `of` has for its index, in a type.
struct Fill<F>(usize, DType, F);

impl<F: Fn(usize, usize) -> Vec<f64>> ModuleMapper for Fill<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        let data = TensorData::new((self.2)(self.0, shape.num_elements()), shape);
        self.0 += 1;
        let device = param.lazy_device();
        let tensor = Tensor::from_data(data, (&device, self.1));
        Param::initialized(param.id, if device.is_autodiff() { tensor.require_grad() } else { tensor })
    }
}

/// The module with parameters in -1..1 that depend on their index alone.
fn filled<M: Module>(module: M, dtype: DType) -> M {
    module.map(&mut Fill(0, dtype, |index, len| numbers(len, 1000 + index as u64)))
}

/// A block of four features and two heads.
fn block(placement: Placement) -> BlockConfig {
    BlockConfig::new(4, 2).with_d_ff(Some(3)).with_placement(placement)
}

/// Two blocks of eight features over 30 tokens, without a limit of length.
fn model(placement: Placement, qk: bool, dtype: DType) -> LanguageModel {
    let block = BlockConfig::new(8, 2)
        .with_placement(placement)
        .with_norm(NormConfig::rms())
        .with_qk_norm(qk.then(NormConfig::layer));
    let config = LanguageModelConfig::new(30, TransformerConfig::new(2, block).with_embedding_norm(qk));
    filled(config.init(&Device::flex()), dtype)
}
