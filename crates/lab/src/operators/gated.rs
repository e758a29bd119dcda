//! The gated residual of AdaLN-Zero, alone and fused with the norm that follows.

use super::ada_norm::{self, by_sample, by_sample_mut, modulation, tokens};
use super::by_row::{self, input, output, read};
use super::oracle;
use super::types::{Acc, table};
use super::{
    Able, Expected, Flag, Given, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types,
};
use layernorm::reference;
use layernorm::{
    Error, GateGradient, GatedGradients, GatedNormGradients, GatedResidual, Upstream, Workspace,
    gated_ada_layer_norm, gated_ada_layer_norm_backward, gated_ada_rms_norm, gated_ada_rms_norm_backward,
    gated_residual, gated_residual_backward, gated_residual_in_place,
};
use twofloat::TwoFloat;

/// The gated residual alone.
pub const RESIDUAL: Operator = Operator {
    name: "gated_residual",
    formula: "residual_out = residual + gate x, with a gate of the sample",
    structure: Structure::Samples,
    flags: &[Flag::Axis],
    eps: 0.0,
    forward: Signature {
        needs: &[Slot::X, Slot::Residual, Slot::Gate],
        takes: &[],
        writes: &[Slot::ResidualOut],
        saves: &[],
        updates: &[],
    },
    backward: Signature {
        needs: &[Slot::X, Slot::Gate, Slot::DresidualOut],
        takes: &[],
        writes: &[Slot::Dx, Slot::Dgate],
        saves: &[],
        updates: &[],
    },
    extent: ada_norm::extent,
    able: Able {
        in_place: &[(Slot::Residual, Slot::ResidualOut)],
        backward_in_place: &[],
        normalises: false,
        shards: false,
        ..Able::ALL
    },
    untimed: &[],
    kernels: table!(forward, backward),
    oracle: |problem, given| {
        let (n, tokens) = (problem.features(), tokens(problem));
        let (x, gate) = (given.all(Slot::X), given.all(Slot::Gate));
        let unit = |i: usize| i / n / tokens * n + i % n;
        let (_, mut out) = oracle::sum(given, &|i| gate[unit(i)]);
        if !given.double {
            out.values = exact(&reference::gated_residual(given.all(Slot::Residual), gate, x, n));
        }
        let mut all = vec![out];
        if let Some(dout) = given.get(Slot::DresidualOut) {
            let zeros = vec![0.0; dout.len()];
            all.extend(branch(given, &unit, &exact(dout), &zeros));
        }
        all
    },
};

/// Fused with layer norm.
pub const LAYER: Operator = Operator {
    name: "gated_ada_layer_norm",
    formula: "residual_out = residual + gate x; y = ada_layer_norm(residual_out)",
    structure: Structure::Samples,
    flags: &[Flag::Eps, Flag::Axis],
    eps: 1e-6,
    forward: Signature {
        needs: &[Slot::X, Slot::Residual, Slot::Gate, Slot::Scale],
        takes: &[Slot::Shift],
        writes: &[Slot::Y, Slot::ResidualOut, Slot::Mean, Slot::Rstd],
        saves: &[Slot::M, Slot::C, Slot::Rstd],
        updates: &[],
    },
    backward: Signature {
        needs: &[Slot::X, Slot::ResidualOut, Slot::Gate, Slot::Scale, Slot::Dy],
        takes: &[Slot::Shift, Slot::DresidualOut],
        writes: &[Slot::Dx, Slot::Dresidual, Slot::Dgate, Slot::Dscale, Slot::Dshift],
        saves: &[],
        updates: &[],
    },
    extent: ada_norm::extent,
    able: Able { in_place: &[], backward_in_place: &[], shards: false, ..Able::ALL },
    untimed: &[Slot::Mean],
    kernels: table!(layer_forward, layer_backward),
    oracle: |problem, given| expected(problem, given, true),
};

/// Fused with RMS norm.
pub const RMS: Operator = Operator {
    name: "gated_ada_rms_norm",
    formula: "residual_out = residual + gate x; y = ada_rms_norm(residual_out)",
    forward: Signature {
        writes: &[Slot::Y, Slot::ResidualOut, Slot::Rstd],
        saves: &[Slot::Rstd],
        ..LAYER.forward
    },
    kernels: table!(rms_forward, rms_backward),
    oracle: |problem, given| expected(problem, given, false),
    ..LAYER
};

fn exact(values: &[f64]) -> Vec<TwoFloat> {
    values.iter().map(|&value| value.into()).collect()
}

fn expected(problem: &Problem, given: &Given, centred: bool) -> Vec<Expected> {
    let (n, tokens) = (problem.features(), tokens(problem));
    let gate = given.all(Slot::Gate);
    let unit = |i: usize| i / n / tokens * n + i % n;
    let (sum, out) = oracle::sum(given, &|i| gate[unit(i)]);
    let zeros = vec![0.0; sum.len()];
    let upstream = given.get(Slot::DresidualOut).unwrap_or(&zeros);
    let mut all = ada_norm::modulated(problem, given, centred, &sum, Some((upstream, Slot::Dresidual)));
    all.push(out);
    if let Some(of) = all.iter().find(|of| of.slot == Slot::Dresidual) {
        let lacks = given.lacks(of);
        let gradients = branch(given, &unit, &of.values.clone(), &lacks);
        all.extend(gradients);
    }
    all
}

/// The gradients of x and the gate: dx = gate dout, dgate = sum over a sample's rows of dout x. `lacks` is what dout
/// itself may err by, in u.
fn branch(given: &Given, unit: &dyn Fn(usize) -> usize, dout: &[TwoFloat], lacks: &[f64]) -> [Expected; 2] {
    let (x, gate) = (given.all(Slot::X), given.all(Slot::Gate));
    let dx: Vec<TwoFloat> = dout.iter().enumerate().map(|(i, dout)| *dout * gate[unit(i)]).collect();
    let dx_scales = (0..x.len()).map(|i| oracle::times(lacks[i], gate[unit(i)], dx[i].hi().abs()));
    let (mut sums, mut scales, mut lacking) =
        (vec![TwoFloat::from(0.0); gate.len()], vec![0.0; gate.len()], vec![0.0; gate.len()]);
    for (i, dout) in dout.iter().enumerate() {
        sums[unit(i)] += *dout * x[i];
        scales[unit(i)] += (dout.hi() * x[i]).abs();
        lacking[unit(i)] = oracle::times(lacks[i], x[i], lacking[unit(i)]);
    }
    let bound = 8.0 + (x.len() as f64 / gate.len().max(1) as f64).max(1.0).log2();
    let scales = scales
        .iter()
        .zip(lacking)
        .map(|(scale, lacking)| oracle::times(lacking, 1.0 / bound, *scale))
        .collect();
    [
        Expected { slot: Slot::Dx, scales: dx_scales.collect(), values: dx, bound: 2.0, rounding: true },
        Expected { slot: Slot::Dgate, values: sums, scales, bound, rounding: false },
    ]
}

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, residual, gate, residual_out, .. } = tensors;
    let (x, gate) = (input(problem, how, x)?, by_sample(problem, gate)?);
    if how.in_place {
        return gated_residual_in_place(x, output(problem, how, 0, residual)?, gate, how.run);
    }
    let out = output(problem, how, 1, residual_out)?;
    gated_residual(x, GatedResidual { residual: input(problem, how, residual)?, gate, out }, how.run)
}

/// The gate's gradient, where there is memory for it.
fn gate_gradient<'a, A>(
    problem: &Problem,
    how: &How,
    dgate: &'a mut Option<Vec<A>>,
    workspace: &'a mut Workspace<A>,
) -> Result<Option<GateGradient<'a, A>>, Error> {
    let accumulate = how.accumulate;
    Ok(by_sample_mut(problem, dgate)?.map(|dgate| GateGradient { dgate, accumulate, workspace }))
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, gate, dresidual_out, dx, dgate, workspace, .. } = tensors;
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let gradients = GatedGradients { dx, gate: gate_gradient::<Acc<T>>(problem, how, dgate, workspace)? };
    let (x, dout) = (input(problem, how, x)?, input(problem, how, dresidual_out)?);
    gated_residual_backward(x, dout, by_sample(problem, gate)?, gradients, how.run)
}

fn layer_forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, residual, gate, scale, shift, y, residual_out, mean, m, c, rstd, .. } = tensors;
    let saved = by_row::stats_mut(m, c, rstd);
    let (gate, out) = (by_sample(problem, gate)?, output(problem, how, 1, residual_out)?);
    let residual = GatedResidual { residual: input(problem, how, residual)?, gate, out };
    let (x, y) = (input(problem, how, x)?, output(problem, how, 1, y)?);
    gated_ada_layer_norm(x, residual, modulation(problem, scale, shift)?, y, saved, how.run)?;
    by_row::mean(mean, m, c);
    Ok(())
}

fn rms_forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, residual, gate, scale, shift, y, residual_out, rstd, .. } = tensors;
    let (gate, out) = (by_sample(problem, gate)?, output(problem, how, 1, residual_out)?);
    let residual = GatedResidual { residual: input(problem, how, residual)?, gate, out };
    let (x, y) = (input(problem, how, x)?, output(problem, how, 1, y)?);
    gated_ada_rms_norm(x, residual, modulation(problem, scale, shift)?, y, rstd.as_deref_mut(), how.run)
}

/// The gradients that both fused passes give.
macro_rules! gradients {
    ($problem:ident, $how:ident, $x:ident, $gate:ident, $tensors:ident) => {{
        let Tensors { dresidual_out, dx, dresidual, dgate, dscale, dshift, workspace, second, .. } = $tensors;
        let upstream = match dresidual_out {
            Some(_) => Upstream::Apart(input($problem, $how, dresidual_out)?),
            None => Upstream::Nothing,
        };
        let dx = dx.is_some().then(|| output($problem, $how, 1, dx)).transpose()?;
        GatedNormGradients {
            x: input($problem, $how, $x)?,
            gate: by_sample($problem, $gate)?,
            upstream,
            dresidual: output($problem, $how, 1, dresidual)?,
            branch: GatedGradients { dx, gate: gate_gradient::<Acc<T>>($problem, $how, dgate, second)? },
            modulation: ada_norm::gradients::<Acc<T>>($problem, $how, dscale, dshift, workspace)?,
        }
    }};
}

fn layer_backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, gate, scale, residual_out, dy, m, c, rstd, .. } = tensors;
    let saved = by_row::stats(m, c, rstd);
    let (out, dy) = (read(problem, how, 1, residual_out)?, input(problem, how, dy)?);
    let gradients = gradients!(problem, how, x, gate, tensors);
    gated_ada_layer_norm_backward(out, dy, modulation(problem, scale, &None)?, saved, gradients, how.run)
}

fn rms_backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, gate, scale, residual_out, dy, rstd, .. } = tensors;
    let (out, dy) = (read(problem, how, 1, residual_out)?, input(problem, how, dy)?);
    let gradients = gradients!(problem, how, x, gate, tensors);
    let modulation = modulation(problem, scale, &None)?;
    gated_ada_rms_norm_backward(out, dy, modulation, rstd.as_deref(), gradients, how.run)
}
