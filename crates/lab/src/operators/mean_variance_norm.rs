//! Mean-variance norm, of ONNX.

use super::by_row;
use super::oracle::{Divisor, Names, Reference, Sets};
use super::types::table;
use super::{Able, Extent, Flag, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types};
use layernorm::{Error, MeanVariance, mean_variance_norm, mean_variance_norm_backward, reference};

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "mean_variance_norm",
    formula: "y = (x - mean) / (sqrt(var) + eps)",
    structure: Structure::Rows,
    flags: &[Flag::Eps, Flag::Axis],
    eps: 1e-9,
    forward: Signature { needs: &[Slot::X], takes: &[], writes: &[Slot::Y], saves: &[], updates: &[] },
    backward: Signature {
        needs: &[Slot::X, Slot::Dy],
        takes: &[],
        writes: &[Slot::Dx],
        saves: &[],
        updates: &[],
    },
    extent: |_| Extent::Whole,
    able: Able::NONE,
    untimed: &[],
    kernels: table!(forward, backward),
    oracle: |problem, given| {
        let n = problem.features();
        let at = |row, j| (row * n + j, 0);
        let sets = Sets { divisor: Divisor::RootAndMore, ..by_row::sets(problem, given, true, &at) };
        sets.expected(given, Names::USUAL, || {
            let axes: Vec<usize> = axes(problem);
            let reference::Forward { y, mean, rstd } =
                reference::mean_variance_norm(sets.x, &problem.shape, &axes, sets.eps);
            let back =
                |dy| reference::mean_variance_norm_backward(dy, sets.x, &problem.shape, &axes, sets.eps);
            let (x_hat, dx) = (y.clone(), sets.dy.map(back).unwrap_or_default());
            Reference { y, mean, rstd, x_hat, dx, ..Reference::default() }
        })
    },
};

fn axes(problem: &Problem) -> Vec<usize> {
    (problem.axis()..problem.shape.len()).collect()
}

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, y, workspace, .. } = tensors;
    let of = MeanVariance { shape: &problem.shape, axes: &axes(problem), eps: problem.eps() };
    let (x, y) = (x.as_deref().unwrap_or_default(), y.as_deref_mut().unwrap_or_default());
    mean_variance_norm(x, of, y, workspace, how.run)
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, dy, dx, workspace, .. } = tensors;
    let of = MeanVariance { shape: &problem.shape, axes: &axes(problem), eps: problem.eps() };
    let (x, dy) = (x.as_deref().unwrap_or_default(), dy.as_deref().unwrap_or_default());
    mean_variance_norm_backward(x, dy, of, dx.as_deref_mut().unwrap_or_default(), workspace, how.run)
}
