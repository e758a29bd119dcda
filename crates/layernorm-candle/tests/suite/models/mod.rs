//! Models written once, in `blocks.rs`, and built with either set of norms from the same variables.

mod training;

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

/// Candle's operations that it can differentiate, as modules: what the gradients should be.
mod composed {
    use candle_nn::{GroupNorm, LayerNormConfig, group_norm};

    pub(super) struct LayerNorm(candle_nn::LayerNorm);

    impl Module for LayerNorm {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            let bias = self.0.bias().expect("these models have one");
            candle_nn::ops::layer_norm_slow(x, self.0.weight(), bias, 1e-12)
        }
    }

    fn layer_norm<C: Into<LayerNormConfig>>(size: usize, config: C, vb: VarBuilder) -> Result<LayerNorm> {
        candle_nn::layer_norm(size, config, vb).map(LayerNorm)
    }

    pub(super) struct RmsNorm(candle_nn::RmsNorm);

    impl Module for RmsNorm {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.0.forward_diff(x)
        }
    }

    fn rms_norm(size: usize, eps: f64, vb: VarBuilder) -> Result<RmsNorm> {
        candle_nn::rms_norm(size, eps, vb).map(RmsNorm)
    }

    include!("blocks.rs");
}

/// Builds a model by ours, by candle's and by candle's that can be differentiated, all from one map. The outputs agree,
/// and by ours a gradient reaches every variable and x: the one that it should be.
fn compare(x: &Var, forward: impl Fn(VarBuilder, &Tensor) -> Result<[Tensor; 3]>) -> Result<()> {
    let variables = VarMap::new();
    let vb = || VarBuilder::from_varmap(&variables, DType::F32, &CPU);
    forward(vb(), x)?; // makes the variables
    for (seed, (_, var)) in (100..).zip(sorted(&variables)) {
        // Weights that are not 1 and biases that are not 0 show when they are mixed up.
        var.set(&(var.as_tensor() + (tensor(var.dims(), seed, DType::F32)? * 0.1)?)?)?;
    }
    let [ours, theirs, composed] = forward(vb(), x)?;
    assert_close(&ours, &theirs, 5e-6, "outputs")?;

    let weights = tensor(ours.dims(), 77, DType::F32)?;
    let gradients = |y: &Tensor| (y * &weights)?.sum_all()?.backward();
    let (got, expected) = (gradients(&ours)?, gradients(&composed)?);
    let size =
        |tensor: &Tensor| -> Result<f64> { tensor.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar() };
    let mut all = sorted(&variables);
    all.push(("x".to_owned(), x.clone()));
    for (name, var) in all {
        let got = got.get(&var).unwrap_or_else(|| panic!("{name} has a gradient"));
        let expected = gradient(&expected, &var);
        // A bias of keys moves all of a query's logits alike, which softmax takes away again.
        if !name.ends_with("key.bias") {
            let (error, size) = (size(&(got - expected)?)?.sqrt(), size(expected)?.sqrt());
            assert!(size > 1e-4 && error <= 2e-5 * size, "{name}: off by {error} of {size}");
        }
    }
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
        let theirs = theirs::BertLayer::new(32, 4, vb.clone())?.forward(x)?;
        Ok([ours, theirs, composed::BertLayer::new(32, 4, vb)?.forward(x)?])
    };
    compare(&x, forward)
}

#[test]
fn a_block_of_llama() -> Result<()> {
    use candle_core::Module;
    let x = variable(&[2, 7, 32], 2, DType::F32)?;
    let forward = |vb: VarBuilder, x: &Tensor| {
        let vb = vb.pp("model.layers.0");
        let ours = ours::LlamaBlock::new(32, 4, vb.clone())?.forward(x)?;
        let theirs = theirs::LlamaBlock::new(32, 4, vb.clone())?.forward(x)?;
        Ok([ours, theirs, composed::LlamaBlock::new(32, 4, vb)?.forward(x)?])
    };
    compare(&x, forward)
}

#[test]
fn a_block_of_a_diffusion_model() -> Result<()> {
    let x = variable(&[2, 8, 6, 6], 3, DType::F32)?;
    let time = tensor(&[2, 10], 4, DType::F32)?;
    let forward = |vb: VarBuilder, x: &Tensor| {
        let vb = vb.pp("down_blocks.0.resnets.0");
        let ours = ours::DiffusionBlock::new(8, 12, 10, vb.clone())?.forward(x, &time)?;
        let theirs = theirs::DiffusionBlock::new(8, 12, 10, vb.clone())?.forward(x, &time)?;
        Ok([ours, theirs, composed::DiffusionBlock::new(8, 12, 10, vb)?.forward(x, &time)?])
    };
    compare(&x, forward)
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
