//! What norms of `[batch, channels, ...]` share: their shapes, and a gamma and a beta for each channel.

use crate::Error;
use crate::apply::misfit;
use burn::tensor::Tensor;

/// Samples, channels and positions of a tensor of channels, by its shape.
pub(crate) fn split(shape: &[usize]) -> [usize; 3] {
    match *shape {
        [samples, channels, ref positions @ ..] => [samples, channels, positions.iter().product()],
        _ => [0; 3],
    }
}

/// `x` is `[batch, channels, ...]` with something to normalise, and its parameters fit the channels.
pub(crate) fn expect_channels<const D: usize>(
    norm: &'static str,
    x: &Tensor<D>,
    params: &[Option<Tensor<1>>; 2],
) -> Result<(), Error> {
    let shape = x.dims().to_vec();
    if D < 2 {
        return Err(Error::Rank { norm, needs: "[batch, channels, ...]", x: shape });
    }
    let [_, channels, positions] = split(&shape);
    if channels == 0 || positions == 0 {
        return Err(Error::Empty { x: shape });
    }
    match misfit(params, channels) {
        Some((name, len)) => Err(Error::Channels { name, len, channels, x: shape }),
        None => Ok(()),
    }
}

/// A module of so many channels takes no other `x`.
pub(crate) fn expect_same_channels<const D: usize>(channels: usize, x: &Tensor<D>) -> Result<(), Error> {
    match x.dims().get(1) {
        Some(&got) if got == channels => Ok(()),
        _ => Err(Error::OtherChannels { channels, x: x.dims().to_vec() }),
    }
}
