//! The fused backward pass: one call of the kernels gives dx, dweight and dbias.
//!
//! It runs as an operation of candle too, because that is how one gets at the memory of several tensors. Such an
//! operation has one output, which is dx; the gradients of the parameters are handed out beside it. So nothing is
//! packed, and nothing copied apart again.

use crate::error::Error;
use crate::forward::Forward;
use crate::kernels::Kernel;
use crate::rows::Blocks;
use crate::scalar::{Scalar, with_numbers};
use crate::stored::{Stored, all_of, parameter, taken_along};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType};
use layernorm::Companion;
use std::sync::Mutex;

/// Which gradients are waited for. Parameters by their shape and type.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) x: bool,
    pub(crate) weight: Option<(Shape, DType)>,
    pub(crate) bias: Option<(Shape, DType)>,
}

impl Wanted {
    pub(crate) fn with_weight(self, weight: &Tensor) -> Self {
        Self { weight: weight.track_op().then(|| (weight.shape().clone(), weight.dtype())), ..self }
    }

    pub(crate) fn with_bias(self, bias: &Tensor) -> Self {
        Self { bias: bias.track_op().then(|| (bias.shape().clone(), bias.dtype())), ..self }
    }
}

/// The gradients that were wanted.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub(crate) x: Option<Tensor>,
    pub(crate) weight: Option<Tensor>,
    pub(crate) bias: Option<Tensor>,
}

/// The gradients of `forward` at `x`, given that of its output.
pub(crate) fn backward<K: Kernel>(
    forward: &Forward<K>,
    [x, dy]: [&Tensor; 2],
    [weight, bias]: [Option<&Tensor>; 2],
    wanted: Wanted,
) -> Result<Gradients> {
    if dy.track_op() {
        return Err(Error::SecondOrder.into());
    }
    let (x, dy) = (in_one_block(x, forward)?, in_one_block(dy, forward)?);
    let bias = bias.filter(|_| forward.kernel.backward_reads_bias()).map(Tensor::detach);
    let op = Backward { forward: forward.clone(), wanted, bias, parameters: Mutex::new([None, None]) };
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
fn in_one_block<K: Kernel>(tensor: &Tensor, forward: &Forward<K>) -> Result<Tensor> {
    let tensor = tensor.detach();
    let blocks = forward.kernel.blocks(tensor.layout(), forward.features);
    if blocks.and_then(Blocks::if_one).is_some() { Ok(tensor) } else { tensor.contiguous() }
}

/// Sums, in the type that they were summed in, as a gradient, in the type of its parameter.
fn tensor(storage: Option<CpuStorage>, wanted: Option<(Shape, DType)>, x: &Tensor) -> Result<Option<Tensor>> {
    let (Some(storage), Some((shape, dtype))) = (storage, wanted) else { return Ok(None) };
    let sums = match storage.dtype() {
        DType::F64 => Tensor::from_vec(f64::cpu_storage_data(storage)?, shape, x.device())?,
        _ => Tensor::from_vec(f32::cpu_storage_data(storage)?, shape, x.device())?,
    };
    Ok(Some(sums.to_dtype(dtype)?))
}

/// x, dy and weight to dx (or to nothing, if nobody wants it), with dweight and dbias left in `parameters`.
struct Backward<K> {
    forward: Forward<K>,
    wanted: Wanted,
    /// Where it is read. An operation of candle has no fourth input.
    bias: Option<Tensor>,
    parameters: Mutex<[Option<CpuStorage>; 2]>,
}

impl<K: Kernel> Backward<K> {
    fn run(&self, x: Stored<'_>, dy: Stored<'_>, weight: Option<Stored<'_>>) -> Result<(CpuStorage, Shape)> {
        let dx: Result<_> = with_numbers!(x.0, memory => self.run_as(memory, x.1, dy, weight));
        Ok((dx?, if self.wanted.x { x.1.shape().clone() } else { Shape::from(0) }))
    }

    fn run_as<E: Scalar>(
        &self,
        x: &[E],
        x_layout: &Layout,
        dy: Stored<'_>,
        weight: Option<Stored<'_>>,
    ) -> Result<CpuStorage> {
        taken_along([self.bias.as_ref(), None], |[bias, _]| {
            if all_of::<E>([weight, bias]) {
                self.run_with::<E, E>(x, x_layout, dy, [weight, bias])
            } else {
                self.run_with::<E, E::Acc>(x, x_layout, dy, [weight, bias])
            }
        })
    }

    fn run_with<E: Scalar, P: Companion<E> + WithDType>(
        &self,
        x: &[E],
        x_layout: &Layout,
        dy: Stored<'_>,
        parameters: [Option<Stored<'_>>; 2],
    ) -> Result<CpuStorage> {
        let Forward { kernel, features, .. } = &self.forward;
        let features = *features;
        let blocks = |layout| kernel.blocks(layout, features).ok_or(Error::Rows);
        let x = blocks(x_layout)?.block(0, x)?;
        let dy = blocks(dy.1)?.block(0, E::cpu_storage_as_slice(dy.0)?)?;
        let [weight, bias] = parameters.map(|stored| stored.map(parameter::<P>).transpose());
        let parameters = [weight?, bias?];

        let mut dx = E::zeros(if self.wanted.x { x_layout.shape().elem_count() } else { 0 });
        let sums =
            |(shape, _): &(Shape, DType)| vec![<E::Acc as WithDType>::from_f64(0.0); shape.elem_count()];
        let [mut dweight, mut dbias] =
            [&self.wanted.weight, &self.wanted.bias].map(|wanted| wanted.as_ref().map(sums));
        let of_x = self.wanted.x.then_some(&mut dx[..]);
        let of_parameters = [dweight.as_deref_mut(), dbias.as_deref_mut()];
        kernel.backward([x, dy], parameters, of_x, of_parameters).map_err(Error::from)?;

        let sums = [dweight, dbias].map(|gradient| gradient.map(E::Acc::to_cpu_storage_owned));
        *self.parameters.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = sums;
        Ok(E::to_cpu_storage_owned(dx))
    }
}

impl<K: Kernel> CustomOp2 for Backward<K> {
    fn name(&self) -> &'static str {
        self.forward.kernel.name()
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

impl<K: Kernel> CustomOp3 for Backward<K> {
    fn name(&self) -> &'static str {
        self.forward.kernel.name()
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
