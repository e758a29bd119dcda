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
