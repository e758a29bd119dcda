//! One value for the choice of a norm, so that a model is written once for all of them. Every norm here is
//!
//! ```text
//! y = gamma x_hat + beta
//! ```
//!
//! and they differ in what makes x_hat of x. Each has its formula in its own file.

use crate::Error;
use crate::affine::Affine;
use crate::apply::{expect_epsilon, expect_features, or_panic};
use crate::batch_norm::{BatchMode, Running, RunningStatistics};
use crate::channels::expect_same_channels;
use crate::group_norm::try_group_norm;
use crate::instance_norm::try_instance_norm;
use crate::layer_norm::try_layer_norm;
use crate::partial_rms_norm::try_partial_rms_norm;
use crate::rms_norm::try_rms_norm;
use crate::scale_norm::of_length;
use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

/// Which norm.
///
/// ```
/// use layernorm_burn::NormKind;
///
/// assert!(NormKind::PartialRms { share: 0.0625 }.is_by_row() && !NormKind::Batch.is_by_row());
/// ```
#[derive(Config, Debug, Copy, PartialEq)]
#[non_exhaustive]
pub enum NormKind {
    /// y = x: no statistics, no parameters.
    None,
    /// [`layer_norm`](crate::layer_norm()).
    Layer,
    /// [`rms_norm`](crate::rms_norm()).
    Rms,
    /// [`partial_rms_norm`](crate::partial_rms_norm()).
    PartialRms {
        /// The share of the features that the mean square is taken of, rounded down to whole ones.
        share: f64,
    },
    /// [`batch_norm`](crate::batch_norm()) with running statistics.
    Batch,
    /// [`group_norm`](crate::group_norm()).
    Group {
        /// How many groups the channels are split into.
        groups: usize,
    },
    /// [`instance_norm`](crate::instance_norm()).
    Instance,
    /// [`scale_norm`](crate::scale_norm()).
    Scale,
    /// [`weight_norm`](crate::weight_norm()), for a [`NormLinear`](crate::NormLinear) only: it normalises weights.
    Weight,
}

impl NormKind {
    /// If it takes the last axis for the features and each row by itself: layer, RMS, partial RMS and scale norm, and
    /// none. The others take axis 1 for the channels.
    pub fn is_by_row(self) -> bool {
        matches!(self, Self::None | Self::Layer | Self::Rms | Self::PartialRms { .. } | Self::Scale)
    }
}

/// Configuration of a [`Norm`]: start from one of the functions, and change what should be different.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::NormConfig;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0, 6.0], [2.0, 2.0, 2.0, 8.0]], &device);
/// for norm in [NormConfig::none(), NormConfig::layer().with_epsilon(1e-6), NormConfig::group(2)] {
///     assert_eq!(norm.init(4, &device).forward(x.clone()).dims(), [2, 4]);
/// }
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct NormConfig {
    /// Which norm.
    pub kind: NormKind,
    /// The gain. Default: one a unit
    #[config(default = "Affine::PerUnit")]
    pub gamma: Affine,
    /// The bias. Default: one a unit
    #[config(default = "Affine::PerUnit")]
    pub beta: Affine,
    /// The gain's first value; for scale norm times the root of the number of features. Default: 1
    #[config(default = 1.0)]
    pub initial_gamma: f64,
    /// Added to the variance or mean square; for scale norm the least length. 0 is allowed. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Batch norm only: whose statistics it takes. Default: [`BatchMode::Auto`]
    #[config(default = "BatchMode::Auto")]
    pub mode: BatchMode,
    /// Batch norm only: how the running statistics follow. Default: as in PyTorch
    #[config(default = "Running::new()")]
    pub running: Running,
    /// Batch norm only: how many time steps have running statistics of their own, in a recurrent network. See
    /// [`Norm::forward_at`]. Default: 1, which is what all other networks need
    #[config(default = 1)]
    pub steps: usize,
}

impl NormConfig {
    /// No norm.
    pub fn none() -> Self {
        Self::new(NormKind::None).with_affine(Affine::None)
    }

    /// Layer norm, with one gain and one bias a feature.
    pub fn layer() -> Self {
        Self::new(NormKind::Layer)
    }

    /// RMS norm, with one gain a feature and no bias.
    pub fn rms() -> Self {
        Self::new(NormKind::Rms).with_beta(Affine::None)
    }

    /// Partial RMS norm, with one gain a feature and no bias. The authors take a share of a sixteenth.
    pub fn partial_rms(share: f64) -> Self {
        Self::new(NormKind::PartialRms { share }).with_beta(Affine::None)
    }

    /// Batch norm, with one gain and one bias a channel.
    pub fn batch() -> Self {
        Self::new(NormKind::Batch)
    }

    /// Group norm, with one gain and one bias a channel.
    pub fn group(groups: usize) -> Self {
        Self::new(NormKind::Group { groups })
    }

    /// Instance norm, with one gain and one bias a channel.
    pub fn instance() -> Self {
        Self::new(NormKind::Instance)
    }

    /// Scale norm, with one gain for all features and no bias.
    pub fn scale() -> Self {
        Self::new(NormKind::Scale).with_gamma(Affine::Shared).with_beta(Affine::None)
    }

    /// Weight norm, for a [`NormLinear`](crate::NormLinear), with the linear map's own bias.
    pub fn weight() -> Self {
        Self::new(NormKind::Weight).with_beta(Affine::None)
    }

    /// The same for the gain and the bias.
    pub fn with_affine(self, affine: Affine) -> Self {
        self.with_gamma(affine).with_beta(affine)
    }

    /// The norm for this many features, or channels.
    ///
    /// # Panics
    /// If epsilon is negative or not finite, the groups don't divide the channels, the share leaves no feature, or the
    /// momentum is not within 0 to 1, or there are 0 steps. And for weight norm, which has no activations to work on: see
    /// [`NormLinearConfig`](crate::NormLinearConfig).
    #[track_caller]
    pub fn init(&self, features: usize, device: &Device) -> Norm {
        expect_epsilon(self.epsilon);
        match self.kind {
            NormKind::Group { groups } => assert!(
                groups > 0 && features.is_multiple_of(groups),
                "{features} channels cannot be split into {groups} groups"
            ),
            NormKind::PartialRms { share } => assert!(
                (1..=features).contains(&seen(share, features)),
                "a share of {share} of {features} features: it must leave 1 to {features} of them"
            ),
            NormKind::Weight => {
                panic!("weight norm normalises weights, not activations: use NormLinearConfig")
            }
            _ => {}
        }
        let gamma = match self.kind {
            NormKind::Scale => self.initial_gamma * (features as f64).sqrt(),
            _ => self.initial_gamma,
        };
        assert!(self.steps > 0, "{} steps: batch norm needs running statistics for at least 1", self.steps);
        let steps = if self.kind == NormKind::Batch { self.steps } else { 0 };
        let has_parameters = self.kind != NormKind::None;
        Norm {
            gamma: self.gamma.parameter(gamma, features, device).filter(|_| has_parameters),
            beta: self.beta.parameter(0.0, features, device).filter(|_| has_parameters),
            running: (0..steps).map(|_| RunningStatistics::new(features, self.running, device)).collect(),
            kind: self.kind,
            features,
            epsilon: self.epsilon,
            mode: self.mode,
        }
    }
}

/// The features that a partial RMS norm looks at.
fn seen(share: f64, features: usize) -> usize {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded down on purpose; a cast of too little or too much ends at 0 or the largest, both refused"
    )]
    let seen = (share * features as f64).floor() as usize;
    seen
}

/// A norm of any kind, as a module: made by a [`NormConfig`].
///
/// It is one structure rather than one type a kind, because all kinds have the same parts: a gain, a bias, and for
/// batch norm its running statistics. A part that the configuration left out is `None`, or empty. [`Norm::kind`] tells
/// them apart.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{BatchMode, NormConfig};
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[1.0], [3.0]], &device);
/// let norm = NormConfig::batch().with_epsilon(0.0).init(1, &device);
/// let y = norm.forward(x.clone()); // no autodiff, so with the running statistics
/// assert_eq!(y.into_data(), [[1.0f32], [3.0]].into());
/// let y = norm.with_mode(BatchMode::Train).forward(x);
/// assert_eq!(y.into_data(), [[-1.0f32], [1.0]].into());
/// ```
#[derive(Module, Debug)]
pub struct Norm {
    /// The gain, where there is one.
    pub gamma: Option<Param<Tensor<1>>>,
    /// The bias, where there is one.
    pub beta: Option<Param<Tensor<1>>>,
    /// The running statistics of batch norm, one for each time step that has its own.
    pub running: Vec<RunningStatistics>,
    #[module(skip)]
    kind: NormKind,
    features: usize,
    epsilon: f64,
    #[module(skip)]
    mode: BatchMode,
}

impl Norm {
    /// Which norm it is.
    pub fn kind(&self) -> NormKind {
        self.kind
    }

    /// The same norm, with the same parameters, in another mode; for all but batch norm nothing changes.
    pub fn with_mode(mut self, mode: BatchMode) -> Self {
        self.mode = mode;
        self
    }

    /// The norm of `x`.
    ///
    /// # Shapes
    /// - x: `[..., features]` for layer, RMS, partial RMS and scale norm; `[batch, channels, ...]` for batch, group and
    ///   instance norm; anything for none
    /// - output: that of x
    ///
    /// # Panics
    /// If `x` has other features or channels, and as the function of its kind.
    #[track_caller]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_at(x, 0)
    }

    /// The norm of `x` at time step `t` of a recurrent network: batch norm with [`NormConfig::steps`] takes the running
    /// statistics of that step, and from the last step on those of the last. Gain and bias are shared over time. To all
    /// other norms time means nothing.
    ///
    /// # Panics
    /// As [`Norm::forward`].
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use layernorm_burn::{BatchMode, NormConfig};
    ///
    /// let device = Device::flex();
    /// let norm = NormConfig::batch().with_steps(2).with_mode(BatchMode::Train).init(1, &device);
    /// norm.forward_at(Tensor::<2>::from_data([[10.0], [30.0]], &device), 1);
    /// let norm = norm.with_mode(BatchMode::Eval);
    /// let y = |t| norm.forward_at(Tensor::<2>::ones([1, 1], &device), t).into_scalar::<f32>();
    /// assert!(y(0) > 0.99 && y(1) < 0.0 && y(1) == y(700));
    /// ```
    #[track_caller]
    pub fn forward_at<const D: usize>(&self, x: Tensor<D>, t: usize) -> Tensor<D> {
        or_panic(self.try_forward_at(x, t))
    }

    /// [`Norm::forward_at`], with an error where that panics; at time step 0 it is [`Norm::forward`].
    ///
    /// # Errors
    /// [`Error::Features`] or [`Error::OtherChannels`] if `x` has other features or channels; else as the function of its
    /// kind.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use layernorm_burn::{Error, NormConfig};
    ///
    /// let device = Device::flex();
    /// let norm = NormConfig::group(2).init(4, &device);
    /// let error = norm.try_forward_at(Tensor::<2>::ones([2, 3], &device), 0).unwrap_err();
    /// assert_eq!(error, Error::OtherChannels { channels: 4, x: vec![2, 3] });
    /// ```
    pub fn try_forward_at<const D: usize>(&self, x: Tensor<D>, t: usize) -> Result<Tensor<D>, Error> {
        match self.kind {
            NormKind::None => return Ok(x),
            kind if kind.is_by_row() => expect_features(self.features, &x)?,
            _ => expect_same_channels(self.features, &x)?,
        }
        let epsilon = self.epsilon;
        let [gamma, beta] = [&self.gamma, &self.beta].map(|p| p.as_ref().map(|p| p.val()));
        match self.kind {
            NormKind::None | NormKind::Weight => Ok(x),
            NormKind::Layer => try_layer_norm(x, gamma, beta, epsilon),
            NormKind::Rms => try_rms_norm(x, gamma, beta, epsilon),
            NormKind::PartialRms { share } => {
                try_partial_rms_norm(x, seen(share, self.features), gamma, beta, epsilon)
            }
            NormKind::Batch => {
                let running = &self.running[t.min(self.running.len() - 1)];
                running.kept().norm(x, [gamma, beta], self.mode, epsilon)
            }
            NormKind::Group { groups } => try_group_norm(x, groups, gamma, beta, epsilon),
            NormKind::Instance => try_instance_norm(x, gamma, beta, epsilon),
            NormKind::Scale => of_length(x, [gamma, beta], epsilon),
        }
    }
}
