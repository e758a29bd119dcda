//! L2 norm.

use super::by_row::{self, input, output};
use super::oracle::{Divisor, Names, Reference, Sets};
use super::types::table;
use super::{Able, Extent, Flag, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types};
use layernorm::{Error, l2_norm, l2_norm_backward, l2_norm_backward_in_place, l2_norm_in_place, reference};

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "l2_norm",
    formula: "y = x / max(|x|, eps)",
    structure: Structure::Rows,
    flags: &[Flag::Eps, Flag::Axis],
    eps: 1e-12,
    forward: Signature {
        needs: &[Slot::X],
        takes: &[],
        writes: &[Slot::Y, Slot::Rnorm],
        saves: &[],
        updates: &[],
    },
    backward: Signature {
        needs: &[Slot::X, Slot::Dy],
        takes: &[],
        writes: &[Slot::Dx],
        saves: &[],
        updates: &[],
    },
    extent: |slot| if slot == Slot::Rnorm { Extent::Rows } else { Extent::Whole },
    able: Able { shards: false, accumulates: false, ..Able::ALL },
    untimed: &[],
    kernels: table!(forward, backward),
    oracle: |problem, given| {
        let n = problem.features();
        let at = |row, j| (row * n + j, 0);
        let sets = Sets { divisor: Divisor::Length, ..by_row::sets(problem, given, false, &at) };
        sets.expected(given, Names { rstd: Slot::Rnorm, ..Names::USUAL }, || {
            let reference::L2Forward { y, rnorm } = reference::l2_norm(sets.x, n, sets.eps);
            let dx = sets.dy.map(|dy| reference::l2_norm_backward(dy, sets.x, n, sets.eps));
            let (x_hat, dx) = (y.clone(), dx.unwrap_or_default());
            Reference { y, rstd: rnorm, x_hat, dx, ..Reference::default() }
        })
    },
};

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, y, rnorm, .. } = tensors;
    let (eps, rnorm) = (problem.eps(), rnorm.as_deref_mut());
    if how.in_place {
        return l2_norm_in_place(output(problem, how, 0, x)?, eps, rnorm, how.run);
    }
    l2_norm(input(problem, how, x)?, eps, output(problem, how, 1, y)?, rnorm, how.run)
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, dy, dx, .. } = tensors;
    let (x, eps) = (input(problem, how, x)?, problem.eps());
    if how.in_place {
        return l2_norm_backward_in_place(x, output(problem, how, 0, dy)?, eps, how.run);
    }
    l2_norm_backward(x, input(problem, how, dy)?, eps, output(problem, how, 1, dx)?, how.run)
}
