//! From the tensors of a caller to where they are computed: what is checked, in which type, and by what.

use crate::compose::compose;
use crate::error::{Error, expect_device};
use crate::forward::{Affine, Forward};
use crate::norm::Norm;
use crate::rows::Blocks;
use candle_core::{DType, Result, Tensor};
use std::sync::LazyLock;

/// `norm` of `x` over its last axis, times `weight` and plus `bias`.
pub(crate) fn over_last_axis(
    norm: Norm,
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let Some(&features) = x.dims().last() else {
        let needs = "an axis to normalise over";
        return Err(Error::Rank { norm: norm.name(), needs, x: x.shape().clone() }.into());
    };
    expect_parameter("weight", weight, x, features)?;
    expect_parameter("bias", bias, x, features)?;
    in_compute_type(x, |x| {
        let convert = |parameter: Option<&Tensor>| parameter.map(|p| p.to_dtype(x.dtype())).transpose();
        over_rows(norm, x, features, convert(weight)?.as_ref(), convert(bias)?.as_ref())
    })
}

/// `f` of `x` in the type that it is computed in; the result in the type of `x` again.
///
/// f32 and f64 are computed as they are. The kernels do not read f16 and bf16 yet: those are converted to f32 and
/// back, and candle records both conversions. When the kernels do, this is the place that changes.
pub(crate) fn in_compute_type(x: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match x.dtype() {
        DType::F32 | DType::F64 => f(x),
        DType::F16 | DType::BF16 => f(&x.to_dtype(DType::F32)?)?.to_dtype(x.dtype()),
        got => Err(Error::Type { name: "x", got }.into()),
    }
}

/// `norm` of the rows of `features` values of `x`, all f32 or f64: by the kernels where they reach, else composed.
pub(crate) fn over_rows(
    norm: Norm,
    x: &Tensor,
    features: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    if !x.device().is_cpu() || *SECOND_ORDER {
        match x.dtype() {
            DType::F64 => norm.check::<f64>().map_err(Error::from)?,
            _ => norm.check::<f32>().map_err(Error::from)?,
        }
        return compose(norm, x, features, weight, bias);
    }
    let copied;
    let x = if Blocks::of(x.layout(), features).is_some() {
        x
    } else {
        copied = x.contiguous()?; // recorded by candle, so the gradient goes back the same way
        &copied
    };
    let forward = |affine| Forward { norm, features, affine };
    match (weight, bias) {
        (None, None) => x.apply_op1(forward(Affine::None)),
        (Some(weight), None) => x.apply_op2(&weight.contiguous()?, forward(Affine::Weight)),
        (None, Some(bias)) => x.apply_op2(&bias.contiguous()?, forward(Affine::Bias)),
        (Some(weight), Some(bias)) => {
            x.apply_op3(&weight.contiguous()?, &bias.contiguous()?, forward(Affine::Both))
        }
    }
}

/// Does candle keep gradients in the graph, so that they can be differentiated again? The kernels' are not recorded.
static SECOND_ORDER: LazyLock<bool> = LazyLock::new(|| {
    std::env::var("CANDLE_GRAD_DO_NOT_DETACH").is_ok_and(|value| !value.is_empty() && value != "0")
});

fn expect_parameter(name: &'static str, p: Option<&Tensor>, x: &Tensor, features: usize) -> Result<()> {
    let Some(p) = p else { return Ok(()) };
    if p.dims() != [features] && p.dims() != [1] {
        return Err(Error::Parameter { name, got: p.shape().clone(), features, x: x.shape().clone() }.into());
    }
    expect_float(name, p)?;
    expect_device(name, p.device(), x.device())
}

/// Parameters of any float type are converted to that of the computation.
pub(crate) fn expect_float(name: &'static str, tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Ok(()),
        got => Err(Error::Type { name, got }.into()),
    }
}
