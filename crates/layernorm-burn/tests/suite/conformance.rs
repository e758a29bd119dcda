//! Burn's tensors through the cases that all frameworks share: the bits of the slice kernels.

use super::*;
use burn::module::{Param, RunningState};
use burn::tensor::Gradients;
use layernorm::{Activation, Convention, Epsilon, HeadNorm, Layout, Rounding, ScaleIs};
use layernorm_burn::{BatchMode, HeadNormKind, NormConfig, Running};
use layernorm_conformance::{
    Affine, Backend, Case, Failure, Mode, Name, Number, Operator, Outputs, Parameters, Values, run,
    unsupported,
};

struct Burn;

impl<E: Number<Acc: Element> + Element> Backend<E> for Burn {
    fn run(&self, case: &Case<E>) -> Result<Outputs<E>, Failure> {
        match &case.parameters {
            Parameters::Own(of) => outputs(case, of, Values::Own),
            Parameters::Wide(of) => outputs(case, of, Values::Wide),
        }
    }
}

fn tensor_of<T: Element, const D: usize>(values: &[T], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (&Device::flex().autodiff(), T::dtype()))
}

/// The shape of a case with three axes: rows behind an axis of one, weights with the axes behind the second as one.
fn shape<E: Number>(case: &Case<E>) -> [usize; 3] {
    match (case.operator, &case.shape[..]) {
        (Operator::WeightNorm { .. }, [first, second, rest @ ..]) => [*first, *second, rest.iter().product()],
        (
            Operator::QkNorm { .. }
            | Operator::GroupNorm { .. }
            | Operator::InstanceNorm { .. }
            | Operator::BatchNorm { .. }
            | Operator::AdaLayerNorm(_)
            | Operator::AdaRmsNorm(_),
            &[first, second, third],
        ) => [first, second, third],
        _ => [1, case.rows(), case.features()],
    }
}

/// Forward and backward, of parameters of the type `P`.
fn outputs<E: Number<Acc: Element> + Element, P: Element>(
    case: &Case<E>,
    of: &Affine<P>,
    values: fn(Vec<P>) -> Values<E>,
) -> Result<Outputs<E>, Failure> {
    let shape = shape(case);
    let x = tensor_of(&case.x, shape).require_grad();
    let parameters = [&of.weight, &of.bias]
        .map(|of| of.as_ref().map(|values| tensor_of(values, [values.len()]).require_grad()));
    let Forward { y, stream, running } = forward(case, x.clone(), parameters.clone())?;
    let mut loss = (y.clone() * tensor_of(&case.dy, shape)).sum();
    if let (Some(sum), Some(stream)) = (&stream, &case.stream) {
        loss = loss + (sum.clone() * tensor_of(&stream.dsum, shape)).sum();
    }
    let gradients = loss.backward();

    let mut outputs = Outputs::new().own(Name::Y, numbers(y));
    outputs = match &stream {
        Some(_) if E::IS_HALF => {
            outputs.lacking(Name::Dx, "two gradients in halves, each rounded, are added")
        }
        _ => outputs.own(Name::Dx, gradient(&gradients, &x)?),
    };
    for (name, parameter) in [Name::Dweight, Name::Dbias].into_iter().zip(&parameters) {
        if let Some(parameter) = parameter {
            let sums = values(gradient(&gradients, parameter)?);
            outputs = match sums {
                Values::Own(sums) => outputs.own(name, sums),
                Values::Wide(sums) => outputs.wide(name, sums),
            };
        }
    }
    if let Some(stream) = stream {
        outputs = outputs.own(Name::Stream, numbers(stream));
    }
    if let Some(running) = running {
        outputs = outputs.wide(Name::Running, running.map(numbers).concat());
    }
    Ok(match case.operator {
        Operator::QkNorm { .. } | Operator::BatchNorm { mode: Mode::Frozen, .. } => outputs,
        _ => outputs.lacking(Name::Statistics, "they stay in Burn's graph"),
    })
}

fn numbers<T: Element, const D: usize>(tensor: Tensor<D>) -> Vec<T> {
    vec_of(tensor.without_autodiff())
}

fn gradient<T: Element, const D: usize>(gradients: &Gradients, of: &Tensor<D>) -> Result<Vec<T>, Failure> {
    of.grad(gradients).map(numbers).ok_or(Failure::Failed("a gradient is missing".to_string()))
}

struct Forward {
    y: Tensor<3>,
    /// The residual stream, where something was added.
    stream: Option<Tensor<3>>,
    /// What training made of running statistics.
    running: Option<[Tensor<1>; 2]>,
}

fn forward<E: Number<Acc: Element> + Element>(
    case: &Case<E>,
    x: Tensor<3>,
    [gamma, beta]: [Option<Tensor<1>>; 2],
) -> Result<Forward, Failure> {
    use layernorm_burn as ours;
    let eps = case.eps;
    let [samples, units, features] = x.dims();
    let y = match case.operator {
        Operator::LayerNorm => ours::try_layer_norm(x, gamma, beta, eps)?,
        Operator::RmsNorm { weight_offset, partial, epsilon, rounding } => {
            if weight_offset != 0.0 || epsilon != Epsilon::Inside || rounding != Rounding::Once {
                return Err(unsupported("Burn's RMS norm has no such option"));
            }
            if partial {
                ours::try_partial_rms_norm(x, features.div_ceil(2), gamma, beta, eps)?
            } else {
                ours::try_rms_norm(x, gamma, beta, eps)?
            }
        }
        Operator::ScaleNorm => ours::try_scale_norm(x, gamma, eps)?,
        Operator::L2Norm => ours::try_l2_norm(x, eps)?,
        Operator::QkNorm { norm, .. } => {
            let kind = match norm {
                HeadNorm::Rms => HeadNormKind::Rms,
                HeadNorm::Layer => HeadNormKind::Layer,
                HeadNorm::L2 => HeadNormKind::L2,
            };
            ours::try_head_norm(x, kind, gamma, beta, eps)?
        }
        Operator::GroupNorm { activation, .. } if activation != Activation::None => {
            return Err(unsupported("SiLU is Burn's own"));
        }
        Operator::GroupNorm { groups, layout, .. } => {
            second(layout, ours::try_group_norm(second(layout, x), groups, gamma, beta, eps)?)
        }
        Operator::InstanceNorm { layout } => {
            second(layout, ours::try_instance_norm(second(layout, x), gamma, beta, eps)?)
        }
        Operator::BatchNorm { layout, mode } => return batch_norm(case, layout, mode, x, [gamma, beta]),
        Operator::AdaLayerNorm(scale) | Operator::AdaRmsNorm(scale) => {
            if scale != ScaleIs::AboveOne {
                return Err(unsupported("scale is what is above 1"));
            }
            let rows = |of: Tensor<1>| of.reshape([samples, features]);
            let scale = rows(gamma.ok_or_else(|| unsupported("no scale"))?);
            let shift = beta.map(rows);
            match case.operator {
                Operator::AdaLayerNorm(_) => ours::try_adaptive_layer_norm(x, scale, shift, eps)?,
                _ => ours::try_adaptive_rms_norm(x, scale, shift, eps)?,
            }
        }
        Operator::AddLayerNorm | Operator::AddRmsNorm => {
            let stream = case.stream.as_ref().ok_or_else(|| unsupported("no residual"))?;
            let residual = tensor_of(&stream.residual, [samples, units, features]);
            let (y, sum) = match case.operator {
                Operator::AddLayerNorm => ours::try_add_layer_norm(x, residual, gamma, beta, eps)?,
                _ => ours::try_add_rms_norm(x, residual, gamma, beta, eps)?,
            };
            return Ok(Forward { y, stream: Some(sum), running: None });
        }
        Operator::WeightNorm { axis } => {
            ours::try_weight_norm(x, gamma.ok_or_else(|| unsupported("no gain"))?, axis)?
        }
    };
    Ok(Forward { y, stream: None, running: None })
}

/// From pictures that lie so to channels second, or back.
fn second(layout: Layout, x: Tensor<3>) -> Tensor<3> {
    match layout {
        Layout::ChannelsFirst => x,
        Layout::ChannelsLast => x.swap_dims(1, 2),
    }
}

fn batch_norm<E: Number<Acc: Element>>(
    case: &Case<E>,
    layout: Layout,
    mode: Mode,
    x: Tensor<3>,
    [gamma, beta]: [Option<Tensor<1>>; 2],
) -> Result<Forward, Failure> {
    let [_, channels, positions] = case.images(layout);
    if layout == Layout::ChannelsLast && positions > 1 {
        return Err(unsupported("channels are second: others are copied, and summed in that order"));
    }
    let x = second(layout, x);
    let given = case.running.as_ref().ok_or_else(|| unsupported("no running statistics"))?;
    let (mean, var) = (tensor_of(&given.mean, [channels]), tensor_of(&given.var, [channels]));
    let running = match mode {
        Mode::Frozen => {
            let y = layernorm_burn::try_batch_norm_eval(x, mean, var, gamma, beta, case.eps)?;
            return Ok(Forward { y: second(layout, y), stream: None, running: None });
        }
        Mode::Train(Convention::PyTorch { momentum: Some(momentum) }) => Running { momentum, unbiased: true },
        Mode::Train(Convention::Keras { momentum }) => Running { momentum: 1.0 - momentum, unbiased: false },
        Mode::Train(_) => return Err(unsupported("Burn has no average of all batches")),
    };
    let config = NormConfig::batch().with_epsilon(case.eps).with_mode(BatchMode::Train).with_running(running);
    let mut norm = config.init(channels, &x.device());
    (norm.gamma, norm.beta) = (gamma.map(Param::from_tensor), beta.map(Param::from_tensor));
    (norm.running[0].mean, norm.running[0].var) = (RunningState::new(mean), RunningState::new(var));
    let y = norm.try_forward_at(x, 0)?;
    Ok(Forward { y: second(layout, y), stream: None, running: Some(norm.running[0].values()) })
}

/// What Burn, or this crate for it, has not.
const UNSUPPORTED: &[(&str, usize)] = &[
    ("ada_layer_norm, scale Whole: scale is what is above 1", 132),
    ("ada_rms_norm, scale Whole: scale is what is above 1", 132),
    (
        "batch_norm, frozen, channels last: channels are second: others are copied, and summed in that order",
        198,
    ),
    (
        "batch_norm, training as Keras, channels last: channels are second: others are copied, and summed in that order",
        198,
    ),
    ("batch_norm, training as PyTorch's average, channels last: Burn has no average of all batches", 42),
    (
        "batch_norm, training as PyTorch's average, channels last: channels are second: others are copied, and summed in that order",
        198,
    ),
    ("batch_norm, training as PyTorch's average: Burn has no average of all batches", 198),
    (
        "batch_norm, training as PyTorch, channels last: channels are second: others are copied, and summed in that order",
        198,
    ),
    ("dx: two gradients in halves, each rounded, are added", 536),
    ("group_norm, channels last, silu: SiLU is Burn's own", 240),
    ("group_norm, silu: SiLU is Burn's own", 240),
    ("rms_norm, 1 + weight, rounded as Gemma: Burn's RMS norm has no such option", 402),
    ("rms_norm, 1 + weight: Burn's RMS norm has no such option", 402),
    ("rms_norm, eps outside: Burn's RMS norm has no such option", 402),
    ("rms_norm, rounded as Llama: Burn's RMS norm has no such option", 402),
    ("rms_norm, rounded as T5: Burn's RMS norm has no such option", 402),
    ("statistics: they stay in Burn's graph", 4374),
];

#[test]
fn the_bits_of_the_kernels() {
    run(&Burn).assert(UNSUPPORTED);
}
