//! From views to the kernels of norms by channel: checks, the order of the axes, and operands that are where the kernels want
//! them.

use crate::gradients::with_slices;
use crate::images::{Images, Kind};
use crate::layout::Layout;
use crate::memory::{Source, Target};
use crate::norm::Numbers;
use crate::views::expect;
use crate::whole::{Reading, Writing};
use crate::{Error, Gradients, Norm, ParamGradients};
use layernorm::{Companion, Element, Params};
use ndarray::{ArrayView, ArrayViewMut, Dimension};

type Done = Result<(), layernorm::Error>;

/// Which norm, and what a caller says of it.
type How<'a, 'b, P> = (Kind, &'a Norm<'b, P>);

/// `kernel` of `x`, into `y`.
pub(crate) fn forward<E: Element, P: Companion<E>, D: Dimension>(
    (kind, norm): How<'_, '_, P>,
    x: &ArrayView<'_, E, D>,
    mut y: ArrayViewMut<'_, E, D>,
    kernel: impl FnOnce(&Images, Params<'_, P>, &mut Reading<'_, E>, &mut Writing<'_, E>) -> Done,
) -> Result<(), Error> {
    expect("y", y.shape(), x.shape())?;
    let images = Images::of(kind, norm, x)?;
    let numbers = Numbers::of(norm, layout(x, norm))?;
    let (x, mut y) = (images.view(x), images.view_mut(&mut y));
    let mut x = Reading::of(Source::of(&x, images.of_row()));
    let mut y = Writing::of(Target::of(&mut y, images.of_row()));
    kernel(&images, numbers.params(), &mut x, &mut y)?;
    y.finish();
    Ok(())
}

/// `kernel` of `x` in place.
pub(crate) fn in_place<E: Element, P: Companion<E>, D: Dimension>(
    (kind, norm): How<'_, '_, P>,
    mut x: ArrayViewMut<'_, E, D>,
    kernel: impl FnOnce(&Images, Params<'_, P>, &mut Writing<'_, E>) -> Done,
) -> Result<(), Error> {
    let images = Images::of(kind, norm, &x.view())?;
    let numbers = Numbers::of(norm, layout(&x.view(), norm))?;
    let mut x = images.view_mut(&mut x);
    let mut x = Writing::in_place(Target::of(&mut x, images.of_row()));
    kernel(&images, numbers.params(), &mut x)?;
    x.finish();
    Ok(())
}

/// Where gradients go, as the kernels take it.
type To<'a, 'b, E> = (Option<&'a mut Writing<'b, E>>, layernorm::ParamGradients<'a, <E as Element>::Acc>);

/// `kernel` of x and dy.
pub(crate) fn backward<E: Element, P: Companion<E>, D: Dimension>(
    (kind, norm): How<'_, '_, P>,
    [x, dy]: [ArrayView<'_, E, D>; 2],
    Gradients { mut dx, params }: Gradients<'_, E, D>,
    kernel: impl FnOnce(&Images, Params<'_, P>, [&mut Reading<'_, E>; 2], To<'_, '_, E>) -> Done,
) -> Result<(), Error> {
    expect("dy", dy.shape(), x.shape())?;
    if let Some(dx) = &dx {
        expect("dx", dx.shape(), x.shape())?;
    }
    let (images, numbers) = for_backward((kind, norm), &x, params.as_ref())?;
    let (x, dy) = (images.view(&x), images.view(&dy));
    let mut dx = dx.as_mut().map(|dx| images.view_mut(dx));
    let [mut x, mut dy] = [&x, &dy].map(|view| Reading::of(Source::of(view, images.of_row())));
    let mut dx = dx.as_mut().map(|dx| Writing::of(Target::of(dx, images.of_row())));
    with_slices(params, |of_params| {
        kernel(&images, numbers.params(), [&mut x, &mut dy], (dx.as_mut(), of_params))
    })?;
    if let Some(dx) = dx {
        dx.finish();
    }
    Ok(())
}

/// `kernel` of x and dy, which becomes dx.
pub(crate) fn backward_in_place<E: Element, P: Companion<E>, D: Dimension>(
    (kind, norm): How<'_, '_, P>,
    x: &ArrayView<'_, E, D>,
    mut dy: ArrayViewMut<'_, E, D>,
    params: Option<ParamGradients<'_, E::Acc>>,
    kernel: impl FnOnce(
        &Images,
        Params<'_, P>,
        (&mut Reading<'_, E>, &mut Writing<'_, E>),
        layernorm::ParamGradients<'_, E::Acc>,
    ) -> Done,
) -> Result<(), Error> {
    expect("dy", dy.shape(), x.shape())?;
    let (images, numbers) = for_backward((kind, norm), x, params.as_ref())?;
    let (x, mut dy) = (images.view(x), images.view_mut(&mut dy));
    let mut x = Reading::of(Source::of(&x, images.of_row()));
    let mut dy = Writing::in_place(Target::of(&mut dy, images.of_row()));
    with_slices(params, |of_params| kernel(&images, numbers.params(), (&mut x, &mut dy), of_params))?;
    dy.finish();
    Ok(())
}

fn for_backward<'a, E: Element, P: Companion<E>, D: Dimension>(
    (kind, norm): How<'a, '_, P>,
    x: &ArrayView<'_, E, D>,
    params: Option<&ParamGradients<'_, E::Acc>>,
) -> Result<(Images, Numbers<'a, P>), Error> {
    let numbers = (Images::of(kind, norm, x)?, Numbers::of(norm, layout(x, norm))?);
    params.map_or(Ok(()), |params| params.check(layout(x, norm)))?;
    Ok(numbers)
}

/// With channels as features, which parameters have to fit.
fn layout<'a, E, P, D: Dimension>(x: &'a ArrayView<'_, E, D>, norm: &'a Norm<'_, P>) -> Layout<'a> {
    Layout { shape: x.shape(), strides: x.strides(), axes: norm.axes }
}
