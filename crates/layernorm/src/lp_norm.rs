//! Lp norm, ONNX's `LpNormalization` (version 22), of each line along an axis:
//!
//! ```text
//! y  = x / |x|_p           |x|_1 = sum(|x|)      |x|_2 = sqrt(sum(x^2))
//!
//! dx = (dy - sign(x) sum(y dy)) / |x|_1          sign(0) = 0
//! dx = (dy - y sum(y dy)) / |x|_2
//! ```
//!
//! A line of zeros gives zeros, and has no gradient. With p 2 it is an L2 norm without epsilon, over the loop of all
//! norms. With p 1 it is computed plainly in f64, which is slower and needs no care for range.

use crate::by_row::Statistics;
use crate::element::private::Stored;
use crate::form::Divisor;
use crate::sets::{Along, OverSets, Sets, halves};
use crate::wide::{exponent, largest, scale, sum};
use crate::{Element, Error, Real, Run, Workspace};

/// Which p.
///
/// ```
/// assert_eq!(layernorm::Lp::default(), layernorm::Lp::Two); // as in ONNX
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Lp {
    /// The sum of magnitudes.
    One,
    /// The Euclidean length.
    #[default]
    Two,
}

/// What an Lp norm is taken of.
///
/// ```
/// let of = layernorm::LpNorm { shape: &[2, 3], axis: 1, p: layernorm::Lp::One };
/// assert_eq!(of.shape[of.axis], 3);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LpNorm<'a> {
    /// Of the tensor, row-major.
    pub shape: &'a [usize],
    /// The axis that lines lie along.
    pub axis: usize,
    /// Which p.
    pub p: Lp,
}

impl LpNorm<'_> {
    /// The norm with p 2.
    fn of_length<'a>(sets: Sets<'a>) -> OverSets<'a> {
        let (statistics, divisor) = (Statistics::Uncentred, Divisor::Inside);
        OverSets { sets, statistics, divisor, means: false, eps: 0.0 }
    }
}

/// Lp norm of `x`, into `y`: each line along an axis divided by its p-norm.
///
/// `x` and `y` are contiguous tensors of the shape. Where p is 2 and the axis the last one nothing is copied; else lines
/// are gathered into `workspace`, which allocates where it is too small. With p 1 the call runs on one thread.
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::Overflow`], [`Error::Length`], [`Error::Level`].
///
/// ```
/// use layernorm::{Lp, LpNorm, Run, Workspace, lp_norm};
///
/// let x = [3.0f32, 0.0, -1.0, 0.0]; // a line of axis 0 is a column
/// let of = LpNorm { shape: &[2, 2], axis: 0, p: Lp::One };
/// let mut y = [9.0; 4];
/// lp_norm(&x, of, &mut y, &mut Workspace::new(), Run::default())?;
/// assert_eq!(y, [0.75, 0.0, -0.25, 0.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn lp_norm<E: Element>(
    x: &[E],
    of: LpNorm<'_>,
    y: &mut [E],
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let axes = [of.axis];
    let sets = Sets::new(of.shape, Along::These(&axes))?;
    if of.p == Lp::Two {
        return LpNorm::of_length(sets).forward(x, y, workspace, run);
    }
    sets.expect("x", x.len())?;
    sets.expect("y", y.len())?;
    run.level()?;
    let rows = workspace.room(sets.len());
    sets.gather(x, rows);
    for row in rows.chunks_exact_mut(sets.features.max(1)) {
        let Line { exponent, norm } = Line::new(row);
        for x in row {
            *x = E::Acc::from_f64(ratio(scale(x.to_f64(), -exponent), norm));
        }
    }
    sets.scatter(rows, y);
    Ok(())
}

/// The gradient of [`lp_norm`], given that of its output.
///
/// With p 1 a single 0 is a corner of the norm, where the middle of its slopes is taken.
///
/// # Errors
/// As [`lp_norm`].
///
/// ```
/// use layernorm::{Lp, LpNorm, Run, Workspace, lp_norm_backward};
///
/// // y = (3/4, -1/4): a larger first number takes from the second one's share.
/// let of = LpNorm { shape: &[2], axis: 0, p: Lp::One };
/// let mut dx = [0.0f64; 2];
/// lp_norm_backward(&[3.0, -1.0], &[1.0, 0.0], of, &mut dx, &mut Workspace::new(), Run::default())?;
/// assert_eq!(dx, [0.0625, 0.1875]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn lp_norm_backward<E: Element>(
    x: &[E],
    dy: &[E],
    of: LpNorm<'_>,
    dx: &mut [E],
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let axes = [of.axis];
    let sets = Sets::new(of.shape, Along::These(&axes))?;
    if of.p == Lp::Two {
        return LpNorm::of_length(sets).backward([x, dy], dx, workspace, run);
    }
    sets.expect("x", x.len())?;
    sets.expect("dy", dy.len())?;
    sets.expect("dx", dx.len())?;
    run.level()?;
    let (of_x, of_dy) = halves(workspace, sets.len())?;
    sets.gather(x, of_x);
    sets.gather(dy, of_dy);
    let n = sets.features.max(1);
    for (x, dy) in of_x.chunks_exact(n).zip(of_dy.chunks_exact_mut(n)) {
        differentiate(x, dy);
    }
    sets.scatter(of_dy, dx);
    Ok(())
}

/// The sum of magnitudes of a line, times 2^-exponent.
struct Line {
    exponent: i32,
    norm: f64,
}

impl Line {
    fn new<T: Real>(x: &[T]) -> Self {
        let exponent = exponent(largest(x.len(), &|i| x[i].to_f64()));
        let norm = sum::<T>(x.len(), &|i| [scale(x[i].to_f64(), -exponent).abs(), 1.0]);
        Self { exponent, norm }
    }
}

/// dx of a line with p 1, over dy.
fn differentiate<T: Real>(x: &[T], dy: &mut [T]) {
    let Line { exponent: of_x, norm } = Line::new(x);
    let of_dy = exponent(largest(dy.len(), &|i| dy[i].to_f64()));
    let (x, n) = (|i: usize| scale(x[i].to_f64(), -of_x), x.len());
    let along = sum::<T>(n, &|i| [scale(dy[i].to_f64(), -of_dy), ratio(x(i), norm)]);
    for (i, dy) in dy.iter_mut().enumerate() {
        // 1 towards where x grows in magnitude, -1 in the other direction, and 0 at 0.
        let sign = if x(i) == 0.0 { 0.0 } else { x(i).signum() };
        let across = (-sign).mul_add(along, scale(dy.to_f64(), -of_dy));
        *dy = T::from_f64(scale(ratio(across, norm), of_dy - of_x));
    }
}

/// 0 where there is nothing to divide by.
fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 * a } else { a / b }
}
