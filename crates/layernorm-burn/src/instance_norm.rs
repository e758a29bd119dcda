//! Instance normalization (Ulyanov, Vedaldi, Lempitsky 2016, arXiv:1607.08022), each channel of a sample over its
//! positions:
//!
//! ```text
//! mu = mean over positions     var = the same of (x - mu)^2     y = gamma (x - mu) / sqrt(var + epsilon) + beta
//! ```
//!
//! It is group norm with one channel a group, and computed as such.

use crate::Error;
use crate::apply::{expect_epsilon, or_panic};
use crate::channels::expect_same_channels;
use crate::group_norm::{affine_of_channels, try_group_norm};
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor};

/// Instance norm of `x`: every channel of a sample by its mean and variance.
///
/// - `x`: `[batch, channels, ...]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[channels]`, of `[1]` (one for all channels), or `None` (1 and 0);
/// - the result has the shape and the type of `x`.
///
/// # Panics
/// Where [`try_instance_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::instance_norm;
///
/// let x = Tensor::<3>::from_data([[[1.0, 3.0], [10.0, 30.0]]], &Device::flex());
/// assert_eq!(instance_norm(x, None, None, 0.0).into_data(), [[[-1.0f32, 1.0], [-1.0, 1.0]]].into());
/// ```
#[track_caller]
pub fn instance_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_instance_norm(x, gamma, beta, epsilon))
}

/// [`instance_norm`], with an error where that panics.
///
/// # Errors
/// As [`try_group_norm`](crate::try_group_norm).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, try_instance_norm};
///
/// let error = try_instance_norm(Tensor::<1>::zeros([4], &Device::flex()), None, None, 1e-5).unwrap_err();
/// assert!(matches!(error, Error::Rank { .. }));
/// ```
pub fn try_instance_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    let channels = x.dims().get(1).copied().unwrap_or(1);
    try_group_norm(x, channels, gamma, beta, epsilon)
}

/// Configuration of an [`InstanceNorm`]: that of `burn::nn`, field by field.
///
/// ```
/// use layernorm_burn::InstanceNormConfig;
///
/// let norm = InstanceNormConfig::new(64).with_epsilon(1e-6).init(&Default::default());
/// assert_eq!(norm.num_channels, 64);
/// ```
#[derive(Debug, Config)]
pub struct InstanceNormConfig {
    /// The number of channels: the length of axis 1 of the input.
    pub num_channels: usize,
    /// Added to the variance. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// If there are a gamma and a beta for each channel. Default: true
    #[config(default = true)]
    pub affine: bool,
}

impl InstanceNormConfig {
    /// An [`InstanceNorm`] with gamma 1 and beta 0.
    ///
    /// # Panics
    /// If `epsilon` is negative or not finite.
    #[track_caller]
    pub fn init(&self, device: &Device) -> InstanceNorm {
        let Self { num_channels, epsilon, affine } = *self;
        expect_epsilon(epsilon);
        let (gamma, beta) = affine_of_channels(num_channels, affine, device);
        InstanceNorm { gamma, beta, num_channels, epsilon, affine }
    }
}

/// Instance norm as a module: [`instance_norm`] with a gamma and a beta that learn.
///
/// The fields are named as in `burn::nn::InstanceNorm`, so a record of the one loads into the other.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::InstanceNormConfig;
///
/// let device = Device::flex();
/// let norm = InstanceNormConfig::new(3).init(&device);
/// assert_eq!(norm.forward(Tensor::<4>::ones([1, 3, 8, 8], &device)).dims(), [1, 3, 8, 8]);
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct InstanceNorm {
    /// The learnable weight (scale) of each channel.
    pub gamma: Option<Param<Tensor<1>>>,
    /// The learnable bias of each channel.
    pub beta: Option<Param<Tensor<1>>>,
    /// The number of channels.
    pub num_channels: usize,
    /// Added to the variance.
    pub epsilon: f64,
    /// If there are gamma and beta.
    pub affine: bool,
}

impl InstanceNorm {
    /// The norm of `input`.
    ///
    /// # Shapes
    /// - input, output: `[batch, num_channels, ...]`
    ///
    /// # Panics
    /// Where [`InstanceNorm::try_forward`] gives an error, with its message.
    #[track_caller]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        or_panic(self.try_forward(input))
    }

    /// [`InstanceNorm::forward`], with an error where that panics.
    ///
    /// # Errors
    /// [`Error::OtherChannels`] if axis 1 of `input` is not `num_channels`; else as [`try_instance_norm`].
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        expect_same_channels(self.num_channels, &input)?;
        let [gamma, beta] = [&self.gamma, &self.beta].map(|p| p.as_ref().map(|p| p.val()));
        try_instance_norm(input, gamma, beta, self.epsilon)
    }
}

impl ModuleDisplay for InstanceNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("num_channels", &self.num_channels)
            .add("epsilon", &self.epsilon)
            .add("affine", &self.affine)
            .optional()
    }
}
