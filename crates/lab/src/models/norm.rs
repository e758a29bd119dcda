//! The normalizations that the studies compare: those of `layernorm-burn`, and Burn's own layer norm beside them.

use burn::module::Module;
use burn::nn;
use burn::tensor::{Device, Tensor};
use layernorm_burn::NormConfig;

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
    /// Of `layernorm-burn`.
    Ours(layernorm_burn::Norm),
    /// Burn's.
    BurnLayer(nn::LayerNorm),
}

impl Norm {
    /// A normalization of `features` features at its usual start: gain 1, bias 0.
    pub fn new(kind: NormKind, features: usize, device: &Device) -> Self {
        Self::with_epsilon(kind, EPSILON, features, device)
    }

    /// The same with another eps.
    pub fn with_epsilon(kind: NormKind, epsilon: f64, features: usize, device: &Device) -> Self {
        let config = match kind {
            NormKind::Plain => NormConfig::none(),
            NormKind::Layer => NormConfig::layer(),
            NormKind::Rms => NormConfig::rms(),
            NormKind::Batch => NormConfig::batch(),
            NormKind::BurnLayer => {
                let config = nn::LayerNormConfig::new(features).with_epsilon(epsilon);
                return Self::BurnLayer(config.init(device));
            }
        };
        Self::Ours(config.with_epsilon(epsilon).init(features, device))
    }

    /// Normalizes each row, or each column for batch norm.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Ours(norm) => match &norm.beta {
                // A batch of one leaves batch norm nothing but its bias. `layernorm-burn` refuses to train on it, as
                // PyTorch does; Burn and TensorFlow go on like this, and a study can show it.
                Some(beta)
                    if norm.kind() == layernorm_burn::NormKind::Batch
                        && x.is_autodiff()
                        && x.dims()[0] == 1 =>
                {
                    // Not `zeros_like`, which would cut x off from the loss: what is never reached by a backward pass
                    // piles up in Burn's graph, and every later pass walks through all of it.
                    x * 0.0 + beta.val().unsqueeze()
                }
                _ => norm.forward(x),
            },
            Self::BurnLayer(norm) => norm.forward(x),
        }
    }
}
