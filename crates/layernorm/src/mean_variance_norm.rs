//! Mean-variance norm, ONNX's `MeanVarianceNormalization` (version 13), along any axes:
//!
//! ```text
//! y  = (x - mean) / (sqrt(var) + eps)
//! dx = r (dy - mean(dy)) - y mean(dy y) / sqrt(var)        r = 1 / (sqrt(var) + eps)
//! ```
//!
//! Its epsilon is outside the root, unlike layer norm's, and it has no parameters.

use crate::by_row::Statistics;
use crate::form::Divisor;
use crate::sets::{Along, OverSets, Sets};
use crate::{Element, Error, Run, Workspace};

/// What a mean-variance norm is taken of.
///
/// ```
/// let of = layernorm::MeanVariance { shape: &[2, 3, 4, 4], axes: &[0, 2, 3], ..Default::default() };
/// assert_eq!(of.eps, 1e-9); // ONNX's, always
/// ```
#[derive(Debug, Clone, Copy)]
pub struct MeanVariance<'a> {
    /// Of the tensor, row-major.
    pub shape: &'a [usize],
    /// The axes that are normalised together, in any order. Statistics are over these.
    pub axes: &'a [usize],
    /// Added to the deviation. Default 1e-9, as in ONNX.
    pub eps: f64,
}

impl Default for MeanVariance<'_> {
    fn default() -> Self {
        Self { shape: &[], axes: &[], eps: 1e-9 }
    }
}

impl MeanVariance<'_> {
    fn over_sets(&self) -> Result<OverSets<'_>, Error> {
        let sets = Sets::new(self.shape, Along::These(self.axes))?;
        let (statistics, divisor) = (Statistics::Centred, Divisor::Outside);
        Ok(OverSets { sets, statistics, divisor, means: true, eps: self.eps })
    }
}

/// Mean-variance norm of `x`, into `y`: y = (x - mean) / (sqrt(var) + eps) along some axes.
///
/// `x` and `y` are contiguous tensors of the shape. Where the axes are the last ones nothing is copied; else sets are
/// gathered into `workspace`, which allocates where it is too small. A constant set gives zeros.
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::Overflow`], [`Error::Length`], [`Error::Epsilon`],
/// [`Error::Level`].
///
/// ```
/// use layernorm::{MeanVariance, Run, Workspace, mean_variance_norm};
///
/// let x = [1.0f32, 7.0, 5.0, 7.0]; // columns: (1, 5) and (7, 7)
/// let of = MeanVariance { shape: &[2, 2], axes: &[0], eps: 0.0 };
/// let mut y = [9.0; 4];
/// mean_variance_norm(&x, of, &mut y, &mut Workspace::new(), Run::default())?;
/// assert_eq!(y, [-1.0, 0.0, 1.0, 0.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn mean_variance_norm<E: Element>(
    x: &[E],
    of: MeanVariance<'_>,
    y: &mut [E],
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    of.over_sets()?.forward(x, y, workspace, run)
}

/// The gradient of [`mean_variance_norm`], given that of its output.
///
/// A constant set is a corner of the deviation, where the middle of its slopes is taken, 0.
///
/// # Errors
/// As [`mean_variance_norm`].
///
/// ```
/// use layernorm::{MeanVariance, Run, Workspace, mean_variance_norm_backward};
///
/// let of = MeanVariance { shape: &[2], axes: &[0], eps: 2.0 };
/// let mut dx = [0.0f64; 2];
/// mean_variance_norm_backward(&[1.0, 5.0], &[1.0, 0.0], of, &mut dx, &mut Workspace::new(), Run::default())?;
/// assert_eq!(dx, [0.0625, -0.0625]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn mean_variance_norm_backward<E: Element>(
    x: &[E],
    dy: &[E],
    of: MeanVariance<'_>,
    dx: &mut [E],
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    of.over_sets()?.backward([x, dy], dx, workspace, run)
}
