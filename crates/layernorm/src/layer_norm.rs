//! Layer normalization (Ba, Kiros, Hinton 2016, arXiv:1607.06450, equation 4), a row at a time:
//!
//! ```text
//! mu = mean(x)    var = mean((x - mu)^2)    x_hat = (x - mu) / sqrt(var + eps)
//! y  = weight x_hat + bias
//!
//! u  = weight dy
//! dx = (u - mean(u) - x_hat mean(u x_hat)) / sqrt(var + eps)
//! dweight = sum over rows of dy x_hat       dbias = sum over rows of dy
//! ```

use crate::by_row::{Statistics, backward::Backward, forward::Forward};
use crate::{
    Companion, Element, Error, Gradients, ParamGradients, ParamGrads, Params, Real, Rows, RowsMut, Run,
    Stats, StatsMut, StatsRef,
};

/// Layer norm of each row of `x`, into `y`: y = weight (x - mean) / sqrt(var + eps) + bias.
///
/// `x` and `y` have the same rows and features, and each its own stride. The statistics go to `saved`, where
/// a backward pass finds them. Nothing is allocated.
///
/// Bounds and special rows are in `docs/numerics.md`: for every finite row and any eps the result is finite
/// and right; a constant row gives exactly the bias; NaN or infinity spoils its own row only.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Epsilon`], [`Error::Level`].
///
/// ```
/// use layernorm::{Params, Rows, RowsMut, Run, layer_norm};
///
/// let x = [1.0f32, 2.0, 3.0, 4.0];
/// let mut y = [0.0; 4];
/// let params = Params { weight: Some(&[2.0, 2.0]), bias: Some(&[0.5]), eps: 0.0 };
/// layer_norm(Rows::new(&x, 2)?, params, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!(y, [-1.5, 2.5, -1.5, 2.5]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn layer_norm<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    params: Params<'_, P>,
    y: RowsMut<'_, E>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    Forward::new(x, params, y, saved)?.run(Statistics::Centred, run)
}

/// [`layer_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use layernorm::{Params, RowsMut, Run, layer_norm_in_place};
///
/// let mut x = [1.0f64, 3.0];
/// layer_norm_in_place(RowsMut::new(&mut x, 2)?, Params { eps: 0.0, ..Params::<f64>::default() }, None, Run::default())?;
/// assert_eq!(x, [-1.0, 1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn layer_norm_in_place<E: Element, P: Companion<E>>(
    x: RowsMut<'_, E>,
    params: Params<'_, P>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    Forward::in_place(x, params, saved)?.run(Statistics::Centred, run)
}

/// The gradients of [`layer_norm`], given that of its output.
///
/// `saved` holds the statistics of the forward pass; without them they are taken from `x` once more (the
/// same numbers, one more pass). `params.bias` is not looked at. dweight and dbias need a workspace, which
/// allocates where it is too small; nothing else does.
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use layernorm::{Gradients, Params, Rows, RowsMut, Run, layer_norm_backward};
///
/// let (x, dy) = ([1.0f64, 2.0, 4.0], [0.0, 1.0, 0.0]);
/// let mut dx = [0.0; 3];
/// let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, 3)?), params: None };
/// layer_norm_backward(Rows::new(&x, 3)?, Rows::new(&dy, 3)?, Params::<f64>::default(), None, gradients, Run::default())?;
/// assert!(dx.iter().sum::<f64>().abs() < 1e-15); // a norm cannot be moved along the ones
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn layer_norm_backward<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: Rows<'_, E>,
    params: Params<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: Gradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    Backward::new(x, dy, params, saved, gradients.dx)?.run(Statistics::Centred, gradients.params, run)
}

/// [`layer_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`layer_norm_backward`].
///
/// ```
/// use layernorm::{Params, Rows, RowsMut, Run, layer_norm_backward_in_place};
///
/// let mut dy = [1.0f64, 1.0, 1.0];
/// let x = Rows::new(&[1.0, 2.0, 4.0], 3)?;
/// layer_norm_backward_in_place(x, RowsMut::new(&mut dy, 3)?, Params::<f64>::default(), None, None, Run::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn layer_norm_backward_in_place<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: RowsMut<'_, E>,
    params: Params<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    Backward::in_place(x, dy, params, saved)?.run(Statistics::Centred, param_gradients, run)
}

/// A layer norm that holds its parameters, for contiguous rows.
///
/// ```
/// use layernorm::{LayerNorm, Stats};
///
/// let norm = LayerNorm::<f32>::new(4); // weight 1, bias 0, eps 1e-5
/// let (x, dy) = ([1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 5.0, 5.0], [0.1; 8]);
/// let (mut y, mut dx) = ([0.0; 8], [0.0; 8]);
/// let (mut saved, mut grads) = (Stats::new(2), norm.zero_grads());
/// norm.forward_saving(&x, &mut y, &mut saved)?;
/// norm.backward(&x, &dy, &saved, &mut dx, &mut grads)?;
/// assert_eq!(grads.dbias, Some(vec![0.2; 4]));
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm<T> {
    /// Features in a row.
    pub features: usize,
    /// gamma: one a feature, or one for all.
    pub weight: Option<Vec<T>>,
    /// beta: one a feature, or one for all.
    pub bias: Option<Vec<T>>,
    /// Added to the variance.
    pub eps: f64,
    /// How calls run.
    pub run: Run,
}

impl<T: Real> LayerNorm<T> {
    /// Weight 1 and bias 0, one a feature; eps 1e-5.
    pub fn new(features: usize) -> Self {
        Self {
            features,
            weight: Some(vec![T::from_f64(1.0); features]),
            bias: Some(vec![T::from_f64(0.0); features]),
            eps: 1e-5,
            run: Run::default(),
        }
    }

    /// The same with this epsilon.
    #[must_use]
    pub fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// The same without a bias.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }

    /// The same without weight and bias.
    #[must_use]
    pub fn without_affine(self) -> Self {
        Self { weight: None, bias: None, ..self }
    }

    /// The parameters, as the functions take them.
    pub fn params(&self) -> Params<'_, T> {
        Params { weight: self.weight.as_deref(), bias: self.bias.as_deref(), eps: self.eps }
    }

    /// Gradients of the parameters, zero, with an empty workspace. Allocates.
    pub fn zero_grads(&self) -> ParamGrads<T> {
        ParamGrads::zeros(self.weight.as_ref().map(Vec::len), self.bias.as_ref().map(Vec::len))
    }

    /// [`layer_norm`] of the rows of `x`.
    ///
    /// # Errors
    /// As [`layer_norm`], and [`Error::Ragged`] if `x` or `y` is not a whole number of rows.
    pub fn forward(&self, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let (x, y) = (Rows::new(x, self.features)?, RowsMut::new(y, self.features)?);
        layer_norm(x, self.params(), y, None, self.run)
    }

    /// [`LayerNorm::forward`] that saves the statistics of the rows.
    ///
    /// # Errors
    /// As [`LayerNorm::forward`].
    pub fn forward_saving(&self, x: &[T], y: &mut [T], saved: &mut Stats<T>) -> Result<(), Error> {
        let (x, y) = (Rows::new(x, self.features)?, RowsMut::new(y, self.features)?);
        layer_norm(x, self.params(), y, Some(saved.as_mut()), self.run)
    }

    /// [`layer_norm_backward`]: the gradients of input and parameters.
    ///
    /// # Errors
    /// As [`layer_norm_backward`], and [`Error::Ragged`].
    pub fn backward(
        &self,
        x: &[T],
        dy: &[T],
        saved: &Stats<T>,
        dx: &mut [T],
        grads: &mut ParamGrads<T>,
    ) -> Result<(), Error> {
        let (x, dy) = (Rows::new(x, self.features)?, Rows::new(dy, self.features)?);
        let dx = Some(RowsMut::new(dx, self.features)?);
        let gradients = Gradients { dx, params: Some(grads.as_mut()) };
        layer_norm_backward(x, dy, self.params(), Some(saved.as_ref()), gradients, self.run)
    }
}
