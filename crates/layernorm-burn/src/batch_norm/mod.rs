//! Batch normalization (Ioffe, Szegedy 2015, arXiv:1502.03167), each channel over the batch and its positions:
//!
//! ```text
//! training   mu, var = of the batch          y = gamma (x - mu) / sqrt(var + epsilon) + beta
//!            running = (1 - m) running + m batch
//! eval       mu, var = the running ones      y = gamma (x - mu) / sqrt(var + epsilon) + beta
//! frozen     as eval, and gamma and beta are constants
//! ```
//!
//! `kernel.rs` runs it, `running.rs` keeps the running statistics and knows when to use them, `module.rs` is that of Burn.

mod kernel;
mod module;
mod running;

pub(crate) use kernel::Batch;
pub use module::{BatchNorm, BatchNormConfig};
pub use running::{BatchMode, Running, RunningStatistics};

use crate::Error;
use crate::apply::{Beside, apply, apply_beside, or_panic};
use crate::channels::expect_channels;
use crate::operator::{Kind, Operator};
use burn::tensor::Tensor;

/// Batch norm of `x` by its own statistics, as in training: y = gamma (x - mean) / sqrt(var + epsilon) + beta, with
/// mean and biased variance of each channel over all the rest.
///
/// - `x`: `[batch, channels, ...]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[channels]`, of `[1]` (one for all channels), or `None` (1 and 0);
/// - the result has the shape and the type of `x`.
///
/// This function keeps no running statistics: [`BatchNorm`] does, and [`NormConfig::batch`](crate::NormConfig::batch). A
/// channel that doesn't vary gives exactly beta, and no gradient, at any epsilon from 0.
///
/// # Panics
/// Where [`try_batch_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::batch_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[1.0, 5.0], [3.0, 5.0]], &device);
/// assert_eq!(batch_norm(x, None, None, 0.0).into_data(), [[-1.0f32, 0.0], [1.0, 0.0]].into());
/// ```
#[track_caller]
pub fn batch_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_batch_norm(x, gamma, beta, epsilon))
}

/// [`batch_norm`], with an error where that panics.
///
/// # Errors
/// [`Error::OneNumber`] if a channel has fewer than two numbers, [`Error::Rank`] if `x` has no axis of channels,
/// [`Error::Empty`] if a sample has no numbers, [`Error::Channels`] if a parameter doesn't fit, [`Error::Quantized`], and
/// [`Error::Kernel`] for an epsilon that is negative or not finite.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, try_batch_norm};
///
/// let error = try_batch_norm(Tensor::<2>::zeros([1, 4], &Device::flex()), None, None, 1e-5).unwrap_err();
/// assert_eq!(error, Error::OneNumber { count: 1, x: vec![1, 4] });
/// ```
pub fn try_batch_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    let params = [gamma.into(), beta.into()];
    expect_batch(&x, &params)?;
    apply(Operator::new(Kind::Batch(Batch::Train(Running::new())), epsilon), x, params)
}

/// Batch norm of `x` by given statistics, as in evaluation: y = gamma (x - mean) / sqrt(var + epsilon) + beta.
///
/// - `x`: `[batch, channels, ...]`, of any float type, and of any number of samples;
/// - `mean`, `var`: a tensor of `[channels]` each, which are constants: no gradient reaches them. A variance below 0 gives
///   NaN, as its root does;
/// - `gamma`, `beta`: as in [`batch_norm`]. With constants for these, it is a frozen norm.
///
/// # Panics
/// Where [`try_batch_norm_eval`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::batch_norm_eval;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[5.0, 7.0]], &device);
/// let (mean, var) = (Tensor::from_data([1.0, 0.0], &device), Tensor::from_data([4.0, 1.0], &device));
/// assert_eq!(batch_norm_eval(x, mean, var, None, None, 0.0).into_data(), [[2.0f32, 7.0]].into());
/// ```
#[track_caller]
pub fn batch_norm_eval<const D: usize>(
    x: Tensor<D>,
    mean: Tensor<1>,
    var: Tensor<1>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_batch_norm_eval(x, mean, var, gamma, beta, epsilon))
}

/// [`batch_norm_eval`], with an error where that panics.
///
/// # Errors
/// As [`try_batch_norm`], but a channel may have any number of numbers; [`Error::Channels`] if a statistic doesn't fit,
/// too.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, try_batch_norm_eval};
///
/// let zeros = |len: usize| Tensor::<1>::zeros([len], &Device::flex());
/// let x = Tensor::<2>::zeros([1, 4], &Device::flex());
/// let error = try_batch_norm_eval(x, zeros(3), zeros(4), None, None, 1e-5).unwrap_err();
/// assert_eq!(error, Error::Channels { name: "mean", len: 3, channels: 4, x: vec![1, 4] });
/// ```
pub fn try_batch_norm_eval<const D: usize>(
    x: Tensor<D>,
    mean: Tensor<1>,
    var: Tensor<1>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    let (params, given) = ([gamma.into(), beta.into()], [mean, var]);
    expect_channels("batch", &x, &params)?;
    expect_statistics(&x, &given)?;
    let norm = Operator::new(Kind::Batch(Batch::Eval), epsilon);
    Ok(apply_beside(norm, x, params, Beside::Running(given))?.0)
}

/// `x` is a batch that can train.
fn expect_batch<const D: usize>(x: &Tensor<D>, params: &[Option<Tensor<1>>; 2]) -> Result<(), Error> {
    expect_channels("batch", x, params)?;
    let shape = x.dims();
    match shape.iter().product::<usize>() / shape[1] {
        count @ (0 | 1) => Err(Error::OneNumber { count, x: shape.to_vec() }),
        _ => Ok(()),
    }
}

/// There is a mean and a variance for each channel of `x`.
fn expect_statistics<const D: usize>(x: &Tensor<D>, given: &[Tensor<1>; 2]) -> Result<(), Error> {
    let channels = x.dims()[1];
    let mut lengths = ["mean", "var"].into_iter().zip(given.each_ref().map(|of| of.dims()[0]));
    match lengths.find(|&(_, len)| len != channels) {
        Some((name, len)) => Err(Error::Channels { name, len, channels, x: x.dims().to_vec() }),
        None => Ok(()),
    }
}
