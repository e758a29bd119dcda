//! A residual addition and the norm of the sum, in one pass: what stands between the blocks of a transformer:
//!
//! ```text
//! sum = x + residual        y = norm(sum)
//! ```

use crate::Error;
use crate::apply::{Beside, apply_beside, expect_parameters, or_panic};
use crate::layer_norm::Layer;
use crate::operator::{Kind, Operator};
use crate::rms_norm::Rms;
use burn::tensor::Tensor;

/// The sum `x + residual` and its layer norm, as `(y, sum)`: y to go on with, the sum as the next residual.
///
/// - `x`, `residual`: `[..., features]`, of the same shape and type;
/// - `gamma`, `beta`: as in [`layer_norm`](crate::layer_norm());
/// - both results have the shape and the type of `x`. What is normalised is the sum as stored, so y has the bits of
///   `layer_norm(x + residual, ...)`. Gradients of both results reach `x` and `residual`.
///
/// # Panics
/// Where [`try_add_layer_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::add_layer_norm;
///
/// let x = Tensor::<2>::from_data([[1.0, 2.0]], &Device::flex());
/// let (y, sum) = add_layer_norm(x.clone(), x, None, None, 0.0);
/// assert_eq!(sum.into_data(), [[2.0f32, 4.0]].into());
/// assert_eq!(y.into_data(), [[-1.0f32, 1.0]].into());
/// ```
#[track_caller]
pub fn add_layer_norm<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> (Tensor<D>, Tensor<D>) {
    or_panic(try_add_layer_norm(x, residual, gamma, beta, epsilon))
}

/// [`add_layer_norm`], with an error where that panics.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Type`] if `x` and `residual` differ; else as [`try_layer_norm`](crate::try_layer_norm).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, try_add_layer_norm};
///
/// let zeros = |rows| Tensor::<2>::zeros([rows, 4], &Device::flex());
/// let error = try_add_layer_norm(zeros(2), zeros(3), None, None, 1e-5).unwrap_err();
/// assert_eq!(error, Error::Shape { name: "residual", got: vec![3, 4], x: vec![2, 4] });
/// ```
pub fn try_add_layer_norm<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<(Tensor<D>, Tensor<D>), Error> {
    add(Operator::new(Kind::Layer(Layer), epsilon), x, residual, [gamma.into(), beta.into()])
}

/// The sum `x + residual` and its RMS norm, as `(y, sum)`. As [`add_layer_norm`].
///
/// # Panics
/// Where [`try_add_rms_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::add_rms_norm;
///
/// let x = Tensor::<2>::from_data([[1.0, 7.0]], &Device::flex());
/// let (y, sum) = add_rms_norm(x.clone(), x, None, None, 0.0);
/// assert_eq!(sum.into_data(), [[2.0f32, 14.0]].into());
/// y.into_data().assert_approx_eq::<f32>(&[[0.2, 1.4]].into(), Default::default());
/// ```
#[track_caller]
pub fn add_rms_norm<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> (Tensor<D>, Tensor<D>) {
    or_panic(try_add_rms_norm(x, residual, gamma, beta, epsilon))
}

/// [`add_rms_norm`], with an error where that panics.
///
/// # Errors
/// As [`try_add_layer_norm`].
///
/// ```
/// use burn::tensor::{DType, Device, Tensor};
/// use layernorm_burn::{Error, try_add_rms_norm};
///
/// let x = Tensor::<2>::zeros([2, 4], &Device::flex());
/// let error = try_add_rms_norm(x.clone(), x.cast(DType::F64), None, None, 1e-5).unwrap_err();
/// assert_eq!(error, Error::Type { name: "residual", got: DType::F64, x: DType::F32 });
/// ```
pub fn try_add_rms_norm<const D: usize>(
    x: Tensor<D>,
    residual: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<(Tensor<D>, Tensor<D>), Error> {
    add(Operator::new(Kind::Rms(Rms { first: None }), epsilon), x, residual, [gamma.into(), beta.into()])
}

fn add<const D: usize>(
    norm: Operator,
    x: Tensor<D>,
    residual: Tensor<D>,
    params: [Option<Tensor<1>>; 2],
) -> Result<(Tensor<D>, Tensor<D>), Error> {
    let name = "residual";
    if x.dims() != residual.dims() {
        return Err(Error::Shape { name, got: residual.dims().to_vec(), x: x.dims().to_vec() });
    }
    if x.dtype() != residual.dtype() {
        return Err(Error::Type { name, got: residual.dtype(), x: x.dtype() });
    }
    expect_parameters(&x, &params)?;
    match apply_beside(norm, x, params, Beside::Residual(residual))? {
        (y, Beside::Residual(sum)) => Ok((y, sum)),
        _ => unreachable!("a residual becomes the sum"),
    }
}
