//! What can be wrong with a call, before anything is computed. It travels inside candle's error.

use candle_core::{DType, Device, DeviceLocation, Result, Shape};

/// A refused call, with what disagrees. Callers see it as the message of a [`candle_core::Error`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "{name} has shape {got:?} and x has shape {x:?}: \
         {name} needs {features} values, one for each feature, or one for all"
    )]
    Parameter { name: &'static str, got: Shape, features: usize, x: Shape },
    #[error(
        "{name} has shape {got:?} and x has shape {x:?}: {name} needs {channels} values, one for each channel"
    )]
    Channels { name: &'static str, got: Shape, channels: usize, x: Shape },
    #[error("x has shape {x:?}: {norm} needs {needs}")]
    Rank { norm: &'static str, needs: &'static str, x: Shape },
    #[error("x has shape {x:?}: {norm} needs at least one value in each {what}")]
    Empty { norm: &'static str, what: &'static str, x: Shape },
    #[error("x has shape {x:?} with {got} channels: the norm has {channels}")]
    OtherChannels { x: Shape, got: usize, channels: usize },
    #[error("{groups} groups do not divide {channels} channels")]
    Groups { groups: usize, channels: usize },
    #[error(
        "x has shape {x:?}: to train, batch norm needs two values or more in each channel, and this has {values}"
    )]
    OneValue { x: Shape, values: usize },
    #[error("{name} has shape {got:?} and x has shape {x:?}: the two must be the same")]
    OtherShape { name: &'static str, got: Shape, x: Shape },
    #[error("{name} is {got:?} and x is {x:?}: the two must be the same")]
    OtherType { name: &'static str, got: DType, x: DType },
    #[error(
        "{name} has shape {got:?} and x has shape {x:?}: {name} must be [samples, features], or broadcast to x"
    )]
    PerSample { name: &'static str, got: Shape, x: Shape },
    #[error("scale has shape {got:?} and x has shape {x:?}: scale norm has one scale, [1]")]
    Scale { got: Shape, x: Shape },
    #[error("the condition has shape {condition:?} and x has shape {x:?}: it must be [samples, {features}]")]
    Condition { condition: Shape, x: Shape, features: usize },
    #[error("{name} is {got:?}: norms are for f16, bf16, f32 and f64")]
    Type { name: &'static str, got: DType },
    #[error("{name} is on {got:?} and x is on {x:?}")]
    Device { name: &'static str, got: DeviceLocation, x: DeviceLocation },
    #[error("batch norm has {name} of shape {got:?} where [{channels}] is needed")]
    BatchNorm { name: &'static str, got: Shape, channels: usize },
    #[error("the momentum of batch norm is {momentum}, which is not in 0..=1")]
    Momentum { momentum: f64 },
    #[error(
        "a gradient of a gradient was asked for, and this norm was recorded without: \
         set CANDLE_GRAD_DO_NOT_DETACH before the program starts"
    )]
    SecondOrder,
    #[error("a tensor that was checked to have rows in memory has none")]
    Rows,
    #[error(transparent)]
    Kernel(#[from] layernorm::Error),
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        Self::wrap(error)
    }
}

/// Tensors of one call are on one device.
pub(crate) fn expect_device(name: &'static str, got: &Device, x: &Device) -> Result<()> {
    if got.same_device(x) {
        Ok(())
    } else {
        Err(Error::Device { name, got: got.location(), x: x.location() }.into())
    }
}
