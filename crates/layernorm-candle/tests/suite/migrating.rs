//! The rows of docs/migrating.md about `candle_nn`, against its own defaults and ours. In f32, because its RMS norm has no f64.

use super::*;
use candle_core::{Module, ModuleT};
use candle_nn::{BatchNormConfig, LayerNormConfig, VarBuilder, VarMap};
use layernorm_conformance::migrating::rows_of;

#[test]
fn the_rows_of_candle_nn() -> Result<()> {
    let (layer, batch) = (LayerNormConfig::default(), BatchNormConfig::default());
    let rows = rows_of("candle_nn 0.11");
    for row in &rows {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
        let row_of_two = Tensor::new(&[[-1f32, 1.]], &CPU)?;
        let pictures = row_of_two.reshape((1, 1, 2))?;
        // By theirs and by ours, as far as they are not told more than they must be.
        let [theirs, ours] = match row.norm {
            "layer_norm" => [
                candle_nn::layer_norm(2, layer, vb.clone())?.forward(&row_of_two)?,
                layernorm_candle::layer_norm(2, layer, vb)?.forward(&row_of_two)?,
            ],
            "rms_norm" => [
                candle_nn::rms_norm(2, 1e-5, vb.clone())?.forward(&row_of_two)?,
                layernorm_candle::rms_norm(2, 1e-5, vb)?.forward(&row_of_two)?,
            ],
            "group_norm" => [
                candle_nn::group_norm(1, 1, 1e-5, vb.clone())?.forward(&pictures)?,
                layernorm_candle::group_norm(1, 1, 1e-5, vb)?.forward(&pictures)?,
            ],
            "batch_norm" => {
                let pictures = pictures.unsqueeze(3)?;
                let theirs = candle_nn::batch_norm(1, batch, vb.pp("theirs"))?;
                let ours = layernorm_candle::batch_norm(1, batch, vb.pp("ours"))?;
                let y = [theirs.forward_t(&pictures, true)?, ours.forward_t(&pictures, true)?];
                let [past, weight] = row.momentum.expect("a momentum");
                assert_eq!((past, weight), (1.0 - batch.momentum, batch.momentum), "momentum");
                let var = if row.unbiased == Some(true) { 2.0 } else { 1.0 };
                for running in [theirs.running_var(), ours.running_var()] {
                    assert!((values(running)?[0] - (past + weight * var)).abs() < 1e-6, "{running}");
                }
                y
            }
            other => panic!("candle has no {other}"),
        };
        assert_close(&theirs, &ours, 1e-6, row.norm)?;
        let eps = match row.norm {
            "layer_norm" => Some(layer.eps),
            "batch_norm" => Some(batch.eps),
            _ => None,
        };
        assert_eq!(row.eps, eps, "{}", row.norm);
        if let Some(one) = row.one_becomes {
            assert!((values(&theirs)?[1] - one).abs() < 2e-7, "{theirs}");
        }
        let mut names: Vec<_> = variables.data().lock().expect("nobody panicked").keys().cloned().collect();
        names.retain(|name| !name.contains("running") && !name.starts_with("ours"));
        names.iter_mut().for_each(|name| *name = name.replace("theirs.", ""));
        names.sort();
        let mut expected = row.parameters.clone();
        expected.sort_unstable();
        assert_eq!(names, expected, "{}", row.norm);
    }
    assert_eq!(rows.len(), 4, "norms of candle");
    Ok(())
}
