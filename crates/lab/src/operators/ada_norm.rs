//! Adaptive layer and RMS norm: a scale and a shift for each sample.

use super::by_row::{self, input, output};
use super::oracle::{Names, Reference, Sets};
use super::types::{Acc, table};
use super::{
    Able, Expected, Extent, Flag, Given, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types,
};
use layernorm::reference::{self, RowNorm};
use layernorm::{
    AdaGradients, Error, Modulation, ModulationGradients, Rows, RowsMut, ScaleIs, Workspace, ada_layer_norm,
    ada_layer_norm_backward, ada_layer_norm_backward_in_place, ada_layer_norm_in_place, ada_rms_norm,
    ada_rms_norm_backward, ada_rms_norm_backward_in_place, ada_rms_norm_in_place,
};

/// Layer norm.
pub const LAYER: Operator = Operator {
    name: "ada_layer_norm",
    formula: "y = (1 + scale) x_hat + shift, with x_hat of layer_norm, scale and shift of the sample",
    structure: Structure::Samples,
    flags: &[Flag::Eps, Flag::Axis],
    eps: 1e-6,
    forward: Signature {
        needs: &[Slot::X, Slot::Scale],
        takes: &[Slot::Shift],
        writes: &[Slot::Y, Slot::Mean, Slot::Rstd],
        saves: &[Slot::M, Slot::C, Slot::Rstd],
        updates: &[],
    },
    backward: Signature {
        needs: &[Slot::X, Slot::Scale, Slot::Dy],
        takes: &[Slot::Shift],
        writes: &[Slot::Dx, Slot::Dscale, Slot::Dshift],
        saves: &[],
        updates: &[],
    },
    extent,
    able: Able { shards: false, ..Able::ALL },
    untimed: &[Slot::Mean],
    kernels: table!(layer_forward, layer_backward),
    oracle: |problem, given| expected(problem, given, true),
};

/// RMS norm.
pub const RMS: Operator = Operator {
    name: "ada_rms_norm",
    formula: "y = (1 + scale) x_hat + shift, with x_hat of rms_norm, scale and shift of the sample",
    forward: Signature { writes: &[Slot::Y, Slot::Rstd], saves: &[Slot::Rstd], ..LAYER.forward },
    kernels: table!(rms_forward, rms_backward),
    oracle: |problem, given| expected(problem, given, false),
    ..LAYER
};

/// The tensors' shapes.
pub(super) fn extent(slot: Slot) -> Extent {
    match slot {
        Slot::Scale | Slot::Shift | Slot::Gate | Slot::Dscale | Slot::Dshift | Slot::Dgate => Extent::Samples,
        _ => by_row::extent(slot),
    }
}

fn expected(problem: &Problem, given: &Given, centred: bool) -> Vec<Expected> {
    modulated(problem, given, centred, given.all(Slot::X), None)
}

/// What the norm of `x` must give, `upstream` added to its gradient.
pub(super) fn modulated(
    problem: &Problem,
    given: &Given,
    centred: bool,
    x: &[f64],
    upstream: Option<(&[f64], Slot)>,
) -> Vec<Expected> {
    let (n, tokens) = (problem.features(), tokens(problem));
    let at = |row: usize, j| (row * n + j, row / tokens * n + j);
    let sets = Sets {
        x,
        weight: given.get(Slot::Scale),
        offset: 1.0,
        bias: given.get(Slot::Shift),
        upstream: upstream.map(|(upstream, _)| upstream),
        ..by_row::sets(problem, given, centred, &at)
    };
    let dx = upstream.map_or(Slot::Dx, |(_, slot)| slot);
    let names = Names { dx, dweight: Slot::Dscale, dbias: Slot::Dshift, ..Names::USUAL };
    sets.expected(given, names, || {
        let norm = if centred { RowNorm::layer(n, sets.eps) } else { RowNorm::rms(n, sets.eps) };
        let scale = sets.weight.unwrap_or_default();
        let zeros = vec![0.0; scale.len()];
        let modulation = reference::Modulation { scale, shift: sets.bias.unwrap_or(&zeros) };
        let reference::Forward { y, mean, rstd } = reference::adaptive_norm(x, norm, modulation);
        let plain = reference::Modulation { scale: &zeros, shift: &zeros };
        let x_hat = reference::adaptive_norm(x, norm, plain).y;
        let back = sets.dy.map(|dy| reference::adaptive_norm_backward(dy, x, norm, modulation));
        let reference::ModulationBackward { mut dx, dscale, dshift } = back.unwrap_or_default();
        dx.iter_mut().zip(sets.upstream.unwrap_or_default()).for_each(|(dx, upstream)| *dx += upstream);
        let dbias = if sets.bias.is_some() { dshift } else { Vec::new() };
        Reference { y, mean, rstd, x_hat, dx, dweight: dscale, dbias }
    })
}

/// Rows of a sample.
pub(super) fn tokens(problem: &Problem) -> usize {
    problem.rows().checked_div(problem.samples()).unwrap_or(0).max(1)
}

/// A row of parameters, or of their gradients, for each sample.
pub(super) fn by_sample<'a, N>(problem: &Problem, of: &'a Option<Vec<N>>) -> Result<Rows<'a, N>, Error> {
    let n = problem.features();
    Rows::strided(of.as_deref().unwrap_or_default(), problem.samples(), n, n)
}

/// As [`by_sample`], to write.
pub(super) fn by_sample_mut<'a, N>(
    problem: &Problem,
    of: &'a mut Option<Vec<N>>,
) -> Result<Option<RowsMut<'a, N>>, Error> {
    let n = problem.features();
    of.as_deref_mut().map(|of| RowsMut::strided(of, problem.samples(), n, n)).transpose()
}

/// Scale, shift and eps.
pub(super) fn modulation<'a, P>(
    problem: &Problem,
    scale: &'a Option<Vec<P>>,
    shift: &'a Option<Vec<P>>,
) -> Result<Modulation<'a, P>, Error> {
    let shift = shift.is_some().then(|| by_sample(problem, shift)).transpose()?;
    let scale = by_sample(problem, scale)?;
    Ok(Modulation { scale, shift, scale_is: ScaleIs::AboveOne, eps: problem.eps() })
}

/// The sums over a sample's rows, where there is memory for one.
pub(super) fn gradients<'a, A>(
    problem: &Problem,
    how: &How,
    dscale: &'a mut Option<Vec<A>>,
    dshift: &'a mut Option<Vec<A>>,
    workspace: &'a mut Workspace<A>,
) -> Result<Option<ModulationGradients<'a, A>>, Error> {
    let wanted = dscale.is_some() || dshift.is_some();
    let (dscale, dshift) = (by_sample_mut(problem, dscale)?, by_sample_mut(problem, dshift)?);
    Ok(wanted.then_some(ModulationGradients { dscale, dshift, accumulate: how.accumulate, workspace }))
}

fn layer_forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, scale, shift, y, mean, m, c, rstd, .. } = tensors;
    let modulation = modulation(problem, scale, shift)?;
    let saved = by_row::stats_mut(m, c, rstd);
    if how.in_place {
        ada_layer_norm_in_place(output(problem, how, 0, x)?, modulation, saved, how.run)?;
    } else {
        let (x, y) = (input(problem, how, x)?, output(problem, how, 1, y)?);
        ada_layer_norm(x, modulation, y, saved, how.run)?;
    }
    by_row::mean(mean, m, c);
    Ok(())
}

fn layer_backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, scale, dy, m, c, rstd, dx, dscale, dshift, workspace, .. } = tensors;
    let modulation = modulation(problem, scale, &None)?;
    let saved = by_row::stats(m, c, rstd);
    let x = input(problem, how, x)?;
    let sums = gradients::<Acc<T>>(problem, how, dscale, dshift, workspace)?;
    if how.in_place {
        let dy = output(problem, how, 0, dy)?;
        return ada_layer_norm_backward_in_place(x, dy, modulation, saved, sums, how.run);
    }
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let gradients = AdaGradients { dx, modulation: sums };
    ada_layer_norm_backward(x, input(problem, how, dy)?, modulation, saved, gradients, how.run)
}

fn rms_forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, scale, shift, y, rstd, .. } = tensors;
    let (modulation, rstd) = (modulation(problem, scale, shift)?, rstd.as_deref_mut());
    if how.in_place {
        return ada_rms_norm_in_place(output(problem, how, 0, x)?, modulation, rstd, how.run);
    }
    ada_rms_norm(input(problem, how, x)?, modulation, output(problem, how, 1, y)?, rstd, how.run)
}

fn rms_backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, scale, dy, rstd, dx, dscale, dshift, workspace, .. } = tensors;
    let (modulation, rstd) = (modulation(problem, scale, &None)?, rstd.as_deref());
    let x = input(problem, how, x)?;
    let sums = gradients::<Acc<T>>(problem, how, dscale, dshift, workspace)?;
    if how.in_place {
        let dy = output(problem, how, 0, dy)?;
        return ada_rms_norm_backward_in_place(x, dy, modulation, rstd, sums, how.run);
    }
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let gradients = AdaGradients { dx, modulation: sums };
    ada_rms_norm_backward(x, input(problem, how, dy)?, modulation, rstd, gradients, how.run)
}
