//! Scale norm (Nguyen, Salazar 2019, arXiv:1910.05895, equation 3) and L2 norm, which has no scale, over any axes of an array:
//!
//! ```text
//! y  = scale x / max(|x|, eps)            |x| = sqrt(sum(x^2))
//!
//! u  = scale dy
//! dx = (u - x_hat sum(u x_hat)) / |x|     where |x| > eps
//! dx = u / eps                            elsewhere
//! dscale = sum over everything of dy x_hat
//! ```

use crate::operator::Operator;
use crate::rms_norm::columns_mut;
use crate::{Axes, Error, Gradients, Norm, ParamGradients, views};
use layernorm::{Companion, Element, Run};
use ndarray::{Array, ArrayView, ArrayViewMut, Dimension, aview1};

/// Scale norm of `x` over these axes, into `y`: y = scale x / max(|x|, eps).
///
/// `x` and `y` have the same shape, each its own layout. 1 / max(|x|, eps) of each row goes to `rnorm`. Each row has the bits of
/// [`layernorm::scale_norm`], in every layout (see [the crate](crate#layouts)).
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::SameAxis`], [`Error::NoAxis`], [`Error::Shape`], and
/// [`Error::Kernel`] for statistics of another length, epsilon and level.
///
/// ```
/// use layernorm_ndarray::scale_norm;
/// use ndarray::{Array2, Axis, array};
///
/// let (x, mut y) = (array![[3.0f32, 0.0], [4.0, 2.0]], Array2::zeros((2, 2))); // columns of the lengths 5 and 2
/// scale_norm(x.view(), Axis(0), 10.0, 1e-5, y.view_mut(), None, Default::default())?;
/// assert_eq!(y, array![[6.0, 0.0], [8.0, 10.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    scale: P,
    eps: f64,
    y: ArrayViewMut<'_, E, D>,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let scale = [scale];
    let norm = scaled(axes.into(), &scale, eps);
    views::forward(&x, &norm, y, rnorm.map(columns_mut), (Operator::Length, run))
}

/// [`scale_norm`] in place. The same bits.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm_ndarray::scale_norm_in_place;
/// use ndarray::{Axis, array};
///
/// let mut x = array![[3.0f32, 4.0]];
/// scale_norm_in_place(x.view_mut(), Axis(1), 10.0, 1e-5, None, Default::default())?;
/// assert_eq!(x, array![[6.0, 8.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm_in_place<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    scale: P,
    eps: f64,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let scale = [scale];
    let norm = scaled(axes.into(), &scale, eps);
    views::in_place(x, &norm, rnorm.map(columns_mut), (Operator::Length, run))
}

/// [`scale_norm`] into a new array, which this allocates; of Fortran's order if `x` is. The same bits.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm_ndarray::scale_norm_array;
/// use ndarray::{Axis, array};
///
/// let y = scale_norm_array(array![3.0f32, 4.0].view(), Axis(0), 10.0, 1e-5, Default::default())?;
/// assert_eq!(y, array![6.0, 8.0]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm_array<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    scale: P,
    eps: f64,
    run: Run,
) -> Result<Array<E, D>, Error> {
    views::array(&x, &scaled(axes.into(), &[scale], eps), (Operator::Length, run))
}

/// The gradients of [`scale_norm`], given that of its output. dscale is [`ParamGradients::dweight`], of one number; its bits
/// are those of [`layernorm::scale_norm_backward`], in every layout.
///
/// # Errors
/// As [`scale_norm`], and [`Error::Parameter`].
///
/// ```
/// use layernorm::Workspace;
/// use layernorm_ndarray::{Gradients, ParamGradients, scale_norm_backward};
/// use ndarray::{Array1, Axis, array};
///
/// let (x, dy, mut dscale, mut workspace) = (array![[3.0, 4.0]], array![[1.0, 0.5]], Array1::zeros(1), Workspace::new());
/// let dweight = Some(dscale.view_mut().into_dyn());
/// let params = Some(ParamGradients { dweight, ..ParamGradients::new(&mut workspace) });
/// let gradients = Gradients { dx: None, params };
/// scale_norm_backward(x.view(), dy.view(), Axis(1), 10.0f64, 1e-5, gradients, Default::default())?;
/// assert!((dscale[0] - 1.0f64).abs() < 1e-15); // 0.6 + 0.8 / 2
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm_backward<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    scale: P,
    eps: f64,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    let scale = [scale];
    let norm = scaled(axes.into(), &scale, eps);
    one_number(gradients.params.as_ref())?;
    views::backward(&x, &dy, &norm, None, gradients, (Operator::Length, run))
}

/// [`scale_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`scale_norm_backward`].
///
/// ```
/// use layernorm_ndarray::scale_norm_backward_in_place;
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[3.0f64, 0.0]], array![[1.0, 3.0]]);
/// scale_norm_backward_in_place(x.view(), dy.view_mut(), Axis(1), 10.0, 1e-5, None, Default::default())?;
/// assert!(dy[[0, 0]].abs() < 1e-15 && (dy[[0, 1]] - 10.0).abs() < 1e-14); // along x nothing changes
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm_backward_in_place<'a, E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayViewMut<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    scale: P,
    eps: f64,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let scale = [scale];
    let norm = scaled(axes.into(), &scale, eps);
    one_number(param_gradients.as_ref())?;
    views::backward_in_place(&x, dy, &norm, (None, param_gradients), (Operator::Length, run))
}

/// L2 norm of `x` over these axes, into `y`: y = x / max(|x|, eps). [`scale_norm`] by 1.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm_ndarray::l2_norm;
/// use ndarray::{Array2, Axis, array};
///
/// let (x, mut y, mut rnorm) = (array![[3.0f32, 4.0], [0.0, 2.0]], Array2::zeros((2, 2)), [0.0; 2]);
/// l2_norm(x.view(), Axis(1), 1e-12, y.view_mut(), Some(&mut rnorm), Default::default())?;
/// assert_eq!((y, rnorm), (array![[0.6, 0.8], [0.0, 1.0]], [0.2, 0.5]));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn l2_norm<'a, E: Element, D: Dimension>(
    x: ArrayView<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    eps: f64,
    y: ArrayViewMut<'_, E, D>,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    views::forward(&x, &plain::<E>(axes.into(), eps), y, rnorm.map(columns_mut), (Operator::Length, run))
}

/// [`l2_norm`] in place. The same bits.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm_ndarray::l2_norm_in_place;
/// use ndarray::{Axis, array};
///
/// let mut x = array![[3.0f32, 4.0]];
/// l2_norm_in_place(x.view_mut(), Axis(1), 1e-12, None, Default::default())?;
/// assert_eq!(x, array![[0.6, 0.8]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn l2_norm_in_place<'a, E: Element, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    eps: f64,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    views::in_place(x, &plain::<E>(axes.into(), eps), rnorm.map(columns_mut), (Operator::Length, run))
}

/// [`l2_norm`] into a new array, which this allocates; of Fortran's order if `x` is. The same bits.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm_ndarray::l2_norm_array;
/// use ndarray::{Axis, array};
///
/// assert_eq!(l2_norm_array(array![3.0f32, 4.0].view(), Axis(0), 1e-12, Default::default())?, array![0.6, 0.8]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn l2_norm_array<'a, E: Element, D: Dimension>(
    x: ArrayView<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    eps: f64,
    run: Run,
) -> Result<Array<E, D>, Error> {
    views::array(&x, &plain::<E>(axes.into(), eps), (Operator::Length, run))
}

/// The gradient of [`l2_norm`], given that of its output, into `dx`.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm_ndarray::l2_norm_backward;
/// use ndarray::{Array2, Axis, array};
///
/// let (x, dy, mut dx) = (array![[3.0f64, 0.0]], array![[1.0, 3.0]], Array2::zeros((1, 2)));
/// l2_norm_backward(x.view(), dy.view(), Axis(1), 1e-12, dx.view_mut(), Default::default())?;
/// assert!(dx[[0, 0]].abs() < 1e-15 && (dx[[0, 1]] - 1.0).abs() < 1e-15);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn l2_norm_backward<'a, E: Element, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    eps: f64,
    dx: ArrayViewMut<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    let gradients = Gradients { dx: Some(dx), params: None };
    views::backward(&x, &dy, &plain::<E>(axes.into(), eps), None, gradients, (Operator::Length, run))
}

/// [`l2_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm_ndarray::l2_norm_backward_in_place;
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[3.0f64, 0.0]], array![[1.0, 3.0]]);
/// l2_norm_backward_in_place(x.view(), dy.view_mut(), Axis(1), 1e-12, Default::default())?;
/// assert!(dy[[0, 0]].abs() < 1e-15 && (dy[[0, 1]] - 1.0).abs() < 1e-15);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn l2_norm_backward_in_place<'a, E: Element, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayViewMut<'_, E, D>,
    axes: impl Into<Axes<'a>>,
    eps: f64,
    run: Run,
) -> Result<(), Error> {
    views::backward_in_place(&x, dy, &plain::<E>(axes.into(), eps), (None, None), (Operator::Length, run))
}

fn scaled<'a, P>(axes: Axes<'a>, scale: &'a [P], eps: f64) -> Norm<'a, P> {
    Norm { weight: Some(aview1(scale).into_dyn()), ..plain(axes, eps) }
}

fn plain<P>(axes: Axes<'_>, eps: f64) -> Norm<'_, P> {
    Norm { axes, weight: None, bias: None, eps }
}

/// A scale is one number, and so is its gradient.
fn one_number<A>(params: Option<&ParamGradients<'_, A>>) -> Result<(), Error> {
    match params.and_then(|params| params.dweight.as_ref()).filter(|dscale| dscale.len() != 1) {
        Some(dscale) => {
            Err(Error::Parameter { what: "dscale", got: dscale.shape().to_vec(), expected: vec![1] })
        }
        None => Ok(()),
    }
}
