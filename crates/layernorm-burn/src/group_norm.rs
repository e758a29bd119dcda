//! Group normalization (Wu, He 2018, arXiv:1803.08494), each group of channels of a sample over all its positions:
//!
//! ```text
//! mu  = mean over channels of the group and positions        var = the same of (x - mu)^2
//! y   = gamma (x - mu) / sqrt(var + epsilon) + beta          one gamma and beta a channel
//! ```

use crate::Error;
use crate::apply::{apply, expect_epsilon, or_panic};
use crate::channels::{expect_channels, expect_same_channels, split};
use crate::layer_norm;
use crate::operator::{Backward, Forward, Kernels, Kind, Operator, Source, Upstream, columns, columns_mut};
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor};
use layernorm::{Activation, Companion, Element, Images, Layout, TensorGradients, Workspace};

/// Group norm of `x`: every group of channels of a sample by its mean and variance.
///
/// - `x`: `[batch, channels, ...]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[channels]`, of `[1]` (one for all channels), or `None` (1 and 0);
/// - the result has the shape and the type of `x`.
///
/// One group is layer norm over channels and positions, but for the affine parameters, which are per channel here. As
/// many groups as channels is [`instance_norm`](crate::instance_norm()). A group that doesn't vary gives exactly beta.
///
/// # Panics
/// Where [`try_group_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::group_norm;
///
/// let x = Tensor::<2>::from_data([[1.0, 3.0, 10.0, 30.0]], &Device::flex());
/// assert_eq!(group_norm(x, 2, None, None, 0.0).into_data(), [[-1.0f32, 1.0, -1.0, 1.0]].into());
/// ```
#[track_caller]
pub fn group_norm<const D: usize>(
    x: Tensor<D>,
    groups: usize,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_group_norm(x, groups, gamma, beta, epsilon))
}

/// [`group_norm`], with an error where that panics.
///
/// # Errors
/// [`Error::Groups`] if `groups` doesn't divide the channels, [`Error::Rank`] if `x` has no axis of channels,
/// [`Error::Empty`] if a sample has no numbers, [`Error::Channels`] if a parameter doesn't fit, [`Error::Quantized`], and
/// [`Error::Kernel`] for an epsilon that is negative or not finite.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, try_group_norm};
///
/// let x = Tensor::<2>::zeros([2, 4], &Device::flex());
/// let error = try_group_norm(x, 3, None, None, 1e-5).unwrap_err();
/// assert_eq!(error, Error::Groups { channels: 4, groups: 3, x: vec![2, 4] });
/// ```
pub fn try_group_norm<const D: usize>(
    x: Tensor<D>,
    groups: usize,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    let params = [gamma.into(), beta.into()];
    expect_channels("group", &x, &params)?;
    let channels = x.dims()[1];
    if groups == 0 || !channels.is_multiple_of(groups) {
        return Err(Error::Groups { channels, groups, x: x.dims().to_vec() });
    }
    apply(Operator::new(Kind::Groups(Groups { groups }), epsilon), x, params)
}

/// Configuration of a [`GroupNorm`]: that of `burn::nn`, field by field.
///
/// ```
/// use layernorm_burn::GroupNormConfig;
///
/// let norm = GroupNormConfig::new(4, 64).with_affine(false).init(&Default::default());
/// assert!(norm.gamma.is_none());
/// ```
#[derive(Debug, Config)]
pub struct GroupNormConfig {
    /// How many groups the channels are split into.
    pub num_groups: usize,
    /// The number of channels: the length of axis 1 of the input.
    pub num_channels: usize,
    /// Added to the variance. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// If there are a gamma and a beta for each channel. Default: true
    #[config(default = true)]
    pub affine: bool,
}

impl GroupNormConfig {
    /// A [`GroupNorm`] with gamma 1 and beta 0.
    ///
    /// # Panics
    /// If the groups don't divide the channels, or `epsilon` is negative or not finite.
    #[track_caller]
    pub fn init(&self, device: &Device) -> GroupNorm {
        let Self { num_groups, num_channels, epsilon, affine } = *self;
        assert!(
            num_groups > 0 && num_channels.is_multiple_of(num_groups),
            "{num_channels} channels cannot be split into {num_groups} groups"
        );
        expect_epsilon(epsilon);
        let (gamma, beta) = affine_of_channels(num_channels, affine, device);
        GroupNorm { gamma, beta, num_groups, num_channels, epsilon, affine }
    }
}

/// gamma 1 and beta 0 for each channel, if there are to be any.
pub(crate) fn affine_of_channels(
    channels: usize,
    affine: bool,
    device: &Device,
) -> (Option<Param<Tensor<1>>>, Option<Param<Tensor<1>>>) {
    let parameter = |initializer: Initializer| affine.then(|| initializer.init([channels], device));
    (parameter(Initializer::Ones), parameter(Initializer::Zeros))
}

/// Group norm as a module: [`group_norm`] with a gamma and a beta that learn.
///
/// The fields are named as in `burn::nn::GroupNorm`, so a record of the one loads into the other.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::GroupNormConfig;
///
/// let device = Device::flex();
/// let norm = GroupNormConfig::new(2, 6).init(&device);
/// assert_eq!(norm.forward(Tensor::<4>::ones([1, 6, 8, 8], &device)).dims(), [1, 6, 8, 8]);
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct GroupNorm {
    /// The learnable weight (scale) of each channel.
    pub gamma: Option<Param<Tensor<1>>>,
    /// The learnable bias of each channel.
    pub beta: Option<Param<Tensor<1>>>,
    /// How many groups the channels are split into.
    pub num_groups: usize,
    /// The number of channels.
    pub num_channels: usize,
    /// Added to the variance.
    pub epsilon: f64,
    /// If there are gamma and beta.
    pub affine: bool,
}

impl GroupNorm {
    /// The norm of `input`.
    ///
    /// # Shapes
    /// - input, output: `[batch, num_channels, ...]`
    ///
    /// # Panics
    /// Where [`GroupNorm::try_forward`] gives an error, with its message.
    #[track_caller]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        or_panic(self.try_forward(input))
    }

    /// [`GroupNorm::forward`], with an error where that panics.
    ///
    /// # Errors
    /// [`Error::OtherChannels`] if axis 1 of `input` is not `num_channels`; else as [`try_group_norm`].
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        expect_same_channels(self.num_channels, &input)?;
        let [gamma, beta] = [&self.gamma, &self.beta].map(|p| p.as_ref().map(|p| p.val()));
        try_group_norm(input, self.num_groups, gamma, beta, self.epsilon)
    }
}

impl ModuleDisplay for GroupNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("num_groups", &self.num_groups)
            .add("num_channels", &self.num_channels)
            .add("epsilon", &self.epsilon)
            .add("affine", &self.affine)
            .optional()
    }
}

/// The kernels of [`layernorm::group_norm`]. A row is a sample. Saved are three columns, an entry for each group of each
/// sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) groups: usize,
}

impl Groups {
    fn of<'a, P>(
        self,
        shape: &[usize],
        params: layernorm::Params<'a, P>,
    ) -> Result<layernorm::Groups<'a, P>, layernorm::Error> {
        let [samples, channels, positions] = split(shape);
        let images = Images::new(samples, channels, &[positions], Layout::ChannelsFirst)?;
        Ok(layernorm::Groups { images, groups: self.groups, params, activation: Activation::None })
    }

    /// x_hat from Burn's operations: a group is a row of layer norm.
    pub(crate) fn x_hat<const D: usize>(self, x: Tensor<D>, eps: f64) -> Tensor<D> {
        let shape = x.dims();
        let rows = shape[0] * self.groups;
        let len = shape.iter().product::<usize>() / rows.max(1);
        layer_norm::x_hat(x.reshape([rows, len]), eps).reshape(shape)
    }
}

impl<E: Element, P: Companion<E>> Kernels<E, P> for Groups {
    fn row(&self, shape: &[usize]) -> usize {
        let [_, channels, positions] = split(shape);
        channels * positions
    }

    fn takes_gaps(&self) -> bool {
        false
    }

    fn saved(&self, shape: &[usize]) -> usize {
        3 * shape[0] * self.groups
    }

    fn forward(&self, call: Forward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Forward { shape, x, params, saved, run, .. } = call;
        let (norm, saved) = (self.of(shape, params)?, saved.map(columns_mut));
        let workspace = &mut Workspace::new();
        match x {
            Source::Apart(x, y) => layernorm::group_norm(norm, x.values(), y, saved, workspace, run),
            Source::InPlace(x) => layernorm::group_norm_in_place(norm, x, saved, workspace, run),
        }
    }

    fn backward(&self, call: Backward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Backward { shape, x, dy, params, saved, gradients, run, .. } = call;
        let (norm, saved, x) = (self.of(shape, params)?, Some(columns(saved)), x.values());
        match dy {
            Upstream::Apart(dy, dx) => {
                let gradients = TensorGradients { dx, params: gradients };
                layernorm::group_norm_backward(norm, x, dy.values(), saved, gradients, run)
            }
            Upstream::InPlace(dy) => {
                layernorm::group_norm_backward_in_place(norm, x, dy, saved, gradients, run)
            }
        }
    }
}
