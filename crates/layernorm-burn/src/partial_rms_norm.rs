//! Partial RMS normalization (pRMSNorm: Zhang, Sennrich 2019, arXiv:1910.07467, section 3.1), over the last axis:
//!
//! ```text
//! y = gamma x / sqrt(sum over j < k of x_j^2 / k + epsilon) + beta        for all features, k of which are looked at
//! ```
//!
//! Composed from Burn's operations; kernels follow. The squares of `x` must fit its type.

use crate::affine::affine;
use crate::apply::widened;
use crate::operator::divide_by_deviation;
use burn::tensor::{Tensor, s};

/// RMS norm of `x` over its last axis, with the mean square of its first `first` features.
///
/// - `x`: `[..., features]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[features]`, of `[1]` (one for all features), or `None` (1 and 0);
/// - the result has the shape and the type of `x`. The authors take a sixteenth of the features.
///
/// # Panics
/// If `first` is not within 1 to the number of features, or if a parameter doesn't fit.
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
    let (gamma, beta) = (gamma.into(), beta.into());
    let features = x.dims()[D - 1];
    assert!(
        (1..=features).contains(&first),
        "the mean square of the first {first} features, and x has shape {:?}: it must be 1 to {features}",
        x.dims()
    );
    widened(x, |x| {
        let seen = x.clone().slice_dim(D - 1, s![0..first]);
        let mean_square = seen.square().mean_dim(D - 1);
        affine(divide_by_deviation(x, mean_square, epsilon), D - 1, gamma, beta)
    })
}
