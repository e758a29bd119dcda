//! Root mean square normalization (Zhang, Sennrich 2019, arXiv:1910.07467, equation 4), over any axes of an array:
//!
//! ```text
//! x_hat = x / sqrt(mean(x^2) + eps)
//! y  = weight x_hat + bias
//!
//! u  = weight dy
//! dx = (u - x_hat mean(u x_hat)) / sqrt(mean(x^2) + eps)
//! dweight = sum over rows of dy x_hat       dbias = sum over rows of dy
//! ```

use crate::{ArrayGradients, Error, Gradients, ParamGradients, Rms, views};
use layernorm::{Companion, Element, Run, StatsMut, StatsRef};
use ndarray::{Array, ArrayView, ArrayViewMut, Dimension};

/// RMS norm of `x` over the axes of `norm`, into `y`: y = weight x / sqrt(mean(x^2) + eps) + bias.
///
/// `x` and `y` have the same shape, each its own layout. Each index of the axes that are not normalised is a row.
/// 1 / sqrt(mean(x^2) + eps) goes to `rstd`, one a row in the logical order of the rows, where a backward pass
/// finds it.
///
/// Each row has the bits of [`layernorm::rms_norm`], in every layout. Where the rows lie side by side or evenly spaced, nothing
/// is copied and nothing allocated; otherwise in a buffer, some rows at a time (see [the crate](crate#layouts)).
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::SameAxis`], [`Error::NoAxis`], [`Error::Shape`],
/// [`Error::Parameter`], and [`Error::Kernel`] for statistics of another length, epsilon and level.
///
/// ```
/// use layernorm_ndarray::{Norm, rms_norm};
/// use ndarray::{Array2, Axis, array};
///
/// let x = array![[1.0f32, -2.0], [7.0, 2.0]]; // root mean squares of the columns: 5 and 2
/// let mut y = Array2::zeros((2, 2));
/// let norm = Norm::over(Axis(0)).with_weight(&[5.0]).with_eps(0.0);
/// rms_norm(x.view(), norm, y.view_mut(), None, Default::default())?;
/// assert_eq!(y, array![[1.0, -5.0], [7.0, 5.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn rms_norm<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: impl Into<Rms<'a, P>>,
    y: ArrayViewMut<'_, E, D>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let norm = norm.into();
    views::forward(&x, &norm.norm, y, rstd.map(columns_mut), (norm.operator(), run))
}

/// [`rms_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`rms_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, rms_norm_in_place};
/// use ndarray::{Axis, array};
///
/// let mut x = array![[3.0f64, -3.0]];
/// rms_norm_in_place(x.view_mut(), Norm::<f64>::over(Axis(1)).with_eps(0.0), None, Default::default())?;
/// assert_eq!(x, array![[1.0, -1.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn rms_norm_in_place<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    norm: impl Into<Rms<'a, P>>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let norm = norm.into();
    views::in_place(x, &norm.norm, rstd.map(columns_mut), (norm.operator(), run))
}

/// [`rms_norm`] into a new array, which this allocates; of Fortran's order if `x` is. The same bits.
///
/// # Errors
/// As [`rms_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, rms_norm_array};
/// use ndarray::{Axis, array};
///
/// let y = rms_norm_array(array![2.0f64, -2.0].view(), Norm::<f64>::over(Axis(0)).with_eps(0.0), Default::default())?;
/// assert_eq!(y, array![1.0, -1.0]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn rms_norm_array<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: impl Into<Rms<'a, P>>,
    run: Run,
) -> Result<Array<E, D>, Error> {
    let norm = norm.into();
    views::array(&x, &norm.norm, (norm.operator(), run))
}

/// The gradients of [`rms_norm`], given that of its output.
///
/// `rstd` holds the statistics of the forward pass; without them they are taken from `x` once more (the same numbers, one
/// more pass). `norm.bias` is not looked at, but for its shape. dweight and dbias are sums over the rows in their logical
/// order, with the bits of [`layernorm::rms_norm_backward`] in every layout. For them the workspace grows where it is too
/// small, and where rows are not evenly spaced, totals are allocated: about 2 log2(rows) features numbers.
///
/// # Errors
/// As [`rms_norm`].
///
/// ```
/// use layernorm::Workspace;
/// use layernorm_ndarray::{Gradients, Norm, ParamGradients, rms_norm_backward};
/// use ndarray::{Array1, Array2, Axis, array};
///
/// let (x, dy) = (array![[1.0f64, 2.0, 4.0]], array![[0.0, 1.0, 0.0]]);
/// let (mut dx, mut dweight, mut workspace) = (Array2::zeros((1, 3)), Array1::zeros(3), Workspace::new());
/// let params = ParamGradients { dweight: Some(dweight.view_mut().into_dyn()), ..ParamGradients::new(&mut workspace) };
/// let gradients = Gradients { dx: Some(dx.view_mut()), params: Some(params) };
/// let norm = Norm::<f64>::over(Axis(1)).with_eps(0.0);
/// rms_norm_backward(x.view(), dy.view(), norm, None, gradients, Default::default())?;
/// assert!((&x * &dx).sum().abs() < 1e-15); // scaling x changes nothing
/// assert_eq!((dweight[0], dweight[2]), (0.0, 0.0));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn rms_norm_backward<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: impl Into<Rms<'a, P>>,
    rstd: Option<&[E::Acc]>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    let norm = norm.into();
    views::backward(&x, &dy, &norm.norm, rstd.map(columns), gradients, (norm.operator(), run))
}

/// [`rms_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`rms_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, rms_norm_backward_in_place};
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[1.0f64, 2.0, 4.0]], array![[1.0, 2.0, 4.0]]);
/// let norm = Norm::<f64>::over(Axis(1)).with_eps(0.0);
/// rms_norm_backward_in_place(x.view(), dy.view_mut(), norm, None, None, Default::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn rms_norm_backward_in_place<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayViewMut<'_, E, D>,
    norm: impl Into<Rms<'a, P>>,
    rstd: Option<&[E::Acc]>,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let norm = norm.into();
    views::backward_in_place(&x, dy, &norm.norm, (rstd.map(columns), param_gradients), (norm.operator(), run))
}

/// [`rms_norm_backward`] into new arrays, which this allocates: dx, dweight if `norm` has a weight, dbias if it has a bias.
///
/// # Errors
/// As [`rms_norm`].
///
/// ```
/// use layernorm_ndarray::{Norm, rms_norm_backward_arrays};
/// use ndarray::{Axis, array};
///
/// let (x, dy, bias) = (array![[1.0f32, 2.0, 4.0]], array![[0.5, 1.0, 0.0]], array![0.0]);
/// let norm = Norm::over(Axis(1)).with_bias(&bias); // one for all features
/// let gradients = rms_norm_backward_arrays(x.view(), dy.view(), norm, Default::default())?;
/// assert_eq!(gradients.dbias, Some(array![1.5].into_dyn()));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn rms_norm_backward_arrays<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: impl Into<Rms<'a, P>>,
    run: Run,
) -> Result<ArrayGradients<E, D>, Error> {
    let norm = norm.into();
    views::backward_arrays(&x, &dy, &norm.norm, (norm.operator(), run))
}

/// The column that RMS norm saves, as those of layer norm; the others are empty.
pub(crate) fn columns_mut<A>(rstd: &mut [A]) -> StatsMut<'_, A> {
    StatsMut { m: &mut [], c: &mut [], rstd }
}

pub(crate) fn columns<A>(rstd: &[A]) -> StatsRef<'_, A> {
    StatsRef { m: &[], c: &[], rstd }
}
