//! f16, bf16, and parameters of another type than x.

use super::*;

const TYPES: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

#[test]
fn halves_are_the_f32_result_rounded_once() -> Result<()> {
    for dtype in [DType::F16, DType::BF16] {
        for norm in NORMS {
            let x = variable(&[4, 33], 1, dtype)?;
            let (weight, bias) = (variable(&[33], 2, dtype)?, tensor(&[33], 3, dtype)?);
            let bias = (norm == Norm::Layer).then_some(bias);
            let y = norm.of(&x, Some(&weight), bias.as_ref())?;
            assert_eq!(y.dtype(), dtype);

            let wide = |tensor: &Tensor| tensor.to_dtype(DType::F32);
            let (wide_x, wide_weight) = (Var::from_tensor(&wide(&x)?)?, Var::from_tensor(&wide(&weight)?)?);
            let wide_bias = bias.as_ref().map(wide).transpose()?;
            let expected = norm.of(&wide_x, Some(&wide_weight), wide_bias.as_ref())?;
            assert_eq!(bits(&y)?, bits(&expected.to_dtype(dtype)?)?, "{norm:?} {dtype:?}");

            let dy = tensor(&[4, 33], 4, dtype)?;
            let gradients = (y * &dy)?.sum_all()?.backward()?;
            let expected = (expected * wide(&dy)?)?.sum_all()?.backward()?;
            for (var, wide) in [(&x, &wide_x), (&weight, &wide_weight)] {
                let (got, expected) = (gradient(&gradients, var), gradient(&expected, wide));
                assert_eq!(got.dtype(), dtype);
                assert_eq!(bits(got)?, bits(&expected.to_dtype(dtype)?)?, "{norm:?} {dtype:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn parameters_of_any_float_type() -> Result<()> {
    for x_type in TYPES {
        for parameter_type in TYPES {
            let x = variable(&[3, 8], 1, x_type)?;
            let (weight, bias) = (variable(&[8], 2, parameter_type)?, variable(&[8], 3, parameter_type)?);
            let y = layernorm_candle::ops::layer_norm(&x, weight.as_tensor(), bias.as_tensor(), EPS)?;
            assert_eq!(y.dtype(), x_type);
            let gradients = y.sqr()?.sum_all()?.backward()?;
            for var in [&x, &weight, &bias] {
                assert_eq!(gradient(&gradients, var).dtype(), var.dtype(), "{x_type:?} {parameter_type:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn every_norm_takes_every_type() -> Result<()> {
    use candle_core::ModuleT;
    use layernorm_candle::ops;
    for dtype in TYPES {
        let tolerance = if dtype == DType::BF16 { 3e-2 } else { 4e-3 };
        let of = |dtype: DType| -> Result<Vec<Tensor>> {
            let x = tensor(&[2, 4, 3], 1, DType::BF16)?.to_dtype(dtype)?;
            let weight = tensor(&[4], 2, DType::BF16)?.to_dtype(dtype)?;
            let (weight, scale) = (&weight, tensor(&[2, 3], 3, DType::BF16)?.to_dtype(dtype)?);
            let vb = candle_nn::VarBuilder::zeros(DType::F32, &CPU);
            let config = candle_nn::BatchNormConfig { affine: false, ..Default::default() };
            let batch = layernorm_candle::batch_norm(4, config, vb)?;
            Ok(vec![
                ops::group_norm(&x, 2, weight, weight, EPS)?,
                ops::instance_norm(&x, weight, weight, EPS)?,
                ops::adaptive_layer_norm(&x, &scale, &scale, EPS)?,
                ops::add_rms_norm(&x, &x, None, EPS)?.0,
                batch.forward_t(&x, true)?,
                batch.forward_t(&x, false)?,
            ])
        };
        for (index, (y, expected)) in of(dtype)?.iter().zip(of(DType::F64)?).enumerate() {
            assert_eq!(y.dtype(), dtype);
            assert_close(y, &expected.to_dtype(dtype)?, tolerance, &format!("{dtype:?}, norm {index}"))?;
        }
    }
    Ok(())
}
