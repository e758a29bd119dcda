//! Models written once, in `blocks.rs`, and built with either set of norms from the same variables.

use super::*;
use candle_nn::{VarBuilder, VarMap};

mod theirs {
    use candle_nn::{GroupNorm, LayerNorm, LayerNormConfig, RmsNorm, group_norm, layer_norm, rms_norm};
    include!("blocks.rs");
}

mod ours {
    use layernorm_candle::{
        GroupNorm, LayerNorm, LayerNormConfig, RmsNorm, group_norm, layer_norm, rms_norm,
    };
    include!("blocks.rs");
}

/// Builds a model twice from one map: the outputs agree, and by ours a gradient reaches every variable and x.
fn compare(
    x: &Var,
    forward: impl Fn(VarBuilder, &Tensor) -> Result<[Tensor; 2]>,
    tolerance: f64,
) -> Result<()> {
    let variables = VarMap::new();
    let vb = || VarBuilder::from_varmap(&variables, DType::F32, &CPU);
    forward(vb(), x)?; // makes the variables
    for (seed, var) in (100..).zip(sorted(&variables)) {
        // Weights that are not 1 and biases that are not 0 show when they are mixed up.
        var.1.set(&(var.1.as_tensor() + (tensor(var.1.dims(), seed, DType::F32)? * 0.1)?)?)?;
    }
    let [ours, theirs] = forward(vb(), x)?;
    assert_close(&ours, &theirs, tolerance, "outputs")?;

    let weights = tensor(ours.dims(), 77, DType::F32)?;
    let gradients = (ours * weights)?.sum_all()?.backward()?;
    let norm =
        |tensor: &Tensor| -> Result<f64> { Ok(values(tensor)?.iter().map(|v| v * v).sum::<f64>().sqrt()) };
    for (name, var) in sorted(&variables) {
        let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{name} has a gradient"));
        let norm = norm(gradient)?;
        // A bias of keys moves all of a query's logits alike, which softmax takes away again.
        assert!(norm.is_finite() && (norm > 1e-4 || name.ends_with("key.bias")), "{name}: {norm}");
    }
    assert!(norm(gradient(&gradients, x))? > 1e-4, "x");
    Ok(())
}

fn sorted(variables: &VarMap) -> Vec<(String, Var)> {
    let data = variables.data().lock().expect("one thread");
    let mut all: Vec<_> = data.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

#[test]
fn a_layer_of_bert() -> Result<()> {
    use candle_core::Module;
    let x = variable(&[2, 7, 32], 1, DType::F32)?;
    let forward = |vb: VarBuilder, x: &Tensor| {
        let vb = vb.pp("encoder.layer.0");
        let ours = ours::BertLayer::new(32, 4, vb.clone())?.forward(x)?;
        Ok([ours, theirs::BertLayer::new(32, 4, vb)?.forward(x)?])
    };
    compare(&x, forward, 5e-6)
}

#[test]
fn a_block_of_llama() -> Result<()> {
    use candle_core::Module;
    let x = variable(&[2, 7, 32], 2, DType::F32)?;
    let forward = |vb: VarBuilder, x: &Tensor| {
        let vb = vb.pp("model.layers.0");
        let ours = ours::LlamaBlock::new(32, 4, vb.clone())?.forward(x)?;
        Ok([ours, theirs::LlamaBlock::new(32, 4, vb)?.forward(x)?])
    };
    compare(&x, forward, 5e-6)
}

#[test]
fn a_block_of_a_diffusion_model() -> Result<()> {
    let x = variable(&[2, 8, 6, 6], 3, DType::F32)?;
    let time = tensor(&[2, 10], 4, DType::F32)?;
    let forward = |vb: VarBuilder, x: &Tensor| {
        let vb = vb.pp("down_blocks.0.resnets.0");
        let ours = ours::DiffusionBlock::new(8, 12, 10, vb.clone())?.forward(x, &time)?;
        Ok([ours, theirs::DiffusionBlock::new(8, 12, 10, vb)?.forward(x, &time)?])
    };
    compare(&x, forward, 5e-6)
}

#[test]
fn by_candles_norms_the_same_models_do_not_learn() -> Result<()> {
    use candle_core::Module;
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
    let x = tensor(&[2, 7, 32], 1, DType::F32)?;
    let y = theirs::BertLayer::new(32, 4, vb)?.forward(&x)?;
    let gradients = y.sqr()?.sum_all()?.backward()?;
    let reached = sorted(&variables).iter().filter(|(_, var)| gradients.get(var).is_some()).count();
    assert_eq!(reached, 0, "of candle's BERT, whose last operation is a layer norm");
    Ok(())
}
