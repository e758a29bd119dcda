//! Training curves by our norms and by candle's own, from the same start and on the same data, where candle's can be trained:
//! equal within rounding, which some dozen steps make larger.

use super::*;
use candle_core::{Module, ModuleT};
use candle_nn::{Optimizer, SGD, linear};

const STEPS: usize = 40;

/// The losses of so many steps towards a target, from variables that depend on their names' order alone.
fn curve(vb_type: DType, forward: impl Fn(&VarBuilder) -> Result<Tensor>) -> Result<Vec<f64>> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, vb_type, &CPU);
    let target = tensor(forward(&vb)?.dims(), 50, vb_type)?; // the first call makes the variables
    for (seed, (name, var)) in (100..).zip(sorted(&variables)) {
        let small = (tensor(var.dims(), seed, vb_type)? * 0.2)?;
        let is_scale = var.rank() == 1 && name.ends_with("weight") || name.ends_with("running_var");
        var.set(&if is_scale { (small + 1.0)? } else { small })?;
    }
    let learning = sorted(&variables).into_iter().filter(|(name, _)| !name.contains("running"));
    let mut optimizer = SGD::new(learning.map(|(_, var)| var).collect(), 0.05)?;
    let step = |_| {
        let loss = (forward(&vb)? - &target)?.sqr()?.mean_all()?;
        optimizer.backward_step(&loss)?;
        loss.to_dtype(DType::F64)?.to_scalar()
    };
    (0..STEPS).map(step).collect()
}

/// Both curves go down, and are apart by no more than `tolerance` of the loss.
#[track_caller]
fn assert_equal(ours: &[f64], theirs: &[f64], tolerance: f64) {
    let (first, last) = (ours[0], ours[STEPS - 1]);
    assert!(last < 0.9 * first, "it learns: from {first} to {last}");
    for (step, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert!((ours - theirs).abs() <= tolerance * theirs, "step {step}: {ours} and {theirs}");
    }
}

#[test]
fn of_bert() -> Result<()> {
    let x = tensor(&[2, 7, 16], 1, DType::F32)?;
    let ours = curve(DType::F32, |vb| ours::BertLayer::new(16, 2, vb.clone())?.forward(&x))?;
    let theirs = curve(DType::F32, |vb| composed::BertLayer::new(16, 2, vb.clone())?.forward(&x))?;
    assert_equal(&ours, &theirs, 1e-5);
    Ok(())
}

#[test]
fn of_llama() -> Result<()> {
    let x = tensor(&[2, 7, 16], 2, DType::F32)?;
    let ours = curve(DType::F32, |vb| ours::LlamaBlock::new(16, 2, vb.clone())?.forward(&x))?;
    let theirs = curve(DType::F32, |vb| composed::LlamaBlock::new(16, 2, vb.clone())?.forward(&x))?;
    assert_equal(&ours, &theirs, 1e-5);
    Ok(())
}

#[test]
fn of_a_diffusion_model() -> Result<()> {
    let (x, time) = (tensor(&[2, 8, 4, 4], 3, DType::F32)?, tensor(&[2, 10], 4, DType::F32)?);
    let ours = curve(DType::F32, |vb| ours::DiffusionBlock::new(8, 8, 10, vb.clone())?.forward(&x, &time))?;
    let theirs =
        curve(DType::F32, |vb| theirs::DiffusionBlock::new(8, 8, 10, vb.clone())?.forward(&x, &time))?;
    assert_equal(&ours, &theirs, 1e-5);
    Ok(())
}

/// With running statistics: the module is made anew in each step, from variables that it moves.
#[test]
fn with_batch_norm() -> Result<()> {
    let x = tensor(&[12, 6], 5, DType::F64)?;
    macro_rules! model {
        ($nn:ident) => {
            curve(DType::F64, |vb| {
                let norm = $nn::batch_norm(8, 1e-5, vb.pp("norm"))?;
                let hidden = norm.forward_t(&linear(6, 8, vb.pp("up"))?.forward(&x)?, true)?.relu()?;
                let y = linear(8, 4, vb.pp("down"))?.forward(&hidden)?;
                y + norm.forward_t(&hidden, false)?.mean_keepdim(1)?.broadcast_as((12, 4))?
            })
        };
    }
    assert_equal(&model!(layernorm_candle)?, &model!(candle_nn)?, 1e-11);
    Ok(())
}
