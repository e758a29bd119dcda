//! From the tensors of a caller to a backend: what is checked, in which type it is computed, and where.

use crate::Error;
use crate::operator::Operator;
use crate::ops::{NormOps, Params};
use burn::backend::{Dispatch, DispatchTensorKind};
use burn::tensor::{DType, FloatDType, Tensor};
use layernorm::{Real, Rows, RowsMut, Run};

/// `norm` of `x`, over its last axis.
pub(crate) fn apply<const D: usize>(
    norm: Operator,
    x: Tensor<D>,
    gamma: Option<Tensor<1>>,
    beta: Option<Tensor<1>>,
) -> Result<Tensor<D>, Error> {
    expect_parameter("gamma", gamma.as_ref(), &x)?;
    expect_parameter("beta", beta.as_ref(), &x)?;
    let result = x.dtype();
    let compute = match result {
        DType::QFloat(_) => return Err(Error::Quantized { dtype: result }),
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    };
    match compute {
        FloatDType::F64 => expect_runnable::<f64>(norm)?,
        _ => expect_runnable::<f32>(norm)?,
    }

    let x = convert(x, compute);
    let (gamma, beta) = (gamma.map(|gamma| convert(gamma, compute)), beta.map(|beta| convert(beta, compute)));
    Ok(convert(run(norm, x, gamma, beta), result.into()))
}

/// A module of `d_model` features takes no other `x`, though one parameter for all features would fit.
pub(crate) fn expect_features<const D: usize>(d_model: usize, x: &Tensor<D>) -> Result<(), Error> {
    match x.dims().last() {
        Some(&features) if features == d_model => Ok(()),
        _ => Err(Error::Features { d_model, x: x.dims().to_vec() }),
    }
}

fn expect_parameter<const D: usize>(
    name: &'static str,
    parameter: Option<&Tensor<1>>,
    x: &Tensor<D>,
) -> Result<(), Error> {
    let features = x.dims().last().copied().unwrap_or(1);
    match parameter.map(|parameter| parameter.dims()) {
        Some([len]) if len != features && len != 1 => {
            Err(Error::Parameter { name, len, features, x: x.dims().to_vec() })
        }
        _ => Ok(()),
    }
}

/// The kernels' own checks of everything but shapes: a call on no rows makes them. Past the dispatch there is
/// no way to return an error.
fn expect_runnable<T: Real>(norm: Operator) -> Result<(), Error> {
    let params = layernorm::Params::<T> { eps: norm.eps, ..Default::default() };
    let nothing = (Rows::new(&[], 0)?, RowsMut::new(&mut [], 0)?);
    Ok(layernorm::layer_norm(nothing.0, params, nothing.1, None, Run::default())?)
}

/// `f` of `x` in f64 if that is its type, else in f32; the result in the type of `x` again.
pub(crate) fn widened<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    let compute = if dtype == DType::F64 { FloatDType::F64 } else { FloatDType::F32 };
    convert(f(convert(x, compute)), dtype.into())
}

fn convert<const D: usize>(tensor: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
    if tensor.dtype() == dtype.into() { tensor } else { tensor.cast(dtype) }
}

fn run<const D: usize>(
    norm: Operator,
    x: Tensor<D>,
    gamma: Option<Tensor<1>>,
    beta: Option<Tensor<1>>,
) -> Tensor<D> {
    let x = x.into_dispatch();
    if has_kernels(&x.kind) {
        let params = Params::new(gamma.map(Tensor::into_dispatch), beta.map(Tensor::into_dispatch));
        Tensor::from_dispatch(<Dispatch as NormOps>::norm(norm, x, params))
    } else {
        norm.compose(Tensor::from_dispatch(x), gamma, beta)
    }
}

/// Is this one of the backends that [`NormOps`] lists? On any other, its dispatch would panic.
fn has_kernels(kind: &DispatchTensorKind) -> bool {
    match kind {
        DispatchTensorKind::Autodiff(inner) => has_kernels(inner),
        kind => matches!(kind, DispatchTensorKind::Flex(_)),
    }
}
