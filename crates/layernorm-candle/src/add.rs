//! A sum and its norm in one call of the kernels, which candle records as the two operations that they are.
//!
//! An operation of candle has one output. Two outputs packed in one tensor would have to be narrowed apart, and for a
//! narrowed tensor candle's backward pass pads its gradient with zeros and adds that up: copies of twice its size. So the
//! operation here has the sum as its output, and leaves the norm for the operation recorded next, which finds it done.
//!
//! In the backward pass the norm's gradient at the sum meets what reaches the sum besides in candle's own addition: of
//! f32 and f64 the same bits as those of `layernorm::add_layer_norm_backward`, of halves rounded once more.

use crate::apply::{parameters, record};
use crate::error::Error;
use crate::forward::{Done, Forward};
use crate::kernels::{Kernel, Kind, Norm, params};
use crate::rows::{Block, Blocks};
use crate::scalar::{Scalar, with_numbers};
use crate::stored::{Stored, all_of, parameter, taken_along};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType};
use layernorm::{Branch, Companion, Residual, RowsMut, Run};

/// x + residual, with `norm` of it left in `done`.
#[derive(Debug)]
struct Add {
    norm: Norm,
    features: usize,
    parameters: [Option<Tensor>; 2],
    done: Done,
}

/// `x + residual` and the layer or RMS norm of it, if the kernel can read both where they lie.
pub(crate) fn add_and_norm(
    norm: Norm,
    [x, residual]: [&Tensor; 2],
    features: usize,
    [weight, bias]: [Option<&Tensor>; 2],
) -> Result<Option<[Tensor; 2]>> {
    let one_block =
        |tensor: &Tensor| norm.blocks(tensor.layout(), features).and_then(Blocks::if_one).is_some();
    if !one_block(x) || !one_block(residual) {
        return Ok(None);
    }
    let (parameters, done) = (parameters(x, [weight, bias])?, Done::default());
    let detached = parameters.each_ref().map(|p| p.as_ref().map(Tensor::detach));
    let add = Add { norm, features, parameters: detached, done: done.clone() };
    let sum = x.apply_op2(residual, add)?;
    let y = record(&sum, parameters.each_ref().map(Option::as_ref), |affine| Forward {
        kernel: norm,
        features,
        affine,
        done: Some(done),
    })?;
    Ok(Some([sum, y]))
}

impl Add {
    fn run_as<E: Scalar>(&self, x: &[E], layout: &Layout, residual: Stored<'_>) -> Result<CpuStorage> {
        let rows = |memory, layout| -> Result<Block<'_, E>> {
            let blocks = self.norm.blocks(layout, self.features).ok_or(Error::Rows)?;
            Ok(blocks.block(0, memory)?)
        };
        let both = [rows(x, layout)?, rows(E::cpu_storage_as_slice(residual.0)?, residual.1)?];
        let outputs = [(); 2].map(|()| E::zeros(layout.shape().elem_count()));
        let [weight, bias] = self.parameters.each_ref().map(Option::as_ref);
        let [sum, y] = taken_along([weight, bias], |parameters| {
            if all_of::<E>(parameters) {
                self.run_with::<E, E>(both, parameters, outputs)
            } else {
                self.run_with::<E, E::Acc>(both, parameters, outputs)
            }
        })?;
        self.done.leave(E::to_cpu_storage_owned(y));
        Ok(E::to_cpu_storage_owned(sum))
    }

    fn run_with<E: Scalar, P: Companion<E> + WithDType>(
        &self,
        [x, residual]: [Block<'_, E>; 2],
        [weight, bias]: [Option<Stored<'_>>; 2],
        [mut sum, mut y]: [Vec<E>; 2],
    ) -> Result<[Vec<E>; 2]> {
        let parameters = [weight.map(parameter::<P>).transpose()?, bias.map(parameter::<P>).transpose()?];
        let params = params(parameters, self.norm.eps);
        let mut call = || {
            let out = RowsMut::new(&mut sum, self.features)?;
            let residual = Residual { residual: residual.rows()?, out, branch: Branch::default() };
            let (x, y) = (x.rows()?, RowsMut::new(&mut y, self.features)?);
            match self.norm.kind {
                Kind::Rms => layernorm::add_rms_norm(x, residual, params, y, None, Run::default()),
                _ => layernorm::add_layer_norm(x, residual, params, y, None, Run::default()),
            }
        };
        call().map_err(Error::from)?;
        Ok([sum, y])
    }
}

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sum: Result<_> =
            with_numbers!(x, memory => self.run_as(memory, x_layout, (residual, residual_layout)));
        Ok((sum?, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        residual: &Tensor,
        _sum: &Tensor,
        dsum: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of = |input: &Tensor| input.track_op().then(|| dsum.clone());
        Ok((of(x), of(residual)))
    }
}
