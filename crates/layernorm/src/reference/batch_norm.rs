//! Batch norm in training: every channel by its mean and variance over the batch.

use super::{Affine, Backward, Nchw, RowNorm, check_eps};

/// What [`batch_norm_train`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchForward {
    /// The output, shaped as `x`.
    pub y: Vec<f64>,
    /// The mean of each channel.
    pub mean: Vec<f64>,
    /// The biased variance of each channel; [`RunningStats`](super::RunningStats) corrects it where a
    /// convention does.
    pub var: Vec<f64>,
    /// `1 / sqrt(var + eps)` of each channel.
    pub rstd: Vec<f64>,
    /// How many numbers each channel's statistics are taken over: `batch * positions`.
    pub count: usize,
}

/// Batch norm in training: every channel by its mean and biased variance over samples and positions.
///
/// ```text
/// mean, var over the batch and the positions of one channel
/// y = weight[channel] * (x - mean) / sqrt(var + eps) + bias[channel]
/// ```
///
/// Shapes: `x` and `y` [`Nchw`] (one position for (batch, channels)); `mean`, `var`, `rstd` and the
/// parameters (channels), a parameter also shared or absent. The output always uses the biased variance;
/// running statistics are a separate step with a [`Convention`](super::Convention). Batch norm synchronised
/// over workers is this, on the workers' batches joined.
///
/// Source: Ioffe, Szegedy, *Batch Normalization*, 2015, [arXiv:1502.03167](https://arxiv.org/abs/1502.03167).
///
/// # Panics
///
/// If `x` does not have the shape, a channel or a position is missing, a channel holds fewer than 2 numbers,
/// a parameter fits neither 1 nor the channels, or `eps` is negative or not finite.
///
/// ```
/// use layernorm::reference::{Affine, Nchw, batch_norm_train};
///
/// let shape = Nchw { batch: 2, channels: 2, positions: 1 };
/// let out = batch_norm_train(&[1.0, 10.0, 3.0, 20.0], shape, Affine::NONE, 0.0);
/// assert_eq!(out.y, [-1.0, -1.0, 1.0, 1.0]);
/// assert_eq!((out.mean, out.var, out.count), (vec![2.0, 15.0], vec![1.0, 25.0], 2));
/// ```
pub fn batch_norm_train(x: &[f64], shape: Nchw, affine: Affine, eps: f64) -> BatchForward {
    let norm = check(x, shape, affine, eps);
    let mut out = BatchForward { y: vec![0.0; x.len()], count: norm.features, ..BatchForward::default() };
    for channel in 0..shape.channels {
        let row = norm.normalise(&gather(x, shape, channel));
        for (i, x_hat) in shape.elements_of(channel).zip(&row.x_hat) {
            out.y[i] = affine.apply(channel, *x_hat);
        }
        out.mean.extend(row.mean);
        out.var.push(row.var);
        out.rstd.push(row.rstd);
    }
    out
}

/// The gradients of [`batch_norm_train`]; the batch statistics depend on `x`, and the gradient flows through
/// them.
///
/// ```text
/// u       = weight[channel] * dy
/// dx      = r (u - mean(u) - x_hat mean(u x_hat))       means over the channel
/// dweight = sum over the channel of dy * x_hat
/// dbias   = sum over the channel of dy
/// ```
///
/// Shapes: `dy` and `dx` as `x`; `dweight` and `dbias` as the parameters.
///
/// Source: as [`batch_norm_train`].
///
/// # Panics
///
/// As [`batch_norm_train`], and if `dy` does not have the shape.
///
/// ```
/// use layernorm::reference::{Affine, Nchw, batch_norm_train_backward};
///
/// let shape = Nchw { batch: 2, channels: 1, positions: 1 };
/// let affine = Affine::new(&[3.0], &[0.0]);
/// let back = batch_norm_train_backward(&[1.0, 5.0], &[1.0, 3.0], shape, affine, 0.0);
/// assert_eq!(back.dx, [0.0, 0.0]); // two numbers always become -1 and 1
/// assert_eq!((back.dweight, back.dbias), (vec![4.0], vec![6.0]));
/// ```
pub fn batch_norm_train_backward(dy: &[f64], x: &[f64], shape: Nchw, affine: Affine, eps: f64) -> Backward {
    let norm = check(x, shape, affine, eps);
    shape.check("dy", dy);
    let mut out = Backward::zeros(x.len(), affine);
    for channel in 0..shape.channels {
        let row = norm.normalise(&gather(x, shape, channel));
        let dy = gather(dy, shape, channel);
        let u: Vec<f64> = dy.iter().map(|dy| affine.weight_of(channel) * dy).collect();
        for (i, dx) in shape.elements_of(channel).zip(norm.input_gradient(&u, &row)) {
            out.dx[i] = dx;
        }
        for (dy, x_hat) in dy.iter().zip(&row.x_hat) {
            out.add_affine(channel, *dy, *x_hat);
        }
    }
    out
}

/// Checks the shapes; returns the norm of one channel's numbers as a row.
fn check(x: &[f64], shape: Nchw, affine: Affine, eps: f64) -> RowNorm {
    shape.check("x", x);
    affine.check(shape.channels);
    check_eps(eps);
    let count = shape.batch * shape.positions;
    assert!(count >= 2, "a channel holds {count} numbers, expected at least 2 in training");
    RowNorm::layer(count, eps)
}

/// A channel's numbers, sample by sample.
fn gather(values: &[f64], shape: Nchw, channel: usize) -> Vec<f64> {
    shape.elements_of(channel).map(|i| values[i]).collect()
}
