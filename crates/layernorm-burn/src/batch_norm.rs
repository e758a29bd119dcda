//! Batch normalization (Ioffe, Szegedy 2015, arXiv:1502.03167), each channel over the batch and its positions:
//!
//! ```text
//! training   mu, var = of the batch          y = gamma (x - mu) / sqrt(var + epsilon) + beta
//!            running = (1 - m) running + m batch
//! eval       mu, var = the running ones      y = gamma (x - mu) / sqrt(var + epsilon) + beta
//! frozen     as eval, and gamma and beta are constants
//! ```
//!
//! In training a channel is a row, so the layer norm's kernels serve it; the rest is composed from Burn's operations.
//! Kernels by column follow.

use crate::affine::{affine, along};
use crate::apply::widened;
use crate::layer_norm::layer_norm;
use crate::operator::divide_by_deviation;
use burn::config::Config;
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{Device, Tensor};

/// Batch norm of `x` by its own statistics, as in training: y = gamma (x - mean) / sqrt(var + epsilon) + beta, with
/// mean and biased variance of each channel over all the rest.
///
/// - `x`: `[batch, channels, ...]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[channels]`, of `[1]` (one for all channels), or `None` (1 and 0);
/// - the result has the shape and the type of `x`.
///
/// This function keeps no running statistics: [`NormConfig::batch`](crate::NormConfig::batch) does. A channel that
/// doesn't vary gives exactly beta, and no gradient, at any epsilon from 0.
///
/// # Panics
/// If a channel has a single number, if `x` has no axis of channels, or if a parameter doesn't fit.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::batch_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[1.0, 5.0], [3.0, 5.0]], &device);
/// assert_eq!(batch_norm(x, None, None, 0.0).into_data(), [[-1.0f32, 0.0], [1.0, 0.0]].into());
/// ```
#[track_caller]
pub fn batch_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    let (gamma, beta) = (gamma.into(), beta.into());
    widened(x, |x| affine(by_batch(x, epsilon), 1, gamma, beta))
}

/// Whose statistics batch norm takes.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum BatchMode {
    /// Burn's convention: training on a device with autodiff as long as the module isn't frozen by
    /// [`Module::freeze`], else eval. So [`Module::valid`] is all that a training loop needs.
    Auto,
    /// The batch's statistics, which also move the running ones.
    Train,
    /// The running statistics, which stay as they are. Gradients reach gamma, beta and x.
    Eval,
    /// The running statistics, with gamma and beta as constants: a gradient reaches x alone.
    Frozen,
}

/// How running statistics follow those of the batches. The defaults are PyTorch's.
///
/// ```
/// use layernorm_burn::Running;
///
/// let keras = Running { momentum: 0.01, unbiased: false };
/// assert_ne!(keras, Running::default());
/// ```
#[derive(Config, Debug, Copy, PartialEq)]
pub struct Running {
    /// The weight of the new batch. Default: 0.1
    #[config(default = 0.1)]
    pub momentum: f64,
    /// If the variance that is kept is the unbiased one, `var n / (n - 1)` for n numbers a channel: PyTorch and
    /// tf.keras do so, Keras 3, Flax and ONNX keep the biased one. Default: true
    #[config(default = true)]
    pub unbiased: bool,
}

impl Default for Running {
    fn default() -> Self {
        Self::new()
    }
}

/// What batch norm remembers of the batches that it saw: one mean and one variance a channel, 0 and 1 at first.
///
/// As everywhere in Burn, clones of a module share these numbers until one goes through [`Module::valid`] or a record.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{BatchMode, NormConfig};
///
/// let device = Device::flex();
/// let norm = NormConfig::batch().with_mode(BatchMode::Train).init(1, &device);
/// norm.forward(Tensor::<2>::from_data([[1.0], [3.0]], &device)); // mean 2, unbiased variance 2
/// let [mean, var] = norm.running[0].values();
/// assert_eq!(mean.into_data(), [0.2f32].into()); // a tenth of the way from 0
/// assert_eq!(var.into_data(), [1.1f32].into()); // and from 1
/// ```
#[derive(Module, Debug)]
pub struct RunningStatistics {
    /// The running mean.
    pub mean: RunningState<Tensor<1>>,
    /// The running variance.
    pub var: RunningState<Tensor<1>>,
    /// Enabled until [`Module::freeze`].
    pub training: Param<Flag>,
    #[module(skip)]
    running: Running,
}

impl RunningStatistics {
    pub(crate) fn new(channels: usize, running: Running, device: &Device) -> Self {
        assert!(
            (0.0..=1.0).contains(&running.momentum),
            "momentum is {}: it must be within 0 to 1",
            running.momentum
        );
        Self {
            mean: RunningState::new(Tensor::zeros([channels], device)),
            var: RunningState::new(Tensor::ones([channels], device)),
            training: Param::from_bool(true),
            running,
        }
    }

    /// The running mean and variance, with the latest batch in them.
    pub fn values(&self) -> [Tensor<1>; 2] {
        [self.mean.value_sync(), self.var.value_sync()]
    }

    /// If `mode` means training for this input.
    pub(crate) fn trains<const D: usize>(&self, mode: BatchMode, x: &Tensor<D>) -> bool {
        match mode {
            BatchMode::Auto => x.is_autodiff() && self.training.is_enabled(),
            BatchMode::Train => true,
            BatchMode::Eval | BatchMode::Frozen => false,
        }
    }

    /// `x` normalised in this mode.
    #[track_caller]
    pub(crate) fn x_hat<const D: usize>(&self, x: Tensor<D>, mode: BatchMode, epsilon: f64) -> Tensor<D> {
        if self.trains(mode, &x) {
            self.follow(&x);
            by_batch(x, epsilon)
        } else {
            let [mean, var] = self.values().map(|kept| on_device_of(kept, &x));
            let (mean, var) =
                (along(mean, "the running mean", 1, &x), along(var, "the running variance", 1, &x));
            divide_by_deviation(x - mean, var, epsilon)
        }
    }

    /// Moves the running statistics towards those of `x`.
    #[track_caller]
    fn follow<const D: usize>(&self, x: &Tensor<D>) {
        let rows = rows(x.clone().detach());
        let n = rows.dims()[1] as f64;
        let mean = rows.clone().mean_dim(1);
        let squares = (rows - mean.clone()).square().sum_dim(1);
        let var = squares / if self.running.unbiased { n - 1.0 } else { n };
        for (state, batch) in [(&self.mean, mean), (&self.var, var)] {
            let kept = on_device_of(state.value_sync(), x);
            let batch = batch.reshape([x.dims()[1]]).cast(kept.dtype());
            let m = self.running.momentum;
            state.update((kept * (1.0 - m) + batch * m).detach());
        }
    }
}

fn on_device_of<const D: usize>(kept: Tensor<1>, x: &Tensor<D>) -> Tensor<1> {
    match x.is_autodiff() {
        true if kept.is_autodiff() => kept,
        true => Tensor::from_inner(kept),
        false => kept.without_autodiff(),
    }
}

/// x_hat by the batch's own statistics: those of layer norm over a row, once a channel is a row.
#[track_caller]
fn by_batch<const D: usize>(x: Tensor<D>, epsilon: f64) -> Tensor<D> {
    let mut transposed = x.dims();
    let rows = layer_norm(rows(x), None, None, epsilon);
    transposed.swap(0, 1);
    rows.reshape(transposed).swap_dims(0, 1)
}

/// `[batch, channels, ...]` as `[channels, batch * ...]`.
#[track_caller]
fn rows<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let shape = x.dims();
    assert!(D >= 2, "x has shape {shape:?}: batch norm needs [batch, channels, ...]");
    let count = shape.iter().product::<usize>() / shape[1].max(1);
    assert!(
        count > 1,
        "x has shape {shape:?}, so {count} numbers a channel: batch norm needs at least 2 in training"
    );
    x.swap_dims(0, 1).reshape([shape[1], count])
}
