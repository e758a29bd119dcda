//! The running statistics of batch norm, and the conventions that move them.

use crate::{Error, Real};

/// How a framework moves its running statistics. They differ in what `momentum` weighs and in the variance that they
/// keep; mixing them up gives a model that trains well and evaluates badly.
///
/// | convention | `running =` | variance kept | momentum | eps |
/// |---|---|---|---|---|
/// | PyTorch | `(1 - m) running + m batch` | unbiased | 0.1 | 1e-5 |
/// | Keras 3 | `m running + (1 - m) batch` | biased | 0.99 | 1e-3 |
/// | tf.keras, fused path | `m running + (1 - m) batch` | unbiased | 0.99 | 1e-3 |
/// | Flax | `m running + (1 - m) batch` | biased | 0.99 | 1e-5 |
/// | ONNX | `m running + (1 - m) batch` | biased | 0.9 | 1e-5 |
///
/// Unbiased means `var n / (n - 1)`, with the `n` of the whole batch where it is spread over ranks. An update is taken
/// in f64 and rounded once.
///
/// Source: the documentation and code of each framework.
///
/// ```
/// use layernorm::Convention;
///
/// assert_eq!(Convention::PYTORCH, Convention::PyTorch { momentum: Some(0.1) });
/// assert_eq!(Convention::KERAS.eps(), 1e-3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Convention {
    /// `torch.nn.BatchNorm*d`.
    PyTorch {
        /// The weight of the *new* batch; `None` for the cumulative average of all batches, each with the same
        /// weight.
        momentum: Option<f64>,
    },
    /// `keras.layers.BatchNormalization` of Keras 3.
    Keras {
        /// The weight of the *old* statistics.
        momentum: f64,
    },
    /// `tf.keras.layers.BatchNormalization` on its fused path, which keeps Bessel's correction.
    TfKeras {
        /// The weight of the *old* statistics.
        momentum: f64,
    },
    /// `flax.linen.BatchNorm`.
    Flax {
        /// The weight of the *old* statistics.
        momentum: f64,
    },
    /// The operator `BatchNormalization` in training mode.
    Onnx {
        /// The weight of the *old* statistics.
        momentum: f64,
    },
}

impl Convention {
    /// PyTorch with its default momentum.
    pub const PYTORCH: Self = Self::PyTorch { momentum: Some(0.1) };
    /// Keras 3 with its default momentum.
    pub const KERAS: Self = Self::Keras { momentum: 0.99 };
    /// tf.keras with its default momentum.
    pub const TF_KERAS: Self = Self::TfKeras { momentum: 0.99 };
    /// Flax with its default momentum.
    pub const FLAX: Self = Self::Flax { momentum: 0.99 };
    /// ONNX with its default momentum.
    pub const ONNX: Self = Self::Onnx { momentum: 0.9 };

    /// The framework's default epsilon.
    pub const fn eps(self) -> f64 {
        match self {
            Self::Keras { .. } | Self::TfKeras { .. } => 1e-3,
            Self::PyTorch { .. } | Self::Flax { .. } | Self::Onnx { .. } => 1e-5,
        }
    }

    /// Is the running variance the unbiased one?
    pub const fn unbiased(self) -> bool {
        matches!(self, Self::PyTorch { .. } | Self::TfKeras { .. })
    }

    /// The weights of the old statistics and of the new batch in the `update`-th update, counted from 1.
    fn weights(self, update: u64) -> [f64; 2] {
        match self {
            Self::PyTorch { momentum } => {
                let new = momentum.unwrap_or(1.0 / update as f64);
                [1.0 - new, new]
            }
            Self::Keras { momentum }
            | Self::TfKeras { momentum }
            | Self::Flax { momentum }
            | Self::Onnx { momentum } => [momentum, 1.0 - momentum],
        }
    }

    fn check(self) -> Result<(), Error> {
        let (Self::PyTorch { momentum: Some(momentum) }
        | Self::Keras { momentum }
        | Self::TfKeras { momentum }
        | Self::Flax { momentum }
        | Self::Onnx { momentum }) = self
        else {
            return Ok(());
        };
        if (0.0..=1.0).contains(&momentum) { Ok(()) } else { Err(Error::Momentum { momentum }) }
    }
}

/// Running statistics to read: one mean and one variance a channel, constants of an evaluation.
///
/// ```
/// let running = layernorm::RunningRef { mean: &[0.0f32], var: &[1.0] };
/// assert_eq!(running.mean.len(), running.var.len());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RunningRef<'a, T> {
    /// One mean a channel.
    pub mean: &'a [T],
    /// One variance a channel; none is negative.
    pub var: &'a [T],
}

/// Running statistics that a training pass moves.
///
/// ```
/// use layernorm::{Convention, RunningMut};
///
/// let (mut mean, mut var, mut updates) = ([0.0f32; 3], [1.0; 3], 0);
/// let running =
///     RunningMut { mean: &mut mean, var: &mut var, updates: &mut updates, convention: Convention::PYTORCH };
/// assert_eq!(running.mean.len(), 3);
/// ```
#[derive(Debug)]
pub struct RunningMut<'a, T> {
    /// One mean a channel.
    pub mean: &'a mut [T],
    /// One variance a channel.
    pub var: &'a mut [T],
    /// How many batches have been seen (PyTorch's `num_batches_tracked`).
    pub updates: &'a mut u64,
    /// Whose formula.
    pub convention: Convention,
}

/// Running statistics with memory of their own.
///
/// ```
/// let running = layernorm::RunningStats::<f32>::new(2);
/// assert_eq!((running.mean, running.var, running.updates), (vec![0.0; 2], vec![1.0; 2], 0));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RunningStats<T> {
    /// The running mean of each channel.
    pub mean: Vec<T>,
    /// The running variance of each channel.
    pub var: Vec<T>,
    /// How many batches have been seen.
    pub updates: u64,
}

impl<T: Real> RunningStats<T> {
    /// Mean 0, variance 1, no batch seen: where every framework starts. Allocates.
    pub fn new(channels: usize) -> Self {
        let all = |value: f64| vec![T::from_f64(value); channels];
        Self { mean: all(0.0), var: all(1.0), updates: 0 }
    }

    /// To read.
    pub fn as_ref(&self) -> RunningRef<'_, T> {
        RunningRef { mean: &self.mean, var: &self.var }
    }

    /// To move, by a framework's formula.
    pub fn as_mut(&mut self, convention: Convention) -> RunningMut<'_, T> {
        RunningMut { mean: &mut self.mean, var: &mut self.var, updates: &mut self.updates, convention }
    }
}

impl<T: Real> RunningRef<'_, T> {
    pub(crate) fn check(self, channels: usize) -> Result<(), Error> {
        for (what, got) in [("running mean", self.mean.len()), ("running var", self.var.len())] {
            if got != channels {
                return Err(Error::Length { what, expected: channels, got });
            }
        }
        match self.var.iter().position(|var| *var < T::from_f64(0.0)) {
            Some(channel) => Err(Error::Variance { channel, var: self.var[channel].to_f64() }),
            None => Ok(()),
        }
    }

    /// 1 / sqrt(var + eps) of a channel; 0 where var + eps is 0. In f64, and rounded once.
    pub(crate) fn rstd(self, channel: usize, eps: T) -> T {
        let (var, eps) = (self.var[channel].to_f64(), eps.to_f64());
        let (v, quarter) = (var + eps, var / 4.0 + eps / 4.0);
        T::from_f64(match v {
            0.0 => 0.0,
            // The sum of two large f64 may overflow, a quarter of it can't.
            _ if v.is_infinite() => 0.5 / quarter.sqrt(),
            _ => 1.0 / v.sqrt(),
        })
    }
}

impl<T: Real> RunningMut<'_, T> {
    pub(crate) fn check(&self, channels: usize) -> Result<(), Error> {
        self.convention.check()?;
        RunningRef { mean: self.mean, var: self.var }.check(channels)
    }

    /// Move them by a batch of `count` numbers a channel, whose means are m + c.
    pub(crate) fn update(self, [m, c, var]: [&[T]; 3], count: usize) {
        *self.updates = self.updates.saturating_add(1);
        let [old, new] = self.convention.weights(*self.updates);
        let n = count as f64;
        let correction = if self.convention.unbiased() { n / (n - 1.0) } else { 1.0 };
        for (channel, (mean, running_var)) in self.mean.iter_mut().zip(self.var).enumerate() {
            let batch_mean = m[channel].to_f64() + c[channel].to_f64();
            let batch_var = var[channel].to_f64() * correction;
            *mean = T::from_f64(old * mean.to_f64() + new * batch_mean);
            *running_var = T::from_f64(old * running_var.to_f64() + new * batch_var);
        }
    }
}
