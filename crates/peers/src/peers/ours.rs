//! The crate `layernorm`: into memory of the caller's, which is made before the clock starts; or, as `ours-new`, into
//! memory that each call allocates, and backward without saved statistics: the work that is left to an integration.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use layernorm::{
    Activation, AddGradients, Batch, BatchGradients, BatchMut, Branch, Convention, Gradients, Groups, Images,
    ParamGradients, Params, Residual, Rows, RowsMut, Run, RunningMut, RunningRef, Stats, StatsMut,
    TensorGradients, Threads, Trained, Training, Upstream, Workspace,
};

use super::Job;
use crate::error::Error;
use crate::number::Number;
use crate::operators::{Case, Direction, Layout, Operator};
use crate::tensors::{Name, Tensors};
use crate::work::{Work, timed};

/// All that a call reads and writes.
struct Ours<T: Number> {
    data: Arc<Tensors<T>>,
    out: Tensors<T>,
    /// dweight and dbias, in the type that sums have.
    sums: [Vec<T::Acc>; 2],
    case: Case,
    saved: Stats<T::Acc>,
    running: [Vec<T::Acc>; 2],
    workspace: Workspace<T::Acc>,
    run: Run,
    memory: Memory,
}

/// Whose memory outputs go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The caller's.
    Given,
    /// New in each call.
    New,
}

/// Makes room for the outputs; before a backward pass, saves what a forward pass would have.
///
/// # Errors
/// What the kernels refuse.
pub fn prepare<T: Number>(job: &Job<'_, T>, memory: Memory) -> Result<Box<dyn Work<T> + Send>, Error> {
    let case = job.case.clone();
    let sums =
        |name| vec![T::Acc::default(); if job.case.outputs().contains(&name) { case.units() } else { 0 }];
    let mut ours = Ours {
        data: job.data.clone(),
        out: Tensors::default(),
        sums: [Name::Dweight, Name::Dbias].map(sums),
        saved: Stats::new(statistics(&case)),
        running: [Name::Mean, Name::Var]
            .map(|name| job.data[name].iter().map(|&number| T::acc(number)).collect()),
        workspace: Workspace::new(),
        run: Run::default().with_threads(if job.threads == 1 { Threads::One } else { Threads::Pool }),
        memory,
        case,
    };
    for name in ours.case.operator.entry().forward.writes {
        ours.out[*name] = room(job.case.len(*name));
    }
    match job.case.direction {
        // A forward pass that is not followed by a backward one saves nothing, but for what it needs itself.
        Direction::Forward if job.case.operator != Operator::BatchNorm => ours.saved = Stats::new(0),
        Direction::Forward => {}
        Direction::Backward => {
            ours.forward()?;
            ours.out[Name::Y] = Vec::new();
            ours.out[Name::Dx] = room(job.case.len(Name::Dx));
        }
    }
    Ok(Box::new(ours))
}

/// How many a forward pass saves.
fn statistics(case: &Case) -> usize {
    let samples = case.shape.axes().first().copied().unwrap_or(0);
    match case.operator {
        Operator::LayerNorm | Operator::RmsNorm | Operator::AddRmsNorm => samples,
        Operator::GroupNorm => samples * Case::GROUPS,
        Operator::InstanceNorm => samples * case.units(),
        Operator::BatchNorm => case.units(),
        Operator::BatchNormEval => 0,
    }
}

/// Zeros, which the system hands out.
fn room<T: Number>(len: usize) -> Vec<T> {
    bytemuck::zeroed_vec(len)
}

impl<T: Number> Ours<T> {
    fn call(&mut self) -> Result<(), layernorm::Error> {
        if self.memory == Memory::New {
            for name in self.case.pass().writes {
                self.out[*name] = Vec::new(); // before, not after: as if the caller had dropped it
                self.out[*name] = room(self.case.len(*name));
            }
        }
        match self.case.direction {
            Direction::Forward => self.forward(),
            Direction::Backward => self.backward(),
        }
    }

    fn forward(&mut self) -> Result<(), layernorm::Error> {
        let Self { data, out, case, saved, running, workspace, run, .. } = self;
        let (run, values, channels) = (*run, values(case), case.units());
        let rows = |name: Name| Rows::new(&data[name], values);
        let stats = (!saved.rstd.is_empty()).then(|| saved.as_mut());
        match case.operator {
            Operator::LayerNorm => {
                let y = RowsMut::new(&mut out[Name::Y], values)?;
                layernorm::layer_norm(rows(Name::X)?, params(data), y, stats, run)
            }
            Operator::RmsNorm => {
                let y = RowsMut::new(&mut out[Name::Y], values)?;
                layernorm::rms_norm(rows(Name::X)?, params(data), y, rstd(stats), run)
            }
            Operator::AddRmsNorm => {
                let [y, sum] = out.get_mut([Name::Y, Name::Sum]);
                let (y, out) = (RowsMut::new(y, values)?, RowsMut::new(sum, values)?);
                let residual = Residual { residual: rows(Name::Residual)?, out, branch: Branch::default() };
                layernorm::add_rms_norm(rows(Name::X)?, residual, params(data), y, rstd(stats), run)
            }
            Operator::GroupNorm | Operator::InstanceNorm => {
                let norm = groups(case, params(data))?;
                layernorm::group_norm(norm, &data[Name::X], &mut out[Name::Y], stats, workspace, run)
            }
            Operator::BatchNorm => {
                let y = BatchMut::channels_first(RowsMut::new(&mut out[Name::Y], values)?, channels)?;
                let ([mean, var], mut training) = (running, Training::new(saved.as_mut(), workspace));
                let (updates, convention) = (&mut 0, Convention::PyTorch { momentum: Some(0.1) });
                training.running = Some(RunningMut { mean, var, updates, convention });
                let x = Batch::channels_first(rows(Name::X)?, channels)?;
                layernorm::batch_norm_train(x, params(data), y, training, run)
            }
            Operator::BatchNormEval => {
                let y = BatchMut::channels_first(RowsMut::new(&mut out[Name::Y], values)?, channels)?;
                let (x, running) = (Batch::channels_first(rows(Name::X)?, channels)?, of(running));
                layernorm::batch_norm_eval(x, params(data), running, y, workspace, run)
            }
        }
    }

    fn backward(&mut self) -> Result<(), layernorm::Error> {
        let Self { data, out, sums, case, saved, running, workspace, run, memory } = self;
        let (run, values, channels) = (*run, values(case), case.units());
        let [dx, sum] = out.get_mut([Name::Dx, Name::Sum]);
        let [dweight, dbias] = sums;
        let of_params = ParamGradients {
            dweight: Some(dweight),
            dbias: (!dbias.is_empty()).then_some(dbias),
            accumulate: false,
            first_row: 0,
            workspace,
        };
        let rows = |name: Name| Rows::new(&data[name], values);
        let (x, dy, params) = (rows(Name::X)?, rows(Name::Dy)?, params(data));
        let stats = (*memory == Memory::Given).then(|| saved.as_ref());
        let rstd = stats.map(|stats| stats.rstd);
        let images = || {
            Ok::<_, layernorm::Error>((
                Batch::channels_first(x, channels)?,
                Batch::channels_first(dy, channels)?,
            ))
        };
        match case.operator {
            Operator::LayerNorm => {
                let gradients = Gradients { dx: Some(RowsMut::new(dx, values)?), params: Some(of_params) };
                layernorm::layer_norm_backward(x, dy, params, stats, gradients, run)
            }
            Operator::RmsNorm => {
                let gradients = Gradients { dx: Some(RowsMut::new(dx, values)?), params: Some(of_params) };
                layernorm::rms_norm_backward(x, dy, params, rstd, gradients, run)
            }
            Operator::AddRmsNorm => {
                let gradients = AddGradients {
                    upstream: Upstream::Apart(rows(Name::Dsum)?),
                    dresidual: RowsMut::new(dx, values)?,
                    mask: None,
                    dx: None,
                    branch_bias: None,
                    params: Some(of_params),
                };
                layernorm::add_rms_norm_backward(Rows::new(sum, values)?, dy, params, rstd, gradients, run)
            }
            Operator::GroupNorm | Operator::InstanceNorm => {
                let (norm, gradients) =
                    (groups(case, params)?, TensorGradients { dx: Some(dx), params: of_params });
                layernorm::group_norm_backward(norm, &data[Name::X], &data[Name::Dy], stats, gradients, run)
            }
            Operator::BatchNorm | Operator::BatchNormEval => {
                let dx = Some(BatchMut::channels_first(RowsMut::new(dx, values)?, channels)?);
                let (gradients, (x, dy)) = (BatchGradients { dx, params: of_params }, images()?);
                if case.operator == Operator::BatchNormEval {
                    return layernorm::batch_norm_eval_backward(x, dy, params, of(running), gradients, run);
                }
                let trained = Trained::new(saved.as_ref());
                layernorm::batch_norm_train_backward(x, dy, params, trained, gradients, run)
            }
        }
    }
}

impl<T: Number> Work<T> for Ours<T> {
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        timed(calls, || Ok(black_box(&mut *self).call()?))
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        self.call()?;
        let mut out = self.out.clone();
        for (name, sums) in [Name::Dweight, Name::Dbias].into_iter().zip(&self.sums) {
            out[name] = sums.iter().map(|&sum| T::narrow(sum.into())).collect();
        }
        Ok(out)
    }
}

/// Numbers of a row: features, or a whole image.
fn values(case: &Case) -> usize {
    match case.operator.entry().layout {
        Layout::Rows => case.units(),
        Layout::Images => case.shape.axes()[1..].iter().product(),
    }
}

/// Weight, and bias where the operator has one.
fn params<T>(data: &Tensors<T>) -> Params<'_, T> {
    let bias = &data[Name::Bias];
    Params { weight: Some(&data[Name::Weight]), bias: (!bias.is_empty()).then_some(&**bias), eps: Case::EPS }
}

fn groups<'a, T>(case: &Case, params: Params<'a, T>) -> Result<Groups<'a, T>, layernorm::Error> {
    let (axes, channels) = (case.shape.axes(), case.units());
    let images = Images::new(axes[0], channels, &axes[2..], layernorm::Layout::ChannelsFirst)?;
    let groups = if case.operator == Operator::GroupNorm { Case::GROUPS } else { channels };
    Ok(Groups { images, groups, params, activation: Activation::None })
}

fn rstd<T>(stats: Option<StatsMut<'_, T>>) -> Option<&mut [T]> {
    stats.map(|stats| stats.rstd)
}

fn of<T>([mean, var]: &[Vec<T>; 2]) -> RunningRef<'_, T> {
    RunningRef { mean, var }
}
