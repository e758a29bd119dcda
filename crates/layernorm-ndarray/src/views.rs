//! From views to calls: what both norms share.

use crate::backward::{Upstream, backward as backward_call};
use crate::forward::{Call, forward as forward_call};
use crate::layout::Layout;
use crate::memory::{Source, Target};
use crate::norm::Numbers;
use crate::operator::{Operator, Saved, SavedRef};
use crate::{ArrayGradients, Error, Gradients, Norm, ParamGradients};
use layernorm::{Companion, Element, Run, Workspace};
use ndarray::{Array, ArrayD, ArrayView, ArrayViewMut, Dimension, ShapeBuilder};

/// Which norm, and how to run it.
pub(crate) type How = (Operator, Run);

/// `what` has the shape of `x`.
pub(crate) fn expect(what: &'static str, got: &[usize], x: &[usize]) -> Result<(), Error> {
    if got == x { Ok(()) } else { Err(Error::Shape { what, got: got.to_vec(), x: x.to_vec() }) }
}

pub(crate) fn forward<E: Element, P: Companion<E>, D: Dimension>(
    x: &ArrayView<'_, E, D>,
    norm: &Norm<'_, P>,
    mut y: ArrayViewMut<'_, E, D>,
    saved: Saved<'_, E::Acc>,
    (operator, run): How,
) -> Result<(), Error> {
    norm.axes.check(x.shape())?;
    expect("y", y.shape(), x.shape())?;
    let x = Source::of(x, norm.axes);
    let numbers = Numbers::of(norm, x.layout)?;
    let call = Call { operator, params: numbers.params(), run };
    Ok(forward_call(call, Some(x), Target::of(&mut y, norm.axes), saved)?)
}

pub(crate) fn in_place<E: Element, P: Companion<E>, D: Dimension>(
    mut x: ArrayViewMut<'_, E, D>,
    norm: &Norm<'_, P>,
    saved: Saved<'_, E::Acc>,
    (operator, run): How,
) -> Result<(), Error> {
    norm.axes.check(x.shape())?;
    let x = Target::of(&mut x, norm.axes);
    let numbers = Numbers::of(norm, x.layout)?;
    Ok(forward_call(Call { operator, params: numbers.params(), run }, None, x, saved)?)
}

/// Into a new array, of the order that `x` has.
pub(crate) fn array<E: Element, P: Companion<E>, D: Dimension>(
    x: &ArrayView<'_, E, D>,
    norm: &Norm<'_, P>,
    how: How,
) -> Result<Array<E, D>, Error> {
    norm.axes.check(x.shape())?;
    let mut y = like(x);
    forward(x, norm, y.view_mut(), None, how)?;
    Ok(y)
}

/// A new array of the shape and order of this one.
pub(crate) fn like<E: Element, D: Dimension>(x: &ArrayView<'_, E, D>) -> Array<E, D> {
    let fortran = !x.is_standard_layout() && x.t().is_standard_layout();
    Array::from_elem(x.raw_dim().set_f(fortran), E::default())
}

pub(crate) fn backward<E: Element, P: Companion<E>, D: Dimension>(
    x: &ArrayView<'_, E, D>,
    dy: &ArrayView<'_, E, D>,
    norm: &Norm<'_, P>,
    saved: SavedRef<'_, E::Acc>,
    gradients: Gradients<'_, E, D>,
    how: How,
) -> Result<(), Error> {
    let Gradients { mut dx, params } = gradients;
    norm.axes.check(x.shape())?;
    expect("dy", dy.shape(), x.shape())?;
    if let Some(dx) = &dx {
        expect("dx", dx.shape(), x.shape())?;
    }
    let dx = dx.as_mut().map(|dx| Target::of(dx, norm.axes));
    let upstream = Upstream::Apart(Source::of(dy, norm.axes), dx);
    with_params(Source::of(x, norm.axes), upstream, norm, (saved, params), how)
}

pub(crate) fn backward_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: &ArrayView<'_, E, D>,
    mut dy: ArrayViewMut<'_, E, D>,
    norm: &Norm<'_, P>,
    with: (SavedRef<'_, E::Acc>, Option<ParamGradients<'_, E::Acc>>),
    how: How,
) -> Result<(), Error> {
    norm.axes.check(x.shape())?;
    expect("dy", dy.shape(), x.shape())?;
    let upstream = Upstream::InPlace(Target::of(&mut dy, norm.axes));
    with_params(Source::of(x, norm.axes), upstream, norm, with, how)
}

fn with_params<E: Element, P: Companion<E>>(
    x: Source<'_, E>,
    dy: Upstream<'_, E>,
    norm: &Norm<'_, P>,
    (saved, params): (SavedRef<'_, E::Acc>, Option<ParamGradients<'_, E::Acc>>),
    (operator, run): How,
) -> Result<(), Error> {
    let numbers = Numbers::of(norm, x.layout)?;
    let call = Call { operator, params: numbers.params(), run };
    let Some(params) = params else { return Ok(backward_call(call, x, dy, saved, None)?) };
    params.check(x.layout)?;
    Ok(params.with_slices(|params| backward_call(call, x, dy, saved, Some(params)))?)
}

/// Into new arrays: dx, and the gradients of the parameters that `norm` has.
pub(crate) fn backward_arrays<E: Element, P: Companion<E>, D: Dimension>(
    x: &ArrayView<'_, E, D>,
    dy: &ArrayView<'_, E, D>,
    norm: &Norm<'_, P>,
    how: How,
) -> Result<ArrayGradients<E, D>, Error> {
    norm.axes.check(x.shape())?;
    expect("dy", dy.shape(), x.shape())?;
    let layout = Layout { shape: x.shape(), strides: x.strides(), axes: norm.axes };
    Numbers::of(norm, layout)?;
    let zeros = |shape: &[usize]| ArrayD::from_elem(shape, E::Acc::default());
    let mut arrays = ArrayGradients {
        dx: like(x),
        dweight: norm.weight.as_ref().map(|weight| zeros(weight.shape())),
        dbias: norm.bias.as_ref().map(|bias| zeros(bias.shape())),
    };
    let mut workspace = Workspace::new();
    let params = ParamGradients {
        dweight: arrays.dweight.as_mut().map(|array| array.view_mut()),
        dbias: arrays.dbias.as_mut().map(|array| array.view_mut()),
        ..ParamGradients::new(&mut workspace)
    };
    let gradients = Gradients { dx: Some(arrays.dx.view_mut()), params: Some(params) };
    backward(x, dy, norm, None, gradients, how)?;
    Ok(arrays)
}
