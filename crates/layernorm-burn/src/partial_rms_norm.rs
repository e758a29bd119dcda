//! Partial RMS normalization (pRMSNorm: Zhang, Sennrich 2019, arXiv:1910.07467, section 3.1), over the last axis:
//!
//! ```text
//! y = gamma x / sqrt(sum over j < k of x_j^2 / k + epsilon) + beta        for all features, k of which are looked at
//! ```

use crate::Error;
use crate::apply::{apply, expect_parameters, or_panic};
use crate::operator::{Kind, Operator};
use crate::rms_norm::Rms;
use burn::tensor::Tensor;

/// RMS norm of `x` over its last axis, with the mean square of its first `first` features.
///
/// - `x`: `[..., features]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[features]`, of `[1]` (one for all features), or `None` (1 and 0);
/// - the result has the shape and the type of `x`. The authors take a sixteenth of the features.
///
/// As a module it is [`NormConfig::partial_rms`](crate::NormConfig::partial_rms).
///
/// # Panics
/// Where [`try_partial_rms_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::partial_rms_norm;
///
/// let x = Tensor::<2>::from_data([[2.0, 2.0, 50.0]], &Device::flex());
/// assert_eq!(partial_rms_norm(x, 2, None, None, 0.0).into_data(), [[1.0f32, 1.0, 25.0]].into());
/// ```
#[track_caller]
pub fn partial_rms_norm<const D: usize>(
    x: Tensor<D>,
    first: usize,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_partial_rms_norm(x, first, gamma, beta, epsilon))
}

/// [`partial_rms_norm`], with an error where that panics.
///
/// # Errors
/// [`Error::First`] if `first` is not within 1 to the number of features; else as
/// [`try_rms_norm`](crate::try_rms_norm).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, try_partial_rms_norm};
///
/// let error = try_partial_rms_norm(Tensor::<2>::zeros([1, 3], &Device::flex()), 4, None, None, 0.0).unwrap_err();
/// assert_eq!(error, Error::First { first: 4, features: 3, x: vec![1, 3] });
/// ```
pub fn try_partial_rms_norm<const D: usize>(
    x: Tensor<D>,
    first: usize,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    let params = [gamma.into(), beta.into()];
    expect_parameters(&x, &params)?;
    let features = x.dims().last().copied().unwrap_or(1);
    if !(1..=features).contains(&first) {
        return Err(Error::First { first, features, x: x.dims().to_vec() });
    }
    apply(Operator::new(Kind::Rms(Rms { first: Some(first) }), epsilon), x, params)
}
