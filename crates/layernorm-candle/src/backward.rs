//! The fused backward pass: one call of the kernels gives dx, dweight and dbias.
//!
//! It runs as an operation of candle too, because that is how one gets at the memory of several tensors. Such an
//! operation has one output, which is dx; the gradients of the parameters are handed out beside it. So nothing is
//! packed, and nothing copied apart again.

use crate::error::Error;
use crate::forward::{Forward, Scalar, Stored};
use crate::rows::{Blocks, values};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType};
use layernorm::{ParamGradients, Params, RowsMut, Workspace};
use std::sync::Mutex;

/// Which gradients are waited for. Parameters by their shape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) x: bool,
    pub(crate) weight: Option<Shape>,
    pub(crate) bias: Option<Shape>,
}

impl Wanted {
    pub(crate) fn with_weight(self, weight: &Tensor) -> Self {
        Self { weight: weight.track_op().then(|| weight.shape().clone()), ..self }
    }

    pub(crate) fn with_bias(self, bias: &Tensor) -> Self {
        Self { bias: bias.track_op().then(|| bias.shape().clone()), ..self }
    }
}

/// The gradients that were wanted.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub(crate) x: Option<Tensor>,
    pub(crate) weight: Option<Tensor>,
    pub(crate) bias: Option<Tensor>,
}

/// The gradients of `forward` at `x`.
pub(crate) fn backward(
    forward: &Forward,
    x: &Tensor,
    dy: &Tensor,
    weight: Option<&Tensor>,
    wanted: Wanted,
) -> Result<Gradients> {
    if dy.track_op() {
        return Err(Error::SecondOrder.into());
    }
    let (x, dy) = (in_one_block(x, forward.features)?, in_one_block(dy, forward.features)?);
    let op = Backward { forward: *forward, wanted, parameters: Mutex::new([None, None]) };
    let dx = match weight {
        Some(weight) => x.apply_op3_no_bwd(&dy, weight, &op)?,
        None => x.apply_op2_no_bwd(&dy, &op)?,
    };
    let Backward { wanted, parameters, .. } = op;
    let [dweight, dbias] = parameters.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(Gradients {
        x: wanted.x.then_some(dx),
        weight: tensor(dweight, wanted.weight, &x)?,
        bias: tensor(dbias, wanted.bias, &x)?,
    })
}

/// The kernels take all rows in one call here, because dweight and dbias are sums over rows in one order. So rows that
/// are not evenly spaced are copied, which the forward pass does not need.
fn in_one_block(tensor: &Tensor, features: usize) -> Result<Tensor> {
    let tensor = tensor.detach();
    match Blocks::of(tensor.layout(), features) {
        Some(blocks) if blocks.count() == 1 => Ok(tensor),
        _ => tensor.contiguous(),
    }
}

fn tensor(storage: Option<CpuStorage>, shape: Option<Shape>, x: &Tensor) -> Result<Option<Tensor>> {
    let (Some(storage), Some(shape)) = (storage, shape) else { return Ok(None) };
    Ok(Some(match storage.dtype() {
        DType::F64 => Tensor::from_vec(f64::cpu_storage_data(storage)?, shape, x.device())?,
        _ => Tensor::from_vec(f32::cpu_storage_data(storage)?, shape, x.device())?,
    }))
}

/// x, dy and weight to dx (or to nothing, if nobody wants it), with dweight and dbias left in `parameters`.
struct Backward {
    forward: Forward,
    wanted: Wanted,
    parameters: Mutex<[Option<CpuStorage>; 2]>,
}

impl Backward {
    fn run(&self, x: Stored<'_>, dy: Stored<'_>, weight: Option<Stored<'_>>) -> Result<(CpuStorage, Shape)> {
        let dx = match x.0 {
            CpuStorage::F32(memory) => self.run_as::<f32>(memory, x.1, dy, weight)?,
            CpuStorage::F64(memory) => self.run_as::<f64>(memory, x.1, dy, weight)?,
            other => return Err(Error::Type { name: "x", got: other.dtype() }.into()),
        };
        Ok((dx, if self.wanted.x { x.1.shape().clone() } else { Shape::from(0) }))
    }

    fn run_as<T: Scalar>(
        &self,
        x: &[T],
        x_layout: &Layout,
        dy: Stored<'_>,
        weight: Option<Stored<'_>>,
    ) -> Result<CpuStorage> {
        let Forward { norm, features, .. } = self.forward;
        let zeros = |len| vec![<T as WithDType>::from_f64(0.0); len];
        let blocks = |layout| Blocks::of(layout, features).ok_or(Error::Rows);

        let x_rows = blocks(x_layout)?.rows(0, x)?;
        let dy_rows = blocks(dy.1)?.rows(0, T::cpu_storage_as_slice(dy.0)?)?;
        let weight = weight.map(|(storage, layout)| values(storage, layout)).transpose()?;
        let params = Params { weight, bias: None, eps: norm.eps };

        let mut dx = zeros(if self.wanted.x { x_layout.shape().elem_count() } else { 0 });
        let [mut dweight, mut dbias] = [&self.wanted.weight, &self.wanted.bias]
            .map(|shape| shape.as_ref().map(|shape| zeros(shape.elem_count())));
        let dx_rows =
            self.wanted.x.then(|| RowsMut::new(&mut dx, features)).transpose().map_err(Error::from)?;
        let mut workspace = Workspace::new();
        let gradients = (dweight.is_some() || dbias.is_some()).then_some(ParamGradients {
            dweight: dweight.as_deref_mut(),
            dbias: dbias.as_deref_mut(),
            accumulate: false,
            first_row: 0,
            workspace: &mut workspace,
        });
        norm.backward(x_rows, dy_rows, params, dx_rows, gradients).map_err(Error::from)?;

        let parameters = [dweight, dbias].map(|gradient| gradient.map(T::to_cpu_storage_owned));
        *self.parameters.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = parameters;
        Ok(T::to_cpu_storage_owned(dx))
    }
}

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        self.forward.norm.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), (dy, dy_layout), None)
    }
}

impl CustomOp3 for Backward {
    fn name(&self) -> &'static str {
        self.forward.norm.name()
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        dy: &CpuStorage,
        dy_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((x, x_layout), (dy, dy_layout), Some((weight, weight_layout)))
    }
}
