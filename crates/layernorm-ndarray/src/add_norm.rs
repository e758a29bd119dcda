//! Residual add, then layer or RMS norm, which is what stands between the blocks of a transformer (Xiong et al. 2020,
//! arXiv:2002.04745):
//!
//! ```text
//! stream = residual + x        y = norm(stream)
//!
//! dresidual = dx = (gradient of the norm at the stream, from dy) + (gradient of the stream)
//! ```
//!
//! The sum is rounded to the elements' type, and normalised as stored.

use crate::gradients::with_slices;
use crate::layout::Layout;
use crate::memory::{Source, Target};
use crate::norm::Numbers;
use crate::operator::{Saved, SavedRef};
use crate::rms_norm::{columns, columns_mut};
use crate::views::expect;
use crate::whole::{Reading, Writing};
use crate::{Error, Norm, ParamGradients};
use layernorm::{Branch, Companion, Element, Residual, Run, StatsMut, StatsRef, Upstream};
use ndarray::{ArrayView, ArrayViewMut, Dimension};

/// Add, then layer norm: stream = residual + x, and y = weight (stream - mean) / sqrt(var + eps) + bias over the axes of `norm`.
///
/// `to` is y, and the stream that the next addition takes. All arrays have the shape of `x`, and each its own layout. The
/// statistics go to `saved`.
///
/// The bits are those of [`layernorm::add_layer_norm`], in every layout. Arrays whose rows lie side by side or evenly
/// spaced are read and written where they lie, in one pass; one that lies otherwise is copied, whole.
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::SameAxis`], [`Error::NoAxis`], [`Error::Shape`],
/// [`Error::Parameter`], and [`Error::Kernel`] for statistics of another length, epsilon and level.
///
/// ```
/// use layernorm_ndarray::{Norm, add_layer_norm};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, residual) = (array![[1.0f32, 1.0]], array![[0.0, 2.0]]);
/// let (mut y, mut stream) = (Array2::zeros((1, 2)), Array2::zeros((1, 2)));
/// let norm = Norm::<f32>::over(Axis(1)).with_eps(0.0);
/// let to = [y.view_mut(), stream.view_mut()];
/// add_layer_norm(x.view(), residual.view(), norm, to, None, Default::default())?;
/// assert_eq!((stream, y), (array![[1.0, 3.0]], array![[-1.0, 1.0]]));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn add_layer_norm<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    residual: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    to: [ArrayViewMut<'_, E, D>; 2],
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    forward([x.view(), residual.view()], &norm, to, saved, (true, run))
}

/// [`add_layer_norm`] in place: `residual` becomes the stream, and `x` its norm. The same bits.
///
/// # Errors
/// As [`add_layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, add_layer_norm_in_place};
/// use ndarray::{Axis, array};
///
/// let (mut x, mut stream) = (array![[1.0f64, 1.0]], array![[0.0, 2.0]]);
/// let norm = Norm::<f64>::over(Axis(1)).with_eps(0.0);
/// add_layer_norm_in_place(x.view_mut(), stream.view_mut(), norm, None, Default::default())?;
/// assert_eq!((stream, x), (array![[1.0, 3.0]], array![[-1.0, 1.0]]));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn add_layer_norm_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    residual: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    in_place(x, residual, &norm, saved, (true, run))
}

/// Which gradients the backward pass of an add and norm is to write.
///
/// ```
/// use layernorm_ndarray::AddGradients;
/// use ndarray::Array2;
///
/// let mut dx = Array2::<f32>::zeros((2, 3));
/// let gradients = AddGradients { dstream: None, dx: dx.view_mut(), params: None };
/// assert!(gradients.params.is_none());
/// ```
#[derive(Debug)]
pub struct AddGradients<'a, E: Element, D: Dimension> {
    /// The gradient of the stream, beside the one that comes through the norm.
    pub dstream: Option<ArrayView<'a, E, D>>,
    /// That of `x`, which is that of the residual too.
    pub dx: ArrayViewMut<'a, E, D>,
    /// Those of weight and bias.
    pub params: Option<ParamGradients<'a, E::Acc>>,
}

/// The gradients of [`add_layer_norm`], from `dy`, the gradient of y, and that of the stream.
///
/// `stream` is what the forward pass wrote. `saved` holds its statistics; without them they are taken once more.
///
/// # Errors
/// As [`add_layer_norm`].
///
/// ```
/// use layernorm_ndarray::{AddGradients, Norm, add_layer_norm_backward};
/// use ndarray::{Array2, Axis, array};
///
/// let (stream, dy, dstream) = (array![[1.0f64, 3.0]], array![[1.0, 1.0]], array![[0.25, 0.5]]);
/// let mut dx = Array2::zeros((1, 2));
/// let gradients = AddGradients { dstream: Some(dstream.view()), dx: dx.view_mut(), params: None };
/// let norm = Norm::<f64>::over(Axis(1));
/// add_layer_norm_backward(stream.view(), dy.view(), norm, None, gradients, Default::default())?;
/// assert_eq!(dx, dstream); // nothing comes through the norm
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn add_layer_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    stream: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: AddGradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    backward([stream.view(), dy.view()], &norm, saved, gradients, (true, run))
}

/// Add, then RMS norm: stream = residual + x, and y = weight stream / sqrt(mean(stream^2) + eps) + bias over the axes of `norm`.
/// As [`add_layer_norm`] otherwise.
///
/// # Errors
/// As [`add_layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, add_rms_norm};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, residual) = (array![[1.0f32, 0.0]], array![[0.0, 7.0]]);
/// let (mut y, mut stream) = (Array2::zeros((1, 2)), Array2::zeros((1, 2)));
/// let norm = Norm::over(Axis(1)).with_weight(&[5.0]).with_eps(0.0);
/// let to = [y.view_mut(), stream.view_mut()];
/// add_rms_norm(x.view(), residual.view(), norm, to, None, Default::default())?;
/// assert_eq!((stream, y), (array![[1.0, 7.0]], array![[1.0, 7.0]]));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn add_rms_norm<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    residual: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    to: [ArrayViewMut<'_, E, D>; 2],
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    forward([x.view(), residual.view()], &norm, to, rstd.map(columns_mut), (false, run))
}

/// [`add_rms_norm`] in place: `residual` becomes the stream, and `x` its norm. The same bits.
///
/// # Errors
/// As [`add_layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, add_rms_norm_in_place};
/// use ndarray::{Axis, array};
///
/// let (mut x, mut stream) = (array![[1.0f32, 0.0]], array![[0.0, 7.0]]);
/// let norm = Norm::<f32>::over(Axis(1)).with_eps(0.0);
/// add_rms_norm_in_place(x.view_mut(), stream.view_mut(), norm, None, Default::default())?;
/// assert_eq!((stream, x), (array![[1.0, 7.0]], array![[0.2, 1.4]]));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn add_rms_norm_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    residual: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    in_place(x, residual, &norm, rstd.map(columns_mut), (false, run))
}

/// The gradients of [`add_rms_norm`]. As [`add_layer_norm_backward`].
///
/// # Errors
/// As [`add_layer_norm`].
///
/// ```
/// use layernorm_ndarray::{AddGradients, Norm, add_rms_norm_backward};
/// use ndarray::{Array2, Axis, array};
///
/// let (stream, mut dx) = (array![[1.0f64, 7.0]], Array2::zeros((1, 2)));
/// let gradients = AddGradients { dstream: None, dx: dx.view_mut(), params: None };
/// let norm = Norm::<f64>::over(Axis(1)).with_eps(0.0);
/// add_rms_norm_backward(stream.view(), stream.view(), norm, None, gradients, Default::default())?;
/// assert!(dx.iter().all(|dx| dx.abs() < 1e-15)); // dy lies along the stream
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn add_rms_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    stream: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    rstd: Option<&[E::Acc]>,
    gradients: AddGradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    backward([stream.view(), dy.view()], &norm, rstd.map(columns), gradients, (false, run))
}

fn forward<E: Element, P: Companion<E>, D: Dimension>(
    [x, residual]: [ArrayView<'_, E, D>; 2],
    norm: &Norm<'_, P>,
    [mut y, mut stream]: [ArrayViewMut<'_, E, D>; 2],
    saved: Saved<'_, E::Acc>,
    (centred, run): (bool, Run),
) -> Result<(), Error> {
    norm.axes.check(x.shape())?;
    for (what, shape) in [("residual", residual.shape()), ("y", y.shape()), ("the stream", stream.shape())] {
        expect(what, shape, x.shape())?;
    }
    let numbers = Numbers::of(norm, Layout { shape: x.shape(), strides: x.strides(), axes: norm.axes })?;
    let [mut x, mut residual] = [&x, &residual].map(|view| Reading::of(Source::of(view, norm.axes)));
    let [mut y, mut stream] = [&mut y, &mut stream].map(|view| Writing::of(Target::of(view, norm.axes)));
    let (x, y_rows) = (x.rows()?, y.rows()?);
    let to = Residual { residual: residual.rows()?, out: stream.rows()?, branch: Branch::<E, P>::default() };
    match centred {
        true => layernorm::add_layer_norm(x, to, numbers.params(), y_rows, saved, run),
        false => layernorm::add_rms_norm(x, to, numbers.params(), y_rows, saved.map(|saved| saved.rstd), run),
    }?;
    y.finish();
    stream.finish();
    Ok(())
}

fn in_place<E: Element, P: Companion<E>, D: Dimension>(
    mut x: ArrayViewMut<'_, E, D>,
    mut residual: ArrayViewMut<'_, E, D>,
    norm: &Norm<'_, P>,
    saved: Saved<'_, E::Acc>,
    (centred, run): (bool, Run),
) -> Result<(), Error> {
    norm.axes.check(x.shape())?;
    expect("residual", residual.shape(), x.shape())?;
    let numbers = Numbers::of(norm, Layout { shape: x.shape(), strides: x.strides(), axes: norm.axes })?;
    let mut x = Writing::in_place(Target::of(&mut x, norm.axes));
    let mut stream = Writing::in_place(Target::of(&mut residual, norm.axes));
    let (params, branch) = (numbers.params(), Branch::<E, P>::default());
    match centred {
        true => layernorm::add_layer_norm_in_place(x.rows()?, stream.rows()?, branch, params, saved, run),
        false => {
            let rstd = saved.map(|saved| saved.rstd);
            layernorm::add_rms_norm_in_place(x.rows()?, stream.rows()?, branch, params, rstd, run)
        }
    }?;
    x.finish();
    stream.finish();
    Ok(())
}

fn backward<E: Element, P: Companion<E>, D: Dimension>(
    [stream, dy]: [ArrayView<'_, E, D>; 2],
    norm: &Norm<'_, P>,
    saved: SavedRef<'_, E::Acc>,
    AddGradients { dstream, mut dx, params: of_params }: AddGradients<'_, E, D>,
    (centred, run): (bool, Run),
) -> Result<(), Error> {
    norm.axes.check(stream.shape())?;
    let of_stream = dstream.as_ref().map_or(stream.shape(), |dstream| dstream.shape());
    for (what, shape) in [("dy", dy.shape()), ("dx", dx.shape()), ("dstream", of_stream)] {
        expect(what, shape, stream.shape())?;
    }
    let layout = Layout { shape: stream.shape(), strides: stream.strides(), axes: norm.axes };
    let numbers = Numbers::of(norm, layout)?;
    of_params.as_ref().map_or(Ok(()), |of_params| of_params.check(layout))?;
    let [mut stream, mut dy] = [&stream, &dy].map(|view| Reading::of(Source::of(view, norm.axes)));
    let mut dstream = dstream.as_ref().map(|view| Reading::of(Source::of(view, norm.axes)));
    let mut dx = Writing::of(Target::of(&mut dx, norm.axes));
    with_slices(of_params, |of_params| {
        let gradients = layernorm::AddGradients {
            upstream: match &mut dstream {
                Some(dstream) => Upstream::Apart(dstream.rows()?),
                None => Upstream::Nothing,
            },
            dresidual: dx.rows()?,
            mask: None,
            dx: None,
            branch_bias: None,
            params: Some(of_params),
        };
        let (stream, dy, params) = (stream.rows()?, dy.rows()?, numbers.params());
        match centred {
            true => layernorm::add_layer_norm_backward(stream, dy, params, saved, gradients, run),
            false => {
                let rstd = saved.map(|saved| saved.rstd);
                layernorm::add_rms_norm_backward(stream, dy, params, rstd, gradients, run)
            }
        }
    })?;
    dx.finish();
    Ok(())
}
