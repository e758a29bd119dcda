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
