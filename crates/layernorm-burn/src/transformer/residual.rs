//! Where the norm stands around a sublayer `F` with its residual connection:
//!
//! ```text
//! None       x + F(x)
//! Post       N(x + F(x))
//! Pre        x + F(N(x))
//! Sandwich   x + N'(F(N(x)))
//! ```

use crate::{Norm, NormConfig};
use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

/// Where the norm stands in a block with residual connections.
///
/// | | formula | where from |
/// |---|---|---|
/// | `None` | `x + F(x)` | a residual network without norm |
/// | `Post` | `N(x + F(x))` | Vaswani et al. 2017; BERT |
/// | `Pre` | `x + F(N(x))` | GPT-2; Xiong et al. 2020 |
/// | `Sandwich` | `x + N'(F(N(x)))` | CogView; Gemma 2; Peri-LN (Kim et al. 2025) |
///
/// The stream of `Pre` and `Sandwich` is not normalised itself, so a stack of such blocks ends with a norm.
///
/// ```
/// use layernorm_burn::transformer::Placement;
///
/// assert!(Placement::Pre.needs_final_norm() && !Placement::Post.needs_final_norm());
/// ```
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum Placement {
    /// `x + F(x)`.
    None,
    /// `N(x + F(x))`.
    Post,
    /// `x + F(N(x))`.
    Pre,
    /// `x + N'(F(N(x)))`, with two norms.
    Sandwich,
}

impl Placement {
    /// Whether a stack of such blocks ends with a norm of its own.
    pub fn needs_final_norm(self) -> bool {
        matches!(self, Self::Pre | Self::Sandwich)
    }
}

/// Configuration of a [`Residual`].
///
/// ```
/// use layernorm_burn::NormConfig;
/// use layernorm_burn::transformer::{Placement, ResidualConfig};
///
/// let residual = ResidualConfig::new(8, Placement::Sandwich, NormConfig::layer()).init(&Default::default());
/// assert!(residual.before.is_some() && residual.after.is_some());
/// ```
#[derive(Config, Debug)]
pub struct ResidualConfig {
    /// The number of features: the length of the last axis of the input.
    pub d_model: usize,
    /// Where the norm stands.
    pub placement: Placement,
    /// Which norm.
    pub norm: NormConfig,
}

impl ResidualConfig {
    /// A [`Residual`] with as many norms as its placement has.
    ///
    /// # Panics
    /// If the norm is not one by rows: others would mix the tokens, later ones with earlier ones.
    #[track_caller]
    pub fn init(&self, device: &Device) -> Residual {
        expect_by_row(&self.norm);
        let norm = |wanted: bool| wanted.then(|| self.norm.init(self.d_model, device));
        let placement = self.placement;
        Residual {
            before: norm(matches!(placement, Placement::Pre | Placement::Sandwich)),
            after: norm(matches!(placement, Placement::Post | Placement::Sandwich)),
            placement,
        }
    }
}

/// The way around a sublayer: the residual connection and the norms, for any `F`.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::NormConfig;
/// use layernorm_burn::transformer::{Placement, ResidualConfig};
///
/// let device = Device::flex();
/// let pre = ResidualConfig::new(2, Placement::Pre, NormConfig::rms()).init(&device);
/// let x = Tensor::<2>::from_data([[1.0, 7.0]], &device); // root mean square 5
/// let y = pre.forward(x, |normalised| normalised * 5.0);
/// y.into_data().assert_approx_eq::<f32>(&[[2.0, 14.0]].into(), Default::default());
/// ```
#[derive(Module, Debug)]
pub struct Residual {
    /// The norm before the sublayer: `Pre` and `Sandwich`.
    pub before: Option<Norm>,
    /// The norm after the sublayer (`Sandwich`), or after the sum (`Post`).
    pub after: Option<Norm>,
    #[module(skip)]
    placement: Placement,
}

impl Residual {
    /// `x` with what `sublayer` makes of it, by the formula of the placement.
    ///
    /// # Shapes
    /// - x, output, and what `sublayer` takes and gives: `[..., d_model]`
    ///
    /// # Panics
    /// If `x` has other features than the norms, or `sublayer` gives another shape than it takes.
    pub fn forward<const D: usize>(
        &self,
        x: Tensor<D>,
        sublayer: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Tensor<D> {
        let before = |x| normalised(&self.before, x);
        let after = |x| normalised(&self.after, x);
        match self.placement {
            Placement::None => x.clone() + sublayer(x),
            Placement::Post => after(x.clone() + sublayer(x)),
            Placement::Pre => x.clone() + sublayer(before(x)),
            Placement::Sandwich => x.clone() + after(sublayer(before(x))),
        }
    }

    /// Where the norm stands.
    pub fn placement(&self) -> Placement {
        self.placement
    }
}

#[track_caller]
pub(super) fn expect_by_row(norm: &NormConfig) {
    assert!(
        norm.kind.is_by_row(),
        "{:?} is no norm by rows: in a transformer it would mix the tokens, later ones with earlier ones",
        norm.kind
    );
}

pub(super) fn normalised<const D: usize>(norm: &Option<Norm>, x: Tensor<D>) -> Tensor<D> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}
