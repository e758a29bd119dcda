//! Layer norm.

use super::by_row::{self, Forms, input, output, params};
use super::types::table;
use super::{Able, Flag, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types};
use layernorm::{
    Error, Gradients, layer_norm, layer_norm_backward, layer_norm_backward_in_place, layer_norm_in_place,
    reference,
};

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "layer_norm",
    formula: "y = weight (x - mean) / sqrt(var + eps) + bias",
    structure: Structure::Rows,
    flags: &[Flag::Eps, Flag::Axis],
    eps: 1e-5,
    forward: Signature {
        needs: &[Slot::X],
        takes: &[Slot::Weight, Slot::Bias],
        writes: &[Slot::Y, Slot::Mean, Slot::Rstd],
        saves: &[Slot::M, Slot::C, Slot::Rstd],
        updates: &[],
    },
    backward: by_row::BACKWARD,
    extent: by_row::extent,
    able: Able::ALL,
    untimed: &[Slot::Mean],
    kernels: table!(forward, backward),
    oracle: |problem, given| {
        let forms = Forms { forward: reference::layer_norm, backward: reference::layer_norm_backward };
        by_row::expected(problem, given, &forms, true)
    },
};

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, bias, y, mean, m, c, rstd, .. } = tensors;
    let params = params(problem, weight, bias);
    let saved = by_row::stats_mut(m, c, rstd);
    if how.in_place {
        layer_norm_in_place(output(problem, how, 0, x)?, params, saved, how.run)?;
    } else {
        layer_norm(input(problem, how, x)?, params, output(problem, how, 1, y)?, saved, how.run)?;
    }
    by_row::mean(mean, m, c);
    Ok(())
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, dy, m, c, rstd, dx, dweight, dbias, workspace, .. } = tensors;
    let params = params(problem, weight, &None);
    let saved = by_row::stats(m, c, rstd);
    let x = input(problem, how, x)?;
    let sums = by_row::param_gradients(how, dweight, dbias, workspace);
    if how.in_place {
        return layer_norm_backward_in_place(x, output(problem, how, 0, dy)?, params, saved, sums, how.run);
    }
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let gradients = Gradients { dx, params: sums };
    layer_norm_backward(x, input(problem, how, dy)?, params, saved, gradients, how.run)
}
