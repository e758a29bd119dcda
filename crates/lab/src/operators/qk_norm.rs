//! QK norm: each head of the queries or keys by itself.

use super::by_row::{self, input, output};
use super::oracle::{Divisor, Names, Sets};
use super::types::table;
use super::{
    Able, Expected, Extent, Flag, Given, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types,
};
use layernorm::{
    Error, Gradients, HeadNorm, QkParams, qk_norm, qk_norm_backward, qk_norm_backward_in_place,
    qk_norm_in_place,
};

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "qk_norm",
    formula: "y = weight x_hat + bias for each head, with x_hat of rms_norm, layer_norm or l2_norm",
    structure: Structure::Heads,
    flags: &[Flag::Eps, Flag::Axis, Flag::Norm],
    eps: 1e-6,
    forward: Signature {
        needs: &[Slot::X],
        takes: &[Slot::Weight, Slot::Bias],
        writes: &[Slot::Y],
        saves: &[],
        updates: &[],
    },
    backward: by_row::BACKWARD,
    extent: |slot| match slot {
        Slot::Weight | Slot::Bias | Slot::Dweight | Slot::Dbias => Extent::Heads,
        _ => Extent::Whole,
    },
    able: Able { shards: false, ..Able::ALL },
    untimed: &[],
    kernels: table!(forward, backward),
    oracle: expected,
};

fn expected(problem: &Problem, given: &Given) -> Vec<Expected> {
    let (n, heads) = (problem.features(), problem.heads());
    let norm = problem.options.norm;
    // Weight and bias alike have one a feature, or one a feature of each head.
    let by_head = [Slot::Weight, Slot::Bias].iter().any(|&slot| given.all(slot).len() == heads * n);
    let at = |row: usize, j| (row * n + j, if by_head { row % heads * n + j } else { j });
    let sets = Sets {
        divisor: if norm == HeadNorm::L2 { Divisor::Length } else { Divisor::Root },
        ..by_row::sets(problem, given, norm == HeadNorm::Layer, &at)
    };
    sets.exactly(given, Names::USUAL)
}

fn params<'a, P>(problem: &Problem, weight: &'a Option<Vec<P>>, bias: &'a Option<Vec<P>>) -> QkParams<'a, P> {
    let (norm, heads, eps) = (problem.options.norm, problem.heads(), problem.eps());
    QkParams { norm, heads, weight: weight.as_deref(), bias: bias.as_deref(), eps }
}

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, bias, y, .. } = tensors;
    let params = params(problem, weight, bias);
    if how.in_place {
        return qk_norm_in_place(output(problem, how, 0, x)?, params, how.run);
    }
    qk_norm(input(problem, how, x)?, params, output(problem, how, 1, y)?, how.run)
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, dy, dx, dweight, dbias, workspace, .. } = tensors;
    let (x, params) = (input(problem, how, x)?, params(problem, weight, &None));
    let sums = by_row::param_gradients(how, dweight, dbias, workspace);
    if how.in_place {
        return qk_norm_backward_in_place(x, output(problem, how, 0, dy)?, params, sums, how.run);
    }
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let gradients = Gradients { dx, params: sums };
    qk_norm_backward(x, input(problem, how, dy)?, params, gradients, how.run)
}
