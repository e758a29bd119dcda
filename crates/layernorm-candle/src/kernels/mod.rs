//! The kernels, as candle's operations call them: a file for each way in which rows are taken.

mod adaptive;
mod batch;
mod norm;

pub(crate) use adaptive::Adaptive;
pub(crate) use batch::{Batch, Statistics, Taken, loaded, stored};
pub(crate) use norm::{Channels, Kind, Norm};

use crate::rows::{Block, Blocks};
use crate::scalar::Scalar;
use candle_core::Layout;
use layernorm::{Companion, Error, Params, Run};

/// What the operations of candle call.
pub(crate) trait Kernel: std::fmt::Debug + Clone + Send + Sync + 'static {
    fn name(&self) -> &'static str;

    /// The rows of `features` values of a tensor of this layout, if the kernel can read them where they lie.
    fn blocks(&self, layout: &Layout, features: usize) -> Option<Blocks>;

    /// y of each row, without gaps.
    fn forward<E: Scalar, P: Companion<E>>(
        &self,
        x: Block<'_, E>,
        parameters: Parameters<'_, P>,
        y: &mut [E],
        run: Run,
    ) -> Result<(), Error>;

    /// Does [`Kernel::backward`] read the bias? To differentiate an activation, what went into it is computed once more.
    fn backward_reads_bias(&self) -> bool {
        false
    }

    /// The gradients of x, without gaps, and of weight and bias: those that are asked for.
    fn backward<E: Scalar, P: Companion<E>>(
        &self,
        inputs: [Block<'_, E>; 2],
        parameters: Parameters<'_, P>,
        dx: Option<&mut [E]>,
        of_parameters: [Option<&mut [E::Acc]>; 2],
    ) -> Result<(), Error>;
}

/// Weight and bias, or what stands in their places, as rows of their last axis: a vector is one row.
pub(crate) type Parameters<'a, P> = [Option<Block<'a, P>>; 2];

/// Weight and bias of one row each, as most kernels take them.
pub(crate) fn params<P>([weight, bias]: Parameters<'_, P>, eps: f64) -> Params<'_, P> {
    Params { weight: weight.map(Block::values), bias: bias.map(Block::values), eps }
}
