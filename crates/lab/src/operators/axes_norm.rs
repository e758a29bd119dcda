//! Layer and RMS norm over any axes, with parameters along any axes, and with masks.

use super::by_row;
use super::oracle::{Names, Sets};
use super::types::table;
use super::{
    Able, Expected, Extent, Flag, Given, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types,
};
use layernorm::{
    AxesMask, Error, OverAxes, Params, TensorGradients, layer_norm_axes, layer_norm_axes_backward,
    layer_norm_axes_backward_in_place, layer_norm_axes_in_place, rms_norm_axes, rms_norm_axes_backward,
    rms_norm_axes_backward_in_place, rms_norm_axes_in_place,
};

/// Layer norm.
pub const LAYER: Operator = Operator {
    name: "layer_norm_axes",
    formula: "y = weight (x - mean) / sqrt(var + eps) + bias over any axes, of the numbers that are valid",
    structure: Structure::Axes,
    flags: &[Flag::Eps, Flag::Over, Flag::Affine],
    eps: 1e-5,
    forward: Signature {
        needs: &[Slot::X],
        takes: &[Slot::Weight, Slot::Bias, Slot::Valid],
        writes: &[Slot::Y, Slot::Mean, Slot::Rstd],
        saves: &[Slot::M, Slot::C, Slot::Rstd],
        updates: &[],
    },
    backward: Signature { takes: &[Slot::Weight, Slot::Bias, Slot::Valid], ..by_row::BACKWARD },
    extent: |slot| match slot {
        Slot::Mean | Slot::M | Slot::C | Slot::Rstd => Extent::Rows,
        Slot::Weight | Slot::Bias | Slot::Dweight | Slot::Dbias => Extent::Affine,
        _ => Extent::Whole,
    },
    able: Able { strided: false, shards: false, ..Able::ALL },
    untimed: &[Slot::Mean, Slot::Valid],
    kernels: table!(layer_forward, layer_backward),
    oracle: |problem, given| expected(problem, given, true),
};

/// RMS norm.
pub const RMS: Operator = Operator {
    name: "rms_norm_axes",
    formula: "y = weight x / sqrt(mean(x^2) + eps) + bias over any axes, of the numbers that are valid",
    forward: Signature { writes: &[Slot::Y, Slot::Rstd], saves: &[Slot::Rstd], ..LAYER.forward },
    kernels: table!(rms_forward, rms_backward),
    oracle: |problem, given| expected(problem, given, false),
    ..LAYER
};

fn expected(problem: &Problem, given: &Given, centred: bool) -> Vec<Expected> {
    let at = |row, j| {
        let place = problem.place(row, j);
        (place, problem.unit(place))
    };
    let valid = given.get(Slot::Valid).map(|valid| move |place: usize| valid[place] != 0.0);
    let valid = valid.as_ref().map(|valid| valid as &dyn Fn(usize) -> bool);
    let sets = Sets { valid, ..by_row::sets(problem, given, centred, &at) };
    sets.exactly(given, Names::USUAL)
}

/// How far apart neighbours are, row-major.
fn strides(problem: &Problem) -> Vec<usize> {
    let shape = &problem.shape;
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

/// The two norms differ in their statistics alone.
macro_rules! passes {
    ($forward:ident, $backward:ident, $stats_mut:path, $stats:path,
     $norm:ident, $in_place:ident, $gradients:ident, $gradients_in_place:ident) => {
        fn $forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
            let Tensors { x, weight, bias, valid, y, mean, m, c, rstd, workspace, .. } = tensors;
            let strides = strides(problem);
            let norm = norm(problem, by_row::params(problem, weight, bias), valid, &strides);
            let saved = $stats_mut(m, c, rstd);
            if how.in_place {
                $in_place(norm, x.as_deref_mut().unwrap_or_default(), saved, workspace, how.run)?;
            } else {
                let (x, y) = (x.as_deref().unwrap_or_default(), y.as_deref_mut().unwrap_or_default());
                $norm(norm, x, y, saved, workspace, how.run)?;
            }
            by_row::mean(mean, m, c);
            Ok(())
        }

        fn $backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
            let Tensors { x, weight, valid, dy, m, c, rstd, dx, dweight, dbias, workspace, .. } = tensors;
            let strides = strides(problem);
            let norm = norm(problem, by_row::params(problem, weight, &None), valid, &strides);
            let (x, saved) = (x.as_deref().unwrap_or_default(), $stats(m, c, rstd));
            let params = by_row::sums(how, dweight, dbias, workspace);
            if how.in_place {
                let dy = dy.as_deref_mut().unwrap_or_default();
                return $gradients_in_place(norm, x, dy, saved, params, how.run);
            }
            let gradients = TensorGradients { dx: dx.as_deref_mut(), params };
            $gradients(norm, x, dy.as_deref().unwrap_or_default(), saved, gradients, how.run)
        }
    };
}

passes!(
    layer_forward,
    layer_backward,
    by_row::stats_mut,
    by_row::stats,
    layer_norm_axes,
    layer_norm_axes_in_place,
    layer_norm_axes_backward,
    layer_norm_axes_backward_in_place
);
passes!(
    rms_forward,
    rms_backward,
    rstd_mut,
    rstd,
    rms_norm_axes,
    rms_norm_axes_in_place,
    rms_norm_axes_backward,
    rms_norm_axes_backward_in_place
);

/// Statistics without a mean.
fn rstd_mut<'a, A>(
    _: &mut Option<Vec<A>>,
    _: &mut Option<Vec<A>>,
    rstd: &'a mut Option<Vec<A>>,
) -> Option<&'a mut [A]> {
    rstd.as_deref_mut()
}

/// As [`rstd_mut`].
fn rstd<'a, A>(_: &Option<Vec<A>>, _: &Option<Vec<A>>, rstd: &'a Option<Vec<A>>) -> Option<&'a [A]> {
    rstd.as_deref()
}

fn norm<'a, P>(
    problem: &'a Problem,
    params: Params<'a, P>,
    valid: &'a Option<Vec<bool>>,
    strides: &'a [usize],
) -> OverAxes<'a, P> {
    let mask = valid.as_deref().map(|valid| AxesMask { valid, strides });
    let (over, affine) = (problem.over(), problem.affine());
    OverAxes { shape: &problem.shape, strides: None, over, affine, params, mask }
}
