//! Adaptive norm: a layer or RMS norm whose weight and bias come from a condition, one pair a sample. AdaLN, `modulate`
//! (Peebles, Xie 2022, arXiv:2212.09748), FiLM (Perez et al. 2017, arXiv:1709.07871):
//!
//! ```text
//! y = x_hat (1 + scale[s]) + shift[s]          for each row of sample s
//!
//! dx        = the norm's dx, from weight 1 + scale[s]
//! dscale[s] = sum over the rows of s of dy x_hat       dshift[s] = sum over the rows of s of dy
//! ```
//!
//! The rows of a sample follow each other, and samples have as many each. A sample's sums count its rows from 0, so
//! they are dweight and dbias of a call with its rows alone.

use crate::affine::{Affine, Entry};
use crate::by_row::groups::{GroupSums, Groups};
use crate::by_row::{Columns, Statistics, backward::Backward, forward::Forward};
use crate::rms_norm::{columns, columns_mut};
use crate::rows::{Column, Shape, Target};
use crate::{Companion, Element, Error, Params, Real, Rows, RowsMut, Run, StatsMut, StatsRef, Workspace};

/// Scale and shift of samples, and epsilon: what an adaptive norm has in the place of weight and bias.
///
/// There are as many samples as `scale` has rows, and so many divide the rows of x. Scale and shift may be strided
/// views: of what one linear layer gives for all of a block's parameters, say.
///
/// ```
/// use layernorm::{Modulation, Rows, ScaleIs};
///
/// // Shift and scale of two samples side by side.
/// let of_condition = [0.5f32, 0.5, 1.0, 1.0, 0.0, 0.0, 2.0, 2.0];
/// let modulation = Modulation {
///     scale: Rows::strided(&of_condition[2..], 2, 2, 4)?,
///     shift: Some(Rows::strided(&of_condition, 2, 2, 4)?),
///     scale_is: ScaleIs::AboveOne,
///     eps: 1e-6,
/// };
/// assert_eq!(modulation.scale.row(1), Some(&[2.0, 2.0][..]));
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Modulation<'a, P> {
    /// (samples, features), in the elements' type or, beside halves, in f32.
    pub scale: Rows<'a, P>,
    /// (samples, features). Absent means 0. A backward pass does not read it.
    pub shift: Option<Rows<'a, P>>,
    /// What x_hat is multiplied by.
    pub scale_is: ScaleIs,
    /// Added under the root, as in [`Params`].
    pub eps: f64,
}

/// What x_hat is multiplied by, given a scale.
///
/// ```
/// assert_eq!(layernorm::ScaleIs::default(), layernorm::ScaleIs::AboveOne);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ScaleIs {
    /// 1 + scale, as in AdaLN: a scale of 0 leaves the norm as it is.
    #[default]
    AboveOne,
    /// The scale, as in FiLM.
    Whole,
}

/// Which gradients of scale and shift an adaptive norm is to write: sums over the rows of each sample.
///
/// ```
/// use layernorm::{ModulationGradients, RowsMut, Workspace};
///
/// let (mut dscale, mut workspace) = ([0.0f32; 8], Workspace::new());
/// let _ = ModulationGradients {
///     dscale: Some(RowsMut::new(&mut dscale, 4)?),
///     dshift: None,
///     accumulate: false,
///     workspace: &mut workspace,
/// };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct ModulationGradients<'a, T> {
    /// (samples, features), in the type that sums have.
    pub dscale: Option<RowsMut<'a, T>>,
    /// (samples, features).
    pub dshift: Option<RowsMut<'a, T>>,
    /// Add the finished totals to what the gradients hold, instead of replacing it.
    pub accumulate: bool,
    /// Memory for partial sums. It grows (allocates) when it is too small and is kept for the next call.
    pub workspace: &'a mut Workspace<T>,
}

/// Which gradients the backward pass of an adaptive norm is to write.
///
/// ```
/// use layernorm::{AdaGradients, RowsMut};
///
/// let mut dx = [0.0f32; 8];
/// let frozen = AdaGradients { dx: Some(RowsMut::new(&mut dx, 4)?), modulation: None };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct AdaGradients<'a, E: Element> {
    /// Gradient of the input.
    pub dx: Option<RowsMut<'a, E>>,
    /// Gradients of scale and shift.
    pub modulation: Option<ModulationGradients<'a, E::Acc>>,
}

/// Layer norm of each row of `x`, with the scale and shift of its sample: y = x_hat (1 + scale) + shift.
///
/// `x` and `y` are (samples x positions, features), the samples one after the other; scale and shift are (samples,
/// features). The statistics go to `saved`. Nothing is allocated. Where all samples have scale 0 and shift 0 these are
/// the bits of [`layer_norm`](crate::layer_norm) with weight 1 and bias 0.
///
/// # Errors
/// Before anything is written: [`Error::Samples`] where the samples do not divide the rows, [`Error::Shape`],
/// [`Error::Length`], [`Error::Epsilon`], [`Error::Level`].
///
/// ```
/// use layernorm::{Modulation, Rows, RowsMut, Run, ScaleIs, ada_layer_norm};
///
/// let x = [1.0f32, 3.0, 1.0, 3.0]; // two samples of one position
/// let modulation = Modulation {
///     scale: Rows::new(&[0.0, 0.0, 1.0, 1.0], 2)?,
///     shift: Some(Rows::new(&[0.0, 0.0, 5.0, 5.0], 2)?),
///     scale_is: ScaleIs::AboveOne,
///     eps: 0.0,
/// };
/// let mut y = [0.0; 4];
/// ada_layer_norm(Rows::new(&x, 2)?, modulation, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!(y, [-1.0, 1.0, 3.0, 7.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn ada_layer_norm<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    modulation: Modulation<'_, P>,
    y: RowsMut<'_, E>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    forward(x, modulation, y, saved)?.run(Statistics::Centred, run)
}

/// [`ada_layer_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm::{Modulation, Rows, RowsMut, Run, ScaleIs, ada_layer_norm_in_place};
///
/// let mut x = [1.0f64, 3.0];
/// let scale = Rows::new(&[2.0, 3.0], 2)?;
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::Whole, eps: 0.0 };
/// ada_layer_norm_in_place(RowsMut::new(&mut x, 2)?, modulation, None, Run::default())?;
/// assert_eq!(x, [-2.0, 3.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn ada_layer_norm_in_place<E: Element, P: Companion<E>>(
    x: RowsMut<'_, E>,
    modulation: Modulation<'_, P>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    forward_in_place(x, modulation, saved)?.run(Statistics::Centred, run)
}

/// The gradients of [`ada_layer_norm`], given that of its output.
///
/// `saved` holds the statistics of the forward pass; without them they are taken from `x` once more. The gradients of
/// scale and shift need a workspace, which allocates where it is too small; nothing else does. They have the bits of
/// dweight and dbias of [`layer_norm_backward`](crate::layer_norm_backward) over the sample's rows.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm::{
///     AdaGradients, Modulation, ModulationGradients, Rows, RowsMut, Run, ScaleIs, Workspace,
///     ada_layer_norm_backward,
/// };
///
/// let (x, dy) = ([1.0f64, 3.0, 2.0, 8.0], [1.0, 0.0, 1.0, 1.0]); // one sample of two positions
/// let (mut dscale, mut dshift, mut workspace) = ([0.0; 2], [0.0; 2], Workspace::new());
/// let scale = Rows::new(&[0.0, 0.0], 2)?;
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 0.0 };
/// let of_modulation = ModulationGradients {
///     dscale: Some(RowsMut::new(&mut dscale, 2)?),
///     dshift: Some(RowsMut::new(&mut dshift, 2)?),
///     accumulate: false,
///     workspace: &mut workspace,
/// };
/// let gradients = AdaGradients { dx: None, modulation: Some(of_modulation) };
/// ada_layer_norm_backward(Rows::new(&x, 2)?, Rows::new(&dy, 2)?, modulation, None, gradients, Run::default())?;
/// assert_eq!((dscale, dshift), ([-2.0, 1.0], [2.0, 1.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn ada_layer_norm_backward<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: Rows<'_, E>,
    modulation: Modulation<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: AdaGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    backward(x, dy, modulation, saved, gradients)?.run(Statistics::Centred, run)
}

/// [`ada_layer_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm::{Modulation, Rows, RowsMut, Run, ScaleIs, ada_layer_norm_backward_in_place};
///
/// let mut dy = [1.0f64, 1.0, 1.0];
/// let (x, scale) = (Rows::new(&[1.0, 2.0, 4.0], 3)?, Rows::new(&[0.0; 3], 3)?);
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 1e-6 };
/// ada_layer_norm_backward_in_place(x, RowsMut::new(&mut dy, 3)?, modulation, None, None, Run::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn ada_layer_norm_backward_in_place<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: RowsMut<'_, E>,
    modulation: Modulation<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: Option<ModulationGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    backward_in_place(x, dy, modulation, saved, gradients)?.run(Statistics::Centred, run)
}

/// RMS norm of each row of `x`, with the scale and shift of its sample. As [`ada_layer_norm`] otherwise.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm::{Modulation, Rows, RowsMut, Run, ScaleIs, ada_rms_norm};
///
/// let (x, mut y) = ([1.0f32, 7.0], [0.0; 2]);
/// let scale = Rows::new(&[4.0, 4.0], 2)?;
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 0.0 };
/// ada_rms_norm(Rows::new(&x, 2)?, modulation, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!(y, [1.0, 7.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn ada_rms_norm<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    modulation: Modulation<'_, P>,
    y: RowsMut<'_, E>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns_mut("rstd", rstd, x.rows())).transpose()?;
    forward(x, modulation, y, saved)?.run(Statistics::Uncentred, run)
}

/// [`ada_rms_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm::{Modulation, Rows, RowsMut, Run, ScaleIs, ada_rms_norm_in_place};
///
/// let mut x = [1.0f32, 7.0];
/// let scale = Rows::new(&[5.0, 5.0], 2)?;
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::Whole, eps: 0.0 };
/// ada_rms_norm_in_place(RowsMut::new(&mut x, 2)?, modulation, None, Run::default())?;
/// assert_eq!(x, [1.0, 7.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn ada_rms_norm_in_place<E: Element, P: Companion<E>>(
    x: RowsMut<'_, E>,
    modulation: Modulation<'_, P>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns_mut("rstd", rstd, x.rows())).transpose()?;
    forward_in_place(x, modulation, saved)?.run(Statistics::Uncentred, run)
}

/// The gradients of [`ada_rms_norm`]; see [`ada_layer_norm_backward`].
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm::{AdaGradients, Modulation, Rows, RowsMut, Run, ScaleIs, ada_rms_norm_backward};
///
/// let (x, dy, mut dx) = ([1.0f64, 7.0], [7.0, -1.0], [0.0; 2]);
/// let scale = Rows::new(&[4.0, 4.0], 2)?;
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 0.0 };
/// let gradients = AdaGradients { dx: Some(RowsMut::new(&mut dx, 2)?), modulation: None };
/// ada_rms_norm_backward(Rows::new(&x, 2)?, Rows::new(&dy, 2)?, modulation, None, gradients, Run::default())?;
/// assert!((dx[0] - 7.0).abs() < 1e-14); // across x, and so all of it
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn ada_rms_norm_backward<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: Rows<'_, E>,
    modulation: Modulation<'_, P>,
    rstd: Option<&[E::Acc]>,
    gradients: AdaGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns("rstd", rstd, x.rows())).transpose()?;
    backward(x, dy, modulation, saved, gradients)?.run(Statistics::Uncentred, run)
}

/// [`ada_rms_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm::{Modulation, Rows, RowsMut, Run, ScaleIs, ada_rms_norm_backward_in_place};
///
/// let mut dy = [1.0f64, 7.0];
/// let (x, scale) = (Rows::new(&[1.0, 7.0], 2)?, Rows::new(&[0.0; 2], 2)?);
/// let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 0.0 };
/// ada_rms_norm_backward_in_place(x, RowsMut::new(&mut dy, 2)?, modulation, None, None, Run::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn ada_rms_norm_backward_in_place<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: RowsMut<'_, E>,
    modulation: Modulation<'_, P>,
    rstd: Option<&[E::Acc]>,
    gradients: Option<ModulationGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns("rstd", rstd, x.rows())).transpose()?;
    backward_in_place(x, dy, modulation, saved, gradients)?.run(Statistics::Uncentred, run)
}

fn forward<'a, E: Element, P: Companion<E>>(
    x: Rows<'a, E>,
    modulation: Modulation<'a, P>,
    y: RowsMut<'a, E>,
    saved: Option<Columns<Column<'a, E::Acc>>>,
) -> Result<Forward<'a, E>, Error> {
    let [weight, bias] = modulation.affine(x.shape())?;
    Ok(Forward { weight, bias, ..Forward::new(x, modulation.params(), y, saved)? })
}

fn forward_in_place<'a, E: Element, P: Companion<E>>(
    x: RowsMut<'a, E>,
    modulation: Modulation<'a, P>,
    saved: Option<Columns<Column<'a, E::Acc>>>,
) -> Result<Forward<'a, E>, Error> {
    let [weight, bias] = modulation.affine(x.shape())?;
    Ok(Forward { weight, bias, ..Forward::in_place(x, modulation.params(), saved)? })
}

/// A checked backward call, and its sums.
struct WithSums<'a, E: Element>(Backward<'a, E>, Option<GroupSums<'a, E::Acc>>);

impl<E: Element> WithSums<'_, E> {
    fn run(self, statistics: Statistics, run: Run) -> Result<(), Error> {
        self.0.run_in_groups(statistics, self.1, run)
    }
}

fn backward<'a, E: Element, P: Companion<E>>(
    x: Rows<'a, E>,
    dy: Rows<'a, E>,
    modulation: Modulation<'a, P>,
    saved: Option<Columns<&'a [E::Acc]>>,
    gradients: AdaGradients<'a, E>,
) -> Result<WithSums<'a, E>, Error> {
    let ([weight, _], shape) = (modulation.affine(x.shape())?, x.shape());
    let call = Backward { weight, ..Backward::new(x, dy, modulation.params(), saved, gradients.dx)? };
    Ok(WithSums(call, modulation.sums(gradients.modulation, shape)?))
}

fn backward_in_place<'a, E: Element, P: Companion<E>>(
    x: Rows<'a, E>,
    dy: RowsMut<'a, E>,
    modulation: Modulation<'a, P>,
    saved: Option<Columns<&'a [E::Acc]>>,
    gradients: Option<ModulationGradients<'a, E::Acc>>,
) -> Result<WithSums<'a, E>, Error> {
    let ([weight, _], shape) = (modulation.affine(x.shape())?, x.shape());
    let call = Backward { weight, ..Backward::in_place(x, dy, modulation.params(), saved)? };
    Ok(WithSums(call, modulation.sums(gradients, shape)?))
}

/// How many rows each of `samples` has.
pub(crate) fn rows_of_samples(rows: usize, samples: usize) -> Result<usize, Error> {
    match rows.checked_rem(samples) {
        Some(0) => Ok(rows / samples),
        None if rows == 0 => Ok(0),
        _ => Err(Error::Samples { rows, samples }),
    }
}

impl<'a, P> Modulation<'a, P> {
    /// Its epsilon, as a norm without weight and bias has it.
    pub(crate) fn params(&self) -> Params<'a, P> {
        Params { eps: self.eps, ..Params::default() }
    }

    /// Scale and shift for rows of this shape, checked.
    pub(crate) fn affine<E: Element>(&self, shape: Shape) -> Result<[Affine<'a, E>; 2], Error>
    where
        P: Companion<E>,
    {
        let of_samples = shape.with_rows(self.scale.rows());
        self.scale.shape().expect("scale", of_samples)?;
        if let Some(shift) = self.shift {
            shift.shape().expect("shift", of_samples)?;
        }
        let entry = Entry::Every(rows_of_samples(shape.rows, of_samples.rows)?.max(1));
        let offset = (self.scale_is == ScaleIs::AboveOne).then_some(1.0);
        Ok([
            Affine::of_rows(Some(self.scale), 1.0, offset, entry),
            Affine::of_rows(self.shift, -0.0, None, entry),
        ])
    }

    /// The sums for its gradients, checked.
    pub(crate) fn sums<T: Real>(
        &self,
        gradients: Option<ModulationGradients<'a, T>>,
        shape: Shape,
    ) -> Result<Option<GroupSums<'a, T>>, Error> {
        let Some(gradients) = gradients else { return Ok(None) };
        let ModulationGradients { dscale, dshift, accumulate, workspace } = gradients;
        let of_samples = shape.with_rows(self.scale.rows());
        let outputs = [target("dscale", dscale, of_samples)?, target("dshift", dshift, of_samples)?];
        let groups =
            Groups::Equal { count: of_samples.rows, rows: rows_of_samples(shape.rows, of_samples.rows)? };
        Ok(Some(GroupSums { groups, outputs, accumulate, workspace }))
    }
}

/// Rows of sums, one for each group.
pub(crate) fn target<'a, T>(
    what: &'static str,
    rows: Option<RowsMut<'a, T>>,
    shape: Shape,
) -> Result<Option<Target<'a, T>>, Error> {
    let Some(rows) = rows else { return Ok(None) };
    rows.shape().expect(what, shape)?;
    Ok(Some(rows.target()))
}
