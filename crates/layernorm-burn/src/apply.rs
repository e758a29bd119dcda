//! From the tensors of a caller to a backend: in which type it is computed, and where. What is checked for all norms.

use crate::Error;
use crate::compose::compose;
use crate::operator::Operator;
use crate::ops::{self, NormOps, Params};
use burn::backend::{Dispatch, DispatchTensorKind};
use burn::tensor::{DType, FloatDType, Tensor};
use layernorm::{Real, Rows, RowsMut, Run};

/// What a call takes beside x and its parameters, and gives back as it has become. See [`ops::Beside`].
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one lives for one call, and an allocation would cost it more")]
pub(crate) enum Beside<const D: usize> {
    Nothing,
    Residual(Tensor<D>),
    Running([Tensor<1>; 2]),
}

/// `norm` of `x`, with gamma and beta where they are there. Their shapes have been checked.
pub(crate) fn apply<const D: usize, const P: usize>(
    norm: Operator,
    x: Tensor<D>,
    params: [Option<Tensor<P>>; 2],
) -> Result<Tensor<D>, Error> {
    Ok(apply_beside(norm, x, params, Beside::Nothing)?.0)
}

/// [`apply`] with more than x. Running statistics come back in the type that x is computed in.
pub(crate) fn apply_beside<const D: usize, const P: usize>(
    norm: Operator,
    x: Tensor<D>,
    params: [Option<Tensor<P>>; 2],
    beside: Beside<D>,
) -> Result<(Tensor<D>, Beside<D>), Error> {
    let result = x.dtype();
    let (stored, computed) = types(result)?;
    match computed {
        FloatDType::F64 => expect_runnable::<f64>(norm)?,
        _ => expect_runnable::<f32>(norm)?,
    }

    let x = convert(x, stored);
    // The kernels read parameters of the type of x, or of the one that it is computed in.
    let as_they_are = params.iter().flatten().all(|parameter| parameter.dtype() == stored.into());
    let of_params = if as_they_are { stored } else { computed };
    let params = params.map(|parameter| parameter.map(|parameter| convert(parameter, of_params)));
    let beside = match beside {
        Beside::Nothing => Beside::Nothing,
        Beside::Residual(residual) => Beside::Residual(convert(residual, stored)),
        Beside::Running(running) => {
            let constant = |of: Tensor<1>| convert(of.without_autodiff().to_device(&x.device()), computed);
            Beside::Running(running.map(constant))
        }
    };
    let (y, beside) = run(norm, x, params, beside);
    let beside = match beside {
        Beside::Residual(sum) => Beside::Residual(convert(sum, result.into())),
        other => other,
    };
    Ok((convert(y, result.into()), beside))
}

/// The types that the numbers of x are read in, and computed in.
pub(crate) fn types(x: DType) -> Result<(FloatDType, FloatDType), Error> {
    match x {
        DType::QFloat(_) => Err(Error::Quantized { dtype: x }),
        DType::F64 => Ok((FloatDType::F64, FloatDType::F64)),
        DType::F16 => Ok((FloatDType::F16, FloatDType::F32)),
        DType::BF16 => Ok((FloatDType::BF16, FloatDType::F32)),
        _ => Ok((FloatDType::F32, FloatDType::F32)),
    }
}

/// A module of `d_model` features takes no other `x`, though one parameter for all features would fit.
pub(crate) fn expect_features<const D: usize>(d_model: usize, x: &Tensor<D>) -> Result<(), Error> {
    match x.dims().last() {
        Some(&features) if features == d_model => Ok(()),
        _ => Err(Error::Features { d_model, x: x.dims().to_vec() }),
    }
}

/// A parameter has one number for each feature, or one for all.
pub(crate) fn expect_parameters<const D: usize>(
    x: &Tensor<D>,
    params: &[Option<Tensor<1>>; 2],
) -> Result<(), Error> {
    let features = x.dims().last().copied().unwrap_or(1);
    match misfit(params, features) {
        Some((name, len)) => Err(Error::Parameter { name, len, features, x: x.dims().to_vec() }),
        None => Ok(()),
    }
}

/// Name and length of the first parameter that has neither so many numbers nor one.
pub(crate) fn misfit(params: &[Option<Tensor<1>>; 2], units: usize) -> Option<(&'static str, usize)> {
    let named = ["gamma", "beta"].into_iter().zip(params);
    let mut lengths = named.filter_map(|(name, parameter)| Some((name, parameter.as_ref()?.dims()[0])));
    lengths.find(|&(_, len)| len != units && len != 1)
}

#[track_caller]
pub(crate) fn or_panic<V>(result: Result<V, Error>) -> V {
    result.unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
pub(crate) fn expect_epsilon(epsilon: f64) {
    assert!(
        epsilon >= 0.0 && epsilon.is_finite(),
        "epsilon is {epsilon}: it must be finite and not negative"
    );
}

/// The kernels' own checks of everything but shapes: a call on no rows makes them. Past the dispatch there is
/// no way to return an error.
fn expect_runnable<T: Real>(norm: Operator) -> Result<(), Error> {
    let params = layernorm::Params::<T> { eps: norm.eps, ..Default::default() };
    let nothing = (Rows::new(&[], 0)?, RowsMut::new(&mut [], 0)?);
    Ok(layernorm::layer_norm(nothing.0, params, nothing.1, None, Run::default())?)
}

pub(crate) fn convert<const D: usize>(tensor: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
    if tensor.dtype() == dtype.into() { tensor } else { tensor.cast(dtype) }
}

fn run<const D: usize, const P: usize>(
    norm: Operator,
    x: Tensor<D>,
    [gamma, beta]: [Option<Tensor<P>>; 2],
    beside: Beside<D>,
) -> (Tensor<D>, Beside<D>) {
    let x = x.into_dispatch();
    if !has_kernels(&x.kind) {
        return compose(norm, Tensor::from_dispatch(x), [gamma, beta], beside);
    }
    let params = Params::new(gamma.map(Tensor::into_dispatch), beta.map(Tensor::into_dispatch));
    let beside = match beside {
        Beside::Nothing => ops::Beside::Nothing,
        Beside::Residual(residual) => ops::Beside::Residual(residual.into_dispatch()),
        Beside::Running([mean, var]) => ops::Beside::Running(mean.into_dispatch(), var.into_dispatch()),
    };
    let (y, beside) = <Dispatch as NormOps>::norm(norm, x, params, beside);
    let beside = match beside {
        ops::Beside::Nothing => Beside::Nothing,
        ops::Beside::Residual(sum) => Beside::Residual(Tensor::from_dispatch(sum)),
        ops::Beside::Running(mean, var) => Beside::Running([mean, var].map(Tensor::from_dispatch)),
    };
    (Tensor::from_dispatch(y), beside)
}

/// Is this one of the backends that [`NormOps`] lists? On any other, its dispatch would panic.
fn has_kernels(kind: &DispatchTensorKind) -> bool {
    match kind {
        DispatchTensorKind::Autodiff(inner) => has_kernels(inner),
        kind => matches!(kind, DispatchTensorKind::Flex(_)),
    }
}
