//! Running statistics, and whose statistics a call takes.

use super::{Batch, expect_batch, expect_statistics, try_batch_norm_eval};
use crate::Error;
use crate::apply::{Beside, apply_beside};
use crate::operator::{Kind, Operator};
use burn::config::Config;
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{Device, Tensor};
use layernorm::Convention;

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

impl Running {
    /// The same in the kernels' words.
    pub(super) fn convention(self) -> Convention {
        if self.unbiased {
            Convention::PyTorch { momentum: Some(self.momentum) }
        } else {
            Convention::Flax { momentum: 1.0 - self.momentum }
        }
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
        expect_momentum(running.momentum);
        Self {
            mean: RunningState::new(Tensor::zeros([channels], device)),
            var: RunningState::new(Tensor::ones([channels], device)),
            training: Param::from_bool(true),
            running,
        }
    }

    /// The running mean and variance, with the latest batch in them.
    pub fn values(&self) -> [Tensor<1>; 2] {
        self.kept().values()
    }

    pub(crate) fn kept(&self) -> Kept<'_> {
        let Self { mean, var, training, running } = self;
        Kept { mean, var, training: training.is_enabled(), running: *running }
    }
}

#[track_caller]
pub(super) fn expect_momentum(momentum: f64) {
    assert!((0.0..=1.0).contains(&momentum), "momentum is {momentum}: it must be within 0 to 1");
}

/// Running statistics, wherever a module keeps them.
pub(crate) struct Kept<'a> {
    pub(super) mean: &'a RunningState<Tensor<1>>,
    pub(super) var: &'a RunningState<Tensor<1>>,
    /// Not frozen by [`Module::freeze`].
    pub(super) training: bool,
    pub(super) running: Running,
}

impl Kept<'_> {
    fn values(&self) -> [Tensor<1>; 2] {
        [self.mean.value_sync(), self.var.value_sync()]
    }

    /// If `mode` means training for this input.
    fn trains<const D: usize>(&self, mode: BatchMode, x: &Tensor<D>) -> bool {
        match mode {
            BatchMode::Auto => x.is_autodiff() && self.training,
            BatchMode::Train => true,
            BatchMode::Eval | BatchMode::Frozen => false,
        }
    }

    /// Batch norm of `x` in this mode.
    pub(crate) fn norm<const D: usize>(
        &self,
        x: Tensor<D>,
        params: [Option<Tensor<1>>; 2],
        mode: BatchMode,
        epsilon: f64,
    ) -> Result<Tensor<D>, Error> {
        if !self.trains(mode, &x) {
            let constant = mode == BatchMode::Frozen;
            let [gamma, beta] = params.map(|p| p.map(|p| if constant { p.detach() } else { p }));
            let [mean, var] = self.values();
            return try_batch_norm_eval(x, mean, var, gamma, beta, epsilon);
        }
        let running = self.values();
        expect_batch(&x, &params)?;
        expect_statistics(&x, &running)?;
        let dtype = running.each_ref().map(|of| of.dtype());
        let norm = Operator::new(Kind::Batch(Batch::Train(self.running)), epsilon);
        let (y, beside) = apply_beside(norm, x, params, Beside::Running(running))?;
        if let Beside::Running([mean, var]) = beside {
            self.mean.update(mean.cast(dtype[0]));
            self.var.update(var.cast(dtype[1]));
        }
        Ok(y)
    }
}
