//! Batch normalization (Ioffe, Szegedy 2015, arXiv:1502.03167, algorithm 1) as a module: `candle_nn::batch_norm`, name
//! by name.
//!
//! ```text
//! training:    y = weight (x - mean) / sqrt(var + eps) + bias          by the channel's mean and var in this batch
//!              running = (1 - momentum) running + momentum (mean, var n / (n - 1))
//! evaluating:  y = weight (x - running_mean) / sqrt(running_var + eps) + bias
//! ```

use crate::apply::{by_kernel, by_kernels, in_compute_type, over_rows};
use crate::compose::rstd;
use crate::error::Error;
use crate::group_norm::expect_channels;
use crate::kernels::{Batch, Kernel, Kind, Norm, Statistics, Taken, loaded, stored};
use crate::ops::channels::{affine, along_channels, channels_last, channels_second, expect_parameter, split};
use crate::scalar::compute_type;
use crate::statistics::statistics;
use candle_core::{ModuleT, Result, Tensor, Var};
use candle_nn::{BatchNormConfig, Init, VarBuilder};
use layernorm::Layout;
use std::sync::{Arc, OnceLock};

/// Batch norm of `[samples, channels, ...]`, by the statistics of each channel over the batch when it trains, and by
/// running statistics when it evaluates.
///
/// [Ioffe, Szegedy 2015](https://arxiv.org/abs/1502.03167), algorithm 1. Constructors, methods and the names of the
/// variables are those of `candle_nn::BatchNorm`; so is the momentum (the share of the new) and the unbiased running
/// variance. Without `remove_mean`, training is composed around the kernel of RMS norm over a copy with channels first.
///
/// ```
/// use candle_core::{DType, Device, ModuleT, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use layernorm_candle::{BatchNorm, batch_norm}; // instead of candle_nn::{BatchNorm, batch_norm}
///
/// let variables = VarMap::new();
/// let norm: BatchNorm = batch_norm(1, 0.0, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
/// let x = Tensor::new(&[[1f32], [3.]], &Device::Cpu)?;
/// assert_eq!(norm.forward_t(&x, true)?.to_vec2::<f32>()?, [[-1.], [1.]]);
/// assert_eq!(norm.running_mean().to_vec1::<f32>()?, [0.2]); // a tenth of the way to 2
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm {
    running_mean: Var,
    running_var: Var,
    weight_and_bias: Option<(Tensor, Tensor)>,
    remove_mean: bool,
    eps: f64,
    momentum: f64,
}

impl BatchNorm {
    /// Batch norm with these statistics and parameters, and a momentum of 0.1.
    ///
    /// # Errors
    /// If one is not of `num_features` values, or `eps` is negative or not finite.
    pub fn new(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: f64,
    ) -> Result<Self> {
        let config = BatchNormConfig::from(eps);
        Self::checked(num_features, [running_mean, running_var], Some((weight, bias)), config)
    }

    /// [`BatchNorm::new`] without weight and bias.
    ///
    /// # Errors
    /// As [`BatchNorm::new`].
    pub fn new_no_bias(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        eps: f64,
    ) -> Result<Self> {
        Self::checked(num_features, [running_mean, running_var], None, BatchNormConfig::from(eps))
    }

    /// [`BatchNorm::new`] with this momentum.
    ///
    /// # Errors
    /// As [`BatchNorm::new`], and if `momentum` is not in 0..=1.
    #[allow(clippy::too_many_arguments, reason = "they are candle's")]
    pub fn new_with_momentum(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: f64,
        momentum: f64,
    ) -> Result<Self> {
        let config = BatchNormConfig { eps, momentum, ..BatchNormConfig::default() };
        Self::checked(num_features, [running_mean, running_var], Some((weight, bias)), config)
    }

    /// [`BatchNorm::new_no_bias`] with this momentum.
    ///
    /// # Errors
    /// As [`BatchNorm::new_with_momentum`].
    pub fn new_no_bias_with_momentum(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        eps: f64,
        momentum: f64,
    ) -> Result<Self> {
        let config = BatchNormConfig { eps, momentum, ..BatchNormConfig::default() };
        Self::checked(num_features, [running_mean, running_var], None, config)
    }

    fn checked(
        channels: usize,
        [running_mean, running_var]: [Tensor; 2],
        weight_and_bias: Option<(Tensor, Tensor)>,
        config: BatchNormConfig,
    ) -> Result<Self> {
        let BatchNormConfig { eps, remove_mean, momentum, .. } = config;
        Norm::layer(eps).check::<f64>().map_err(Error::from)?;
        if !(0.0..=1.0).contains(&momentum) {
            return Err(Error::Momentum { momentum }.into());
        }
        let (weight, bias) = weight_and_bias.as_ref().map(|(weight, bias)| (weight, bias)).unzip();
        let all = [
            ("a running mean", Some(&running_mean)),
            ("a running variance", Some(&running_var)),
            ("a weight", weight),
            ("a bias", bias),
        ];
        for (name, tensor) in all {
            if let Some(tensor) = tensor.filter(|tensor| tensor.dims() != [channels]) {
                return Err(Error::BatchNorm { name, got: tensor.shape().clone(), channels }.into());
            }
        }
        let (running_mean, running_var) = (Var::from_tensor(&running_mean)?, Var::from_tensor(&running_var)?);
        Ok(Self { running_mean, running_var, weight_and_bias, remove_mean, eps, momentum })
    }

    /// The running mean of each channel.
    pub fn running_mean(&self) -> &Tensor {
        self.running_mean.as_tensor()
    }

    /// The running variance of each channel, unbiased.
    pub fn running_var(&self) -> &Tensor {
        self.running_var.as_tensor()
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Weight (scale) and bias of each channel, if there are.
    pub fn weight_and_bias(&self) -> Option<(&Tensor, &Tensor)> {
        self.weight_and_bias.as_ref().map(|(weight, bias)| (weight, bias))
    }

    /// The share of this batch in the running statistics.
    pub fn momentum(&self) -> f64 {
        self.momentum
    }

    /// The norm by the statistics of this batch, which move the running ones.
    ///
    /// # Errors
    /// If `x` has other channels, or less than two values in one.
    pub fn forward_train(&self, x: &Tensor) -> Result<Tensor> {
        let [samples, channels, values] = self.expect(x)?;
        let values = samples * values;
        if values < 2 {
            return Err(Error::OneValue { x: x.shape().clone(), values }.into());
        }
        let (weight, bias) = self.weight_and_bias().unzip();
        if self.remove_mean && by_kernels(x) {
            let taken = Arc::new(OnceLock::new());
            let y = self.by_kernel(x, Statistics::OfBatch(taken.clone()))?;
            if let Some(Taken { mean_and_var, .. }) = taken.get() {
                let [mean, var] = mean_and_var.each_ref().map(|values| loaded(values, x.device()));
                self.move_towards(&self.running_mean, &mean?)?;
                self.move_towards(&self.running_var, &var?)?;
            }
            return Ok(y);
        }
        let norm = Norm::with_mean_removed(self.remove_mean, self.eps);
        in_compute_type(x, |x| {
            let swapped = x.transpose(0, 1)?.contiguous()?;
            let rows = swapped.reshape((channels, values))?;
            let x_hat = over_rows(norm, &rows, values, None, None)?;
            self.update(norm.kind, &rows, values)?;
            affine(x_hat.reshape(swapped.shape())?.transpose(0, 1)?, weight, bias)
        })
    }

    /// By the kernel, where the numbers of a channel lie: channels second, or last (in memory, or because a sample has one
    /// position).
    fn by_kernel(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let [_, channels, positions] = self.expect(x)?;
        let batch = |layout| {
            let statistics = statistics.clone();
            Batch { channels, positions, layout, eps: self.eps, statistics }
        };
        let (weight, bias) = self.weight_and_bias().unzip();
        let (first, last) = (batch(Layout::ChannelsFirst), batch(Layout::ChannelsLast));
        let features = [first.features(), last.features()];
        if positions == 1 {
            return by_kernel(last, x, features[1], weight, bias);
        }
        if first.blocks(x.layout(), features[0]).is_none() {
            let x = channels_last(x)?;
            if last.blocks(x.layout(), features[1]).is_some() {
                return channels_second(&by_kernel(last, &x, features[1], weight, bias)?);
            }
        }
        by_kernel(first, x, features[0], weight, bias)
    }

    /// Moves the running statistics towards those of `rows`, a channel each.
    fn update(&self, kind: Kind, rows: &Tensor, values: usize) -> Result<()> {
        let [mean, var] = statistics(kind, rows)?;
        if self.remove_mean {
            self.move_towards(&self.running_mean, &mean)?;
        }
        self.move_towards(&self.running_var, &(var * (values as f64 / (values as f64 - 1.0)))?)
    }

    fn move_towards(&self, running: &Var, new: &Tensor) -> Result<()> {
        let new = new.to_dtype(running.dtype())?;
        running.set(&((running.as_detached_tensor() * (1.0 - self.momentum))? + (new * self.momentum)?)?)
    }

    /// The norm by the running statistics.
    fn forward_eval(&self, x: &Tensor) -> Result<Tensor> {
        self.expect(x)?;
        let (weight, bias) = self.weight_and_bias().unzip();
        if x.elem_count() == 0 {
            return Ok(x.clone());
        }
        if by_kernels(x) {
            let running = [&self.running_mean, &self.running_var];
            let computed = compute_type(x)?;
            let running = running.map(|of| stored(&of.as_detached_tensor().to_dtype(computed)?));
            let [mean, var] = running;
            return self.by_kernel(x, Statistics::Running(Arc::new([mean?, var?])));
        }
        in_compute_type(x, |x| {
            let mean = along_channels(&self.running_mean.as_detached_tensor(), x)?;
            let var = along_channels(&self.running_var.as_detached_tensor(), x)?;
            affine(x.broadcast_sub(&mean)?.broadcast_mul(&rstd(&var, self.eps)?)?, weight, bias)
        })
    }

    fn expect(&self, x: &Tensor) -> Result<[usize; 3]> {
        let sizes = split("batch-norm", x, 2)?;
        let channels = self.running_mean.elem_count();
        expect_channels(x, channels)?;
        let (weight, bias) = self.weight_and_bias().unzip();
        expect_parameter("weight", weight, x, channels)?;
        expect_parameter("bias", bias, x, channels)?;
        Ok(sizes)
    }
}

impl ModuleT for BatchNorm {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        if train { self.forward_train(x) } else { self.forward_eval(x) }
    }
}

/// A [`BatchNorm`] from the variables `running_mean`, `running_var` and, if the config says `affine`, `weight` and
/// `bias` at `vb`; 0, 1, 1 and 0 where `vb` makes new ones.
///
/// # Errors
/// If `vb` lacks the variables or has them in other shapes, or the config's eps or momentum can't be.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
/// use layernorm_candle::{BatchNormConfig, batch_norm};
///
/// let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
/// let norm = batch_norm(4, BatchNormConfig { affine: false, ..Default::default() }, vb)?;
/// assert!(norm.weight_and_bias().is_none());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn batch_norm<C: Into<BatchNormConfig>>(
    num_features: usize,
    config: C,
    vb: VarBuilder,
) -> Result<BatchNorm> {
    let config = config.into();
    let get = |name, value| vb.get_with_hints(num_features, name, Init::Const(value));
    let running = [get("running_mean", 0.)?, get("running_var", 1.)?];
    let weight_and_bias = if config.affine { Some((get("weight", 1.)?, get("bias", 0.)?)) } else { None };
    BatchNorm::checked(num_features, running, weight_and_bias, config)
}
