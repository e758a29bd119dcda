//! Which gradients a backward pass is to write, as views.

use crate::Error;
use crate::layout::Layout;
use crate::norm::expect;
use layernorm::{Element, Real, Workspace};
use ndarray::{Array, ArrayD, ArrayViewMut, ArrayViewMutD, Dimension};

/// Which gradients a backward pass is to write.
///
/// ```
/// use layernorm_ndarray::Gradients;
/// use ndarray::Array2;
///
/// let mut dx = Array2::<f32>::zeros((2, 3));
/// let gradients = Gradients { dx: Some(dx.view_mut()), params: None };
/// assert!(gradients.params.is_none());
/// ```
#[derive(Debug)]
pub struct Gradients<'a, E: Element, D: Dimension> {
    /// Gradient of the input, of its shape.
    pub dx: Option<ArrayViewMut<'a, E, D>>,
    /// Gradients of the parameters, in the type that sums have: f64 beside f64, else f32.
    pub params: Option<ParamGradients<'a, E::Acc>>,
}

/// The gradients of weight and bias, which are sums over rows, in the logical order of the rows.
///
/// Each has one of the shapes that a weight may have (see [`Norm`](crate::Norm)), whatever shape the weight has. A view
/// whose numbers do not lie side by side is written by way of a copy, which allocates.
///
/// ```
/// use layernorm::Workspace;
/// use layernorm_ndarray::ParamGradients;
/// use ndarray::Array1;
///
/// let (mut dweight, mut workspace) = (Array1::<f32>::zeros(4), Workspace::new());
/// let gradients = ParamGradients { dweight: Some(dweight.view_mut().into_dyn()), ..ParamGradients::new(&mut workspace) };
/// assert!(gradients.dbias.is_none() && gradients.first_row == 0);
/// ```
#[derive(Debug)]
pub struct ParamGradients<'a, A> {
    /// dgamma.
    pub dweight: Option<ArrayViewMutD<'a, A>>,
    /// dbeta.
    pub dbias: Option<ArrayViewMutD<'a, A>>,
    /// Add the finished total to what the gradients hold, instead of replacing it.
    pub accumulate: bool,
    /// Index of the first row of this call in the whole batch; see [`layernorm::ParamGradients`].
    pub first_row: usize,
    /// Memory for partial sums. It grows (allocates) when it is too small and is kept for the next call.
    pub workspace: &'a mut Workspace<A>,
}

impl<'a, A: Real> ParamGradients<'a, A> {
    /// None of them yet, for rows that begin the batch.
    ///
    /// ```
    /// use layernorm::Workspace;
    ///
    /// let mut workspace = Workspace::<f32>::new();
    /// assert!(!layernorm_ndarray::ParamGradients::new(&mut workspace).accumulate);
    /// ```
    pub fn new(workspace: &'a mut Workspace<A>) -> Self {
        Self { dweight: None, dbias: None, accumulate: false, first_row: 0, workspace }
    }

    pub(crate) fn check(&self, x: Layout<'_>) -> Result<(), Error> {
        for (what, gradient) in [("dweight", &self.dweight), ("dbias", &self.dbias)] {
            if let Some(gradient) = gradient {
                expect(what, gradient.shape(), x)?;
            }
        }
        Ok(())
    }

    /// Have `work` write them as the kernels do, to slices.
    pub(crate) fn with_slices<R>(self, work: impl FnOnce(layernorm::ParamGradients<'_, A>) -> R) -> R {
        let Self { mut dweight, mut dbias, accumulate, first_row, workspace } = self;
        let mut copies = [&dweight, &dbias].map(|gradient| {
            let scattered = gradient.as_ref().filter(|gradient| !gradient.is_standard_layout())?;
            Some(scattered.iter().copied().collect::<Vec<_>>())
        });
        let [weights, biases] = &mut copies;
        let result = work(layernorm::ParamGradients {
            dweight: slice(&mut dweight, weights),
            dbias: slice(&mut dbias, biases),
            accumulate,
            first_row,
            workspace,
        });
        for (gradient, copy) in [dweight, dbias].into_iter().zip(copies) {
            if let (Some(mut gradient), Some(copy)) = (gradient, copy) {
                gradient.iter_mut().zip(copy).for_each(|(to, from)| *to = from);
            }
        }
        result
    }
}

/// As [`ParamGradients::with_slices`]; without any, for kernels that need the workspace all the same.
pub(crate) fn with_slices<A: Real, R>(
    params: Option<ParamGradients<'_, A>>,
    work: impl FnOnce(layernorm::ParamGradients<'_, A>) -> R,
) -> R {
    match params {
        Some(params) => params.with_slices(work),
        None => ParamGradients::new(&mut Workspace::new()).with_slices(work),
    }
}

/// The copy, if there is one, or the view's own memory.
fn slice<'b, A>(
    view: &'b mut Option<ArrayViewMutD<'_, A>>,
    copy: &'b mut Option<Vec<A>>,
) -> Option<&'b mut [A]> {
    copy.as_deref_mut().or_else(|| view.as_mut()?.as_slice_mut())
}

/// Gradients in arrays of their own: what a backward pass that allocates gives.
///
/// ```
/// use layernorm_ndarray::{Norm, layer_norm_backward_arrays};
/// use ndarray::{Axis, array};
///
/// let (x, dy, weight) = (array![[1.0, 2.0, 4.0]], array![[0.0, 1.0, 0.0]], array![1.0f64, 1.0, 1.0]);
/// let norm = Norm::over(Axis(1)).with_weight(&weight);
/// let gradients = layer_norm_backward_arrays(x.view(), dy.view(), norm, Default::default())?;
/// assert_eq!(gradients.dweight.map(|dweight| dweight.len()), Some(3));
/// assert!(gradients.dbias.is_none() && gradients.dx.sum().abs() < 1e-15);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ArrayGradients<E: Element, D: Dimension> {
    /// Gradient of the input.
    pub dx: Array<E, D>,
    /// dgamma, of the weight's shape, if there is a weight.
    pub dweight: Option<ArrayD<E::Acc>>,
    /// dbeta, of the bias's shape, if there is a bias.
    pub dbias: Option<ArrayD<E::Acc>>,
}
