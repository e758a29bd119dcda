//! Parameters of a norm, and their gradients.

use crate::affine::{Affine, Runs};
use crate::{Companion, Element, Error, Real, RowsMut, Workspace};

/// gamma, beta and epsilon of a norm: y = x_hat * weight + bias.
///
/// A weight or a bias is absent (`None`), shared by all features (one number), or per unit (one a feature). It has the
/// elements' type or, beside halves, f32.
///
/// ```
/// let plain = layernorm::Params::<f32>::default();
/// assert!(plain.weight.is_none() && plain.bias.is_none() && plain.eps == 1e-5);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Params<'a, T> {
    /// gamma. Absent means 1.
    pub weight: Option<&'a [T]>,
    /// beta. Absent means 0. A backward pass does not read it.
    pub bias: Option<&'a [T]>,
    /// Added to the variance (to the mean square, in RMS norm) under the root. It is rounded once to the
    /// accumulation type, where it must be finite and not negative. Default 1e-5.
    pub eps: f64,
}

impl<T> Default for Params<'_, T> {
    fn default() -> Self {
        Self { weight: None, bias: None, eps: 1e-5 }
    }
}

impl<'a, P> Params<'a, P> {
    /// Weight and bias for rows of `features` elements, checked.
    #[inline(always)]
    pub(crate) fn affine<E: Element>(&self, features: usize) -> Result<[Affine<'a, E>; 2], Error>
    where
        P: Companion<E>,
    {
        self.affine_with(features, None)
    }

    /// As [`Params::affine`], with `offset` added to the weight.
    #[inline(always)]
    pub(crate) fn affine_with<E: Element>(
        &self,
        features: usize,
        offset: Option<f64>,
    ) -> Result<[Affine<'a, E>; 2], Error>
    where
        P: Companion<E>,
    {
        Affine::<E>::expect("weight", self.weight.map(<[P]>::len), features)?;
        Affine::<E>::expect("bias", self.bias.map(<[P]>::len), features)?;
        let weight = Affine::with(self.weight.map(P::values), 1.0, offset, Runs::NONE);
        Ok([weight, Affine::new(self.bias.map(P::values), -0.0)])
    }
}

/// Where a norm rounds on its way from x to y, beside the rounding of y. It matters to halves alone.
///
/// The formulas of known models differ here, and their weights were trained so.
///
/// ```
/// assert_eq!(layernorm::Rounding::default(), layernorm::Rounding::Once);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Nowhere: y is rounded once.
    #[default]
    Once,
    /// x_hat is rounded to the elements' type before it is multiplied by the weight, as LLaMA does.
    Llama,
    /// x_hat is rounded to the weight's type (f32: not at all) before it is multiplied, as T5 does.
    T5,
    /// As [`Rounding::Once`], in f32 to the end; Gemma's weights besides are stored as what they differ from 1 by.
    Gemma,
}

impl Rounding {
    /// Is x_hat rounded to an `E`, beside a weight that is wide or not?
    pub(crate) fn rounds<E: Element>(self, wide_weight: bool) -> bool {
        E::NARROW && (self == Self::Llama || self == Self::T5 && !wide_weight)
    }
}

/// Which gradients a backward pass is to write.
#[derive(Debug)]
pub struct Gradients<'a, E: Element> {
    /// Gradient of the input.
    pub dx: Option<RowsMut<'a, E>>,
    /// Gradients of the parameters, in the type that sums have.
    pub params: Option<ParamGradients<'a, E::Acc>>,
}

/// The gradients of weight and bias, which are sums over rows.
///
/// The sum has one published order: rows in chunks of eight that are aligned to the *global* index of a
/// row, in order inside a chunk, chunks by the tree of adjacent pairs. So when a batch is split over
/// workers at aligned boundaries, `first_row` is what makes their totals nodes of the same tree. (Totals of
/// one number a feature, that is: for a shared parameter the features are summed after the rows, so merge the
/// gradients per unit and sum last.)
#[derive(Debug)]
pub struct ParamGradients<'a, T> {
    /// dgamma: one number (shared weight) or one a feature.
    pub dweight: Option<&'a mut [T]>,
    /// dbeta: one number (shared bias) or one a feature.
    pub dbias: Option<&'a mut [T]>,
    /// Add the finished total to what the gradients hold, instead of replacing it.
    pub accumulate: bool,
    /// Index of the first row of this call in the whole batch. 0 where there is but one call.
    pub first_row: usize,
    /// Memory for partial sums. It grows (allocates) when it is too small and is kept for the next call.
    pub workspace: &'a mut Workspace<T>,
}

impl<T: Real> ParamGradients<'_, T> {
    /// Is any?
    pub(crate) fn wanted(&self) -> bool {
        self.dweight.is_some() || self.dbias.is_some()
    }

    pub(crate) fn check(&self, features: usize) -> Result<(), Error> {
        Affine::<T>::expect("dweight", self.dweight.as_deref().map(<[T]>::len), features)?;
        Affine::<T>::expect("dbias", self.dbias.as_deref().map(<[T]>::len), features)
    }
}

/// Gradients of a norm's parameters with memory of their own, and the workspace that they are summed in.
///
/// ```
/// use layernorm::{LayerNorm, ParamGrads};
///
/// let grads = LayerNorm::<f32>::new(4).without_bias().zero_grads();
/// assert_eq!((grads.dweight.as_deref(), grads.dbias), (Some(&[0.0; 4][..]), None));
/// ```
#[derive(Debug, Clone)]
pub struct ParamGrads<T> {
    /// dgamma, where there is a weight.
    pub dweight: Option<Vec<T>>,
    /// dbeta, where there is a bias.
    pub dbias: Option<Vec<T>>,
    /// Add to the gradients instead of replacing them. False at first.
    pub accumulate: bool,
    workspace: Workspace<T>,
}

impl<T: Real> ParamGrads<T> {
    pub(crate) fn zeros(weight: Option<usize>, bias: Option<usize>) -> Self {
        let zeros = |len| vec![T::from_f64(0.0); len];
        Self {
            dweight: weight.map(zeros),
            dbias: bias.map(zeros),
            accumulate: false,
            workspace: Workspace::new(),
        }
    }

    /// To write, for rows that begin the batch.
    pub fn as_mut(&mut self) -> ParamGradients<'_, T> {
        ParamGradients {
            dweight: self.dweight.as_deref_mut(),
            dbias: self.dbias.as_deref_mut(),
            accumulate: self.accumulate,
            first_row: 0,
            workspace: &mut self.workspace,
        }
    }
}
