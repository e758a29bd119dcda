//! What to normalise by where each sample has a scale and a shift of its own.

use crate::memory::Source;
use crate::whole::Reading;
use crate::{Axes, Error, ParamGradients};
use layernorm::{Element, ScaleIs};
use ndarray::{ArrayView, ArrayViewD, Axis, Dimension};

/// Over which axes to normalise, and scale and shift of samples. The first axis of `x` is that of samples.
///
/// Scale and shift are views of the shape (samples, features), or of samples and the shape that the normalised axes have.
/// They may be parts of what one linear layer gives for all of a block's parameters.
///
/// ```
/// use layernorm_ndarray::Modulation;
/// use ndarray::{Axis, Array2, s};
///
/// let of_condition = Array2::<f32>::zeros((8, 2 * 64)); // shift and scale, side by side
/// let (shift, scale) = (of_condition.slice(s![.., ..64]), of_condition.slice(s![.., 64..]));
/// let modulation = Modulation::over(Axis(2), scale).with_shift(shift).with_eps(1e-6);
/// assert_eq!(modulation.scale_is, layernorm::ScaleIs::AboveOne);
/// ```
#[derive(Debug, Clone)]
pub struct Modulation<'a, P> {
    /// The axes that mean and variance are taken over; not the first.
    pub axes: Axes<'a>,
    /// A row a sample.
    pub scale: ArrayViewD<'a, P>,
    /// A row a sample. Absent means 0. A backward pass does not read it.
    pub shift: Option<ArrayViewD<'a, P>>,
    /// What x_hat is multiplied by: 1 + scale, or the scale.
    pub scale_is: ScaleIs,
    /// Added to the variance (to the mean square, in RMS norm) under the root; finite and not negative.
    pub eps: f64,
}

impl<'a, P> Modulation<'a, P> {
    /// Over these axes, by 1 + this scale, without a shift; eps 1e-5.
    ///
    /// ```
    /// use layernorm_ndarray::Modulation;
    /// use ndarray::{Axis, array};
    ///
    /// let scale = array![[0.0f32, 1.0]];
    /// assert!(Modulation::over(Axis(1), &scale).shift.is_none());
    /// ```
    pub fn over<D: Dimension>(axes: impl Into<Axes<'a>>, scale: impl Into<ArrayView<'a, P, D>>) -> Self {
        let (axes, scale) = (axes.into(), scale.into().into_dyn());
        Self { axes, scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 1e-5 }
    }

    /// The same with this shift.
    ///
    /// ```
    /// use layernorm_ndarray::Modulation;
    /// use ndarray::{Axis, array};
    ///
    /// let (scale, shift) = (array![[0.0f32, 1.0]], array![[5.0, 5.0]]);
    /// assert!(Modulation::over(Axis(1), &scale).with_shift(&shift).shift.is_some());
    /// ```
    #[must_use]
    pub fn with_shift<D: Dimension>(self, shift: impl Into<ArrayView<'a, P, D>>) -> Self {
        Self { shift: Some(shift.into().into_dyn()), ..self }
    }

    /// The same with this epsilon.
    ///
    /// ```
    /// use layernorm_ndarray::Modulation;
    /// use ndarray::{Axis, array};
    ///
    /// let scale = array![[0.0f32, 1.0]];
    /// assert_eq!(Modulation::over(Axis(1), &scale).with_eps(1e-6).eps, 1e-6);
    /// ```
    #[must_use]
    pub fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    pub(crate) fn check(&self, x: &[usize]) -> Result<(), Error> {
        self.axes.check(x)?;
        if self.axes.has(0) {
            return Err(Error::SampleAxis { x: x.to_vec() });
        }
        let shapes = [("scale", Some(&self.scale)), ("shift", self.shift.as_ref())];
        shapes.into_iter().try_for_each(|(what, of)| of.map_or(Ok(()), |of| self.expect(what, of.shape(), x)))
    }

    pub(crate) fn check_gradients<A>(
        &self,
        gradients: Option<&ParamGradients<'_, A>>,
        x: &[usize],
    ) -> Result<(), Error> {
        let Some(ParamGradients { dweight, dbias, .. }) = gradients else { return Ok(()) };
        [("dscale", dweight), ("dshift", dbias)]
            .into_iter()
            .try_for_each(|(what, of)| of.as_ref().map_or(Ok(()), |of| self.expect(what, of.shape(), x)))
    }

    /// Those after the first, of the one of scale and shift that has more.
    pub(crate) fn axes_of_sample(&self) -> Vec<Axis> {
        let shift = self.shift.as_ref().map_or(0, ArrayViewD::ndim);
        (1..self.scale.ndim().max(shift)).map(Axis).collect()
    }

    /// A row of features a sample.
    fn expect(&self, what: &'static str, got: &[usize], x: &[usize]) -> Result<(), Error> {
        let features = x.iter().enumerate().filter(|(axis, _)| self.axes.has(*axis)).map(|(_, len)| *len);
        let expected: Vec<usize> = [x[0]].into_iter().chain(features).collect();
        let in_two_axes = got == [x[0], expected[1..].iter().product()];
        if in_two_axes || got == expected {
            return Ok(());
        }
        Err(Error::Parameter { what, got: got.to_vec(), expected })
    }
}

/// Scale and shift where they lie, or copied.
pub(crate) struct Parameters<'a, P: Element> {
    scale: Reading<'a, P>,
    shift: Option<Reading<'a, P>>,
    scale_is: ScaleIs,
    eps: f64,
}

impl<'a, P: Element> Parameters<'a, P> {
    /// `axes` are those of a sample's parameters.
    pub(crate) fn of(modulation: &'a Modulation<'_, P>, axes: &'a [Axis]) -> Self {
        let reading =
            |of: &'a ArrayViewD<'_, P>| Reading::of(Source::of(of, Axes::All(&axes[..of.ndim() - 1])));
        let Modulation { scale, shift, scale_is, eps, .. } = modulation;
        Self { scale: reading(scale), shift: shift.as_ref().map(reading), scale_is: *scale_is, eps: *eps }
    }

    pub(crate) fn modulation(&mut self) -> Result<layernorm::Modulation<'_, P>, layernorm::Error> {
        let shift = self.shift.as_mut().map(Reading::rows).transpose()?;
        Ok(layernorm::Modulation { scale: self.scale.rows()?, shift, scale_is: self.scale_is, eps: self.eps })
    }
}
