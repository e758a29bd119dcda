//! RMS norm.

use super::by_row::{self, Forms, input, output, params};
use super::types::table;
use super::{Able, Flag, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types};
use layernorm::{
    Error, Gradients, reference, rms_norm, rms_norm_backward, rms_norm_backward_in_place, rms_norm_in_place,
};

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "rms_norm",
    formula: "y = weight x / sqrt(mean(x^2) + eps) + bias",
    structure: Structure::Rows,
    flags: &[Flag::Eps, Flag::Axis],
    eps: 1e-5,
    forward: Signature {
        needs: &[Slot::X],
        takes: &[Slot::Weight, Slot::Bias],
        writes: &[Slot::Y, Slot::Rstd],
        saves: &[Slot::Rstd],
        updates: &[],
    },
    backward: by_row::BACKWARD,
    extent: by_row::extent,
    able: Able::ALL,
    untimed: &[],
    kernels: table!(forward, backward),
    oracle: |problem, given| {
        let forms = Forms { forward: reference::rms_norm, backward: reference::rms_norm_backward };
        by_row::expected(problem, given, &forms, false)
    },
};

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, bias, y, rstd, .. } = tensors;
    let (params, rstd) = (params(problem, weight, bias), rstd.as_deref_mut());
    if how.in_place {
        return rms_norm_in_place(output(problem, how, 0, x)?, params, rstd, how.run);
    }
    rms_norm(input(problem, how, x)?, params, output(problem, how, 1, y)?, rstd, how.run)
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, dy, rstd, dx, dweight, dbias, workspace, .. } = tensors;
    let (params, rstd) = (params(problem, weight, &None), rstd.as_deref());
    let x = input(problem, how, x)?;
    let sums = by_row::param_gradients(how, dweight, dbias, workspace);
    if how.in_place {
        return rms_norm_backward_in_place(x, output(problem, how, 0, dy)?, params, rstd, sums, how.run);
    }
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let gradients = Gradients { dx, params: sums };
    rms_norm_backward(x, input(problem, how, dy)?, params, rstd, gradients, how.run)
}
