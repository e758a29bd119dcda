//! Norms by channel, in images.

use super::*;
use layernorm::{
    Activation, Batch, BatchGradients, BatchMut, Groups, Images, ParamGradients, Params, Rows, RowsMut, Run,
    Stats, TensorGradients, Trained, Training, Workspace,
};

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
