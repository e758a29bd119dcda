//! Scale norm (Nguyen, Salazar 2019, arXiv:1910.05895, equation 3) and L2 norm, which has no scale; a row at a time:
//!
//! ```text
//! x_hat = x / max(|x|, eps)        |x| = sqrt(sum(x^2))
//! y  = scale x_hat
//!
//! u  = scale dy
//! dx = (u - x_hat sum(u x_hat)) / |x|      where |x| > eps
//! dx = u / eps                             elsewhere: the length does not count there
//! dscale = sum over everything of dy x_hat
//! ```
//!
//! That is RMS norm with a sum in the place of the mean, and another epsilon.

use crate::by_row::{Statistics, backward::Backward, forward::Forward};
use crate::form::{Divisor, Form};
use crate::rms_norm::columns_mut;
use crate::{Companion, Element, Error, Gradients, ParamGradients, Params, Real, Rows, RowsMut, Run};

/// Scale norm of each row of `x`, into `y`: y = scale x / max(|x|, eps), where |x| is the Euclidean length.
///
/// `x` and `y` have the same rows and features, and each its own stride. The authors take eps 1e-5, and sqrt(features)
/// for the first scale. 1 / max(|x|, eps) of each row goes to `rnorm`. A row of zeros gives zeros, without eps too.
/// Nothing is allocated.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Epsilon`], [`Error::Level`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, scale_norm};
///
/// let mut y = [0.0f32; 2];
/// scale_norm(Rows::new(&[3.0, 4.0], 2)?, 10.0, 1e-5, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!(y, [6.0, 8.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn scale_norm<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    scale: P,
    eps: f64,
    y: RowsMut<'_, E>,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rnorm.map(|rnorm| columns_mut("rnorm", rnorm, x.rows())).transpose()?;
    let scale = [scale];
    let call = Forward::new(x, params(&scale, eps), y, saved)?;
    Forward { form: of_length(eps, call.shape.features)?, ..call }.run(Statistics::Uncentred, run)
}

/// [`scale_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`scale_norm`].
///
/// ```
/// use layernorm::{RowsMut, Run, scale_norm_in_place};
///
/// let mut x = [0.0f64, -4.0];
/// scale_norm_in_place(RowsMut::new(&mut x, 2)?, 10.0, 1e-5, None, Run::default())?;
/// assert_eq!(x, [0.0, -10.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn scale_norm_in_place<E: Element, P: Companion<E>>(
    x: RowsMut<'_, E>,
    scale: P,
    eps: f64,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rnorm.map(|rnorm| columns_mut("rnorm", rnorm, x.rows())).transpose()?;
    let scale = [scale];
    let call = Forward::in_place(x, params(&scale, eps), saved)?;
    Forward { form: of_length(eps, call.shape.features)?, ..call }.run(Statistics::Uncentred, run)
}

/// The gradients of [`scale_norm`], given that of its output.
///
/// The lengths are taken from `x` once more. The gradient of the scale is `gradients.params.dweight`, one number; it
/// needs a workspace, which allocates where it is too small; nothing else does.
///
/// # Errors
/// As [`scale_norm`], and [`Error::Length`] for a `dweight` of more than one number.
///
/// ```
/// use layernorm::{Gradients, ParamGradients, Rows, RowsMut, Run, Workspace, scale_norm_backward};
///
/// let (x, dy) = (Rows::new(&[2.0f64, 0.0], 2)?, Rows::new(&[1.0, 5.0], 2)?);
/// let (mut dx, mut dscale) = ([0.0; 2], [0.0]);
/// let params = ParamGradients {
///     dweight: Some(&mut dscale), dbias: None, accumulate: false, first_row: 0, workspace: &mut Workspace::new(),
/// };
/// let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, 2)?), params: Some(params) };
/// scale_norm_backward(x, dy, 4.0, 1e-5, gradients, Run::default())?;
/// assert_eq!((dx, dscale), ([0.0, 10.0], [1.0])); // along x nothing changes
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn scale_norm_backward<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: Rows<'_, E>,
    scale: P,
    eps: f64,
    gradients: Gradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let scale = [scale];
    let call = Backward::new(x, dy, params(&scale, eps), None, gradients.dx)?;
    backward(call, eps, gradients.params, run)
}

/// [`scale_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`scale_norm_backward`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, scale_norm_backward_in_place};
///
/// let mut dy = [1.0f64, 5.0];
/// scale_norm_backward_in_place(Rows::new(&[2.0, 0.0], 2)?, RowsMut::new(&mut dy, 2)?, 4.0, 1e-5, None, Run::default())?;
/// assert_eq!(dy, [0.0, 10.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn scale_norm_backward_in_place<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: RowsMut<'_, E>,
    scale: P,
    eps: f64,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let scale = [scale];
    let call = Backward::in_place(x, dy, params(&scale, eps), None)?;
    backward(call, eps, param_gradients, run)
}

/// L2 norm of each row of `x`, into `y`: y = x / max(|x|, eps), where |x| is the Euclidean length.
///
/// PyTorch's `normalize`, whose eps is 1e-12; TensorFlow's `l2_normalize` compares the square of the length with its
/// epsilon, which is the square of this one. 1 / max(|x|, eps) of each row goes to `rnorm`. A row of zeros gives zeros,
/// without eps too. Nothing is allocated. Queries and keys of attention (Henry et al. 2020, arXiv:2010.04245) are
/// [`Rows::heads`].
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Epsilon`], [`Error::Level`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, l2_norm};
///
/// let mut y = [1.0f64; 4];
/// l2_norm(Rows::new(&[3.0, 4.0, 0.0, 0.0], 2)?, 1e-12, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert!((y[0] - 0.6).abs() < 1e-15 && (y[1] - 0.8).abs() < 1e-15 && y[2..] == [0.0, 0.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn l2_norm<E: Element>(
    x: Rows<'_, E>,
    eps: f64,
    y: RowsMut<'_, E>,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rnorm.map(|rnorm| columns_mut("rnorm", rnorm, x.rows())).transpose()?;
    let call = Forward::new(x, params::<E>(&[], eps), y, saved)?;
    Forward { form: of_length(eps, call.shape.features)?, ..call }.run(Statistics::Uncentred, run)
}

/// [`l2_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`l2_norm`].
///
/// ```
/// use layernorm::{RowsMut, Run, l2_norm_in_place};
///
/// let mut x = [0.0f32, -4.0];
/// l2_norm_in_place(RowsMut::new(&mut x, 2)?, 1e-12, None, Run::default())?;
/// assert_eq!(x, [0.0, -1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn l2_norm_in_place<E: Element>(
    x: RowsMut<'_, E>,
    eps: f64,
    rnorm: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rnorm.map(|rnorm| columns_mut("rnorm", rnorm, x.rows())).transpose()?;
    let call = Forward::in_place(x, params::<E>(&[], eps), saved)?;
    Forward { form: of_length(eps, call.shape.features)?, ..call }.run(Statistics::Uncentred, run)
}

/// The gradient of [`l2_norm`], given that of its output. The lengths are taken from `x` once more. Nothing is
/// allocated.
///
/// # Errors
/// As [`l2_norm`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, l2_norm_backward};
///
/// let (x, dy) = (Rows::new(&[2.0f64, 0.0], 2)?, Rows::new(&[1.0, 5.0], 2)?);
/// let mut dx = [0.0; 2];
/// l2_norm_backward(x, dy, 1e-12, RowsMut::new(&mut dx, 2)?, Run::default())?;
/// assert_eq!(dx, [0.0, 2.5]); // along x nothing changes; across it the gradient is divided by the length
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn l2_norm_backward<E: Element>(
    x: Rows<'_, E>,
    dy: Rows<'_, E>,
    eps: f64,
    dx: RowsMut<'_, E>,
    run: Run,
) -> Result<(), Error> {
    backward(Backward::new(x, dy, params::<E>(&[], eps), None, Some(dx))?, eps, None, run)
}

/// [`l2_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`l2_norm_backward`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, l2_norm_backward_in_place};
///
/// let mut dy = [1.0f64, 5.0];
/// l2_norm_backward_in_place(Rows::new(&[2.0, 0.0], 2)?, RowsMut::new(&mut dy, 2)?, 1e-12, Run::default())?;
/// assert_eq!(dy, [0.0, 2.5]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn l2_norm_backward_in_place<E: Element>(
    x: Rows<'_, E>,
    dy: RowsMut<'_, E>,
    eps: f64,
    run: Run,
) -> Result<(), Error> {
    backward(Backward::in_place(x, dy, params::<E>(&[], eps), None)?, eps, None, run)
}

/// One scale for all features, or none.
fn params<P>(scale: &[P], eps: f64) -> Params<'_, P> {
    Params { weight: Some(scale).filter(|scale| !scale.is_empty()), bias: None, eps }
}

/// Rows are measured by their length, and that is at least `eps`.
pub(crate) fn of_length<T: Real>(eps: f64, features: usize) -> Result<Form<T>, Error> {
    Ok(Form { divisor: Divisor::AtLeast, count: 1, ..Form::new(eps, features)? })
}

fn backward<E: Element>(
    call: Backward<'_, E>,
    eps: f64,
    of_scale: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    match of_scale.as_ref().and_then(|of| of.dweight.as_deref()) {
        Some(dscale) if dscale.len() != 1 => {
            return Err(Error::Length { what: "dweight", expected: 1, got: dscale.len() });
        }
        _ => {}
    }
    Backward { form: of_length(eps, call.shape.features)?, ..call }.run(Statistics::Uncentred, of_scale, run)
}
