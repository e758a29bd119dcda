//! Batch normalization (Ioffe, Szegedy 2015, arXiv:1502.03167), a channel at a time:
//!
//! ```text
//! training     mu = mean(x)    var = mean((x - mu)^2)       over samples and positions of a channel
//! evaluation   mu, var         the running ones
//! y  = weight (x - mu) / sqrt(var + eps) + bias
//!
//! dweight = sum dy x_hat       dbias = sum dy               over all samples and positions of a channel
//! dx = weight (dy - dbias / n - x_hat dweight / n) / sqrt(var + eps)        training, n numbers a channel
//! dx = weight dy / sqrt(var + eps)                                          evaluation
//! ```
//!
//! A batch may be spread over ranks, see [`Reducer`].

use crate::affine::Affine;
use crate::by_column::{Grid, backward::Backward, forward::Forward, forward::Keep};
use crate::element::Values;
use crate::element::private::Stored;
use crate::rows::{Source, Target};
use crate::{
    Batch, BatchMut, Companion, Convention, Element, Error, ParamGradients, ParamGrads, Params, Real,
    Reducer, Run, RunningMut, RunningRef, RunningStats, Stats, StatsMut, StatsRef, Valid, Workspace,
};

/// What a training pass takes and keeps beside its output.
///
/// ```
/// use layernorm::{Stats, Training, Workspace};
///
/// let (mut saved, mut workspace) = (Stats::<f32>::new(3), Workspace::new());
/// let training = Training::new(saved.as_mut(), &mut workspace); // no running statistics, one rank, all valid
/// assert!(training.running.is_none() && training.reducer.is_none());
/// ```
pub struct Training<'a, T> {
    /// The statistics, one entry a channel, for the backward pass.
    pub saved: StatsMut<'a, T>,
    /// Running statistics to be moved.
    pub running: Option<RunningMut<'a, T>>,
    /// Which positions the statistics are of.
    pub valid: Valid<'a>,
    /// What gathers from the other ranks, where the batch is spread over several.
    pub reducer: Option<&'a dyn Reducer>,
    /// Memory for sums and statistics: some numbers a channel, and nodes as [`Workspace`] says.
    pub workspace: &'a mut Workspace<T>,
}

impl<'a, T> Training<'a, T> {
    /// Of a batch on one rank, all of it valid, without running statistics.
    pub fn new(saved: StatsMut<'a, T>, workspace: &'a mut Workspace<T>) -> Self {
        Self { saved, running: None, valid: Valid::All, reducer: None, workspace }
    }
}

/// What the backward pass must know of the training pass.
///
/// ```
/// use layernorm::{Stats, Trained};
///
/// let saved = Stats::<f32>::new(3);
/// assert!(Trained::new(saved.as_ref()).reducer.is_none());
/// ```
#[derive(Clone, Copy)]
pub struct Trained<'a, T> {
    /// The statistics that it saved.
    pub saved: StatsRef<'a, T>,
    /// As in the training pass.
    pub valid: Valid<'a>,
    /// As in the training pass.
    pub reducer: Option<&'a dyn Reducer>,
}

impl<'a, T> Trained<'a, T> {
    /// On one rank, with all of the batch valid.
    pub fn new(saved: StatsRef<'a, T>) -> Self {
        Self { saved, valid: Valid::All, reducer: None }
    }
}

/// Which gradients a backward pass of batch norm is to write.
///
/// ```
/// use layernorm::{BatchGradients, ParamGradients, Workspace};
///
/// let mut workspace = Workspace::new();
/// let params =
///     ParamGradients { dweight: None, dbias: None, accumulate: false, first_row: 0, workspace: &mut workspace };
/// let gradients = BatchGradients::<f32> { dx: None, params };
/// assert!(gradients.dx.is_none());
/// ```
#[derive(Debug)]
pub struct BatchGradients<'a, E: Element> {
    /// Gradient of the input.
    pub dx: Option<BatchMut<'a, E>>,
    /// Gradients of the parameters, and the memory that dx too is summed in. `first_row` is the index of the batch's
    /// first sample (channels last: position).
    pub params: ParamGradients<'a, E::Acc>,
}

/// Batch norm in training: y = weight (x - mean) / sqrt(var + eps) + bias, with mean and biased variance of each
/// channel over samples and positions.
///
/// Weight and bias have one number a channel, or one for all, or are absent. `y` lies as `x` does, with strides of its own.
/// The statistics go to `training.saved`, one entry a channel, and move the running ones. Nothing is
/// allocated but what the workspace lacks, and what a reducer sends.
///
/// Channels first takes a channel's positions in the order of a row, and samples as the gradients of parameters take
/// rows; channels last takes positions so. The two agree within the bound, not in bits. Bounds, and what holds of special
/// channels, are in `docs/numerics.md`.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Epsilon`], [`Error::Level`],
/// [`Error::Momentum`], [`Error::Variance`]; [`Error::Count`] where a channel has fewer than two numbers (over all ranks);
/// [`Error::Reducer`], after which `y` may be written in part where a channel is out of its type's range.
///
/// ```
/// use layernorm::{Batch, BatchMut, Params, Rows, RowsMut, Run, Stats, Training, Workspace, batch_norm_train};
///
/// let x = [1.0f32, 10.0, 3.0, 20.0]; // (N, C) = (2, 2)
/// let (mut y, mut saved, mut workspace) = ([0.0; 4], Stats::new(2), Workspace::new());
/// let to = BatchMut::channels_last(RowsMut::new(&mut y, 2)?, 1)?;
/// let training = Training::new(saved.as_mut(), &mut workspace);
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// batch_norm_train(Batch::channels_last(Rows::new(&x, 2)?, 1)?, params, to, training, Run::default())?;
/// assert_eq!((y, saved.mean()), ([-1.0, -1.0, 1.0, 1.0], vec![2.0, 15.0]));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_train<E: Element, P: Companion<E>>(
    x: Batch<'_, E>,
    params: Params<'_, P>,
    y: BatchMut<'_, E>,
    training: Training<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    together(training.reducer, || {
        y.grid().expect("y", &x.grid())?;
        let (grid, y) = (x.grid(), y.target());
        train(Forward::new((grid, x.source()), params, y, false)?, training, run)
    })
}

/// [`batch_norm_train`] in place: `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`batch_norm_train`].
///
/// ```
/// use layernorm::{BatchMut, Params, RowsMut, Run, Stats, Training, Workspace, batch_norm_train_in_place};
///
/// let mut x = [1.0f64, 3.0]; // one sample of one channel with two positions
/// let (mut saved, mut workspace) = (Stats::new(1), Workspace::new());
/// let batch = BatchMut::channels_first(RowsMut::new(&mut x, 2)?, 1)?;
/// let params = Params { eps: 0.0, ..Params::<f64>::default() };
/// batch_norm_train_in_place(batch, params, Training::new(saved.as_mut(), &mut workspace), Run::default())?;
/// assert_eq!(x, [-1.0, 1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_train_in_place<E: Element, P: Companion<E>>(
    x: BatchMut<'_, E>,
    params: Params<'_, P>,
    training: Training<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    together(training.reducer, || {
        let (grid, (x, y)) = (x.grid(), x.in_place());
        train(Forward::new((grid, x), params, y, true)?, training, run)
    })
}

fn train<'a, E: Element>(
    call: Forward<'a, E>,
    training: Training<'a, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let Training { saved, running, valid, reducer, workspace } = training;
    let mut call = Forward { reducer, ..call };
    call.inputs.valid = valid;
    call.train(Keep { saved, running, workspace }, run)
}

/// The gradients of [`batch_norm_train`], given that of its output. The statistics depend on `x`, and the gradient flows
/// through them.
///
/// The sums that dx needs are dweight and dbias, so it costs nothing more to ask for those. Where the batch is
/// spread over ranks, every rank gets the gradients of the parameters of the *whole* batch: do not add them up again.
/// `params.bias` is not looked at.
///
/// # Errors
/// As [`batch_norm_train`], and [`Error::RowIndex`].
///
/// ```
/// use layernorm::{Batch, BatchGradients, BatchMut, BatchNorm, Params, Rows, RowsMut, Run, Stats, Trained};
/// use layernorm::batch_norm_train_backward;
///
/// let norm = BatchNorm::<f64>::new(1).with_eps(0.0);
/// let (x, dy, mut dx) = ([1.0, 3.0], [1.0, 5.0], [9.0; 2]);
/// let saved = Stats { m: vec![2.0], c: vec![0.0], rstd: vec![1.0] }; // of the training pass
/// let mut grads = norm.zero_grads();
/// let gradients = BatchGradients {
///     dx: Some(BatchMut::channels_last(RowsMut::new(&mut dx, 1)?, 1)?),
///     params: grads.as_mut(),
/// };
/// let of = |values| Batch::channels_last(Rows::new(values, 1)?, 1);
/// let trained = Trained::new(saved.as_ref());
/// batch_norm_train_backward(of(&x)?, of(&dy)?, norm.params(), trained, gradients, Run::default())?;
/// assert_eq!(dx, [0.0, 0.0]); // two numbers always become -1 and 1
/// assert_eq!((grads.dweight, grads.dbias), (Some(vec![4.0]), Some(vec![6.0])));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_train_backward<E: Element, P: Companion<E>>(
    x: Batch<'_, E>,
    dy: Batch<'_, E>,
    params: Params<'_, P>,
    of: Trained<'_, E::Acc>,
    gradients: BatchGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    together(of.reducer, || {
        let call = backward(x, dy, params, of.saved, gradients.dx)?;
        trained(call, of).run(gradients.params, run)
    })
}

/// [`batch_norm_train_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`batch_norm_train_backward`].
///
/// ```
/// use layernorm::{Batch, BatchMut, BatchNorm, Rows, RowsMut, Run, Stats, Trained};
/// use layernorm::batch_norm_train_backward_in_place;
///
/// let norm = BatchNorm::<f64>::new(1).with_eps(0.0);
/// let saved = Stats { m: vec![2.0], c: vec![0.0], rstd: vec![1.0] }; // of the training pass
/// let (mut dy, mut grads) = ([1.0, 5.0], norm.zero_grads());
/// let x = Batch::channels_last(Rows::new(&[1.0, 3.0], 1)?, 1)?;
/// let of_dy = BatchMut::channels_last(RowsMut::new(&mut dy, 1)?, 1)?;
/// let trained = Trained::new(saved.as_ref());
/// batch_norm_train_backward_in_place(x, of_dy, norm.params(), trained, grads.as_mut(), Run::default())?;
/// assert_eq!(dy, [0.0, 0.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_train_backward_in_place<E: Element, P: Companion<E>>(
    x: Batch<'_, E>,
    dy: BatchMut<'_, E>,
    params: Params<'_, P>,
    of: Trained<'_, E::Acc>,
    gradients: ParamGradients<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    together(of.reducer, || trained(backward_in_place(x, dy, params, of.saved)?, of).run(gradients, run))
}

fn trained<'a, E: Element>(call: Backward<'a, E>, of: Trained<'a, E::Acc>) -> Backward<'a, E> {
    let mut call = Backward { reducer: of.reducer, ..call };
    call.inputs.valid = of.valid;
    call
}

/// Batch norm in evaluation, and frozen: y = weight (x - mean) / sqrt(var + eps) + bias, with the running statistics.
///
/// Any number of samples, none included, and nothing in a sample depends on its neighbours. Weight and bias as in
/// [`batch_norm_train`]. The workspace holds one number a channel. [`batch_norm_fold`] makes one multiplication and one
/// addition of all.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Epsilon`], [`Error::Level`],
/// [`Error::Variance`].
///
/// ```
/// use layernorm::{Batch, BatchMut, Params, Rows, RowsMut, Run, RunningRef, Workspace, batch_norm_eval};
///
/// let (x, mut y) = ([5.0f32, 7.0], [0.0; 2]); // one sample of two channels
/// let running = RunningRef { mean: &[1.0, 0.0], var: &[4.0, 1.0] };
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// let to = BatchMut::channels_last(RowsMut::new(&mut y, 2)?, 1)?;
/// let x = Batch::channels_last(Rows::new(&x, 2)?, 1)?;
/// batch_norm_eval(x, params, running, to, &mut Workspace::new(), Run::default())?;
/// assert_eq!(y, [2.0, 7.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_eval<E: Element, P: Companion<E>>(
    x: Batch<'_, E>,
    params: Params<'_, P>,
    running: RunningRef<'_, E::Acc>,
    y: BatchMut<'_, E>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    y.grid().expect("y", &x.grid())?;
    let (grid, y) = (x.grid(), y.target());
    eval((grid, x.source()), params, running, (y, false), (workspace, run))
}

/// [`batch_norm_eval`] in place. The same bits.
///
/// # Errors
/// As [`batch_norm_eval`].
///
/// ```
/// use layernorm::{BatchMut, Params, RowsMut, Run, RunningRef, Workspace, batch_norm_eval_in_place};
///
/// let mut x = [5.0f32, 3.0];
/// let running = RunningRef { mean: &[1.0], var: &[4.0] };
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// let batch = BatchMut::channels_last(RowsMut::new(&mut x, 1)?, 1)?;
/// batch_norm_eval_in_place(batch, params, running, &mut Workspace::new(), Run::default())?;
/// assert_eq!(x, [2.0, 1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_eval_in_place<E: Element, P: Companion<E>>(
    x: BatchMut<'_, E>,
    params: Params<'_, P>,
    running: RunningRef<'_, E::Acc>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    let (grid, (x, y)) = (x.grid(), x.in_place());
    eval((grid, x), params, running, (y, true), (workspace, run))
}

fn eval<E: Element, P: Companion<E>>(
    x: (Grid, Source<'_, E>),
    params: Params<'_, P>,
    running: RunningRef<'_, E::Acc>,
    (y, in_place): (Target<'_, E>, bool),
    (workspace, run): (&mut Workspace<E::Acc>, Run),
) -> Result<(), Error> {
    let call = Forward::new(x, params, y, in_place)?;
    let channels = call.inputs.grid.channels;
    running.check(channels)?;
    let rstd = workspace.room(channels);
    for (channel, rstd) in rstd.iter_mut().enumerate() {
        *rstd = running.rstd(channel, call.form.eps);
    }
    call.given([running.mean, &[], rstd], run)
}

/// The gradients of [`batch_norm_eval`], given that of its output; the running statistics are constants. So a frozen
/// norm is trained: dx = weight dy / sqrt(var + eps), with the gradients of weight and bias besides.
///
/// # Errors
/// As [`batch_norm_eval`], and [`Error::RowIndex`].
///
/// ```
/// use layernorm::{Batch, BatchGradients, BatchMut, BatchNorm, Rows, RowsMut, Run, RunningRef};
/// use layernorm::batch_norm_eval_backward;
///
/// let norm = BatchNorm::<f64>::new(1).with_eps(0.0);
/// let running = RunningRef { mean: &[1.0], var: &[4.0] };
/// let (x, dy, mut dx) = ([5.0, 7.0], [1.0, 2.0], [0.0; 2]);
/// let mut grads = norm.zero_grads();
/// let dx_to = Some(BatchMut::channels_last(RowsMut::new(&mut dx, 1)?, 1)?);
/// let gradients = BatchGradients { dx: dx_to, params: grads.as_mut() };
/// let of = |values| Batch::channels_last(Rows::new(values, 1)?, 1);
/// batch_norm_eval_backward(of(&x)?, of(&dy)?, norm.params(), running, gradients, Run::default())?;
/// assert_eq!((dx, grads.dweight, grads.dbias), ([0.5, 1.0], Some(vec![8.0]), Some(vec![3.0])));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_eval_backward<E: Element, P: Companion<E>>(
    x: Batch<'_, E>,
    dy: Batch<'_, E>,
    params: Params<'_, P>,
    running: RunningRef<'_, E::Acc>,
    gradients: BatchGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    frozen(backward(x, dy, params, of_running(running), gradients.dx)?, gradients.params, run)
}

/// [`batch_norm_eval_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`batch_norm_eval_backward`].
///
/// ```
/// use layernorm::{Batch, BatchMut, BatchNorm, Rows, RowsMut, Run, RunningRef};
/// use layernorm::batch_norm_eval_backward_in_place;
///
/// let norm = BatchNorm::<f64>::new(1).with_eps(0.0);
/// let (mut dy, mut grads) = ([1.0, 2.0], norm.zero_grads());
/// let x = Batch::channels_last(Rows::new(&[5.0, 7.0], 1)?, 1)?;
/// let of_dy = BatchMut::channels_last(RowsMut::new(&mut dy, 1)?, 1)?;
/// let running = RunningRef { mean: &[1.0], var: &[4.0] };
/// batch_norm_eval_backward_in_place(x, of_dy, norm.params(), running, grads.as_mut(), Run::default())?;
/// assert_eq!(dy, [0.5, 1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_eval_backward_in_place<E: Element, P: Companion<E>>(
    x: Batch<'_, E>,
    dy: BatchMut<'_, E>,
    params: Params<'_, P>,
    running: RunningRef<'_, E::Acc>,
    gradients: ParamGradients<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    frozen(backward_in_place(x, dy, params, of_running(running))?, gradients, run)
}

/// A mean, no correction; and the variance, of which the call makes what it needs.
fn of_running<T>(RunningRef { mean, var }: RunningRef<'_, T>) -> StatsRef<'_, T> {
    StatsRef { m: mean, c: &[], rstd: var }
}

fn frozen<E: Element>(
    call: Backward<'_, E>,
    gradients: ParamGradients<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    RunningRef { mean: call.saved.m, var: call.saved.rstd }.check(call.inputs.grid.channels)?;
    Backward { frozen: true, ..call }.run(gradients, run)
}

fn backward<'a, E: Element, P: Companion<E>>(
    x: Batch<'a, E>,
    dy: Batch<'a, E>,
    params: Params<'a, P>,
    saved: StatsRef<'a, E::Acc>,
    dx: Option<BatchMut<'a, E>>,
) -> Result<Backward<'a, E>, Error> {
    let grid = x.grid();
    dy.grid().expect("dy", &grid)?;
    if let Some(dx) = &dx {
        dx.grid().expect("dx", &grid)?;
    }
    let dx = dx.map(BatchMut::target);
    Ok(Backward { dx, ..Backward::new((grid, x.source()), dy.source(), params, saved)? })
}

fn backward_in_place<'a, E: Element, P: Companion<E>>(
    x: Batch<'a, E>,
    dy: BatchMut<'a, E>,
    params: Params<'a, P>,
    saved: StatsRef<'a, E::Acc>,
) -> Result<Backward<'a, E>, Error> {
    dy.grid().expect("dy", &x.grid())?;
    let (dy, dx) = dy.in_place();
    let call = Backward::new((x.grid(), x.source()), dy, params, saved)?;
    Ok(Backward { dx: Some(dx), in_place: true, ..call })
}

/// Run a call that others may wait for: they must not, where it is refused here.
fn together(reducer: Option<&dyn Reducer>, call: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    let result = call();
    // Those two all ranks have alike.
    let alone = !matches!(result, Ok(()) | Err(Error::Count { .. } | Error::Reducer { .. }));
    if let Some(reducer) = reducer.filter(|_| alone) {
        reducer.abort();
    }
    result
}

/// Batch norm folded into y = scale x + shift, one pair a channel.
///
/// ```
/// use layernorm::{Params, RunningRef, batch_norm_fold};
///
/// let running = RunningRef { mean: &[1.0f32], var: &[4.0] };
/// let folded = batch_norm_fold(Params { weight: Some(&[3.0f32]), bias: Some(&[2.0]), eps: 0.0 }, running)?;
/// assert_eq!((&folded.scale[..], &folded.shift[..]), (&[1.5][..], &[0.5][..]));
///
/// // The linear layer or convolution before it: one row of weights for each channel.
/// let (mut weight, mut bias) = ([1.0f32, 2.0], [4.0]);
/// folded.into_layer(&mut weight, &mut bias)?;
/// assert_eq!((weight, bias), ([1.5, 3.0], [6.5]));
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Folded<T> {
    /// weight / sqrt(var + eps).
    pub scale: Vec<T>,
    /// bias - mean scale.
    pub shift: Vec<T>,
}

/// Fold the running statistics and the parameters into a scale and a shift for each channel. In f64, and rounded once.
/// Allocates the two.
///
/// Source: the algebra of [`batch_norm_eval`]; `FrozenBatchNorm2d` of torchvision.
///
/// # Errors
/// [`Error::Length`], [`Error::Epsilon`], [`Error::Variance`], and [`Error::NoChannels`] of no channels.
///
/// ```
/// # use layernorm::{Params, RunningRef, batch_norm_fold};
/// let running = RunningRef { mean: &[1.0f64], var: &[4.0] };
/// assert_eq!(batch_norm_fold(Params { eps: 0.0, ..Params::<f64>::default() }, running)?.scale, [0.5]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_fold<T: Real, P: Element<Acc = T>>(
    params: Params<'_, P>,
    running: RunningRef<'_, T>,
) -> Result<Folded<T>, Error> {
    let channels = running.mean.len();
    if channels == 0 {
        return Err(Error::NoChannels { channels, positions: 1 });
    }
    running.check(channels)?;
    let eps = crate::form::Form::<T>::new(params.eps, channels)?.eps.to_f64();
    let [weight, bias] = params.affine::<P>(channels)?;
    let (mut scale, mut shift) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
    for channel in 0..channels {
        let [var, mean] = [running.var[channel], running.mean[channel]].map(|of| of.to_f64());
        let [weight, bias] = [&weight, &bias].map(|of| of.number(0, channel).to_f64());
        let factor = weight * RunningRef { mean: &[mean], var: &[var] }.rstd(0, eps);
        scale.push(T::from_f64(factor));
        shift.push(T::from_f64((-mean).mul_add(factor, bias)));
    }
    Ok(Folded { scale, shift })
}

/// y = scale x + shift of each channel, by one fma: frozen batch norm, but for rounding.
///
/// # Errors
/// Before anything is written: [`Error::Shape`], [`Error::Length`], [`Error::Level`].
///
/// ```
/// use layernorm::{Batch, BatchMut, Folded, Rows, RowsMut, Run, batch_norm_folded};
///
/// let folded = Folded { scale: vec![1.5f32], shift: vec![0.5] };
/// let (x, mut y) = ([1.0f32, 3.0], [0.0; 2]);
/// let to = BatchMut::channels_last(RowsMut::new(&mut y, 1)?, 1)?;
/// batch_norm_folded(Batch::channels_last(Rows::new(&x, 1)?, 1)?, &folded, to, Run::default())?;
/// assert_eq!(y, [2.0, 5.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn batch_norm_folded<E: Element>(
    x: Batch<'_, E>,
    folded: &Folded<E::Acc>,
    y: BatchMut<'_, E>,
    run: Run,
) -> Result<(), Error> {
    y.grid().expect("y", &x.grid())?;
    let channels = x.channels();
    for (what, got) in [("scale", folded.scale.len()), ("shift", folded.shift.len())] {
        if got != channels {
            return Err(Error::Length { what, expected: channels, got });
        }
    }
    let call = Forward::new((x.grid(), x.source()), Params::<E>::default(), y.target(), false)?;
    let weight = Affine::new(Some(Values::Wide(&folded.scale)), 1.0);
    let bias = Affine::new(Some(Values::Wide(&folded.shift)), -0.0);
    // No mean; and a deviation of 1.
    let one = [E::Acc::from_f64(1.0)];
    Forward { weight, bias, ..call }.given([&[], &[], &one], run)
}

impl<T: Real> Folded<T> {
    /// Fold the pair further, into the linear layer or convolution before the norm, which then gives its output: `weight`
    /// holds one run of numbers for each channel (output channels first), `bias` one number. For a layer without a
    /// bias, give zeros. In f64, and rounded once.
    ///
    /// # Errors
    /// Before anything is written: [`Error::Length`], and [`Error::Divide`] if the channels do not divide the weights.
    pub fn into_layer<E: Element<Acc = T>>(&self, weight: &mut [E], bias: &mut [E]) -> Result<(), Error> {
        let channels = self.scale.len();
        for (what, got) in [("shift", self.shift.len()), ("bias", bias.len())] {
            if got != channels {
                return Err(Error::Length { what, expected: channels, got });
            }
        }
        if channels == 0 || !weight.len().is_multiple_of(channels) {
            return Err(Error::Divide { what: "weights", len: weight.len(), parts: channels });
        }
        let run = weight.len() / channels;
        for (channel, bias) in bias.iter_mut().enumerate() {
            let [scale, shift] = [self.scale[channel], self.shift[channel]].map(|of| of.to_f64());
            for weight in &mut weight[channel * run..][..run] {
                *weight = E::from_f64(weight.to_f64() * scale);
            }
            *bias = E::from_f64(bias.to_f64().mul_add(scale, shift));
        }
        Ok(())
    }
}

/// A batch norm that holds its parameters and running statistics.
///
/// ```
/// use layernorm::{Batch, BatchMut, BatchNorm, Convention, Rows, RowsMut, Stats};
///
/// let mut norm = BatchNorm::<f32>::new(2).with_convention(Convention::Flax { momentum: 0.5 });
/// let (x, dy) = ([1.0, 10.0, 3.0, 20.0], [0.5; 4]); // (N, C)
/// let (mut y, mut dx) = ([0.0; 4], [0.0; 4]);
/// let (mut saved, mut grads) = (Stats::new(2), norm.zero_grads());
/// let batch = Batch::channels_last(Rows::new(&x, 2)?, 1)?;
/// norm.forward_train(batch, BatchMut::channels_last(RowsMut::new(&mut y, 2)?, 1)?, &mut saved)?;
/// assert_eq!(norm.running.mean, [1.0, 7.5]);
/// let (dy, dx) = (Batch::channels_last(Rows::new(&dy, 2)?, 1)?, RowsMut::new(&mut dx, 2)?);
/// norm.backward(batch, dy, &saved, BatchMut::channels_last(dx, 1)?, &mut grads)?;
/// assert_eq!(grads.dbias, Some(vec![1.0; 2]));
/// norm.forward_eval(batch, BatchMut::channels_last(RowsMut::new(&mut y, 2)?, 1)?)?;
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BatchNorm<T> {
    /// gamma: one a channel, or one for all.
    pub weight: Option<Vec<T>>,
    /// beta: one a channel, or one for all.
    pub bias: Option<Vec<T>>,
    /// Added to the variance.
    pub eps: f64,
    /// What evaluation uses in place of a batch's statistics.
    pub running: RunningStats<T>,
    /// Whose formula moves them.
    pub convention: Convention,
    /// How calls run.
    pub run: Run,
    /// Memory of training passes, kept for the next one.
    pub workspace: Workspace<T>,
}

impl<T: Real> BatchNorm<T> {
    /// Weight 1 and bias 0, one a channel; running mean 0 and variance 1; PyTorch's convention and epsilon, 1e-5.
    pub fn new(channels: usize) -> Self {
        Self {
            weight: Some(vec![T::from_f64(1.0); channels]),
            bias: Some(vec![T::from_f64(0.0); channels]),
            eps: Convention::PYTORCH.eps(),
            running: RunningStats::new(channels),
            convention: Convention::PYTORCH,
            run: Run::default(),
            workspace: Workspace::new(),
        }
    }

    /// The same by this convention, with its epsilon.
    #[must_use]
    pub fn with_convention(self, convention: Convention) -> Self {
        Self { convention, eps: convention.eps(), ..self }
    }

    /// The same with this epsilon.
    #[must_use]
    pub fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// The same without weight and bias.
    #[must_use]
    pub fn without_affine(self) -> Self {
        Self { weight: None, bias: None, ..self }
    }

    /// The parameters, as the functions take them.
    pub fn params(&self) -> Params<'_, T> {
        Params { weight: self.weight.as_deref(), bias: self.bias.as_deref(), eps: self.eps }
    }

    /// Gradients of the parameters, zero, with an empty workspace. Allocates.
    pub fn zero_grads(&self) -> ParamGrads<T> {
        ParamGrads::zeros(self.weight.as_ref().map(Vec::len), self.bias.as_ref().map(Vec::len))
    }

    /// [`batch_norm_train`], which moves the running statistics.
    ///
    /// # Errors
    /// As [`batch_norm_train`].
    pub fn forward_train(
        &mut self,
        x: Batch<'_, T>,
        y: BatchMut<'_, T>,
        saved: &mut Stats<T>,
    ) -> Result<(), Error> {
        let params = Params { weight: self.weight.as_deref(), bias: self.bias.as_deref(), eps: self.eps };
        let running = Some(self.running.as_mut(self.convention));
        let training = Training { running, ..Training::new(saved.as_mut(), &mut self.workspace) };
        batch_norm_train(x, params, y, training, self.run)
    }

    /// [`batch_norm_eval`]. Allocates one number a channel.
    ///
    /// # Errors
    /// As [`batch_norm_eval`].
    pub fn forward_eval(&self, x: Batch<'_, T>, y: BatchMut<'_, T>) -> Result<(), Error> {
        batch_norm_eval(x, self.params(), self.running.as_ref(), y, &mut Workspace::new(), self.run)
    }

    /// [`batch_norm_train_backward`]: the gradients of input and parameters, after [`BatchNorm::forward_train`].
    ///
    /// # Errors
    /// As [`batch_norm_train_backward`].
    pub fn backward(
        &self,
        x: Batch<'_, T>,
        dy: Batch<'_, T>,
        saved: &Stats<T>,
        dx: BatchMut<'_, T>,
        grads: &mut ParamGrads<T>,
    ) -> Result<(), Error> {
        let gradients = BatchGradients { dx: Some(dx), params: grads.as_mut() };
        batch_norm_train_backward(x, dy, self.params(), Trained::new(saved.as_ref()), gradients, self.run)
    }

    /// [`batch_norm_eval_backward`]: the gradients of input and parameters, after [`BatchNorm::forward_eval`].
    ///
    /// # Errors
    /// As [`batch_norm_eval_backward`].
    pub fn backward_eval(
        &self,
        x: Batch<'_, T>,
        dy: Batch<'_, T>,
        dx: BatchMut<'_, T>,
        grads: &mut ParamGrads<T>,
    ) -> Result<(), Error> {
        let gradients = BatchGradients { dx: Some(dx), params: grads.as_mut() };
        batch_norm_eval_backward(x, dy, self.params(), self.running.as_ref(), gradients, self.run)
    }

    /// [`batch_norm_fold`].
    ///
    /// # Errors
    /// As [`batch_norm_fold`].
    pub fn fold(&self) -> Result<Folded<T>, Error> {
        batch_norm_fold(self.params(), self.running.as_ref())
    }
}
