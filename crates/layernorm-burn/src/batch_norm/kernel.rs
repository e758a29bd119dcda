//! Batch norm on slices, and from Burn's operations.

use super::Running;
use crate::channels::split;
use crate::layer_norm;
use crate::memory::Block;
use crate::operator::{
    Backward, Forward, Kernels, Source, Upstream, columns, columns_mut, divide_by_deviation,
};
use burn::tensor::Tensor;
use layernorm::{
    BatchGradients, BatchMut, Companion, Element, Error, RowsMut, RunningMut, RunningRef, Trained, Training,
    Workspace,
};

/// The kernels of [`layernorm::batch_norm_train`] and [`layernorm::batch_norm_eval`]. A row is a sample. Saved are three
/// columns, an entry for each channel; in evaluation nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Batch {
    /// By the statistics of the batch, which running ones follow, if they are there.
    Train(Running),
    /// By the running ones.
    Eval,
}

/// How a batch of a shape lies in memory.
#[derive(Clone, Copy)]
struct Grid {
    channels: usize,
    positions: usize,
}

impl Grid {
    fn of(shape: &[usize]) -> Self {
        let [_, channels, positions] = split(shape);
        Self { channels, positions }
    }

    fn row(self) -> usize {
        self.channels * self.positions
    }

    /// With one position, channels lie side by side: the better loop.
    fn is_flat(self) -> bool {
        self.positions == 1
    }

    fn read<E>(self, x: Block<'_, E>) -> Result<layernorm::Batch<'_, E>, Error> {
        let rows = x.rows(self.row())?;
        if self.is_flat() {
            layernorm::Batch::channels_last(rows, 1)
        } else {
            layernorm::Batch::channels_first(rows, self.channels)
        }
    }

    fn write<E>(self, y: &mut [E]) -> Result<BatchMut<'_, E>, Error> {
        let rows = RowsMut::new(y, self.row())?;
        if self.is_flat() {
            BatchMut::channels_last(rows, 1)
        } else {
            BatchMut::channels_first(rows, self.channels)
        }
    }
}

impl<E: Element, P: Companion<E>> Kernels<E, P> for Batch {
    fn row(&self, shape: &[usize]) -> usize {
        Grid::of(shape).row()
    }

    fn saved(&self, shape: &[usize]) -> usize {
        match self {
            Self::Train(_) => 3 * Grid::of(shape).channels,
            Self::Eval => 0,
        }
    }

    fn forward(&self, call: Forward<'_, E, P>) -> Result<(), Error> {
        let Forward { shape, x, params, running, saved, run, .. } = call;
        let (grid, mut workspace) = (Grid::of(shape), Workspace::new());
        let Self::Train(follow) = self else {
            let running = to_read(running.map(|[mean, var]| [&*mean, &*var]));
            return match x {
                Source::Apart(x, y) => {
                    let (x, y) = (grid.read(x)?, grid.write(y)?);
                    layernorm::batch_norm_eval(x, params, running, y, &mut workspace, run)
                }
                Source::InPlace(x) => {
                    let x = grid.write(x)?;
                    layernorm::batch_norm_eval_in_place(x, params, running, &mut workspace, run)
                }
            };
        };
        // They are taken in any case.
        let mut unsaved = vec![E::Acc::default(); if saved.is_none() { 3 * grid.channels } else { 0 }];
        let mut updates = 0;
        let mut training = Training::new(columns_mut(saved.unwrap_or(&mut unsaved)), &mut workspace);
        training.running = running.map(|[mean, var]| {
            let convention = follow.convention();
            RunningMut { mean, var, updates: &mut updates, convention }
        });
        match x {
            Source::Apart(x, y) => {
                layernorm::batch_norm_train(grid.read(x)?, params, grid.write(y)?, training, run)
            }
            Source::InPlace(x) => layernorm::batch_norm_train_in_place(grid.write(x)?, params, training, run),
        }
    }

    fn backward(&self, call: Backward<'_, E, P>) -> Result<(), Error> {
        let Backward { shape, x, dy, params, running, saved, gradients, run } = call;
        let grid = Grid::of(shape);
        let x = grid.read(x)?;
        let trained = Trained::new(columns(saved));
        match dy {
            Upstream::Apart(dy, dx) => {
                let (dy, dx) = (grid.read(dy)?, dx.map(|dx| grid.write(dx)).transpose()?);
                let gradients = BatchGradients { dx, params: gradients };
                match self {
                    Self::Train(_) => {
                        layernorm::batch_norm_train_backward(x, dy, params, trained, gradients, run)
                    }
                    Self::Eval => {
                        layernorm::batch_norm_eval_backward(x, dy, params, to_read(running), gradients, run)
                    }
                }
            }
            Upstream::InPlace(dy) => {
                let dy = grid.write(dy)?;
                match self {
                    Self::Train(_) => {
                        layernorm::batch_norm_train_backward_in_place(x, dy, params, trained, gradients, run)
                    }
                    Self::Eval => {
                        let running = to_read(running);
                        layernorm::batch_norm_eval_backward_in_place(x, dy, params, running, gradients, run)
                    }
                }
            }
        }
    }
}

/// Without them, a call in evaluation is refused.
fn to_read<T>(running: Option<[&[T]; 2]>) -> RunningRef<'_, T> {
    let [mean, var] = running.unwrap_or([&[]; 2]);
    RunningRef { mean, var }
}

impl Batch {
    /// x_hat from Burn's operations. In training a channel is a row of layer norm.
    pub(crate) fn x_hat<const D: usize>(
        self,
        x: Tensor<D>,
        running: Option<&[Tensor<1>; 2]>,
        eps: f64,
    ) -> Tensor<D> {
        match (self, running) {
            (Self::Eval, Some(running)) => {
                let [mean, var] = running.clone().map(|of| along_channels(of, &x));
                divide_by_deviation(x - mean, var, eps)
            }
            _ => {
                let mut transposed = x.dims();
                transposed.swap(0, 1);
                layer_norm::x_hat(by_channel(x), eps).reshape(transposed).swap_dims(0, 1)
            }
        }
    }

    /// What becomes of running statistics by a batch, from Burn's operations.
    pub(crate) fn moved<const D: usize>(self, x: &Tensor<D>, running: [Tensor<1>; 2]) -> [Tensor<1>; 2] {
        let Self::Train(Running { momentum, unbiased }) = self else { return running };
        let rows = by_channel(x.clone().detach());
        let n = rows.dims()[1] as f64;
        let mean = rows.clone().mean_dim(1);
        let squares = (rows - mean.clone()).square().sum_dim(1);
        let var = squares / if unbiased { n - 1.0 } else { n };
        let [of_mean, of_var] = running;
        let towards = |kept: Tensor<1>, batch: Tensor<2>| {
            kept * (1.0 - momentum) + batch.reshape([x.dims()[1]]) * momentum
        };
        [towards(of_mean, mean), towards(of_var, var)]
    }
}

fn along_channels<const D: usize>(of: Tensor<1>, x: &Tensor<D>) -> Tensor<D> {
    let mut shape = [1; D];
    shape[1] = x.dims()[1];
    of.reshape(shape)
}

/// `[batch, channels, ...]` as `[channels, batch * ...]`.
fn by_channel<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let shape = x.dims();
    let count = shape.iter().product::<usize>() / shape[1];
    x.swap_dims(0, 1).reshape([shape[1], count])
}
