//! Norms of a residual stream.

use super::{Call, RUN, Sums, in_a_row, zeros};
use crate::{Name, Number, Outputs};
use layernorm::{AddGradients, Branch, Companion, Error, Residual, Rows, RowsMut, Stats, Upstream};

pub(super) fn add_layer_norm<E: Number, P: Companion<E>>(call: &Call<'_, E, P>) -> Result<Outputs<E>, Error> {
    let (case, params, features) = (call.case, call.params(), call.case.features());
    let (mut y, mut stream, mut dx) = (call.like_x(), call.like_x(), call.like_x());
    let (mut sums, mut saved) = (call.sums(), Stats::new(case.rows()));
    let (x, dy) = (Rows::new(&case.x, features)?, Rows::new(&case.dy, features)?);
    let [residual, dsum] = streams(call)?;
    let to =
        Residual { residual, out: RowsMut::new(&mut stream, features)?, branch: Branch::<E, P>::default() };
    layernorm::add_layer_norm(x, to, params, RowsMut::new(&mut y, features)?, Some(saved.as_mut()), RUN())?;
    let out = Rows::new(&stream, features)?;
    let gradients = gradients(dsum, &mut dx, &mut sums, features)?;
    layernorm::add_layer_norm_backward(out, dy, params, Some(saved.as_ref()), gradients, RUN())?;
    Ok(sums.outputs(y, dx).own(Name::Stream, stream).wide(Name::Statistics, in_a_row(saved)))
}

pub(super) fn add_rms_norm<E: Number, P: Companion<E>>(call: &Call<'_, E, P>) -> Result<Outputs<E>, Error> {
    let (case, params, features) = (call.case, call.params(), call.case.features());
    let (mut y, mut stream, mut dx) = (call.like_x(), call.like_x(), call.like_x());
    let (mut sums, mut rstd) = (call.sums(), zeros(case.rows()));
    let (x, dy) = (Rows::new(&case.x, features)?, Rows::new(&case.dy, features)?);
    let [residual, dsum] = streams(call)?;
    let to =
        Residual { residual, out: RowsMut::new(&mut stream, features)?, branch: Branch::<E, P>::default() };
    layernorm::add_rms_norm(x, to, params, RowsMut::new(&mut y, features)?, Some(&mut rstd), RUN())?;
    let out = Rows::new(&stream, features)?;
    let gradients = gradients(dsum, &mut dx, &mut sums, features)?;
    layernorm::add_rms_norm_backward(out, dy, params, Some(&rstd), gradients, RUN())?;
    Ok(sums.outputs(y, dx).own(Name::Stream, stream).wide(Name::Statistics, rstd))
}

/// The residual, and the gradient of the sum.
fn streams<'a, E: Number, P>(call: &'a Call<'_, E, P>) -> Result<[Rows<'a, E>; 2], Error> {
    let (expected, features) = (call.case.x.len(), call.case.features());
    let stream = call.case.stream.as_ref().ok_or(Error::Length { what: "residual", expected, got: 0 })?;
    Ok([Rows::new(&stream.residual, features)?, Rows::new(&stream.dsum, features)?])
}

/// Without a mask, the gradient of x is that of the residual.
fn gradients<'a, E: Number>(
    dsum: Rows<'a, E>,
    dx: &'a mut [E],
    sums: &'a mut Sums<E::Acc>,
    features: usize,
) -> Result<AddGradients<'a, E, E>, Error> {
    Ok(AddGradients {
        upstream: Upstream::Apart(dsum),
        dresidual: RowsMut::new(dx, features)?,
        mask: None,
        dx: None,
        branch_bias: None,
        params: Some(sums.gradients()),
    })
}
