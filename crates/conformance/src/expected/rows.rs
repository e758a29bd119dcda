//! Norms of rows.

use super::{Call, RUN, in_a_row, zeros};
use crate::{Name, Number, Operator, Outputs};
use layernorm::{Companion, Error, Gradients, HeadNorm, QkParams, RmsParams, Rows, RowsMut, Stats};

pub(super) fn layer_norm<E: Number, P: Companion<E>>(call: &Call<'_, E, P>) -> Result<Outputs<E>, Error> {
    let (case, params, features) = (call.case, call.params(), call.case.features());
    let (mut y, mut dx, mut sums, mut saved) =
        (call.like_x(), call.like_x(), call.sums(), Stats::new(case.rows()));
    let (x, dy) = (Rows::new(&case.x, features)?, Rows::new(&case.dy, features)?);
    layernorm::layer_norm(x, params, RowsMut::new(&mut y, features)?, Some(saved.as_mut()), RUN())?;
    let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, features)?), params: Some(sums.gradients()) };
    layernorm::layer_norm_backward(x, dy, params, Some(saved.as_ref()), gradients, RUN())?;
    Ok(sums.outputs(y, dx).wide(Name::Statistics, in_a_row(saved)))
}

pub(super) fn rms_norm<E: Number, P: Companion<E>>(call: &Call<'_, E, P>) -> Result<Outputs<E>, Error> {
    let (case, params, features) = (call.case, rms_params(call), call.case.features());
    let (mut y, mut dx, mut sums, mut rstd) = (call.like_x(), call.like_x(), call.sums(), zeros(case.rows()));
    let (x, dy) = (Rows::new(&case.x, features)?, Rows::new(&case.dy, features)?);
    layernorm::rms_norm(x, params, RowsMut::new(&mut y, features)?, Some(&mut rstd), RUN())?;
    let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, features)?), params: Some(sums.gradients()) };
    layernorm::rms_norm_backward(x, dy, params, Some(&rstd), gradients, RUN())?;
    Ok(sums.outputs(y, dx).wide(Name::Statistics, rstd))
}

fn rms_params<'a, E: Number, P: Companion<E>>(call: &'a Call<'_, E, P>) -> RmsParams<'a, P> {
    let plain = RmsParams::from(call.params());
    match call.case.operator {
        Operator::RmsNorm { weight_offset, partial, epsilon, rounding } => {
            let partial = partial.then(|| call.case.features().div_ceil(2));
            RmsParams { weight_offset, partial, epsilon, rounding, ..plain }
        }
        _ => plain,
    }
}

pub(super) fn scale_norm<E: Number, P: Companion<E>>(call: &Call<'_, E, P>) -> Result<Outputs<E>, Error> {
    let (case, features) = (call.case, call.case.features());
    let scale = call.of.weight.as_ref().and_then(|weight| weight.first().copied());
    let scale = scale.ok_or(Error::Length { what: "the scale", expected: 1, got: 0 })?;
    let (mut y, mut dx, mut sums, mut rnorm) =
        (call.like_x(), call.like_x(), call.sums(), zeros(case.rows()));
    let (x, dy) = (Rows::new(&case.x, features)?, Rows::new(&case.dy, features)?);
    layernorm::scale_norm(x, scale, case.eps, RowsMut::new(&mut y, features)?, Some(&mut rnorm), RUN())?;
    let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, features)?), params: Some(sums.gradients()) };
    layernorm::scale_norm_backward(x, dy, scale, case.eps, gradients, RUN())?;
    Ok(sums.outputs(y, dx).wide(Name::Statistics, rnorm))
}

pub(super) fn l2_norm<E: Number, P: Companion<E>>(call: &Call<'_, E, P>) -> Result<Outputs<E>, Error> {
    let (case, features) = (call.case, call.case.features());
    let (mut y, mut dx, mut rnorm) = (call.like_x(), call.like_x(), zeros(case.rows()));
    let (x, dy) = (Rows::new(&case.x, features)?, Rows::new(&case.dy, features)?);
    layernorm::l2_norm(x, case.eps, RowsMut::new(&mut y, features)?, Some(&mut rnorm), RUN())?;
    layernorm::l2_norm_backward(x, dy, case.eps, RowsMut::new(&mut dx, features)?, RUN())?;
    Ok(call.sums().outputs(y, dx).wide(Name::Statistics, rnorm))
}

/// Without statistics: these the kernel does not save.
pub(super) fn qk_norm<E: Number, P: Companion<E>>(
    call: &Call<'_, E, P>,
    norm: HeadNorm,
    by_head: bool,
) -> Result<Outputs<E>, Error> {
    let (case, features) = (call.case, call.case.features());
    let heads = if by_head { case.shape[1] } else { 1 };
    let weight = call.of.weight.as_deref();
    let params = QkParams { norm, heads, weight, bias: call.of.bias.as_deref(), eps: case.eps };
    let (mut y, mut dx, mut sums) = (call.like_x(), call.like_x(), call.sums());
    let (x, dy) = (Rows::new(&case.x, features)?, Rows::new(&case.dy, features)?);
    layernorm::qk_norm(x, params, RowsMut::new(&mut y, features)?, RUN())?;
    let gradients = Gradients { dx: Some(RowsMut::new(&mut dx, features)?), params: Some(sums.gradients()) };
    layernorm::qk_norm_backward(x, dy, params, gradients, RUN())?;
    Ok(sums.outputs(y, dx))
}
