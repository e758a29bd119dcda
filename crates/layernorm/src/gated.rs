//! The gated residual of AdaLN-Zero (Peebles, Xie 2022, arXiv:2212.09748), alone, and fused with the adaptive norm that
//! follows it, with one gate a sample:
//!
//! ```text
//! out = residual + gate[s] x          for each row of sample s
//! y   = x_hat(out) (1 + scale[s]) + shift[s]
//!
//! dresidual = (gradient of the norm at out, from dy) + (gradient of out)
//! dx        = gate[s] dresidual          dgate[s] = sum over the rows of s of dresidual x
//! ```

use crate::adaptive::rows_of_samples;
use crate::by_row::add::Add;
use crate::by_row::branch::{Branch, OfRow};
use crate::by_row::columns::ColumnSums;
use crate::by_row::groups::{GroupSums, Groups, Sums};
use crate::by_row::{Columns, Statistics, backward::Backward, forward::Forward};
use crate::rms_norm::{columns, columns_mut};
use crate::rows::{Column, Mixed, MixedMut, Shape, Shared};
use crate::{
    Companion, Element, Error, Modulation, ModulationGradients, Rows, RowsMut, Run, StatsMut, StatsRef,
    Upstream, Workspace,
};

/// A residual stream, and the gates that a branch meets on its way to it.
///
/// ```
/// use layernorm::{GatedResidual, Rows, RowsMut};
///
/// let (before, gate, mut after) = ([1.0f32; 4], [0.0f32; 2], [0.0f32; 4]);
/// let _ = GatedResidual {
///     residual: Rows::new(&before, 2)?,
///     gate: Rows::new(&gate, 2)?, // of one sample
///     out: RowsMut::new(&mut after, 2)?,
/// };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct GatedResidual<'a, R, P> {
    /// The residual stream before, in the elements' type or, beside halves, in f32.
    pub residual: Rows<'a, R>,
    /// (samples, features): there are as many samples as it has rows, and so many divide the rows of x.
    pub gate: Rows<'a, P>,
    /// The residual stream after: residual + gate x, by one fma, rounded once.
    pub out: RowsMut<'a, R>,
}

/// The gradient of gates, sums over the rows of each sample.
///
/// ```
/// use layernorm::{GateGradient, RowsMut, Workspace};
///
/// let (mut dgate, mut workspace) = ([0.0f32; 8], Workspace::new());
/// let of_two_samples =
///     GateGradient { dgate: RowsMut::new(&mut dgate, 4)?, accumulate: false, workspace: &mut workspace };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct GateGradient<'a, T> {
    /// (samples, features), in the type that sums have.
    pub dgate: RowsMut<'a, T>,
    /// Add the finished totals to what dgate holds, instead of replacing it.
    pub accumulate: bool,
    /// Memory for partial sums. It grows (allocates) when it is too small and is kept for the next call.
    pub workspace: &'a mut Workspace<T>,
}

/// Which gradients the backward pass of a gated residual is to write. That of the residual is the gradient of the sum
/// itself.
///
/// ```
/// use layernorm::{GatedGradients, RowsMut};
///
/// let mut dx = [0.0f32; 8];
/// let _ = GatedGradients { dx: Some(RowsMut::new(&mut dx, 4)?), gate: None };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct GatedGradients<'a, E: Element> {
    /// That of the branch: gate times the gradient of the sum.
    pub dx: Option<RowsMut<'a, E>>,
    /// That of the gate.
    pub gate: Option<GateGradient<'a, E::Acc>>,
}

/// What the backward pass of a gated residual and adaptive norm reads beside the norm's own, and which gradients it is
/// to write.
///
/// ```
/// use layernorm::{GatedGradients, GatedNormGradients, Rows, RowsMut, Upstream};
///
/// let (x, gate, mut dresidual) = ([0.5f32; 8], [0.0f32; 4], [0.0f32; 8]);
/// let _ = GatedNormGradients {
///     x: Rows::new(&x, 4)?,
///     gate: Rows::new(&gate, 4)?,
///     upstream: Upstream::Nothing,
///     dresidual: RowsMut::new(&mut dresidual, 4)?,
///     branch: GatedGradients { dx: None, gate: None },
///     modulation: None,
/// };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct GatedNormGradients<'a, E: Element, R, P> {
    /// The branch, as the forward pass had it. Only the gate's gradient reads it.
    pub x: Rows<'a, E>,
    /// The gates.
    pub gate: Rows<'a, P>,
    /// The gradient of the residual stream after.
    pub upstream: Upstream<'a, R>,
    /// That of the residual stream before.
    pub dresidual: RowsMut<'a, R>,
    /// That of the branch and of the gate, from dresidual as it is stored.
    pub branch: GatedGradients<'a, E>,
    /// Those of scale and shift.
    pub modulation: Option<ModulationGradients<'a, E::Acc>>,
}

/// A residual and a gated branch: out = residual + gate x, with the gate of the row's sample.
///
/// `x` is (samples x positions, features). The product is exact inside one fma. Nothing is allocated.
///
/// # Errors
/// Before anything is written: [`Error::Samples`], [`Error::Shape`], [`Error::Level`].
///
/// ```
/// use layernorm::{GatedResidual, Rows, RowsMut, Run, gated_residual};
///
/// let (x, mut after) = ([9.0f32, 4.0], [0.0; 2]);
/// let residual = GatedResidual {
///     residual: Rows::new(&[1.0f32, 2.0], 2)?,
///     gate: Rows::new(&[0.0f32, 0.5], 2)?,
///     out: RowsMut::new(&mut after, 2)?,
/// };
/// gated_residual(Rows::new(&x, 2)?, residual, Run::default())?;
/// assert_eq!(after, [1.0, 4.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn gated_residual<E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'_, E>,
    residual: GatedResidual<'_, R, P>,
    run: Run,
) -> Result<(), Error> {
    let (_, work) = add(x, residual)?;
    Branch { shape: x.shape(), work: OfRow::Add(work) }.run(run)
}

/// [`gated_residual`] in place: `residual` becomes the sum. The same bits.
///
/// # Errors
/// As [`gated_residual`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, gated_residual_in_place};
///
/// let mut residual = [1.0f32, 2.0];
/// let (x, gate) = (Rows::new(&[9.0f32, 4.0], 2)?, Rows::new(&[0.0f32, 0.5], 2)?);
/// gated_residual_in_place(x, RowsMut::new(&mut residual, 2)?, gate, Run::default())?;
/// assert_eq!(residual, [1.0, 4.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn gated_residual_in_place<E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'_, E>,
    residual: RowsMut<'_, R>,
    gate: Rows<'_, P>,
    run: Run,
) -> Result<(), Error> {
    let (_, work) = add_in_place(x, residual, gate)?;
    Branch { shape: x.shape(), work: OfRow::Add(work) }.run(run)
}

/// The gradients of [`gated_residual`], from that of its sum, which is the residual's too: dx = gate dout, and dgate the
/// sum of dout x over the rows of a sample, in the order of [`ParamGradients`](crate::ParamGradients), rows counted from
/// 0 in each sample. dgate needs a workspace, which allocates where it is too small; nothing else does.
///
/// # Errors
/// As [`gated_residual`], and [`Error::Overflow`].
///
/// ```
/// use layernorm::{GateGradient, GatedGradients, Rows, RowsMut, Run, Workspace, gated_residual_backward};
///
/// // One sample of two positions with one feature: at a gate of 0 only the gate learns.
/// let (x, dout) = (Rows::new(&[9.0f32, 4.0], 1)?, Rows::new(&[1.0f32, 2.0], 1)?);
/// let (mut dx, mut dgate, mut workspace) = ([7.0; 2], [0.0; 1], Workspace::new());
/// let gate =
///     GateGradient { dgate: RowsMut::new(&mut dgate, 1)?, accumulate: false, workspace: &mut workspace };
/// let gradients = GatedGradients { dx: Some(RowsMut::new(&mut dx, 1)?), gate: Some(gate) };
/// gated_residual_backward(x, dout, Rows::new(&[0.0f32], 1)?, gradients, Run::default())?;
/// assert_eq!((dx, dgate), ([0.0, 0.0], [17.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn gated_residual_backward<E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'_, E>,
    dout: Rows<'_, R>,
    gate: Rows<'_, P>,
    gradients: GatedGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let shape = x.shape();
    dout.shape().expect("dout", shape)?;
    let factor = shared(gate, shape)?;
    gradients.check(gate, shape)?;
    run.level()?;
    let of = R::mixed(dout);
    let GatedGradients { dx, gate: of_gate } = gradients;
    if let Some(dx) = dx {
        Branch { shape, work: OfRow::Multiply { of, factor, to: dx.target() } }.run(run)?;
    }
    sum_gates(of_gate, gate.rows(), (x, of), run)
}

/// A gated residual and the adaptive layer norm that follows it: out = residual + gate x, and y the
/// [`ada_layer_norm`](crate::ada_layer_norm) of out, as it is stored. The bits of the two calls. Nothing is allocated.
///
/// # Errors
/// Before anything is written: [`Error::Samples`], [`Error::Shape`], [`Error::Length`], [`Error::Epsilon`],
/// [`Error::Level`].
///
/// ```
/// use layernorm::{GatedResidual, Modulation, Rows, RowsMut, Run, ScaleIs, gated_ada_layer_norm};
///
/// let (mut after, mut y) = ([0.0f32; 2], [0.0f32; 2]);
/// let residual = GatedResidual {
///     residual: Rows::new(&[0.0f32, 2.0], 2)?,
///     gate: Rows::new(&[0.5f32, 0.5], 2)?,
///     out: RowsMut::new(&mut after, 2)?,
/// };
/// let scale = Rows::new(&[1.0f32, 1.0], 2)?;
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 0.0 };
/// let (x, into) = (Rows::new(&[2.0f32, 2.0], 2)?, RowsMut::new(&mut y, 2)?);
/// gated_ada_layer_norm(x, residual, modulation, into, None, Run::default())?;
/// assert_eq!((after, y), ([1.0, 3.0], [-2.0, 2.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn gated_ada_layer_norm<E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'_, E>,
    residual: GatedResidual<'_, R, P>,
    modulation: Modulation<'_, P>,
    y: RowsMut<'_, E>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    forward(x, residual, modulation, y, saved)?.run(Statistics::Centred, run)
}

/// The gradients of [`gated_ada_layer_norm`], from those of both outputs: `dy` of y, and
/// [`GatedNormGradients::upstream`] of out, the residual stream that the forward pass wrote. Workspaces allocate where
/// they are too small; nothing else does.
///
/// # Errors
/// As [`gated_ada_layer_norm`], and [`Error::Overflow`].
///
/// ```
/// use layernorm::{
///     GatedGradients, GatedNormGradients, Modulation, Rows, RowsMut, Run, ScaleIs, Upstream,
///     gated_ada_layer_norm_backward,
/// };
///
/// let (out, dy) = (Rows::new(&[1.0f64, 3.0], 2)?, Rows::new(&[1.0f64, 1.0], 2)?);
/// let (mut dresidual, mut dx) = ([4.0f64, 6.0], [0.0; 2]); // the gradient of out
/// let scale = Rows::new(&[0.0f64, 0.0], 2)?;
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 1e-6 };
/// let gradients = GatedNormGradients {
///     x: Rows::new(&[2.0, 2.0], 2)?,
///     gate: Rows::new(&[0.5, 0.5], 2)?,
///     upstream: Upstream::InPlace,
///     dresidual: RowsMut::new(&mut dresidual, 2)?,
///     branch: GatedGradients { dx: Some(RowsMut::new(&mut dx, 2)?), gate: None },
///     modulation: None,
/// };
/// gated_ada_layer_norm_backward(out, dy, modulation, None, gradients, Run::default())?;
/// assert_eq!((dresidual, dx), ([4.0, 6.0], [2.0, 3.0])); // nothing comes through the norm
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn gated_ada_layer_norm_backward<E: Element, R: Companion<E>, P: Companion<E>>(
    out: Rows<'_, R>,
    dy: Rows<'_, E>,
    modulation: Modulation<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: GatedNormGradients<'_, E, R, P>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(out.rows())).transpose()?;
    backward((out, dy), modulation, saved, gradients, (Statistics::Centred, run))
}

/// A gated residual and the adaptive RMS norm that follows it; see [`gated_ada_layer_norm`].
///
/// # Errors
/// As [`gated_ada_layer_norm`].
///
/// ```
/// use layernorm::{GatedResidual, Modulation, Rows, RowsMut, Run, ScaleIs, gated_ada_rms_norm};
///
/// let (mut after, mut y) = ([0.0f32; 2], [0.0f32; 2]);
/// let residual = GatedResidual {
///     residual: Rows::new(&[0.0f32, 6.0], 2)?,
///     gate: Rows::new(&[0.5f32, 0.5], 2)?,
///     out: RowsMut::new(&mut after, 2)?,
/// };
/// let scale = Rows::new(&[5.0f32, 5.0], 2)?;
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::Whole, eps: 0.0 };
/// let (x, into) = (Rows::new(&[2.0f32, 2.0], 2)?, RowsMut::new(&mut y, 2)?);
/// gated_ada_rms_norm(x, residual, modulation, into, None, Run::default())?;
/// assert_eq!((after, y), ([1.0, 7.0], [1.0, 7.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn gated_ada_rms_norm<E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'_, E>,
    residual: GatedResidual<'_, R, P>,
    modulation: Modulation<'_, P>,
    y: RowsMut<'_, E>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns_mut("rstd", rstd, x.rows())).transpose()?;
    forward(x, residual, modulation, y, saved)?.run(Statistics::Uncentred, run)
}

/// The gradients of [`gated_ada_rms_norm`]; see [`gated_ada_layer_norm_backward`].
///
/// # Errors
/// As [`gated_ada_layer_norm_backward`].
///
/// ```
/// use layernorm::{
///     GatedGradients, GatedNormGradients, Modulation, Rows, RowsMut, Run, ScaleIs, Upstream,
///     gated_ada_rms_norm_backward,
/// };
///
/// let (out, dy) = (Rows::new(&[0.0f64, 3.0], 2)?, Rows::new(&[0.0f64, 1.0], 2)?);
/// let (mut dresidual, mut dx) = ([0.0f64; 2], [1.0; 2]);
/// let scale = Rows::new(&[0.0f64, 0.0], 2)?;
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 0.0 };
/// let gradients = GatedNormGradients {
///     x: Rows::new(&[2.0, 2.0], 2)?,
///     gate: Rows::new(&[0.5, 0.5], 2)?,
///     upstream: Upstream::Nothing,
///     dresidual: RowsMut::new(&mut dresidual, 2)?,
///     branch: GatedGradients { dx: Some(RowsMut::new(&mut dx, 2)?), gate: None },
///     modulation: None,
/// };
/// gated_ada_rms_norm_backward(out, dy, modulation, None, gradients, Run::default())?;
/// assert!(dx.iter().all(|dx| dx.abs() < 1e-15)); // dy lies along out
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn gated_ada_rms_norm_backward<E: Element, R: Companion<E>, P: Companion<E>>(
    out: Rows<'_, R>,
    dy: Rows<'_, E>,
    modulation: Modulation<'_, P>,
    rstd: Option<&[E::Acc]>,
    gradients: GatedNormGradients<'_, E, R, P>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns("rstd", rstd, out.rows())).transpose()?;
    backward((out, dy), modulation, saved, gradients, (Statistics::Uncentred, run))
}

/// The gate of each row of this shape.
fn shared<E: Element, P: Companion<E>>(gate: Rows<'_, P>, shape: Shape) -> Result<Shared<'_, E>, Error> {
    gate.shape().expect("gate", shape.with_rows(gate.rows()))?;
    let rows = rows_of_samples(shape.rows, gate.rows())?.max(1);
    Ok(Shared { numbers: P::mixed(gate), rows })
}

/// A checked sum, and its memory to read.
fn add<'a, E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'a, E>,
    of: GatedResidual<'a, R, P>,
) -> Result<(Mixed<'a, E>, Add<'a, E>), Error> {
    let GatedResidual { residual, gate, out } = of;
    residual.shape().expect("residual", x.shape())?;
    out.shape().expect("out", x.shape())?;
    let (sum, add) = add_in_place(x, out, gate)?;
    Ok((sum, Add { residual: R::mixed(residual), ..add }))
}

fn add_in_place<'a, E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'a, E>,
    residual: RowsMut<'a, R>,
    gate: Rows<'a, P>,
) -> Result<(Mixed<'a, E>, Add<'a, E>), Error> {
    residual.shape().expect("residual", x.shape())?;
    let factor = Some(shared(gate, x.shape())?);
    let (residual, out): (Mixed<'a, E>, MixedMut<'a, E>) = R::mixed_in_place(residual);
    Ok((residual, Add { branch: x.source(), bias: None, factor, residual, out, unrounded: None }))
}

fn forward<'a, E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'a, E>,
    residual: GatedResidual<'a, R, P>,
    modulation: Modulation<'a, P>,
    y: RowsMut<'a, E>,
    saved: Option<Columns<Column<'a, E::Acc>>>,
) -> Result<Forward<'a, E>, Error> {
    let shape = x.shape();
    y.shape().expect("y", shape)?;
    let (sum, add) = add(x, residual)?;
    let [weight, bias] = modulation.affine(shape)?;
    let call = Forward::over(shape, [sum], y.target(), modulation.params(), saved)?;
    Ok(Forward { weight, bias, add: Some(add), ..call })
}

fn backward<E: Element, R: Companion<E>, P: Companion<E>>(
    (out, dy): (Rows<'_, R>, Rows<'_, E>),
    modulation: Modulation<'_, P>,
    saved: Option<Columns<&[E::Acc]>>,
    gradients: GatedNormGradients<'_, E, R, P>,
    (statistics, run): (Statistics, Run),
) -> Result<(), Error> {
    let GatedNormGradients { x, gate, upstream, dresidual, branch, modulation: of_modulation } = gradients;
    let shape = out.shape();
    for (what, of) in [("dy", dy.shape()), ("x", x.shape()), ("dresidual", dresidual.shape())] {
        of.expect(what, shape)?;
    }
    let [weight, _] = modulation.affine(shape)?;
    let factor = shared(gate, shape)?;
    branch.check(gate, shape)?;
    let upstream = upstream.of(shape)?;
    let sums = modulation.sums(of_modulation, shape)?;
    let call = Backward::over(shape, R::mixed(out), dy.source(), modulation.params())?;
    let (read, write) = R::mixed_in_place(dresidual);
    let call = Backward {
        weight,
        saved,
        dx: Some(write),
        upstream: upstream.map(|apart| apart.map_or(read, R::mixed)),
        in_place: upstream.is_some_and(|apart| apart.is_none()),
        branch: branch.dx.map(|dx| (dx.target(), Some(factor))),
        ..call
    };
    call.run_in_groups(statistics, sums, run)?;
    sum_gates(branch.gate, gate.rows(), (x, read), run)
}

impl<E: Element> GatedGradients<'_, E> {
    fn check<P>(&self, gate: Rows<'_, P>, shape: Shape) -> Result<(), Error> {
        if let Some(dx) = &self.dx {
            dx.shape().expect("dx", shape)?;
        }
        self.gate.as_ref().map_or(Ok(()), |of| of.dgate.shape().expect("dgate", gate.shape()))
    }
}

/// The sums of d x over the rows of each sample.
fn sum_gates<E: Element>(
    gradient: Option<GateGradient<'_, E::Acc>>,
    samples: usize,
    (x, d): (Rows<'_, E>, Mixed<'_, E>),
    run: Run,
) -> Result<(), Error> {
    let Some(GateGradient { dgate, accumulate, workspace }) = gradient else { return Ok(()) };
    let shape = x.shape();
    let groups = Groups::Equal { count: samples, rows: rows_of_samples(shape.rows, samples)? };
    let outputs = [Some(dgate.target()), None];
    let with = Some(Shared { numbers: Mixed::Own(x.source()), rows: 1 });
    let sums = Sums::OfGroups(GroupSums { groups, outputs, accumulate, workspace });
    ColumnSums { shape, of: d, with }.run(sums, run)
}
