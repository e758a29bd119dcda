//! What a call through candle costs beside the bare kernel, and beside candle's own:
//! `cargo run --release -p layernorm-candle --example overhead`.
//!
//! Every time is the best of many, because whatever else the machine does only adds.

use candle_core::{DType, Device, Module, ModuleT, Result, Tensor, Var};
use candle_nn::VarBuilder;
use layernorm::{Params, Rows, RowsMut, Run, Threads};
use std::hint::black_box;
use std::time::Instant;

const EPS: f64 = 1e-5;

/// The best time of one call, in microseconds.
fn best(mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    let (mut best, mut calls) = (f64::INFINITY, 0);
    while calls < 20 || start.elapsed().as_secs_f64() < 0.5 {
        let start = Instant::now();
        call()?;
        best = best.min(start.elapsed().as_secs_f64());
        calls += 1;
    }
    Ok(best * 1e6)
}

fn main() -> Result<()> {
    println!("layer norm in f32, best times in microseconds");
    println!(
        "{:>14} {:>10} {:>10} {:>10} {:>10} {:>12}",
        "shape", "kernel", "and Vec", "ours", "candle", "ours, fwd+bwd"
    );
    for (rows, features) in [(1, 64), (1, 768), (16, 768), (512, 768), (4096, 768), (16384, 1024)] {
        let x = Var::randn(0f32, 1., (rows, features), &Device::Cpu)?;
        let weight = Var::from_tensor(&Tensor::ones(features, DType::F32, &Device::Cpu)?)?;
        let bias = Var::from_tensor(&Tensor::zeros(features, DType::F32, &Device::Cpu)?)?;
        let slices = [x.flatten_all()?, weight.flatten_all()?, bias.flatten_all()?];
        let slices = slices.map(|tensor| tensor.to_vec1::<f32>());
        let [x_slice, weight_slice, bias_slice] = slices;
        let (x_slice, weight_slice, bias_slice) = (x_slice?, weight_slice?, bias_slice?);

        let params = Params { weight: Some(&weight_slice), bias: Some(&bias_slice), eps: EPS };
        let kernel = |y: &mut [f32]| {
            let mut run = || -> std::result::Result<(), layernorm::Error> {
                let (x, y) = (Rows::new(&x_slice, features)?, RowsMut::new(y, features)?);
                layernorm::layer_norm(x, params, y, None, Run::default().with_threads(Threads::Pool))
            };
            run().map_err(candle_core::Error::wrap)
        };
        let mut y = vec![0.0; rows * features];
        let bare = best(|| kernel(black_box(&mut y)))?;
        let and_vec = best(|| {
            let mut y = vec![0.0; rows * features];
            kernel(&mut y)?;
            drop(black_box(y));
            Ok(())
        })?;
        let (weight, bias) = (weight.as_tensor().clone(), bias.as_tensor().clone());
        let ours = layernorm_candle::LayerNorm::new(weight.clone(), bias.clone(), EPS);
        let theirs = candle_nn::LayerNorm::new(weight, bias, EPS);
        let by_ours = best(|| ours.forward(black_box(&x)).map(|y| drop(black_box(y))))?;
        let by_theirs = best(|| theirs.forward(black_box(&x)).map(|y| drop(black_box(y))))?;
        let both = best(|| ours.forward(&x)?.backward().map(|gradients| drop(black_box(gradients))))?;
        let shape = format!("{rows} x {features}");
        println!("{shape:>14} {bare:>10.2} {and_vec:>10.2} {by_ours:>10.2} {by_theirs:>10.2} {both:>12.2}");
    }
    others()
}

/// Other norms, and layouts that candle copies or composes for.
fn others() -> Result<()> {
    let vb = || VarBuilder::zeros(DType::F32, &Device::Cpu);
    let show = |what: &str, ours: &dyn Fn() -> Result<Tensor>, theirs: &dyn Fn() -> Result<Tensor>| {
        let [ours, theirs] = [ours, theirs].map(|call| best(|| call().map(|y| drop(black_box(y)))));
        println!("{what:>44} {:>10.2} {:>10.2}", ours?, theirs?);
        Ok::<(), candle_core::Error>(())
    };
    println!("\n{:>44} {:>10} {:>10}", "other norms, forward", "ours", "candle");
    let pictures = Tensor::randn(0f32, 1., (4, 64, 32, 32), &Device::Cpu)?;
    let (ours, theirs) =
        (layernorm_candle::group_norm(8, 64, EPS, vb())?, candle_nn::group_norm(8, 64, EPS, vb())?);
    show("group norm, 8 groups, 4 x 64 x 32 x 32", &|| ours.forward(&pictures), &|| {
        theirs.forward(&pictures)
    })?;
    let (ours, theirs) =
        (layernorm_candle::batch_norm(64, EPS, vb())?, candle_nn::batch_norm(64, EPS, vb())?);
    show("batch norm, training, 4 x 64 x 32 x 32", &|| ours.forward_t(&pictures, true), &|| {
        theirs.forward_t(&pictures, true)
    })?;
    let heads = Tensor::randn(0f32, 1., (4, 128, 8, 64), &Device::Cpu)?.transpose(1, 2)?;
    let (ours, theirs) = (layernorm_candle::rms_norm(64, EPS, vb())?, candle_nn::rms_norm(64, EPS, vb())?);
    show("RMS norm of heads before time, 4 x 8 x 128 x 64", &|| ours.forward(&heads), &|| {
        theirs.forward(&heads)
    })
}
