//! What the operators that work row by row share: their views of tensors, their oracles and their bounds.

use super::exact::{self, wide};
use super::{Expected, Extent, Float, How, Layout, Problem, Signature, Slot, Tensors};
use layernorm::reference::{Affine, Backward, Forward};
use layernorm::{Error, ParamGradients, Params, Rows, RowsMut, Workspace};
use twofloat::TwoFloat;

/// From dy to the gradients of input and parameters.
pub(super) const BACKWARD: Signature = Signature {
    needs: &[Slot::X, Slot::Dy],
    takes: &[Slot::Weight, Slot::Bias],
    writes: &[Slot::Dx, Slot::Dweight, Slot::Dbias],
    saves: &[],
};

/// The tensors' shapes.
pub(super) fn extent(slot: Slot) -> Extent {
    match slot {
        Slot::X | Slot::Dy | Slot::Y | Slot::Dx => Extent::Whole,
        Slot::Mean | Slot::M | Slot::C | Slot::Rstd => Extent::Rows,
        Slot::Weight | Slot::Bias | Slot::Dweight | Slot::Dbias => Extent::Units,
    }
}

/// `which` is 0 for x and dy, 1 for y and dx.
fn layout(problem: &Problem, how: &How, which: usize) -> Layout {
    how.layout.map_or(Layout { offset: 0, stride: problem.features() }, |of| of[which])
}

/// The rows of x or dy.
pub(super) fn input<'a, T>(
    problem: &Problem,
    how: &How,
    from: &'a Option<Vec<T>>,
) -> Result<Rows<'a, T>, Error> {
    let Layout { offset, stride } = layout(problem, how, 0);
    let data = from.as_deref().and_then(|data| data.get(offset..)).unwrap_or_default();
    Rows::strided(data, problem.rows(), problem.features(), stride)
}

/// The rows of an output, laid out as inputs (`which` 0) or as outputs (1).
pub(super) fn output<'a, T>(
    problem: &Problem,
    how: &How,
    which: usize,
    to: &'a mut Option<Vec<T>>,
) -> Result<RowsMut<'a, T>, Error> {
    let Layout { offset, stride } = layout(problem, how, which);
    let data = to.as_deref_mut().and_then(|data| data.get_mut(offset..)).unwrap_or_default();
    RowsMut::strided(data, problem.rows(), problem.features(), stride)
}

/// Weight, bias and eps.
pub(super) fn params<'a, T>(
    problem: &Problem,
    weight: &'a Option<Vec<T>>,
    bias: &'a Option<Vec<T>>,
) -> Params<'a, T> {
    Params { weight: weight.as_deref(), bias: bias.as_deref(), eps: problem.eps }
}

/// The sums over rows, where there is memory for one.
pub(super) fn param_gradients<'a, T>(
    how: &How,
    dweight: &'a mut Option<Vec<T>>,
    dbias: &'a mut Option<Vec<T>>,
    workspace: &'a mut Workspace<T>,
) -> Option<ParamGradients<'a, T>> {
    let wanted = dweight.is_some() || dbias.is_some();
    let (dweight, dbias) = (dweight.as_deref_mut(), dbias.as_deref_mut());
    let (accumulate, first_row) = (how.accumulate, how.first_row);
    wanted.then_some(ParamGradients { dweight, dbias, accumulate, first_row, workspace })
}

/// The exact results of both passes.
#[derive(Default)]
pub(super) struct Truth {
    pub(super) y: Vec<TwoFloat>,
    /// Empty where the statistics are not centred.
    pub(super) mean: Vec<TwoFloat>,
    pub(super) rstd: Vec<TwoFloat>,
    pub(super) x_hat: Vec<f64>,
    /// Absent without dy.
    pub(super) gradients: Option<Gradients>,
}

/// The exact results of a backward pass.
#[derive(Default)]
pub(super) struct Gradients {
    pub(super) dx: Vec<TwoFloat>,
    pub(super) dweight: Vec<TwoFloat>,
    pub(super) dbias: Vec<TwoFloat>,
}

/// An operator of [`layernorm::reference`].
pub(super) struct Forms {
    pub(super) forward: fn(&[f64], usize, Affine<'_>, f64) -> Forward,
    pub(super) backward: fn(&[f64], &[f64], usize, Affine<'_>, f64) -> Backward,
}

/// What f32 kernels must give, by the crate's reference in f64.
pub(super) fn from_reference(
    problem: &Problem,
    tensors: &Tensors<f32>,
    forms: Forms,
    centred: bool,
) -> Vec<Expected> {
    let widened = |values: &Option<Vec<f32>>| {
        values.as_deref().map(|values| values.iter().map(|v| v.widen()).collect())
    };
    let [x, weight, bias, dy]: [Option<Vec<f64>>; 4] =
        [&tensors.x, &tensors.weight, &tensors.bias, &tensors.dy].map(widened);
    let x = x.unwrap_or_default();
    let affine = Affine { weight: weight.as_deref(), bias: bias.as_deref() };
    // The kernels round eps to f32, once.
    let (features, eps) = (problem.features(), f32::narrow(problem.eps).widen());
    let forward = (forms.forward)(&x, features, affine, eps);
    let x_hat = (forms.forward)(&x, features, Affine::NONE, eps).y;
    let gradients = dy.map(|dy| {
        let back = (forms.backward)(&dy, &x, features, affine, eps);
        Gradients { dx: wide(&back.dx), dweight: wide(&back.dweight), dbias: wide(&back.dbias) }
    });
    let truth =
        Truth { y: wide(&forward.y), mean: wide(&forward.mean), rstd: wide(&forward.rstd), x_hat, gradients };
    expected(problem, tensors, truth, centred)
}

/// What f64 kernels must give, in double-double arithmetic.
pub(super) fn from_exact(problem: &Problem, tensors: &Tensors<f64>, centred: bool) -> Vec<Expected> {
    expected(problem, tensors, exact::rows(problem, tensors, centred), centred)
}

/// The bounds: r = rstd, S = sum over rows of |dy| max(1, |x_hat|), all in u.
///
/// ```text
/// y        8 |weight| max(1, |x_hat|) + |y|     (RMS norm, with nothing subtracted: 8 |weight x_hat| + |y|)
/// mean     8 std + |mean|
/// rstd     8 r
/// dx       16 r max|weight dy| max(1, |x_hat|)
/// dweight  (16 + log2 rows) S
/// dbias    (8 + log2 rows) sum |dy|
/// ```
fn expected<T: Float>(problem: &Problem, tensors: &Tensors<T>, truth: Truth, centred: bool) -> Vec<Expected> {
    let n = problem.features().max(1);
    let weight =
        |j: usize| tensors.weight.as_ref().map_or(1.0, |w| w[if w.len() == 1 { 0 } else { j }].widen());
    let Truth { y, mean, rstd, x_hat, gradients } = truth;
    let spread = |x_hat: f64| if centred { x_hat.abs().max(1.0) } else { x_hat.abs() };
    let y_scales = x_hat.iter().enumerate().map(|(i, x_hat)| weight(i % n).abs() * spread(*x_hat)).collect();
    let std = |(x_hat, r): (&[f64], &TwoFloat)| {
        // Scaled, because squares vanish where eps is far above the variance.
        let largest = x_hat.iter().fold(0.0, |max: f64, x_hat| max.max(x_hat.abs()));
        let mean_square = x_hat.iter().map(|x_hat| (x_hat / largest).powi(2)).sum::<f64>() / n as f64;
        if largest == 0.0 { 0.0 } else { largest * mean_square.sqrt() / r.hi() }
    };
    let mean_scales = x_hat.chunks(n).zip(&rstd).map(std).collect();
    let rstd_scales = rstd.iter().map(|r| r.hi()).collect();
    let mut all = vec![Expected { slot: Slot::Y, values: y, scales: y_scales, bound: 8.0, rounding: true }];
    if centred {
        all.push(Expected {
            slot: Slot::Mean,
            values: mean,
            scales: mean_scales,
            bound: 8.0,
            rounding: true,
        });
    }
    if let (Some(of), Some(dy)) = (gradients, &tensors.dy) {
        let dy: Vec<f64> = dy.iter().map(|dy| dy.widen()).collect();
        let rows = x_hat.chunks(n).zip(dy.chunks(n)).zip(&rstd);
        let dx_scales = rows.flat_map(|((x_hat, dy), r)| {
            let largest =
                dy.iter().enumerate().fold(0.0, |max: f64, (j, dy)| max.max((weight(j) * dy).abs()));
            let by_row = r.hi() * largest;
            x_hat.iter().map(move |x_hat| by_row * x_hat.abs().max(1.0))
        });
        all.push(Expected {
            slot: Slot::Dx,
            values: of.dx,
            scales: dx_scales.collect(),
            bound: 16.0,
            rounding: false,
        });
        let terms: [Vec<f64>; 2] = [
            dy.iter().zip(&x_hat).map(|(dy, x_hat)| dy.abs() * x_hat.abs().max(1.0)).collect(),
            dy.iter().map(|dy| dy.abs()).collect(),
        ];
        for (slot, values, terms, bound) in
            [(Slot::Dweight, of.dweight, &terms[0], 16.0), (Slot::Dbias, of.dbias, &terms[1], 8.0)]
        {
            let (scales, count) = sums(terms, n, values.len());
            all.push(Expected { slot, values, scales, bound: bound + count.log2(), rounding: false });
        }
    }
    all.push(Expected { slot: Slot::Rstd, values: rstd, scales: rstd_scales, bound: 8.0, rounding: false });
    all
}

/// The sums over rows of `n` terms: `units` of them (all in one where that is 1), and how many terms each has.
fn sums(terms: &[f64], n: usize, units: usize) -> (Vec<f64>, f64) {
    let mut sums = vec![0.0; units];
    for row in terms.chunks(n).filter(|_| units > 0) {
        row.iter().enumerate().for_each(|(j, term)| sums[j % units] += term);
    }
    (sums, (terms.len() as f64 / units.max(1) as f64).max(1.0))
}
