//! Adaptive norms: layer or RMS norm with a scale and a shift of each sample's own, from a condition. AdaLN, `modulate`
//! (Peebles, Xie 2022, arXiv:2212.09748), FiLM (Perez et al. 2017, arXiv:1709.07871):
//!
//! ```text
//! y = x_hat (1 + scale[s]) + shift[s]          for each row of sample s
//!
//! dx        = the norm's dx, from weight 1 + scale[s]
//! dscale[s] = sum over the rows of s of dy x_hat       dshift[s] = sum over the rows of s of dy
//! ```

use crate::gradients::with_slices;
use crate::layout::Layout;
use crate::memory::{Source, Target};
use crate::modulation::Parameters;
use crate::operator::{Saved, SavedRef};
use crate::rms_norm::{columns, columns_mut};
use crate::views::expect;
use crate::whole::{Reading, Writing};
use crate::{Error, Gradients, Modulation};
use layernorm::{AdaGradients, Companion, Element, ModulationGradients, RowsMut, Run, StatsMut, StatsRef};
use ndarray::{ArrayView, ArrayViewMut, Dimension};

/// Layer norm of `x` over the axes of `modulation`, with the scale and shift of each sample: y = x_hat (1 + scale) + shift.
///
/// `x` and `y` have the same shape, each its own layout. Each index of the axes that are not normalised is a row; the first of
/// these axes is that of samples. The statistics go to `saved`.
///
/// The bits are those of [`layernorm::ada_layer_norm`], in every layout. Arrays whose rows lie side by side or evenly
/// spaced are read and written where they lie; one that lies otherwise is copied, whole.
///
/// # Errors
/// Before anything is written: [`Error::SampleAxis`], [`Error::Axis`], [`Error::SameAxis`], [`Error::NoAxis`],
/// [`Error::Shape`], [`Error::Parameter`], and [`Error::Kernel`] for statistics of another length, epsilon and level.
///
/// ```
/// use layernorm_ndarray::{Modulation, ada_layer_norm};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, mut y) = (array![[1.0f32, 3.0], [1.0, 3.0]], Array2::zeros((2, 2))); // two samples of a row
/// let (scale, shift) = (array![[0.0, 0.0], [1.0, 1.0]], array![[0.0, 0.0], [5.0, 5.0]]);
/// let modulation = Modulation::over(Axis(1), &scale).with_shift(&shift).with_eps(0.0);
/// ada_layer_norm(x.view(), modulation, y.view_mut(), None, Default::default())?;
/// assert_eq!(y, array![[-1.0, 1.0], [3.0, 7.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn ada_layer_norm<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    modulation: Modulation<'_, P>,
    y: ArrayViewMut<'_, E, D>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    forward(&x, &modulation, y, saved, (true, run))
}

/// [`ada_layer_norm`] in place. The same bits.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Modulation, ada_layer_norm_in_place};
/// use ndarray::{Axis, array};
///
/// let (mut x, scale) = (array![[1.0f64, 3.0]], array![[1.0, 2.0]]);
/// let modulation = Modulation::over(Axis(1), &scale).with_eps(0.0);
/// ada_layer_norm_in_place(x.view_mut(), modulation, None, Default::default())?;
/// assert_eq!(x, array![[-2.0, 3.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn ada_layer_norm_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    modulation: Modulation<'_, P>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    in_place(x, &modulation, saved, (true, run))
}

/// The gradients of [`ada_layer_norm`], given that of its output.
///
/// dscale and dshift are [`ParamGradients::dweight`](crate::ParamGradients::dweight) and [`ParamGradients::dbias`](crate::ParamGradients::dbias), of the shapes that scale and shift may have;
/// `first_row` is not looked at, because a sample's sums count its own rows. `saved` holds the statistics of the forward
/// pass; without them they are taken from `x` once more.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm::Workspace;
/// use layernorm_ndarray::{Gradients, Modulation, ParamGradients, ada_layer_norm_backward};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, dy) = (array![[[1.0f64, 3.0], [2.0, 8.0]]], array![[[1.0, 0.0], [1.0, 1.0]]]); // one sample of two rows
/// let (scale, mut dscale, mut workspace) = (array![[0.0, 0.0]], Array2::zeros((1, 2)), Workspace::new());
/// let dweight = Some(dscale.view_mut().into_dyn());
/// let params = Some(ParamGradients { dweight, ..ParamGradients::new(&mut workspace) });
/// let modulation = Modulation::over(Axis(2), &scale).with_eps(0.0);
/// let gradients = Gradients { dx: None, params };
/// ada_layer_norm_backward(x.view(), dy.view(), modulation, None, gradients, Default::default())?;
/// assert_eq!(dscale, array![[-2.0, 1.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn ada_layer_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    modulation: Modulation<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    backward([x.view(), dy.view()], &modulation, saved, gradients, (true, run))
}

/// RMS norm of `x` over the axes of `modulation`, with the scale and shift of each sample. As [`ada_layer_norm`] otherwise.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Modulation, ada_rms_norm};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, scale, mut y) = (array![[1.0f32, 7.0]], array![[4.0, 4.0]], Array2::zeros((1, 2)));
/// let modulation = Modulation::over(Axis(1), &scale).with_eps(0.0);
/// ada_rms_norm(x.view(), modulation, y.view_mut(), None, Default::default())?;
/// assert_eq!(y, array![[1.0, 7.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn ada_rms_norm<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    modulation: Modulation<'_, P>,
    y: ArrayViewMut<'_, E, D>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    forward(&x, &modulation, y, rstd.map(columns_mut), (false, run))
}

/// [`ada_rms_norm`] in place. The same bits.
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Modulation, ada_rms_norm_in_place};
/// use ndarray::{Axis, array};
///
/// let (mut x, scale) = (array![[1.0f32, 7.0]], array![[4.0, 4.0]]);
/// ada_rms_norm_in_place(x.view_mut(), Modulation::over(Axis(1), &scale).with_eps(0.0), None, Default::default())?;
/// assert_eq!(x, array![[1.0, 7.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn ada_rms_norm_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    modulation: Modulation<'_, P>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    in_place(x, &modulation, rstd.map(columns_mut), (false, run))
}

/// The gradients of [`ada_rms_norm`]. As [`ada_layer_norm_backward`].
///
/// # Errors
/// As [`ada_layer_norm`].
///
/// ```
/// use layernorm_ndarray::{Gradients, Modulation, ada_rms_norm_backward};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, scale, mut dx) = (array![[1.0f64, 7.0]], array![[4.0, 4.0]], Array2::zeros((1, 2)));
/// let gradients = Gradients { dx: Some(dx.view_mut()), params: None };
/// let modulation = Modulation::over(Axis(1), &scale).with_eps(0.0);
/// ada_rms_norm_backward(x.view(), x.view(), modulation, None, gradients, Default::default())?;
/// assert!(dx.iter().all(|dx| dx.abs() < 1e-14)); // dy lies along x
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn ada_rms_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    modulation: Modulation<'_, P>,
    rstd: Option<&[E::Acc]>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    backward([x.view(), dy.view()], &modulation, rstd.map(columns), gradients, (false, run))
}

fn forward<E: Element, P: Companion<E>, D: Dimension>(
    x: &ArrayView<'_, E, D>,
    modulation: &Modulation<'_, P>,
    mut y: ArrayViewMut<'_, E, D>,
    saved: Saved<'_, E::Acc>,
    (centred, run): (bool, Run),
) -> Result<(), Error> {
    modulation.check(x.shape())?;
    expect("y", y.shape(), x.shape())?;
    let axes = modulation.axes_of_sample();
    let mut of = Parameters::of(modulation, &axes);
    let mut x = Reading::of(Source::of(x, modulation.axes));
    let mut y = Writing::of(Target::of(&mut y, modulation.axes));
    let (x, of, to) = (x.rows()?, of.modulation()?, y.rows()?);
    match centred {
        true => layernorm::ada_layer_norm(x, of, to, saved, run),
        false => layernorm::ada_rms_norm(x, of, to, saved.map(|saved| saved.rstd), run),
    }?;
    y.finish();
    Ok(())
}

fn in_place<E: Element, P: Companion<E>, D: Dimension>(
    mut x: ArrayViewMut<'_, E, D>,
    modulation: &Modulation<'_, P>,
    saved: Saved<'_, E::Acc>,
    (centred, run): (bool, Run),
) -> Result<(), Error> {
    modulation.check(x.shape())?;
    let axes = modulation.axes_of_sample();
    let mut of = Parameters::of(modulation, &axes);
    let mut x = Writing::in_place(Target::of(&mut x, modulation.axes));
    let (rows, of) = (x.rows()?, of.modulation()?);
    match centred {
        true => layernorm::ada_layer_norm_in_place(rows, of, saved, run),
        false => layernorm::ada_rms_norm_in_place(rows, of, saved.map(|saved| saved.rstd), run),
    }?;
    x.finish();
    Ok(())
}

fn backward<E: Element, P: Companion<E>, D: Dimension>(
    [x, dy]: [ArrayView<'_, E, D>; 2],
    modulation: &Modulation<'_, P>,
    saved: SavedRef<'_, E::Acc>,
    Gradients { mut dx, params }: Gradients<'_, E, D>,
    (centred, run): (bool, Run),
) -> Result<(), Error> {
    modulation.check(x.shape())?;
    expect("dy", dy.shape(), x.shape())?;
    if let Some(dx) = &dx {
        expect("dx", dx.shape(), x.shape())?;
    }
    modulation.check_gradients(params.as_ref(), x.shape())?;
    let features = Layout { shape: x.shape(), strides: x.strides(), axes: modulation.axes }.features();
    let axes = modulation.axes_of_sample();
    let mut of = Parameters::of(modulation, &axes);
    let [mut x, mut dy] = [&x, &dy].map(|view| Reading::of(Source::of(view, modulation.axes)));
    let mut dx = dx.as_mut().map(|dx| Writing::of(Target::of(dx, modulation.axes)));
    with_slices(params, |params| {
        let rows = |sums| RowsMut::new(sums, features);
        let of_modulation = ModulationGradients {
            dscale: params.dweight.map(rows).transpose()?,
            dshift: params.dbias.map(rows).transpose()?,
            accumulate: params.accumulate,
            workspace: params.workspace,
        };
        let dx = dx.as_mut().map(Writing::rows).transpose()?;
        let gradients = AdaGradients { dx, modulation: Some(of_modulation) };
        let (x, dy, of) = (x.rows()?, dy.rows()?, of.modulation()?);
        match centred {
            true => layernorm::ada_layer_norm_backward(x, dy, of, saved, gradients, run),
            false => {
                let rstd = saved.map(|saved| saved.rstd);
                layernorm::ada_rms_norm_backward(x, dy, of, rstd, gradients, run)
            }
        }
    })?;
    if let Some(dx) = dx {
        dx.finish();
    }
    Ok(())
}
