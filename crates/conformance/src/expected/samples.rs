//! Norms with parameters of each sample's own.

use super::{Call, RUN, Sums, in_a_row, zeros};
use crate::{Name, Number, Outputs};
use layernorm::{
    AdaGradients, Companion, Error, Modulation, ModulationGradients, Rows, RowsMut, ScaleIs, Stats,
};

pub(super) fn ada_layer_norm<E: Number, P: Companion<E>>(
    call: &Call<'_, E, P>,
    scale_is: ScaleIs,
) -> Result<Outputs<E>, Error> {
    let (case, modulation, features) = (call.case, modulation(call, scale_is)?, call.case.features());
    let (mut y, mut dx, mut sums, mut saved) =
        (call.like_x(), call.like_x(), call.sums(), Stats::new(case.rows()));
    let (x, dy) = (Rows::new(&case.x, features)?, Rows::new(&case.dy, features)?);
    layernorm::ada_layer_norm(x, modulation, RowsMut::new(&mut y, features)?, Some(saved.as_mut()), RUN())?;
    let gradients = gradients(&mut dx, &mut sums, features)?;
    layernorm::ada_layer_norm_backward(x, dy, modulation, Some(saved.as_ref()), gradients, RUN())?;
    Ok(sums.outputs(y, dx).wide(Name::Statistics, in_a_row(saved)))
}

pub(super) fn ada_rms_norm<E: Number, P: Companion<E>>(
    call: &Call<'_, E, P>,
    scale_is: ScaleIs,
) -> Result<Outputs<E>, Error> {
    let (case, modulation, features) = (call.case, modulation(call, scale_is)?, call.case.features());
    let (mut y, mut dx, mut sums, mut rstd) = (call.like_x(), call.like_x(), call.sums(), zeros(case.rows()));
    let (x, dy) = (Rows::new(&case.x, features)?, Rows::new(&case.dy, features)?);
    layernorm::ada_rms_norm(x, modulation, RowsMut::new(&mut y, features)?, Some(&mut rstd), RUN())?;
    let gradients = gradients(&mut dx, &mut sums, features)?;
    layernorm::ada_rms_norm_backward(x, dy, modulation, Some(&rstd), gradients, RUN())?;
    Ok(sums.outputs(y, dx).wide(Name::Statistics, rstd))
}

fn modulation<'a, E: Number, P>(
    call: &'a Call<'_, E, P>,
    scale_is: ScaleIs,
) -> Result<Modulation<'a, P>, Error> {
    let rows =
        |values: &'a Option<Vec<P>>| values.as_ref().map(|values| Rows::new(values, call.case.features()));
    let scale = rows(&call.of.weight).ok_or(Error::Length { what: "scale", expected: 1, got: 0 })??;
    Ok(Modulation { scale, shift: rows(&call.of.bias).transpose()?, scale_is, eps: call.case.eps })
}

fn gradients<'a, E: Number>(
    dx: &'a mut [E],
    sums: &'a mut Sums<E::Acc>,
    features: usize,
) -> Result<AdaGradients<'a, E>, Error> {
    let of_modulation = ModulationGradients {
        dscale: sums.dweight.as_deref_mut().map(|dscale| RowsMut::new(dscale, features)).transpose()?,
        dshift: sums.dbias.as_deref_mut().map(|dshift| RowsMut::new(dshift, features)).transpose()?,
        accumulate: false,
        workspace: &mut sums.workspace,
    };
    Ok(AdaGradients { dx: Some(RowsMut::new(dx, features)?), modulation: Some(of_modulation) })
}
