//! Scale normalization (Nguyen, Salazar 2019, arXiv:1910.05895), over the last axis:
//!
//! ```text
//! y = g x / max(|x|, epsilon)        one g for all features, sqrt(features) at first
//! ```
//!
//! Composed from Burn's operations; kernels follow. The squares of `x` must fit its type.

use crate::affine::affine;
use crate::apply::widened;
use burn::tensor::Tensor;

/// Scale norm of `x` over its last axis: y = g x / max(|x|, epsilon), with the Euclidean length |x|.
///
/// - `x`: `[..., features]`, of any float type;
/// - `g`: a tensor of `[1]`; of `[features]` for a gain of each feature; or `None` (1), which is L2 norm and, over the
///   features of a head, QK norm;
/// - the result has the shape and the type of `x`. A row of zeros gives zeros.
///
/// # Panics
/// If `g` doesn't fit.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::scale_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[0.0, 4.0], [0.0, 0.0]], &device);
/// let g = Tensor::<1>::from_data([10.0], &device);
/// assert_eq!(scale_norm(x, g, 1e-5).into_data(), [[0.0f32, 10.0], [0.0, 0.0]].into());
/// ```
#[track_caller]
pub fn scale_norm<const D: usize>(x: Tensor<D>, g: impl Into<Option<Tensor<1>>>, epsilon: f64) -> Tensor<D> {
    let g = g.into();
    widened(x, |x| {
        let rlength = reciprocal_length(x.clone(), D - 1, epsilon);
        affine(x * rlength, D - 1, g, None)
    })
}

/// `1 / max(|x|, epsilon)` with the length along `axis`, and 0 where that is 1 / 0.
pub(crate) fn reciprocal_length<const D: usize>(x: Tensor<D>, axis: usize, epsilon: f64) -> Tensor<D> {
    let square = x.square().sum_dim(axis);
    // Before the root, because its derivative at 0 would make NaN of a gradient that is masked only after it.
    let short = square.clone().lower_equal_elem(epsilon * epsilon);
    let length = square.mask_fill(short.clone(), 1.0).sqrt();
    length.recip().mask_fill(short, if epsilon > 0.0 { epsilon.recip() } else { 0.0 })
}
