//! Instance normalization (Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022, equation 2): group norm with as many groups
//! as channels.
//!
//! ```text
//! y = weight[channel] (x - mu) / sqrt(var + eps) + bias[channel]        mu, var over the positions of a channel of a sample
//! ```

use crate::images::channel_axis;
use crate::{Error, Gradients, Groups, Norm, ParamGradients};
use layernorm::{Companion, Element, Run, StatsMut, StatsRef};
use ndarray::{Array, ArrayView, ArrayViewMut, Dimension};

/// Instance norm of `x`, into `y`: y = weight (x - mean) / sqrt(var + eps) + bias, by the mean and variance of each channel of
/// each sample. As [`group_norm`](crate::group_norm()) otherwise; the statistics have an entry for each channel of each sample.
///
/// # Errors
/// As [`group_norm`](crate::group_norm()).
///
/// ```
/// use layernorm_ndarray::{Norm, instance_norm};
/// use ndarray::{Array3, Axis, array};
///
/// let x = array![[[1.0f32, 3.0], [30.0, 10.0]]];
/// let mut y = Array3::zeros((1, 2, 2));
/// let norm = Norm::by_channel(Axis(1)).with_weight(&[1.0, 2.0]).with_eps(0.0);
/// instance_norm(x.view(), norm, y.view_mut(), None, Default::default())?;
/// assert_eq!(y, array![[[-1.0, 1.0], [2.0, -2.0]]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn instance_norm<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    y: ArrayViewMut<'_, E, D>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let groups = one_a_channel(norm, x.shape())?;
    crate::group_norm(x, groups, y, saved, run)
}

/// [`instance_norm`] in place. The same bits.
///
/// # Errors
/// As [`group_norm`](crate::group_norm()).
///
/// ```
/// use layernorm_ndarray::{Norm, instance_norm_in_place};
/// use ndarray::{Axis, array};
///
/// let mut x = array![[[1.0f64, 3.0], [30.0, 10.0]]];
/// instance_norm_in_place(x.view_mut(), Norm::<f64>::by_channel(Axis(1)).with_eps(0.0), None, Default::default())?;
/// assert_eq!(x, array![[[-1.0, 1.0], [1.0, -1.0]]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn instance_norm_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let groups = one_a_channel(norm, x.shape())?;
    crate::group_norm_in_place(x, groups, saved, run)
}

/// [`instance_norm`] into a new array, which this allocates; of Fortran's order if `x` is. The same bits.
///
/// # Errors
/// As [`group_norm`](crate::group_norm()).
///
/// ```
/// use layernorm_ndarray::{Norm, instance_norm_array};
/// use ndarray::{Axis, array};
///
/// let x = array![[[1.0f64, 30.0], [3.0, 10.0]]]; // channels last
/// let y = instance_norm_array(x.view(), Norm::<f64>::by_channel(Axis(2)).with_eps(0.0), Default::default())?;
/// assert_eq!(y, array![[[-1.0, 1.0], [1.0, -1.0]]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn instance_norm_array<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    run: Run,
) -> Result<Array<E, D>, Error> {
    let groups = one_a_channel(norm, x.shape())?;
    crate::group_norm_array(x, groups, run)
}

/// The gradients of [`instance_norm`], given that of its output. As
/// [`group_norm_backward`](crate::group_norm_backward()).
///
/// # Errors
/// As [`group_norm`](crate::group_norm()).
///
/// ```
/// use layernorm_ndarray::{Gradients, Norm, instance_norm_backward};
/// use ndarray::{Array3, Axis, array};
///
/// let (x, dy, mut dx) = (array![[[1.0f64, 2.0, 4.0]]], array![[[1.0, 1.0, 1.0]]], Array3::zeros((1, 1, 3)));
/// let gradients = Gradients { dx: Some(dx.view_mut()), params: None };
/// let norm = Norm::<f64>::by_channel(Axis(1));
/// instance_norm_backward(x.view(), dy.view(), norm, None, gradients, Default::default())?;
/// assert!(dx.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn instance_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    let groups = one_a_channel(norm, x.shape())?;
    crate::group_norm_backward(x, dy, groups, saved, gradients, run)
}

/// [`instance_norm_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`group_norm`](crate::group_norm()).
///
/// ```
/// use layernorm_ndarray::{Norm, instance_norm_backward_in_place};
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[[1.0f64, 2.0, 4.0]]], array![[[1.0, 1.0, 1.0]]]);
/// let norm = Norm::<f64>::by_channel(Axis(1));
/// instance_norm_backward_in_place(x.view(), dy.view_mut(), norm, None, None, Default::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn instance_norm_backward_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let groups = one_a_channel(norm, x.shape())?;
    crate::group_norm_backward_in_place(x, dy, groups, saved, param_gradients, run)
}

fn one_a_channel<'a, P>(norm: Norm<'a, P>, shape: &[usize]) -> Result<Groups<'a, P>, Error> {
    let channels = shape[channel_axis(&norm, shape)?];
    Ok(Groups::of(norm, channels))
}
