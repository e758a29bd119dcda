//! What a framework is given.

use crate::{Data, Float, Number};
use layernorm::{Activation, Convention, Epsilon, HeadNorm, Layout, Rounding, RunningStats, ScaleIs};
use std::fmt;

/// Which norm, with its options. `Display` names the norm and the options, without sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operator {
    /// Over the last axis.
    LayerNorm,
    /// Over the last axis.
    RmsNorm {
        /// Added to each weight.
        weight_offset: f64,
        /// The mean square is that of the first half of the features, rounded up.
        partial: bool,
        /// Where epsilon stands.
        epsilon: Epsilon,
        /// Where halves are rounded.
        rounding: Rounding,
    },
    /// Over the last axis. The weight is the scale.
    ScaleNorm,
    /// Over the last axis.
    L2Norm,
    /// Over the last of (tokens, heads, numbers of a head).
    QkNorm {
        /// By what a head is measured.
        norm: HeadNorm,
        /// Has each head a weight of its own?
        by_head: bool,
    },
    /// Of (samples, channels, positions) or, channels last, (samples, positions, channels).
    GroupNorm {
        /// Groups of channels.
        groups: usize,
        /// Which of the two.
        layout: Layout,
        /// What follows.
        activation: Activation,
    },
    /// As group norm, with as many groups as channels.
    InstanceNorm {
        /// Which of the two.
        layout: Layout,
    },
    /// Of (samples, channels, positions) or, channels last, (samples, positions, channels).
    BatchNorm {
        /// Which of the two.
        layout: Layout,
        /// Whose statistics.
        mode: Mode,
    },
    /// Over the last of (samples, positions, features). Weight and bias, (samples, features), are scale and shift.
    AdaLayerNorm(ScaleIs),
    /// As adaptive layer norm.
    AdaRmsNorm(ScaleIs),
    /// Of the sum of x and a residual stream, over the last axis.
    AddLayerNorm,
    /// As add and layer norm.
    AddRmsNorm,
    /// The weight is the gain, x are the directions, y the weights.
    WeightNorm {
        /// That of output units.
        axis: usize,
    },
}

/// Whose statistics a batch norm takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// Those of the batch, which move the running ones.
    Train(Convention),
    /// The running ones. They are constants of the backward pass, too: that of a frozen norm.
    Frozen,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lie = |layout| match layout {
            Layout::ChannelsFirst => "",
            Layout::ChannelsLast => ", channels last",
        };
        match *self {
            Self::LayerNorm => f.write_str("layer_norm"),
            Self::RmsNorm { weight_offset, partial, epsilon, rounding } => {
                f.write_str("rms_norm")?;
                if weight_offset != 0.0 {
                    write!(f, ", {weight_offset} + weight")?;
                }
                if partial {
                    f.write_str(", partial")?;
                }
                if epsilon == Epsilon::Outside {
                    f.write_str(", eps outside")?;
                }
                if rounding == Rounding::Once { Ok(()) } else { write!(f, ", rounded as {rounding:?}") }
            }
            Self::ScaleNorm => f.write_str("scale_norm"),
            Self::L2Norm => f.write_str("l2_norm"),
            Self::QkNorm { norm, by_head } => {
                write!(f, "qk_norm by {norm:?}{}", if by_head { ", weights by head" } else { "" })
            }
            Self::GroupNorm { layout, activation, .. } => {
                let silu = if activation == Activation::None { "" } else { ", silu" };
                write!(f, "group_norm{}{silu}", lie(layout))
            }
            Self::InstanceNorm { layout } => write!(f, "instance_norm{}", lie(layout)),
            Self::BatchNorm { layout, mode: Mode::Frozen } => write!(f, "batch_norm, frozen{}", lie(layout)),
            Self::BatchNorm { layout, mode: Mode::Train(convention) } => {
                write!(f, "batch_norm, training as {}{}", name(convention), lie(layout))
            }
            Self::AdaLayerNorm(scale_is) => write!(f, "ada_layer_norm, scale {scale_is:?}"),
            Self::AdaRmsNorm(scale_is) => write!(f, "ada_rms_norm, scale {scale_is:?}"),
            Self::AddLayerNorm => f.write_str("add_layer_norm"),
            Self::AddRmsNorm => f.write_str("add_rms_norm"),
            Self::WeightNorm { axis } => write!(f, "weight_norm of axis {axis}"),
        }
    }
}

/// Whose formula, without its numbers.
fn name(convention: Convention) -> &'static str {
    match convention {
        Convention::PyTorch { momentum: None } => "PyTorch's average",
        Convention::PyTorch { .. } => "PyTorch",
        Convention::Keras { .. } => "Keras",
        Convention::TfKeras { .. } => "tf.keras",
        Convention::Flax { .. } => "Flax",
        Convention::Onnx { .. } => "ONNX",
    }
}

/// Weight and bias, where there are.
#[derive(Debug, Clone)]
pub struct Affine<P> {
    /// One for all, or as many as the operator says.
    pub weight: Option<Vec<P>>,
    /// As the weight.
    pub bias: Option<Vec<P>>,
}

/// Weight and bias, of the elements' type or of the one that sums have.
#[derive(Debug, Clone)]
pub enum Parameters<E: Number> {
    /// Of the elements' type.
    Own(Affine<E>),
    /// f32 beside halves.
    Wide(Affine<E::Acc>),
}

/// A residual stream.
#[derive(Debug, Clone)]
pub struct Stream<E> {
    /// To which x is added.
    pub residual: Vec<E>,
    /// The gradient of their sum, beside that which comes through the norm.
    pub dsum: Vec<E>,
}

/// One call, and that of its gradients.
#[derive(Debug, Clone)]
pub struct Case<E: Number> {
    /// Which norm.
    pub operator: Operator,
    /// Of `x` and `dy`, which lie in the order of the axes, the last one fastest.
    pub shape: Vec<usize>,
    /// Epsilon.
    pub eps: f64,
    /// What the numbers are like.
    pub data: Data,
    /// The input.
    pub x: Vec<E>,
    /// The gradient of y.
    pub dy: Vec<E>,
    /// Weight and bias. Where one is there, its gradient is an output.
    pub parameters: Parameters<E>,
    /// Where something is added to x.
    pub stream: Option<Stream<E>>,
    /// The running statistics of batch norm: before the call in training, constants in evaluation.
    pub running: Option<RunningStats<E::Acc>>,
}

impl<E: Number> Case<E> {
    /// Numbers in the last axis.
    pub fn features(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows of [`Case::features`].
    pub fn rows(&self) -> usize {
        self.x.len() / self.features()
    }

    /// Samples, channels and positions of images of three axes, which lie so.
    ///
    /// # Panics
    /// If there are other axes.
    pub fn images(&self, layout: Layout) -> [usize; 3] {
        match (&self.shape[..], layout) {
            (&[samples, channels, positions], Layout::ChannelsFirst)
            | (&[samples, positions, channels], Layout::ChannelsLast) => [samples, channels, positions],
            _ => panic!("{self} has not three axes"),
        }
    }
}

impl<E: Number> fmt::Display for Case<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operator, shape, eps, data, .. } = self;
        let lengths = |weight: Option<usize>, bias: Option<usize>, of: &str| {
            let length = |len: Option<usize>| len.map_or("no".to_string(), |len| len.to_string());
            format!("{} weights, {} biases of {of}", length(weight), length(bias))
        };
        let parameters = match &self.parameters {
            Parameters::Own(of) => {
                lengths(of.weight.as_ref().map(Vec::len), of.bias.as_ref().map(Vec::len), E::NAME)
            }
            Parameters::Wide(of) => {
                lengths(of.weight.as_ref().map(Vec::len), of.bias.as_ref().map(Vec::len), E::Acc::NAME)
            }
        };
        write!(f, "{operator} of {shape:?} {}, {parameters}, eps {eps:e}, {data:?} data", E::NAME)
    }
}
