//! A record of a module of `burn::nn` loads into ours, and ours into theirs.

use super::*;
use burn::config::Config;
use burn::module::{Module, Param};
use burn::store::ModuleRecord;

/// Through bytes, as through a file.
fn moved<A: Module, B: Module>(from: A, to: B) -> B {
    let bytes = from.into_record().into_bytes().expect("a record");
    to.try_load_record(ModuleRecord::from_bytes(bytes).expect("the same record")).expect("it fits")
}

fn vector(seed: u64, device: &Device) -> Param<Tensor<1>> {
    Param::from_tensor(tensor([6], seed, device, DType::F32))
}

#[test]
fn layer_norm_both_ways() {
    let device = Device::flex();
    for bias in [true, false] {
        let theirs = || burn::nn::LayerNormConfig::new(6).with_bias(bias).init(&device);
        let ours = || layernorm_burn::LayerNormConfig::new(6).with_bias(bias).init(&device);

        let mut from = theirs();
        from.gamma = vector(1, &device);
        from.beta = bias.then(|| vector(2, &device));
        let (gamma, beta) = (from.gamma.val(), from.beta.as_ref().map(|beta| beta.val()));
        let id = from.gamma.id;
        let loaded = moved(from, ours());
        assert_eq!(loaded.gamma.id, id, "an optimizer finds its state by this");
        let back = moved(loaded.clone(), theirs());

        assert_eq!(bits(loaded.gamma.val()), bits(gamma.clone()));
        assert_eq!(bits(back.gamma.val()), bits(gamma));
        assert_eq!(loaded.beta.map(|beta| bits(beta.val())), beta.clone().map(bits));
        assert_eq!(back.beta.map(|beta| bits(beta.val())), beta.map(bits));
    }
}

#[test]
fn rms_norm_both_ways() {
    let device = Device::flex();
    let mut from = layernorm_burn::RmsNormConfig::new(6).init(&device);
    from.gamma = vector(1, &device);
    let gamma = bits(from.gamma.val());
    let there = moved(from, burn::nn::RmsNormConfig::new(6).init(&device));
    assert_eq!(bits(there.gamma.val()), gamma);
    let back = moved(there, layernorm_burn::RmsNormConfig::new(6).init(&device));
    assert_eq!(bits(back.gamma.val()), gamma);
}

/// A module of channels moves from one crate to the other and back with its parameters.
macro_rules! both_ways {
    ($test:ident, $config:ident, $($argument:expr),*) => {
        #[test]
        fn $test() {
            let device = Device::flex();
            let theirs = || burn::nn::$config::new($($argument),*).init(&device);
            let ours = || layernorm_burn::$config::new($($argument),*).init(&device);
            assert_eq!(ours().to_string(), theirs().to_string());
            let mut from = theirs();
            (from.gamma, from.beta) = (vector(1, &device).into(), vector(2, &device).into());
            let there = moved(from.clone(), ours());
            assert_eq!(tensors(&there), tensors(&from));
            assert_eq!(tensors(&moved(there, theirs())), tensors(&from));
            let text = burn::nn::$config::new($($argument),*).to_string();
            let config = layernorm_burn::$config::load_binary(text.as_bytes()).expect("their text");
            assert_eq!(config.to_string(), text);
        }
    };
}

/// The bits of every tensor of a module.
fn tensors(module: &impl Module) -> Vec<Vec<u32>> {
    struct Visitor(Vec<Vec<u32>>);
    impl burn::module::ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.0.push(bits(parameter.val()));
        }
    }
    let mut visitor = Visitor(Vec::new());
    module.visit(&mut visitor);
    visitor.0
}

both_ways!(group_norm_both_ways, GroupNormConfig, 3, 6);
both_ways!(instance_norm_both_ways, InstanceNormConfig, 6);
both_ways!(batch_norm_both_ways, BatchNormConfig, 6);

#[test]
fn running_statistics_go_along() {
    let device = Device::flex().autodiff();
    let theirs = burn::nn::BatchNormConfig::new(6).init(&device);
    theirs.forward(tensor::<2>([8, 6], 1, &device, DType::F32));
    let theirs = theirs.valid();
    let ours = moved(theirs.clone(), layernorm_burn::BatchNormConfig::new(6).init(&Device::flex()));
    assert_eq!(bits(ours.running_mean.value()), bits(theirs.running_mean.value()));
    assert_eq!(bits(ours.running_var.value()), bits(theirs.running_var.value()));
}

#[test]
fn a_record_with_a_bias_does_not_load_without() {
    let device = Device::flex();
    let with = layernorm_burn::LayerNormConfig::new(6).init(&device);
    let without = burn::nn::LayerNormConfig::new(6).with_bias(false).init(&device);
    assert!(without.try_load_record(with.into_record()).is_err());
}

#[test]
fn configurations_are_the_same_text() {
    let theirs = burn::nn::LayerNormConfig::new(6).with_epsilon(1e-6).with_bias(false).to_string();
    let ours = layernorm_burn::LayerNormConfig::load_binary(theirs.as_bytes()).expect("theirs");
    assert_eq!(ours.to_string(), theirs);
    let theirs = burn::nn::RmsNormConfig::new(6).to_string();
    let ours = layernorm_burn::RmsNormConfig::load_binary(theirs.as_bytes()).expect("theirs");
    assert_eq!(ours.to_string(), theirs);
}

#[test]
fn modules_begin_and_look_the_same() {
    let device = Device::flex();
    let theirs = burn::nn::LayerNormConfig::new(6).init(&device);
    let ours = layernorm_burn::LayerNormConfig::new(6).init(&device);
    assert_eq!(bits(ours.gamma.val()), bits(theirs.gamma.val()));
    assert_eq!(ours.beta.as_ref().map(|b| bits(b.val())), theirs.beta.as_ref().map(|b| bits(b.val())));
    assert_eq!(ours.to_string(), theirs.to_string());
    let theirs = burn::nn::RmsNormConfig::new(6).init(&device);
    let ours = layernorm_burn::RmsNormConfig::new(6).init(&device);
    assert_eq!(bits(ours.gamma.val()), bits(theirs.gamma.val()));
    assert_eq!(ours.to_string(), theirs.to_string());
}
