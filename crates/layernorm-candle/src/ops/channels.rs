//! What norms of `[samples, channels, ...]` share: their shapes, and a weight and a bias for each channel.

use crate::apply::{by_kernels, expect_float, over_rows};
use crate::error::{Error, expect_device};
use crate::kernels::{Channels, Kernel, Kind, Norm};
use candle_core::{Result, Tensor};
use layernorm::{Activation, Layout};

/// Samples, channels and values of a channel in a sample, of an `x` with `rank` axes or more.
pub(crate) fn split(norm: &'static str, x: &Tensor, rank: usize) -> Result<[usize; 3]> {
    match *x.dims() {
        [samples, channels, ref rest @ ..] if 2 + rest.len() >= rank => {
            Ok([samples, channels, rest.iter().product()])
        }
        _ => {
            let needs = if rank > 2 {
                "[samples, channels, ...] with an axis more"
            } else {
                "[samples, channels, ...]"
            };
            Err(Error::Rank { norm, needs, x: x.shape().clone() }.into())
        }
    }
}

/// Each group of channels of each sample of `x` normalised by itself, then weight and bias by channel, then `activation`.
pub(crate) fn over_groups(
    x: &Tensor,
    groups: usize,
    [weight, bias]: [Option<&Tensor>; 2],
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let [_, channels, positions] = split("group-norm", x, 3)?;
    expect_parameter("weight", weight, x, channels)?;
    expect_parameter("bias", bias, x, channels)?;
    let norm = |layout| {
        let kind = Kind::Group(Channels { channels, positions, groups, layout, activation });
        Norm { kind, eps }
    };
    let (last, features) = (norm(Layout::ChannelsLast), channels * positions);
    if by_kernels(x) && norm(Layout::ChannelsFirst).blocks(x.layout(), features).is_none() {
        // Channels last in memory are read, and written, as they lie. Candle records the views.
        let x = channels_last(x)?;
        if last.blocks(x.layout(), features).is_some() {
            return channels_second(&over_rows(last, &x, features, weight, bias)?);
        }
    }
    over_rows(norm(Layout::ChannelsFirst), x, features, weight, bias)
}

/// `[samples, channels, ...]` as `[samples, ..., channels]`.
pub(crate) fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.permute([0].into_iter().chain(2..x.rank()).chain([1]).collect::<Vec<_>>())
}

/// And back.
pub(crate) fn channels_second(x: &Tensor) -> Result<Tensor> {
    x.permute([0, x.rank() - 1].into_iter().chain(1..x.rank() - 1).collect::<Vec<_>>())
}

/// A weight or a bias is there for each channel of `x`, or for all.
pub(crate) fn expect_parameter(
    name: &'static str,
    parameter: Option<&Tensor>,
    x: &Tensor,
    channels: usize,
) -> Result<()> {
    let Some(parameter) = parameter else { return Ok(()) };
    if parameter.dims() != [channels] && parameter.dims() != [1] {
        let got = parameter.shape().clone();
        return Err(Error::Channels { name, got, channels, x: x.shape().clone() }.into());
    }
    expect_float(name, parameter)?;
    expect_device(name, parameter.device(), x.device())
}

/// `weight x + bias` by channel, in the type of `x`.
pub(crate) fn affine(x: Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor> {
    let along = |parameter: &Tensor| along_channels(parameter, &x);
    let (weight, bias) = (weight.map(along).transpose()?, bias.map(along).transpose()?);
    let scaled = match weight {
        Some(weight) => x.broadcast_mul(&weight)?,
        None => x,
    };
    match bias {
        Some(bias) => scaled.broadcast_add(&bias),
        None => Ok(scaled),
    }
}

/// One value a channel, in the type of `x` and with axes of one around, so that it broadcasts.
pub(crate) fn along_channels(values: &Tensor, x: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; x.rank()];
    shape[1] = values.elem_count();
    values.to_dtype(x.dtype())?.reshape(shape)
}
