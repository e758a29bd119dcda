//! Batch norm: by channel, over all samples and positions.

use super::{Kernel, Parameters, params};
use crate::rows::{Block, Blocks};
use crate::scalar::Scalar;
use candle_core::{CpuStorage, Device, Tensor, WithDType};
use layernorm::{
    BatchGradients, BatchMut, Companion, Convention, Error, Layout, ParamGradients, RowsMut, Run, RunningMut,
    RunningRef, StatsMut, StatsRef, Trained, Training, Workspace,
};
use std::sync::{Arc, OnceLock};

/// Batch norm of some channels, as they lie in memory. Rows are samples, or with channels last the positions of samples.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) channels: usize,
    pub(crate) positions: usize,
    pub(crate) layout: Layout,
    pub(crate) eps: f64,
    pub(crate) statistics: Statistics,
}

/// Whose statistics.
#[derive(Debug, Clone)]
pub(crate) enum Statistics {
    /// Those of the batch, which this call leaves here.
    OfBatch(Arc<OnceLock<Taken>>),
    /// Running ones: mean and variance of each channel, in the type that x is computed in.
    Running(Arc<[CpuStorage; 2]>),
}

/// What a training pass leaves.
#[derive(Debug)]
pub(crate) struct Taken {
    /// For the backward pass: m, c and rstd (see [`StatsRef`]).
    saved: [CpuStorage; 3],
    /// For running statistics: the mean, and the variance by one less than the count.
    pub(crate) mean_and_var: [CpuStorage; 2],
}

impl Batch {
    fn read<'a, E>(&self, rows: Block<'a, E>) -> Result<layernorm::Batch<'a, E>, Error> {
        match self.layout {
            Layout::ChannelsFirst => layernorm::Batch::channels_first(rows.rows()?, self.channels),
            Layout::ChannelsLast => layernorm::Batch::channels_last(rows.rows()?, self.positions),
        }
    }

    fn write<'a, E>(&self, values: &'a mut [E], features: usize) -> Result<BatchMut<'a, E>, Error> {
        let rows = RowsMut::new(values, features)?;
        match self.layout {
            Layout::ChannelsFirst => BatchMut::channels_first(rows, self.channels),
            Layout::ChannelsLast => BatchMut::channels_last(rows, self.positions),
        }
    }

    /// Numbers in a row.
    pub(crate) fn features(&self) -> usize {
        match self.layout {
            Layout::ChannelsFirst => self.channels * self.positions,
            Layout::ChannelsLast => self.channels,
        }
    }
}

/// Numbers that were stored as these; none if they were not.
fn numbers<T: WithDType>(storage: &CpuStorage) -> &[T] {
    T::cpu_storage_as_slice(storage).unwrap_or(&[])
}

/// The numbers of a tensor, one a channel.
pub(crate) fn stored(values: &Tensor) -> candle_core::Result<CpuStorage> {
    Ok(match values.dtype() {
        candle_core::DType::F64 => CpuStorage::F64(values.to_vec1()?),
        _ => CpuStorage::F32(values.to_vec1()?),
    })
}

/// And back.
pub(crate) fn loaded(values: &CpuStorage, device: &Device) -> candle_core::Result<Tensor> {
    match values {
        CpuStorage::F64(values) => Tensor::new(&values[..], device),
        values => Tensor::new(f32::cpu_storage_as_slice(values)?, device),
    }
}

impl Kernel for Batch {
    fn name(&self) -> &'static str {
        "batch-norm"
    }

    // All rows in one call, because channels are summed over them.
    fn blocks(&self, layout: &candle_core::Layout, features: usize) -> Option<Blocks> {
        Blocks::of(layout, features)?.if_one()
    }

    fn forward<E: Scalar, P: Companion<E>>(
        &self,
        x: Block<'_, E>,
        parameters: Parameters<'_, P>,
        y: &mut [E],
        run: Run,
    ) -> Result<(), Error> {
        let params = params(parameters, self.eps);
        let (y, mut workspace) = (self.write(y, x.features())?, Workspace::new());
        let taken = match &self.statistics {
            Statistics::Running(running) => {
                let [mean, var] = [numbers(&running[0]), numbers(&running[1])];
                let running = RunningRef { mean, var };
                return layernorm::batch_norm_eval(self.read(x)?, params, running, y, &mut workspace, run);
            }
            Statistics::OfBatch(taken) => taken,
        };
        let zeros = || vec![<E::Acc as WithDType>::from_f64(0.0); self.channels];
        let (mut m, mut c, mut rstd, mut mean, mut var) = (zeros(), zeros(), zeros(), zeros(), zeros());
        let mut training = Training::new(StatsMut { m: &mut m, c: &mut c, rstd: &mut rstd }, &mut workspace);
        // Moved all the way, running statistics are those of the batch.
        let convention = Convention::PyTorch { momentum: Some(1.0) };
        let updates = &mut 0;
        training.running = Some(RunningMut { mean: &mut mean, var: &mut var, updates, convention });
        layernorm::batch_norm_train(self.read(x)?, params, y, training, run)?;
        let saved = [m, c, rstd].map(E::Acc::to_cpu_storage_owned);
        let mean_and_var = [mean, var].map(E::Acc::to_cpu_storage_owned);
        taken.get_or_init(|| Taken { saved, mean_and_var });
        Ok(())
    }

    fn backward<E: Scalar, P: Companion<E>>(
        &self,
        [x, dy]: [Block<'_, E>; 2],
        parameters: Parameters<'_, P>,
        dx: Option<&mut [E]>,
        [dweight, dbias]: [Option<&mut [E::Acc]>; 2],
    ) -> Result<(), Error> {
        let params = params(parameters, self.eps);
        let (run, workspace) = (Run::default(), &mut Workspace::new());
        let dx = dx.map(|dx| self.write(dx, x.features())).transpose()?;
        let of_params = ParamGradients { dweight, dbias, accumulate: false, first_row: 0, workspace };
        let gradients = BatchGradients { dx, params: of_params };
        let (x, dy) = (self.read(x)?, self.read(dy)?);
        match &self.statistics {
            Statistics::Running(running) => {
                let running = RunningRef { mean: numbers(&running[0]), var: numbers(&running[1]) };
                layernorm::batch_norm_eval_backward(x, dy, params, running, gradients, run)
            }
            Statistics::OfBatch(taken) => {
                let [m, c, rstd] = match taken.get() {
                    Some(taken) => taken.saved.each_ref().map(numbers),
                    None => [&[][..]; 3],
                };
                let trained = Trained::new(StatsRef { m, c, rstd });
                layernorm::batch_norm_train_backward(x, dy, params, trained, gradients, run)
            }
        }
    }
}
