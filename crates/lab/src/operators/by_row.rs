//! What the operators that work row by row share: their views of tensors, and their oracle.

use super::oracle::{Divisor, Names, Reference, Sets};
use super::{Expected, Extent, Given, How, Layout, Problem, Signature, Slot};
use layernorm::reference::{Affine, Backward, Forward};
use layernorm::{Error, ParamGradients, Params, Rows, RowsMut, StatsMut, StatsRef, Workspace};

/// From dy to the gradients of input and parameters.
pub(super) const BACKWARD: Signature = Signature {
    needs: &[Slot::X, Slot::Dy],
    takes: &[Slot::Weight, Slot::Bias],
    writes: &[Slot::Dx, Slot::Dweight, Slot::Dbias],
    saves: &[],
    updates: &[],
};

/// The tensors' shapes.
pub(super) fn extent(slot: Slot) -> Extent {
    match slot {
        Slot::Mean | Slot::M | Slot::C | Slot::Rstd | Slot::Rnorm => Extent::Rows,
        Slot::Weight | Slot::Bias | Slot::Dweight | Slot::Dbias => Extent::Units,
        _ => Extent::Whole,
    }
}

/// `which` is 0 for what comes from outside, 1 for what the operator writes.
fn layout(problem: &Problem, how: &How, which: usize) -> Layout {
    how.layout.map_or(Layout { offset: 0, stride: problem.features() }, |of| of[which])
}

/// The rows of x or dy, or of what looks like them.
pub(super) fn input<'a, N>(
    problem: &Problem,
    how: &How,
    from: &'a Option<Vec<N>>,
) -> Result<Rows<'a, N>, Error> {
    read(problem, how, 0, from)
}

/// Rows to read, laid out as inputs (`which` 0) or as outputs (1).
pub(super) fn read<'a, N>(
    problem: &Problem,
    how: &How,
    which: usize,
    from: &'a Option<Vec<N>>,
) -> Result<Rows<'a, N>, Error> {
    let Layout { offset, stride } = layout(problem, how, which);
    let data = from.as_deref().and_then(|data| data.get(offset..)).unwrap_or_default();
    Rows::strided(data, problem.rows(), problem.features(), stride)
}

/// The rows of an output, laid out as inputs (`which` 0) or as outputs (1).
pub(super) fn output<'a, N>(
    problem: &Problem,
    how: &How,
    which: usize,
    to: &'a mut Option<Vec<N>>,
) -> Result<RowsMut<'a, N>, Error> {
    let Layout { offset, stride } = layout(problem, how, which);
    let data = to.as_deref_mut().and_then(|data| data.get_mut(offset..)).unwrap_or_default();
    RowsMut::strided(data, problem.rows(), problem.features(), stride)
}

/// Weight, bias and eps.
pub(super) fn params<'a, P>(
    problem: &Problem,
    weight: &'a Option<Vec<P>>,
    bias: &'a Option<Vec<P>>,
) -> Params<'a, P> {
    Params { weight: weight.as_deref(), bias: bias.as_deref(), eps: problem.eps() }
}

/// The sums over rows, where there is memory for one.
pub(super) fn param_gradients<'a, A>(
    how: &How,
    dweight: &'a mut Option<Vec<A>>,
    dbias: &'a mut Option<Vec<A>>,
    workspace: &'a mut Workspace<A>,
) -> Option<ParamGradients<'a, A>> {
    let wanted = dweight.is_some() || dbias.is_some();
    wanted.then(|| sums(how, dweight, dbias, workspace))
}

/// The same, for those that want a workspace in any case.
pub(super) fn sums<'a, A>(
    how: &How,
    dweight: &'a mut Option<Vec<A>>,
    dbias: &'a mut Option<Vec<A>>,
    workspace: &'a mut Workspace<A>,
) -> ParamGradients<'a, A> {
    let (dweight, dbias) = (dweight.as_deref_mut(), dbias.as_deref_mut());
    ParamGradients { dweight, dbias, accumulate: how.accumulate, first_row: how.first_row, workspace }
}

/// Where there is memory for statistics.
pub(super) fn stats_mut<'a, A>(
    m: &'a mut Option<Vec<A>>,
    c: &'a mut Option<Vec<A>>,
    rstd: &'a mut Option<Vec<A>>,
) -> Option<StatsMut<'a, A>> {
    let (m, c, rstd) = (m.as_deref_mut()?, c.as_deref_mut()?, rstd.as_deref_mut()?);
    Some(StatsMut { m, c, rstd })
}

/// Statistics, where they were saved.
pub(super) fn stats<'a, A>(
    m: &'a Option<Vec<A>>,
    c: &'a Option<Vec<A>>,
    rstd: &'a Option<Vec<A>>,
) -> Option<StatsRef<'a, A>> {
    let (m, c, rstd) = (m.as_deref()?, c.as_deref()?, rstd.as_deref()?);
    Some(StatsRef { m, c, rstd })
}

/// The one number of a parameter.
pub(super) fn single<P: Copy>(of: &Option<Vec<P>>) -> Result<P, Error> {
    let of = of.as_deref().unwrap_or_default();
    of.first().copied().ok_or(Error::Length { what: "scale", expected: 1, got: 0 })
}

/// The mean, rounded once.
pub(super) fn mean<A: Copy + std::ops::Add<Output = A>>(
    mean: &mut Option<Vec<A>>,
    m: &Option<Vec<A>>,
    c: &Option<Vec<A>>,
) {
    if let (Some(mean), Some(m), Some(c)) = (mean, m, c) {
        for (mean, (m, c)) in mean.iter_mut().zip(m.iter().zip(c)) {
            *mean = *m + *c;
        }
    }
}

/// An operator of [`layernorm::reference`].
pub(super) struct Forms {
    pub(super) forward: fn(&[f64], usize, Affine<'_>, f64) -> Forward,
    pub(super) backward: fn(&[f64], &[f64], usize, Affine<'_>, f64) -> Backward,
}

/// Rows of numbers, and their parameters by number.
pub(super) fn sets<'a>(
    problem: &Problem,
    given: &'a Given,
    centred: bool,
    at: &'a dyn Fn(usize, usize) -> (usize, usize),
) -> Sets<'a> {
    Sets {
        sets: problem.rows(),
        n: problem.features(),
        at,
        centred,
        divisor: Divisor::Root,
        eps: given.eps,
        valid: None,
        rounds: None,
        x: given.all(Slot::X),
        weight: given.get(Slot::Weight),
        offset: 0.0,
        bias: given.get(Slot::Bias),
        dy: given.get(Slot::Dy),
        upstream: None,
    }
}

/// What an operator with weight and bias by feature must give.
pub(super) fn expected(problem: &Problem, given: &Given, forms: &Forms, centred: bool) -> Vec<Expected> {
    let n = problem.features();
    let at = |row, j| (row * n + j, j);
    let sets = sets(problem, given, centred, &at);
    sets.expected(given, Names::USUAL, || {
        let affine = Affine { weight: sets.weight, bias: sets.bias };
        let Forward { y, mean, rstd } = (forms.forward)(sets.x, n, affine, sets.eps);
        let x_hat = (forms.forward)(sets.x, n, Affine::NONE, sets.eps).y;
        let back = sets.dy.map(|dy| (forms.backward)(dy, sets.x, n, affine, sets.eps));
        let Backward { dx, dweight, dbias } = back.unwrap_or_default();
        Reference { y, mean, rstd, x_hat, dx, dweight, dbias }
    })
}
