//! Batch normalization (Ioffe, Szegedy 2015, arXiv:1502.03167) of samples of channels, wherever the axis of channels is:
//!
//! ```text
//! training     mu = mean(x)    var = mean((x - mu)^2)       over samples and positions of a channel
//! evaluation   mu, var         the running ones
//! y  = weight[channel] (x - mu) / sqrt(var + eps) + bias[channel]
//!
//! dweight = sum dy x_hat       dbias = sum dy               over all samples and positions of a channel
//! dx = weight (dy - dbias / n - x_hat dweight / n) / sqrt(var + eps)        training, n numbers a channel
//! dx = weight dy / sqrt(var + eps)                                          evaluation
//! ```

use crate::by_channel::{backward, backward_in_place, forward, in_place};
use crate::images::{Images, Kind::Batch as OfBatch};
use crate::whole::{Reading, Writing};
use crate::{Error, Gradients, Norm, ParamGradients};
use layernorm::{
    Batch, BatchGradients, BatchMut, Companion, Element, Layout, Run, RunningRef, Trained, Training,
    Workspace,
};
use ndarray::{ArrayView, ArrayViewMut, Dimension};

/// Batch norm in training, of `x` into `y`: y = weight (x - mean) / sqrt(var + eps) + bias, by the mean and biased variance of
/// each channel over samples and positions.
///
/// The first axis of `x` is that of samples, `norm` names that of channels ([`Norm::by_channel`]), and all others count
/// as positions. The statistics, and the running ones that are to move, go to `training`, one entry a channel; with
/// its [`Convention`](layernorm::Convention), its positions that count, and its reducer it is the kernels' own.
///
/// The bits are those of [`layernorm::batch_norm_train`], channels last if theirs is the last axis (but for axes of one number) and else
/// first (the two agree within the bound, not in bits), however the array lies in memory. Samples (with channels last: positions) without gaps and evenly
/// spaced are read and written where they lie; an array that lies otherwise is copied, whole.
///
/// # Errors
/// Before anything is written: [`Error::ChannelAxis`], [`Error::Axis`], [`Error::Shape`], [`Error::Parameter`], and
/// [`Error::Kernel`] for fewer than two numbers a channel, statistics of another length, momentum, epsilon and level.
///
/// ```
/// use layernorm::{Convention, RunningStats, Stats, Training, Workspace};
/// use layernorm_ndarray::{Norm, batch_norm_train};
/// use ndarray::{Array2, Axis, array};
///
/// let x = array![[1.0f32, 10.0], [3.0, 20.0]]; // two samples of two channels
/// let (mut y, mut saved, mut workspace) = (Array2::zeros((2, 2)), Stats::new(2), Workspace::new());
/// let mut running = RunningStats::new(2);
/// let mut training = Training::new(saved.as_mut(), &mut workspace);
/// training.running = Some(running.as_mut(Convention::PYTORCH));
/// let norm = Norm::<f32>::by_channel(Axis(1)).with_eps(0.0);
/// batch_norm_train(x.view(), norm, y.view_mut(), training, Default::default())?;
/// assert_eq!((y, saved.mean()), (array![[-1.0, -1.0], [1.0, 1.0]], vec![2.0, 15.0]));
/// assert_eq!(running.mean, [0.2, 1.5]); // a tenth of the way
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn batch_norm_train<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    y: ArrayViewMut<'_, E, D>,
    training: Training<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    forward((OfBatch, &norm), &x, y, |images, params, x, y| {
        layernorm::batch_norm_train(read(images, x)?, params, write(images, y)?, training, run)
    })
}

/// [`batch_norm_train`] in place. The same bits.
///
/// # Errors
/// As [`batch_norm_train`].
///
/// ```
/// use layernorm::{Stats, Training, Workspace};
/// use layernorm_ndarray::{Norm, batch_norm_train_in_place};
/// use ndarray::{Axis, array};
///
/// let mut x = array![[1.0f64, 10.0], [3.0, 20.0]];
/// let (mut saved, mut workspace) = (Stats::new(2), Workspace::new());
/// let training = Training::new(saved.as_mut(), &mut workspace);
/// batch_norm_train_in_place(x.view_mut(), Norm::<f64>::by_channel(Axis(1)).with_eps(0.0), training, Default::default())?;
/// assert_eq!(x, array![[-1.0, -1.0], [1.0, 1.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn batch_norm_train_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    training: Training<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    in_place((OfBatch, &norm), x, |images, params, x| {
        layernorm::batch_norm_train_in_place(write(images, x)?, params, training, run)
    })
}

/// The gradients of [`batch_norm_train`], given that of its output, and what that call saved. The gradient flows through the
/// statistics.
///
/// dweight and dbias have one number a channel, or one. `first_row` is the index of the first sample (with channels last: of the
/// first position).
///
/// # Errors
/// As [`batch_norm_train`].
///
/// ```
/// use layernorm::{Stats, Trained};
/// use layernorm_ndarray::{Gradients, Norm, batch_norm_train_backward};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, dy, mut dx) = (array![[1.0], [3.0]], array![[1.0], [5.0]], Array2::zeros((2, 1)));
/// let saved = Stats { m: vec![2.0f64], c: vec![0.0], rstd: vec![1.0] }; // of the training pass
/// let (norm, trained) = (Norm::<f64>::by_channel(Axis(1)).with_eps(0.0), Trained::new(saved.as_ref()));
/// let gradients = Gradients { dx: Some(dx.view_mut()), params: None };
/// batch_norm_train_backward(x.view(), dy.view(), norm, trained, gradients, Default::default())?;
/// assert_eq!(dx, array![[0.0], [0.0]]); // two numbers always become -1 and 1
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn batch_norm_train_backward<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    trained: Trained<'_, E::Acc>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    backward(
        (OfBatch, &norm),
        [x.view(), dy.view()],
        gradients,
        |images, params, [x, dy], (dx, of_params)| {
            let dx = dx.map(|dx| write(images, dx)).transpose()?;
            let (x, dy, gradients) =
                (read(images, x)?, read(images, dy)?, BatchGradients { dx, params: of_params });
            layernorm::batch_norm_train_backward(x, dy, params, trained, gradients, run)
        },
    )
}

/// [`batch_norm_train_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`batch_norm_train`].
///
/// ```
/// use layernorm::{Stats, Trained};
/// use layernorm_ndarray::{Norm, batch_norm_train_backward_in_place};
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[1.0], [3.0]], array![[1.0], [5.0]]);
/// let saved = Stats { m: vec![2.0f64], c: vec![0.0], rstd: vec![1.0] }; // of the training pass
/// let (norm, trained) = (Norm::<f64>::by_channel(Axis(1)).with_eps(0.0), Trained::new(saved.as_ref()));
/// batch_norm_train_backward_in_place(x.view(), dy.view_mut(), norm, trained, None, Default::default())?;
/// assert_eq!(dy, array![[0.0], [0.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn batch_norm_train_backward_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    trained: Trained<'_, E::Acc>,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    backward_in_place((OfBatch, &norm), &x, dy, param_gradients, |images, params, (x, dy), of_params| {
        let (x, dy) = (read(images, x)?, write(images, dy)?);
        layernorm::batch_norm_train_backward_in_place(x, dy, params, trained, of_params, run)
    })
}

/// Batch norm in evaluation, and frozen: y = weight (x - mean) / sqrt(var + eps) + bias, by the running statistics. Nothing in a
/// sample depends on its neighbours. As [`batch_norm_train`] otherwise.
///
/// # Errors
/// As [`batch_norm_train`], and [`Error::Kernel`] for a negative variance.
///
/// ```
/// use layernorm::RunningRef;
/// use layernorm_ndarray::{Norm, batch_norm_eval};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, mut y) = (array![[5.0f32, 7.0]], Array2::zeros((1, 2))); // one sample of two channels
/// let running = RunningRef { mean: &[1.0, 0.0], var: &[4.0, 1.0] };
/// let norm = Norm::<f32>::by_channel(Axis(1)).with_eps(0.0);
/// batch_norm_eval(x.view(), norm, running, y.view_mut(), Default::default())?;
/// assert_eq!(y, array![[2.0, 7.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn batch_norm_eval<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    running: RunningRef<'_, E::Acc>,
    y: ArrayViewMut<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    forward((OfBatch, &norm), &x, y, |images, params, x, y| {
        let (x, y) = (read(images, x)?, write(images, y)?);
        layernorm::batch_norm_eval(x, params, running, y, &mut Workspace::new(), run)
    })
}

/// [`batch_norm_eval`] in place. The same bits.
///
/// # Errors
/// As [`batch_norm_eval`].
///
/// ```
/// use layernorm::RunningRef;
/// use layernorm_ndarray::{Norm, batch_norm_eval_in_place};
/// use ndarray::{Axis, array};
///
/// let mut x = array![[5.0f32], [3.0]];
/// let running = RunningRef { mean: &[1.0], var: &[4.0] };
/// batch_norm_eval_in_place(x.view_mut(), Norm::<f32>::by_channel(Axis(1)).with_eps(0.0), running, Default::default())?;
/// assert_eq!(x, array![[2.0], [1.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn batch_norm_eval_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    running: RunningRef<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    in_place((OfBatch, &norm), x, |images, params, x| {
        layernorm::batch_norm_eval_in_place(write(images, x)?, params, running, &mut Workspace::new(), run)
    })
}

/// The gradients of [`batch_norm_eval`], given that of its output; the running statistics are constants. So a frozen norm is
/// trained. As [`batch_norm_train_backward`] otherwise.
///
/// # Errors
/// As [`batch_norm_eval`].
///
/// ```
/// use layernorm::RunningRef;
/// use layernorm_ndarray::{Gradients, Norm, batch_norm_eval_backward};
/// use ndarray::{Array2, Axis, array};
///
/// let (x, dy, mut dx) = (array![[5.0], [7.0]], array![[1.0], [2.0]], Array2::zeros((2, 1)));
/// let running = RunningRef { mean: &[1.0f64], var: &[4.0] };
/// let gradients = Gradients { dx: Some(dx.view_mut()), params: None };
/// let norm = Norm::<f64>::by_channel(Axis(1)).with_eps(0.0);
/// batch_norm_eval_backward(x.view(), dy.view(), norm, running, gradients, Default::default())?;
/// assert_eq!(dx, array![[0.5], [1.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn batch_norm_eval_backward<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayView<'_, E, D>,
    norm: Norm<'_, P>,
    running: RunningRef<'_, E::Acc>,
    gradients: Gradients<'_, E, D>,
    run: Run,
) -> Result<(), Error> {
    backward(
        (OfBatch, &norm),
        [x.view(), dy.view()],
        gradients,
        |images, params, [x, dy], (dx, of_params)| {
            let dx = dx.map(|dx| write(images, dx)).transpose()?;
            let (x, dy, gradients) =
                (read(images, x)?, read(images, dy)?, BatchGradients { dx, params: of_params });
            layernorm::batch_norm_eval_backward(x, dy, params, running, gradients, run)
        },
    )
}

/// [`batch_norm_eval_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`batch_norm_eval`].
///
/// ```
/// use layernorm::RunningRef;
/// use layernorm_ndarray::{Norm, batch_norm_eval_backward_in_place};
/// use ndarray::{Axis, array};
///
/// let (x, mut dy) = (array![[5.0], [7.0]], array![[1.0], [2.0]]);
/// let running = RunningRef { mean: &[1.0f64], var: &[4.0] };
/// let norm = Norm::<f64>::by_channel(Axis(1)).with_eps(0.0);
/// batch_norm_eval_backward_in_place(x.view(), dy.view_mut(), norm, running, None, Default::default())?;
/// assert_eq!(dy, array![[0.5], [1.0]]);
/// # Ok::<(), layernorm_ndarray::Error>(())
/// ```
pub fn batch_norm_eval_backward_in_place<E: Element, P: Companion<E>, D: Dimension>(
    x: ArrayView<'_, E, D>,
    dy: ArrayViewMut<'_, E, D>,
    norm: Norm<'_, P>,
    running: RunningRef<'_, E::Acc>,
    param_gradients: Option<ParamGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    backward_in_place((OfBatch, &norm), &x, dy, param_gradients, |images, params, (x, dy), of_params| {
        let (x, dy) = (read(images, x)?, write(images, dy)?);
        layernorm::batch_norm_eval_backward_in_place(x, dy, params, running, of_params, run)
    })
}

fn read<'a, E: Element>(
    images: &Images,
    rows: &'a mut Reading<'_, E>,
) -> Result<Batch<'a, E>, layernorm::Error> {
    match images.layout {
        Layout::ChannelsFirst => Batch::channels_first(rows.rows()?, images.channels),
        Layout::ChannelsLast => Batch::channels_last(rows.rows()?, images.positions),
    }
}

fn write<'a, E: Element>(
    images: &Images,
    rows: &'a mut Writing<'_, E>,
) -> Result<BatchMut<'a, E>, layernorm::Error> {
    match images.layout {
        Layout::ChannelsFirst => BatchMut::channels_first(rows.rows()?, images.channels),
        Layout::ChannelsLast => BatchMut::channels_last(rows.rows()?, images.positions),
    }
}
