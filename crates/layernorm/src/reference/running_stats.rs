//! The running statistics of batch norm, and the conventions that move them.

use super::{BatchForward, check_len};

/// How a framework moves its running statistics. They differ in what `momentum` weighs and in the variance
/// that they keep; mixing them up gives a model that trains well and evaluates badly.
///
/// | convention | `running =` | variance kept | momentum | eps |
/// |---|---|---|---|---|
/// | PyTorch | `(1 - m) running + m batch` | unbiased | 0.1 | 1e-5 |
/// | Keras 3 | `m running + (1 - m) batch` | biased | 0.99 | 1e-3 |
/// | tf.keras, fused path | `m running + (1 - m) batch` | unbiased | 0.99 | 1e-3 |
/// | Flax | `m running + (1 - m) batch` | biased | 0.99 | 1e-5 |
/// | ONNX | `m running + (1 - m) batch` | biased | 0.9 | 1e-5 |
///
/// Unbiased means `var * n / (n - 1)`. Flax computes its variance as `E[x^2] - E[x]^2`, clipped at 0: the
/// same number in exact arithmetic, so this oracle makes no difference.
///
/// Source: the documentation and code of each framework.
///
/// ```
/// use layernorm::reference::Convention;
///
/// assert_eq!(Convention::PYTORCH, Convention::PyTorch { momentum: Some(0.1) });
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Convention {
    /// `torch.nn.BatchNorm*d`.
    PyTorch {
        /// The weight of the *new* batch; `None` for the cumulative average of all batches, each with the
        /// same weight.
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
    pub const PYTORCH: Self = Convention::PyTorch { momentum: Some(0.1) };
    /// Keras 3 with its default momentum.
    pub const KERAS: Self = Convention::Keras { momentum: 0.99 };
    /// tf.keras with its default momentum.
    pub const TF_KERAS: Self = Convention::TfKeras { momentum: 0.99 };
    /// Flax with its default momentum.
    pub const FLAX: Self = Convention::Flax { momentum: 0.99 };
    /// ONNX with its default momentum.
    pub const ONNX: Self = Convention::Onnx { momentum: 0.9 };

    /// The framework's default `eps`.
    ///
    /// ```
    /// use layernorm::reference::Convention;
    ///
    /// assert_eq!(Convention::KERAS.eps(), 1e-3);
    /// ```
    pub const fn eps(self) -> f64 {
        match self {
            Convention::Keras { .. } | Convention::TfKeras { .. } => 1e-3,
            Convention::PyTorch { .. } | Convention::Flax { .. } | Convention::Onnx { .. } => 1e-5,
        }
    }

    /// Whether the running variance is the unbiased one.
    ///
    /// ```
    /// use layernorm::reference::Convention;
    ///
    /// assert!(Convention::PYTORCH.unbiased() && !Convention::ONNX.unbiased());
    /// ```
    pub const fn unbiased(self) -> bool {
        matches!(self, Convention::PyTorch { .. } | Convention::TfKeras { .. })
    }

    /// The weight of the new batch in the `update`-th update, counted from 1.
    fn weight_of_batch(self, update: u32) -> f64 {
        match self {
            Convention::PyTorch { momentum } => momentum.unwrap_or(1.0 / f64::from(update)),
            Convention::Keras { momentum }
            | Convention::TfKeras { momentum }
            | Convention::Flax { momentum }
            | Convention::Onnx { momentum } => 1.0 - momentum,
        }
    }
}

/// The running mean and variance of each channel, which evaluation uses in place of the batch's.
///
/// ```
/// use layernorm::reference::RunningStats;
///
/// let running = RunningStats::new(2);
/// assert_eq!((running.mean, running.var), (vec![0.0, 0.0], vec![1.0, 1.0]));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RunningStats {
    /// The running mean of each channel.
    pub mean: Vec<f64>,
    /// The running variance of each channel.
    pub var: Vec<f64>,
    /// How many batches have been seen (PyTorch's `num_batches_tracked`).
    pub updates: u32,
}

impl RunningStats {
    /// Mean 0, variance 1, no batch seen: where every framework starts.
    ///
    /// ```
    /// use layernorm::reference::RunningStats;
    ///
    /// assert_eq!(RunningStats::new(3).updates, 0);
    /// ```
    pub fn new(channels: usize) -> Self {
        RunningStats { mean: vec![0.0; channels], var: vec![1.0; channels], updates: 0 }
    }

    /// Moves the statistics towards those of a batch, by a framework's convention.
    ///
    /// ```text
    /// running = (1 - w) running + w batch        w as the convention says
    /// ```
    ///
    /// # Panics
    ///
    /// If the batch has another number of channels.
    ///
    /// ```
    /// use layernorm::reference::{Affine, Convention, Nchw, RunningStats, batch_norm_train};
    ///
    /// let shape = Nchw { batch: 2, channels: 1, positions: 1 };
    /// let batch = batch_norm_train(&[1.0, 3.0], shape, Affine::NONE, 1e-5); // mean 2, variance 1 or 2
    /// let mut running = RunningStats::new(1);
    /// running.update(&batch, Convention::PyTorch { momentum: Some(0.25) });
    /// assert_eq!((running.mean[0], running.var[0]), (0.5, 1.25));
    /// ```
    pub fn update(&mut self, batch: &BatchForward, convention: Convention) {
        check_len("the batch's mean", batch.mean.len(), self.mean.len());
        check_len("the running variance", self.var.len(), self.mean.len());
        self.updates += 1;
        let w = convention.weight_of_batch(self.updates);
        let n = batch.count as f64;
        let correction = if convention.unbiased() { n / (n - 1.0) } else { 1.0 };
        for channel in 0..self.mean.len() {
            self.mean[channel] = (1.0 - w) * self.mean[channel] + w * batch.mean[channel];
            self.var[channel] = (1.0 - w) * self.var[channel] + w * batch.var[channel] * correction;
        }
    }
}
