//! L2 norm, over any axes of an array:
//!
//! ```text
//! y  = x / max(|x|, eps)                      |x| = sqrt(sum(x^2))
//!
//! dx = (dy - y sum(dy y)) / |x|               where |x| > eps
//! dx = dy / eps                               elsewhere
//! ```

use crate::operator::Operator;
use crate::rms_norm::columns_mut;
use crate::{Axes, Error, Gradients, Norm, views};
use layernorm::{Element, Run};
use ndarray::{Array, ArrayView, ArrayViewMut, Dimension};

/// L2 norm of `x` over these axes, into `y`: y = x / max(|x|, eps). [`scale_norm`](crate::scale_norm()) by 1, and with
/// the bits of [`layernorm::l2_norm`]. 1 / max(|x|, eps) of each row goes to `rnorm`.
///
/// # Errors
/// As [`scale_norm`](crate::scale_norm()).
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
    views::forward(&x, &plain::<E>(axes, eps), y, rnorm.map(columns_mut), (Operator::Length, run))
}

/// [`l2_norm`] in place. The same bits.
///
/// # Errors
/// As [`l2_norm`].
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
    views::in_place(x, &plain::<E>(axes, eps), rnorm.map(columns_mut), (Operator::Length, run))
}

/// [`l2_norm`] into a new array, which this allocates; of Fortran's order if `x` is. The same bits.
///
/// # Errors
/// As [`l2_norm`].
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
    views::array(&x, &plain::<E>(axes, eps), (Operator::Length, run))
}

/// The gradient of [`l2_norm`], given that of its output, into `dx`.
///
/// # Errors
/// As [`l2_norm`].
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
    views::backward(&x, &dy, &plain::<E>(axes, eps), None, gradients, (Operator::Length, run))
}

/// [`l2_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`l2_norm`].
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
    views::backward_in_place(&x, dy, &plain::<E>(axes, eps), (None, None), (Operator::Length, run))
}

fn plain<'a, P>(axes: impl Into<Axes<'a>>, eps: f64) -> Norm<'a, P> {
    Norm { axes: axes.into(), weight: None, bias: None, eps }
}
