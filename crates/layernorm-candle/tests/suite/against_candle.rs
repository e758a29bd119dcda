//! What candle 0.11 gets wrong, and this crate right; and that the two agree where candle is right. Where these tests of
//! candle fail one day, candle has been mended, and the README has a paragraph to lose.

use super::*;
use candle_core::Module;

fn ones(features: usize) -> Result<[Tensor; 2]> {
    Ok([Tensor::ones(features, DType::F32, &CPU)?, Tensor::zeros(features, DType::F32, &CPU)?])
}

#[test]
fn the_gradient_that_candle_loses() -> Result<()> {
    let [weight, bias] = ones(4)?.map(|tensor| Var::from_tensor(&tensor));
    let (weight, bias) = (weight?, bias?);
    let x = variable(&[3, 4], 1, DType::F32)?;
    let parameters = || (weight.as_tensor().clone(), bias.as_tensor().clone());
    let theirs: [Box<dyn Module>; 2] = [
        Box::new(candle_nn::LayerNorm::new(parameters().0, parameters().1, EPS)),
        Box::new(candle_nn::RmsNorm::new(parameters().0, EPS)),
    ];
    let ours: [Box<dyn Module>; 2] = [
        Box::new(layernorm_candle::LayerNorm::new(parameters().0, parameters().1, EPS)),
        Box::new(layernorm_candle::RmsNorm::new(parameters().0, EPS)),
    ];
    for (theirs, ours) in theirs.iter().zip(&ours) {
        let loss = |norm: &dyn Module| norm.forward(&x)?.sqr()?.sum_all()?.backward();
        let lost = loss(theirs.as_ref())?;
        assert!(lost.get(&x).is_none() && lost.get(&weight).is_none(), "candle's are lost, without an error");
        let kept = loss(ours.as_ref())?;
        assert!(kept.get(&x).is_some() && kept.get(&weight).is_some(), "ours are there");
    }
    Ok(())
}

#[test]
fn the_row_that_candle_gets_wrong() -> Result<()> {
    let [weight, bias] = ones(4)?;
    let x = Tensor::new(&[[80000f32, 80001., 80002., 80003.]], &CPU)?;
    let truth = [-1.5, -0.5, 0.5, 1.5].map(|deviation| deviation / 1.25001f64.sqrt());
    let worst = |y: Tensor| -> Result<f64> {
        let errors = values(&y)?.into_iter().zip(truth).map(|(y, truth)| (y - truth).abs());
        Ok(errors.fold(0.0, |worst, error| if error > worst || error.is_nan() { error } else { worst }))
    };
    let theirs = worst(candle_nn::LayerNorm::new(weight.clone(), bias.clone(), EPS).forward(&x)?)?;
    assert!(theirs.is_nan() || theirs > 1.0, "candle is off by {theirs}");
    let ours = worst(layernorm_candle::LayerNorm::new(weight, bias, EPS).forward(&x)?)?;
    // The bound of docs/numerics.md, section 9: 8 u max(1, |x_hat|) + u |y|.
    assert!(ours <= 9.0 * 1.5 * 2f64.powi(-24), "ours is off by {ours}");
    Ok(())
}

#[test]
fn functions_have_candles_signatures_and_agree() -> Result<()> {
    let x = tensor(&[2, 3, 16], 1, DType::F32)?;
    let (weight, bias) = (tensor(&[16], 2, DType::F32)?, tensor(&[16], 3, DType::F32)?);
    let eps = 1e-5f32;
    let theirs = candle_nn::ops::layer_norm(&x, &weight, &bias, eps)?;
    assert_close(&layernorm_candle::ops::layer_norm(&x, &weight, &bias, eps)?, &theirs, 1e-6, "layer norm")?;
    let theirs = candle_nn::ops::rms_norm(&x, &weight, eps)?;
    assert_close(&layernorm_candle::ops::rms_norm(&x, &weight, eps)?, &theirs, 1e-6, "RMS norm")
}

#[test]
fn every_module_agrees_with_candles() -> Result<()> {
    let vb = || candle_nn::VarBuilder::zeros(DType::F32, &CPU);
    let tensors = [("weight", tensor(&[6], 1, DType::F32)?), ("bias", tensor(&[6], 2, DType::F32)?)];
    let vb_of = |dtype| {
        let tensors = tensors.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        candle_nn::VarBuilder::from_tensors(tensors, dtype, &CPU)
    };
    assert!(layernorm_candle::layer_norm(6, 1e-5, vb()).is_ok());
    let rows = tensor(&[4, 5, 6], 3, DType::F32)?;
    let images = tensor(&[2, 6, 3, 5], 4, DType::F32)?;
    for dtype in [DType::F32, DType::F64] {
        let (rows, images) = (rows.to_dtype(dtype)?, images.to_dtype(dtype)?);
        let transposed = rows.transpose(0, 1)?; // not contiguous: where candle composes
        for remove_mean in [true, false] {
            for affine in [true, false] {
                let config = candle_nn::LayerNormConfig { eps: 1e-5, remove_mean, affine };
                let ours = layernorm_candle::layer_norm(6, config, vb_of(dtype))?;
                let theirs = candle_nn::layer_norm(6, config, vb_of(dtype))?;
                let what = format!("{dtype:?} {config:?}");
                assert_close(&ours.forward(&transposed)?, &theirs.forward(&transposed)?, 1e-6, &what)?;
                let converted = layernorm_candle::LayerNorm::from(theirs);
                assert_eq!(bits(&converted.forward(&rows)?)?, bits(&ours.forward(&rows)?)?, "{what}");
            }
        }
        let ours = layernorm_candle::rms_norm(6, 1e-6, vb_of(dtype))?;
        let theirs = candle_nn::rms_norm(6, 1e-6, vb_of(dtype))?;
        assert_close(&ours.forward(&rows)?, &theirs.forward_diff(&rows)?, 1e-6, "RMS norm")?;
        assert_eq!(
            bits(&ours.forward_diff(&rows)?)?,
            bits(&ours.forward(&rows)?)?,
            "the same by another name"
        );
        for groups in [1, 2, 3, 6] {
            let ours = layernorm_candle::group_norm(groups, 6, 1e-5, vb_of(dtype))?;
            let theirs = candle_nn::group_norm(groups, 6, 1e-5, vb_of(dtype))?;
            for x in [&images, &images.transpose(2, 3)?] {
                assert_close(&ours.forward(x)?, &theirs.forward(x)?, 2e-6, &format!("{groups} groups"))?;
            }
        }
        // As many groups as channels is instance norm.
        let config = layernorm_candle::InstanceNormConfig { eps: 1e-5, affine: true };
        let ours = layernorm_candle::instance_norm(6, config, vb_of(dtype))?;
        let groups = layernorm_candle::group_norm(6, 6, 1e-5, vb_of(dtype))?;
        assert_eq!(bits(&ours.forward(&images)?)?, bits(&groups.forward(&images)?)?, "instance norm");
    }
    Ok(())
}
