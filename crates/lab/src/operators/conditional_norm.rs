//! Conditional layer and RMS norm: each row picks its weight and bias by an index.

use super::by_row::{self, input, output};
use super::oracle::{Names, Reference};
use super::types::{Acc, table};
use super::{
    Able, Expected, Extent, Flag, Given, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types,
};
use layernorm::reference::{self, Affine, RowNorm};
use layernorm::{
    ConditionalGradients, Error, Rows, RowsByIndex, RowsMut, Table, TableGradients, Workspace,
    conditional_layer_norm, conditional_layer_norm_backward, conditional_layer_norm_backward_in_place,
    conditional_layer_norm_in_place, conditional_rms_norm, conditional_rms_norm_backward,
    conditional_rms_norm_backward_in_place, conditional_rms_norm_in_place,
};

/// Layer norm.
pub const LAYER: Operator = Operator {
    name: "conditional_layer_norm",
    formula: "y = weight[index] x_hat + bias[index], with x_hat of layer_norm and an index for each row",
    structure: Structure::Rows,
    flags: &[Flag::Eps, Flag::Axis],
    eps: 1e-5,
    forward: Signature {
        needs: &[Slot::X, Slot::Weight, Slot::Index],
        takes: &[Slot::Bias],
        writes: &[Slot::Y, Slot::Mean, Slot::Rstd],
        saves: &[Slot::M, Slot::C, Slot::Rstd],
        updates: &[],
    },
    backward: Signature {
        needs: &[Slot::X, Slot::Weight, Slot::Index, Slot::Dy],
        takes: &[Slot::Bias],
        writes: &[Slot::Dx, Slot::Dweight, Slot::Dbias],
        saves: &[],
        updates: &[],
    },
    extent: |slot| match slot {
        Slot::Index => Extent::Rows,
        Slot::Weight | Slot::Bias | Slot::Dweight | Slot::Dbias => Extent::Entries,
        _ => by_row::extent(slot),
    },
    able: Able { shards: false, ..Able::ALL },
    untimed: &[Slot::Mean],
    kernels: table!(layer_forward, layer_backward),
    oracle: |problem, given| expected(problem, given, true),
};

/// RMS norm.
pub const RMS: Operator = Operator {
    name: "conditional_rms_norm",
    formula: "y = weight[index] x_hat + bias[index], with x_hat of rms_norm and an index for each row",
    forward: Signature { writes: &[Slot::Y, Slot::Rstd], saves: &[Slot::Rstd], ..LAYER.forward },
    kernels: table!(rms_forward, rms_backward),
    oracle: |problem, given| expected(problem, given, false),
    ..LAYER
};

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "indices, exactly")]
fn expected(problem: &Problem, given: &Given, centred: bool) -> Vec<Expected> {
    let n = problem.features();
    let index: Vec<usize> = given.all(Slot::Index).iter().map(|&index| index as usize).collect();
    let at = |row: usize, j| (row * n + j, index[row] * n + j);
    let sets = by_row::sets(problem, given, centred, &at);
    sets.expected(given, Names::USUAL, || {
        let norm = if centred { RowNorm::layer(n, sets.eps) } else { RowNorm::rms(n, sets.eps) };
        let entries = given.all(Slot::Weight).len().checked_div(n).unwrap_or(0);
        let affine = Affine { weight: sets.weight, bias: sets.bias };
        let table = reference::Table { entries, affine, index: &index };
        let reference::Forward { y, mean, rstd } = reference::conditional_norm(sets.x, norm, table);
        let plain = reference::Table { affine: Affine::NONE, ..table };
        let x_hat = reference::conditional_norm(sets.x, norm, plain).y;
        let back = sets.dy.map(|dy| reference::conditional_norm_backward(dy, sets.x, norm, table));
        let reference::Backward { dx, dweight, dbias } = back.unwrap_or_default();
        Reference { y, mean, rstd, x_hat, dx, dweight, dbias }
    })
}

/// The entries, as many as the weight has.
fn table<'a, P>(
    problem: &Problem,
    weight: &'a Option<Vec<P>>,
    bias: &'a Option<Vec<P>>,
    index: &'a Option<Vec<usize>>,
) -> Result<Table<'a, P>, Error> {
    let n = problem.features();
    let rows = |of: &'a Option<Vec<P>>| of.as_deref().map(|of| Rows::new(of, n)).transpose();
    let (weight, bias) = (rows(weight)?, rows(bias)?);
    let entries = weight.as_ref().map_or(0, Rows::rows);
    Ok(Table { entries, weight, bias, index: index.as_deref().unwrap_or_default(), eps: problem.eps() })
}

/// The sums over the rows of each entry, where there is memory for one.
fn gradients<'a, A>(
    problem: &Problem,
    how: &How,
    [dweight, dbias]: [&'a mut Option<Vec<A>>; 2],
    workspace: &'a mut Workspace<A>,
    order: &'a mut RowsByIndex,
) -> Result<Option<TableGradients<'a, A>>, Error> {
    let n = problem.features();
    let wanted = dweight.is_some() || dbias.is_some();
    let dweight = dweight.as_deref_mut().map(|of| RowsMut::new(of, n)).transpose()?;
    let dbias = dbias.as_deref_mut().map(|of| RowsMut::new(of, n)).transpose()?;
    Ok(wanted.then_some(TableGradients { dweight, dbias, accumulate: how.accumulate, workspace, order }))
}

fn layer_forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, bias, index, y, mean, m, c, rstd, .. } = tensors;
    let table = table(problem, weight, bias, index)?;
    let saved = by_row::stats_mut(m, c, rstd);
    if how.in_place {
        conditional_layer_norm_in_place(output(problem, how, 0, x)?, table, saved, how.run)?;
    } else {
        let (x, y) = (input(problem, how, x)?, output(problem, how, 1, y)?);
        conditional_layer_norm(x, table, y, saved, how.run)?;
    }
    by_row::mean(mean, m, c);
    Ok(())
}

fn layer_backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, index, dy, m, c, rstd, dx, dweight, dbias, workspace, order, .. } = tensors;
    let table = table(problem, weight, &None, index)?;
    let saved = by_row::stats(m, c, rstd);
    let x = input(problem, how, x)?;
    let sums = gradients::<Acc<T>>(problem, how, [dweight, dbias], workspace, order)?;
    if how.in_place {
        let dy = output(problem, how, 0, dy)?;
        return conditional_layer_norm_backward_in_place(x, dy, table, saved, sums, how.run);
    }
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let gradients = ConditionalGradients { dx, table: sums };
    conditional_layer_norm_backward(x, input(problem, how, dy)?, table, saved, gradients, how.run)
}

fn rms_forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, bias, index, y, rstd, .. } = tensors;
    let (table, rstd) = (table(problem, weight, bias, index)?, rstd.as_deref_mut());
    if how.in_place {
        return conditional_rms_norm_in_place(output(problem, how, 0, x)?, table, rstd, how.run);
    }
    conditional_rms_norm(input(problem, how, x)?, table, output(problem, how, 1, y)?, rstd, how.run)
}

fn rms_backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, index, dy, rstd, dx, dweight, dbias, workspace, order, .. } = tensors;
    let (table, rstd) = (table(problem, weight, &None, index)?, rstd.as_deref());
    let x = input(problem, how, x)?;
    let sums = gradients::<Acc<T>>(problem, how, [dweight, dbias], workspace, order)?;
    if how.in_place {
        let dy = output(problem, how, 0, dy)?;
        return conditional_rms_norm_backward_in_place(x, dy, table, rstd, sums, how.run);
    }
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let gradients = ConditionalGradients { dx, table: sums };
    conditional_rms_norm_backward(x, input(problem, how, dy)?, table, rstd, gradients, how.run)
}
