//! Gain and bias after the statistics, `y = gamma x_hat + beta`: absent, one for all units, or one a unit.

use burn::config::Config;
use burn::module::{Initializer, Param};
use burn::tensor::{Device, Tensor};

/// How many numbers a gain or a bias has.
///
/// ```
/// use layernorm_burn::{Affine, NormConfig};
///
/// let norm = NormConfig::layer().with_gamma(Affine::Shared).with_beta(Affine::None).init(64, &Default::default());
/// assert_eq!(norm.gamma.unwrap().dims(), [1]);
/// assert!(norm.beta.is_none());
/// ```
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum Affine {
    /// None: a gain of 1, a bias of 0.
    None,
    /// One for all units.
    Shared,
    /// One for each unit.
    PerUnit,
}

impl Affine {
    /// A parameter for this many units, all of them `value`.
    pub(crate) fn parameter(self, value: f64, units: usize, device: &Device) -> Option<Param<Tensor<1>>> {
        let len = match self {
            Self::None => return None,
            Self::Shared => 1,
            Self::PerUnit => units,
        };
        Some(Initializer::Constant { value }.init([len], device))
    }
}

/// `gamma x_hat + beta`, with one unit for each place on `axis`.
///
/// # Panics
/// If a parameter holds neither one number nor one for each unit.
#[track_caller]
pub(crate) fn affine<const D: usize>(
    x_hat: Tensor<D>,
    axis: usize,
    gamma: Option<Tensor<1>>,
    beta: Option<Tensor<1>>,
) -> Tensor<D> {
    let scaled = match gamma {
        Some(gamma) => x_hat.clone() * along(gamma, "gamma", axis, &x_hat),
        None => x_hat,
    };
    match beta {
        Some(beta) => scaled.clone() + along(beta, "beta", axis, &scaled),
        None => scaled,
    }
}

/// A vector on one axis of a tensor like `x`, in its type, so that it broadcasts over the others.
#[track_caller]
pub(crate) fn along<const D: usize>(vector: Tensor<1>, name: &str, axis: usize, x: &Tensor<D>) -> Tensor<D> {
    let ([len], units) = (vector.dims(), x.dims()[axis]);
    assert!(
        len == units || len == 1,
        "{name} has shape [{len}] and x has shape {:?}: {name} needs {units} values, one for each place on axis \
         {axis}, or one for all",
        x.dims()
    );
    let mut shape = [1; D];
    shape[axis] = len;
    let vector = vector.reshape(shape);
    if vector.dtype() == x.dtype() { vector } else { vector.cast(x.dtype()) }
}
