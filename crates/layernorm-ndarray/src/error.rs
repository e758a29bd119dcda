//! What can be wrong with a call. Everything is checked before anything is written.

use ndarray::Axis;

/// A call that was refused; no array was written to.
///
/// Each variant carries the shapes or numbers that disagree.
///
/// ```
/// use layernorm_ndarray::{Error, Norm, layer_norm_in_place};
/// use ndarray::{Array2, Axis};
///
/// let mut x = Array2::<f32>::zeros((3, 4));
/// let error = layer_norm_in_place(x.view_mut(), Norm::<f32>::over(Axis(2)), None, Default::default());
/// assert_eq!(error.unwrap_err(), Error::Axis { axis: Axis(2), x: vec![3, 4] });
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two arrays that must have the same shape do not.
    #[error("{what} has shape {got:?} and x has shape {x:?}: the two must be the same")]
    Shape {
        /// Which argument.
        what: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// The shape of `x`.
        x: Vec<usize>,
    },
    /// An axis that `x` does not have.
    #[error("x has shape {x:?}, which has no axis {}", axis.index())]
    Axis {
        /// The axis that was named.
        axis: Axis,
        /// The shape of `x`.
        x: Vec<usize>,
    },
    /// The same axis twice.
    #[error("axis {} is named twice", axis.index())]
    SameAxis {
        /// The axis.
        axis: Axis,
    },
    /// No axis at all: each number would be normalised by itself.
    #[error("x has shape {x:?}, and no axis of it is to be normalised over")]
    NoAxis {
        /// The shape of `x`.
        x: Vec<usize>,
    },
    /// A norm by channel without an axis of channels, or with several, or on the first axis, which is that of samples.
    #[error(
        "x has shape {x:?}: a norm by channel needs one axis of channels, after that of samples, which is the first"
    )]
    ChannelAxis {
        /// The shape of `x`.
        x: Vec<usize>,
    },
    /// An adaptive norm over the first axis, which is that of samples.
    #[error("x has shape {x:?}, and the first axis, that of samples, is to be normalised over")]
    SampleAxis {
        /// The shape of `x`.
        x: Vec<usize>,
    },
    /// A parameter, or its gradient, fits neither the axes that are normalised nor is one number.
    #[error(
        "{what} has shape {got:?} and x, in the axes that are normalised, {expected:?}: \
         {what} needs that shape, or as many numbers in one axis, or one number"
    )]
    Parameter {
        /// Which argument.
        what: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// The lengths of the axes that are normalised, in the order of the axes.
        expected: Vec<usize>,
    },
    /// What the kernels refuse: statistics of another length, an epsilon, a level.
    #[error(transparent)]
    Kernel(#[from] layernorm::Error),
}
