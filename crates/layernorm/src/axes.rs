//! Layer norm and RMS norm over any axes of a tensor, with parameters along any axes, and with masks:
//!
//! ```text
//! mu, var over the axes in `over`, of the numbers that are valid
//! y = weight[affine axes] (x - mu) / sqrt(var + eps) + bias[affine axes]
//! ```
//!
//! Formulas are those of `layer_norm.rs` and `rms_norm.rs`; this is where their rows are. Keras's `axis`, Flax's
//! `reduction_axes`, `feature_axes` and `mask` (flax.linen.LayerNorm), ONNX's `axis`.

use crate::affine::Runs;
use crate::by_row::{Columns, Statistics};
use crate::group_norm::Checked;
use crate::images::product;
use crate::over::{Axes, Axis, MOST, Mask, OverBackward, OverForward, Plan};
use crate::rms_norm::{columns, columns_mut};
use crate::rows::{Column, Source, Target};
use crate::{
    Activation, Companion, Element, Error, ParamGradients, Params, Run, StatsMut, StatsRef, TensorGradients,
    Workspace,
};

/// A norm over some axes of a tensor: where the numbers are, what is normalised together, and by which parameters.
///
/// A *row* is what differs along the axes in `over` alone. Rows are in the order of the other axes. Their features are in
/// the order of the axes, those in `over` that have parameters before those that have none. All tensors of a call lie
/// alike.
///
/// ```
/// use layernorm::{OverAxes, Params};
///
/// // ConvNeXt: over the channels of NCHW, with a weight and a bias a channel.
/// let (weight, bias) = ([1.0f32; 96], [0.0f32; 96]);
/// let params = Params { weight: Some(&weight), bias: Some(&bias), eps: 1e-6 };
/// let norm = OverAxes { shape: &[8, 96, 56, 56], strides: None, over: &[1], affine: &[1], params, mask: None };
/// # assert_eq!(norm.over, norm.affine);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct OverAxes<'a, P> {
    /// Sizes of the axes: at most 16.
    pub shape: &'a [usize],
    /// How far apart in memory neighbours along each axis are. `None`: row-major, without holes.
    pub strides: Option<&'a [usize]>,
    /// The axes that statistics are taken over.
    pub over: &'a [usize],
    /// The axes that parameters have, which may be others. A weight or a bias is absent, one number, or row-major over
    /// these axes in their order in `shape`.
    pub affine: &'a [usize],
    /// Weight, bias and epsilon.
    pub params: Params<'a, P>,
    /// Which numbers take part in the statistics.
    pub mask: Option<AxesMask<'a>>,
}

/// Which numbers of a tensor take part in the statistics. The others are normalised by them all the same, as in Flax.
///
/// In a row of which no number is valid there is nothing to normalise by: its y is the bias, its dx 0, its statistics 0.
///
/// ```
/// use layernorm::AxesMask;
///
/// // (batch, time, channels): the second sequence is one step long.
/// let mask = AxesMask { valid: &[true, true, true, false], strides: &[2, 1, 0] };
/// # assert_eq!(mask.strides.len(), 3);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct AxesMask<'a> {
    /// true where a number takes part.
    pub valid: &'a [bool],
    /// How far apart in `valid` neighbours along each axis of the tensor are: 0 along an axis that the mask lacks.
    pub strides: &'a [usize],
}

impl<'a, P> OverAxes<'a, P> {
    /// Where the numbers are, and how many of a slice they need.
    fn plan(&self) -> Result<(Plan, usize), Error> {
        let Self { shape, over, affine, .. } = *self;
        let got = shape.len();
        if got > MOST {
            return Err(Error::Axes { most: MOST, got });
        }
        for axes in [over, affine] {
            for (i, axis) in axes.iter().enumerate() {
                if *axis >= got || axes[..i].contains(axis) {
                    return Err(Error::Axis { axis: *axis, rank: got });
                }
            }
        }
        let size = || Error::Size { axes: shape.to_vec() };
        let len = product(shape).ok_or_else(size)?;
        let mut strides = contiguous(shape, |_| true);
        let mut extent = len;
        if let Some(given) = self.strides {
            expect("strides", got, given.len())?;
            strides[..got].copy_from_slice(given);
            extent = if len == 0 { 0 } else { reach(shape, given).ok_or_else(size)? };
            apart(shape, given)?;
        }
        let (is_over, is_affine) = (|axis| over.contains(&axis), |axis| affine.contains(&axis));
        let count = |keep: &dyn Fn(usize) -> bool| -> usize {
            (0..got).filter(|axis| keep(*axis)).map(|axis| shape[axis]).product()
        };
        let [outer, inner] = self.rows_of(&strides);
        let of_params = contiguous(shape, is_affine);
        let is_sample = |axis| !is_over(axis) && !is_affine(axis);
        let run = count(&|axis| is_over(axis) && !is_affine(axis));
        let plan = Plan {
            rows: count(&|axis| !is_over(axis)),
            features: count(&is_over),
            outer,
            inner,
            runs: Runs { run, per_row: count(&|axis| is_over(axis) && is_affine(axis)) },
            params: count(&is_affine),
            first_param: self.some(&of_params, |axis| !is_over(axis)),
            param_of_run: self.some(&of_params, |axis| is_over(axis) && is_affine(axis)),
            sample: self.some(&contiguous(shape, is_sample), |axis| !is_over(axis)),
            samples: count(&is_sample),
            by_feature: run == 1 && affine.iter().all(|axis| is_over(*axis)),
        };
        Ok((plan, extent))
    }

    /// The plan, once it is sure that these arguments have the numbers that it leads to.
    fn checked(&self, arguments: &[(&'static str, usize)]) -> Result<Plan, Error> {
        let (plan, extent) = self.plan()?;
        for (what, got) in arguments {
            if self.strides.is_none() || *got < extent {
                expect(what, extent, *got)?;
            }
        }
        Ok(plan)
    }

    /// The mask over the plan's rows.
    fn mask(&self) -> Result<Option<Mask<'a>>, Error> {
        let (shape, Some(AxesMask { valid, strides })) = (self.shape, self.mask) else { return Ok(None) };
        expect("the mask's strides", shape.len(), strides.len())?;
        let size = || Error::Size { axes: shape.to_vec() };
        let extent = if shape.contains(&0) { 0 } else { reach(shape, strides).ok_or_else(size)? };
        if valid.len() < extent {
            return Err(Error::Length { what: "mask", expected: extent, got: valid.len() });
        }
        let [outer, inner] = self.rows_of(strides);
        Ok(Some(Mask { valid, outer, inner }))
    }

    /// Some of the axes.
    fn some(&self, strides: &[usize], keep: impl Fn(usize) -> bool) -> Axes {
        let axis = |axis: usize| Axis { size: self.shape[axis], stride: strides[axis] };
        Axes::of((0..self.shape.len()).filter(|axis| keep(*axis)).map(axis))
    }

    /// The axes of rows, and those of features: of those without parameters last, so that features that share one
    /// follow each other.
    fn rows_of(&self, strides: &[usize]) -> [Axes; 2] {
        let (is_over, is_affine) = (|axis| self.over.contains(&axis), |axis| self.affine.contains(&axis));
        let axis = |axis: usize| Axis { size: self.shape[axis], stride: strides[axis] };
        let all = 0..self.shape.len();
        let first = all.clone().filter(|axis| is_over(*axis) && is_affine(*axis));
        let last = all.filter(|axis| is_over(*axis) && !is_affine(*axis));
        [self.some(strides, |axis| !is_over(axis)), Axes::of(first.chain(last).map(axis))]
    }

    fn forward<E: Element>(
        &self,
        statistics: Statistics,
        (plan, (x, y, in_place)): (Plan, (Source<'a, E>, Target<'a, E>, bool)),
        saved: Option<Columns<Column<'a, E::Acc>>>,
    ) -> Result<OverForward<'a, E>, Error>
    where
        P: Companion<E>,
    {
        let Checked { weight, bias, form } = Checked::new(&self.params, &plan)?;
        let (activation, mask) = (Activation::None, self.mask()?);
        Ok(OverForward { plan, statistics, x, y, in_place, weight, bias, form, saved, activation, mask })
    }

    fn backward<E: Element>(
        &self,
        statistics: Statistics,
        (plan, x, dy): (Plan, Source<'a, E>, Source<'a, E>),
        (dx, in_place): (Option<Target<'a, E>>, bool),
        saved: Option<Columns<&'a [E::Acc]>>,
        (params, run): (ParamGradients<'_, E::Acc>, Run),
    ) -> Result<(), Error>
    where
        P: Companion<E>,
    {
        let Checked { weight, bias, form } = Checked::new(&self.params, &plan)?;
        let (activation, mask) = (Activation::None, self.mask()?);
        params.check(plan.params)?;
        let first = params.wanted().then_some(params.first_row);
        let call = OverBackward {
            plan,
            statistics,
            x,
            dy,
            dx,
            in_place,
            weight,
            bias,
            form,
            saved,
            activation,
            mask,
            first,
        };
        call.run(params, run)
    }
}

fn expect(what: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}

/// Row-major strides over some axes; 0 along the others.
fn contiguous(shape: &[usize], keep: impl Fn(usize) -> bool) -> [usize; MOST] {
    let (mut strides, mut stride) = ([0; MOST], 1usize);
    for axis in (0..shape.len()).rev().filter(|axis| keep(*axis)) {
        strides[axis] = stride;
        stride = stride.wrapping_mul(shape[axis].max(1));
    }
    strides
}

/// Numbers from the first to the last of a tensor without an axis of size 0.
fn reach(shape: &[usize], strides: &[usize]) -> Option<usize> {
    shape.iter().zip(strides).try_fold(1usize, |reach, (size, stride)| {
        reach.checked_add((size - 1).checked_mul(*stride)?).filter(|reach| isize::try_from(*reach).is_ok())
    })
}

/// Are no two numbers in one place?
fn apart(shape: &[usize], strides: &[usize]) -> Result<(), Error> {
    let mut axes = [(0, 1); MOST];
    for (axis, of) in axes.iter_mut().zip(strides.iter().copied().zip(shape.iter().copied())) {
        *axis = of;
    }
    axes.sort_unstable();
    let mut reach = 1usize;
    for (stride, size) in axes.into_iter().filter(|(_, size)| *size > 1) {
        if stride < reach {
            return Err(Error::Stride { stride, features: reach });
        }
        reach = reach.saturating_add((size - 1).saturating_mul(stride));
    }
    Ok(())
}

/// Layer norm of `x` over any of its axes, into `y`: y = weight (x - mean) / sqrt(var + eps) + bias, where mean and
/// variance are those of the numbers that differ along `norm.over` alone, and weight and bias go along `norm.affine`.
///
/// The statistics go to `saved`, one entry a row. Over trailing axes the rows are normalised where they lie, with the bits
/// of [`layer_norm`](crate::layer_norm); over others they are gathered into tiles in the workspace, which grows
/// (allocates) where it is too small. Nothing else is allocated. With a mask, rows are done one by one, and those of
/// which only some numbers are valid more slowly.
///
/// Source: Ba, Kiros, Hinton 2016, arXiv:1607.06450, equation 3; masks as in Flax.
///
/// # Errors
/// Before anything is written: [`Error::Axes`], [`Error::Axis`], [`Error::Size`], [`Error::Stride`] (numbers in one
/// place), [`Error::Length`], [`Error::Epsilon`], [`Error::Level`], [`Error::Overflow`].
///
/// ```
/// use layernorm::{OverAxes, Params, Run, Workspace, layer_norm_axes};
///
/// // Two channels of two positions, over the channels.
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// let norm = OverAxes { shape: &[1, 2, 2], strides: None, over: &[1], affine: &[1], params, mask: None };
/// let mut y = [0.0f32; 4];
/// layer_norm_axes(norm, &[1.0, 20.0, 3.0, 10.0], &mut y, None, &mut Workspace::new(), Run::default())?;
/// assert_eq!(y, [-1.0, 1.0, 1.0, -1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn layer_norm_axes<E: Element, P: Companion<E>>(
    norm: OverAxes<'_, P>,
    x: &[E],
    y: &mut [E],
    saved: Option<StatsMut<'_, E::Acc>>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let plan = norm.checked(&[("x", x.len()), ("y", y.len())])?;
    let saved = saved.map(|saved| saved.columns(plan.rows)).transpose()?;
    let rows = (Source::numbers(x), Target::every(y, 1), false);
    norm.forward(Statistics::Centred, (plan, rows), saved)?.run(workspace, run)
}

/// [`layer_norm_axes`] in place. The same bits.
///
/// # Errors
/// As [`layer_norm_axes`].
///
/// ```
/// use layernorm::{OverAxes, Params, Run, Workspace, layer_norm_axes_in_place};
///
/// let params = Params { eps: 0.0, ..Params::<f64>::default() };
/// let norm = OverAxes { shape: &[2, 2], strides: None, over: &[0], affine: &[], params, mask: None };
/// let mut x = [1.0f64, 20.0, 3.0, 10.0];
/// layer_norm_axes_in_place(norm, &mut x, None, &mut Workspace::new(), Run::default())?;
/// assert_eq!(x, [-1.0, 1.0, 1.0, -1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn layer_norm_axes_in_place<E: Element, P: Companion<E>>(
    norm: OverAxes<'_, P>,
    x: &mut [E],
    saved: Option<StatsMut<'_, E::Acc>>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let plan = norm.checked(&[("x", x.len())])?;
    let saved = saved.map(|saved| saved.columns(plan.rows)).transpose()?;
    let (x, y) = Target::both(x);
    norm.forward(Statistics::Centred, (plan, (x, y, true)), saved)?.run(workspace, run)
}

/// The gradients of [`layer_norm_axes`], given that of its output.
///
/// `saved` holds the statistics of the forward pass; without them they are taken from `x` once more. Where each feature
/// of a row has its own parameters, the same in all rows, dweight and dbias are those of
/// [`layer_norm_backward`](crate::layer_norm_backward), and `first_row` is a row. Otherwise a row first gives the sum of
/// the features that share a parameter, and rows that share it are summed then, as for
/// [`group_norm_backward`](crate::group_norm_backward): `first_row` counts among those. With a mask, the gradient of a
/// number that takes no part in the statistics reaches the others through them.
///
/// # Errors
/// As [`layer_norm_axes`], and [`Error::RowIndex`].
///
/// ```
/// use layernorm::{OverAxes, ParamGradients, Params, Run, TensorGradients, Workspace, layer_norm_axes_backward};
///
/// let params = Params::<f64>::default();
/// let norm = OverAxes { shape: &[3, 2], strides: None, over: &[0], affine: &[1], params, mask: None };
/// let (mut dx, mut dbias, mut workspace) = ([0.0; 6], [0.0; 2], Workspace::new());
/// let params = ParamGradients {
///     dweight: None,
///     dbias: Some(&mut dbias),
///     accumulate: false,
///     first_row: 0,
///     workspace: &mut workspace,
/// };
/// let (x, dy) = ([1.0, 0.0, 2.0, 0.0, 4.0, 1.0], [1.0, 2.0, 0.0, 2.0, 0.0, 2.0]);
/// let wanted = TensorGradients { dx: Some(&mut dx), params };
/// layer_norm_axes_backward(norm, &x, &dy, None, wanted, Run::default())?;
/// assert_eq!(dbias, [1.0, 6.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn layer_norm_axes_backward<E: Element, P: Companion<E>>(
    norm: OverAxes<'_, P>,
    x: &[E],
    dy: &[E],
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: TensorGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let TensorGradients { dx, params } = gradients;
    let of_dx = dx.as_deref().map_or(("dy", dy.len()), |dx| ("dx", dx.len()));
    let plan = norm.checked(&[("x", x.len()), ("dy", dy.len()), of_dx])?;
    let saved = saved.map(|saved| saved.columns(plan.rows)).transpose()?;
    let (of, dx) = ((plan, Source::numbers(x), Source::numbers(dy)), dx.map(|dx| Target::every(dx, 1)));
    norm.backward(Statistics::Centred, of, (dx, false), saved, (params, run))
}

/// [`layer_norm_axes_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`layer_norm_axes_backward`].
///
/// ```
/// use layernorm::{OverAxes, ParamGradients, Params, Run, Workspace, layer_norm_axes_backward_in_place};
///
/// let params = Params::<f64>::default();
/// let norm = OverAxes { shape: &[2, 1], strides: None, over: &[1], affine: &[1], params, mask: None };
/// let (mut dy, mut workspace) = ([3.0, 4.0], Workspace::new());
/// let params =
///     ParamGradients { dweight: None, dbias: None, accumulate: false, first_row: 0, workspace: &mut workspace };
/// layer_norm_axes_backward_in_place(norm, &[1.0, 2.0], &mut dy, None, params, Run::default())?;
/// assert_eq!(dy, [0.0, 0.0]); // rows of one number
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn layer_norm_axes_backward_in_place<E: Element, P: Companion<E>>(
    norm: OverAxes<'_, P>,
    x: &[E],
    dy: &mut [E],
    saved: Option<StatsRef<'_, E::Acc>>,
    params: ParamGradients<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let plan = norm.checked(&[("x", x.len()), ("dy", dy.len())])?;
    let saved = saved.map(|saved| saved.columns(plan.rows)).transpose()?;
    let (dy, dx) = Target::both(dy);
    norm.backward(Statistics::Centred, (plan, Source::numbers(x), dy), (Some(dx), true), saved, (params, run))
}

/// RMS norm of `x` over any of its axes, into `y`: y = weight x / sqrt(mean(x^2) + eps) + bias, as [`layer_norm_axes`].
///
/// 1 / sqrt(mean(x^2) + eps) of each row goes to `rstd`.
///
/// Source: Zhang, Sennrich 2019, arXiv:1910.07467, equation 4.
///
/// # Errors
/// As [`layer_norm_axes`].
///
/// ```
/// use layernorm::{AxesMask, OverAxes, Params, Run, Workspace, rms_norm_axes};
///
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// let mask = Some(AxesMask { valid: &[true, true, false], strides: &[0, 1] });
/// let norm = OverAxes { shape: &[1, 3], strides: None, over: &[1], affine: &[1], params, mask };
/// let mut y = [0.0f32; 3];
/// rms_norm_axes(norm, &[2.0, -2.0, 8.0], &mut y, None, &mut Workspace::new(), Run::default())?;
/// assert_eq!(y, [1.0, -1.0, 4.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn rms_norm_axes<E: Element, P: Companion<E>>(
    norm: OverAxes<'_, P>,
    x: &[E],
    y: &mut [E],
    rstd: Option<&mut [E::Acc]>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let plan = norm.checked(&[("x", x.len()), ("y", y.len())])?;
    let saved = rstd.map(|rstd| columns_mut("rstd", rstd, plan.rows)).transpose()?;
    let rows = (Source::numbers(x), Target::every(y, 1), false);
    norm.forward(Statistics::Uncentred, (plan, rows), saved)?.run(workspace, run)
}

/// [`rms_norm_axes`] in place. The same bits.
///
/// # Errors
/// As [`layer_norm_axes`].
///
/// ```
/// use layernorm::{OverAxes, Params, Run, Workspace, rms_norm_axes_in_place};
///
/// let params = Params { eps: 0.0, ..Params::<f64>::default() };
/// let norm = OverAxes { shape: &[2, 2], strides: None, over: &[0], affine: &[], params, mask: None };
/// let mut x = [3.0f64, 2.0, -3.0, 2.0];
/// rms_norm_axes_in_place(norm, &mut x, None, &mut Workspace::new(), Run::default())?;
/// assert_eq!(x, [1.0, 1.0, -1.0, 1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn rms_norm_axes_in_place<E: Element, P: Companion<E>>(
    norm: OverAxes<'_, P>,
    x: &mut [E],
    rstd: Option<&mut [E::Acc]>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let plan = norm.checked(&[("x", x.len())])?;
    let saved = rstd.map(|rstd| columns_mut("rstd", rstd, plan.rows)).transpose()?;
    let (x, y) = Target::both(x);
    norm.forward(Statistics::Uncentred, (plan, (x, y, true)), saved)?.run(workspace, run)
}

/// The gradients of [`rms_norm_axes`], as [`layer_norm_axes_backward`].
///
/// # Errors
/// As [`layer_norm_axes_backward`].
///
/// ```
/// use layernorm::{OverAxes, ParamGradients, Params, Run, TensorGradients, Workspace, rms_norm_axes_backward};
///
/// let params = Params { eps: 0.0, ..Params::<f64>::default() };
/// let norm = OverAxes { shape: &[2, 1], strides: None, over: &[0], affine: &[0], params, mask: None };
/// let (mut dweight, mut workspace) = ([0.0; 2], Workspace::new());
/// let params = ParamGradients {
///     dweight: Some(&mut dweight),
///     dbias: None,
///     accumulate: false,
///     first_row: 0,
///     workspace: &mut workspace,
/// };
/// let wanted = TensorGradients { dx: None, params };
/// rms_norm_axes_backward(norm, &[2.0, -2.0], &[1.0, 3.0], None, wanted, Run::default())?;
/// assert_eq!(dweight, [1.0, -3.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn rms_norm_axes_backward<E: Element, P: Companion<E>>(
    norm: OverAxes<'_, P>,
    x: &[E],
    dy: &[E],
    rstd: Option<&[E::Acc]>,
    gradients: TensorGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let TensorGradients { dx, params } = gradients;
    let of_dx = dx.as_deref().map_or(("dy", dy.len()), |dx| ("dx", dx.len()));
    let plan = norm.checked(&[("x", x.len()), ("dy", dy.len()), of_dx])?;
    let saved = rstd.map(|rstd| columns("rstd", rstd, plan.rows)).transpose()?;
    let (of, dx) = ((plan, Source::numbers(x), Source::numbers(dy)), dx.map(|dx| Target::every(dx, 1)));
    norm.backward(Statistics::Uncentred, of, (dx, false), saved, (params, run))
}

/// [`rms_norm_axes_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`layer_norm_axes_backward`].
///
/// ```
/// use layernorm::{OverAxes, ParamGradients, Params, Run, Workspace, rms_norm_axes_backward_in_place};
///
/// let params = Params { eps: 0.0, ..Params::<f64>::default() };
/// let norm = OverAxes { shape: &[1, 2], strides: None, over: &[1], affine: &[1], params, mask: None };
/// let (mut dy, mut workspace) = ([1.0, 1.0], Workspace::new());
/// let params =
///     ParamGradients { dweight: None, dbias: None, accumulate: false, first_row: 0, workspace: &mut workspace };
/// rms_norm_axes_backward_in_place(norm, &[2.0, 2.0], &mut dy, None, params, Run::default())?;
/// assert_eq!(dy, [0.0, 0.0]); // a row can't be moved along itself
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn rms_norm_axes_backward_in_place<E: Element, P: Companion<E>>(
    norm: OverAxes<'_, P>,
    x: &[E],
    dy: &mut [E],
    rstd: Option<&[E::Acc]>,
    params: ParamGradients<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let plan = norm.checked(&[("x", x.len()), ("dy", dy.len())])?;
    let saved = rstd.map(|rstd| columns("rstd", rstd, plan.rows)).transpose()?;
    let (dy, dx) = Target::both(dy);
    norm.backward(
        Statistics::Uncentred,
        (plan, Source::numbers(x), dy),
        (Some(dx), true),
        saved,
        (params, run),
    )
}
