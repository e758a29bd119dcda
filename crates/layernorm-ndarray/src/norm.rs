//! What to normalise by: axes, weight, bias and epsilon.

use crate::Error;
use crate::layout::Layout;
use crate::operator::{Operator, Options};
use layernorm::{Epsilon, Params, Rounding};
use ndarray::{ArrayView, ArrayViewD, Axis, Dimension};
use std::borrow::Cow;

/// The axes that the statistics of a norm are taken over: one, or several.
///
/// Each index of the *other* axes is a row, and rows are in logical order (the last axis fastest). The features of a row
/// are in logical order too, whatever the order in which the axes are named.
///
/// ```
/// use layernorm_ndarray::Axes;
/// use ndarray::Axis;
///
/// assert_eq!(Axes::from(Axis(1)), Axes::One(Axis(1)));
/// assert_eq!(Axes::from(&[Axis(1), Axis(2)]).iter().count(), 2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes<'a> {
    /// This one.
    One(Axis),
    /// All of these.
    All(&'a [Axis]),
}

impl Axes<'_> {
    /// The axes, as they were named.
    ///
    /// ```
    /// use layernorm_ndarray::Axes;
    /// use ndarray::Axis;
    ///
    /// assert_eq!(Axes::All(&[Axis(2), Axis(0)]).iter().collect::<Vec<_>>(), [Axis(2), Axis(0)]);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = Axis> + '_ {
        match self {
            Self::One(axis) => std::slice::from_ref(axis).iter().copied(),
            Self::All(axes) => axes.iter().copied(),
        }
    }

    pub(crate) fn has(self, axis: usize) -> bool {
        self.iter().any(|one| one.index() == axis)
    }

    pub(crate) fn check(self, shape: &[usize]) -> Result<(), Error> {
        if self.iter().next().is_none() {
            return Err(Error::NoAxis { x: shape.to_vec() });
        }
        for (index, axis) in self.iter().enumerate() {
            if axis.index() >= shape.len() {
                return Err(Error::Axis { axis, x: shape.to_vec() });
            }
            if self.iter().take(index).any(|before| before == axis) {
                return Err(Error::SameAxis { axis });
            }
        }
        Ok(())
    }
}

impl From<Axis> for Axes<'_> {
    fn from(axis: Axis) -> Self {
        Self::One(axis)
    }
}

impl<'a> From<&'a [Axis]> for Axes<'a> {
    fn from(axes: &'a [Axis]) -> Self {
        Self::All(axes)
    }
}

impl<'a, const N: usize> From<&'a [Axis; N]> for Axes<'a> {
    fn from(axes: &'a [Axis; N]) -> Self {
        Self::All(axes)
    }
}

/// Over which axes to normalise, and the parameters: y = weight x_hat + bias.
///
/// Weight and bias are views, of the shape that the normalised axes have (for one axis: its length), or of that many
/// numbers in one axis, or of one number for all features. They have the elements' type or, beside halves, f32. A view
/// whose numbers do not lie side by side is copied, which allocates; no other does.
///
/// (Views, not slices: `weight.as_slice()` of an array that is not contiguous is `None`, which would mean no weight.)
///
/// ```
/// use layernorm_ndarray::Norm;
/// use ndarray::{Axis, array};
///
/// let weight = array![1.0f32, 2.0];
/// let norm = Norm::over(Axis(0)).with_weight(&weight).with_bias(&[0.5]).with_eps(1e-6);
/// assert_eq!(norm.weight.map(|weight| weight.len()), Some(2));
/// let plain = Norm::<f64>::over(&[Axis(1), Axis(2)]);
/// assert!(plain.weight.is_none() && plain.eps == 1e-5);
/// ```
#[derive(Debug, Clone)]
pub struct Norm<'a, P> {
    /// The axes that mean and variance are taken over; of group, instance and batch norm, that of channels.
    pub axes: Axes<'a>,
    /// gamma. Absent means 1.
    pub weight: Option<ArrayViewD<'a, P>>,
    /// beta. Absent means 0. A backward pass does not read it.
    pub bias: Option<ArrayViewD<'a, P>>,
    /// Added to the variance (to the mean square, in RMS norm) under the root; finite and not negative.
    pub eps: f64,
}

impl<'a, P> Norm<'a, P> {
    /// Over these axes, without weight and bias; eps 1e-5.
    ///
    /// ```
    /// use layernorm_ndarray::Norm;
    ///
    /// let norm = Norm::<f32>::over(ndarray::Axis(1));
    /// assert!(norm.weight.is_none() && norm.bias.is_none());
    /// ```
    pub fn over(axes: impl Into<Axes<'a>>) -> Self {
        Self { axes: axes.into(), weight: None, bias: None, eps: 1e-5 }
    }

    /// Group, instance or batch norm of the channels along this axis, with as many weights and biases as channels (or one, or
    /// none); eps 1e-5.
    ///
    /// ```
    /// use layernorm_ndarray::Norm;
    ///
    /// let weight = ndarray::Array1::<f32>::ones(8);
    /// let norm = Norm::by_channel(ndarray::Axis(1)).with_weight(&weight);
    /// assert_eq!(norm.eps, 1e-5);
    /// ```
    pub fn by_channel(axis: Axis) -> Self {
        Self::over(axis)
    }

    /// The same with this weight.
    ///
    /// ```
    /// use layernorm_ndarray::Norm;
    /// use ndarray::{Axis, Array2};
    ///
    /// let weight = Array2::<f32>::ones((4, 5));
    /// let norm = Norm::over(&[Axis(1), Axis(2)]).with_weight(&weight);
    /// assert!(norm.weight.is_some());
    /// ```
    #[must_use]
    pub fn with_weight<D: Dimension>(self, weight: impl Into<ArrayView<'a, P, D>>) -> Self {
        Self { weight: Some(weight.into().into_dyn()), ..self }
    }

    /// The same with this bias.
    ///
    /// ```
    /// use layernorm_ndarray::Norm;
    ///
    /// let norm = Norm::over(ndarray::Axis(1)).with_bias(&[0.5f32]);
    /// assert!(norm.bias.is_some());
    /// ```
    #[must_use]
    pub fn with_bias<D: Dimension>(self, bias: impl Into<ArrayView<'a, P, D>>) -> Self {
        Self { bias: Some(bias.into().into_dyn()), ..self }
    }

    /// The same with this epsilon.
    ///
    /// ```
    /// use layernorm_ndarray::Norm;
    ///
    /// assert_eq!(Norm::<f32>::over(ndarray::Axis(0)).with_eps(1e-6).eps, 1e-6);
    /// ```
    #[must_use]
    pub fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }
}

/// A [`Norm`] by RMS, and what models do differently: y = (weight_offset + weight) x_hat + bias. A [`Norm`] converts into one that
/// does nothing differently, so the functions take either.
///
/// ```
/// use layernorm_ndarray::{Norm, Rms};
/// use ndarray::{Axis, array};
///
/// // Gemma stores weights as what they differ from 1 by.
/// let weight = array![0.0f32, 0.5];
/// let norm = Norm::over(Axis(1)).with_weight(&weight).with_eps(1e-6);
/// let norm = Rms { weight_offset: 1.0, ..norm.into() };
/// assert_eq!(norm.partial, None);
/// ```
#[derive(Debug, Clone)]
pub struct Rms<'a, P> {
    /// Axes, weight, bias and epsilon.
    pub norm: Norm<'a, P>,
    /// Added to each weight in the type that sums have. Default 0.
    pub weight_offset: f64,
    /// Take the mean square of the first so many features alone. Default: of all.
    pub partial: Option<usize>,
    /// Where epsilon stands. Default: under the root.
    pub epsilon: Epsilon,
    /// Where halves are rounded. Default: once.
    pub rounding: Rounding,
}

impl<'a, P> From<Norm<'a, P>> for Rms<'a, P> {
    fn from(norm: Norm<'a, P>) -> Self {
        let (epsilon, rounding) = (Epsilon::default(), Rounding::default());
        Self { norm, weight_offset: 0.0, partial: None, epsilon, rounding }
    }
}

impl<P> Rms<'_, P> {
    pub(crate) fn operator(&self) -> Operator {
        let Self { weight_offset, partial, epsilon, rounding, .. } = *self;
        Operator::Rms(Options { weight_offset, partial, epsilon, rounding })
    }
}

/// Weight and bias as the kernels take them.
pub(crate) struct Numbers<'a, P: Clone> {
    weight: Option<Cow<'a, [P]>>,
    bias: Option<Cow<'a, [P]>>,
    eps: f64,
}

impl<'a, P: Copy> Numbers<'a, P> {
    /// Those of `norm`, which must fit an `x` of this layout.
    pub(crate) fn of(norm: &'a Norm<'_, P>, x: Layout<'_>) -> Result<Self, Error> {
        let numbers = |what, view: &'a Option<ArrayViewD<'_, P>>| -> Result<_, Error> {
            let Some(view) = view else { return Ok(None) };
            expect(what, view.shape(), x)?;
            Ok(Some(match view.as_slice() {
                Some(numbers) => Cow::Borrowed(numbers),
                None => Cow::Owned(view.iter().copied().collect()),
            }))
        };
        let weight = numbers("weight", &norm.weight)?;
        Ok(Self { weight, bias: numbers("bias", &norm.bias)?, eps: norm.eps })
    }

    pub(crate) fn params(&self) -> Params<'_, P> {
        Params { weight: self.weight.as_deref(), bias: self.bias.as_deref(), eps: self.eps }
    }
}

/// A parameter (or its gradient) of this shape fits the rows of `x`.
pub(crate) fn expect(what: &'static str, got: &[usize], x: Layout<'_>) -> Result<(), Error> {
    let numbers = got.iter().try_fold(1usize, |numbers, len| numbers.checked_mul(*len));
    let in_one_axis = got.len() <= 1 && numbers == Some(x.features());
    if numbers == Some(1) || in_one_axis || x.feature_shape().eq(got.iter().copied()) {
        return Ok(());
    }
    Err(Error::Parameter { what, got: got.to_vec(), expected: x.feature_shape().collect() })
}
