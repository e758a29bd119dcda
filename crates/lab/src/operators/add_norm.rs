//! Residual add, then layer or RMS norm.

use super::by_row::{self, input, output, params, read};
use super::oracle::{self, Names, Reference, Sets};
use super::types::table;
use super::{
    Able, Expected, Extent, Flag, Given, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types,
};
use layernorm::reference::{self, AddNormGradients, Affine, RowNorm};
use layernorm::{
    AddGradients, BiasGradient, Branch, Error, Normalise, Residual, Rows, StatsRef, Upstream, add_layer_norm,
    add_layer_norm_backward, add_layer_norm_in_place, add_rms_norm, add_rms_norm_backward,
    add_rms_norm_in_place,
};
use twofloat::TwoFloat;

/// Add, then layer norm.
pub const LAYER: Operator = Operator {
    name: "add_layer_norm",
    formula: "residual_out = residual + mask (x + branch_bias); y = layer_norm(residual_out)",
    structure: Structure::Rows,
    flags: &[Flag::Eps, Flag::Axis],
    eps: 1e-5,
    forward: Signature {
        needs: &[Slot::X, Slot::Residual],
        takes: &[Slot::Weight, Slot::Bias, Slot::Mask, Slot::BranchBias],
        writes: &[Slot::Y, Slot::ResidualOut, Slot::Mean, Slot::Rstd],
        saves: &[Slot::M, Slot::C, Slot::Rstd],
        updates: &[],
    },
    backward: Signature {
        needs: &[Slot::ResidualOut, Slot::Dy],
        takes: &[Slot::Weight, Slot::DresidualOut, Slot::Mask],
        writes: &[Slot::Dx, Slot::Dresidual, Slot::Dweight, Slot::Dbias, Slot::DbranchBias],
        saves: &[],
        updates: &[],
    },
    extent: |slot| match slot {
        Slot::BranchBias | Slot::DbranchBias => Extent::Features,
        _ => by_row::extent(slot),
    },
    able: Able {
        in_place: &[(Slot::X, Slot::Y), (Slot::Residual, Slot::ResidualOut)],
        backward_in_place: &[(Slot::DresidualOut, Slot::Dresidual)],
        ..Able::ALL
    },
    untimed: &[Slot::Mean, Slot::Mask, Slot::BranchBias, Slot::Dx],
    kernels: table!(layer_forward, layer_backward),
    oracle: |problem, given| expected(problem, given, true),
};

/// Add, then RMS norm.
pub const RMS: Operator = Operator {
    name: "add_rms_norm",
    formula: "residual_out = residual + mask (x + branch_bias); y = rms_norm(residual_out)",
    forward: Signature {
        writes: &[Slot::Y, Slot::ResidualOut, Slot::Rstd],
        saves: &[Slot::Rstd],
        ..LAYER.forward
    },
    kernels: table!(rms_forward, rms_backward),
    oracle: |problem, given| expected(problem, given, false),
    ..LAYER
};

fn expected(problem: &Problem, given: &Given, centred: bool) -> Vec<Expected> {
    let n = problem.features();
    let mask = |i: usize| given.get(Slot::Mask).map_or(1.0, |mask| mask[i]);
    let (sum, out) = oracle::sum(given, &mask);
    let at = |row, j| (row * n + j, j);
    let upstream = given.get(Slot::DresidualOut);
    let sets = Sets { x: &sum, upstream, ..by_row::sets(problem, given, centred, &at) };
    let norm = if centred { RowNorm::layer(n, given.eps) } else { RowNorm::rms(n, given.eps) };
    let mut all = sets.expected(given, Names { dx: Slot::Dresidual, ..Names::USUAL }, || {
        let affine = Affine { weight: sets.weight, bias: sets.bias };
        // The sum is stored before it is normalised: nothing is added to it here.
        let zeros = vec![0.0; sum.len()];
        let reference::AddNormForward { y, mean, rstd, .. } = reference::add_norm(&sum, &zeros, norm, affine);
        let x_hat = reference::add_norm(&sum, &zeros, norm, Affine::NONE).y;
        let back = sets.dy.map(|dy| {
            let dsum = upstream.unwrap_or(&zeros);
            reference::add_norm_backward(AddNormGradients { dy, dsum }, &sum, norm, affine)
        });
        let reference::AddNormBackward { dx, dweight, dbias } = back.unwrap_or_default();
        Reference { y, mean, rstd, x_hat, dx, dweight, dbias }
    });
    all.push(out);
    if let Some(dresidual) = all.iter().position(|of| of.slot == Slot::Dresidual) {
        // From dresidual as it is stored.
        let lacks = given.lacks(&all[dresidual]);
        let values: Vec<TwoFloat> =
            all[dresidual].values.iter().enumerate().map(|(i, value)| *value * mask(i)).collect();
        let scales: Vec<f64> =
            lacks.iter().enumerate().map(|(i, &lacks)| oracle::times(lacks, mask(i), 0.0)).collect();
        let bound = 2.0;
        if given.get(Slot::BranchBias).is_some() {
            let (mut sums, mut sizes) = (vec![TwoFloat::from(0.0); n], vec![0.0; n]);
            for (i, (value, scale)) in values.iter().zip(&scales).enumerate() {
                sums[i % n] += *value;
                sizes[i % n] = oracle::times(*scale, bound, sizes[i % n] + value.hi().abs());
            }
            let bound = 8.0 + (problem.rows() as f64).max(1.0).log2();
            all.push(Expected {
                slot: Slot::DbranchBias,
                values: sums,
                scales: sizes,
                bound,
                rounding: false,
            });
        }
        all.push(Expected { slot: Slot::Dx, values, scales, bound, rounding: false });
    }
    all
}

/// What the branch meets on its way.
fn branch<'a, T: Types>(
    problem: &Problem,
    how: &How,
    mask: &'a Option<Vec<T::E>>,
    bias: &'a Option<Vec<T::P>>,
) -> Result<Branch<'a, T::E, T::P>, Error> {
    let mask = mask.is_some().then(|| input(problem, how, mask)).transpose()?;
    Ok(Branch { bias: bias.as_deref(), mask, normalise: Normalise::AsStored })
}

fn layer_forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, residual, mask, branch_bias, weight, bias, y, residual_out, mean, m, c, rstd, .. } =
        tensors;
    let (params, branch) = (params(problem, weight, bias), branch::<T>(problem, how, mask, branch_bias)?);
    let saved = by_row::stats_mut(m, c, rstd);
    if how.in_place {
        let (x, residual) = (output(problem, how, 0, x)?, output(problem, how, 0, residual)?);
        add_layer_norm_in_place(x, residual, branch, params, saved, how.run)?;
    } else {
        let out = output(problem, how, 1, residual_out)?;
        let residual = Residual { residual: input(problem, how, residual)?, out, branch };
        let y = output(problem, how, 1, y)?;
        add_layer_norm(input(problem, how, x)?, residual, params, y, saved, how.run)?;
    }
    by_row::mean(mean, m, c);
    Ok(())
}

fn rms_forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, residual, mask, branch_bias, weight, bias, y, residual_out, rstd, .. } = tensors;
    let (params, branch) = (params(problem, weight, bias), branch::<T>(problem, how, mask, branch_bias)?);
    let rstd = rstd.as_deref_mut();
    if how.in_place {
        let (x, residual) = (output(problem, how, 0, x)?, output(problem, how, 0, residual)?);
        return add_rms_norm_in_place(x, residual, branch, params, rstd, how.run);
    }
    let out = output(problem, how, 1, residual_out)?;
    let residual = Residual { residual: input(problem, how, residual)?, out, branch };
    add_rms_norm(input(problem, how, x)?, residual, params, output(problem, how, 1, y)?, rstd, how.run)
}

fn layer_backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let saved = (tensors.m.take(), tensors.c.take());
    let rstd = tensors.rstd.take();
    let stats = match (&saved.0, &saved.1, &rstd) {
        (Some(m), Some(c), Some(rstd)) => Some(StatsRef { m, c, rstd }),
        _ => None,
    };
    let done = with_gradients(problem, how, tensors, |out, dy, params, gradients| {
        add_layer_norm_backward(out, dy, params, stats, gradients, how.run)
    });
    (tensors.m, tensors.c, tensors.rstd) = (saved.0, saved.1, rstd);
    done
}

fn rms_backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let rstd = tensors.rstd.take();
    let done = with_gradients(problem, how, tensors, |out, dy, params, gradients| {
        add_rms_norm_backward(out, dy, params, rstd.as_deref(), gradients, how.run)
    });
    tensors.rstd = rstd;
    done
}

/// Calls a backward pass with what both take.
fn with_gradients<T: Types>(
    problem: &Problem,
    how: &How,
    tensors: &mut Tensors<T>,
    pass: impl FnOnce(
        Rows<'_, T::R>,
        Rows<'_, T::E>,
        layernorm::Params<'_, T::P>,
        AddGradients<'_, T::E, T::R>,
    ) -> Result<(), Error>,
) -> Result<(), Error> {
    let Tensors { residual_out, dresidual_out, mask, weight, dy, dx, dresidual, dweight, dbias, .. } =
        tensors;
    let Tensors { dbranch_bias, workspace, second, .. } = tensors;
    let sums = by_row::param_gradients(how, dweight, dbias, workspace);
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let mask = mask.is_some().then(|| input(problem, how, mask)).transpose()?;
    // In place, the gradient of the new residual becomes that of the old one.
    let (upstream, dresidual) = match (dresidual_out.is_some(), how.in_place) {
        (true, true) => (Upstream::InPlace, output(problem, how, 0, dresidual_out)?),
        (true, false) => {
            (Upstream::Apart(input(problem, how, dresidual_out)?), output(problem, how, 1, dresidual)?)
        }
        _ => (Upstream::Nothing, output(problem, how, 1, dresidual)?),
    };
    let (accumulate, first_row) = (how.accumulate, how.first_row);
    let branch_bias = dbranch_bias.as_deref_mut();
    let branch_bias =
        branch_bias.map(|dbias| BiasGradient { dbias, accumulate, first_row, workspace: second });
    let gradients = AddGradients { upstream, dresidual, mask, dx, branch_bias, params: sums };
    let params = params(problem, weight, &None);
    pass(read(problem, how, 1, residual_out)?, input(problem, how, dy)?, params, gradients)
}
