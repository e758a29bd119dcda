//! Batch norm beside candle's: outputs, running statistics and what a training step does to them.

use super::*;
use candle_core::ModuleT;
use candle_nn::{BatchNormConfig, VarBuilder, VarMap};

fn builder(variables: &VarMap) -> VarBuilder<'static> {
    VarBuilder::from_varmap(variables, DType::F64, &CPU)
}

#[test]
fn trains_and_evaluates_as_candles() -> Result<()> {
    for shape in [&[8, 3][..], &[4, 3, 5], &[2, 3, 4, 5]] {
        for remove_mean in [true, false] {
            let config = BatchNormConfig { remove_mean, momentum: 0.3, ..Default::default() };
            let (ours, theirs) = (VarMap::new(), VarMap::new());
            let ours = layernorm_candle::batch_norm(3, config, builder(&ours))?;
            let theirs = candle_nn::batch_norm(3, config, builder(&theirs))?;
            for step in 0..3 {
                let x = (tensor(shape, step, DType::F64)? + 0.5)?;
                let y = ours.forward_t(&x, true)?;
                assert_close(&y, &theirs.forward_t(&x, true)?, 1e-12, "training")?;
                assert_close(ours.running_mean(), theirs.running_mean(), 1e-14, "running mean")?;
                assert_close(ours.running_var(), theirs.running_var(), 1e-14, "running variance")?;
                let y = ours.forward_t(&x, false)?;
                assert_close(&y, &theirs.forward_t(&x, false)?, 1e-12, "evaluating")?;
            }
        }
    }
    Ok(())
}

#[test]
fn statistics_are_variables_of_the_map_and_no_gradient_reaches_them() -> Result<()> {
    let variables = VarMap::new();
    let norm = layernorm_candle::batch_norm(3, 1e-5, builder(&variables).pp("bn"))?;
    let x = variable(&[6, 3], 1, DType::F64)?;
    for train in [true, false] {
        let gradients = norm.forward_t(&x, train)?.sqr()?.sum_all()?.backward()?;
        let data = variables.data().lock().expect("one thread");
        for name in ["bn.weight", "bn.bias"] {
            assert!(gradients.get(&data[name]).is_some(), "{name}");
        }
        for name in ["bn.running_mean", "bn.running_var"] {
            assert!(gradients.get(&data[name]).is_none(), "{name}");
        }
        assert!(gradients.get(&x).is_some());
        // The module's statistics are the map's, so they are saved with it.
        assert_eq!(values(norm.running_mean())?, values(&data["bn.running_mean"])?);
    }
    Ok(())
}

#[test]
fn large_means_are_safe() -> Result<()> {
    let norm =
        layernorm_candle::batch_norm(1, 1e-5, VarBuilder::from_varmap(&VarMap::new(), DType::F32, &CPU))?;
    let x = Tensor::new(&[[40000f32], [40001.], [40002.], [40003.]], &CPU)?;
    let y = values(&norm.forward_t(&x, true)?)?;
    for (y, deviation) in y.into_iter().zip([-1.5, -0.5, 0.5, 1.5]) {
        assert!((y - deviation / 1.25001f64.sqrt()).abs() <= 1e-6, "{y}");
    }
    let unbiased = 5.0 / 3.0;
    assert!((values(norm.running_var())?[0] - (0.9 + 0.1 * unbiased)).abs() <= 1e-6);
    assert!((values(norm.running_mean())?[0] - 4000.15).abs() <= 1e-3);
    Ok(())
}
