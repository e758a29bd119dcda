//! What can be wrong with a call.

use burn::tensor::DType;

/// A call that was refused, before anything was computed.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, try_layer_norm};
///
/// let device = Device::flex();
/// let (x, gamma) = (Tensor::<2>::zeros([2, 4], &device), Tensor::<1>::ones([3], &device));
/// let error = try_layer_norm(x, gamma, None, 1e-5).unwrap_err();
/// assert_eq!(error, Error::Parameter { name: "gamma", len: 3, features: 4, x: vec![2, 4] });
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter that holds neither one value for each feature nor one for all.
    #[error(
        "{name} has shape [{len}] and x has shape {x:?}: \
         {name} needs {features} values, one for each feature, or one for all"
    )]
    Parameter {
        /// `gamma` or `beta`.
        name: &'static str,
        /// How many values it holds.
        len: usize,
        /// Features of x: the length of its last axis.
        features: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// A module that was made for another number of features.
    #[error("the norm has {d_model} features and x has shape {x:?}: the last axis of x must be {d_model}")]
    Features {
        /// The features of the module.
        d_model: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// A parameter that holds neither one value for each channel nor one for all.
    #[error(
        "{name} has shape [{len}] and x has shape {x:?}: \
         {name} needs {channels} values, one for each channel, or one for all"
    )]
    Channels {
        /// `gamma`, `beta`, `mean` or `var`.
        name: &'static str,
        /// How many values it holds.
        len: usize,
        /// Channels of x: the length of its axis 1.
        channels: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// A module that was made for another number of channels.
    #[error("the norm has {channels} channels and x has shape {x:?}: axis 1 of x must be {channels}")]
    OtherChannels {
        /// The channels of the module.
        channels: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// A tensor with too few axes.
    #[error("x has shape {x:?}: {norm} norm needs {needs}")]
    Rank {
        /// Which norm.
        norm: &'static str,
        /// The axes that it needs.
        needs: &'static str,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// Channels that cannot be split into so many equal groups.
    #[error("x has shape {x:?}: its {channels} channels cannot be split into {groups} groups")]
    Groups {
        /// Channels of x.
        channels: usize,
        /// The groups that were asked for.
        groups: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// A sample without channels or positions.
    #[error("x has shape {x:?}, so 0 numbers a sample: there is nothing to normalise")]
    Empty {
        /// The shape of x.
        x: Vec<usize>,
    },
    /// Training batch norm over fewer than two numbers a channel: their variance says nothing.
    #[error("x has shape {x:?}, so {count} numbers a channel: batch norm needs at least 2 in training")]
    OneNumber {
        /// How many numbers a channel has.
        count: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// Statistics of no feature, or of more than there are.
    #[error(
        "the mean square of the first {first} features, and x has shape {x:?}: it must be 1 to {features}"
    )]
    First {
        /// How many features the statistics were to be taken of.
        first: usize,
        /// Features of x.
        features: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// A parameter of heads that fits neither a head nor all of them.
    #[error(
        "{name} has shape [{len}] and x has shape {x:?}: {name} needs {features} values, one for each feature of a \
         head, or {all} for each head its own, or one for all"
    )]
    Heads {
        /// `gamma` or `beta`.
        name: &'static str,
        /// How many values it holds.
        len: usize,
        /// Features of a head: the length of the last axis of x.
        features: usize,
        /// Those of all heads of a token.
        all: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// A scale or shift of samples that has another shape.
    #[error(
        "{name} has shape {got:?} and x has shape {x:?}: {name} needs a row of {features} values for each of \
         {samples} samples"
    )]
    Samples {
        /// `scale` or `shift`.
        name: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// Samples of x: the length of its first axis.
        samples: usize,
        /// Features of x: the length of its last axis.
        features: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// Two tensors that must have one shape.
    #[error("{name} has shape {got:?} and x has shape {x:?}: they must be the same")]
    Shape {
        /// Which tensor.
        name: &'static str,
        /// Its shape.
        got: Vec<usize>,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// Two tensors that must have one type.
    #[error("{name} is {got:?} and x is {x:?}: they must be the same")]
    Type {
        /// Which tensor.
        name: &'static str,
        /// Its type.
        got: DType,
        /// The type of x.
        x: DType,
    },
    /// Lengths of units that are neither one for each unit nor one for all.
    #[error(
        "gamma has shape [{len}] and v has shape {v:?}: gamma needs {units} values, one for each unit on axis {axis}, \
         or one for all"
    )]
    Units {
        /// How many values gamma holds.
        len: usize,
        /// The units: the length of that axis of v.
        units: usize,
        /// The axis of the units.
        axis: usize,
        /// The shape of v.
        v: Vec<usize>,
    },
    /// An axis that the tensor has not.
    #[error("v has shape {v:?}: its {rank} axes have no axis {axis}")]
    Axis {
        /// The axis.
        axis: usize,
        /// How many axes there are.
        rank: usize,
        /// The shape of v.
        v: Vec<usize>,
    },
    /// A quantized tensor.
    #[error("x is quantized ({dtype:?}): dequantize it first")]
    Quantized {
        /// The type of x.
        dtype: DType,
    },
    /// What the kernels refuse: an epsilon that is negative or not finite in the type of the computation, or
    /// an instruction-set level that this machine lacks.
    #[error(transparent)]
    Kernel(#[from] layernorm::Error),
}
