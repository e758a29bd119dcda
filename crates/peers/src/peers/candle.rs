//! candle on the CPU: `candle_nn`'s operators, each call with its new output.
//!
//! Its fused operators have no backward pass, so there the composed ones that it offers beside them are timed. Their
//! graph is built before the clock starts. candle begins a backward pass with ones, so an output's gradient can only be
//! given as a factor, and that product is in the time.

use std::time::Duration;

use candle_core::{Device, Tensor, Var};
use candle_nn::{BatchNorm, GroupNorm, Module, ModuleT, ops};

use super::Job;
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
#[allow(clippy::cast_possible_truncation, reason = "candle takes eps as f32")]
pub fn prepare<T: Number>(job: &Job<'_, T>) -> Result<Box<dyn Work<T> + Send>, Error> {
    const EPS: f32 = Case::EPS as f32;
    let [fused, composed]: [Forward; 2] = match job.case.operator {
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
        return Ok(Box::new(Call { inputs, forward: fused, names: job.case.outputs() }));
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
    let mut loss = Vec::new();
    for (output, gradient) in composed(&inputs)?.iter().zip([Name::Dy, Name::Dsum]) {
        loss.push((output * needed(gradient)?)?);
    }
    let loss = loss.into_iter().reduce(|a, b| (&a + &b).unwrap_or(a)).ok_or_else(|| missing(Name::Y))?;
    Ok(Box::new(Graph { loss, variables }))
}

impl Inputs {
    fn bias(&self) -> candle_core::Result<&Tensor> {
        self.bias.as_ref().ok_or_else(|| missing(Name::Bias))
    }

    fn sum(&self) -> candle_core::Result<Tensor> {
        &self.x + self.residual.as_ref().ok_or_else(|| missing(Name::Residual))?
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
