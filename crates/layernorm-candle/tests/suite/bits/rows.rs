//! Layer and RMS norm, and norms by length.

use super::*;
use candle_core::IndexOp;
use layernorm::{Gradients, ParamGradients, Params, Rows, RowsMut, Run, Workspace};

/// y, dx, dweight and dbias by the kernels on slices.
fn by_kernels<E: Number, P: Companion<E>>(
    norm: Norm,
    [x, dy]: [&[E]; 2],
    [weight, bias]: [&[P]; 2],
) -> Expected<E> {
    let features = weight.len();
    let (mut y, mut dx) = (zeros::<E>(x.len()), zeros::<E>(x.len()));
    let (mut dw, mut db) = (zeros::<E::Acc>(features), zeros::<E::Acc>(features));
    let mut workspace = Workspace::new();
    let params = Params { weight: Some(weight), bias: Some(bias), eps: EPS };
    let mut run = || -> std::result::Result<(), layernorm::Error> {
        let rows = |values| Rows::new(values, features);
        let gradients = Gradients {
            dx: Some(RowsMut::new(&mut dx, features)?),
            params: Some(ParamGradients {
                dweight: Some(&mut dw),
                dbias: Some(&mut db),
                accumulate: false,
                first_row: 0,
                workspace: &mut workspace,
            }),
        };
        let y = RowsMut::new(&mut y, features)?;
        match norm {
            Norm::Layer => {
                layernorm::layer_norm(rows(x)?, params, y, None, Run::default())?;
                layernorm::layer_norm_backward(rows(x)?, rows(dy)?, params, None, gradients, Run::default())
            }
            Norm::Rms => {
                layernorm::rms_norm(rows(x)?, params, y, None, Run::default())?;
                layernorm::rms_norm_backward(rows(x)?, rows(dy)?, params, None, gradients, Run::default())
            }
        }
    };
    run().expect("the shapes fit");
    ([y, dx], [dw, db])
}

fn same_as_slices<E: Number, P: Companion<E> + WithDType>(
    norm: Norm,
    features: usize,
    (name, shape, view): View,
) -> Result<()> {
    let leaf = variable(&shape(features), 1, E::DTYPE)?;
    let (weight, bias) = (variable(&[features], 2, P::DTYPE)?, variable(&[features], 3, P::DTYPE)?);
    let x = view(&leaf)?;
    let dy = tensor(&[4, 6, features], 4, E::DTYPE)?;
    let y = match norm {
        Norm::Layer => layernorm_candle::ops::layer_norm(&x, weight.as_tensor(), bias.as_tensor(), EPS)?,
        Norm::Rms => {
            // With a bias, which only the module of this name takes.
            let vb = [("weight", &weight), ("bias", &bias)];
            let vb = vb.map(|(name, var)| (name.to_string(), var.as_tensor().clone())).into();
            let vb = candle_nn::VarBuilder::from_tensors(vb, P::DTYPE, &CPU);
            let config = candle_nn::LayerNormConfig { eps: EPS, remove_mean: false, affine: true };
            candle_core::Module::forward(&layernorm_candle::layer_norm(features, config, vb)?, &x)?
        }
    };
    let gradients = (&y * &dy)?.sum_all()?.backward()?;

    let slice = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<E>();
    let parameter = |var: &Var| var.to_vec1::<P>();
    let ([expected_y, expected_dx], sums) =
        by_kernels(norm, [&slice(&x)?, &slice(&dy)?], [&parameter(&weight)?, &parameter(&bias)?]);
    let [expected_y, expected_dx] = [expected_y, expected_dx].map(flat);
    // The sums over rows, rounded once to the type of their parameters.
    let [expected_dw, expected_db] = sums.map(|sums| flat(sums)?.to_dtype(P::DTYPE));
    let what = format!("{norm:?} {:?} {:?} {features} {name}", E::DTYPE, P::DTYPE);
    assert_same(&y, &expected_y?, &format!("y {what}"))?;
    if name != "one row many times" {
        // The gradient of the leaf, seen as x is.
        let dx = view(gradient(&gradients, &leaf))?;
        // Candle adds it to zeros, of which the sum with -0 is 0.
        assert_same(&dx, &(expected_dx? + 0.0)?, &format!("dx {what}"))?;
    }
    let types = (gradient(&gradients, &leaf).dtype(), gradient(&gradients, &weight).dtype());
    assert_eq!(types, (E::DTYPE, P::DTYPE), "{what}");
    assert_same(gradient(&gradients, &weight), &expected_dw?, &format!("dweight {what}"))?;
    assert_same(gradient(&gradients, &bias), &expected_db?, &format!("dbias {what}"))
}

#[test]
fn the_same_as_the_kernels_on_slices() -> Result<()> {
    for norm in NORMS {
        for view in VIEWS {
            for features in [1, 7, 64, 1000] {
                same_as_slices::<f32, f32>(norm, features, view)?;
                same_as_slices::<f64, f64>(norm, features, view)?;
                same_as_slices::<f16, f16>(norm, features, view)?;
                same_as_slices::<f16, f32>(norm, features, view)?;
                same_as_slices::<bf16, bf16>(norm, features, view)?;
                same_as_slices::<bf16, f32>(norm, features, view)?;
            }
        }
    }
    Ok(())
}

#[test]
fn of_a_row_alone_and_in_a_batch_over_threads() -> Result<()> {
    // Enough rows for the kernels to use threads, and enough blocks for this crate to.
    let x = tensor(&[8, 64, 512], 5, DType::F32)?;
    let swapped = x.transpose(0, 1)?;
    for norm in NORMS {
        let all = norm.of(&x, None, None)?;
        assert_eq!(
            bits(&norm.of(&swapped, None, None)?.transpose(0, 1)?)?,
            bits(&all)?,
            "{norm:?}, in blocks"
        );
        for (i, j) in [(0, 0), (3, 17), (7, 63)] {
            let alone = norm.of(&x.i((i, j))?, None, None)?;
            assert_eq!(bits(&alone)?, bits(&all.i((i, j))?)?, "{norm:?}, row {i} {j}");
        }
    }
    Ok(())
}

fn lengths_same_as_slices<E: Number, P: Companion<E> + WithDType>() -> Result<()> {
    for (name, shape, view) in VIEWS {
        let (leaf, scale) = (variable(&shape(33), 1, E::DTYPE)?, variable(&[1], 2, P::DTYPE)?);
        let x = view(&leaf)?;
        let (y, slice) =
            (layernorm_candle::ops::scale_norm(&x, &scale, EPS)?, x.flatten_all()?.to_vec1::<E>()?);
        let gradients = y.sum_all()?.backward()?;
        let (number, mut expected) = (scale.to_vec1::<P>()?[0], zeros::<E>(slice.len()));
        let (mut dx, mut dscale) = (zeros::<E>(slice.len()), zeros::<E::Acc>(1));
        let mut run = || -> std::result::Result<(), layernorm::Error> {
            let (x, run) = (Rows::new(&slice, 33)?, Run::default());
            layernorm::scale_norm(x, number, EPS, RowsMut::new(&mut expected, 33)?, None, run)?;
            let ones = vec![<E as WithDType>::from_f64(1.0); slice.len()];
            let workspace = &mut Workspace::new();
            let dweight = Some(&mut dscale[..]);
            let params = ParamGradients { dweight, dbias: None, accumulate: false, first_row: 0, workspace };
            let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, 33)?), params: Some(params) };
            layernorm::scale_norm_backward(x, Rows::new(&ones, 33)?, number, EPS, gradients, run)
        };
        run().expect("the shapes fit");
        let what = format!("{:?} {:?} {name}", E::DTYPE, P::DTYPE);
        assert_same(&y, &flat(expected)?, &format!("y {what}"))?;
        if name != "one row many times" {
            let got = view(gradient(&gradients, &leaf))?;
            assert_same(&got, &(flat(dx)? + 0.0)?, &format!("dx {what}"))?;
        }
        let dscale = flat(dscale)?.to_dtype(P::DTYPE)?;
        assert_same(gradient(&gradients, &scale), &dscale, &format!("dscale {what}"))?;
    }
    Ok(())
}

#[test]
fn lengths_the_same_as_the_kernels_on_slices() -> Result<()> {
    lengths_same_as_slices::<f32, f32>()?;
    lengths_same_as_slices::<f64, f64>()?;
    lengths_same_as_slices::<f16, f16>()?;
    lengths_same_as_slices::<bf16, f32>()
}
