//! Scale norm (Nguyen, Salazar 2019, arXiv:1910.05895, equation 3), over any axes of an array:
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

/// The axes, the scale and the epsilon of a scale norm.
///
/// ```
/// use layernorm_ndarray::Scaled;
///
/// let norm = Scaled::over(ndarray::Axis(1), 10.0f32);
/// assert_eq!((norm.scale, norm.eps), (10.0, 1e-5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaled<'a, P> {
    /// The axes that a length is taken over.
    pub axes: Axes<'a>,
    /// What a row of length 1 is multiplied by. Learned; the paper begins with the root of the number of features.
    pub scale: P,
    /// The least length that is divided by; finite and not negative.
    pub eps: f64,
}

impl<'a, P> Scaled<'a, P> {
    /// Over these axes, by this scale; eps 1e-5.
    ///
    /// ```
    /// use layernorm_ndarray::Scaled;
    ///
    /// let norm = Scaled { eps: 1e-12, ..Scaled::over(ndarray::Axis(0), 3.0f64) };
    /// assert_eq!(norm.axes, ndarray::Axis(0).into());
    /// ```
    pub fn over(axes: impl Into<Axes<'a>>, scale: P) -> Self {
        Self { axes: axes.into(), scale, eps: 1e-5 }
    }

    /// As the road to the kernels takes it: the scale is the one weight.
    fn by_weight(&self) -> Norm<'_, P> {
        let scale = aview1(std::slice::from_ref(&self.scale)).into_dyn();
        Norm { axes: self.axes, weight: Some(scale), bias: None, eps: self.eps }
    }
}

/// Scale norm of `x` over some axes, into `y`: y = scale x / max(|x|, eps).
///
/// `x` and `y` have the same shape, each its own layout. 1 / max(|x|, eps) of each row goes to `rnorm`. Each row has the bits of
/// [`layernorm::scale_norm`], in every layout (see [the crate](crate#layouts)).
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::SameAxis`], [`Error::NoAxis`], [`Error::Shape`], and
/// [`Error::Kernel`] for statistics of another length, epsilon and level.
///
/// ```
/// use layernorm_ndarray::{Scaled, scale_norm};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, mut y) = (array![[3.0f32, 0.0], [4.0, 2.0]], Array2::zeros((2, 2))); // columns of the lengths 5 and 2
/// scale_norm(x.view(), Scaled::over(Axis(0), 10.0), y.view_mut(), None, Default::default())?;
/// assert_eq!(y, array![[6.0, 0.0], [8.0, 10.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: Scaled<'_, P>,
    y: ArrayViewMut<'_, E, D>,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let norm = norm.by_weight();
    views::forward(&x, &norm, y, rnorm.map(columns_mut), (Operator::Length, run))
}

/// [`scale_norm`] in place. The same bits.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm_ndarray::{Scaled, scale_norm_in_place};
/// use ndarray::{Axis, array};
///
/// let mut x = array![[3.0f32, 4.0]];
/// scale_norm_in_place(x.view_mut(), Scaled::over(Axis(1), 10.0), None, Default::default())?;
/// assert_eq!(x, array![[6.0, 8.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    norm: Scaled<'_, P>,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let norm = norm.by_weight();
    views::in_place(x, &norm, rnorm.map(columns_mut), (Operator::Length, run))
}

/// [`scale_norm`] into a new array, which this allocates; of Fortran's order if `x` is. The same bits.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm_ndarray::{Scaled, scale_norm_array};
/// use ndarray::{Axis, array};
///
/// let y = scale_norm_array(array![3.0f32, 4.0].view(), Scaled::over(Axis(0), 10.0), Default::default())?;
/// assert_eq!(y, array![6.0, 8.0]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm_array<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: Scaled<'_, P>,
    run: Run,
) -> Result<Array<E, D>, Error> {
    views::array(&x, &norm.by_weight(), (Operator::Length, run))
}

/// The gradients of [`scale_norm`], given that of its output. dscale is [`ParamGradients::dweight`], of one number; its bits
/// are those of [`layernorm::scale_norm_backward`], in every layout.
///
/// # Errors
/// As [`scale_norm`], and [`Error::Parameter`].
///
/// ```
/// use layernorm::Workspace;
/// use layernorm_ndarray::{Gradients, ParamGradients, Scaled, scale_norm_backward};
/// use ndarray::{Array1, Axis, array};
///
/// let (x, dy, mut dscale, mut workspace) = (array![[3.0, 4.0]], array![[1.0, 0.5]], Array1::zeros(1), Workspace::new());
/// let dweight = Some(dscale.view_mut().into_dyn());
/// let params = Some(ParamGradients { dweight, ..ParamGradients::new(&mut workspace) });
/// let gradients = Gradients { dx: None, params };
/// scale_norm_backward(x.view(), dy.view(), Scaled::over(Axis(1), 10.0f64), gradients, Default::default())?;
/// assert!((dscale[0] - 1.0f64).abs() < 1e-15); // 0.6 + 0.8 / 2
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: Scaled<'_, P>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    let norm = norm.by_weight();
    one_number(gradients.params.as_ref())?;
    views::backward(&x, &dy, &norm, None, gradients, (Operator::Length, run))
}

/// [`scale_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`scale_norm_backward`].
///
/// ```
/// use layernorm_ndarray::{Scaled, scale_norm_backward_in_place};
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[3.0f64, 0.0]], array![[1.0, 3.0]]);
/// scale_norm_backward_in_place(x.view(), dy.view_mut(), Scaled::over(Axis(1), 10.0), None, Default::default())?;
/// assert!(dy[[0, 0]].abs() < 1e-15 && (dy[[0, 1]] - 10.0).abs() < 1e-14); // along x nothing changes
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn scale_norm_backward_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayViewMut<'_, E, D>,
    norm: Scaled<'_, P>,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let norm = norm.by_weight();
    one_number(param_gradients.as_ref())?;
    views::backward_in_place(&x, dy, &norm, (None, param_gradients), (Operator::Length, run))
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
