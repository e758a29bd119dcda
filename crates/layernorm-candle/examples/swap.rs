//! Loads one checkpoint by candle's norms and by ours, and shows that the logits are the same:
//! `cargo run -p layernorm-candle --example swap`.
//!
//! The model is written once, for whichever norms it is given; in a program of yours there is but one, and one line of
//! `use` changes.

use candle_core::{D, DType, Device, Module, Result, Tensor};
use candle_nn::{Linear, VarBuilder, VarMap, embedding, linear};

/// A small classifier of sequences: an embedding, four blocks with layer norm first, RMS norm, and logits.
fn logits<L: Module, R: Module>(
    tokens: &Tensor,
    vb: &VarBuilder,
    layer_norm: impl Fn(usize, f64, VarBuilder) -> Result<L>,
    rms_norm: impl Fn(usize, f64, VarBuilder) -> Result<R>,
) -> Result<Tensor> {
    const SIZE: usize = 64;
    let mut x = embedding(100, SIZE, vb.pp("embedding"))?.forward(tokens)?;
    for index in 0..4 {
        let vb = vb.pp("blocks").pp(index);
        let norm = layer_norm(SIZE, 1e-5, vb.pp("norm"))?;
        let (up, down): (Linear, Linear) =
            (linear(SIZE, 4 * SIZE, vb.pp("up"))?, linear(4 * SIZE, SIZE, vb.pp("down"))?);
        x = (&x + down.forward(&up.forward(&norm.forward(&x)?)?.gelu()?)?)?;
    }
    let x = rms_norm(SIZE, 1e-6, vb.pp("norm"))?.forward(&x)?;
    linear(SIZE, 10, vb.pp("head"))?.forward(&x.mean(1)?)
}

fn main() -> Result<()> {
    let file = std::env::temp_dir().join(format!("layernorm-candle-swap-{}.safetensors", std::process::id()));
    let tokens: Vec<u32> = (0..4 * 16).map(|i| i * i % 97).collect();
    let tokens = Tensor::from_vec(tokens, (4, 16), &Device::Cpu)?;

    // A checkpoint of a model that candle's norms have made.
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    logits(&tokens, &vb, candle_nn::layer_norm, candle_nn::rms_norm)?;
    variables.save(&file)?;
    println!("wrote {} variables to {}", variables.all_vars().len(), file.display());

    let load = || -> Result<VarBuilder<'static>> {
        let tensors = candle_core::safetensors::load(&file, &Device::Cpu)?;
        Ok(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))
    };
    let by_candle = logits(&tokens, &load()?, candle_nn::layer_norm, candle_nn::rms_norm)?;
    let by_ours = logits(&tokens, &load()?, layernorm_candle::layer_norm, layernorm_candle::rms_norm)?;
    std::fs::remove_file(&file)?;
    println!("loaded them by candle's norms and by ours");

    let show = |name: &str, logits: &Tensor| -> Result<()> {
        let first: Vec<f32> = logits.get(0)?.to_vec1()?;
        println!(
            "  {name:>6}: {:.4?}, of classes {:?}",
            &first[..4],
            logits.argmax(D::Minus1)?.to_vec1::<u32>()?
        );
        Ok(())
    };
    show("candle", &by_candle)?;
    show("ours", &by_ours)?;
    let difference = (&by_ours - &by_candle)?.abs()?.max_all()?.to_scalar::<f32>()?;
    let scale = by_candle.abs()?.max_all()?.to_scalar::<f32>()?;
    println!("largest difference: {difference:.1e}, of logits up to {scale:.2}");
    if difference <= 1e-5 * scale.max(1.0) {
        Ok(())
    } else {
        Err(candle_core::Error::msg("the logits differ"))
    }
}
