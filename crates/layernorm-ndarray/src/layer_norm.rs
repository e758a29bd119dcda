//! Layer normalization (Ba, Kiros, Hinton 2016, arXiv:1607.06450, equation 4), over any axes of an array:
//!
//! ```text
//! mu = mean(x)    var = mean((x - mu)^2)    x_hat = (x - mu) / sqrt(var + eps)
//! y  = weight x_hat + bias
//!
//! u  = weight dy
//! dx = (u - mean(u) - x_hat mean(u x_hat)) / sqrt(var + eps)
//! dweight = sum over rows of dy x_hat       dbias = sum over rows of dy
//! ```

use crate::operator::Operator;
use crate::{ArrayGradients, Error, Gradients, Norm, ParamGradients, views};
use layernorm::{Companion, Element, Run, StatsMut, StatsRef};
use ndarray::{Array, ArrayView, ArrayViewMut, Dimension};

/// Layer norm of `x` over the axes of `norm`, into `y`: y = weight (x - mean) / sqrt(var + eps) + bias.
///
/// `x` and `y` have the same shape, each its own layout. Each index of the axes that are not normalised is a row.
/// The statistics go to `saved`, one a row in the logical order of the rows, where a backward pass finds them.
///
/// Each row has the bits of [`layernorm::layer_norm`], in every layout. Where the rows lie side by side or evenly spaced, nothing
/// is copied and nothing allocated; otherwise in a buffer, some rows at a time (see [the crate](crate#layouts)).
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::SameAxis`], [`Error::NoAxis`], [`Error::Shape`],
/// [`Error::Parameter`], and [`Error::Kernel`] for statistics of another length, epsilon and level.
///
/// ```
/// use layernorm_ndarray::{Norm, layer_norm};
/// use ndarray::{Array2, Axis, array};
///
/// let x = array![[1.0f32, 5.0], [3.0, 1.0]];
/// let mut y = Array2::zeros((2, 2));
/// let norm = Norm::over(Axis(0)).with_weight(&[2.0]).with_bias(&[0.0, 0.5]).with_eps(0.0);
/// layer_norm(x.view(), norm, y.view_mut(), None, Default::default())?; // down the columns
/// assert_eq!(y, array![[-2.0, 2.0], [2.5, -1.5]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn layer_norm<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    y: ArrayViewMut<'_, E, D>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    views::forward(&x, &norm, y, saved, (Operator::Layer, run))
}

/// [`layer_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, layer_norm_in_place};
/// use ndarray::{Axis, array, s};
///
/// let mut x = array![[1.0f64, 0.0, 3.0], [4.0, 0.0, 2.0]];
/// let every_other = x.slice_mut(s![.., ..;2]);
/// layer_norm_in_place(every_other, Norm::<f64>::over(Axis(1)).with_eps(0.0), None, Default::default())?;
/// assert_eq!(x, array![[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn layer_norm_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    views::in_place(x, &norm, saved, (Operator::Layer, run))
}

/// [`layer_norm`] into a new array, which this allocates; of Fortran's order if `x` is. The same bits.
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, layer_norm_array};
/// use ndarray::{Axis, array};
///
/// let y = layer_norm_array(array![1.0f64, 3.0].view(), Norm::<f64>::over(Axis(0)).with_eps(0.0), Default::default())?;
/// assert_eq!(y, array![-1.0, 1.0]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn layer_norm_array<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    run: Run,
) -> Result<Array<E, D>, Error> {
    views::array(&x, &norm, (Operator::Layer, run))
}

/// The gradients of [`layer_norm`], given that of its output.
///
/// `saved` holds the statistics of the forward pass; without them they are taken from `x` once more (the same numbers, one
/// more pass). `norm.bias` is not looked at, but for its shape. dweight and dbias are sums over the rows in their logical
/// order, with the bits of [`layernorm::layer_norm_backward`] in every layout. For them the workspace grows where it is too
/// small, and where rows are not evenly spaced, totals are allocated: about 2 log2(rows) features numbers.
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use layernorm::Workspace;
/// use layernorm_ndarray::{Gradients, Norm, ParamGradients, layer_norm_backward};
/// use ndarray::{Array1, Array2, Axis, array};
///
/// let (x, dy) = (array![[1.0f64, 2.0, 4.0]], array![[0.0, 1.0, 0.0]]);
/// let (mut dx, mut dweight, mut workspace) = (Array2::zeros((1, 3)), Array1::zeros(3), Workspace::new());
/// let params = ParamGradients { dweight: Some(dweight.view_mut().into_dyn()), ..ParamGradients::new(&mut workspace) };
/// let gradients = Gradients { dx: Some(dx.view_mut()), params: Some(params) };
/// let norm = Norm::<f64>::over(Axis(1)).with_eps(0.0);
/// layer_norm_backward(x.view(), dy.view(), norm, None, gradients, Default::default())?;
/// assert!(dx.sum().abs() < 1e-15); // a norm cannot be moved along the ones
/// assert_eq!((dweight[0], dweight[2]), (0.0, 0.0));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn layer_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    views::backward(&x, &dy, &norm, saved, gradients, (Operator::Layer, run))
}

/// [`layer_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, layer_norm_backward_in_place};
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[1.0f64, 2.0, 4.0]], array![[1.0, 1.0, 1.0]]);
/// let norm = Norm::<f64>::over(Axis(1)).with_eps(0.0);
/// layer_norm_backward_in_place(x.view(), dy.view_mut(), norm, None, None, Default::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn layer_norm_backward_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    views::backward_in_place(&x, dy, &norm, (saved, param_gradients), (Operator::Layer, run))
}

/// [`layer_norm_backward`] into new arrays, which this allocates: dx, dweight if `norm` has a weight, dbias if it has a bias.
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, layer_norm_backward_arrays};
/// use ndarray::{Axis, array};
///
/// let (x, dy, bias) = (array![[1.0f32, 2.0, 4.0]], array![[0.5, 1.0, 0.0]], array![0.0]);
/// let norm = Norm::over(Axis(1)).with_bias(&bias); // one for all features
/// let gradients = layer_norm_backward_arrays(x.view(), dy.view(), norm, Default::default())?;
/// assert_eq!(gradients.dbias, Some(array![1.5].into_dyn()));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn layer_norm_backward_arrays<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    run: Run,
) -> Result<ArrayGradients<E, D>, Error> {
    views::backward_arrays(&x, &dy, &norm, (Operator::Layer, run))
}
