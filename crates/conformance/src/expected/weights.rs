//! Weight norm.

use super::{Call, RUN, zeros};
use crate::{Name, Number, Outputs};
use layernorm::{Companion, Error, WeightNorm, WeightNormGradients, Workspace};

pub(super) fn weight_norm<E: Number, P: Companion<E>>(
    call: &Call<'_, E, P>,
    axis: usize,
) -> Result<Outputs<E>, Error> {
    let (case, mut workspace) = (call.case, Workspace::new());
    let of = WeightNorm { gain: call.of.weight.as_deref().unwrap_or_default(), shape: &case.shape, axis };
    let (mut w, mut dv, mut sums) = (call.like_x(), call.like_x(), call.sums());
    let mut rnorm = zeros(case.shape[axis]);
    layernorm::weight_norm(&case.x, of, &mut w, Some(&mut rnorm), &mut workspace, RUN())?;
    let gradients = WeightNormGradients {
        dv: Some(&mut dv),
        dgain: sums.dweight.as_deref_mut(),
        workspace: &mut workspace,
    };
    layernorm::weight_norm_backward(&case.x, &case.dy, of, Some(&rnorm), gradients, RUN())?;
    Ok(sums.outputs(w, dv).wide(Name::Statistics, rnorm))
}
