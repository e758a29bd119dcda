//! Parameters of a norm, and their gradients.

use crate::{Error, Real, RowsMut, Workspace};

/// gamma, beta and epsilon of a norm: y = x_hat * weight + bias.
///
/// A weight or a bias is absent (`None`), shared by all features (one number), or per unit (one a feature).
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

impl<T: Real> Params<'_, T> {
    /// Check against rows of `features`; gives epsilon in the accumulation type.
    pub(crate) fn check(&self, features: usize) -> Result<T, Error> {
        expect_affine("weight", self.weight, features)?;
        expect_affine("bias", self.bias, features)?;
        let eps = T::from_f64(self.eps);
        if eps.is_finite() && self.eps >= 0.0 {
            Ok(eps)
        } else {
            Err(Error::Epsilon { eps: self.eps, max: T::LARGEST })
        }
    }
}

fn expect_affine<T>(what: &'static str, given: Option<&[T]>, features: usize) -> Result<(), Error> {
    match given {
        Some(values) if values.len() != 1 && values.len() != features => {
            Err(Error::Length { what, expected: features, got: values.len() })
        }
        _ => Ok(()),
    }
}

/// Which gradients a backward pass is to write.
#[derive(Debug)]
pub struct Gradients<'a, T> {
    /// Gradient of the input.
    pub dx: Option<RowsMut<'a, T>>,
    /// Gradients of the parameters.
    pub params: Option<ParamGradients<'a, T>>,
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

impl<T> ParamGradients<'_, T> {
    pub(crate) fn check(&self, features: usize) -> Result<(), Error> {
        expect_affine("dweight", self.dweight.as_deref(), features)?;
        expect_affine("dbias", self.dbias.as_deref(), features)
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
