//! Group norm (Wu, He 2018, arXiv:1803.08494, equations 1 to 7) and instance norm (Ulyanov, Vedaldi, Lempitsky 2016,
//! arXiv:1607.08022, equation 2), which has as many groups as channels:
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

use crate::activation::Activation;
use crate::affine::{Affine, Runs};
use crate::by_row::{Columns, Statistics};
use crate::element::Values;
use crate::form::Form;
use crate::over::{Axes, Axis, OverBackward, OverForward, Plan};
use crate::rows::{Source, Target};
use crate::{
    Companion, Element, Error, Images, Layout, ParamGradients, Params, Run, StatsMut, StatsRef, Workspace,
};

/// A group norm: of which images, in how many groups, with which parameters (one a channel, one for all, or none), and
/// what follows it.
///
/// ```
/// use layernorm::{Activation, Groups, Images, Layout, Params};
///
/// let images = Images::new(8, 320, &[64, 64], Layout::ChannelsFirst)?;
/// let norm = Groups { images, groups: 32, params: Params::<f32>::default(), activation: Activation::Silu };
/// # assert_eq!(norm.groups, 32);
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Groups<'a, P> {
    /// Shape and layout of `x`, `y`, and their gradients.
    pub images: Images,
    /// Groups of channels, each normalised by itself: a divisor of the channels.
    pub groups: usize,
    /// Weight and bias (one a channel, or one for all), and epsilon.
    pub params: Params<'a, P>,
    /// What is done to the output: nothing, or SiLU.
    pub activation: Activation,
}

/// An instance norm: [`Groups`] of one channel.
///
/// ```
/// use layernorm::{Activation, Images, Instances, Layout, Params};
///
/// let images = Images::new(8, 3, &[64, 64], Layout::ChannelsLast)?;
/// let norm = Instances { images, params: Params::<f32>::default(), activation: Activation::None };
/// # assert_eq!(norm.images.channels(), 3);
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Instances<'a, P> {
    /// Shape and layout of `x`, `y`, and their gradients.
    pub images: Images,
    /// Weight and bias (one a channel, or one for all), and epsilon.
    pub params: Params<'a, P>,
    /// What is done to the output: nothing, or SiLU.
    pub activation: Activation,
}

/// Where the gradients of a norm of a whole tensor go.
///
/// ```
/// use layernorm::{ParamGradients, TensorGradients, Workspace};
///
/// let (mut dx, mut dbias, mut workspace) = ([0.0f32; 8], [0.0f32; 2], Workspace::new());
/// let params = ParamGradients {
///     dweight: None,
///     dbias: Some(&mut dbias),
///     accumulate: false,
///     first_row: 0,
///     workspace: &mut workspace,
/// };
/// let wanted = TensorGradients { dx: Some(&mut dx[..]), params };
/// # assert!(wanted.dx.is_some());
/// ```
#[derive(Debug)]
pub struct TensorGradients<'a, E: Element> {
    /// Gradient of the input, which lies as the input does.
    pub dx: Option<&'a mut [E]>,
    /// Gradients of the parameters, those that are wanted, and the workspace, which is needed in any case.
    pub params: ParamGradients<'a, E::Acc>,
}

impl<'a, P> Groups<'a, P> {
    /// The rows: a group of a sample each.
    fn plan(&self) -> Result<Plan, Error> {
        let (images, groups) = (self.images, self.groups);
        let (channels, positions) = (images.channels(), images.positions());
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::Groups { channels, groups });
        }
        let per_group = channels / groups;
        let [of_channel, of_position] = match images.layout() {
            Layout::ChannelsFirst => [positions, 1],
            Layout::ChannelsLast => [1, channels],
        };
        let axis = |size, stride| Axis { size, stride };
        let samples = images.samples();
        Ok(Plan {
            rows: samples * groups,
            features: per_group * positions,
            outer: Axes::of([axis(samples, channels * positions), axis(groups, per_group * of_channel)]),
            inner: Axes::of([axis(per_group, of_channel), axis(positions, of_position)]),
            runs: Runs { run: positions, per_row: per_group },
            params: channels,
            first_param: Axes::of([axis(samples, 0), axis(groups, per_group)]),
            param_of_run: Axes::of([axis(per_group, 1)]),
            sample: Axes::of([axis(samples, 1), axis(groups, 0)]),
            samples,
            by_feature: false,
        })
    }

    fn forward<E: Element>(
        &self,
        (x, y, in_place): (Source<'a, E>, Target<'a, E>, bool),
        saved: Option<StatsMut<'a, E::Acc>>,
    ) -> Result<OverForward<'a, E>, Error>
    where
        P: Companion<E>,
    {
        let plan = self.plan()?;
        let saved = saved.map(|saved| saved.columns(plan.rows)).transpose()?;
        let Checked { weight, bias, form } = Checked::new(&self.params, &plan)?;
        let (statistics, activation) = (Statistics::Centred, self.activation);
        Ok(OverForward {
            plan,
            statistics,
            x,
            y,
            in_place,
            weight,
            bias,
            form,
            saved,
            activation,
            mask: None,
        })
    }

    fn backward<E: Element>(
        &self,
        (x, dy): (Source<'a, E>, Source<'a, E>),
        (dx, in_place): (Option<Target<'a, E>>, bool),
        saved: Option<StatsRef<'a, E::Acc>>,
        params: ParamGradients<'_, E::Acc>,
        run: Run,
    ) -> Result<(), Error>
    where
        P: Companion<E>,
    {
        let plan = self.plan()?;
        let saved: Option<Columns<_>> = saved.map(|saved| saved.columns(plan.rows)).transpose()?;
        let Checked { weight, bias, form } = Checked::new(&self.params, &plan)?;
        let (statistics, activation, mask) = (Statistics::Centred, self.activation, None);
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

/// Weight, bias and form of a plan's rows, checked.
pub(crate) struct Checked<'a, E: Element> {
    pub(crate) weight: Option<Values<'a, E>>,
    pub(crate) bias: Option<Values<'a, E>>,
    pub(crate) form: Form<E::Acc>,
}

impl<'a, E: Element> Checked<'a, E> {
    pub(crate) fn new<P: Companion<E>>(params: &Params<'a, P>, plan: &Plan) -> Result<Self, Error> {
        let form = Form::new(params.eps, plan.features)?;
        Affine::<E>::expect("weight", params.weight.map(<[P]>::len), plan.params)?;
        Affine::<E>::expect("bias", params.bias.map(<[P]>::len), plan.params)?;
        Ok(Self { weight: params.weight.map(P::values), bias: params.bias.map(P::values), form })
    }
}

impl<'a, P> From<Instances<'a, P>> for Groups<'a, P> {
    fn from(of: Instances<'a, P>) -> Self {
        let Instances { images, params, activation } = of;
        Self { images, groups: images.channels(), params, activation }
    }
}

/// Group norm of `x`, into `y`: y = weight (x - mean) / sqrt(var + eps) + bias, where mean and variance are those of a
/// group of channels of one sample, and weight and bias are a channel's.
///
/// `x` and `y` have as many numbers as the images. The statistics go to `saved`, one entry for each group of each
/// sample, sample by sample. Groups of channels that lie together (channels first) are normalised where they lie; others
/// in tiles in the workspace, which grows (allocates) where it is too small. Nothing else is allocated.
///
/// Both layouts give the same bits. With one group they are those of a layer norm over channels and positions; with as
/// many groups as channels, those of [`instance_norm`]; with an activation, those of [`silu`](crate::silu) after the
/// norm without. A group of one number, or of equal numbers, gives exactly the bias. Order and bounds are in
/// `docs/numerics.md`.
///
/// # Errors
/// Before anything is written: [`Error::Groups`], [`Error::Length`], [`Error::Epsilon`], [`Error::Level`],
/// [`Error::Overflow`].
///
/// ```
/// use layernorm::{Activation, Groups, Images, Layout, Params, Run, Workspace, group_norm};
///
/// let images = Images::new(1, 4, &[1], Layout::ChannelsFirst)?;
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// let norm = Groups { images, groups: 2, params, activation: Activation::None };
/// let mut y = [0.0f32; 4];
/// group_norm(norm, &[1.0, 3.0, 10.0, 20.0], &mut y, None, &mut Workspace::new(), Run::default())?;
/// assert_eq!(y, [-1.0, 1.0, -1.0, 1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn group_norm<E: Element, P: Companion<E>>(
    norm: Groups<'_, P>,
    x: &[E],
    y: &mut [E],
    saved: Option<StatsMut<'_, E::Acc>>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    norm.images.expect("x", x.len())?;
    norm.images.expect("y", y.len())?;
    norm.forward((Source::numbers(x), Target::every(y, 1), false), saved)?.run(workspace, run)
}

/// [`group_norm`] in place. The same bits.
///
/// # Errors
/// As [`group_norm`].
///
/// ```
/// use layernorm::{Activation, Groups, Images, Layout, Params, Run, Workspace, group_norm_in_place};
///
/// let images = Images::new(1, 2, &[2], Layout::ChannelsLast)?;
/// let params = Params { eps: 0.0, ..Params::<f64>::default() };
/// let norm = Groups { images, groups: 2, params, activation: Activation::None };
/// let mut x = [1.0f64, 30.0, 3.0, 10.0];
/// group_norm_in_place(norm, &mut x, None, &mut Workspace::new(), Run::default())?;
/// assert_eq!(x, [-1.0, 1.0, 1.0, -1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn group_norm_in_place<E: Element, P: Companion<E>>(
    norm: Groups<'_, P>,
    x: &mut [E],
    saved: Option<StatsMut<'_, E::Acc>>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    norm.images.expect("x", x.len())?;
    let (x, y) = Target::both(x);
    norm.forward((x, y, true), saved)?.run(workspace, run)
}

/// The gradients of [`group_norm`], given that of its output.
///
/// `saved` holds the statistics of the forward pass; without them they are taken from `x` once more. An activation's
/// input is computed once more in any case. `first_row` is the index of the call's first *sample* in the whole batch:
/// dweight and dbias are the sums of a channel's positions, in the order of a row's sums, and of those over samples, in
/// the order of sums over rows. Parameters that are not wanted need no gradient, but the workspace is needed in any case:
/// it grows (allocates) where it is too small.
///
/// # Errors
/// As [`group_norm`], and [`Error::RowIndex`].
///
/// ```
/// use layernorm::{
///     Activation, Groups, Images, Layout, ParamGradients, Params, Run, TensorGradients, Workspace, group_norm_backward,
/// };
///
/// let images = Images::new(1, 2, &[2], Layout::ChannelsFirst)?;
/// let params = Params { eps: 0.0, ..Params::<f64>::default() };
/// let norm = Groups { images, groups: 1, params, activation: Activation::None };
/// let (mut dx, mut dbias, mut workspace) = ([0.0; 4], [0.0; 2], Workspace::new());
/// let params = ParamGradients {
///     dweight: None,
///     dbias: Some(&mut dbias),
///     accumulate: false,
///     first_row: 0,
///     workspace: &mut workspace,
/// };
/// let wanted = TensorGradients { dx: Some(&mut dx), params };
/// group_norm_backward(norm, &[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 3.0, 1.0], None, wanted, Run::default())?;
/// assert_eq!(dbias, [4.0, 4.0]);
/// assert!(dx.iter().sum::<f64>().abs() < 1e-15);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn group_norm_backward<E: Element, P: Companion<E>>(
    norm: Groups<'_, P>,
    x: &[E],
    dy: &[E],
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: TensorGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let TensorGradients { dx, params } = gradients;
    norm.images.expect("x", x.len())?;
    norm.images.expect("dy", dy.len())?;
    if let Some(dx) = &dx {
        norm.images.expect("dx", dx.len())?;
    }
    let dx = dx.map(|dx| Target::every(dx, 1));
    norm.backward((Source::numbers(x), Source::numbers(dy)), (dx, false), saved, params, run)
}

/// [`group_norm_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`group_norm_backward`].
///
/// ```
/// use layernorm::{
///     Activation, Groups, Images, Layout, ParamGradients, Params, Run, Workspace, group_norm_backward_in_place,
/// };
///
/// let images = Images::new(2, 1, &[2], Layout::ChannelsFirst)?;
/// let norm = Groups { images, groups: 1, params: Params::<f64>::default(), activation: Activation::None };
/// let (mut dy, mut workspace) = ([1.0, 1.0, 5.0, 5.0], Workspace::new());
/// let params =
///     ParamGradients { dweight: None, dbias: None, accumulate: false, first_row: 0, workspace: &mut workspace };
/// group_norm_backward_in_place(norm, &[1.0, 2.0, 3.0, 4.0], &mut dy, None, params, Run::default())?;
/// assert_eq!(dy, [0.0; 4]); // a norm can't be moved along the ones
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn group_norm_backward_in_place<E: Element, P: Companion<E>>(
    norm: Groups<'_, P>,
    x: &[E],
    dy: &mut [E],
    saved: Option<StatsRef<'_, E::Acc>>,
    params: ParamGradients<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    norm.images.expect("x", x.len())?;
    norm.images.expect("dy", dy.len())?;
    let (dy, dx) = Target::both(dy);
    norm.backward((Source::numbers(x), dy), (Some(dx), true), saved, params, run)
}

/// Instance norm of `x`, into `y`: [`group_norm`] with as many groups as channels, and the same bits.
///
/// # Errors
/// As [`group_norm`].
///
/// ```
/// use layernorm::{Activation, Images, Instances, Layout, Params, Run, Workspace, instance_norm};
///
/// let images = Images::new(1, 2, &[2], Layout::ChannelsFirst)?;
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// let norm = Instances { images, params, activation: Activation::None };
/// let mut y = [0.0f32; 4];
/// instance_norm(norm, &[1.0, 3.0, 10.0, 20.0], &mut y, None, &mut Workspace::new(), Run::default())?;
/// assert_eq!(y, [-1.0, 1.0, -1.0, 1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn instance_norm<E: Element, P: Companion<E>>(
    norm: Instances<'_, P>,
    x: &[E],
    y: &mut [E],
    saved: Option<StatsMut<'_, E::Acc>>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    group_norm(norm.into(), x, y, saved, workspace, run)
}

/// [`instance_norm`] in place. The same bits.
///
/// # Errors
/// As [`group_norm`].
///
/// ```
/// use layernorm::{Activation, Images, Instances, Layout, Params, Run, Workspace, instance_norm_in_place};
///
/// let images = Images::new(1, 1, &[2], Layout::ChannelsFirst)?;
/// let params = Params { eps: 0.0, ..Params::<f32>::default() };
/// let mut x = [1.0f32, 3.0];
/// let norm = Instances { images, params, activation: Activation::None };
/// instance_norm_in_place(norm, &mut x, None, &mut Workspace::new(), Run::default())?;
/// assert_eq!(x, [-1.0, 1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn instance_norm_in_place<E: Element, P: Companion<E>>(
    norm: Instances<'_, P>,
    x: &mut [E],
    saved: Option<StatsMut<'_, E::Acc>>,
    workspace: &mut Workspace<E::Acc>,
    run: Run,
) -> Result<(), Error> {
    group_norm_in_place(norm.into(), x, saved, workspace, run)
}

/// The gradients of [`instance_norm`]: [`group_norm_backward`] with as many groups as channels.
///
/// # Errors
/// As [`group_norm_backward`].
///
/// ```
/// use layernorm::{
///     Activation, Images, Instances, Layout, ParamGradients, Params, Run, TensorGradients, Workspace,
///     instance_norm_backward,
/// };
///
/// let images = Images::new(1, 1, &[2], Layout::ChannelsFirst)?;
/// let norm = Instances { images, params: Params::<f32>::default(), activation: Activation::None };
/// let (mut dbias, mut workspace) = ([0.0], Workspace::new());
/// let params = ParamGradients {
///     dweight: None,
///     dbias: Some(&mut dbias),
///     accumulate: false,
///     first_row: 0,
///     workspace: &mut workspace,
/// };
/// instance_norm_backward(norm, &[1.0, 5.0], &[1.0, 3.0], None, TensorGradients { dx: None, params }, Run::default())?;
/// assert_eq!(dbias, [4.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn instance_norm_backward<E: Element, P: Companion<E>>(
    norm: Instances<'_, P>,
    x: &[E],
    dy: &[E],
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: TensorGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    group_norm_backward(norm.into(), x, dy, saved, gradients, run)
}

/// [`instance_norm_backward`] in place: `dy` becomes dx. The same bits.
///
/// # Errors
/// As [`group_norm_backward`].
///
/// ```
/// use layernorm::{
///     Activation, Images, Instances, Layout, ParamGradients, Params, Run, Workspace, instance_norm_backward_in_place,
/// };
///
/// let images = Images::new(1, 1, &[1], Layout::ChannelsFirst)?;
/// let norm = Instances { images, params: Params::<f32>::default(), activation: Activation::None };
/// let (mut dy, mut workspace) = ([7.0], Workspace::new());
/// let params =
///     ParamGradients { dweight: None, dbias: None, accumulate: false, first_row: 0, workspace: &mut workspace };
/// instance_norm_backward_in_place(norm, &[3.0], &mut dy, None, params, Run::default())?;
/// assert_eq!(dy, [0.0]); // one number is always the bias
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn instance_norm_backward_in_place<E: Element, P: Companion<E>>(
    norm: Instances<'_, P>,
    x: &[E],
    dy: &mut [E],
    saved: Option<StatsRef<'_, E::Acc>>,
    params: ParamGradients<'_, E::Acc>,
    run: Run,
) -> Result<(), Error> {
    group_norm_backward_in_place(norm.into(), x, dy, saved, params, run)
}
