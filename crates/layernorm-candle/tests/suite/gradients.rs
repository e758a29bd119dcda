//! Gradients against central differences, in f64, for every function and over layouts.

use super::*;
use layernorm_candle::ops;

/// A function of some tensors, and their shapes.
pub(super) type Case = (&'static str, Vec<Vec<usize>>, fn(&[Tensor]) -> Result<Tensor>);

pub(super) fn cases() -> Vec<Case> {
    vec![
        ("layer norm", vec![vec![2, 3, 5], vec![5], vec![5]], |t| ops::layer_norm(&t[0], &t[1], &t[2], EPS)),
        ("layer norm, shared", vec![vec![3, 5], vec![1], vec![1]], |t| {
            ops::layer_norm(&t[0], &t[1], &t[2], EPS)
        }),
        ("layer norm, no bias", vec![vec![3, 5], vec![5]], |t| ops::layer_norm(&t[0], &t[1], None, EPS)),
        ("layer norm, no weight", vec![vec![3, 5], vec![5]], |t| ops::layer_norm(&t[0], None, &t[1], EPS)),
        ("layer norm, bare", vec![vec![3, 5]], |t| ops::layer_norm(&t[0], None, None, EPS)),
        ("layer norm, transposed", vec![vec![5, 3], vec![5]], |t| {
            ops::layer_norm(&t[0].t()?, &t[1], None, EPS)
        }),
        ("layer norm, columns", vec![vec![3, 9], vec![5], vec![5]], |t| {
            ops::layer_norm(&t[0].narrow(1, 2, 5)?, &t[1], &t[2], EPS)
        }),
        ("layer norm, heads", vec![vec![2, 3, 2, 5], vec![5], vec![5]], |t| {
            ops::layer_norm(&t[0].transpose(1, 2)?, &t[1], &t[2], EPS)
        }),
        ("layer norm, broadcast", vec![vec![1, 3, 5], vec![5]], |t| {
            ops::layer_norm(&t[0].broadcast_as((2, 3, 5))?, &t[1], None, EPS)
        }),
        ("layer norm, y permuted", vec![vec![2, 3, 5], vec![5]], |t| {
            ops::layer_norm(&t[0], &t[1], None, EPS)?.permute((2, 0, 1))
        }),
        ("layer norm of itself", vec![vec![4]], |t| ops::layer_norm(&t[0], &t[0], &t[0], EPS)),
        ("RMS norm", vec![vec![2, 3, 5], vec![5]], |t| ops::rms_norm(&t[0], &t[1], EPS)),
        ("RMS norm, bare", vec![vec![3, 5]], |t| ops::rms_norm(&t[0], None, EPS)),
        ("scale norm", vec![vec![2, 3, 5], vec![1]], |t| ops::scale_norm(&t[0], &t[1], EPS)),
        ("scale norm of short rows", vec![vec![3, 5], vec![]], |t| ops::scale_norm(&t[0], &t[1], 1.2)),
        ("L2 norm", vec![vec![3, 5]], |t| ops::l2_norm(&t[0], EPS)),
        ("group norm", vec![vec![2, 6, 2, 3], vec![6], vec![6]], |t| {
            ops::group_norm(&t[0], 3, &t[1], &t[2], EPS)
        }),
        ("group norm, channels last", vec![vec![2, 2, 3, 6], vec![6], vec![6]], |t| {
            ops::group_norm(&t[0].permute((0, 3, 1, 2))?, 3, &t[1], &t[2], EPS)
        }),
        ("group norm and SiLU", vec![vec![2, 6, 2, 3], vec![6], vec![6]], |t| {
            ops::group_norm_silu(&t[0], 2, &t[1], &t[2], EPS)
        }),
        ("group norm and SiLU, no weight", vec![vec![2, 4, 3], vec![4]], |t| {
            ops::group_norm_silu(&t[0], 2, None, &t[1], EPS)
        }),
        ("group norm, shared weight, no bias", vec![vec![2, 4, 3], vec![1]], |t| {
            ops::group_norm(&t[0], 2, &t[1], None, EPS)
        }),
        ("group norm, no weight", vec![vec![2, 4, 3], vec![4]], |t| {
            ops::group_norm(&t[0], 2, None, &t[1], EPS)
        }),
        ("instance norm", vec![vec![2, 3, 4], vec![3], vec![3]], |t| {
            ops::instance_norm(&t[0], &t[1], &t[2], EPS)
        }),
        ("add and layer norm", vec![vec![2, 5], vec![2, 5], vec![5], vec![5]], |t| {
            let (y, sum) = ops::add_layer_norm(&t[0], &t[1], &t[2], &t[3], EPS)?;
            y + sum.sqr()?
        }),
        ("add and layer norm, no bias, axes swapped", vec![vec![2, 3, 5], vec![3, 2, 5], vec![5]], |t| {
            let (y, sum) = ops::add_layer_norm(&t[0], &t[1].transpose(0, 1)?, &t[2], None, EPS)?;
            y + sum.sqr()?
        }),
        ("add and layer norm, bare, of itself", vec![vec![3, 5]], |t| {
            let (y, sum) = ops::add_layer_norm(&t[0], &t[0], None, None, EPS)?;
            y * sum
        }),
        ("add and layer norm, the norm alone", vec![vec![3, 5], vec![3, 5], vec![5]], |t| {
            Ok(ops::add_layer_norm(&t[0], &t[1], None, &t[2], EPS)?.0)
        }),
        ("add and layer norm, the sum alone", vec![vec![3, 5], vec![3, 5]], |t| {
            Ok(ops::add_layer_norm(&t[0], &t[1], None, None, EPS)?.1)
        }),
        ("add and RMS norm", vec![vec![2, 5], vec![2, 5], vec![5]], |t| {
            let (y, sum) = ops::add_rms_norm(&t[0], &t[1], &t[2], EPS)?;
            y + sum.sqr()?
        }),
        ("adaptive layer norm", vec![vec![2, 3, 5], vec![2, 5], vec![2, 5]], |t| {
            ops::adaptive_layer_norm(&t[0], &t[1], &t[2], EPS)
        }),
        ("adaptive layer norm, halves of one tensor", vec![vec![2, 3, 5], vec![2, 10]], |t| {
            ops::adaptive_layer_norm(&t[0], &t[1].narrow(1, 0, 5)?, &t[1].narrow(1, 5, 5)?, EPS)
        }),
        ("adaptive RMS norm, one condition", vec![vec![2, 3, 5], vec![5], vec![5]], |t| {
            ops::adaptive_rms_norm(&t[0], &t[1], &t[2], EPS)
        }),
        ("adaptive RMS norm, axes swapped", vec![vec![3, 2, 5], vec![2, 5], vec![2, 5]], |t| {
            ops::adaptive_rms_norm(&t[0].transpose(0, 1)?, &t[1], &t[2], EPS)
        }),
        ("adaptive RMS norm, broadcast", vec![vec![2, 3, 5], vec![5], vec![2, 3, 1]], |t| {
            ops::adaptive_rms_norm(&t[0], &t[1], &t[2], EPS)
        }),
        ("QK norm", vec![vec![1, 3, 2, 4], vec![1, 3, 2, 4], vec![4], vec![4]], |t| {
            let (q, k) = (t[0].transpose(1, 2)?, t[1].transpose(1, 2)?);
            let (q, k) = ops::qk_rms_norm(&q, &k, &t[2], &t[3], EPS)?;
            q.matmul(&k.t()?.contiguous()?)
        }),
        ("QK norm, of one buffer", vec![vec![2, 3, 6, 4], vec![4]], |t| {
            let (q, k) = (t[0].narrow(2, 0, 2)?, t[0].narrow(2, 2, 2)?);
            let (q, k) = ops::qk_rms_norm(&q, &k, &t[1], &t[1], EPS)?;
            q * k
        }),
        ("QK layer norm", vec![vec![1, 2, 3, 4], vec![1, 2, 3, 4], vec![4], vec![4]], |t| {
            let (q, k) = ops::qk_layer_norm(&t[0], &t[1], &t[2], &t[3], EPS)?;
            q.matmul(&k.t()?.contiguous()?)
        }),
        ("batch norm", vec![vec![4, 3, 2], vec![3], vec![3]], |t| {
            let [mean, var] = [Tensor::zeros(3, DType::F64, &CPU)?, Tensor::ones(3, DType::F64, &CPU)?];
            layernorm_candle::BatchNorm::new(3, mean, var, t[1].clone(), t[2].clone(), EPS)?
                .forward_train(&t[0])
        }),
        ("batch norm, channels last", vec![vec![4, 2, 3], vec![3], vec![3]], |t| {
            let [mean, var] = [Tensor::zeros(3, DType::F64, &CPU)?, Tensor::ones(3, DType::F64, &CPU)?];
            layernorm_candle::BatchNorm::new(3, mean, var, t[1].clone(), t[2].clone(), EPS)?
                .forward_train(&t[0].transpose(1, 2)?)
        }),
        ("batch norm, without its mean", vec![vec![4, 3, 2]], |t| {
            let config =
                candle_nn::BatchNormConfig { remove_mean: false, affine: false, ..Default::default() };
            let vb = candle_nn::VarBuilder::zeros(DType::F64, &CPU);
            layernorm_candle::batch_norm(3, config, vb)?.forward_train(&t[0])
        }),
        ("batch norm, evaluating, of pictures", vec![vec![2, 3, 4], vec![3], vec![3]], |t| {
            let [mean, var] = [tensor(&[3], 9, DType::F64)?, Tensor::full(0.7, 3, &CPU)?];
            let norm = layernorm_candle::BatchNorm::new(3, mean, var, t[1].clone(), t[2].clone(), EPS)?;
            candle_core::ModuleT::forward_t(&norm, &t[0], false)
        }),
        ("batch norm, evaluating", vec![vec![4, 3], vec![3], vec![3]], |t| {
            let [mean, var] = [tensor(&[3], 9, DType::F64)?, Tensor::full(0.7, 3, &CPU)?];
            let norm = layernorm_candle::BatchNorm::new(3, mean, var, t[1].clone(), t[2].clone(), EPS)?;
            candle_core::ModuleT::forward_t(&norm, &t[0], false)
        }),
        ("adaptive module", vec![vec![2, 3, 5], vec![2, 4], vec![10, 4], vec![10]], |t| {
            let linear = candle_nn::Linear::new(t[2].clone(), Some(t[3].clone()));
            layernorm_candle::AdaptiveNorm::new(linear, 5, EPS).forward(&t[0], &t[1])
        }),
    ]
}

/// What is differentiated: a sum of tanh(y) with random weights.
pub(super) fn loss(f: fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Result<Tensor> {
    let y = f(inputs)?;
    (y.tanh()? * tensor(y.dims(), 99, DType::F64)?)?.sum_all()
}

#[test]
fn agree_with_differences() -> Result<()> {
    const H: f64 = 1e-5;
    for (name, shapes, f) in cases() {
        let start = shapes.iter().zip(1..).map(|(shape, seed)| numbers(shape.iter().product(), seed));
        let start: Vec<Vec<f64>> = start.collect();
        let at = |values: &[Vec<f64>]| -> Result<f64> {
            let inputs = values.iter().zip(&shapes);
            let inputs = inputs.map(|(values, shape)| Tensor::from_vec(values.clone(), &shape[..], &CPU));
            loss(f, &inputs.collect::<Result<Vec<_>>>()?)?.to_scalar()
        };
        let variables = start.iter().zip(&shapes);
        let variables = variables.map(|(values, shape)| Var::from_vec(values.clone(), &shape[..], &CPU));
        let variables = variables.collect::<Result<Vec<_>>>()?;
        let inputs: Vec<Tensor> = variables.iter().map(|var| var.as_tensor().clone()).collect();
        let gradients = loss(f, &inputs)?.backward()?;
        for (which, variable) in variables.iter().enumerate() {
            let got =
                gradients.get(variable).unwrap_or_else(|| panic!("{name}: input {which} has a gradient"));
            assert_eq!(got.shape(), variable.shape(), "{name}, input {which}");
            for (index, got) in values(got)?.into_iter().enumerate() {
                let shifted = |step: f64| {
                    let mut values = start.clone();
                    values[which][index] += step;
                    at(&values)
                };
                let want = (shifted(H)? - shifted(-H)?) / (2.0 * H);
                // The truncation error of the differences is some thousand h^2.
                assert!(
                    (got - want).abs() <= 1e-6 * (1.0 + want.abs()),
                    "{name}, input {which}: {got} where differences give {want}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn reach_one_input_where_the_others_are_constants() -> Result<()> {
    for which in 0..3 {
        let inputs =
            [tensor(&[3, 5], 1, DType::F64)?, tensor(&[5], 2, DType::F64)?, tensor(&[5], 3, DType::F64)?];
        let all = inputs.clone().map(|tensor| Var::from_tensor(&tensor));
        let all = all.into_iter().collect::<Result<Vec<_>>>()?;
        let only = Var::from_tensor(&inputs[which])?;
        let mut some = inputs.clone();
        some[which] = only.as_tensor().clone();
        let of = |x: &Tensor, w: &Tensor, b: &Tensor| -> Result<Tensor> {
            ops::layer_norm(x, w, b, EPS)?.tanh()?.sum_all()
        };
        let gradients = of(&some[0], &some[1], &some[2])?.backward()?;
        let expected = of(&all[0], &all[1], &all[2])?.backward()?;
        assert_eq!(
            bits(gradient(&gradients, &only))?,
            bits(gradient(&expected, &all[which]))?,
            "input {which}"
        );
    }
    Ok(())
}

#[test]
fn of_constant_rows_are_0() -> Result<()> {
    for eps in [0.0, 1e-5] {
        let x = Var::from_tensor(&Tensor::full(1234.0, (2, 256), &CPU)?)?;
        let y = ops::layer_norm(&x, None, None, eps)?;
        assert_eq!(values(&y)?, vec![0.0; 512]);
        let gradients = (y * tensor(&[2, 256], 1, DType::F64)?)?.sum_all()?.backward()?;
        let dx = values(gradient(&gradients, &x))?;
        assert!(dx.iter().all(|dx| dx.is_finite()) && (eps > 0.0 || dx.iter().all(|dx| *dx == 0.0)), "{eps}");
    }
    Ok(())
}
