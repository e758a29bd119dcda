//! Root mean square normalization (Zhang, Sennrich 2019, arXiv:1910.07467, equation 4), a row at a time:
//!
//! ```text
//! x_hat = x / sqrt(mean(x^2) + eps)
//! y  = weight x_hat + bias
//!
//! u  = weight dy
//! dx = (u - x_hat mean(u x_hat)) / sqrt(mean(x^2) + eps)
//! dweight = sum over rows of dy x_hat       dbias = sum over rows of dy
//! ```
//!
//! Epsilon is inside the root, as in every framework; the paper's own code has it outside. [`RmsParams`] says what
//! else models do differently. Partial statistics are of the first k features: mean(x^2) is of these, mean(u x_hat) is
//! the sum over all features divided by k, and x_hat mean(u x_hat) is taken from these alone.

use crate::by_row::{Columns, Statistics, backward::Backward, forward::Forward};
use crate::form::Divisor;
use crate::rows::{Column, column};
use crate::{
    Companion, Element, Epsilon, Error, Gradients, ParamGradients, ParamGrads, Real, RmsParams, Rounding,
    Rows, RowsMut, Run,
};

/// RMS norm of each row of `x`, into `y`: y = weight x / sqrt(mean(x^2) + eps) + bias.
///
/// `x` and `y` have the same rows and features, and each its own stride. 1 / sqrt(mean(x^2) + eps) of each row goes
/// to `rstd`, where a backward pass finds it. Nothing is allocated. The parameters are [`Params`](crate::Params) or
/// [`RmsParams`], which name what models do differently: an offset of the weight, partial statistics, epsilon outside
/// the root, roundings.
///
/// Bounds and special rows are in `docs/numerics.md`: for every finite row and any eps the result is finite
/// and right; a row of zeros gives exactly the bias; NaN or infinity spoils its own row only.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Epsilon`], [`Error::Partial`],
/// [`Error::NotFinite`] (the offset), [`Error::Level`].
///
/// ```
/// use layernorm::{Params, RmsParams, Rows, RowsMut, Run, rms_norm};
///
/// let x = [1.0f32, 7.0, -2.0, 2.0]; // root mean squares 5 and 2
/// let mut y = [0.0; 4];
/// let params = Params { weight: Some(&[5.0]), bias: None, eps: 0.0 };
/// rms_norm(Rows::new(&x, 2)?, params, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!(y, [1.0, 7.0, -5.0, 5.0]);
///
/// // As Gemma does, with the statistics of the first feature.
/// let params = RmsParams { weight: Some(&[0.5]), weight_offset: 1.0, partial: Some(1), eps: 0.0, ..RmsParams::default() };
/// rms_norm(Rows::new(&x, 2)?, params, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!(y, [1.5, 10.5, -1.5, 1.5]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn rms_norm<'a, E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    params: impl Into<RmsParams<'a, P>>,
    y: RowsMut<'_, E>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let (params, saved) = (params.into(), rstd.map(|rstd| columns_mut("rstd", rstd, x.rows())).transpose()?);
    forward(Forward::new(x, params.plain(), y, saved)?, params, run)
}

/// [`rms_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`rms_norm`].
///
/// ```
/// use layernorm::{Params, RowsMut, Run, rms_norm_in_place};
///
/// let mut x = [3.0f64, -3.0];
/// rms_norm_in_place(RowsMut::new(&mut x, 2)?, Params { eps: 0.0, ..Params::<f64>::default() }, None, Run::default())?;
/// assert_eq!(x, [1.0, -1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn rms_norm_in_place<'a, E: Element, P: Companion<E>>(
    x: RowsMut<'_, E>,
    params: impl Into<RmsParams<'a, P>>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let (params, saved) = (params.into(), rstd.map(|rstd| columns_mut("rstd", rstd, x.rows())).transpose()?);
    forward(Forward::in_place(x, params.plain(), saved)?, params, run)
}

/// The gradients of [`rms_norm`], given that of its output.
///
/// `rstd` holds the statistics of the forward pass; without them they are taken from `x` once more (the
/// same numbers, one more pass). `params.bias` is not looked at. dweight and dbias need a workspace, which
/// allocates where it is too small; nothing else does.
///
/// # Errors
/// As [`rms_norm`].
///
/// ```
/// use layernorm::{Gradients, Params, Rows, RowsMut, Run, rms_norm_backward};
///
/// let (x, dy) = ([1.0f64, 2.0, 4.0], [0.0, 1.0, 0.0]);
/// let mut dx = [0.0; 3];
/// let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, 3)?), params: None };
/// rms_norm_backward(Rows::new(&x, 3)?, Rows::new(&dy, 3)?, Params::<f64>::default(), None, gradients, Run::default())?;
/// let along_x: f64 = x.iter().zip(dx).map(|(x, dx)| x * dx).sum();
/// assert!(along_x.abs() < 1e-5); // scaling x changes nothing, but for eps
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn rms_norm_backward<'a, E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: Rows<'_, E>,
    params: impl Into<RmsParams<'a, P>>,
    rstd: Option<&[E::Acc]>,
    gradients: Gradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let (params, saved) = (params.into(), rstd.map(|rstd| columns("rstd", rstd, x.rows())).transpose()?);
    backward(Backward::new(x, dy, params.plain(), saved, gradients.dx)?, params, gradients.params, run)
}

/// [`rms_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`rms_norm_backward`].
///
/// ```
/// use layernorm::{Params, Rows, RowsMut, Run, rms_norm_backward_in_place};
///
/// let mut dy = [1.0f64, 2.0, 4.0];
/// let x = Rows::new(&[1.0, 2.0, 4.0], 3)?;
/// let params = Params::<f64> { eps: 0.0, ..Params::default() };
/// rms_norm_backward_in_place(x, RowsMut::new(&mut dy, 3)?, params, None, None, Run::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn rms_norm_backward_in_place<'a, E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: RowsMut<'_, E>,
    params: impl Into<RmsParams<'a, P>>,
    rstd: Option<&[E::Acc]>,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let (params, saved) = (params.into(), rstd.map(|rstd| columns("rstd", rstd, x.rows())).transpose()?);
    backward(Backward::in_place(x, dy, params.plain(), saved)?, params, param_gradients, run)
}

/// What a call of [`Params`](crate::Params) lacks, and away.
fn forward<'a, E: Element, P: Companion<E>>(
    call: Forward<'a, E>,
    params: RmsParams<'a, P>,
    run: Run,
) -> Result<(), Error> {
    let (form, rounding) = (params.form(call.shape.features)?, params.rounding::<E>());
    let [weight, bias] = params.affine(call.shape.features)?;
    Forward { form, weight, bias, rounding, ..call }.run(Statistics::Uncentred, run)
}

/// As [`forward`].
fn backward<'a, E: Element, P: Companion<E>>(
    call: Backward<'a, E>,
    params: RmsParams<'a, P>,
    of_params: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let form = params.form(call.shape.features)?;
    let [weight, _] = params.affine(call.shape.features)?;
    let saved = call.saved.filter(|_| form.divisor == Divisor::Inside);
    Backward { form, weight, saved, ..call }.run(Statistics::Uncentred, of_params, run)
}

/// Statistics of rows without a mean, to read.
pub(crate) fn columns<'a, T>(
    what: &'static str,
    rstd: &'a [T],
    rows: usize,
) -> Result<Columns<&'a [T]>, Error> {
    Ok(Columns { centre: None, rstd: column(what, rstd, rows)? })
}

/// Statistics of rows without a mean, to write.
pub(crate) fn columns_mut<'a, T>(
    what: &'static str,
    rstd: &'a mut [T],
    rows: usize,
) -> Result<Columns<Column<'a, T>>, Error> {
    Ok(Columns { centre: None, rstd: Column::new(what, rstd, rows)? })
}

/// An RMS norm that holds its parameters, for contiguous rows.
///
/// ```
/// use layernorm::RmsNorm;
///
/// let norm = RmsNorm::<f32>::new(2).with_eps(0.0); // weight 1, no bias
/// let (mut y, mut rstd) = ([0.0; 2], [0.0; 1]);
/// norm.forward_saving(&[1.0, 7.0], &mut y, &mut rstd)?;
/// assert_eq!((y, rstd), ([0.2, 1.4], [0.2]));
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RmsNorm<T> {
    /// Features in a row.
    pub features: usize,
    /// gamma: one a feature, or one for all.
    pub weight: Option<Vec<T>>,
    /// beta: one a feature, or one for all.
    pub bias: Option<Vec<T>>,
    /// Added to the mean square.
    pub eps: f64,
    /// Added to each weight.
    pub weight_offset: f64,
    /// The statistics are of the first so many features, if not of all.
    pub partial: Option<usize>,
    /// Where epsilon stands.
    pub epsilon: Epsilon,
    /// How calls run.
    pub run: Run,
}

impl<T: Real> RmsNorm<T> {
    /// Weight 1, one a feature; no bias; eps 1e-5.
    pub fn new(features: usize) -> Self {
        let weight = Some(vec![T::from_f64(1.0); features]);
        let (weight_offset, partial, epsilon) = (0.0, None, Epsilon::Inside);
        Self { features, weight, bias: None, eps: 1e-5, weight_offset, partial, epsilon, run: Run::default() }
    }

    /// The same with this epsilon.
    #[must_use]
    pub fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// The same without weight and bias.
    #[must_use]
    pub fn without_affine(self) -> Self {
        Self { weight: None, bias: None, ..self }
    }

    /// The parameters, as the functions take them.
    pub fn params(&self) -> RmsParams<'_, T> {
        RmsParams {
            weight: self.weight.as_deref(),
            bias: self.bias.as_deref(),
            eps: self.eps,
            weight_offset: self.weight_offset,
            partial: self.partial,
            epsilon: self.epsilon,
            rounding: Rounding::Once,
        }
    }

    /// Gradients of the parameters, zero, with an empty workspace. Allocates.
    pub fn zero_grads(&self) -> ParamGrads<T> {
        ParamGrads::zeros(self.weight.as_ref().map(Vec::len), self.bias.as_ref().map(Vec::len))
    }

    /// [`rms_norm`] of the rows of `x`.
    ///
    /// # Errors
    /// As [`rms_norm`], and [`Error::Ragged`] if `x` or `y` is not a whole number of rows.
    pub fn forward(&self, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let (x, y) = (Rows::new(x, self.features)?, RowsMut::new(y, self.features)?);
        rms_norm(x, self.params(), y, None, self.run)
    }

    /// [`RmsNorm::forward`] that saves 1 / sqrt(mean(x^2) + eps) of each row.
    ///
    /// # Errors
    /// As [`RmsNorm::forward`].
    pub fn forward_saving(&self, x: &[T], y: &mut [T], rstd: &mut [T]) -> Result<(), Error> {
        let (x, y) = (Rows::new(x, self.features)?, RowsMut::new(y, self.features)?);
        rms_norm(x, self.params(), y, Some(rstd), self.run)
    }

    /// [`rms_norm_backward`]: the gradients of input and parameters.
    ///
    /// # Errors
    /// As [`rms_norm_backward`], and [`Error::Ragged`].
    pub fn backward(
        &self,
        x: &[T],
        dy: &[T],
        rstd: &[T],
        dx: &mut [T],
        grads: &mut ParamGrads<T>,
    ) -> Result<(), Error> {
        let (x, dy) = (Rows::new(x, self.features)?, Rows::new(dy, self.features)?);
        let dx = Some(RowsMut::new(dx, self.features)?);
        let gradients = Gradients { dx, params: Some(grads.as_mut()) };
        rms_norm_backward(x, dy, self.params(), Some(rstd), gradients, self.run)
    }
}
