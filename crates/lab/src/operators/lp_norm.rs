//! Lp norm, of ONNX.

use super::by_row;
use super::oracle::{Divisor, Names, Sets};
use super::types::table;
use super::{Able, Extent, Flag, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types};
use layernorm::{Error, Lp, LpNorm, lp_norm, lp_norm_backward};

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "lp_norm",
    formula: "y = x / |x|, with the Euclidean length or the sum of magnitudes of each line along an axis",
    structure: Structure::Lines,
    flags: &[Flag::Axis, Flag::Power],
    eps: 0.0,
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
        let at = |line, j| (problem.place(line, j), 0);
        let divisor = if problem.options.power == Lp::Two { Divisor::Length } else { Divisor::Magnitudes };
        let sets = Sets { divisor, eps: 0.0, ..by_row::sets(problem, given, false, &at) };
        sets.exactly(given, Names::USUAL)
    },
};

fn of(problem: &Problem) -> LpNorm<'_> {
    LpNorm { shape: &problem.shape, axis: problem.axis(), p: problem.options.power }
}

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, y, workspace, .. } = tensors;
    let (x, y) = (x.as_deref().unwrap_or_default(), y.as_deref_mut().unwrap_or_default());
    lp_norm(x, of(problem), y, workspace, how.run)
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, dy, dx, workspace, .. } = tensors;
    let (x, dy) = (x.as_deref().unwrap_or_default(), dy.as_deref().unwrap_or_default());
    lp_norm_backward(x, dy, of(problem), dx.as_deref_mut().unwrap_or_default(), workspace, how.run)
}
