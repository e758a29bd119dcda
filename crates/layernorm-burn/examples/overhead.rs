//! What a call through Burn costs beside the bare kernel, and beside Burn's own:
//! `cargo run --release -p layernorm-burn --example overhead`.
//!
//! Every time is the best of many, because whatever else the machine does only adds.

use burn::tensor::{Device, Distribution, Tensor};
use layernorm::{Params, Rows, RowsMut, Run};
use std::hint::black_box;
use std::time::Instant;

const EPS: f64 = 1e-5;

/// The best time of one call, in microseconds.
fn best<V>(mut call: impl FnMut() -> V) -> f64 {
    let start = Instant::now();
    let (mut best, mut calls) = (f64::INFINITY, 0);
    while calls < 20 || start.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        let result = black_box(call());
        best = best.min(start.elapsed().as_secs_f64());
        drop(result);
        calls += 1;
    }
    best * 1e6
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Default, device)
}

fn main() -> Result<(), layernorm::Error> {
    let device = Device::flex();
    println!("layer norm in f32, best times in microseconds");
    println!(
        "{:>14} {:>10} {:>10} {:>10} {:>10} {:>14}",
        "shape", "kernel", "and Vec", "ours", "Burn", "ours, fwd+bwd"
    );
    for (rows, features) in [(1, 64), (1, 768), (16, 768), (512, 768), (4096, 768), (16384, 1024)] {
        let x = random([rows, features], &device);
        let ours = layernorm_burn::LayerNormConfig::new(features).init(&device);
        let theirs = burn::nn::LayerNormConfig::new(features).init(&device);
        let values: Vec<f32> = x.to_data().iter().collect();
        let (weight, bias) = (vec![1.0; features], vec![0.0; features]);
        let params = Params { weight: Some(&weight), bias: Some(&bias), eps: EPS };
        let from = Rows::new(&values, features)?;
        let kernel = |y: &mut [f32]| {
            layernorm::layer_norm(from, params, RowsMut::new(y, features)?, None, Run::default())
        };
        let mut y = vec![0.0; rows * features];
        kernel(&mut y)?;
        let bare = best(|| kernel(black_box(&mut y)));
        let and_vec = best(|| {
            let mut y = vec![0.0; rows * features];
            kernel(&mut y).map(|()| y)
        });
        let by_ours = best(|| ours.forward(x.clone()));
        let by_theirs = best(|| theirs.forward(x.clone()));
        let tracked = Device::flex().autodiff();
        let (norm, x) = (layernorm_burn::LayerNormConfig::new(features).init(&tracked), x.autodiff());
        let both = best(|| norm.forward(x.clone().require_grad()).sum().backward());
        let shape = format!("{rows} x {features}");
        println!("{shape:>14} {bare:>10.2} {and_vec:>10.2} {by_ours:>10.2} {by_theirs:>10.2} {both:>14.2}");
    }
    others();
    Ok(())
}

/// Other norms, forward and backward as a training step has them.
fn others() {
    let device = Device::flex().autodiff();
    let pictures = random([4, 64, 32, 32], &device);
    println!("\n{:>44} {:>10} {:>10}", "other norms, forward and backward", "ours", "Burn");
    let show =
        |what: &str, ours: &dyn Fn(Tensor<4>) -> Tensor<4>, theirs: &dyn Fn(Tensor<4>) -> Tensor<4>| {
            let [ours, theirs] =
                [ours, theirs].map(|norm| best(|| norm(pictures.clone().require_grad()).sum().backward()));
            println!("{what:>44} {ours:>10.2} {theirs:>10.2}");
        };
    let ours = layernorm_burn::GroupNormConfig::new(8, 64).init(&device);
    let theirs = burn::nn::GroupNormConfig::new(8, 64).init(&device);
    show("group norm, 8 groups, 4 x 64 x 32 x 32", &|x| ours.forward(x), &|x| theirs.forward(x));
    let ours = layernorm_burn::InstanceNormConfig::new(64).init(&device);
    let theirs = burn::nn::InstanceNormConfig::new(64).init(&device);
    show("instance norm, 4 x 64 x 32 x 32", &|x| ours.forward(x), &|x| theirs.forward(x));
    let ours = layernorm_burn::BatchNormConfig::new(64).init(&device);
    let theirs = burn::nn::BatchNormConfig::new(64).init(&device);
    show("batch norm, training, 4 x 64 x 32 x 32", &|x| ours.forward(x), &|x| theirs.forward(x));
}
