//! What a framework gives back, output by output.

use crate::Number;
use std::fmt;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// The normalised values; of weight norm, the weights.
    Y,
    /// The gradient of `x`; of weight norm, that of the directions.
    Dx,
    /// The gradient of the weight: of scale norm that of the scale, of an adaptive norm that of the scales, of weight norm
    /// that of the gains.
    Dweight,
    /// The gradient of the bias: of an adaptive norm that of the shifts.
    Dbias,
    /// The residual stream after an addition.
    Stream,
    /// Of rows, groups, channels or units: m, c and rstd of all, one after the other (see [`layernorm::StatsRef`]); of a
    /// norm without a mean 1 / sqrt(mean(x^2) + eps), or 1 / |x|.
    Statistics,
    /// The running means after the call, then the running variances.
    Running,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Y => "y",
            Self::Dx => "dx",
            Self::Dweight => "dweight",
            Self::Dbias => "dbias",
            Self::Stream => "stream",
            Self::Statistics => "statistics",
            Self::Running => "running statistics",
        })
    }
}

/// Numbers of an output: of the elements' type, or of the one that sums have.
#[derive(Debug, Clone)]
pub enum Values<E: Number> {
    /// Of the elements' type.
    Own(Vec<E>),
    /// Of the type that sums have: f64 beside f64, else f32.
    Wide(Vec<E::Acc>),
}

/// What is known of an output.
#[derive(Debug, Clone)]
pub(crate) enum Output<E: Number> {
    Given { values: Values<E>, added_to_zeros: bool },
    Lacking(&'static str),
}

/// The outputs of a case.
///
/// An output that the kernels give and that is not here is a difference: a framework that cannot give it says so by
/// [`Outputs::lacking`].
#[derive(Debug, Clone)]
pub struct Outputs<E: Number>(pub(crate) Vec<(Name, Output<E>)>);

impl<E: Number> Default for Outputs<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Number> Outputs<E> {
    /// None yet.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// With this one, of the elements' type. A sum that a framework rounds to that type is compared with the kernels'
    /// sum, rounded once.
    #[must_use]
    pub fn own(self, name: Name, values: Vec<E>) -> Self {
        self.with(name, Output::Given { values: Values::Own(values), added_to_zeros: false })
    }

    /// With this one, of the type that sums have.
    #[must_use]
    pub fn wide(self, name: Name, values: Vec<E::Acc>) -> Self {
        self.with(name, Output::Given { values: Values::Wide(values), added_to_zeros: false })
    }

    /// With this one, which the framework has added to zeros, as some collect gradients: the sum of 0 and -0 is 0.
    #[must_use]
    pub fn added_to_zeros(self, name: Name, values: Values<E>) -> Self {
        self.with(name, Output::Given { values, added_to_zeros: true })
    }

    /// Without this one, and why.
    #[must_use]
    pub fn lacking(self, name: Name, reason: &'static str) -> Self {
        self.with(name, Output::Lacking(reason))
    }

    fn with(mut self, name: Name, output: Output<E>) -> Self {
        self.0.push((name, output));
        self
    }
}
