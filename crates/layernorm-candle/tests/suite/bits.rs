//! The same bits as the kernels on slices, whatever the layout of the tensor and the batch around a row.

use super::*;
use candle_core::{IndexOp, WithDType};
use half::{bf16, f16};
use layernorm::{
    Activation, Batch, BatchGradients, BatchMut, Companion, Element, Gradients, Groups, Images,
    ParamGradients, Params, Rows, RowsMut, Run, Stats, TensorGradients, Trained, Training, Workspace,
};

/// A type of x, and a type of parameters.
trait Number: Element<Acc: WithDType> + WithDType {}
impl<E: Element<Acc: WithDType> + WithDType> Number for E {}

fn zeros<T: WithDType>(len: usize) -> Vec<T> {
    vec![T::from_f64(0.0); len]
}

/// y and dx; and dweight and dbias.
type Expected<E> = ([Vec<E>; 2], [Vec<<E as Element>::Acc>; 2]);

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

fn flat<T: WithDType>(values: Vec<T>) -> Result<Tensor> {
    let len = values.len();
    Tensor::from_vec(values, len, &CPU)
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

/// y, dx, dweight and dbias of group norm by the kernels on slices.
fn groups_by_kernels<E: Number, P: Companion<E>>(
    images: Images,
    (groups, activation): (usize, Activation),
    [x, dy]: [&[E]; 2],
    [weight, bias]: [&[P]; 2],
) -> Expected<E> {
    let (mut y, mut dx) = (zeros::<E>(x.len()), zeros::<E>(x.len()));
    let (mut dw, mut db) = (zeros::<E::Acc>(weight.len()), zeros::<E::Acc>(weight.len()));
    let mut workspace = Workspace::new();
    let params = Params { weight: Some(weight), bias: Some(bias), eps: EPS };
    let norm = Groups { images, groups, params, activation };
    layernorm::group_norm(norm, x, &mut y, None, &mut workspace, Run::default()).expect("the shapes fit");
    let of_params = ParamGradients {
        dweight: Some(&mut dw),
        dbias: Some(&mut db),
        accumulate: false,
        first_row: 0,
        workspace: &mut workspace,
    };
    let gradients = TensorGradients { dx: Some(&mut dx), params: of_params };
    layernorm::group_norm_backward(norm, x, dy, None, gradients, Run::default()).expect("the shapes fit");
    ([y, dx], [dw, db])
}

/// Ways for images of [3, 6, 2, 5] to lie in memory, as views of a leaf of the shape before it.
type Picture = (&'static str, [usize; 4], fn(&Tensor) -> Result<Tensor>);

const PICTURES: [Picture; 5] = [
    ("channels first", [3, 6, 2, 5], |x| Ok(x.clone())),
    ("channels last", [3, 2, 5, 6], |x| x.permute((0, 3, 1, 2))),
    ("some channels", [3, 9, 2, 5], |x| x.narrow(1, 2, 6)),
    ("some samples, channels last", [7, 2, 5, 6], |x| x.narrow(0, 2, 3)?.permute((0, 3, 1, 2))),
    ("turned", [3, 6, 5, 2], |x| x.transpose(2, 3)),
];

fn groups_same_as_slices<E: Number, P: Companion<E> + WithDType>() -> Result<()> {
    let slice = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<E>();
    for (name, shape, view) in PICTURES {
        for (groups, activation) in [(1, Activation::None), (3, Activation::Silu), (6, Activation::None)] {
            let leaf = variable(&shape, 1, E::DTYPE)?;
            let (weight, bias) = (variable(&[6], 2, P::DTYPE)?, variable(&[6], 3, P::DTYPE)?);
            let (x, dy) = (view(&leaf)?, tensor(&[3, 6, 2, 5], 4, E::DTYPE)?);
            let y = match activation {
                Activation::Silu => {
                    let norm = layernorm_candle::GroupNorm::new(
                        weight.as_tensor().clone(),
                        bias.as_tensor().clone(),
                        6,
                        groups,
                        EPS,
                    )?;
                    norm.forward_silu(&x)?
                }
                _ => {
                    layernorm_candle::ops::group_norm(&x, groups, weight.as_tensor(), bias.as_tensor(), EPS)?
                }
            };
            let gradients = (&y * &dy)?.sum_all()?.backward()?;
            let images = Images::new(3, 6, &[2, 5], layernorm::Layout::ChannelsFirst);
            let ([expected_y, expected_dx], sums) = groups_by_kernels(
                images.expect("not too many"),
                (groups, activation),
                [&slice(&x)?, &slice(&dy)?],
                [&weight.to_vec1::<P>()?, &bias.to_vec1::<P>()?],
            );
            let [expected_dw, expected_db] = sums.map(|sums| flat(sums)?.to_dtype(P::DTYPE));
            let what = format!("{:?} {:?}, {groups} groups, {activation:?}, {name}", E::DTYPE, P::DTYPE);
            assert_same(&y, &flat(expected_y)?, &format!("y {what}"))?;
            let dx = view(gradient(&gradients, &leaf))?;
            assert_same(&dx, &(flat(expected_dx)? + 0.0)?, &format!("dx {what}"))?;
            assert_same(gradient(&gradients, &weight), &expected_dw?, &format!("dweight {what}"))?;
            assert_same(gradient(&gradients, &bias), &expected_db?, &format!("dbias {what}"))?;
        }
    }
    Ok(())
}

#[test]
fn groups_the_same_as_the_kernels_on_slices() -> Result<()> {
    groups_same_as_slices::<f32, f32>()?;
    groups_same_as_slices::<f64, f64>()?;
    groups_same_as_slices::<f16, f16>()?;
    groups_same_as_slices::<f16, f32>()?;
    groups_same_as_slices::<bf16, bf16>()?;
    groups_same_as_slices::<bf16, f32>()
}

/// y, dx, dweight and dbias of batch norm in training, by the kernels on slices that lie as they say.
fn batch_by_kernels<E: Number, P: Companion<E>>(
    last: bool,
    [x, dy]: [&[E]; 2],
    [weight, bias]: [&[P]; 2],
) -> std::result::Result<Expected<E>, layernorm::Error> {
    let (channels, positions) = (weight.len(), 10);
    let (mut y, mut dx) = (zeros::<E>(x.len()), zeros::<E>(x.len()));
    let (mut dw, mut db) = (zeros::<E::Acc>(channels), zeros::<E::Acc>(channels));
    let mut workspace = Workspace::new();
    let params = Params { weight: Some(weight), bias: Some(bias), eps: EPS };
    let read = |values| {
        if last {
            Batch::channels_last(Rows::new(values, channels)?, positions)
        } else {
            Batch::channels_first(Rows::new(values, channels * positions)?, channels)
        }
    };
    let write = |values| {
        if last {
            BatchMut::channels_last(RowsMut::new(values, channels)?, positions)
        } else {
            BatchMut::channels_first(RowsMut::new(values, channels * positions)?, channels)
        }
    };
    let mut saved = Stats::<E::Acc>::new(channels);
    let training = Training::new(saved.as_mut(), &mut workspace);
    layernorm::batch_norm_train(read(x)?, params, write(&mut y)?, training, Run::default())?;
    let of_params = ParamGradients {
        dweight: Some(&mut dw),
        dbias: Some(&mut db),
        accumulate: false,
        first_row: 0,
        workspace: &mut workspace,
    };
    let gradients = BatchGradients { dx: Some(write(&mut dx)?), params: of_params };
    let trained = Trained::new(saved.as_ref());
    layernorm::batch_norm_train_backward(read(x)?, read(dy)?, params, trained, gradients, Run::default())?;
    Ok(([y, dx], [dw, db]))
}

fn batch_same_as_slices<E: Number, P: Companion<E> + WithDType>() -> Result<()> {
    for (name, shape, view) in PICTURES {
        let last = name.ends_with("channels last");
        let as_it_lies = |t: &Tensor| if last { t.permute((0, 2, 3, 1)) } else { Ok(t.clone()) };
        let slice = |tensor: &Tensor| as_it_lies(tensor)?.flatten_all()?.to_vec1::<E>();
        let leaf = variable(&shape, 1, E::DTYPE)?;
        let (weight, bias) = (variable(&[6], 2, P::DTYPE)?, variable(&[6], 3, P::DTYPE)?);
        let (x, dy) = (view(&leaf)?, tensor(&[3, 6, 2, 5], 4, E::DTYPE)?);
        let running = [Tensor::zeros(6, DType::F32, &CPU)?, Tensor::ones(6, DType::F32, &CPU)?];
        let [mean, var] = running;
        let parameters = (weight.as_tensor().clone(), bias.as_tensor().clone());
        let norm = layernorm_candle::BatchNorm::new(6, mean, var, parameters.0, parameters.1, EPS)?;
        let y = norm.forward_train(&x)?;
        let gradients = (&y * &dy)?.sum_all()?.backward()?;
        let ([expected_y, expected_dx], sums) = batch_by_kernels(
            last,
            [&slice(&x)?, &slice(&dy)?],
            [&weight.to_vec1::<P>()?, &bias.to_vec1::<P>()?],
        )
        .expect("the shapes fit");
        let [expected_dw, expected_db] = sums.map(|sums| flat(sums)?.to_dtype(P::DTYPE));
        let what = format!("{:?} {:?}, {name}", E::DTYPE, P::DTYPE);
        assert_same(&as_it_lies(&y)?, &flat(expected_y)?, &format!("y {what}"))?;
        let dx = as_it_lies(&view(gradient(&gradients, &leaf))?)?;
        assert_same(&dx, &(flat(expected_dx)? + 0.0)?, &format!("dx {what}"))?;
        assert_same(gradient(&gradients, &weight), &expected_dw?, &format!("dweight {what}"))?;
        assert_same(gradient(&gradients, &bias), &expected_db?, &format!("dbias {what}"))?;
    }
    Ok(())
}

#[test]
fn batches_the_same_as_the_kernels_on_slices() -> Result<()> {
    batch_same_as_slices::<f32, f32>()?;
    batch_same_as_slices::<f64, f64>()?;
    batch_same_as_slices::<f16, f16>()?;
    batch_same_as_slices::<f16, f32>()?;
    batch_same_as_slices::<bf16, bf16>()?;
    batch_same_as_slices::<bf16, f32>()
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
