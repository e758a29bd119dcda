//! f16, bf16, and parameters of another type than x.

use super::*;

const TYPES: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

#[test]
fn halves_are_the_f32_result_rounded_once() -> Result<()> {
    // Types of x, of the weight and of the bias: those that the kernels read, and some that are converted.
    use DType::{BF16, F16, F32};
    let all = [
        [F16, F16, F16],
        [BF16, BF16, BF16],
        [F16, F32, F32],
        [BF16, F32, F32],
        [BF16, BF16, F32],
        [BF16, F32, BF16],
        [F16, BF16, F16],
    ];
    for [dtype, weight_type, bias_type] in all {
        for norm in NORMS {
            let x = variable(&[4, 33], 1, dtype)?;
            let (weight, bias) = (variable(&[33], 2, weight_type)?, variable(&[33], 3, bias_type)?);
            let biased = norm == Norm::Layer;
            let y = norm.of(&x, Some(&weight), biased.then_some(bias.as_tensor()))?;
            assert_eq!(y.dtype(), dtype);

            let wide = |tensor: &Tensor| Var::from_tensor(&tensor.to_dtype(DType::F32)?);
            let (wide_x, wide_weight, wide_bias) = (wide(&x)?, wide(&weight)?, wide(&bias)?);
            let expected = norm.of(&wide_x, Some(&wide_weight), biased.then_some(wide_bias.as_tensor()))?;
            let what = format!("{norm:?} {dtype:?} {weight_type:?} {bias_type:?}");
            assert_same(&y, &expected.to_dtype(dtype)?, &what)?;

            let dy = tensor(&[4, 33], 4, dtype)?;
            let gradients = (y * &dy)?.sum_all()?.backward()?;
            let expected = (expected * dy.to_dtype(DType::F32)?)?.sum_all()?.backward()?;
            let pairs = [(&x, &wide_x), (&weight, &wide_weight), (&bias, &wide_bias)];
            for (var, wide) in &pairs[..if biased { 3 } else { 2 }] {
                let (got, expected) = (gradient(&gradients, var), gradient(&expected, wide));
                assert_eq!(got.dtype(), var.dtype());
                assert_same(got, &expected.to_dtype(var.dtype())?, &what)?;
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
