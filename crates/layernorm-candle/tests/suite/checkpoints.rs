//! The variables' names and paths are candle's, so checkpoints go both ways.

use super::*;
use candle_core::{Module, ModuleT};
use candle_nn::{VarBuilder, VarMap};
use std::collections::HashMap;

/// The names that modules make in a map, in order.
fn names(make: impl Fn(VarBuilder) -> Result<()>) -> Result<Vec<String>> {
    let variables = VarMap::new();
    make(VarBuilder::from_varmap(&variables, DType::F32, &CPU).pp("model.0"))?;
    let mut names: Vec<String> = variables.data().lock().expect("one thread").keys().cloned().collect();
    names.sort();
    Ok(names)
}

#[test]
fn have_the_same_names() -> Result<()> {
    macro_rules! all {
        ($nn:ident) => {
            names(|vb| {
                $nn::layer_norm(4, 1e-5, vb.pp("a"))?;
                $nn::layer_norm_no_bias(4, 1e-5, vb.pp("b"))?;
                $nn::rms_norm(4, 1e-5, vb.pp("c"))?;
                $nn::group_norm(2, 4, 1e-5, vb.pp("d"))?;
                $nn::batch_norm(4, 1e-5, vb.pp("e"))?;
                Ok(())
            })
        };
    }
    let ours = all!(layernorm_candle)?;
    assert_eq!(ours.len(), 2 + 1 + 1 + 2 + 4, "{ours:?}");
    assert_eq!(ours, all!(candle_nn)?);
    Ok(())
}

#[test]
fn go_both_ways_through_a_file() -> Result<()> {
    let file = std::env::temp_dir().join(format!("layernorm-candle-{}.safetensors", std::process::id()));
    let x = tensor(&[2, 4, 3], 1, DType::F32)?;
    macro_rules! model {
        ($nn:ident, $vb:expr) => {{
            let vb = $vb;
            let group = $nn::group_norm(2, 4, 1e-5, vb.pp("group"))?;
            let batch = $nn::batch_norm(4, 1e-5, vb.pp("batch"))?;
            let layer = $nn::layer_norm(3, 1e-5, vb.pp("layer"))?;
            move |x: &Tensor| layer.forward(&batch.forward_t(&group.forward(x)?, false)?)
        }};
    }
    macro_rules! there_and_back {
        ($from:ident, $to:ident) => {
            let variables = VarMap::new();
            let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
            let from = model!($from, vb);
            let mut seed = 10;
            for var in variables.all_vars() {
                seed += 1;
                var.set(&(tensor(var.dims(), seed, DType::F32)?.abs()? + 0.5)?)?;
            }
            variables.save(&file)?;
            let tensors = candle_core::safetensors::load(&file, &CPU)?;
            let to = model!($to, VarBuilder::from_tensors(tensors, DType::F32, &CPU));
            assert_close(&to(&x)?, &from(&x)?, 1e-5, "through a file")?;
        };
    }
    there_and_back!(candle_nn, layernorm_candle);
    there_and_back!(layernorm_candle, candle_nn);
    std::fs::remove_file(file)?;
    Ok(())
}

#[test]
fn of_the_older_names_load() -> Result<()> {
    let [one, two] = [tensor(&[4], 1, DType::F32)?, tensor(&[4], 2, DType::F32)?];
    let vb = |names: [&str; 2]| {
        let tensors = HashMap::from(names.map(|name| format!("n.{name}")).map(|name| {
            let tensor = if name.ends_with("weight") || name.ends_with("gamma") { &one } else { &two };
            (name, tensor.clone())
        }));
        VarBuilder::from_tensors(tensors, DType::F32, &CPU).pp("n")
    };
    for names in [["weight", "bias"], ["gamma", "beta"], ["gamma", "bias"]] {
        let norm = layernorm_candle::layer_norm(4, 1e-12, vb(names))?;
        assert_eq!(values(norm.weight())?, values(&one)?, "{names:?}");
        assert_eq!(norm.bias().map(values).transpose()?, Some(values(&two)?), "{names:?}");
    }
    let norm = layernorm_candle::rms_norm(4, 1e-6, vb(["gamma", "beta"]))?;
    assert_eq!(values(norm.weight())?, values(&one)?);
    // What is missing is an error that names the newer.
    let error = layernorm_candle::layer_norm(4, 1e-12, vb(["scale", "beta"])).expect_err("no weight");
    assert!(error.to_string().contains("n.weight"), "{error}");
    let error = layernorm_candle::layer_norm(5, 1e-12, vb(["weight", "bias"])).expect_err("another shape");
    assert!(error.to_string().contains('5') && error.to_string().contains('4'), "{error}");
    Ok(())
}
