//! Weight norm (Salimans, Kingma 2016, arXiv:1602.07868, equations 2 and 3), for each output unit:
//!
//! ```text
//! w = gain v / |v|                 |v| = sqrt(sum(v^2)) over the unit's weights
//!
//! dgain = sum(dw v) / |v|
//! dv    = gain / |v| (dw - dgain v / |v|)
//! ```
//!
//! A unit's weights are all numbers of a tensor with its index on one axis: a row, if that is the first axis. A direction
//! of zeros gives weights of zeros, and has no gradient.

use crate::affine::{Affine, Runs};
use crate::by_row::backward::{Backward, RunSums};
use crate::by_row::{Columns, Statistics, forward::Forward};
use crate::element::{Values, private::Stored};
use crate::form::Form;
use crate::real::private::Number;
use crate::rms_norm::{columns, columns_mut};
use crate::rows::{Column, Target, column};
use crate::sets::{Along, Sets};
use crate::{Companion, Element, Error, Params, Real, Rows, RowsMut, Run, Workspace};

/// The gains of a weight norm, and where its units are.
///
/// ```
/// // A convolution of 3 channels to 8: the first axis is that of output units, each of which has 75 weights.
/// let of = layernorm::WeightNorm { gain: &[1.0f32; 8], shape: &[8, 3, 5, 5], axis: 0 };
/// assert_eq!(of.shape[of.axis], of.gain.len());
/// ```
#[derive(Debug, Clone, Copy)]
pub struct WeightNorm<'a, P> {
    /// g: one number a unit.
    pub gain: &'a [P],
    /// Of the weights, row-major.
    pub shape: &'a [usize],
    /// The axis of output units. On the first one nothing is copied.
    pub axis: usize,
}

/// Which gradients a backward pass of weight norm is to write.
///
/// ```
/// use layernorm::{WeightNormGradients, Workspace};
///
/// let mut dgain = [0.0f32; 8];
/// let only_the_gain =
///     WeightNormGradients::<f32> { dv: None, dgain: Some(&mut dgain), workspace: &mut Workspace::new() };
/// assert!(only_the_gain.dv.is_none());
/// ```
#[derive(Debug)]
pub struct WeightNormGradients<'a, E: Element> {
    /// Gradient of the directions, shaped as they are.
    pub dv: Option<&'a mut [E]>,
    /// Gradient of the gains: one number a unit.
    pub dgain: Option<&'a mut [E::Acc]>,
    /// Memory for sums, and for units that are not rows. It grows (allocates) when it is too small.
    pub workspace: &'a mut Workspace<E::Acc>,
}

/// What the first batch of a layer says about its gains and biases.
///
/// ```
/// // Pre-activations of 32 samples, 8 units; the authors' epsilon.
/// let of = layernorm::WeightNormInit { shape: &[32, 8], axis: 1, scale: 1.0, eps: 1e-10 };
/// assert_eq!(of.shape[of.axis], 8);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct WeightNormInit<'a> {
    /// Of the pre-activations, row-major.
    pub shape: &'a [usize],
    /// The axis of units.
    pub axis: usize,
    /// The deviation that each unit is to have.
    pub scale: f64,
    /// Added to the variance, under the root.
    pub eps: f64,
}

/// Weight norm of the directions `v`, into the weights `w`: w = gain v / |v|, for each output unit.
///
/// `v` and `w` are contiguous tensors of the shape. 1 / |v| of each unit goes to `rnorm`, where a backward pass finds it.
/// Where the axis of units isn't the first, units are gathered into `workspace`, which allocates where it is too small.
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::Overflow`], [`Error::Length`], [`Error::Level`].
///
/// ```
/// use layernorm::{Run, WeightNorm, Workspace, weight_norm};
///
/// let v = [3.0f32, 4.0, 0.0, 2.0]; // two units of two inputs
/// let (mut w, mut rnorm) = ([9.0; 4], [9.0; 2]);
/// let of = WeightNorm { gain: &[10.0, 1.0], shape: &[2, 2], axis: 0 };
/// weight_norm(&v, of, &mut w, Some(&mut rnorm), &mut Workspace::new(), Run::default())?;
/// assert_eq!((w, rnorm), ([6.0, 8.0, 0.0, 1.0], [0.2, 0.5]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn weight_norm<E: Element, P: Companion<E>>(
    v: &[E],
    of: WeightNorm<'_, P>,
    w: &mut [E],
    rnorm: Option<&mut [E::Acc]>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let sets = of.sets()?;
    sets.expect("v", v.len())?;
    sets.expect("w", w.len())?;
    let saved = rnorm.map(|rnorm| columns_mut("rnorm", rnorm, sets.rows)).transpose()?;
    let (n, rows) = (sets.features, sets.rows);
    if sets.are_rows() {
        let call = Forward::new(rows_of(v, rows, n)?, none::<E>(), rows_of_mut(w, rows, n)?, saved)?;
        let weight = gains(P::values(of.gain), n);
        return Forward { weight, form: of_length(n)?, ..call }.run(Statistics::Uncentred, run);
    }
    run.level()?;
    let (gain, rest) = workspace.room(sum(rows, sets.len())?).split_at_mut(rows);
    of.widen(gain);
    sets.gather(v, rest);
    let call = Forward::in_place(rows_of_mut(rest, rows, n)?, none::<E::Acc>(), saved)?;
    let weight = gains(Values::Own(gain), n);
    Forward { weight, form: of_length(n)?, ..call }.run(Statistics::Uncentred, run)?;
    sets.scatter(rest, w);
    Ok(())
}

/// The gradients of [`weight_norm`], given that of the weights.
///
/// `rnorm` is what the forward pass saved; without it the lengths are taken from `v` once more, the same numbers. Memory
/// is allocated where `workspace` is too small.
///
/// # Errors
/// As [`weight_norm`].
///
/// ```
/// use layernorm::{Run, WeightNorm, WeightNormGradients, Workspace, weight_norm_backward};
///
/// let (mut dv, mut dgain) = ([0.0f64; 2], [0.0]);
/// let of = WeightNorm { gain: &[4.0], shape: &[1, 2], axis: 0 };
/// let gradients =
///     WeightNormGradients { dv: Some(&mut dv), dgain: Some(&mut dgain), workspace: &mut Workspace::new() };
/// weight_norm_backward(&[2.0, 0.0], &[1.0, 5.0], of, None, gradients, Run::default())?;
/// assert_eq!((dv, dgain), ([0.0, 10.0], [1.0])); // along v nothing changes
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn weight_norm_backward<E: Element, P: Companion<E>>(
    v: &[E],
    dw: &[E],
    of: WeightNorm<'_, P>,
    rnorm: Option<&[E::Acc]>,
    gradients: WeightNormGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let WeightNormGradients { dv, dgain, workspace } = gradients;
    let sets = of.sets()?;
    let (n, rows, len) = (sets.features, sets.rows, sets.len());
    sets.expect("v", v.len())?;
    sets.expect("dw", dw.len())?;
    if let Some(dv) = &dv {
        sets.expect("dv", dv.len())?;
    }
    let saved = rnorm.map(|rnorm| columns("rnorm", rnorm, rows)).transpose()?;
    let mut dgain = dgain.map(|dgain| of_units("dgain", dgain, rows)).transpose()?;
    run.level()?;
    if let Some(dgain) = dgain.as_mut().filter(|_| n == 0) {
        dgain.fill(E::Acc::from_f64(0.0));
    }
    if sets.are_rows() {
        let dv = dv.map(|dv| rows_of_mut(dv, rows, n)).transpose()?;
        let call = Backward::new(rows_of(v, rows, n)?, rows_of(dw, rows, n)?, none::<E>(), saved, dv)?;
        let weight = gains(P::values(of.gain), n);
        return backward(call, weight, dgain, workspace.room(rows), run);
    }
    let room = workspace.room(sum(sum(rows, rows)?, sum(len, len)?)?);
    let (gain, room) = room.split_at_mut(rows);
    let (sums, room) = room.split_at_mut(rows);
    let (of_v, of_dw) = room.split_at_mut(len);
    of.widen(gain);
    sets.gather(v, of_v);
    sets.gather(dw, of_dw);
    let call = Backward::in_place(
        rows_of(&*of_v, rows, n)?,
        rows_of_mut(&mut *of_dw, rows, n)?,
        none::<E::Acc>(),
        saved,
    )?;
    let dx = call.dx.filter(|_| dv.is_some());
    backward(Backward { dx, ..call }, gains(Values::Own(gain), n), dgain, sums, run)?;
    if let Some(dv) = dv {
        sets.scatter(of_dw, dv);
    }
    Ok(())
}

/// Data-dependent initialisation (section 3 of the paper): the gain and bias of each unit that give its pre-activations
/// on a first batch mean 0 and deviation `scale`.
///
/// ```text
/// gain = scale / sqrt(var[t] + eps)        bias = -mean[t] gain
/// ```
///
/// `t` are the pre-activations with gain 1 and bias 0, v x / |v|, a contiguous tensor of the shape. A layer with this gain
/// and bias then gives gain t + bias. The authors draw v from N(0, 0.05^2), take eps 1e-10, and go through the layers in
/// order. A unit without variance gets gain 0 at eps 0. The pre-activations are copied to `workspace`, which allocates
/// where it is too small.
///
/// # Errors
/// Before anything is written: [`Error::Axis`], [`Error::Overflow`], [`Error::Length`] (a batch of none, too),
/// [`Error::Epsilon`], [`Error::NotFinite`] (the scale), [`Error::Level`].
///
/// ```
/// use layernorm::{Run, WeightNormInit, Workspace, weight_norm_init};
///
/// let t = [1.0f32, 3.0]; // two samples of one unit: mean 2, deviation 1
/// let of = WeightNormInit { shape: &[2, 1], axis: 1, scale: 1.0, eps: 0.0 };
/// let (mut gain, mut bias) = ([9.0], [9.0]);
/// weight_norm_init(&t, of, &mut gain, &mut bias, &mut Workspace::new(), Run::default())?;
/// assert_eq!((gain, bias), ([1.0], [-2.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn weight_norm_init<E: Element>(
    t: &[E],
    of: WeightNormInit<'_>,
    gain: &mut [E::Acc],
    bias: &mut [E::Acc],
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let sets = Sets::new(of.shape, Along::AllBut(of.axis))?;
    let (n, rows) = (sets.features, sets.rows);
    sets.expect("t", t.len())?;
    if rows > 0 && n == 0 {
        return Err(Error::Length { what: "t", expected: rows, got: 0 });
    }
    let gain = of_units("gain", gain, rows)?;
    let bias = of_units("bias", bias, rows)?;
    let (value, max) = (of.scale, E::Acc::LARGEST);
    if !(-max..=max).contains(&value) {
        return Err(Error::NotFinite { what: "scale", value, max });
    }
    // Statistics are those of a layer norm, in place of which nobody looks at the output.
    let room = workspace.room(sum(rows, sets.len())?);
    let (m, room) = room.split_at_mut(rows);
    let params = Params { eps: of.eps, ..none::<E::Acc>() };
    sets.gather(t, room);
    let centre = Some([Column::new("m", m, rows)?, Column::new("bias", &mut *bias, rows)?]);
    let saved = Some(Columns { centre, rstd: Column::new("gain", &mut *gain, rows)? });
    Forward::in_place(rows_of_mut(room, rows, n)?, params, saved)?.run(Statistics::Centred, run)?;
    for ((gain, bias), m) in gain.iter_mut().zip(bias).zip(m) {
        *gain = E::Acc::from_f64(of.scale).mul(*gain);
        *bias = m.add(*bias).neg().mul(*gain);
    }
    Ok(())
}

impl<P> WeightNorm<'_, P> {
    /// The units' weights, checked.
    fn sets(&self) -> Result<Sets<'_>, Error> {
        let sets = Sets::new(self.shape, Along::AllBut(self.axis))?;
        let (expected, got) = (sets.rows, self.gain.len());
        if got == expected { Ok(sets) } else { Err(Error::Length { what: "gain", expected, got }) }
    }

    /// The gains, in the type of sums.
    fn widen(&self, to: &mut [P::Acc])
    where
        P: Element,
    {
        to.iter_mut().zip(self.gain).for_each(|(to, gain)| *to = gain.to_acc());
    }
}

/// One gain for all features of a row.
fn gains<'a, E: Element>(gain: Values<'a, E>, features: usize) -> Affine<'a, E> {
    Affine::with(Some(gain), 1.0, None, of_rows(features))
}

fn of_rows(features: usize) -> Runs {
    Runs { run: features.max(1), per_row: 1 }
}

fn of_length<T: Real>(features: usize) -> Result<Form<T>, Error> {
    Ok(Form { count: 1, ..Form::new(0.0, features)? })
}

fn none<T>() -> Params<'static, T>
where
    T: Element,
{
    Params { weight: None, bias: None, eps: 0.0 }
}

fn backward<'a, E: Element>(
    call: Backward<'a, E>,
    weight: Affine<'a, E>,
    dgain: Option<&'a mut [E::Acc]>,
    plain_sums: &'a mut [E::Acc],
    run: Run,
) -> Result<(), Error> {
    let (n, rows) = (call.shape.features, call.shape.rows);
    let form = of_length(n)?;
    let sums_of_runs = match dgain {
        None => None,
        Some(dgain) => {
            column("dgain", dgain, rows)?;
            column("sums", plain_sums, rows)?;
            let sums = [Target::every(dgain, 1), Target::every(plain_sums, 1)];
            Some(RunSums { runs: of_rows(n), sums })
        }
    };
    Backward { weight, form, sums_of_runs, ..call }.run(Statistics::Uncentred, None, run)
}

fn rows_of<T>(data: &[T], rows: usize, features: usize) -> Result<Rows<'_, T>, Error> {
    Rows::strided(data, rows, features, features)
}

fn rows_of_mut<T>(data: &mut [T], rows: usize, features: usize) -> Result<RowsMut<'_, T>, Error> {
    RowsMut::strided(data, rows, features, features)
}

/// A slice with one number a unit.
fn of_units<'a, T>(what: &'static str, numbers: &'a mut [T], expected: usize) -> Result<&'a mut [T], Error> {
    let got = numbers.len();
    if got == expected { Ok(numbers) } else { Err(Error::Length { what, expected, got }) }
}

fn sum(a: usize, b: usize) -> Result<usize, Error> {
    a.checked_add(b).ok_or(Error::Overflow { rows: a, stride: b })
}
