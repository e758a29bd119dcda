//! The norms as operations of candle: forward on the memory of the tensors, and what candle calls for gradients.

use crate::backward::{Wanted, backward};
use crate::error::Error;
use crate::kernels::Kernel;
use crate::scalar::{Scalar, with_numbers};
use crate::stored::{Stored, all_of, parameter};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType};
use layernorm::{Companion, Run, Threads};
use rayon::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Which parameters follow x.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affine {
    None,
    Weight,
    Bias,
    Both,
}

/// y = weight norm(x) + bias, over rows of `features` values.
///
/// x has its rows in memory (see [`Kernel::blocks`]). Parameters have evenly spaced rows, and are both of the type of x, or
/// both of the one that it is computed in.
#[derive(Debug, Clone)]
pub(crate) struct Forward<K> {
    pub(crate) kernel: K,
    pub(crate) features: usize,
    pub(crate) affine: Affine,
    /// Where y may lie already.
    pub(crate) done: Option<Done>,
}

/// The result of an operation, computed by the one before it beside its own (see `add.rs`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Done(Arc<Mutex<Option<CpuStorage>>>);

impl Done {
    pub(crate) fn leave(&self, y: CpuStorage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(y);
    }

    fn take(&self) -> Option<CpuStorage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Numbers above which blocks of rows are shared between threads. (A single block is left to the kernels, which know.)
const WORTH_THREADS: usize = 64 << 10;

impl<K: Kernel> Forward<K> {
    fn run(
        &self,
        x: Stored<'_>,
        weight: Option<Stored<'_>>,
        bias: Option<Stored<'_>>,
    ) -> Result<(CpuStorage, Shape)> {
        let y: Result<_> = match self.done.as_ref().and_then(Done::take) {
            Some(y) => Ok(y),
            None => with_numbers!(x.0, memory => self.run_as(memory, x.1, weight, bias)),
        };
        Ok((y?, x.1.shape().clone()))
    }

    fn run_as<E: Scalar>(
        &self,
        memory: &[E],
        layout: &Layout,
        weight: Option<Stored<'_>>,
        bias: Option<Stored<'_>>,
    ) -> Result<CpuStorage> {
        if all_of::<E>([weight, bias]) {
            self.run_with::<E, E>(memory, layout, weight, bias)
        } else {
            self.run_with::<E, E::Acc>(memory, layout, weight, bias)
        }
    }

    /// As the types of x and of the parameters have been found to be.
    fn run_with<E: Scalar, P: Companion<E> + WithDType>(
        &self,
        memory: &[E],
        layout: &Layout,
        weight: Option<Stored<'_>>,
        bias: Option<Stored<'_>>,
    ) -> Result<CpuStorage> {
        let blocks = self.kernel.blocks(layout, self.features).ok_or(Error::Rows)?;
        let parameters = [weight.map(parameter::<P>).transpose()?, bias.map(parameter::<P>).transpose()?];
        let mut y = E::zeros(layout.shape().elem_count());
        let block = |(index, y): (usize, &mut [E]), run| -> Result<()> {
            Ok(self.kernel.forward(blocks.block(index, memory)?, parameters, y, run).map_err(Error::from)?)
        };
        if blocks.count() == 1 {
            block((0, &mut y), Run::default())?;
        } else {
            let one = Run::default().with_threads(Threads::One);
            let len = blocks.len();
            if y.len() < WORTH_THREADS {
                y.chunks_mut(len).enumerate().try_for_each(|part| block(part, one))?;
            } else {
                let together = (WORTH_THREADS / 2).div_ceil(len);
                let parts = y.par_chunks_mut(len).enumerate().with_min_len(together);
                parts.try_for_each(|part| block(part, one))?;
            }
        }
        Ok(E::to_cpu_storage_owned(y))
    }
}

impl<K: Kernel> CustomOp1 for Forward<K> {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), None, None)
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let wanted = Wanted { x: x.track_op(), weight: None, bias: None };
        Ok(backward(self, [x, dy], [None, None], wanted)?.x)
    }
}

impl<K: Kernel> CustomOp2 for Forward<K> {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        p: &CpuStorage,
        p_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let parameter = Some((p, p_layout));
        let (weight, bias) = if self.affine == Affine::Bias { (None, parameter) } else { (parameter, None) };
        self.run((x, x_layout), weight, bias)
    }

    fn bwd(
        &self,
        x: &Tensor,
        p: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let wanted = Wanted { x: x.track_op(), weight: None, bias: None };
        if self.affine == Affine::Bias {
            let gradients = backward(self, [x, dy], [None, Some(p)], wanted.with_bias(p))?;
            Ok((gradients.x, gradients.bias))
        } else {
            let gradients = backward(self, [x, dy], [Some(p), None], wanted.with_weight(p))?;
            Ok((gradients.x, gradients.weight))
        }
    }
}

impl<K: Kernel> CustomOp3 for Forward<K> {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), Some((weight, weight_layout)), Some((bias, bias_layout)))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let wanted = Wanted { x: x.track_op(), weight: None, bias: None };
        let wanted = wanted.with_weight(weight).with_bias(bias);
        let gradients = backward(self, [x, dy], [Some(weight), Some(bias)], wanted)?;
        Ok((gradients.x, gradients.weight, gradients.bias))
    }
}
