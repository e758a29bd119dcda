//! The norms as operations of candle: forward on the memory of the tensors, and what candle calls for gradients.

use crate::backward::{Wanted, backward};
use crate::error::Error;
use crate::norm::Norm;
use crate::rows::{Blocks, values};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType};
use layernorm::{Params, Real, RowsMut, Run, Threads};
use rayon::prelude::*;

/// A type that the kernels compute in, as both crates know it.
pub(crate) trait Scalar: Real + WithDType {}
impl Scalar for f32 {}
impl Scalar for f64 {}

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
/// x has its rows in memory (see [`Blocks`]), parameters are contiguous, and all are of one type: f32 or f64.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forward {
    pub(crate) norm: Norm,
    pub(crate) features: usize,
    pub(crate) affine: Affine,
}

/// A tensor as candle hands it to an operation.
pub(crate) type Stored<'a> = (&'a CpuStorage, &'a Layout);

/// Numbers above which blocks of rows are shared between threads. (A single block is left to the kernels, which know.)
const WORTH_THREADS: usize = 64 << 10;

impl Forward {
    fn run(
        &self,
        x: Stored<'_>,
        weight: Option<Stored<'_>>,
        bias: Option<Stored<'_>>,
    ) -> Result<(CpuStorage, Shape)> {
        let y = match x.0 {
            CpuStorage::F32(memory) => self.run_as::<f32>(memory, x.1, weight, bias)?,
            CpuStorage::F64(memory) => self.run_as::<f64>(memory, x.1, weight, bias)?,
            other => return Err(Error::Type { name: "x", got: other.dtype() }.into()),
        };
        Ok((y, x.1.shape().clone()))
    }

    fn run_as<T: Scalar>(
        &self,
        memory: &[T],
        layout: &Layout,
        weight: Option<Stored<'_>>,
        bias: Option<Stored<'_>>,
    ) -> Result<CpuStorage> {
        let blocks = Blocks::of(layout, self.features).ok_or(Error::Rows)?;
        let params = Params {
            weight: weight.map(|(storage, layout)| values(storage, layout)).transpose()?,
            bias: bias.map(|(storage, layout)| values(storage, layout)).transpose()?,
            eps: self.norm.eps,
        };
        let mut y = vec![<T as WithDType>::from_f64(0.0); layout.shape().elem_count()];
        let block = |(index, y): (usize, &mut [T]), run| -> Result<()> {
            let (x, y) = (blocks.rows(index, memory)?, RowsMut::new(y, self.features).map_err(Error::from)?);
            Ok(self.norm.forward(x, params, y, run).map_err(Error::from)?)
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
        Ok(T::to_cpu_storage_owned(y))
    }
}

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        self.norm.name()
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), None, None)
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let wanted = Wanted { x: x.track_op(), weight: None, bias: None };
        Ok(backward(self, x, dy, None, wanted)?.x)
    }
}

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        self.norm.name()
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
            let gradients = backward(self, x, dy, None, wanted.with_bias(p))?;
            Ok((gradients.x, gradients.bias))
        } else {
            let gradients = backward(self, x, dy, Some(p), wanted.with_weight(p))?;
            Ok((gradients.x, gradients.weight))
        }
    }
}

impl CustomOp3 for Forward {
    fn name(&self) -> &'static str {
        self.norm.name()
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
        let gradients = backward(self, x, dy, Some(weight), wanted.with_weight(weight).with_bias(bias))?;
        Ok((gradients.x, gradients.weight, gradients.bias))
    }
}
