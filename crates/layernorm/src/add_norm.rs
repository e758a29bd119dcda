//! Residual add, then layer or RMS norm, in one pass: what stands between the blocks of a transformer (Vaswani et al.
//! 2017, arXiv:1706.03762; Xiong et al. 2020, arXiv:2002.04745), a row at a time:
//!
//! ```text
//! out = residual + mask (x + bias)
//! y   = norm(out)
//!
//! dresidual = (gradient of the norm at out, from dy) + (gradient of out)
//! dx        = mask dresidual              dbias = sum over rows of dx
//! ```
//!
//! The sum is rounded to the type that it is stored in, and normalised as stored: so that what the next block reads is
//! what was normalised, and the backward pass finds it.

use crate::by_row::add::{Add, Unrounded};
use crate::by_row::columns::ColumnSums;
use crate::by_row::groups::Sums;
use crate::by_row::{Columns, Statistics, backward::Backward, forward::Forward};
use crate::rms_norm::{columns, columns_mut};
use crate::rows::{Column, Mixed, MixedMut, Shape, Shared, Source, Target};
use crate::{
    Companion, Element, Error, ParamGradients, Params, Rows, RowsMut, Run, StatsMut, StatsRef, Workspace,
    threads,
};

/// A residual stream, and what a branch meets on its way to it.
///
/// ```
/// use layernorm::{Branch, Residual, Rows, RowsMut};
///
/// let (before, mut after) = ([1.0f32; 4], [0.0; 4]);
/// let _ = Residual::<f32, f32, f32> {
///     residual: Rows::new(&before, 2)?,
///     out: RowsMut::new(&mut after, 2)?,
///     branch: Branch { bias: Some(&[0.5, 0.0]), ..Branch::default() },
/// };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct Residual<'a, E: Element, R, P> {
    /// The residual stream before, in the elements' type or, beside halves, in f32.
    pub residual: Rows<'a, R>,
    /// The residual stream after: residual + mask (x + bias), rounded once.
    pub out: RowsMut<'a, R>,
    /// What the branch meets on its way.
    pub branch: Branch<'a, E, P>,
}

/// What a branch meets on its way to the residual: nothing, by default.
///
/// ```
/// let branch = layernorm::Branch::<f32, f32>::default();
/// assert!(branch.bias.is_none() && branch.mask.is_none());
/// ```
#[derive(Debug)]
pub struct Branch<'a, E: Element, P> {
    /// One number a feature, added to x: the bias of the branch's last linear layer.
    pub bias: Option<&'a [P]>,
    /// What x + bias is multiplied by: a dropout mask, of 0 and 1 / (1 - p).
    pub mask: Option<Rows<'a, E>>,
    /// What is normalised.
    pub normalise: Normalise<'a, E::Acc>,
}

impl<E: Element, P> Default for Branch<'_, E, P> {
    fn default() -> Self {
        Self { bias: None, mask: None, normalise: Normalise::AsStored }
    }
}

/// Which sum is normalised. It matters where the residual is stored in halves.
///
/// ```
/// assert!(matches!(layernorm::Normalise::<f32>::default(), layernorm::Normalise::AsStored));
/// ```
#[derive(Debug, Default)]
pub enum Normalise<'a, T> {
    /// The sum as it is stored, rounded.
    #[default]
    AsStored,
    /// The sum before it is rounded. It needs memory for two rows a thread, which is allocated where it is too
    /// small. A backward pass knows the stored sum only: its x_hat is that of the sum as it is stored.
    Unrounded(&'a mut Workspace<T>),
}

/// The gradient of a residual stream after an add and norm: what reaches it beside the norm.
///
/// ```
/// assert!(matches!(layernorm::Upstream::<f32>::default(), layernorm::Upstream::Nothing));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub enum Upstream<'a, R> {
    /// Nothing: only the norm reads the stream.
    #[default]
    Nothing,
    /// It is here.
    Apart(Rows<'a, R>),
    /// It stands in the memory of dresidual, which replaces it.
    InPlace,
}

/// Which gradients the backward pass of an add and norm is to write.
///
/// ```
/// use layernorm::{AddGradients, RowsMut, Upstream};
///
/// let mut dresidual = [0.0f32; 8];
/// let of_the_stream_alone = AddGradients::<f32, f32> {
///     upstream: Upstream::InPlace,
///     dresidual: RowsMut::new(&mut dresidual, 4)?,
///     mask: None,
///     dx: None,
///     branch_bias: None,
///     params: None,
/// };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct AddGradients<'a, E: Element, R> {
    /// The gradient of the residual stream after.
    pub upstream: Upstream<'a, R>,
    /// That of the residual stream before.
    pub dresidual: RowsMut<'a, R>,
    /// The mask of the forward pass.
    pub mask: Option<Rows<'a, E>>,
    /// The gradient of the branch: mask times dresidual as it is stored. Without a mask, and in one type, it is
    /// dresidual, and need not be asked for.
    pub dx: Option<RowsMut<'a, E>>,
    /// That of the branch's bias.
    pub branch_bias: Option<BiasGradient<'a, E::Acc>>,
    /// Those of the norm's parameters.
    pub params: Option<ParamGradients<'a, E::Acc>>,
}

/// The gradient of a branch's bias, a sum over rows in the order of [`ParamGradients`].
///
/// ```
/// use layernorm::{BiasGradient, Workspace};
///
/// let (mut dbias, mut workspace) = ([0.0f32; 4], Workspace::new());
/// let _ = BiasGradient { dbias: &mut dbias, accumulate: false, first_row: 0, workspace: &mut workspace };
/// ```
#[derive(Debug)]
pub struct BiasGradient<'a, T> {
    /// One number a feature.
    pub dbias: &'a mut [T],
    /// Add the finished total to what dbias holds, instead of replacing it.
    pub accumulate: bool,
    /// Index of the first row of this call in the whole batch. 0 where there is but one call.
    pub first_row: usize,
    /// Memory for partial sums. It grows (allocates) when it is too small and is kept for the next call.
    pub workspace: &'a mut Workspace<T>,
}

/// Add, then layer norm: out = residual + mask (x + bias) and y = weight (out - mean) / sqrt(var + eps) + bias, with mean
/// and var those of a row of out, as it is stored.
///
/// `x`, `y`, the residual streams and the mask have the same rows and features, and each its own stride. The
/// statistics go to `saved`. Nothing is allocated, but for [`Normalise::Unrounded`]. y has the bits of
/// [`layer_norm`](crate::layer_norm) of out.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Epsilon`], [`Error::Level`],
/// [`Error::Overflow`].
///
/// ```
/// use layernorm::{Branch, Params, Residual, Rows, RowsMut, Run, add_layer_norm};
///
/// let (x, before) = ([1.0f32, 1.0], [0.0, 2.0]);
/// let (mut y, mut after) = ([0.0; 2], [0.0; 2]);
/// let residual = Residual {
///     residual: Rows::new(&before, 2)?,
///     out: RowsMut::new(&mut after, 2)?,
///     branch: Branch::default(),
/// };
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// add_layer_norm(Rows::new(&x, 2)?, residual, params, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!((after, y), ([1.0, 3.0], [-1.0, 1.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn add_layer_norm<E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'_, E>,
    residual: Residual<'_, E, R, P>,
    params: Params<'_, P>,
    y: RowsMut<'_, E>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    forward(Rooms::apart(x, residual, y)?, params, saved, run, Statistics::Centred)
}

/// [`add_layer_norm`] in place: `residual` becomes the new residual stream, and `x` its norm. The same bits.
///
/// # Errors
/// As [`add_layer_norm`].
///
/// ```
/// use layernorm::{Branch, Params, RowsMut, Run, add_layer_norm_in_place};
///
/// let (mut x, mut residual) = ([1.0f32, 1.0], [0.0f32, 2.0]);
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// let (rows, stream) = (RowsMut::new(&mut x, 2)?, RowsMut::new(&mut residual, 2)?);
/// add_layer_norm_in_place(rows, stream, Branch::default(), params, None, Run::default())?;
/// assert_eq!((residual, x), ([1.0, 3.0], [-1.0, 1.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn add_layer_norm_in_place<E: Element, R: Companion<E>, P: Companion<E>>(
    x: RowsMut<'_, E>,
    residual: RowsMut<'_, R>,
    branch: Branch<'_, E, P>,
    params: Params<'_, P>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    forward(Rooms::in_place(x, residual, branch)?, params, saved, run, Statistics::Centred)
}

/// The gradients of [`add_layer_norm`], from those of both outputs: `dy` of y, and [`AddGradients::upstream`] of out.
///
/// `out` is the residual stream that the forward pass wrote. dresidual is the gradient through the norm, rounded to
/// the type of statistics, plus the upstream one, rounded to be stored: in f32 and f64 the bits of
/// [`layer_norm_backward`](crate::layer_norm_backward) and an addition. dx and the gradient of the branch's bias are
/// taken from dresidual as it is stored. Gradients of parameters need workspaces, which allocate where they are too
/// small; nothing else does.
///
/// # Errors
/// As [`add_layer_norm`], and [`Error::RowIndex`].
///
/// ```
/// use layernorm::{AddGradients, Params, Rows, RowsMut, Run, Upstream, add_layer_norm_backward};
///
/// let (out, dy, dout) = ([1.0f64, 3.0], [1.0, 1.0], [0.25, 0.5]);
/// let mut dresidual = [0.0; 2];
/// let gradients = AddGradients {
///     upstream: Upstream::Apart(Rows::new(&dout, 2)?),
///     dresidual: RowsMut::new(&mut dresidual, 2)?,
///     mask: None,
///     dx: None,
///     branch_bias: None,
///     params: None,
/// };
/// let params = Params::<f64>::default();
/// add_layer_norm_backward(Rows::new(&out, 2)?, Rows::new(&dy, 2)?, params, None, gradients, Run::default())?;
/// assert_eq!(dresidual, dout); // nothing comes through the norm
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn add_layer_norm_backward<E: Element, R: Companion<E>, P: Companion<E>>(
    out: Rows<'_, R>,
    dy: Rows<'_, E>,
    params: Params<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: AddGradients<'_, E, R>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(out.rows())).transpose()?;
    let call = Backward { saved, ..Backward::over(out.shape(), R::mixed(out), dy.source(), params)? };
    dy.shape().expect("dy", out.shape())?;
    backward(call, gradients, run, Statistics::Centred)
}

/// Add, then RMS norm: out = residual + mask (x + bias) and y = weight out / sqrt(mean(out^2) + eps) + bias, where the
/// mean is that of a row of out, as it is stored. As [`add_layer_norm`] otherwise.
///
/// # Errors
/// As [`add_layer_norm`].
///
/// ```
/// use layernorm::{Branch, Params, Residual, Rows, RowsMut, Run, add_rms_norm};
///
/// let (x, before) = ([1.0f32, 0.0], [0.0, 7.0]);
/// let (mut y, mut after) = ([0.0; 2], [0.0; 2]);
/// let residual = Residual {
///     residual: Rows::new(&before, 2)?,
///     out: RowsMut::new(&mut after, 2)?,
///     branch: Branch::default(),
/// };
/// let params = Params { weight: Some(&[5.0]), bias: None, eps: 0.0 };
/// add_rms_norm(Rows::new(&x, 2)?, residual, params, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!((after, y), ([1.0, 7.0], [1.0, 7.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn add_rms_norm<E: Element, R: Companion<E>, P: Companion<E>>(
    x: Rows<'_, E>,
    residual: Residual<'_, E, R, P>,
    params: Params<'_, P>,
    y: RowsMut<'_, E>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns_mut("rstd", rstd, x.rows())).transpose()?;
    forward(Rooms::apart(x, residual, y)?, params, saved, run, Statistics::Uncentred)
}

/// [`add_rms_norm`] in place: `residual` becomes the new residual stream, and `x` its norm. The same bits.
///
/// # Errors
/// As [`add_layer_norm`].
///
/// ```
/// use half::bf16;
/// use layernorm::{Branch, Params, RowsMut, Run, add_rms_norm_in_place};
///
/// // The stream in f32, all else in halves.
/// let (mut x, mut residual) = ([bf16::ONE, bf16::ZERO], [0.0f32, 7.0]);
/// let params = Params { weight: Some(&[bf16::from_f32(5.0)]), bias: None, eps: 0.0 };
/// let (rows, stream) = (RowsMut::new(&mut x, 2)?, RowsMut::new(&mut residual, 2)?);
/// add_rms_norm_in_place(rows, stream, Branch::default(), params, None, Run::default())?;
/// assert_eq!((residual, x.map(f32::from)), ([1.0, 7.0], [1.0, 7.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn add_rms_norm_in_place<E: Element, R: Companion<E>, P: Companion<E>>(
    x: RowsMut<'_, E>,
    residual: RowsMut<'_, R>,
    branch: Branch<'_, E, P>,
    params: Params<'_, P>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns_mut("rstd", rstd, x.rows())).transpose()?;
    forward(Rooms::in_place(x, residual, branch)?, params, saved, run, Statistics::Uncentred)
}

/// The gradients of [`add_rms_norm`]; see [`add_layer_norm_backward`].
///
/// # Errors
/// As [`add_layer_norm_backward`].
///
/// ```
/// use layernorm::{AddGradients, Params, Rows, RowsMut, Run, Upstream, add_rms_norm_backward};
///
/// let (out, dy, mut dresidual) = ([1.0f64, 7.0], [1.0, 7.0], [0.25, 0.5]);
/// let gradients = AddGradients {
///     upstream: Upstream::InPlace,
///     dresidual: RowsMut::new(&mut dresidual, 2)?,
///     mask: None,
///     dx: None,
///     branch_bias: None,
///     params: None,
/// };
/// let params = Params { eps: 0.0, ..Params::<f64>::default() };
/// add_rms_norm_backward(Rows::new(&out, 2)?, Rows::new(&dy, 2)?, params, None, gradients, Run::default())?;
/// // dy lies along x: the norm lets nothing of it through
/// assert!((dresidual[0] - 0.25).abs() < 1e-15 && (dresidual[1] - 0.5).abs() < 1e-15);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn add_rms_norm_backward<E: Element, R: Companion<E>, P: Companion<E>>(
    out: Rows<'_, R>,
    dy: Rows<'_, E>,
    params: Params<'_, P>,
    rstd: Option<&[E::Acc]>,
    gradients: AddGradients<'_, E, R>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns("rstd", rstd, out.rows())).transpose()?;
    let call = Backward { saved, ..Backward::over(out.shape(), R::mixed(out), dy.source(), params)? };
    dy.shape().expect("dy", out.shape())?;
    backward(call, gradients, run, Statistics::Uncentred)
}

/// The checked memory of a forward call.
struct Rooms<'a, E: Element> {
    shape: Shape,
    add: Add<'a, E>,
    /// `add.out`, to read.
    sum: Mixed<'a, E>,
    y: Target<'a, E>,
    in_place: bool,
    workspace: Option<&'a mut Workspace<E::Acc>>,
}

impl<'a, E: Element> Rooms<'a, E> {
    fn apart<R: Companion<E>, P: Companion<E>>(
        x: Rows<'a, E>,
        of: Residual<'a, E, R, P>,
        y: RowsMut<'a, E>,
    ) -> Result<Self, Error> {
        let shape = x.shape();
        y.shape().expect("y", shape)?;
        of.residual.shape().expect("residual", shape)?;
        of.out.shape().expect("out", shape)?;
        let rooms = Self::new((shape, x.source(), y.target()), R::mixed_in_place(of.out), of.branch)?;
        Ok(Self { add: Add { residual: R::mixed(of.residual), ..rooms.add }, ..rooms })
    }

    fn in_place<R: Companion<E>, P: Companion<E>>(
        x: RowsMut<'a, E>,
        residual: RowsMut<'a, R>,
        branch: Branch<'a, E, P>,
    ) -> Result<Self, Error> {
        let shape = x.shape();
        residual.shape().expect("residual", shape)?;
        let (x, y) = x.in_place();
        Ok(Self { in_place: true, ..Self::new((shape, x, y), R::mixed_in_place(residual), branch)? })
    }

    /// The residual is `sum`, at first.
    fn new<P: Companion<E>>(
        (shape, x, y): (Shape, Source<'a, E>, Target<'a, E>),
        (sum, out): (Mixed<'a, E>, MixedMut<'a, E>),
        branch: Branch<'a, E, P>,
    ) -> Result<Self, Error> {
        let bias = branch.bias.map(|bias| for_all_rows(bias, shape.features)).transpose()?;
        let factor = branch.mask.map(|mask| for_each_row(mask, shape)).transpose()?;
        let narrow = E::NARROW && matches!(out, MixedMut::Own(_));
        let workspace = match branch.normalise {
            Normalise::Unrounded(workspace) if narrow => Some(workspace),
            _ => None,
        };
        let add = Add { branch: x, bias, factor, residual: sum, out, unrounded: None };
        Ok(Self { shape, add, sum, y, in_place: false, workspace })
    }
}

/// One number a feature, the same in all rows.
fn for_all_rows<E: Element, P: Companion<E>>(bias: &[P], features: usize) -> Result<Shared<'_, E>, Error> {
    if bias.len() != features {
        return Err(Error::Length { what: "the branch's bias", expected: features, got: bias.len() });
    }
    Ok(Shared { numbers: P::mixed(Rows::new(bias, features)?), rows: usize::MAX })
}

fn for_each_row<E: Element>(mask: Rows<'_, E>, shape: Shape) -> Result<Shared<'_, E>, Error> {
    mask.shape().expect("mask", shape)?;
    Ok(Shared { numbers: Mixed::Own(mask.source()), rows: 1 })
}

fn forward<'a, E: Element, P: Companion<E>>(
    rooms: Rooms<'a, E>,
    params: Params<'a, P>,
    saved: Option<Columns<Column<'a, E::Acc>>>,
    run: Run,
    statistics: Statistics,
) -> Result<(), Error> {
    let Rooms { shape, mut add, sum, y, in_place, workspace } = rooms;
    let call = Forward { in_place, ..Forward::over(shape, [sum], y, params, saved)? };
    if let Some(workspace) = workspace {
        run.level()?;
        let parts = threads::parts(run.threads(), shape.rows, shape.features);
        let stride = shape.features.next_multiple_of(crate::vector::LINE);
        let len = stride.checked_mul(2 * parts).ok_or(Error::Overflow { rows: 2 * parts, stride })?;
        add.unrounded = Some(Unrounded { memory: Target::every(workspace.room(len), stride), parts });
    }
    Forward { add: Some(add), ..call }.run(statistics, run)
}

fn backward<'a, E: Element, R: Companion<E>>(
    call: Backward<'a, E>,
    gradients: AddGradients<'a, E, R>,
    run: Run,
    statistics: Statistics,
) -> Result<(), Error> {
    let AddGradients { upstream, dresidual, mask, dx, branch_bias, params } = gradients;
    let shape = call.shape;
    dresidual.shape().expect("dresidual", shape)?;
    let factor = mask.map(|mask| for_each_row(mask, shape)).transpose()?;
    if let Some(dx) = &dx {
        dx.shape().expect("dx", shape)?;
    }
    if let Some(bias) = &branch_bias {
        bias.check(shape)?;
    }
    let upstream = upstream.of(shape)?;
    let (read, write) = R::mixed_in_place(dresidual);
    let call = Backward {
        dx: Some(write),
        upstream: upstream.map(|apart| apart.map_or(read, R::mixed)),
        in_place: upstream.is_some_and(|apart| apart.is_none()),
        branch: dx.map(|dx| (dx.target(), factor)),
        ..call
    };
    call.run(statistics, params, run)?;
    match branch_bias {
        Some(bias) => bias.take(ColumnSums { shape, of: read, with: factor }, run),
        None => Ok(()),
    }
}

impl<'a, R> Upstream<'a, R> {
    /// Is there one, and does it stand apart?
    pub(crate) fn of(self, shape: Shape) -> Result<Option<Option<Rows<'a, R>>>, Error> {
        match self {
            Self::Nothing => Ok(None),
            Self::InPlace => Ok(Some(None)),
            Self::Apart(rows) => {
                rows.shape().expect("upstream", shape)?;
                Ok(Some(Some(rows)))
            }
        }
    }
}

impl<T: crate::Real> BiasGradient<'_, T> {
    fn check(&self, shape: Shape) -> Result<(), Error> {
        let (expected, got) = (shape.features, self.dbias.len());
        if got != expected {
            return Err(Error::Length { what: "the gradient of the branch's bias", expected, got });
        }
        match shape.rows.checked_sub(1).map(|last| self.first_row.checked_add(last)) {
            Some(None) => Err(Error::RowIndex { first_row: self.first_row, rows: shape.rows }),
            _ => Ok(()),
        }
    }

    /// The sums, where a mask makes them sums of products.
    fn take<E: Element<Acc = T>>(self, of: ColumnSums<'_, E>, run: Run) -> Result<(), Error> {
        let Self { dbias, accumulate, first_row, workspace } = self;
        let (dweight, dbias) = if of.with.is_some() { (Some(dbias), None) } else { (None, Some(dbias)) };
        let sums = ParamGradients { dweight, dbias, accumulate, first_row, workspace };
        of.run(Sums::OfAll(Some(sums)), run)
    }
}
