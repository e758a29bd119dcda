//! One value for the choice of a normalization, so that a model is written once for all arms.

use burn::module::Module;
use burn::nn::{self, BatchNorm, BatchNormConfig, Identity};
use burn::tensor::{Device, Tensor};
use layernorm_burn::{LayerNorm, LayerNormConfig, RmsNorm, RmsNormConfig};

/// Which normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// None.
    Plain,
    /// Layer norm, with gain and bias.
    Layer,
    /// RMS norm, with gain.
    Rms,
    /// Batch norm, with gain and bias.
    Batch,
    /// The layer norm that comes with Burn, to compare with.
    BurnLayer,
}

/// The eps of all arms, so that only the method differs.
pub const EPSILON: f64 = 1e-5;

/// A normalization of the features of `[batch, features]`.
#[derive(Module, Debug)]
pub enum Norm {
    /// y = x.
    Plain(Identity),
    /// By our kernels.
    Layer(LayerNorm),
    /// By our kernels.
    Rms(RmsNorm),
    /// Burn's: batch statistics on an autodiff device, running ones (momentum 0.1, biased variance) elsewhere.
    Batch(BatchNorm),
    /// Burn's.
    BurnLayer(nn::LayerNorm),
}

impl Norm {
    /// A normalization of `features` features at its usual start: gain 1, bias 0.
    pub fn new(kind: NormKind, features: usize, device: &Device) -> Self {
        match kind {
            NormKind::Plain => Self::Plain(Identity::new()),
            NormKind::Layer => Self::Layer(LayerNormConfig::new(features).with_epsilon(EPSILON).init(device)),
            NormKind::Rms => Self::Rms(RmsNormConfig::new(features).with_epsilon(EPSILON).init(device)),
            NormKind::Batch => Self::Batch(BatchNormConfig::new(features).with_epsilon(EPSILON).init(device)),
            NormKind::BurnLayer => {
                Self::BurnLayer(nn::LayerNormConfig::new(features).with_epsilon(EPSILON).init(device))
            }
        }
    }

    /// Normalizes each row, or each column for batch norm.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Plain(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
            Self::Batch(norm) => norm.forward(x),
            Self::BurnLayer(norm) => norm.forward(x),
        }
    }
}
