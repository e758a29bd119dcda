//! candle's tensors through the cases that all frameworks share: the bits of the slice kernels.

use candle_core::backprop::GradStore;
use candle_core::{Device, Module as _, ModuleT, Result, Tensor, Var, WithDType};
use candle_nn::VarBuilder;
use layernorm::{Activation, Epsilon, HeadNorm, Layout, Rounding, ScaleIs};
use layernorm_candle::{BatchNorm, LayerNorm, LayerNormConfig, QkNorm, layer_norm, ops};
use layernorm_conformance::{
    Affine, Backend, Case, Failure, Mode, Name, Number, Operator, Outputs, Parameters, Values, run,
    unsupported,
};

struct Candle;

impl<E: Number<Acc: WithDType> + WithDType> Backend<E> for Candle {
    fn run(&self, case: &Case<E>) -> std::result::Result<Outputs<E>, Failure> {
        match &case.parameters {
            Parameters::Own(of) => outputs(case, of, Values::Own),
            Parameters::Wide(of) => outputs(case, of, Values::Wide),
        }
    }
}

const CPU: Device = Device::Cpu;

/// The variables of a case.
struct Variables {
    x: Var,
    weight: Option<Var>,
    bias: Option<Var>,
}

impl Variables {
    fn of<E: Number + WithDType, P: WithDType>(case: &Case<E>, of: &Affine<P>) -> Result<Self> {
        let of_samples = matches!(case.operator, Operator::AdaLayerNorm(_) | Operator::AdaRmsNorm(_));
        let parameter = |values: &Option<Vec<P>>| match values {
            Some(values) if of_samples => {
                Var::from_tensor(&tensor(values, &[case.shape[0], case.features()])?).map(Some)
            }
            Some(values) => Var::from_tensor(&tensor(values, &[values.len()])?).map(Some),
            None => Ok(None),
        };
        let x = Var::from_tensor(&tensor(&case.x, &case.shape)?)?;
        Ok(Self { x, weight: parameter(&of.weight)?, bias: parameter(&of.bias)? })
    }

    fn parameters(&self) -> [Option<&Tensor>; 2] {
        [&self.weight, &self.bias].map(|parameter| parameter.as_ref().map(Var::as_tensor))
    }
}

fn tensor<T: WithDType>(values: &[T], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, &CPU)
}

fn numbers<T: WithDType>(tensor: &Tensor) -> Result<Vec<T>> {
    tensor.flatten_all()?.to_vec1()
}

/// Forward and backward, of parameters of the type `P`.
fn outputs<E: Number<Acc: WithDType> + WithDType, P: WithDType>(
    case: &Case<E>,
    of: &Affine<P>,
    values: fn(Vec<P>) -> Values<E>,
) -> std::result::Result<Outputs<E>, Failure> {
    let variables = Variables::of(case, of)?;
    let Forward { y, stream } = forward(case, &variables)?;
    let mut loss = (&y * tensor(&case.dy, &case.shape)?)?.sum_all()?;
    if let (Some(sum), Some(stream)) = (&stream, &case.stream) {
        loss = (loss + (sum * tensor(&stream.dsum, &case.shape)?)?.sum_all()?)?;
    }
    let gradients = loss.backward()?;

    let mut outputs = Outputs::new().own(Name::Y, numbers(&y)?);
    let dx = Values::Own(numbers(gradient(&gradients, &variables.x)?)?);
    outputs = match &stream {
        Some(_) if E::IS_HALF => {
            outputs.lacking(Name::Dx, "two gradients in halves, each rounded, are added")
        }
        _ => outputs.added_to_zeros(Name::Dx, dx),
    };
    for (name, variable) in [(Name::Dweight, &variables.weight), (Name::Dbias, &variables.bias)] {
        if let Some(variable) = variable {
            outputs = outputs.added_to_zeros(name, values(numbers(gradient(&gradients, variable)?)?));
        }
    }
    if let Some(stream) = stream {
        outputs = outputs.own(Name::Stream, numbers(&stream)?);
    }
    if let Operator::BatchNorm { mode: Mode::Train(_), .. } = case.operator {
        outputs = outputs.lacking(Name::Running, "they move by candle's own sums and products");
    }
    Ok(match case.operator {
        Operator::QkNorm { .. } | Operator::BatchNorm { mode: Mode::Frozen, .. } => outputs,
        _ => outputs.lacking(Name::Statistics, "operations of candle hand out one tensor"),
    })
}

fn gradient<'a>(gradients: &'a GradStore, of: &Tensor) -> Result<&'a Tensor> {
    gradients.get(of).ok_or_else(|| candle_core::Error::msg("a gradient is missing"))
}

struct Forward {
    y: Tensor,
    /// The residual stream, where something was added.
    stream: Option<Tensor>,
}

fn forward<E: Number<Acc: WithDType> + WithDType>(
    case: &Case<E>,
    variables: &Variables,
) -> std::result::Result<Forward, Failure> {
    let (x, [weight, bias], eps) = (variables.x.as_tensor(), variables.parameters(), case.eps);
    let y = match case.operator {
        Operator::LayerNorm => ops::layer_norm(x, weight, bias, eps)?,
        Operator::RmsNorm { weight_offset, partial, epsilon, rounding } => {
            if weight_offset != 0.0 || partial || epsilon != Epsilon::Inside || rounding != Rounding::Once {
                return Err(unsupported("candle's RMS norm has no such option"));
            }
            match (weight, bias) {
                (_, None) => ops::rms_norm(x, weight, eps)?,
                (Some(weight), Some(bias)) if weight.elem_count() == case.features() => {
                    uncentred(weight, bias, eps)?.forward(x)?
                }
                _ => return Err(unsupported("a bias needs a weight, both of all features")),
            }
        }
        Operator::ScaleNorm => ops::scale_norm(x, weight.ok_or_else(|| unsupported("no scale"))?, eps)?,
        Operator::L2Norm => ops::l2_norm(x, eps)?,
        Operator::QkNorm { by_head: true, .. } => return Err(unsupported("weights are of all heads")),
        Operator::QkNorm { norm, .. } => heads(norm, x, [weight, bias], eps)?,
        Operator::GroupNorm { groups, layout, activation } => pictures(layout, x, |x| match activation {
            Activation::None => ops::group_norm(x, groups, weight, bias, eps),
            _ => ops::group_norm_silu(x, groups, weight, bias, eps),
        })?,
        Operator::InstanceNorm { layout } => {
            pictures(layout, x, |x| ops::instance_norm(x, weight, bias, eps))?
        }
        Operator::BatchNorm { layout, mode } => {
            let norm = batch_norm(case, layout, [weight, bias])?;
            pictures(layout, x, |x| norm.forward_t(x, mode != Mode::Frozen))?
        }
        Operator::AdaLayerNorm(scale_is) | Operator::AdaRmsNorm(scale_is) => {
            let (ScaleIs::AboveOne, Some(scale), Some(shift)) = (scale_is, weight, bias) else {
                return Err(unsupported("adaptive norms have a scale above one and a shift"));
            };
            match case.operator {
                Operator::AdaLayerNorm(_) => ops::adaptive_layer_norm(x, scale, shift, eps)?,
                _ => ops::adaptive_rms_norm(x, scale, shift, eps)?,
            }
        }
        Operator::AddLayerNorm | Operator::AddRmsNorm => {
            let stream = case.stream.as_ref().ok_or_else(|| unsupported("no residual"))?;
            let residual = tensor(&stream.residual, &case.shape)?;
            let (y, sum) = match (case.operator, bias) {
                (Operator::AddLayerNorm, _) => ops::add_layer_norm(x, &residual, weight, bias, eps)?,
                (_, None) => ops::add_rms_norm(x, &residual, weight, eps)?,
                _ => return Err(unsupported("RMS norm behind an addition has no bias")),
            };
            return Ok(Forward { y, stream: Some(sum) });
        }
        Operator::WeightNorm { .. } => return Err(unsupported("candle has no weight norm")),
    };
    Ok(Forward { y, stream: None })
}

/// RMS norm with a bias is, in candle's words, a layer norm that does not remove the mean.
fn uncentred(weight: &Tensor, bias: &Tensor, eps: f64) -> Result<LayerNorm> {
    let named = [("weight", weight), ("bias", bias)].map(|(name, of)| (name.to_string(), of.clone()));
    let vb = VarBuilder::from_tensors(named.into(), weight.dtype(), &CPU);
    layer_norm(weight.elem_count(), LayerNormConfig { eps, remove_mean: false, affine: true }, vb)
}

fn heads(
    norm: HeadNorm,
    x: &Tensor,
    parameters: [Option<&Tensor>; 2],
    eps: f64,
) -> std::result::Result<Tensor, Failure> {
    Ok(match (norm, parameters) {
        (HeadNorm::Rms, [weight, None]) => ops::qk_rms_norm(x, x, weight, weight, eps)?.0,
        (HeadNorm::Layer, [weight, None]) => ops::qk_layer_norm(x, x, weight, weight, eps)?.0,
        (HeadNorm::L2, [None, None]) => ops::l2_norm(x, eps)?,
        (_, [Some(weight), Some(_)]) if [weight.elem_count()] != x.dims()[2..] => {
            return Err(unsupported("a bias needs a weight, both of all features"));
        }
        (HeadNorm::Layer, [Some(weight), Some(bias)]) => {
            let norm = LayerNorm::new(weight.clone(), bias.clone(), eps);
            QkNorm::new(norm.clone(), norm).forward(x, x)?.0
        }
        (HeadNorm::Rms, [Some(weight), Some(bias)]) => {
            let norm = uncentred(weight, bias, eps)?;
            QkNorm::new(norm.clone(), norm).forward(x, x)?.0
        }
        (HeadNorm::L2, _) => return Err(unsupported("L2 norm has no parameters")),
        (_, [None, Some(_)]) => return Err(unsupported("a bias needs a weight, both of all features")),
    })
}

/// `norm` of pictures, whose channels candle has second, wherever they lie.
fn pictures(layout: Layout, x: &Tensor, norm: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match layout {
        Layout::ChannelsFirst => norm(x),
        Layout::ChannelsLast => norm(&x.transpose(1, 2)?)?.transpose(1, 2),
    }
}

fn batch_norm<E: Number<Acc: WithDType>>(
    case: &Case<E>,
    layout: Layout,
    parameters: [Option<&Tensor>; 2],
) -> std::result::Result<BatchNorm, Failure> {
    let [_, channels, _] = case.images(layout);
    let running = case.running.as_ref().ok_or_else(|| unsupported("no running statistics"))?;
    let of_channels = |values| tensor(values, &[channels]);
    let (mean, var) = (of_channels(&running.mean)?, of_channels(&running.var)?);
    Ok(match parameters {
        [None, None] => BatchNorm::new_no_bias(channels, mean, var, case.eps)?,
        [Some(weight), Some(bias)] if weight.elem_count() == channels => {
            BatchNorm::new(channels, mean, var, weight.clone(), bias.clone(), case.eps)?
        }
        _ => return Err(unsupported("weight and bias are both there, one a channel, or neither is")),
    })
}

/// What candle, or this crate for it, has not.
const UNSUPPORTED: &[(&str, usize)] = &[
    ("ada_layer_norm, scale AboveOne: adaptive norms have a scale above one and a shift", 24),
    ("ada_layer_norm, scale Whole: adaptive norms have a scale above one and a shift", 132),
    ("ada_rms_norm, scale AboveOne: adaptive norms have a scale above one and a shift", 24),
    ("ada_rms_norm, scale Whole: adaptive norms have a scale above one and a shift", 132),
    ("add_rms_norm: RMS norm behind an addition has no bias", 318),
    ("batch_norm, frozen, channels last: weight and bias are both there, one a channel, or neither is", 72),
    ("batch_norm, frozen: weight and bias are both there, one a channel, or neither is", 54),
    (
        "batch_norm, training as Keras, channels last: weight and bias are both there, one a channel, or neither is",
        72,
    ),
    ("batch_norm, training as Keras: weight and bias are both there, one a channel, or neither is", 54),
    (
        "batch_norm, training as PyTorch's average, channels last: weight and bias are both there, one a channel, or neither is",
        72,
    ),
    (
        "batch_norm, training as PyTorch's average: weight and bias are both there, one a channel, or neither is",
        54,
    ),
    (
        "batch_norm, training as PyTorch, channels last: weight and bias are both there, one a channel, or neither is",
        72,
    ),
    ("batch_norm, training as PyTorch: weight and bias are both there, one a channel, or neither is", 54),
    ("dx: two gradients in halves, each rounded, are added", 324),
    ("qk_norm by L2, weights by head: weights are of all heads", 90),
    ("qk_norm by L2: L2 norm has no parameters", 90),
    ("qk_norm by Layer, weights by head: weights are of all heads", 90),
    ("qk_norm by Layer: a bias needs a weight, both of all features", 42),
    ("qk_norm by Rms, weights by head: weights are of all heads", 90),
    ("qk_norm by Rms: a bias needs a weight, both of all features", 42),
    ("rms_norm, 1 + weight, rounded as Gemma: candle's RMS norm has no such option", 402),
    ("rms_norm, 1 + weight: candle's RMS norm has no such option", 402),
    ("rms_norm, eps outside: candle's RMS norm has no such option", 402),
    ("rms_norm, partial: candle's RMS norm has no such option", 402),
    ("rms_norm, rounded as Llama: candle's RMS norm has no such option", 402),
    ("rms_norm, rounded as T5: candle's RMS norm has no such option", 402),
    ("rms_norm: a bias needs a weight, both of all features", 72),
    ("running statistics: they move by candle's own sums and products", 936),
    ("statistics: operations of candle hand out one tensor", 4290),
    ("weight_norm of axis 0: candle has no weight norm", 90),
    ("weight_norm of axis 1: candle has no weight norm", 90),
];

#[test]
fn the_bits_of_the_kernels() {
    run(&Candle).assert(UNSUPPORTED);
}
