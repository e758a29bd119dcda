//! The same bits as the kernels on slices, whatever the layout of the tensor and the batch around a row.

use super::*;
use candle_core::{IndexOp, WithDType};
use layernorm::{Gradients, ParamGradients, Params, Real, Rows, RowsMut, Run, Workspace};

/// y, dx, dweight and dbias by the kernels on slices.
fn by_kernels<T: Real + WithDType>(norm: Norm, x: &[T], dy: &[T], weight: &[T], bias: &[T]) -> [Vec<T>; 4] {
    let features = weight.len();
    let zeros = |len| vec![T::zero(); len];
    let (mut y, mut dx, mut dw, mut db) = (zeros(x.len()), zeros(x.len()), zeros(features), zeros(features));
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
    [y, dx, dw, db]
}

/// Ways to lie in memory, as a view of a leaf of the shape before it. All views are [4, 6, features].
type View = (&'static str, fn(usize) -> Vec<usize>, fn(&Tensor) -> Result<Tensor>);

const VIEWS: [View; 7] = [
    ("contiguous", |n| vec![4, 6, n], |x| Ok(x.clone())),
    ("columns of a wider one", |n| vec![4, 6, n + 3], |x| x.narrow(2, 2, x.dim(2)? - 3)),
    ("rows of a taller one", |n| vec![9, 6, n], |x| x.narrow(0, 4, 4)),
    ("first axes swapped", |n| vec![6, 4, n], |x| x.transpose(0, 1)),
    ("swapped and narrowed", |n| vec![6, 5, n], |x| x.transpose(0, 1)?.narrow(0, 1, 4)),
    ("one row many times", |n| vec![1, 6, n], |x| x.broadcast_as((4, x.dim(1)?, x.dim(2)?))),
    ("transposed", |n| vec![n, 6, 4], |x| x.transpose(0, 2)),
];

fn same_as_slices<T: Real + WithDType>(norm: Norm, features: usize, (name, shape, view): View) -> Result<()> {
    let leaf = variable(&shape(features), 1, T::DTYPE)?;
    let (weight, bias) = (variable(&[features], 2, T::DTYPE)?, variable(&[features], 3, T::DTYPE)?);
    let x = view(&leaf)?;
    let dy = tensor(&[4, 6, features], 4, T::DTYPE)?;
    let y = match norm {
        Norm::Layer => layernorm_candle::ops::layer_norm(&x, weight.as_tensor(), bias.as_tensor(), EPS)?,
        Norm::Rms => {
            // With a bias, which only the module of this name takes.
            let vb = [("weight", &weight), ("bias", &bias)];
            let vb = vb.map(|(name, var)| (name.to_string(), var.as_tensor().clone())).into();
            let vb = candle_nn::VarBuilder::from_tensors(vb, T::DTYPE, &CPU);
            let config = candle_nn::LayerNormConfig { eps: EPS, remove_mean: false, affine: true };
            candle_core::Module::forward(&layernorm_candle::layer_norm(features, config, vb)?, &x)?
        }
    };
    let gradients = (&y * &dy)?.sum_all()?.backward()?;

    let slice = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<T>();
    let expected =
        by_kernels(norm, &slice(&x)?, &slice(&dy)?, &slice(weight.as_tensor())?, &slice(bias.as_tensor())?);
    let expected = expected.map(|values| {
        let len = values.len();
        Tensor::from_vec(values, len, &CPU)
    });
    let [expected_y, expected_dx, expected_dw, expected_db] = expected;
    let what = format!("{norm:?} {:?} {features} {name}", T::DTYPE);
    assert_eq!(bits(&y)?, bits(&expected_y?)?, "y {what}");
    if name != "one row many times" {
        // The gradient of the leaf, seen as x is.
        let dx = view(gradient(&gradients, &leaf))?;
        assert_eq!(bits(&dx)?, bits(&expected_dx?)?, "dx {what}");
    }
    assert_eq!(bits(gradient(&gradients, &weight))?, bits(&expected_dw?)?, "dweight {what}");
    assert_eq!(bits(gradient(&gradients, &bias))?, bits(&expected_db?)?, "dbias {what}");
    Ok(())
}

#[test]
fn the_same_as_the_kernels_on_slices() -> Result<()> {
    for norm in NORMS {
        for view in VIEWS {
            for features in [1, 7, 64, 1000] {
                same_as_slices::<f32>(norm, features, view)?;
                same_as_slices::<f64>(norm, features, view)?;
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

#[test]
fn groups_are_rows() -> Result<()> {
    let x = tensor(&[3, 6, 4, 5], 6, DType::F32)?;
    let rows = layernorm_candle::ops::layer_norm(&x.reshape((9, 40))?, None, None, EPS)?;
    let groups = layernorm_candle::ops::group_norm(&x, 3, None, None, EPS)?;
    assert_eq!(bits(&groups)?, bits(&rows)?);
    // Some channels of a wider tensor: no copy, the same bits.
    let wide = Tensor::cat(&[&x, &x], 1)?.narrow(1, 6, 6)?;
    assert_eq!(bits(&layernorm_candle::ops::group_norm(&wide, 3, None, None, EPS)?)?, bits(&rows)?);
    Ok(())
}
