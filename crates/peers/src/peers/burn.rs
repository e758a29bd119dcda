//! Burn on its CPU backend, Flex: the modules of `burn::nn`, or our functions in `layernorm-burn`, each call with its new
//! output.
//!
//! A backward pass uses its graph up, so each has a forward pass before it, whose time is left out. Burn begins
//! with ones, so an output's gradient can only be given as a factor, and that product is in the time.

use std::time::Duration;

use burn::module::{Param, RunningState};
use burn::nn::{BatchNormConfig, GroupNormConfig, InstanceNormConfig, LayerNormConfig, RmsNormConfig};
use burn::tensor::{Device, Tensor, TensorData};

use super::{Job, Whose};
use crate::error::Error;
use crate::number::Number;
use crate::operators::{Case, Direction, Operator};
use crate::tensors::{Name, Tensors};
use crate::work::{Work, timed};

/// From x (and the residual) to y (and their sum).
type Module<const D: usize> = Box<dyn Fn(Tensor<D>, Option<Tensor<D>>) -> Vec<Tensor<D>> + Send>;

/// A module and what it is given.
struct Call<const D: usize> {
    module: Module<D>,
    x: Tensor<D>,
    residual: Option<Tensor<D>>,
    names: Vec<Name>,
}

/// The same, to be differentiated.
struct Graph<const D: usize> {
    call: Call<D>,
    /// Of the outputs.
    gradients: Vec<Tensor<D>>,
    params: Vec<(Name, Param<Tensor<1>>)>,
}

/// Copies the numbers and makes the module.
///
/// # Errors
/// A case without its tensors, or one that our crate has no kernel for.
pub fn prepare<T: Number>(job: &Job<'_, T>, whose: Whose) -> Result<Box<dyn Work<T> + Send>, Error> {
    match job.case.shape.axes().len() {
        2 => of_rank::<T, 2>(job, whose),
        _ => of_rank::<T, 4>(job, whose),
    }
}

fn of_rank<T: Number, const D: usize>(
    job: &Job<'_, T>,
    whose: Whose,
) -> Result<Box<dyn Work<T> + Send>, Error> {
    // Burn's batch norm trains only where it can be differentiated.
    let differentiates =
        job.case.direction == Direction::Backward || job.case.operator == Operator::BatchNorm;
    let device = if differentiates { Device::flex().autodiff() } else { Device::flex() };
    let given = |name: Name| {
        let absent = job.data[name].is_empty() || !job.case.inputs().contains(&name);
        (!absent).then(|| tensor::<T, D>(&job.data[name], job.case.shape.axes(), &device))
    };
    let param = |name: Name| {
        let numbers = &job.data[name];
        Param::from_tensor(tensor::<T, 1>(numbers, &[numbers.len()], &device))
    };
    let weight = param(Name::Weight);
    let bias = job.case.inputs().contains(&Name::Bias).then(|| param(Name::Bias));
    let running = || [Name::Mean, Name::Var].map(|name| RunningState::new(param(name).val().detach()));
    let module = match (whose, job.case.direction) {
        (Whose::Theirs, _) => module::<D>(job.case, (weight.clone(), bias.clone()), running, &device),
        (Whose::Ours, _) => ours::<D>(job.case, weight.clone(), bias.clone())?,
        (Whose::Nobodys, Direction::Backward) => Box::new(|x, _| vec![x]),
        (Whose::Nobodys, Direction::Forward) => return Err(Error::lacks("backward only")),
    };
    let x = given(Name::X).ok_or_else(|| Error::Burn("x is missing".into()))?;
    let call = Call { module, x, residual: given(Name::Residual), names: job.case.outputs() };
    if job.case.direction == Direction::Forward {
        return Ok(Box::new(call));
    }
    let call = Call { x: call.x.require_grad(), ..call };
    let params = [Some((Name::Dweight, weight)), bias.map(|bias| (Name::Dbias, bias))];
    let gradients = [given(Name::Dy), given(Name::Dsum)];
    Ok(Box::new(Graph {
        call,
        gradients: gradients.into_iter().flatten().collect(),
        params: params.into_iter().flatten().collect(),
    }))
}

/// Our functions, for which Burn's backend has our kernels.
fn ours<const D: usize>(
    case: &Case,
    weight: Param<Tensor<1>>,
    bias: Option<Param<Tensor<1>>>,
) -> Result<Module<D>, Error> {
    const EPS: f64 = Case::EPS;
    let bias = move || bias.as_ref().map(Param::val);
    Ok(match case.operator {
        Operator::LayerNorm => {
            Box::new(move |x, _| vec![layernorm_burn::layer_norm(x, weight.val(), bias(), EPS)])
        }
        Operator::RmsNorm => Box::new(move |x, _| vec![layernorm_burn::rms_norm(x, weight.val(), None, EPS)]),
        _ => return Err(Error::lacks("not asked")),
    })
}

/// `running`: the running mean and variance.
fn module<const D: usize>(
    case: &Case,
    (weight, bias): (Param<Tensor<1>>, Option<Param<Tensor<1>>>),
    running: impl FnOnce() -> [RunningState<Tensor<1>>; 2],
    device: &Device,
) -> Module<D> {
    let (units, eps) = (case.units(), Case::EPS);
    match case.operator {
        Operator::LayerNorm => {
            let mut norm = LayerNormConfig::new(units).with_epsilon(eps).init(device);
            (norm.gamma, norm.beta) = (weight, bias);
            Box::new(move |x, _| vec![norm.forward(x)])
        }
        Operator::RmsNorm | Operator::AddRmsNorm => {
            let mut norm = RmsNormConfig::new(units).with_epsilon(eps).init(device);
            norm.gamma = weight;
            Box::new(move |x, residual| match residual {
                Some(residual) => {
                    let sum = x + residual;
                    vec![norm.forward(sum.clone()), sum]
                }
                None => vec![norm.forward(x)],
            })
        }
        Operator::GroupNorm => {
            let mut norm = GroupNormConfig::new(Case::GROUPS, units).with_epsilon(eps).init(device);
            (norm.gamma, norm.beta) = (Some(weight), bias);
            Box::new(move |x, _| vec![norm.forward(x)])
        }
        Operator::InstanceNorm => {
            let mut norm = InstanceNormConfig::new(units).with_epsilon(eps).init(device);
            (norm.gamma, norm.beta) = (Some(weight), bias);
            Box::new(move |x, _| vec![norm.forward(x)])
        }
        Operator::BatchNorm | Operator::BatchNormEval => {
            let mut norm = BatchNormConfig::new(units).with_epsilon(eps).init(device);
            norm.gamma = weight;
            if let Some(bias) = bias {
                norm.beta = bias;
            }
            [norm.running_mean, norm.running_var] = running();
            norm.training = Param::from_bool(case.operator == Operator::BatchNorm);
            Box::new(move |x, _| vec![norm.forward(x)])
        }
    }
}

impl<const D: usize> Call<D> {
    fn forward(&self) -> Vec<Tensor<D>> {
        (self.module)(self.x.clone(), self.residual.clone())
    }
}

impl<T: Number, const D: usize> Work<T> for Call<D> {
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        timed(calls, || Ok(self.forward()))
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        let mut out = Tensors::default();
        for (name, tensor) in self.names.iter().zip(self.forward()) {
            out[*name] = numbers(tensor)?;
        }
        Ok(out)
    }
}

impl<const D: usize> Graph<D> {
    /// A forward pass, and what begins the backward one.
    fn loss(&self) -> Result<Tensor<D>, Error> {
        let outputs = self.call.forward().into_iter().zip(&self.gradients);
        let losses = outputs.map(|(output, gradient)| output * gradient.clone());
        losses.reduce(|a, b| a + b).ok_or_else(|| Error::Burn("dy is missing".into()))
    }
}

impl<T: Number, const D: usize> Work<T> for Graph<D> {
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        let mut total = Duration::ZERO;
        for _ in 0..calls {
            let loss = self.loss()?;
            total += timed(1, || Ok(loss.backward()))?;
        }
        Ok(total)
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        let (gradients, mut out) = (self.loss()?.backward(), Tensors::default());
        if let Some(dx) = self.call.x.grad(&gradients) {
            out[Name::Dx] = numbers(dx)?;
        }
        for (name, param) in &self.params {
            if let Some(gradient) = param.val().grad(&gradients) {
                out[*name] = numbers(gradient)?;
            }
        }
        Ok(out)
    }
}

fn tensor<T: Number, const D: usize>(numbers: &[T], axes: &[usize], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(numbers.to_vec(), axes.to_vec()), (device, T::dtype()))
}

fn numbers<T: Number, const D: usize>(tensor: Tensor<D>) -> Result<Vec<T>, Error> {
    tensor.into_data().try_into_vec().map_err(|error| Error::Burn(format!("{error:?}")))
}
