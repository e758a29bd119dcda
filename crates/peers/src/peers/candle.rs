//! candle on the CPU: `candle_nn`'s operators, each call with its new output.
//!
//! Its fused operators have no backward pass, so there the composed ones that it offers beside them are timed. Their
//! graph is built before the clock starts. candle begins a backward pass with ones, so an output's gradient can only be
//! given as a factor, and that product is in the time.

use std::time::Duration;

use candle_core::{Device, Tensor, Var};
use candle_nn::{BatchNorm, GroupNorm, Module, ModuleT, ops};
use layernorm_candle as norms;

use super::{Job, Whose, hands_out::HandsOut};
use crate::error::Error;
use crate::number::Number;
use crate::operators::{Case, Direction, Operator};
use crate::tensors::{Name, Tensors};
use crate::work::{Work, timed};

/// What candle is given.
struct Inputs {
    x: Tensor,
    residual: Option<Tensor>,
    weight: Tensor,
    bias: Option<Tensor>,
    /// The running mean and variance.
    running: Option<(Tensor, Tensor)>,
}

/// From inputs to y, and to x + residual where there is one.
type Forward = fn(&Inputs) -> candle_core::Result<Vec<Tensor>>;

/// A forward call.
struct Call {
    inputs: Inputs,
    forward: Forward,
    names: Vec<Name>,
}

/// A graph that ends in the outputs times their gradients, and the variables whose gradients are asked for.
struct Graph {
    loss: Tensor,
    variables: Vec<(Name, Tensor)>,
}

/// Copies the numbers; for a backward pass, builds the graph.
///
/// # Errors
/// An operator that candle lacks.
pub fn prepare<T: Number>(job: &Job<'_, T>, whose: Whose) -> Result<Box<dyn Work<T> + Send>, Error> {
    let forward = match (whose, job.case.direction) {
        (Whose::Nobodys, Direction::Forward) => return Err(Error::lacks("backward only")),
        (Whose::Theirs, direction) => theirs(job.case.operator, direction),
        _ => ours(job.case.operator),
    };
    let given = |name: Name| -> candle_core::Result<Option<Tensor>> {
        let units = [job.case.units()];
        let axes = if name.is_large() { job.case.shape.axes() } else { &units };
        let numbers = &job.data[name];
        let absent = numbers.is_empty() || !job.case.inputs().contains(&name);
        (!absent).then(|| Tensor::from_slice(numbers, axes, &Device::Cpu)).transpose()
    };
    let needed = |name: Name| given(name)?.ok_or_else(|| missing(name));
    let mut inputs = Inputs {
        x: needed(Name::X)?,
        residual: given(Name::Residual)?,
        weight: needed(Name::Weight)?,
        bias: given(Name::Bias)?,
        running: given(Name::Mean)?.zip(given(Name::Var)?),
    };
    if job.case.direction == Direction::Forward {
        return Ok(Box::new(Call { inputs, forward, names: job.case.outputs() }));
    }
    let mut variables = Vec::new();
    let mut variable = |name: Name, tensor: &mut Tensor| -> candle_core::Result<()> {
        *tensor = Var::from_tensor(tensor)?.into_inner();
        variables.push((name, tensor.clone()));
        Ok(())
    };
    variable(Name::Dx, &mut inputs.x)?;
    variable(Name::Dweight, &mut inputs.weight)?;
    if let Some(bias) = &mut inputs.bias {
        variable(Name::Dbias, bias)?;
    }
    let loss = |outputs: &[Tensor]| -> candle_core::Result<Tensor> {
        let mut loss = Vec::new();
        for (output, gradient) in outputs.iter().zip([Name::Dy, Name::Dsum]) {
            loss.push((output * needed(gradient)?)?);
        }
        loss.into_iter().reduce(|a, b| (&a + &b).unwrap_or(a)).ok_or_else(|| missing(Name::Y))
    };
    let graph = Graph { loss: loss(&forward(&inputs)?)?, variables };
    if whose != Whose::Nobodys {
        return Ok(Box::new(graph));
    }
    if job.case.outputs().len() > 3 || job.case.operator == Operator::AddRmsNorm {
        return Err(Error::lacks("not asked"));
    }
    let gradients = graph.loss.backward()?;
    let ready = graph.variables.iter().filter_map(|(_, variable)| gradients.get(variable).cloned()).collect();
    let y = inputs.handed_out(HandsOut(ready))?;
    Ok(Box::new(Graph { loss: loss(&[y])?, ..graph }))
}

#[allow(clippy::cast_possible_truncation, reason = "candle takes eps as f32")]
fn theirs(operator: Operator, direction: Direction) -> Forward {
    const EPS: f32 = Case::EPS as f32;
    let [fused, composed]: [Forward; 2] = match operator {
        Operator::LayerNorm => [
            |i| Ok(vec![ops::layer_norm(&i.x, &i.weight, i.bias()?, EPS)?]),
            |i| Ok(vec![ops::layer_norm_slow(&i.x, &i.weight, i.bias()?, EPS)?]),
        ],
        Operator::RmsNorm => [
            |i| Ok(vec![ops::rms_norm(&i.x, &i.weight, EPS)?]),
            |i| Ok(vec![ops::rms_norm_slow(&i.x, &i.weight, EPS)?]),
        ],
        Operator::AddRmsNorm => [
            |i| i.sum().and_then(|sum| Ok(vec![ops::rms_norm(&sum, &i.weight, EPS)?, sum])),
            |i| i.sum().and_then(|sum| Ok(vec![ops::rms_norm_slow(&sum, &i.weight, EPS)?, sum])),
        ],
        Operator::GroupNorm => [|i| i.group_norm(Case::GROUPS); 2],
        // What its own documentation of group norm says: as many groups as channels.
        Operator::InstanceNorm => [|i| i.group_norm(i.weight.dim(0)?); 2],
        Operator::BatchNorm => [|i| i.batch_norm(true); 2],
        Operator::BatchNormEval => [|i| i.batch_norm(false); 2],
    };
    if direction == Direction::Forward { fused } else { composed }
}

fn ours(operator: Operator) -> Forward {
    const EPS: f64 = Case::EPS;
    match operator {
        Operator::LayerNorm => |i| Ok(vec![norms::ops::layer_norm(&i.x, &i.weight, i.bias()?, EPS)?]),
        Operator::RmsNorm => |i| Ok(vec![norms::ops::rms_norm(&i.x, &i.weight, EPS)?]),
        Operator::AddRmsNorm => |i| {
            let (y, sum) = norms::ops::add_rms_norm(&i.x, i.residual()?, &i.weight, EPS)?;
            Ok(vec![y, sum])
        },
        Operator::GroupNorm => {
            |i| Ok(vec![norms::ops::group_norm(&i.x, Case::GROUPS, &i.weight, i.bias()?, EPS)?])
        }
        Operator::InstanceNorm => |i| Ok(vec![norms::ops::instance_norm(&i.x, &i.weight, i.bias()?, EPS)?]),
        Operator::BatchNorm => |i| Ok(vec![i.our_batch_norm()?.forward_t(&i.x, true)?]),
        Operator::BatchNormEval => |i| Ok(vec![i.our_batch_norm()?.forward_t(&i.x, false)?]),
    }
}

impl Inputs {
    fn bias(&self) -> candle_core::Result<&Tensor> {
        self.bias.as_ref().ok_or_else(|| missing(Name::Bias))
    }

    fn residual(&self) -> candle_core::Result<&Tensor> {
        self.residual.as_ref().ok_or_else(|| missing(Name::Residual))
    }

    fn sum(&self) -> candle_core::Result<Tensor> {
        &self.x + self.residual()?
    }

    fn group_norm(&self, groups: usize) -> candle_core::Result<Vec<Tensor>> {
        let (weight, bias) = (self.weight.clone(), self.bias()?.clone());
        let norm = GroupNorm::new(weight, bias, self.weight.dim(0)?, groups, Case::EPS)?;
        Ok(vec![norm.forward(&self.x)?])
    }

    /// The module is made anew each time, which copies a few numbers a channel.
    fn batch_norm(&self, training: bool) -> candle_core::Result<Vec<Tensor>> {
        let (mean, var) = self.running.clone().ok_or_else(|| missing(Name::Mean))?;
        let (weight, bias) = (self.weight.clone(), self.bias()?.clone());
        let norm = BatchNorm::new(weight.dim(0)?, mean, var, weight, bias, Case::EPS)?;
        Ok(vec![norm.forward_t(&self.x, training)?])
    }
}

impl Inputs {
    /// Of ours, as of candle's.
    fn our_batch_norm(&self) -> candle_core::Result<norms::BatchNorm> {
        let (mean, var) = self.running.clone().ok_or_else(|| missing(Name::Mean))?;
        let (weight, bias) = (self.weight.clone(), self.bias()?.clone());
        norms::BatchNorm::new(weight.dim(0)?, mean, var, weight, bias, Case::EPS)
    }

    /// x by an operation that computes nothing.
    fn handed_out(&self, op: HandsOut) -> candle_core::Result<Tensor> {
        match &self.bias {
            Some(bias) => self.x.apply_op3(&self.weight, bias, op),
            None => self.x.apply_op2(&self.weight, op),
        }
    }
}

impl<T: Number> Work<T> for Call {
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        timed(calls, || Ok((self.forward)(&self.inputs)?))
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        let mut out = Tensors::default();
        for (name, tensor) in self.names.iter().zip((self.forward)(&self.inputs)?) {
            out[*name] = tensor.flatten_all()?.to_vec1()?;
        }
        Ok(out)
    }
}

impl<T: Number> Work<T> for Graph {
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        timed(calls, || Ok(self.loss.backward()?))
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        let (gradients, mut out) = (self.loss.backward()?, Tensors::default());
        for (name, variable) in &self.variables {
            // A gradient that candle cuts is an empty one, and so a wrong one.
            if let Some(gradient) = gradients.get(variable) {
                out[*name] = gradient.flatten_all()?.to_vec1()?;
            }
        }
        Ok(out)
    }
}

fn missing(name: Name) -> candle_core::Error {
    candle_core::Error::Msg(format!("{} is missing", name.name()))
}
