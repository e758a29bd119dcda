//! How the modules begin, are set, saved and trained; and what they refuse.

use super::*;
use burn::module::{ModuleVisitor, list_param_ids};
use burn::nn::Initializer;
use burn::optim::{AdamConfig, GradientsParams};
use burn::store::ModuleRecord;
use layernorm_burn::transformer::{CausalAttentionConfig, KeyValueCache};

fn config() -> LanguageModelConfig {
    let block = BlockConfig::new(8, 2).with_qk_norm(Some(NormConfig::rms()));
    LanguageModelConfig::new(20, TransformerConfig::new(2, block)).with_positions(Some(6))
}

fn tokens(device: &Device) -> Tensor<2, burn::tensor::Int> {
    Tensor::from_data([[1, 5, 2, 19, 0], [7, 7, 3, 2, 1]], device)
}

/// The bits of all parameters.
fn weights(module: &impl Module) -> Vec<Vec<u32>> {
    struct Bits(Vec<Vec<u32>>);
    impl ModuleVisitor for Bits {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(bits(param.val()));
        }
    }
    let mut collect = Bits(Vec::new());
    module.visit(&mut collect);
    collect.0
}

#[test]
fn weights_come_from_outside() {
    let device = Device::flex().autodiff();
    let models = [(); 2].map(|()| filled(config().init(&device), DType::F32));
    let [first, second] = models.each_ref().map(weights);
    assert_eq!(first, second, "Burn's random numbers are gone");
    assert_eq!(first.len(), list_param_ids(&models[0]).len());

    // And they learn.
    let [mut model, _] = models;
    let loss = |model: &LanguageModel| model.forward(tokens(&device)).square().mean();
    let before = loss(&model).into_scalar::<f32>();
    let mut optimizer = AdamConfig::new().init();
    for _ in 0..20 {
        let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
        assert_eq!(gradients.len(), list_param_ids(&model).len(), "every parameter has a gradient");
        model = optimizer.step(1e-2, model, gradients);
    }
    let after = loss(&model).into_scalar::<f32>();
    assert!(after < 0.8 * before, "{before} to {after}");
    assert!(weights(&model).iter().zip(first).all(|(after, before)| *after != before), "all have moved");
}

#[test]
fn a_record_keeps_all() {
    let device = Device::flex();
    let model = filled(config().init(&device), DType::F32);
    let bytes = model.clone().into_record().into_bytes().expect("a record");
    let record = ModuleRecord::from_bytes(bytes).expect("the same");
    let loaded = config().init(&device).try_load_record(record).expect("it fits");
    assert_eq!(bits(loaded.forward(tokens(&device))), bits(model.forward(tokens(&device))));
}

#[test]
fn residual_weights_begin_smaller_by_request() {
    let device = Device::flex().autodiff();
    let block = BlockConfig::new(4, 2).with_initializer(Initializer::Constant { value: 3.0 });
    let stack = TransformerConfig::new(8, block).with_scale_residual(true).init(&device);
    for block in &stack.blocks {
        let scaled = [&block.attention.output, &block.feed_forward.linear_outer];
        let kept = [&block.attention.query, &block.attention.value, &block.feed_forward.linear_inner];
        for (linears, expected) in [(&scaled[..], 3.0 / 4.0), (&kept[..], 3.0)] {
            for linear in linears {
                assert!(vec_of::<f32, 2>(linear.weight.val()).iter().all(|&w| w == expected));
                assert!(
                    vec_of::<f32, 1>(linear.bias.as_ref().expect("a bias").val()).iter().all(|&b| b == 3.0)
                );
            }
        }
    }
    let y = stack.forward(tensor([1, 3, 4], 1, &device, DType::F32));
    let gradients = GradientsParams::from_grads(y.tanh().sum().backward(), &stack);
    assert_eq!(gradients.len(), list_param_ids(&stack).len(), "scaled weights are leaves and learn");
}

#[test]
fn a_configuration_survives_as_text() {
    let text = config().to_string();
    let again =
        <LanguageModelConfig as burn::config::Config>::load_binary(text.as_bytes()).expect("the same");
    assert_eq!(again.to_string(), text);
}

#[test]
#[should_panic(expected = "d_model is 10 and n_heads is 4")]
fn heads_share_the_features_evenly() {
    CausalAttentionConfig::new(10, 4).init(&Device::flex());
}

#[test]
#[should_panic(expected = "Batch is no norm by rows")]
fn a_norm_over_tokens_is_refused() {
    BlockConfig::new(8, 2).with_norm(NormConfig::batch()).init(&Device::flex());
}

#[test]
#[should_panic(expected = "tokens 5..10 were given and there are 6 positions")]
fn positions_end() {
    let model = config().init(&Device::flex());
    let mut cache = model.transformer.new_cache();
    model.forward_cache(tokens(&Device::flex()), &mut cache);
    model.forward_cache(tokens(&Device::flex()), &mut cache);
}

#[test]
#[should_panic(
    expected = "the cache holds [2, 2, 3, 4] (batch, heads, tokens, features) and [1, 2, 1, 4] follow"
)]
fn another_batch_does_not_continue() {
    let attention = CausalAttentionConfig::new(8, 2).init(&Device::flex());
    let mut cache = KeyValueCache::new();
    attention.forward_cache(Tensor::ones([2, 3, 8], &Device::flex()), &mut cache);
    attention.forward_cache(Tensor::ones([1, 1, 8], &Device::flex()), &mut cache);
}

#[test]
#[should_panic(expected = "the cache is for 2 blocks and there are 3")]
fn another_stack_does_not_continue() {
    let stack = |n| TransformerConfig::new(n, BlockConfig::new(8, 2)).init(&Device::flex());
    stack(3).forward_cache(Tensor::ones([1, 1, 8], &Device::flex()), &mut stack(2).new_cache());
}
