//! Batch norm as a module, as in `burn::nn`.

use super::running::{Kept, expect_momentum};
use super::{BatchMode, Running};
use crate::Error;
use crate::apply::{expect_epsilon, or_panic};
use crate::channels::expect_same_channels;
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Flag, Initializer, Module, ModuleDisplay, Param, RunningState};
use burn::tensor::{Device, Tensor};

/// Configuration of a [`BatchNorm`]: that of `burn::nn`, field by field.
///
/// ```
/// use layernorm_burn::BatchNormConfig;
///
/// let norm = BatchNormConfig::new(64).with_momentum(0.01).init(&Default::default());
/// assert_eq!(norm.running_var.value().dims(), [64]);
/// ```
#[derive(Debug, Config)]
pub struct BatchNormConfig {
    /// The number of channels: the length of axis 1 of the input.
    pub num_features: usize,
    /// Added to the variance. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// The weight of the new batch in the running statistics. Default: 0.1
    #[config(default = 0.1)]
    pub momentum: f64,
}

impl BatchNormConfig {
    /// A [`BatchNorm`] with gamma 1 and beta 0, a running mean of 0 and a running variance of 1.
    ///
    /// # Panics
    /// If there are no channels, `epsilon` is negative or not finite, or `momentum` is not within 0 to 1.
    #[track_caller]
    pub fn init(&self, device: &Device) -> BatchNorm {
        let Self { num_features, epsilon, momentum } = *self;
        assert!(num_features > 0, "num_features is 0: batch norm needs a channel");
        expect_epsilon(epsilon);
        expect_momentum(momentum);
        BatchNorm {
            gamma: Initializer::Ones.init([num_features], device),
            beta: Initializer::Zeros.init([num_features], device),
            training: Param::from_bool(true),
            running_mean: RunningState::new(Tensor::zeros([num_features], device)),
            running_var: RunningState::new(Tensor::ones([num_features], device)),
            momentum,
            epsilon,
            mode: BatchMode::Auto,
        }
    }
}

/// Batch norm as a module: [`batch_norm`](crate::batch_norm()) with running statistics, and a gamma and a beta that learn.
///
/// The fields are named as in `burn::nn::BatchNorm`, so a record of the one loads into the other. As there, it trains on a
/// device with autodiff until [`Module::freeze`], and the running variance is the biased one. (PyTorch keeps the unbiased
/// one: [`NormConfig::batch`](crate::NormConfig::batch) does as you say.) [`BatchNorm::with_mode`] chooses by hand.
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::BatchNormConfig;
///
/// let norm = BatchNormConfig::new(1).with_epsilon(0.0).init(&Device::flex().autodiff());
/// let x = |device: Device| Tensor::<2>::from_data([[1.0], [3.0]], &device);
/// let y = norm.forward(x(Device::flex().autodiff())); // it trains,
/// assert_eq!(y.into_data(), [[-1.0f32], [1.0]].into());
/// let norm = norm.valid(); // evaluates,
/// assert_eq!(norm.running_mean.value().into_data(), [0.2f32].into());
/// assert_ne!(norm.forward(x(Device::flex())).into_data(), [[-1.0f32], [1.0]].into());
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BatchNorm {
    /// The learnable weight (scale) of each channel.
    pub gamma: Param<Tensor<1>>,
    /// The learnable bias of each channel.
    pub beta: Param<Tensor<1>>,
    /// Enabled until [`Module::freeze`].
    pub training: Param<Flag>,
    /// The running mean.
    pub running_mean: RunningState<Tensor<1>>,
    /// The running variance.
    pub running_var: RunningState<Tensor<1>>,
    /// The weight of the new batch in the running statistics.
    pub momentum: f64,
    /// Added to the variance.
    pub epsilon: f64,
    #[module(skip)]
    mode: BatchMode,
}

impl BatchNorm {
    /// The same norm, with the same parameters, in another mode. [`BatchMode::Frozen`] is what one fine-tunes with on
    /// batches that say little: running statistics and parameters stay as they are, and the gradient of x flows.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use layernorm_burn::{BatchMode, BatchNormConfig};
    ///
    /// let device = Device::flex().autodiff();
    /// let norm = BatchNormConfig::new(1).init(&device).with_mode(BatchMode::Frozen);
    /// let x = Tensor::<2>::from_data([[1.0], [3.0]], &device).require_grad();
    /// let gradients = norm.forward(x.clone()).sum().backward();
    /// assert!(x.grad(&gradients).is_some() && norm.gamma.grad(&gradients).is_none());
    /// assert_eq!(norm.running_mean.value_sync().into_data(), [0.0f32].into());
    /// ```
    #[must_use]
    pub fn with_mode(mut self, mode: BatchMode) -> Self {
        self.mode = mode;
        self
    }

    /// The norm of `input`.
    ///
    /// # Shapes
    /// - input, output: `[batch, num_features, ...]`
    ///
    /// # Panics
    /// Where [`BatchNorm::try_forward`] gives an error, with its message.
    #[track_caller]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        or_panic(self.try_forward(input))
    }

    /// [`BatchNorm::forward`], with an error where that panics. After an error, the running statistics are as before.
    ///
    /// # Errors
    /// [`Error::OtherChannels`] if axis 1 of `input` is not `num_features`; else as
    /// [`try_batch_norm`](crate::try_batch_norm) and [`try_batch_norm_eval`](crate::try_batch_norm_eval).
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        let params = [&self.gamma, &self.beta].map(|parameter| parameter.val());
        expect_same_channels(params[0].dims()[0], &input)?;
        let kept = Kept {
            mean: &self.running_mean,
            var: &self.running_var,
            training: self.training.is_enabled(),
            running: Running { momentum: self.momentum, unbiased: false },
        };
        kept.norm(input, params.map(Some), self.mode, self.epsilon)
    }
}

impl ModuleDisplay for BatchNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [num_features] = self.beta.shape().dims();
        let content = content
            .add("num_features", &num_features)
            .add("momentum", &self.momentum)
            .add("epsilon", &self.epsilon);
        match self.training.is_enabled() {
            true => content.optional(),
            false => content.add("training", &self.training).optional(),
        }
    }
}
