//! Scale norm.

use super::by_row::{self, input, output};
use super::oracle::{Divisor, Names, Reference, Sets};
use super::types::table;
use super::{Able, Extent, Flag, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types};
use layernorm::{
    Error, Gradients, reference, scale_norm, scale_norm_backward, scale_norm_backward_in_place,
    scale_norm_in_place,
};

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "scale_norm",
    formula: "y = scale x / max(|x|, eps), one scale for all",
    structure: Structure::Rows,
    flags: &[Flag::Eps, Flag::Axis],
    eps: 1e-5,
    forward: Signature {
        needs: &[Slot::X, Slot::Scale],
        takes: &[],
        writes: &[Slot::Y, Slot::Rnorm],
        saves: &[],
        updates: &[],
    },
    backward: Signature {
        needs: &[Slot::X, Slot::Scale, Slot::Dy],
        takes: &[],
        writes: &[Slot::Dx, Slot::Dscale],
        saves: &[],
        updates: &[],
    },
    extent: |slot| match slot {
        Slot::Scale | Slot::Dscale => Extent::One,
        _ => by_row::extent(slot),
    },
    able: Able { shards: false, ..Able::ALL },
    untimed: &[],
    kernels: table!(forward, backward),
    oracle: |problem, given| {
        let n = problem.features();
        let at = |row, j| (row * n + j, 0);
        let sets = Sets {
            divisor: Divisor::Length,
            weight: given.get(Slot::Scale),
            ..by_row::sets(problem, given, false, &at)
        };
        let names = Names { rstd: Slot::Rnorm, dweight: Slot::Dscale, ..Names::USUAL };
        sets.expected(given, names, || {
            let scale = sets.weight(0);
            let out = reference::scale_norm(sets.x, n, scale, sets.eps);
            let x_hat = reference::l2_norm(sets.x, n, sets.eps).y;
            let back = sets.dy.map(|dy| reference::scale_norm_backward(dy, sets.x, n, scale, sets.eps));
            let (dx, dweight) = back.map(|back| (back.dx, vec![back.dscale])).unwrap_or_default();
            Reference { y: out.y, rstd: out.rnorm, x_hat, dx, dweight, ..Reference::default() }
        })
    },
};

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, scale, y, rnorm, .. } = tensors;
    let (scale, rnorm) = (by_row::single(scale)?, rnorm.as_deref_mut());
    if how.in_place {
        return scale_norm_in_place(output(problem, how, 0, x)?, scale, problem.eps(), rnorm, how.run);
    }
    let (x, y) = (input(problem, how, x)?, output(problem, how, 1, y)?);
    scale_norm(x, scale, problem.eps(), y, rnorm, how.run)
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, scale, dy, dx, dscale, workspace, .. } = tensors;
    let (x, scale, eps) = (input(problem, how, x)?, by_row::single(scale)?, problem.eps());
    let mut none = None;
    let sums = by_row::param_gradients(how, dscale, &mut none, workspace);
    if how.in_place {
        return scale_norm_backward_in_place(x, output(problem, how, 0, dy)?, scale, eps, sums, how.run);
    }
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    scale_norm_backward(x, input(problem, how, dy)?, scale, eps, Gradients { dx, params: sums }, how.run)
}
