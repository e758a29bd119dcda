//! Norms behind a residual, and norms whose parameters are those of a sample or of an index.

use crate::call::{Entry, entry, modulation, params, rows, rows_mut, stats, stats_mut, sums};
use layernorm::{
    AdaGradients, AddGradients, BiasGradient, Branch, ConditionalGradients, GateGradient, GatedGradients,
    GatedNormGradients, GatedResidual, ModulationGradients, Normalise, Residual, RowsByIndex, Table,
    TableGradients, Upstream, Workspace, ada_layer_norm, ada_layer_norm_backward,
    ada_layer_norm_backward_in_place, ada_layer_norm_in_place, ada_rms_norm, ada_rms_norm_backward,
    ada_rms_norm_backward_in_place, ada_rms_norm_in_place, add_layer_norm, add_layer_norm_backward,
    add_layer_norm_in_place, add_rms_norm, add_rms_norm_backward, add_rms_norm_in_place,
    conditional_layer_norm, conditional_layer_norm_backward, conditional_layer_norm_backward_in_place,
    conditional_layer_norm_in_place, conditional_rms_norm, conditional_rms_norm_backward,
    conditional_rms_norm_backward_in_place, conditional_rms_norm_in_place, gated_ada_layer_norm,
    gated_ada_layer_norm_backward, gated_ada_rms_norm, gated_ada_rms_norm_backward, gated_residual,
    gated_residual_backward, gated_residual_in_place,
};

fn branch<'a>(mask: &'a [f32], bias: &'a [f32]) -> Branch<'a, f32, f32> {
    Branch { bias: Some(bias), mask: Some(rows(mask)), normalise: Normalise::AsStored }
}

/// Table entries: as many as there are in `scale`, which holds the weights; `shift` holds the biases.
fn table<'a>(weight: &'a [f32], bias: &'a [f32], index: &'a [usize], eps: f64) -> Table<'a, f32> {
    Table { entries: 2, weight: Some(rows(weight)), bias: Some(rows(bias)), index, eps }
}

fn of_modulation<'a>(
    dscale: &'a mut [f32],
    dshift: &'a mut [f32],
    workspace: &'a mut Workspace<f32>,
) -> Option<ModulationGradients<'a, f32>> {
    let (dscale, dshift) = (Some(rows_mut(dscale)), Some(rows_mut(dshift)));
    Some(ModulationGradients { dscale, dshift, accumulate: false, workspace })
}

/// The lines of a layer norm and of an RMS norm, which differ in their statistics alone: those of a backward pass are read.
macro_rules! both {
    ($layer:ident, $rms:ident, [$($lengths:literal)*], $(numbers [$($number:ident)*],)? => $way:ident |$of:ident, $norm:ident, $saved:ident| $call:expr) => {
        [
            entry!($layer, [$($lengths)* "m" "c" "rstd"], $(numbers [$($number)*],)? + eps, |$of| {
                let ($norm, $saved) = ($layer, both!(@centred $way $of));
                $call
            }),
            entry!($rms, [$($lengths)* "rstd"], $(numbers [$($number)*],)? + eps, |$of| {
                let ($norm, $saved) = ($rms, both!(@plain $way $of));
                $call
            }),
        ]
    };
    (@centred forward $of:ident) => { Some(stats_mut(&mut $of.m, &mut $of.c, &mut $of.rstd)) };
    (@centred backward $of:ident) => { Some(stats(&$of.m, &$of.c, &$of.rstd)) };
    (@plain forward $of:ident) => { Some(&mut $of.rstd[..]) };
    (@plain backward $of:ident) => { Some(&$of.rstd[..]) };
}

const ADD: [Entry; 2] = both!(
    add_layer_norm,
    add_rms_norm,
    ["x" "residual" "out" "y" "mask" "branch_bias" "weight" "bias"],
    => forward |of, norm, saved| {
        let branch = branch(&of.mask, &of.branch_bias);
        let residual = Residual { residual: rows(&of.residual), out: rows_mut(&mut of.out), branch };
        let params = params(&of.weight, &of.bias, of.eps);
        norm(rows(&of.x), residual, params, rows_mut(&mut of.y), saved, of.run)
    }
);

const ADD_IN_PLACE: [Entry; 2] = both!(
    add_layer_norm_in_place,
    add_rms_norm_in_place,
    ["x" "residual" "mask" "branch_bias" "weight" "bias"],
    => forward |of, norm, saved| {
        let params = params(&of.weight, &of.bias, of.eps);
        let branch = branch(&of.mask, &of.branch_bias);
        norm(rows_mut(&mut of.x), rows_mut(&mut of.residual), branch, params, saved, of.run)
    }
);

const ADD_BACKWARD: [Entry; 2] = both!(
    add_layer_norm_backward,
    add_rms_norm_backward,
    ["out" "dy" "upstream" "dresidual" "mask" "dx" "dbranch_bias" "weight" "dweight" "dbias"],
    numbers [First],
    => backward |of, norm, saved| {
        let (dbias, workspace) = (&mut of.dbranch_bias[..], &mut of.second);
        let gradients = AddGradients {
            upstream: Upstream::Apart(rows(&of.upstream)),
            dresidual: rows_mut(&mut of.dresidual),
            mask: Some(rows(&of.mask)),
            dx: Some(rows_mut(&mut of.dx)),
            branch_bias: Some(BiasGradient { dbias, accumulate: false, first_row: of.first, workspace }),
            params: Some(sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace)),
        };
        let params = params(&of.weight, &of.weight, of.eps);
        norm(rows(&of.out), rows(&of.dy), params, saved, gradients, of.run)
    }
);

const ADA: [Entry; 2] = both!(
    ada_layer_norm,
    ada_rms_norm,
    ["x" "y" "scale" "shift"],
    => forward |of, norm, saved| {
        let modulation = modulation(&of.scale, &of.shift, of.eps);
        norm(rows(&of.x), modulation, rows_mut(&mut of.y), saved, of.run)
    }
);

const ADA_IN_PLACE: [Entry; 2] = both!(
    ada_layer_norm_in_place,
    ada_rms_norm_in_place,
    ["scale" "shift"],
    => forward |of, norm, saved| norm(rows_mut(&mut of.x), modulation(&of.scale, &of.shift, of.eps), saved, of.run)
);

const ADA_BACKWARD: [Entry; 2] = both!(
    ada_layer_norm_backward,
    ada_rms_norm_backward,
    ["x" "dy" "dx" "scale" "shift" "dscale" "dshift"],
    => backward |of, norm, saved| {
        let sums = of_modulation(&mut of.dscale, &mut of.dshift, &mut of.workspace);
        let gradients = AdaGradients { dx: Some(rows_mut(&mut of.dx)), modulation: sums };
        let modulation = modulation(&of.scale, &of.shift, of.eps);
        norm(rows(&of.x), rows(&of.dy), modulation, saved, gradients, of.run)
    }
);

const ADA_BACKWARD_IN_PLACE: [Entry; 2] = both!(
    ada_layer_norm_backward_in_place,
    ada_rms_norm_backward_in_place,
    ["x" "dy" "scale" "shift" "dscale" "dshift"],
    => backward |of, norm, saved| {
        let sums = of_modulation(&mut of.dscale, &mut of.dshift, &mut of.workspace);
        let modulation = modulation(&of.scale, &of.shift, of.eps);
        norm(rows(&of.x), rows_mut(&mut of.dy), modulation, saved, sums, of.run)
    }
);

const CONDITIONAL: [Entry; 2] = both!(
    conditional_layer_norm,
    conditional_rms_norm,
    ["x" "y" "scale" "shift" "index"],
    numbers [Index],
    => forward |of, norm, saved| {
        let table = table(&of.scale, &of.shift, &of.index, of.eps);
        norm(rows(&of.x), table, rows_mut(&mut of.y), saved, of.run)
    }
);

const CONDITIONAL_IN_PLACE: [Entry; 2] = both!(
    conditional_layer_norm_in_place,
    conditional_rms_norm_in_place,
    ["x" "scale" "shift" "index"],
    numbers [Index],
    => forward |of, norm, saved| {
        norm(rows_mut(&mut of.x), table(&of.scale, &of.shift, &of.index, of.eps), saved, of.run)
    }
);

const CONDITIONAL_BACKWARD: [Entry; 2] = both!(
    conditional_layer_norm_backward,
    conditional_rms_norm_backward,
    ["x" "dy" "dx" "scale" "shift" "dscale" "dshift" "index"],
    numbers [Index],
    => backward |of, norm, saved| {
        let mut order = RowsByIndex::new();
        let sums = of_table(&mut of.dscale, &mut of.dshift, &mut of.workspace, &mut order);
        let gradients = ConditionalGradients { dx: Some(rows_mut(&mut of.dx)), table: sums };
        let table = table(&of.scale, &of.shift, &of.index, of.eps);
        norm(rows(&of.x), rows(&of.dy), table, saved, gradients, of.run)
    }
);

const CONDITIONAL_BACKWARD_IN_PLACE: [Entry; 2] = both!(
    conditional_layer_norm_backward_in_place,
    conditional_rms_norm_backward_in_place,
    ["x" "dy" "scale" "shift" "dscale" "dshift" "index"],
    numbers [Index],
    => backward |of, norm, saved| {
        let mut order = RowsByIndex::new();
        let sums = of_table(&mut of.dscale, &mut of.dshift, &mut of.workspace, &mut order);
        let table = table(&of.scale, &of.shift, &of.index, of.eps);
        norm(rows(&of.x), rows_mut(&mut of.dy), table, saved, sums, of.run)
    }
);

fn of_table<'a>(
    dweight: &'a mut [f32],
    dbias: &'a mut [f32],
    workspace: &'a mut Workspace<f32>,
    order: &'a mut RowsByIndex,
) -> Option<TableGradients<'a, f32>> {
    let (dweight, dbias) = (Some(rows_mut(dweight)), Some(rows_mut(dbias)));
    Some(TableGradients { dweight, dbias, accumulate: false, workspace, order })
}

const GATED: [Entry; 2] = both!(
    gated_ada_layer_norm,
    gated_ada_rms_norm,
    ["x" "residual" "out" "y" "gate" "scale" "shift"],
    => forward |of, norm, saved| {
        let (residual, gate, out) = (rows(&of.residual), rows(&of.gate), rows_mut(&mut of.out));
        let residual = GatedResidual { residual, gate, out };
        let modulation = modulation(&of.scale, &of.shift, of.eps);
        norm(rows(&of.x), residual, modulation, rows_mut(&mut of.y), saved, of.run)
    }
);

const GATED_BACKWARD: [Entry; 2] = both!(
    gated_ada_layer_norm_backward,
    gated_ada_rms_norm_backward,
    ["out" "dy" "x" "upstream" "dresidual" "dx" "gate" "dgate" "scale" "shift" "dscale" "dshift"],
    => backward |of, norm, saved| {
        let gradients = GatedNormGradients {
            x: rows(&of.x),
            gate: rows(&of.gate),
            upstream: Upstream::Apart(rows(&of.upstream)),
            dresidual: rows_mut(&mut of.dresidual),
            branch: of_branch(&mut of.dx, &mut of.dgate, &mut of.second),
            modulation: of_modulation(&mut of.dscale, &mut of.dshift, &mut of.workspace),
        };
        let modulation = modulation(&of.scale, &of.shift, of.eps);
        norm(rows(&of.out), rows(&of.dy), modulation, saved, gradients, of.run)
    }
);

fn of_branch<'a>(
    dx: &'a mut [f32],
    dgate: &'a mut [f32],
    workspace: &'a mut Workspace<f32>,
) -> GatedGradients<'a, f32> {
    let gate = GateGradient { dgate: rows_mut(dgate), accumulate: false, workspace };
    GatedGradients { dx: Some(rows_mut(dx)), gate: Some(gate) }
}

const RESIDUAL: [Entry; 3] = [
    entry!(gated_residual, ["x" "residual" "out" "gate"], |of| {
        let (residual, gate, out) = (rows(&of.residual), rows(&of.gate), rows_mut(&mut of.out));
        gated_residual(rows(&of.x), GatedResidual { residual, gate, out }, of.run)
    }),
    entry!(gated_residual_in_place, ["x" "residual" "gate"], |of| {
        gated_residual_in_place(rows(&of.x), rows_mut(&mut of.residual), rows(&of.gate), of.run)
    }),
    entry!(gated_residual_backward, ["x" "upstream" "dx" "gate" "dgate"], |of| {
        let gradients = of_branch(&mut of.dx, &mut of.dgate, &mut of.workspace);
        gated_residual_backward(rows(&of.x), rows(&of.upstream), rows(&of.gate), gradients, of.run)
    }),
];

pub(crate) const TABLES: [&[Entry]; 14] = [
    &ADD,
    &ADD_IN_PLACE,
    &ADD_BACKWARD,
    &ADA,
    &ADA_IN_PLACE,
    &ADA_BACKWARD,
    &ADA_BACKWARD_IN_PLACE,
    &CONDITIONAL,
    &CONDITIONAL_IN_PLACE,
    &CONDITIONAL_BACKWARD,
    &CONDITIONAL_BACKWARD_IN_PLACE,
    &GATED,
    &GATED_BACKWARD,
    &RESIDUAL,
];
