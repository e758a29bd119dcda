//! Batch norm after training: with running statistics, and folded into one multiply and add.

use super::{Affine, Backward, Nchw, RunningStats, check_eps, check_len, reciprocal_or_zero};

/// Batch norm folded into `y = scale * x + shift`, one pair a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// `weight / sqrt(var + eps)`.
    pub scale: Vec<f64>,
    /// `bias - mean * scale`.
    pub shift: Vec<f64>,
}

/// Batch norm in evaluation: every channel by its running statistics.
///
/// ```text
/// y = weight[channel] * (x - running.mean) / sqrt(running.var + eps) + bias[channel]
/// ```
///
/// Shapes: `x` and `y` [`Nchw`]; running statistics and parameters (channels), a parameter also shared or
/// absent. Any number of samples, none included. Nothing in a sample depends on its neighbours.
///
/// Source: Ioffe, Szegedy, 2015, algorithm 2, [arXiv:1502.03167](https://arxiv.org/abs/1502.03167).
///
/// # Panics
///
/// If `x` does not have the shape, a channel or a position is missing, the running statistics or a parameter
/// do not fit the channels, or `eps` is negative or not finite.
///
/// ```
/// use layernorm::reference::{Affine, Nchw, RunningStats, batch_norm_eval};
///
/// let shape = Nchw { batch: 1, channels: 2, positions: 1 };
/// let running = RunningStats { mean: vec![1.0, 0.0], var: vec![4.0, 1.0], updates: 1 };
/// assert_eq!(batch_norm_eval(&[5.0, 7.0], shape, &running, Affine::NONE, 0.0), [2.0, 7.0]);
/// ```
pub fn batch_norm_eval(x: &[f64], shape: Nchw, running: &RunningStats, affine: Affine, eps: f64) -> Vec<f64> {
    shape.check("x", x);
    let x_hat = running.normalise(x, shape, eps);
    affine.check(shape.channels);
    x_hat.iter().enumerate().map(|(i, x_hat)| affine.apply(shape.channel_of(i), *x_hat)).collect()
}

/// The gradients of [`batch_norm_eval`]; the running statistics are constants.
///
/// ```text
/// dx      = weight[channel] * dy / sqrt(running.var + eps)
/// dweight = sum over the channel of dy * (x - running.mean) / sqrt(running.var + eps)
/// dbias   = sum over the channel of dy
/// ```
///
/// Shapes: `dy` and `dx` as `x`; `dweight` and `dbias` as the parameters.
///
/// Source: as [`batch_norm_eval`].
///
/// # Panics
///
/// As [`batch_norm_eval`], and if `dy` does not have the shape.
///
/// ```
/// use layernorm::reference::{Affine, Nchw, RunningStats, batch_norm_eval_backward};
///
/// let shape = Nchw { batch: 1, channels: 1, positions: 2 };
/// let running = RunningStats { mean: vec![1.0], var: vec![4.0], updates: 1 };
/// let affine = Affine::new(&[3.0], &[0.0]);
/// let back = batch_norm_eval_backward(&[1.0, 2.0], &[5.0, 7.0], shape, &running, affine, 0.0);
/// assert_eq!((back.dx, back.dweight, back.dbias), (vec![1.5, 3.0], vec![8.0], vec![3.0]));
/// ```
pub fn batch_norm_eval_backward(
    dy: &[f64],
    x: &[f64],
    shape: Nchw,
    running: &RunningStats,
    affine: Affine,
    eps: f64,
) -> Backward {
    shape.check("x", x);
    shape.check("dy", dy);
    affine.check(shape.channels);
    let x_hat = running.normalise(x, shape, eps);
    let mut out = Backward::zeros(x.len(), affine);
    for i in 0..x.len() {
        let channel = shape.channel_of(i);
        out.dx[i] = affine.weight_of(channel) * dy[i] * running.rstd(channel, eps);
        out.add_affine(channel, dy[i], x_hat[i]);
    }
    out
}

/// Folds frozen batch norm into one multiply and one add a channel.
///
/// ```text
/// scale = weight / sqrt(running.var + eps)
/// shift = bias - running.mean * scale
/// ```
///
/// Shapes: all (channels). The pair can be folded further, into the convolution before it.
///
/// Source: `FrozenBatchNorm2d` of torchvision; the algebra of [`batch_norm_eval`].
///
/// # Panics
///
/// If the running variance or a parameter does not fit the running mean, or `eps` is negative or not finite.
///
/// ```
/// use layernorm::reference::{Affine, RunningStats, batch_norm_fold};
///
/// let running = RunningStats { mean: vec![1.0], var: vec![4.0], updates: 1 };
/// let folded = batch_norm_fold(&running, Affine::new(&[3.0], &[2.0]), 0.0);
/// assert_eq!((folded.scale, folded.shift), (vec![1.5], vec![0.5]));
/// ```
pub fn batch_norm_fold(running: &RunningStats, affine: Affine, eps: f64) -> Folded {
    let channels = running.mean.len();
    running.check(channels, eps);
    affine.check(channels);
    let scale: Vec<f64> = (0..channels).map(|c| affine.weight_of(c) * running.rstd(c, eps)).collect();
    let shift = (0..channels).map(|c| affine.apply(c, 0.0) - running.mean[c] * scale[c]).collect();
    Folded { scale, shift }
}

/// Frozen batch norm, by its folded pair.
///
/// ```text
/// y = scale[channel] * x + shift[channel]
/// ```
///
/// Shapes: `x` and `y` [`Nchw`]; scale and shift (channels). Equal to [`batch_norm_eval`] but for rounding.
///
/// Source: as [`batch_norm_fold`].
///
/// # Panics
///
/// If `x` does not have the shape, a channel or a position is missing, or the pair does not fit the channels.
///
/// ```
/// use layernorm::reference::{Folded, Nchw, batch_norm_frozen};
///
/// let shape = Nchw { batch: 2, channels: 1, positions: 1 };
/// let folded = Folded { scale: vec![1.5], shift: vec![0.5] };
/// assert_eq!(batch_norm_frozen(&[1.0, 3.0], shape, &folded), [2.0, 5.0]);
/// ```
pub fn batch_norm_frozen(x: &[f64], shape: Nchw, folded: &Folded) -> Vec<f64> {
    shape.check("x", x);
    check_len("scale", folded.scale.len(), shape.channels);
    check_len("shift", folded.shift.len(), shape.channels);
    let apply = |(i, x): (usize, &f64)| {
        let channel = shape.channel_of(i);
        folded.scale[channel] * x + folded.shift[channel]
    };
    x.iter().enumerate().map(apply).collect()
}

/// The gradient of [`batch_norm_frozen`] by `x`; everything else is a constant.
///
/// ```text
/// dx = scale[channel] * dy
/// ```
///
/// Shapes: `dy` and `dx` [`Nchw`].
///
/// Source: as [`batch_norm_fold`].
///
/// # Panics
///
/// As [`batch_norm_frozen`].
///
/// ```
/// use layernorm::reference::{Folded, Nchw, batch_norm_frozen_backward};
///
/// let shape = Nchw { batch: 2, channels: 1, positions: 1 };
/// let folded = Folded { scale: vec![1.5], shift: vec![0.5] };
/// assert_eq!(batch_norm_frozen_backward(&[1.0, 2.0], shape, &folded), [1.5, 3.0]);
/// ```
pub fn batch_norm_frozen_backward(dy: &[f64], shape: Nchw, folded: &Folded) -> Vec<f64> {
    shape.check("dy", dy);
    check_len("scale", folded.scale.len(), shape.channels);
    dy.iter().enumerate().map(|(i, dy)| folded.scale[shape.channel_of(i)] * dy).collect()
}

impl RunningStats {
    fn check(&self, channels: usize, eps: f64) {
        check_len("the running mean", self.mean.len(), channels);
        check_len("the running variance", self.var.len(), channels);
        check_eps(eps);
    }

    fn rstd(&self, channel: usize, eps: f64) -> f64 {
        reciprocal_or_zero((self.var[channel] + eps).sqrt())
    }

    fn normalise(&self, x: &[f64], shape: Nchw, eps: f64) -> Vec<f64> {
        self.check(shape.channels, eps);
        let x_hat = |(i, x): (usize, &f64)| {
            let channel = shape.channel_of(i);
            (x - self.mean[channel]) * self.rstd(channel, eps)
        };
        x.iter().enumerate().map(x_hat).collect()
    }
}
