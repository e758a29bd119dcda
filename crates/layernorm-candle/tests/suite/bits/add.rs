//! A sum and its norm.

use super::*;
use layernorm::{
    AddGradients, Branch, Gradients, ParamGradients, Params, Residual, Rows, RowsMut, Run, Upstream,
    Workspace,
};

/// y and the sum; and dx, to which the gradient of the sum is still to be added, with dweight and dbias.
type Halfway<E> = ([Vec<E>; 2], Vec<E>, [Vec<<E as Element>::Acc>; 2]);

/// By the kernels on slices.
fn by_kernels<E: Number, P: Companion<E>>(
    norm: Norm,
    [x, residual, dy]: [&[E]; 3],
    [weight, bias]: [&[P]; 2],
) -> std::result::Result<Halfway<E>, layernorm::Error> {
    let features = weight.len();
    let (mut y, mut sum, mut dx) = (zeros::<E>(x.len()), zeros::<E>(x.len()), zeros::<E>(x.len()));
    let (mut dw, mut db) = (zeros::<E::Acc>(features), zeros::<E::Acc>(features));
    let bias = (norm == Norm::Layer).then_some(bias);
    let params = Params { weight: Some(weight), bias, eps: EPS };
    let rows = |values| Rows::new(values, features);
    let (to, run) = (RowsMut::new(&mut y, features)?, Run::default());
    let out = RowsMut::new(&mut sum, features)?;
    let of = Residual { residual: rows(residual)?, out, branch: Branch::default() };
    match norm {
        Norm::Layer => layernorm::add_layer_norm(rows(x)?, of, params, to, None, run)?,
        Norm::Rms => layernorm::add_rms_norm(rows(x)?, of, params, to, None, run)?,
    }
    let of_params = ParamGradients {
        dweight: Some(&mut dw),
        dbias: Some(&mut db),
        accumulate: false,
        first_row: 0,
        workspace: &mut Workspace::new(),
    };
    let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, features)?), params: Some(of_params) };
    let (sum_rows, dy) = (rows(&sum)?, rows(dy)?);
    match norm {
        Norm::Layer => layernorm::layer_norm_backward(sum_rows, dy, params, None, gradients, run)?,
        Norm::Rms => layernorm::rms_norm_backward(sum_rows, dy, params, None, gradients, run)?,
    }
    Ok(([y, sum], dx, [dw, db]))
}

fn same_as_slices<E: Number, P: Companion<E> + WithDType>(
    norm: Norm,
    (name, shape, view): View,
) -> Result<()> {
    const FEATURES: usize = 37;
    let leaves = [variable(&shape(FEATURES), 1, E::DTYPE)?, variable(&shape(FEATURES), 2, E::DTYPE)?];
    let (weight, bias) = (variable(&[FEATURES], 3, P::DTYPE)?, variable(&[FEATURES], 4, P::DTYPE)?);
    let (x, residual) = (view(&leaves[0])?, view(&leaves[1])?);
    let (dy, dsum) = (tensor(&[4, 6, FEATURES], 5, E::DTYPE)?, tensor(&[4, 6, FEATURES], 6, E::DTYPE)?);
    let (y, sum) = match norm {
        Norm::Layer => {
            let (weight, bias) = (weight.as_tensor(), bias.as_tensor());
            layernorm_candle::ops::add_layer_norm(&x, &residual, weight, bias, EPS)?
        }
        Norm::Rms => layernorm_candle::ops::add_rms_norm(&x, &residual, weight.as_tensor(), EPS)?,
    };
    let gradients = ((&y * &dy)?.sum_all()? + (&sum * &dsum)?.sum_all()?)?.backward()?;

    let slice = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<E>();
    let ([expected_y, expected_sum], dx, sums) = by_kernels(
        norm,
        [&slice(&x)?, &slice(&residual)?, &slice(&dy)?],
        [&weight.to_vec1::<P>()?, &bias.to_vec1::<P>()?],
    )
    .expect("the shapes fit");
    let what = format!("{norm:?} {:?} {:?} {name}", E::DTYPE, P::DTYPE);
    assert_same(&y, &flat(expected_y)?, &format!("y {what}"))?;
    assert_same(&sum, &flat(expected_sum)?, &format!("sum {what}"))?;
    if name != "one row many times" {
        let expected = (flat(dx)? + dsum.flatten_all()?)?;
        for leaf in &leaves {
            assert_same(&view(gradient(&gradients, leaf))?, &expected, &format!("dx {what}"))?;
        }
    }
    let [dweight, dbias] = sums.map(|sums| flat(sums)?.to_dtype(P::DTYPE));
    assert_same(gradient(&gradients, &weight), &dweight?, &format!("dweight {what}"))?;
    match norm {
        Norm::Layer => assert_same(gradient(&gradients, &bias), &dbias?, &format!("dbias {what}")),
        Norm::Rms => Ok(()),
    }
}

#[test]
fn the_same_as_the_kernels_on_slices() -> Result<()> {
    for (norm, view) in NORMS.into_iter().flat_map(|norm| VIEWS.map(|view| (norm, view))) {
        same_as_slices::<f32, f32>(norm, view)?;
        same_as_slices::<f64, f64>(norm, view)?;
        same_as_slices::<f16, f16>(norm, view)?;
        same_as_slices::<f16, f32>(norm, view)?;
        same_as_slices::<bf16, bf16>(norm, view)?;
        same_as_slices::<bf16, f32>(norm, view)?;
    }
    Ok(())
}

/// Candle adds the two gradients that meet at the sum; the kernels' own backward pass does in one call.
#[test]
fn the_gradient_of_the_fused_backward_pass() -> Result<()> {
    let (x, residual) = (variable(&[5, 100], 1, DType::F32)?, variable(&[5, 100], 2, DType::F32)?);
    let (dy, dsum) = (tensor(&[5, 100], 3, DType::F32)?, tensor(&[5, 100], 4, DType::F32)?);
    let (y, sum) = layernorm_candle::ops::add_layer_norm(&x, &residual, None, None, EPS)?;
    let gradients = ((&y * &dy)?.sum_all()? + (&sum * &dsum)?.sum_all()?)?.backward()?;
    let [sum, dy, dsum] = [sum, dy, dsum].map(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
    let (sum, dy, dsum, mut dresidual) = (sum?, dy?, dsum?, zeros::<f32>(500));
    let mut run = || {
        let gradients = AddGradients {
            upstream: Upstream::Apart(Rows::new(&dsum, 100)?),
            dresidual: RowsMut::new(&mut dresidual, 100)?,
            mask: None,
            dx: None,
            branch_bias: None,
            params: None,
        };
        let params = Params::<f32> { eps: EPS, ..Params::default() };
        let (out, dy) = (Rows::new(&sum, 100)?, Rows::new(&dy, 100)?);
        layernorm::add_layer_norm_backward(out, dy, params, None, gradients, Run::default())
    };
    run().expect("the shapes fit");
    assert_same(gradient(&gradients, &x), &flat(dresidual)?, "dx")?;
    assert_same(gradient(&gradients, &x), gradient(&gradients, &residual), "dresidual")
}
