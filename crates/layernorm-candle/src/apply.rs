//! From the tensors of a caller to where they are computed: what is checked, in which type, and by what.

use crate::compose::compose;
use crate::error::{Error, expect_device};
use crate::forward::{Affine, Forward};
use crate::kernels::{Kernel, Norm};
use crate::rows::Blocks;
use crate::scalar::compute_type;
use candle_core::{DType, Result, Tensor};
use std::sync::LazyLock;

/// `norm` of `x` over its last axis, times `weight` and plus `bias`.
pub(crate) fn over_last_axis(
    norm: Norm,
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let features = last_axis(norm, x, weight, bias)?;
    over_rows(norm, x, features, weight, bias)
}

/// The length of the last axis of `x`, which parameters fit.
pub(crate) fn last_axis(
    norm: Norm,
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<usize> {
    let Some(&features) = x.dims().last() else {
        let needs = "an axis to normalise over";
        return Err(Error::Rank { norm: norm.name(), needs, x: x.shape().clone() }.into());
    };
    expect_parameter("weight", weight, x, features)?;
    expect_parameter("bias", bias, x, features)?;
    Ok(features)
}

/// `f` of `x` in the type that it is computed in; the result in the type of `x` again, rounded once.
///
/// For what is composed around a kernel or without one. f16 and bf16 are converted to f32 and back, and candle records
/// both conversions.
pub(crate) fn in_compute_type(x: &Tensor, f: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    f(&x.to_dtype(compute_type(x)?)?)?.to_dtype(x.dtype())
}

/// `norm` of the rows of `features` values of `x`: by the kernels where they reach, else composed.
pub(crate) fn over_rows(
    norm: Norm,
    x: &Tensor,
    features: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let computed = compute_type(x)?;
    if !by_kernels(x) {
        match computed {
            DType::F64 => norm.check::<f64>().map_err(Error::from)?,
            _ => norm.check::<f32>().map_err(Error::from)?,
        }
        let convert = |parameter: Option<&Tensor>| parameter.map(|p| p.to_dtype(computed)).transpose();
        let (weight, bias) = (convert(weight)?, convert(bias)?);
        return in_compute_type(x, |x| compose(norm, x, features, weight.as_ref(), bias.as_ref()));
    }
    by_kernel(norm, x, features, weight, bias)
}

/// The rows of `features` values of `x` by a kernel, which reaches `x`. As operations that candle records.
pub(crate) fn by_kernel(
    kernel: impl Kernel,
    x: &Tensor,
    features: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let copied;
    let x = if kernel.blocks(x.layout(), features).is_some() {
        x
    } else {
        copied = x.contiguous()?; // recorded by candle, so the gradient goes back the same way
        &copied
    };
    let parameters = parameters(x, [weight, bias])?;
    record(x, parameters.each_ref().map(Option::as_ref), |affine| Forward {
        kernel,
        features,
        affine,
        done: None,
    })
}

/// Weight and bias as the kernels read them: of the type of x, or of the one that it is computed in, in evenly spaced rows.
/// Candle records a conversion, so that a gradient comes back in the type of its parameter.
pub(crate) fn parameters(x: &Tensor, given: [Option<&Tensor>; 2]) -> Result<[Option<Tensor>; 2]> {
    let as_they_are = given.iter().flatten().all(|p| p.dtype() == x.dtype());
    let dtype = if as_they_are { x.dtype() } else { compute_type(x)? };
    let [weight, bias] = given.map(|p| -> Result<_> {
        let Some(p) = p else { return Ok(None) };
        let p = p.to_dtype(dtype)?;
        Ok(Some(if Blocks::of_last_axis(p.layout()).is_some() { p } else { p.contiguous()? }))
    });
    Ok([weight?, bias?])
}

/// The operation of candle for these parameters.
pub(crate) fn record<K: Kernel>(
    x: &Tensor,
    parameters: [Option<&Tensor>; 2],
    forward: impl FnOnce(Affine) -> Forward<K>,
) -> Result<Tensor> {
    match parameters {
        [None, None] => x.apply_op1(forward(Affine::None)),
        [Some(weight), None] => x.apply_op2(weight, forward(Affine::Weight)),
        [None, Some(bias)] => x.apply_op2(bias, forward(Affine::Bias)),
        [Some(weight), Some(bias)] => x.apply_op3(weight, bias, forward(Affine::Both)),
    }
}

/// Do the kernels reach `x`, and may they?
pub(crate) fn by_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && !*SECOND_ORDER
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

/// Parameters may be of any float type.
pub(crate) fn expect_float(name: &'static str, tensor: &Tensor) -> Result<()> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => Ok(()),
        got => Err(Error::Type { name, got }.into()),
    }
}
