//! Parameters of RMS norm: what models differ in.

use crate::form::{Divisor, Form};
use crate::{Companion, Element, Error, Params, Real, Rounding, affine::Affine};

/// Where epsilon stands.
///
/// ```
/// assert_eq!(layernorm::Epsilon::default(), layernorm::Epsilon::Inside);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Epsilon {
    /// Under the root, as in every framework: sqrt(mean(x^2) + eps).
    #[default]
    Inside,
    /// Beside it, as in the code of the paper's authors: sqrt(mean(x^2)) + eps.
    Outside,
}

/// gamma, beta and epsilon of an RMS norm, and what models do differently: y = x_hat (weight_offset + weight) + bias.
///
/// [`Params`] turn into these by themselves, so the functions take either.
///
/// ```
/// use layernorm::RmsParams;
///
/// // Gemma stores weights as what they differ from 1 by.
/// let params = RmsParams { weight: Some(&[0.0f32, 0.5]), weight_offset: 1.0, eps: 1e-6, ..RmsParams::default() };
/// assert_eq!(params.partial, None);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RmsParams<'a, T> {
    /// gamma. Absent means 1, whatever the offset.
    pub weight: Option<&'a [T]>,
    /// beta. Absent means 0. A backward pass does not read it.
    pub bias: Option<&'a [T]>,
    /// Rounded once to the accumulation type, where it must be finite and not negative. Default 1e-5.
    pub eps: f64,
    /// Added to each weight in the accumulation type. Default 0; 1 for weights that are stored as what they differ
    /// from 1 by.
    pub weight_offset: f64,
    /// Take the mean square of the first so many features alone (pRMSNorm, section 3.1 of the paper). Default: of all.
    pub partial: Option<usize>,
    /// Where epsilon stands. Outside, a backward pass takes the statistics from x once more, saved or not.
    pub epsilon: Epsilon,
    /// Where halves are rounded. The backward pass is that of [`Rounding::Once`]: a rounding has no gradient.
    pub rounding: Rounding,
}

impl<T> Default for RmsParams<'_, T> {
    fn default() -> Self {
        Params::default().into()
    }
}

impl<'a, T> From<Params<'a, T>> for RmsParams<'a, T> {
    fn from(Params { weight, bias, eps }: Params<'a, T>) -> Self {
        Self {
            weight,
            bias,
            eps,
            weight_offset: 0.0,
            partial: None,
            epsilon: Epsilon::Inside,
            rounding: Rounding::Once,
        }
    }
}

impl<'a, P> RmsParams<'a, P> {
    /// How rows of `features` numbers are measured.
    pub(crate) fn form<T: Real>(&self, features: usize) -> Result<Form<T>, Error> {
        let used = match self.partial {
            None => features,
            Some(partial) if (1..=features).contains(&partial) => partial,
            Some(partial) => return Err(Error::Partial { partial, features }),
        };
        let divisor = match self.epsilon {
            Epsilon::Inside => Divisor::Inside,
            Epsilon::Outside => Divisor::Outside,
        };
        Ok(Form { divisor, used, count: used, ..Form::new(self.eps, features)? })
    }

    /// Weight and bias for rows of `features` numbers, checked.
    pub(crate) fn affine<E: Element>(&self, features: usize) -> Result<[Affine<'a, E>; 2], Error>
    where
        P: Companion<E>,
    {
        let (value, max) = (self.weight_offset, E::Acc::LARGEST);
        if !(-max..=max).contains(&value) {
            return Err(Error::NotFinite { what: "weight_offset", value, max });
        }
        // To add +0 would turn a weight of -0 into +0.
        let offset = (value != 0.0).then_some(value);
        self.plain().affine_with(features, offset)
    }

    /// Where halves are rounded: T5's way depends on the weight's type, be it one number or none.
    pub(crate) fn rounding<E: Element>(&self) -> Rounding
    where
        P: Companion<E>,
    {
        match self.rounding {
            Rounding::T5 if P::WIDE => Rounding::Once,
            Rounding::T5 => Rounding::Llama,
            other => other,
        }
    }

    /// What other norms have too.
    pub(crate) fn plain(&self) -> Params<'a, P> {
        Params { weight: self.weight, bias: self.bias, eps: self.eps }
    }
}
