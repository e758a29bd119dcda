//! QK norm: the queries and keys of attention, head by head (Dehghani et al. 2023, arXiv:2302.05442; Henry et al. 2020,
//! arXiv:2010.04245):
//!
//! ```text
//! y = weight x_hat + bias        for each head of each token, by RMS, layer or L2 norm
//! ```
//!
//! With a weight of all heads it is the norm of that name over the axis of a head's numbers.

use crate::operator::Operator;
use crate::{Error, Gradients, Norm, ParamGradients, views};
use layernorm::{Companion, Element, HeadNorm, Real, Run, Workspace};
use ndarray::{ArrayView, ArrayViewMut, ArrayViewMutD, Axis, Dimension, Slice};

/// By what heads are measured, and whose weights they have. A [`HeadNorm`] converts into one, with weights of all heads.
///
/// ```
/// use layernorm::HeadNorm;
/// use layernorm_ndarray::Heads;
///
/// assert_eq!(Heads::from(HeadNorm::Rms), Heads { norm: HeadNorm::Rms, axis: None });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// By what a head is measured.
    pub norm: HeadNorm,
    /// The axis of heads, if each has a weight and a bias of its own: (heads, numbers of a head). They have none, or those
    /// of all heads, otherwise.
    pub axis: Option<Axis>,
}

impl From<HeadNorm> for Heads {
    fn from(norm: HeadNorm) -> Self {
        Self { norm, axis: None }
    }
}

/// QK norm of `x`, into `y`: each row over the axis (or axes) of `norm` is a head of a token.
///
/// `x` may be a part of a larger array: the queries in a buffer of queries, keys and values. The bits are those of
/// [`layernorm::qk_norm`], in every layout; layouts cost what they do in [`layer_norm`](crate::layer_norm()). Where each head has a
/// weight of its own, the heads of all tokens are a call each.
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::SameAxis`], [`Error::NoAxis`], [`Error::Shape`],
/// [`Error::Parameter`], and [`Error::Kernel`] for epsilon and level.
///
/// ```
/// use layernorm::HeadNorm;
/// use layernorm_ndarray::{Heads, Norm, qk_norm};
/// use ndarray::{Array3, Axis, array};
///
/// let x = array![[[3.0f32, 3.0], [-5.0, 5.0]]]; // a token, two heads
/// let (mut y, weight) = (Array3::zeros((1, 2, 2)), array![[1.0, 1.0], [10.0, 1.0]]);
/// let norm = Norm::over(Axis(2)).with_weight(&weight).with_eps(0.0);
/// qk_norm(x.view(), norm, Heads { norm: HeadNorm::Rms, axis: Some(Axis(1)) }, y.view_mut(), Default::default())?;
/// assert_eq!(y, array![[[1.0, 1.0], [-10.0, 1.0]]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn qk_norm<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    heads: impl Into<Heads>,
    mut y: ArrayViewMut<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    let heads = heads.into();
    let Some(axis) = heads.axis else { return views::forward(&x, &norm, y, None, (heads.operator(), run)) };
    views::expect("y", y.shape(), x.shape())?;
    for head in check(&norm, axis, x.shape())? {
        let y = y.slice_axis_mut(axis, head);
        views::forward(&x.slice_axis(axis, head), &of_head(&norm, head), y, None, (heads.operator(), run))?;
    }
    Ok(())
}

/// [`qk_norm`] in place. The same bits.
///
/// # Errors
/// As [`qk_norm`].
///
/// ```
/// use layernorm::HeadNorm;
/// use layernorm_ndarray::{Norm, qk_norm_in_place};
/// use ndarray::{Array3, Axis, s};
///
/// let mut qkv = Array3::from_elem((10, 3 * 8, 64), 2.0f32); // 10 tokens; 8 heads each of queries, keys and values
/// let queries_and_keys = qkv.slice_mut(s![.., ..16, ..]);
/// qk_norm_in_place(queries_and_keys, Norm::<f32>::over(Axis(2)).with_eps(0.0), HeadNorm::Rms, Default::default())?;
/// assert_eq!((qkv[[9, 15, 63]], qkv[[0, 16, 0]]), (1.0, 2.0));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn qk_norm_in_place<E: Element, P: Companion<E>, D: Dimension>(
    mut x: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    heads: impl Into<Heads>,
    run: Run,
) -> Result<(), Error> {
    let heads = heads.into();
    let Some(axis) = heads.axis else { return views::in_place(x, &norm, None, (heads.operator(), run)) };
    for head in check(&norm, axis, x.shape())? {
        views::in_place(x.slice_axis_mut(axis, head), &of_head(&norm, head), None, (heads.operator(), run))?;
    }
    Ok(())
}

/// The gradients of [`qk_norm`], given that of its output. dweight and dbias have the shape that weight and bias have.
///
/// # Errors
/// As [`qk_norm`].
///
/// ```
/// use layernorm::HeadNorm;
/// use layernorm_ndarray::{Gradients, Norm, qk_norm_backward};
/// use ndarray::{Array3, Axis, array};
///
/// let (x, mut dx) = (array![[[3.0f64, 4.0], [1.0, 2.0]]], Array3::zeros((1, 2, 2)));
/// let gradients = Gradients { dx: Some(dx.view_mut()), params: None };
/// let norm = Norm::<f64>::over(Axis(2)).with_eps(0.0);
/// qk_norm_backward(x.view(), x.view(), norm, HeadNorm::L2, gradients, Default::default())?;
/// assert!(dx.iter().all(|dx| dx.abs() < 1e-15)); // a length cannot be changed along x
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn qk_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    heads: impl Into<Heads>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    let (heads, Gradients { mut dx, mut params }) = (heads.into(), gradients);
    let how = (heads.operator(), run);
    let Some(axis) = heads.axis else {
        return views::backward(&x, &dy, &norm, None, Gradients { dx, params }, how);
    };
    views::expect("dy", dy.shape(), x.shape())?;
    if let Some(dx) = &dx {
        views::expect("dx", dx.shape(), x.shape())?;
    }
    let all = check(&norm, axis, x.shape())?;
    check_gradients(params.as_ref(), &norm, axis, x.shape())?;
    for head in all {
        let dx = dx.as_mut().map(|dx| dx.slice_axis_mut(axis, head));
        let gradients =
            Gradients { dx, params: params.as_mut().map(|params| gradients_of_head(params, head)) };
        let (x, dy) = (x.slice_axis(axis, head), dy.slice_axis(axis, head));
        views::backward(&x, &dy, &of_head(&norm, head), None, gradients, how)?;
    }
    Ok(())
}

/// [`qk_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`qk_norm`].
///
/// ```
/// use layernorm::HeadNorm;
/// use layernorm_ndarray::{Norm, qk_norm_backward_in_place};
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[[3.0f64, 4.0], [1.0, 2.0]]], array![[[3.0, 4.0], [1.0, 2.0]]]);
/// let norm = Norm::<f64>::over(Axis(2)).with_eps(0.0);
/// qk_norm_backward_in_place(x.view(), dy.view_mut(), norm, HeadNorm::L2, None, Default::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn qk_norm_backward_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    mut dy: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    heads: impl Into<Heads>,
    mut param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let heads = heads.into();
    let how = (heads.operator(), run);
    let Some(axis) = heads.axis else {
        return views::backward_in_place(&x, dy, &norm, (None, param_gradients), how);
    };
    views::expect("dy", dy.shape(), x.shape())?;
    let all = check(&norm, axis, x.shape())?;
    check_gradients(param_gradients.as_ref(), &norm, axis, x.shape())?;
    for head in all {
        let params = param_gradients.as_mut().map(|params| gradients_of_head(params, head));
        let (x, dy) = (x.slice_axis(axis, head), dy.slice_axis_mut(axis, head));
        views::backward_in_place(&x, dy, &of_head(&norm, head), (None, params), how)?;
    }
    Ok(())
}

impl Heads {
    fn operator(self) -> Operator {
        match self.norm {
            HeadNorm::Rms => Operator::RMS,
            HeadNorm::Layer => Operator::Layer,
            HeadNorm::L2 => Operator::Length,
        }
    }
}

/// Every head, as a slice of its axis, if the parameters are of each.
fn check<P>(
    norm: &Norm<'_, P>,
    axis: Axis,
    x: &[usize],
) -> Result<impl Iterator<Item = Slice> + use<P>, Error> {
    norm.axes.check(x)?;
    if axis.index() >= x.len() {
        return Err(Error::Axis { axis, x: x.to_vec() });
    }
    if norm.axes.has(axis.index()) {
        return Err(Error::SameAxis { axis });
    }
    let (weight, bias) = (norm.weight.as_ref(), norm.bias.as_ref());
    let shapes = [("weight", weight.map(|of| of.shape())), ("bias", bias.map(|of| of.shape()))];
    expect(shapes, norm, axis, x)?;
    Ok((0..x[axis.index()]).map(|head| Slice::from(head..head + 1)))
}

fn check_gradients<A, P>(
    params: Option<&ParamGradients<'_, A>>,
    norm: &Norm<'_, P>,
    axis: Axis,
    x: &[usize],
) -> Result<(), Error> {
    let Some(ParamGradients { dweight, dbias, .. }) = params else { return Ok(()) };
    let shapes = [("dweight", dweight), ("dbias", dbias)];
    expect(shapes.map(|(what, of)| (what, of.as_ref().map(|of| of.shape()))), norm, axis, x)
}

/// One for each number of each head.
fn expect<P>(
    shapes: [(&'static str, Option<&[usize]>); 2],
    norm: &Norm<'_, P>,
    axis: Axis,
    x: &[usize],
) -> Result<(), Error> {
    let features = x.iter().enumerate().filter(|(of, _)| norm.axes.has(*of)).map(|(_, len)| *len);
    let expected: Vec<usize> = [x[axis.index()]].into_iter().chain(features).collect();
    for (what, got) in shapes {
        if let Some(got) = got.filter(|got| **got != expected) {
            return Err(Error::Parameter { what, got: got.to_vec(), expected });
        }
    }
    Ok(())
}

fn of_head<'b, P>(norm: &'b Norm<'_, P>, head: Slice) -> Norm<'b, P> {
    let index = Axis(0);
    let of = |view: &'b Option<ndarray::ArrayViewD<'_, P>>| {
        Some(view.as_ref()?.slice_axis(index, head).index_axis_move(index, 0))
    };
    Norm { axes: norm.axes, weight: of(&norm.weight), bias: of(&norm.bias), eps: norm.eps }
}

fn gradients_of_head<'b, A: Real>(
    params: &'b mut ParamGradients<'_, A>,
    head: Slice,
) -> ParamGradients<'b, A> {
    let ParamGradients { dweight, dbias, accumulate, first_row, workspace } = params;
    let workspace: &mut Workspace<A> = workspace;
    let of = |view: &'b mut Option<ArrayViewMutD<'_, A>>| {
        Some(view.as_mut()?.slice_axis_mut(Axis(0), head).index_axis_move(Axis(0), 0))
    };
    ParamGradients {
        dweight: of(dweight),
        dbias: of(dbias),
        accumulate: *accumulate,
        first_row: *first_row,
        workspace,
    }
}
