//! Refusals: messages that carry both shapes, and no panic.

use super::*;
use candle_core::{Module, ModuleT};
use layernorm_candle::ops;

/// The first line: where RUST_BACKTRACE is set, candle adds where the error came from.
fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    let text = result.expect_err("an error").to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &CPU).expect("zeros")
}

#[test]
fn parameters_of_another_length() {
    let x = zeros(&[2, 5, 4]);
    for bad in [0, 3, 5] {
        let bad = zeros(&[bad]);
        for error in [
            message(ops::layer_norm(&x, &bad, &zeros(&[4]), EPS)),
            message(ops::layer_norm(&x, &zeros(&[4]), &bad, EPS)),
            message(ops::rms_norm(&x, &bad, EPS)),
            message(layernorm_candle::RmsNorm::new(bad.clone(), EPS).forward(&x)),
        ] {
            assert!(error.contains(&format!("{:?}", bad.shape())) && error.contains("[2, 5, 4]"), "{error}");
        }
    }
    assert_eq!(
        message(ops::layer_norm(&x, &zeros(&[3]), None, EPS)),
        "weight has shape [3] and x has shape [2, 5, 4]: \
         weight needs 4 values, one for each feature, or one for all"
    );
    assert!(ops::layer_norm(&x, &zeros(&[1]), &zeros(&[4]), EPS).is_ok(), "shared weight");
    // A module of one feature takes no four.
    assert!(layernorm_candle::RmsNorm::new(zeros(&[1]), EPS).forward(&x).is_err());
    assert!(message(ops::layer_norm(&x, &zeros(&[1, 4]), None, EPS)).contains("[1, 4]"));
    let error = message(ops::scale_norm(&x, &zeros(&[4]), EPS));
    assert!(error.contains("[4]") && error.contains("[2, 5, 4]"), "{error}");
}

#[test]
fn epsilon() -> Result<()> {
    for bad in [-1e-9, f64::NAN, f64::INFINITY] {
        let x = tensor(&[2, 4], 1, DType::F32)?;
        assert!(message(ops::layer_norm(&x, None, None, bad)).starts_with("eps is"), "{bad}");
        assert!(ops::rms_norm(&x.to_dtype(DType::F64)?, None, bad).is_err(), "{bad}");
        assert!(ops::rms_norm(&x.narrow(0, 0, 0)?, None, bad).is_err(), "{bad}: on nothing too");
        let vb = candle_nn::VarBuilder::zeros(DType::F32, &CPU);
        assert!(layernorm_candle::batch_norm(4, bad, vb).is_err(), "{bad}");
    }
    let x = tensor(&[2, 4], 1, DType::F32)?;
    // An epsilon that only f64 can hold.
    assert!(ops::layer_norm(&x, None, None, 1e300).is_err());
    assert!(ops::layer_norm(&x.to_dtype(DType::F64)?, None, None, 1e300).is_ok());
    Ok(())
}

#[test]
fn types_and_ranks() -> Result<()> {
    let whole = Tensor::zeros((2, 4), DType::U32, &CPU)?;
    assert_eq!(
        message(ops::layer_norm(&whole, None, None, EPS)),
        "x is U32: norms are for f16, bf16, f32 and f64"
    );
    assert!(message(ops::rms_norm(&zeros(&[2, 4]), &whole.get(0)?, EPS)).starts_with("weight is U32"));
    assert!(message(ops::rms_norm(&zeros(&[]), None, EPS)).contains("[]"));
    assert!(message(ops::group_norm(&zeros(&[2, 4]), 2, None, None, EPS)).contains("[2, 4]"));
    assert!(message(ops::instance_norm(&zeros(&[4]), None, None, EPS)).contains("[4]"));
    Ok(())
}

#[test]
fn channels_and_groups() -> Result<()> {
    let x = zeros(&[2, 6, 3]);
    for groups in [0, 4, 12] {
        let error = message(ops::group_norm(&x, groups, None, None, EPS));
        assert_eq!(error, format!("{groups} groups do not divide 6 channels"));
        assert!(layernorm_candle::GroupNorm::new(zeros(&[6]), zeros(&[6]), 6, groups, EPS).is_err());
    }
    assert!(layernorm_candle::GroupNorm::new(zeros(&[0]), zeros(&[0]), 0, 0, EPS).is_err());
    let error = message(ops::group_norm(&x, 2, &zeros(&[5]), None, EPS));
    assert!(error.contains("[5]") && error.contains("[2, 6, 3]"), "{error}");
    let norm = layernorm_candle::GroupNorm::new(zeros(&[4]), zeros(&[4]), 4, 2, EPS)?;
    assert_eq!(message(norm.forward(&x)), "x has shape [2, 6, 3] with 6 channels: the norm has 4");
    let norm = layernorm_candle::InstanceNorm::new(4, None, EPS);
    assert!(norm.forward(&x).is_err());
    // Nothing to normalise.
    assert!(message(ops::group_norm(&zeros(&[2, 6, 0]), 2, None, None, EPS)).contains("[2, 6, 0]"));
    assert!(ops::instance_norm(&zeros(&[2, 6, 0]), None, None, EPS).is_err());
    Ok(())
}

#[test]
fn batch_norms() -> Result<()> {
    let vb = || candle_nn::VarBuilder::zeros(DType::F32, &CPU);
    let norm = layernorm_candle::batch_norm(4, EPS, vb())?;
    for (x, values) in [(zeros(&[1, 4]), 1), (zeros(&[0, 4, 7]), 0)] {
        let error = message(norm.forward_t(&x, true));
        assert!(error.contains(&format!("this has {values}")), "{error}");
    }
    assert_eq!(values(norm.running_mean())?, [0.0; 4], "nothing has moved");
    assert!(norm.forward_t(&zeros(&[1, 4]), false).is_ok());
    assert!(norm.forward_t(&zeros(&[4]), false).is_err());
    assert!(message(norm.forward_t(&zeros(&[8, 3]), true)).contains("[8, 3]"));
    let momentum = candle_nn::BatchNormConfig { momentum: 1.5, ..Default::default() };
    assert!(message(layernorm_candle::batch_norm(4, momentum, vb())).contains("1.5"));
    let bad = layernorm_candle::BatchNorm::new_no_bias(4, zeros(&[4]), zeros(&[3]), EPS);
    assert_eq!(message(bad), "batch norm has a running variance of shape [3] where [4] is needed");
    Ok(())
}

#[test]
fn shapes_of_pairs() -> Result<()> {
    let x = zeros(&[2, 3, 4]);
    let error = message(ops::add_layer_norm(&x, &zeros(&[3, 4]), None, None, EPS));
    assert_eq!(error, "residual has shape [3, 4] and x has shape [2, 3, 4]: the two must be the same");
    let error = message(ops::add_rms_norm(&x, &x.to_dtype(DType::F64)?, None, EPS));
    assert_eq!(error, "residual is F64 and x is F32: the two must be the same");
    assert!(message(ops::add_rms_norm(&x, &x, &zeros(&[3]), EPS)).contains("[3]"));
    assert!(
        ops::add_rms_norm(&x, &x, None, -1.0).is_err() && ops::adaptive_rms_norm(&x, &x, &x, -1.0).is_err()
    );
    for bad in [&[2, 3][..], &[3, 4, 1], &[1, 2, 3, 4], &[3, 4]] {
        let error = message(ops::adaptive_layer_norm(&x, &zeros(bad), &zeros(&[2, 4]), EPS));
        assert!(error.contains(&format!("{bad:?}")) && error.contains("[2, 3, 4]"), "{error}");
    }
    for good in [&[2, 4][..], &[1, 4], &[4], &[1], &[2, 1, 4], &[2, 3, 4]] {
        assert!(ops::adaptive_layer_norm(&x, &zeros(good), &zeros(&[4]), EPS).is_ok(), "{good:?}");
    }
    let norm = layernorm_candle::adaptive_norm(4, 5, EPS, candle_nn::VarBuilder::zeros(DType::F32, &CPU))?;
    assert!(norm.forward(&x, &zeros(&[2, 5])).is_ok());
    for bad in [&[2, 4][..], &[3, 5], &[5]] {
        let error = message(norm.forward(&x, &zeros(bad)));
        assert!(error.contains(&format!("{bad:?}")) && error.contains("[2, 3, 4]"), "{error}");
    }
    Ok(())
}

#[test]
fn nothing_to_do_is_no_error() -> Result<()> {
    for shape in [[0, 4], [3, 0], [0, 0]] {
        for norm in NORMS {
            let x = Var::zeros(&shape[..], DType::F32, &CPU)?;
            let weight = Var::ones(shape[1], DType::F32, &CPU)?;
            let bias = Var::ones(shape[1], DType::F32, &CPU)?;
            let bias = (norm == Norm::Layer).then_some(&bias);
            let y = norm.of(&x, Some(&weight), bias.map(|bias| bias.as_tensor()))?;
            assert_eq!(y.dims(), shape);
            let gradients = y.sum_all()?.backward()?;
            assert_eq!(gradient(&gradients, &x).dims(), shape);
            assert_eq!(values(gradient(&gradients, &weight))?, vec![0.0; shape[1]], "{norm:?} {shape:?}");
        }
    }
    Ok(())
}

/// Every function on every pair of shapes and types: an answer of the shape of x that can be differentiated, or an error.
#[test]
fn nothing_that_a_caller_gives_is_a_panic() -> Result<()> {
    let shapes: [&[usize]; 10] =
        [&[], &[0], &[1], &[3], &[2, 0], &[2, 3], &[1, 3], &[2, 4, 3], &[0, 4, 3], &[2, 4, 3, 3]];
    let types = [DType::F32, DType::F64, DType::BF16, DType::U8];
    let all = || shapes.iter().flat_map(|shape| types.map(|dtype| (*shape, dtype)));
    let mut answers = 0;
    for ((shape, dtype), (other, other_type)) in all().flat_map(|x| all().map(move |p| (x, p))) {
        let x = Var::from_tensor(&tensor(shape, 1, DType::F64)?.abs()?.to_dtype(dtype)?)?;
        let p = Var::from_tensor(&tensor(other, 2, DType::F64)?.abs()?.to_dtype(other_type)?)?;
        let (x, p) = (x.as_tensor(), p.as_tensor());
        let results = [
            ops::layer_norm(x, p, p, EPS),
            ops::layer_norm(x, None, p, EPS),
            ops::rms_norm(x, p, EPS),
            ops::scale_norm(x, p, EPS),
            ops::l2_norm(x, EPS),
            ops::group_norm(x, 2, p, p, EPS),
            ops::group_norm_silu(x, 1, p, None, EPS),
            ops::instance_norm(x, p, p, EPS),
            ops::add_layer_norm(x, p, p, p, EPS).and_then(|(y, sum)| y + sum),
            ops::add_rms_norm(x, x, p, EPS).map(|(y, _)| y),
            ops::adaptive_layer_norm(x, p, p, EPS),
            ops::adaptive_rms_norm(x, p, x, EPS),
            ops::qk_rms_norm(x, x, p, None, EPS).and_then(|(q, k)| q + k),
            layernorm_candle::LayerNorm::new(p.clone(), p.clone(), EPS).forward_add(x, x).map(|(y, _)| y),
        ];
        for y in results.into_iter().flatten() {
            assert_eq!(
                (y.shape(), y.dtype()),
                (x.shape(), dtype),
                "{shape:?} {dtype:?} {other:?} {other_type:?}"
            );
            y.sum_all()?.backward()?;
            answers += 1;
        }
    }
    assert!(answers > 500, "{answers} answers");
    Ok(())
}
