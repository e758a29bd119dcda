//! Weight norm (Salimans, Kingma 2016, arXiv:1602.07868, equations 2 and 3), of the units along any axis of an array of
//! directions:
//!
//! ```text
//! w = gain v / |v|                 |v| = sqrt(sum(v^2)) over all numbers with the index of the unit
//!
//! dgain = sum(dw v) / |v|
//! dv    = gain / |v| (dw - dgain v / |v|)
//! ```

use crate::memory::{Source, Target};
use crate::views::expect;
use crate::whole::{Reading, Writing};
use crate::{Axes, Error};
use layernorm::{Companion, Element, Run, WeightNorm, WeightNormInit, Workspace};
use ndarray::{Array1, ArrayView, ArrayView1, ArrayViewMut, ArrayViewMut1, Axis, Dimension, IxDyn};
use std::borrow::Cow;

/// The gains of a weight norm, and the axis of its units.
///
/// ```
/// use layernorm_ndarray::Gains;
/// use ndarray::{Axis, array};
///
/// let g = array![1.0f32, 1.0];
/// assert_eq!(Gains { g: g.view(), axis: Axis(0) }.g.len(), 2);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Gains<'a, P> {
    /// One number a unit.
    pub g: ArrayView1<'a, P>,
    /// The axis of units.
    pub axis: Axis,
}

/// Weight norm of the directions `v`, into the weights `w`: w = gain v / |v|, for each unit.
///
/// `v` and `w` have the same shape, each its own layout. 1 / |v| of each unit goes to `rnorm`, where a
/// backward pass finds it.
///
/// The bits are those of [`layernorm::weight_norm`], in every layout. Arrays in which the numbers of a unit lie side by side and
/// units follow each other (a C array of units along its first axis) are read and written where they lie; one that lies
/// otherwise is copied, whole.
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::Shape`], and [`Error::Kernel`] for gains or statistics of
/// another length and the level.
///
/// ```
/// use layernorm_ndarray::{Gains, weight_norm};
/// use ndarray::{Array2, Axis, array};
///
/// let (v, gain) = (array![[3.0f32, 0.0], [4.0, 2.0]], array![10.0, 1.0]); // a unit is a column
/// let mut w = Array2::zeros((2, 2));
/// weight_norm(v.view(), Gains { g: gain.view(), axis: Axis(1) }, w.view_mut(), None, Default::default())?;
/// assert_eq!(w, array![[6.0, 0.0], [8.0, 1.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn weight_norm<E: Element, P: Companion<E>, D: Dimension>(
    v: ArrayView<'_, E, D>,
    of: Gains<'_, P>,
    mut w: ArrayViewMut<'_, E, D>,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    expect("w", w.shape(), v.shape())?;
    let units = Units::of(of.axis, v.shape())?;
    let gain = side_by_side(&of.g);
    let v = v.into_dyn().permuted_axes(units.order());
    let mut w = w.view_mut().into_dyn().permuted_axes(units.order());
    let mut v = Reading::of(Source::of(&v, units.all()));
    let mut w = Writing::of(Target::of(&mut w, units.all()));
    let workspace = &mut Workspace::new();
    layernorm::weight_norm(v.numbers()?, units.with(&gain), w.numbers()?, rnorm, workspace, run)?;
    w.finish();
    Ok(())
}

/// Which gradients a backward pass of weight norm is to write.
///
/// ```
/// use layernorm_ndarray::WeightNormGradients;
/// use ndarray::{Array1, Ix2};
///
/// let mut dgain = Array1::<f32>::zeros(8);
/// let only_the_gain = WeightNormGradients::<f32, Ix2> { dv: None, dgain: Some(dgain.view_mut()) };
/// assert!(only_the_gain.dv.is_none());
/// ```
#[derive(Debug)]
pub struct WeightNormGradients<'a, E: Element, D: Dimension> {
    /// Gradient of the directions, of their shape.
    pub dv: Option<ArrayViewMut<'a, E, D>>,
    /// Gradient of the gains, one number a unit, in the type that sums have. A view whose numbers do not lie side by side is
    /// written by way of a copy.
    pub dgain: Option<ArrayViewMut1<'a, E::Acc>>,
}

/// The gradients of [`weight_norm`], given that of the weights.
///
/// `rnorm` is what the forward pass saved; without it the lengths are taken from `v` once more.
///
/// # Errors
/// As [`weight_norm`].
///
/// ```
/// use layernorm_ndarray::{Gains, WeightNormGradients, weight_norm_backward};
/// use ndarray::{Array1, Array2, Axis, array};
///
/// let (v, dw, gain) = (array![[2.0f64, 0.0]], array![[1.0, 5.0]], array![4.0]);
/// let (mut dv, mut dgain) = (Array2::zeros((1, 2)), Array1::zeros(1));
/// let gradients = WeightNormGradients { dv: Some(dv.view_mut()), dgain: Some(dgain.view_mut()) };
/// let of = Gains { g: gain.view(), axis: Axis(0) };
/// weight_norm_backward(v.view(), dw.view(), of, None, gradients, Default::default())?;
/// assert_eq!((dv, dgain), (array![[0.0, 10.0]], array![1.0])); // along v nothing changes
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn weight_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    v: ArrayView<'_, E, D>,
    dw: ArrayView<'_, E, D>,
    of: Gains<'_, P>,
    rnorm: Option<&[E::Acc]>,
    gradients: WeightNormGradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    let WeightNormGradients { mut dv, mut dgain } = gradients;
    expect("dw", dw.shape(), v.shape())?;
    if let Some(dv) = &dv {
        expect("dv", dv.shape(), v.shape())?;
    }
    let units = Units::of(of.axis, v.shape())?;
    let gain = side_by_side(&of.g);
    let [v, dw] = [v.view(), dw.view()].map(|view| view.into_dyn().permuted_axes(units.order()));
    let mut dv = dv.as_mut().map(|dv| dv.view_mut().into_dyn().permuted_axes(units.order()));
    let [mut v, mut dw] = [&v, &dw].map(|view| Reading::of(Source::of(view, units.all())));
    let mut dv = dv.as_mut().map(|dv| Writing::of(Target::of(dv, units.all())));
    let mut sums = dgain.as_ref().map(|dgain| vec![E::Acc::default(); dgain.len()]);
    let gradients = layernorm::WeightNormGradients {
        dv: dv.as_mut().map(Writing::numbers).transpose()?,
        dgain: sums.as_deref_mut(),
        workspace: &mut Workspace::new(),
    };
    layernorm::weight_norm_backward(v.numbers()?, dw.numbers()?, units.with(&gain), rnorm, gradients, run)?;
    if let Some(dv) = dv {
        dv.finish();
    }
    if let (Some(dgain), Some(sums)) = (&mut dgain, sums) {
        dgain.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum);
    }
    Ok(())
}

/// Data-dependent initialisation (section 3 of the paper): the gain and bias of each unit along `axis` that give its
/// pre-activations `t` (of a first batch, with gain 1 and bias 0) mean 0 and deviation `scale`.
///
/// ```text
/// gain = scale / sqrt(var[t] + eps)        bias = -mean[t] gain
/// ```
///
/// # Errors
/// As [`weight_norm`], and [`Error::Kernel`] for a batch of none, a scale that is not finite and epsilon.
///
/// ```
/// use layernorm_ndarray::weight_norm_init;
/// use ndarray::{Axis, array};
///
/// let t = array![[1.0f32], [3.0]]; // two samples of one unit: mean 2, deviation 1
/// assert_eq!(weight_norm_init(t.view(), Axis(1), 1.0, 0.0, Default::default())?, [array![1.0], array![-2.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn weight_norm_init<E: Element, D: Dimension>(
    t: ArrayView<'_, E, D>,
    axis: Axis,
    scale: f64,
    eps: f64,
    run: Run,
) -> Result<[Array1<E::Acc>; 2], Error> {
    let units = Units::of(axis, t.shape())?;
    let t = t.into_dyn().permuted_axes(units.order());
    let mut t = Reading::of(Source::of(&t, units.all()));
    let of = WeightNormInit { shape: &units.shape, axis: 0, scale, eps };
    let [mut gain, mut bias] = [(); 2].map(|()| vec![E::Acc::default(); units.shape[0]]);
    layernorm::weight_norm_init(t.numbers()?, of, &mut gain, &mut bias, &mut Workspace::new(), run)?;
    Ok([gain.into(), bias.into()])
}

/// An array with the axis of units first, as the kernel takes it without a copy.
struct Units {
    order: Vec<usize>,
    axes: Vec<Axis>,
    shape: Vec<usize>,
}

impl Units {
    fn of(axis: Axis, shape: &[usize]) -> Result<Self, Error> {
        Axes::One(axis).check(shape)?;
        let others = (0..shape.len()).filter(|other| *other != axis.index());
        let order: Vec<usize> = [axis.index()].into_iter().chain(others).collect();
        let shape = order.iter().map(|axis| shape[*axis]).collect();
        Ok(Self { axes: (0..order.len()).map(Axis).collect(), order, shape })
    }

    fn order(&self) -> IxDyn {
        IxDyn(&self.order)
    }

    fn all(&self) -> Axes<'_> {
        Axes::All(&self.axes)
    }

    fn with<'a, P>(&'a self, gain: &'a [P]) -> WeightNorm<'a, P> {
        WeightNorm { gain, shape: &self.shape, axis: 0 }
    }
}

fn side_by_side<'a, P: Copy>(gain: &'a ArrayView1<'_, P>) -> Cow<'a, [P]> {
    gain.as_slice().map_or_else(|| Cow::Owned(gain.to_vec()), Cow::Borrowed)
}
