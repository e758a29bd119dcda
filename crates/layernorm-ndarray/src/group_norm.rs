//! Group normalization (Wu, He 2018, arXiv:1803.08494, equations 1 to 7) of samples of channels, wherever the axis of
//! channels is:
//!
//! ```text
//! mu, var over the channels / groups channels, and all positions, of a group of a sample
//! x_hat = (x - mu) / sqrt(var + eps)
//! y     = weight[channel] x_hat + bias[channel]            then silu(y), if it is wanted
//!
//! u  = weight[channel] dy
//! dx = (u - mean(u) - x_hat mean(u x_hat)) / sqrt(var + eps)
//! dweight[channel] = sum over samples and positions of dy x_hat
//! dbias[channel]   = sum over samples and positions of dy
//! ```

use crate::by_channel::{backward, backward_in_place, forward, in_place};
use crate::images::{Images, Kind};
use crate::views::like;
use crate::{Error, Gradients, Norm, ParamGradients};
use layernorm::{
    Activation, Companion, Element, Params, Run, StatsMut, StatsRef, TensorGradients, Workspace,
};
use ndarray::{Array, ArrayView, ArrayViewMut, Dimension};

/// A norm of channels in groups, and what follows it.
///
/// ```
/// use layernorm::Activation;
/// use layernorm_ndarray::{Groups, Norm};
///
/// let norm = Norm::<f32>::by_channel(ndarray::Axis(1)).with_eps(1e-6);
/// let groups = Groups { activation: Activation::Silu, ..Groups::of(norm, 32) };
/// assert_eq!(groups.count, 32);
/// ```
#[derive(Debug, Clone)]
pub struct Groups<'a, P> {
    /// The axis of channels, weight and bias of each channel, and epsilon.
    pub norm: Norm<'a, P>,
    /// Groups of channels, each normalised by itself: a divisor of the channels.
    pub count: usize,
    /// What is done to the output: nothing, or SiLU.
    pub activation: Activation,
}

impl<'a, P> Groups<'a, P> {
    /// So many groups, with nothing that follows.
    ///
    /// ```
    /// use layernorm_ndarray::{Groups, Norm};
    ///
    /// let groups = Groups::of(Norm::<f32>::by_channel(ndarray::Axis(1)), 32);
    /// assert_eq!(groups.activation, layernorm::Activation::None);
    /// ```
    pub fn of(norm: Norm<'a, P>, count: usize) -> Self {
        Self { norm, count, activation: Activation::None }
    }

    /// As the kernels take them.
    fn call<'b>(
        &self,
        images: &Images,
        params: Params<'b, P>,
    ) -> Result<layernorm::Groups<'b, P>, layernorm::Error> {
        let Images { samples, channels, positions, layout, .. } = *images;
        let images = layernorm::Images::new(samples, channels, &[positions], layout)?;
        Ok(layernorm::Groups { images, groups: self.count, params, activation: self.activation })
    }
}

/// Group norm of `x`, into `y`: y = weight (x - mean) / sqrt(var + eps) + bias, by the mean and variance of each group of
/// neighbouring channels of each sample, and the weight and bias of each channel.
///
/// The first axis of `x` is that of samples, `groups.norm` names that of channels ([`Norm::by_channel`]), and all others count
/// as positions. The statistics go to `saved`, one entry for each group of each sample, sample by sample.
///
/// The bits are those of [`layernorm::group_norm`], in every layout. Memory without gaps in which channels come first or last
/// (NCHW, NHWC, as views with their axes in any order) is read and written where it lies; any other is copied, whole.
///
/// # Errors
/// Before anything is written: [`Error::ChannelAxis`], [`Error::Axis`], [`Error::Shape`], [`Error::Parameter`], and
/// [`Error::Kernel`] for groups that don't divide the channels, no channels or positions, statistics of another length,
/// epsilon and level.
///
/// ```
/// use layernorm_ndarray::{Groups, Norm, group_norm};
/// use ndarray::{Array2, Axis, array};
///
/// let x = array![[1.0f32, 3.0, 10.0, 20.0]]; // a sample of four channels
/// let mut y = Array2::zeros((1, 4));
/// let norm = Norm::<f32>::by_channel(Axis(1)).with_eps(0.0);
/// group_norm(x.view(), Groups::of(norm, 2), y.view_mut(), None, Default::default())?;
/// assert_eq!(y, array![[-1.0, 1.0, -1.0, 1.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn group_norm<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    groups: Groups<'_, P>,
    y: ArrayViewMut<'_, E, D>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    forward((Kind::Group, &groups.norm), &x, y, |images, params, x, y| {
        let norm = groups.call(images, params)?;
        layernorm::group_norm(norm, x.numbers()?, y.numbers()?, saved, &mut Workspace::new(), run)
    })
}

/// [`group_norm`] in place. The same bits.
///
/// # Errors
/// As [`group_norm`].
///
/// ```
/// use layernorm_ndarray::{Groups, Norm, group_norm_in_place};
/// use ndarray::{Axis, array};
///
/// let mut x = array![[[1.0f64, 30.0], [3.0, 10.0]]]; // a sample of two positions, and of two channels, which are last
/// let norm = Norm::<f64>::by_channel(Axis(2)).with_eps(0.0);
/// group_norm_in_place(x.view_mut(), Groups::of(norm, 2), None, Default::default())?;
/// assert_eq!(x, array![[[-1.0, 1.0], [1.0, -1.0]]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn group_norm_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    groups: Groups<'_, P>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    in_place((Kind::Group, &groups.norm), x, |images, params, x| {
        let norm = groups.call(images, params)?;
        layernorm::group_norm_in_place(norm, x.numbers()?, saved, &mut Workspace::new(), run)
    })
}

/// [`group_norm`] into a new array, which this allocates; of Fortran's order if `x` is. The same bits.
///
/// # Errors
/// As [`group_norm`].
///
/// ```
/// use layernorm::Activation;
/// use layernorm_ndarray::{Groups, Norm, group_norm_array};
/// use ndarray::{Axis, array};
///
/// let x = array![[1.0f32, 3.0]];
/// let groups = Groups { activation: Activation::Silu, ..Groups::of(Norm::<f32>::by_channel(Axis(1)), 1) };
/// let y = group_norm_array(x.view(), groups, Default::default())?;
/// assert!(y[[0, 0]] < 0.0 && y[[0, 0]] > -0.3 && y[[0, 1]] > 0.7); // -1 and 1, times their sigmoids
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn group_norm_array<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    groups: Groups<'_, P>,
    run: Run,
) -> Result<Array<E, D>, Error> {
    let mut y = like(&x);
    group_norm(x, groups, y.view_mut(), None, run)?;
    Ok(y)
}

/// The gradients of [`group_norm`], given that of its output.
///
/// `saved` holds the statistics of the forward pass; without them they are taken from `x` once more. dweight and dbias
/// have one number a channel (or one, of a parameter that all share), and the bits of [`layernorm::group_norm_backward`];
/// `first_row` is the index of the first sample. The workspace grows where it is too small.
///
/// # Errors
/// As [`group_norm`].
///
/// ```
/// use layernorm_ndarray::{Gradients, Groups, Norm, group_norm_backward};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, dy, mut dx) = (array![[1.0f64, 2.0, 4.0]], array![[1.0, 1.0, 1.0]], Array2::zeros((1, 3)));
/// let gradients = Gradients { dx: Some(dx.view_mut()), params: None };
/// let groups = Groups::of(Norm::<f64>::by_channel(Axis(1)), 1);
/// group_norm_backward(x.view(), dy.view(), groups, None, gradients, Default::default())?;
/// assert!(dx.iter().all(|dx| dx.abs() < 1e-15)); // a group cannot be moved along the ones
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn group_norm_backward<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    groups: Groups<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    backward(
        (Kind::Group, &groups.norm),
        [x.view(), dy.view()],
        gradients,
        |images, params, [x, dy], (dx, of_params)| {
            let norm = groups.call(images, params)?;
            let gradients = TensorGradients { dx: dx.map(|dx| dx.numbers()).transpose()?, params: of_params };
            layernorm::group_norm_backward(norm, x.numbers()?, dy.numbers()?, saved, gradients, run)
        },
    )
}

/// [`group_norm_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`group_norm`].
///
/// ```
/// use layernorm_ndarray::{Groups, Norm, group_norm_backward_in_place};
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[1.0f64, 2.0, 4.0]], array![[1.0, 1.0, 1.0]]);
/// let groups = Groups::of(Norm::<f64>::by_channel(Axis(1)), 1);
/// group_norm_backward_in_place(x.view(), dy.view_mut(), groups, None, None, Default::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn group_norm_backward_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayViewMut<'_, E, D>,
    groups: Groups<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    backward_in_place(
        (Kind::Group, &groups.norm),
        &x,
        dy,
        param_gradients,
        |images, params, (x, dy), of_params| {
            let norm = groups.call(images, params)?;
            layernorm::group_norm_backward_in_place(norm, x.numbers()?, dy.numbers()?, saved, of_params, run)
        },
    )
}
