//! Group norm and instance norm: a sample's channels in groups, or one by one.

use super::{Affine, Backward, Forward, Nchw, RowNorm, divide};

/// Group norm: every sample's channels in `groups` equal groups, each by its own mean and variance.
///
/// ```text
/// mean, var over the channels / groups channels and all positions of a group of one sample
/// y = weight[channel] * (x - mean) / sqrt(var + eps) + bias[channel]
/// ```
///
/// Shapes: `x` and `y` [`Nchw`]; `mean` and `rstd` (batch, groups); weight and bias (channels), shared or
/// absent. With one group this is layer norm over channels and positions, with per-channel parameters; with
/// as many groups as channels it is [`instance_norm`]. A group of one number gives exactly its bias.
///
/// Source: Wu, He, *Group Normalization*, 2018, [arXiv:1803.08494](https://arxiv.org/abs/1803.08494).
///
/// # Panics
///
/// If `x` does not have the shape, a channel or a position is missing, `groups` does not divide the channels,
/// a parameter fits neither 1 nor the channels, or `eps` is negative or not finite.
///
/// ```
/// use layernorm::reference::{Affine, Nchw, group_norm};
///
/// let shape = Nchw { batch: 1, channels: 4, positions: 1 };
/// let out = group_norm(&[1.0, 3.0, 10.0, 20.0], shape, 2, Affine::NONE, 0.0);
/// assert_eq!(out.y, [-1.0, 1.0, -1.0, 1.0]);
/// assert_eq!(out.mean, [2.0, 15.0]);
/// ```
pub fn group_norm(x: &[f64], shape: Nchw, groups: usize, affine: Affine, eps: f64) -> Forward {
    let norm = group_rows(x, shape, groups, eps);
    affine.check(shape.channels);
    let mut out = norm.forward(x, Affine::NONE);
    for (i, y) in out.y.iter_mut().enumerate() {
        *y = affine.apply(shape.channel_of(i), *y);
    }
    out
}

/// The gradients of [`group_norm`].
///
/// ```text
/// u       = weight[channel] * dy
/// dx      = r (u - mean(u) - x_hat mean(u x_hat))       means over the group
/// dweight = sum over samples and positions of dy * x_hat
/// dbias   = sum over samples and positions of dy
/// ```
///
/// Shapes: `dy` and `dx` as `x`; `dweight` and `dbias` as the parameters.
///
/// Source: as [`group_norm`].
///
/// # Panics
///
/// As [`group_norm`], and if `dy` does not have the shape.
///
/// ```
/// use layernorm::reference::{Affine, Nchw, group_norm_backward};
///
/// let shape = Nchw { batch: 1, channels: 2, positions: 2 };
/// let affine = Affine::new(&[1.0, 1.0], &[0.0, 0.0]);
/// let back = group_norm_backward(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 3.0, 1.0], shape, 1, affine, 0.0);
/// assert_eq!(back.dweight, [1.0, -1.0]);
/// assert_eq!(back.dbias, [3.0, 7.0]);
/// ```
pub fn group_norm_backward(
    dy: &[f64],
    x: &[f64],
    shape: Nchw,
    groups: usize,
    affine: Affine,
    eps: f64,
) -> Backward {
    let norm = group_rows(x, shape, groups, eps);
    shape.check("dy", dy);
    affine.check(shape.channels);
    let x_hat = norm.forward(x, Affine::NONE).y;
    let mut out = Backward::zeros(0, affine);
    let mut u = vec![0.0; x.len()];
    for i in 0..x.len() {
        let channel = shape.channel_of(i);
        u[i] = affine.weight_of(channel) * dy[i];
        out.add_affine(channel, dy[i], x_hat[i]);
    }
    out.dx = norm.backward(&u, x, Affine::NONE).dx;
    out
}

/// Instance norm: every channel of every sample by the mean and variance of its own positions.
///
/// ```text
/// mean, var over the positions of one channel of one sample
/// y = weight[channel] * (x - mean) / sqrt(var + eps) + bias[channel]
/// ```
///
/// Shapes: as [`group_norm`]; `mean` and `rstd` (batch, channels).
///
/// Source: Ulyanov, Vedaldi, Lempitsky, *Instance Normalization*, 2016,
/// [arXiv:1607.08022](https://arxiv.org/abs/1607.08022).
///
/// # Panics
///
/// As [`group_norm`].
///
/// ```
/// use layernorm::reference::{Affine, Nchw, instance_norm};
///
/// let shape = Nchw { batch: 1, channels: 2, positions: 2 };
/// let out = instance_norm(&[1.0, 3.0, 10.0, 20.0], shape, Affine::NONE, 0.0);
/// assert_eq!(out.y, [-1.0, 1.0, -1.0, 1.0]);
/// ```
pub fn instance_norm(x: &[f64], shape: Nchw, affine: Affine, eps: f64) -> Forward {
    group_norm(x, shape, shape.channels, affine, eps)
}

/// The gradients of [`instance_norm`]: those of [`group_norm_backward`], with means over a channel's
/// positions.
///
/// ```text
/// dx      = r (u - mean(u) - x_hat mean(u x_hat))       means over the positions
/// dweight = sum over samples and positions of dy * x_hat
/// dbias   = sum over samples and positions of dy
/// ```
///
/// Shapes: `dy` and `dx` as `x`; `dweight` and `dbias` as the parameters.
///
/// Source: as [`instance_norm`].
///
/// # Panics
///
/// As [`group_norm_backward`].
///
/// ```
/// use layernorm::reference::{Affine, Nchw, instance_norm_backward};
///
/// let shape = Nchw { batch: 1, channels: 1, positions: 2 };
/// // Two positions at eps = 0 always become -1 and 1: no gradient is left.
/// assert_eq!(instance_norm_backward(&[1.0, 5.0], &[1.0, 3.0], shape, Affine::NONE, 0.0).dx, [0.0, 0.0]);
/// ```
pub fn instance_norm_backward(dy: &[f64], x: &[f64], shape: Nchw, affine: Affine, eps: f64) -> Backward {
    group_norm_backward(dy, x, shape, shape.channels, affine, eps)
}

/// A group of a sample is contiguous: group norm's statistics are layer norm's, over rows of one group each.
fn group_rows(x: &[f64], shape: Nchw, groups: usize, eps: f64) -> RowNorm {
    shape.check("x", x);
    let channels = divide("channels over groups", shape.channels, groups);
    RowNorm::layer(channels * shape.positions, eps)
}
