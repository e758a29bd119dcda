//! Norms of images, by channel.

use super::{Call, RUN, in_a_row};
use crate::{Mode, Name, Number, Outputs};
use layernorm::{
    Activation, Batch, BatchGradients, BatchMut, Companion, Error, Groups, Images, Layout, Rows, RowsMut,
    RunningStats, Stats, TensorGradients, Trained, Training, Workspace,
};

pub(super) fn group_norm<E: Number, P: Companion<E>>(
    call: &Call<'_, E, P>,
    groups: usize,
    layout: Layout,
    activation: Activation,
) -> Result<Outputs<E>, Error> {
    let (case, run) = (call.case, RUN());
    let [samples, channels, positions] = case.images(layout);
    let images = Images::new(samples, channels, &[positions], layout)?;
    let norm = Groups { images, groups, params: call.params(), activation };
    let (mut y, mut dx, mut sums, mut saved) =
        (call.like_x(), call.like_x(), call.sums(), Stats::new(samples * groups));
    layernorm::group_norm(norm, &case.x, &mut y, Some(saved.as_mut()), &mut Workspace::new(), run)?;
    let gradients = TensorGradients { dx: Some(&mut dx), params: sums.gradients() };
    layernorm::group_norm_backward(norm, &case.x, &case.dy, Some(saved.as_ref()), gradients, run)?;
    Ok(sums.outputs(y, dx).wide(Name::Statistics, in_a_row(saved)))
}

pub(super) fn instance_norm<E: Number, P: Companion<E>>(
    call: &Call<'_, E, P>,
    layout: Layout,
) -> Result<Outputs<E>, Error> {
    group_norm(call, call.case.images(layout)[1], layout, Activation::None)
}

pub(super) fn batch_norm<E: Number, P: Companion<E>>(
    call: &Call<'_, E, P>,
    layout: Layout,
    mode: Mode,
) -> Result<Outputs<E>, Error> {
    let (case, params, run) = (call.case, call.params(), RUN());
    let [_, channels, positions] = case.images(layout);
    let read = |values| match layout {
        Layout::ChannelsFirst => Batch::channels_first(Rows::new(values, channels * positions)?, channels),
        Layout::ChannelsLast => Batch::channels_last(Rows::new(values, channels)?, positions),
    };
    let (mut y, mut dx, mut sums) = (call.like_x(), call.like_x(), call.sums());
    let (x, dy) = (read(&case.x)?, read(&case.dy)?);
    let (y_to, dx_to) =
        (write(&mut y, layout, [channels, positions])?, write(&mut dx, layout, [channels, positions])?);
    let gradients = BatchGradients { dx: Some(dx_to), params: sums.gradients() };
    let mut running = case.running.clone().unwrap_or_else(|| RunningStats::new(channels));
    match mode {
        Mode::Frozen => {
            layernorm::batch_norm_eval(x, params, running.as_ref(), y_to, &mut Workspace::new(), run)?;
            layernorm::batch_norm_eval_backward(x, dy, params, running.as_ref(), gradients, run)?;
            Ok(sums.outputs(y, dx))
        }
        Mode::Train(convention) => {
            let (mut saved, mut workspace) = (Stats::new(channels), Workspace::new());
            let training = Training {
                running: Some(running.as_mut(convention)),
                ..Training::new(saved.as_mut(), &mut workspace)
            };
            layernorm::batch_norm_train(x, params, y_to, training, run)?;
            let trained = Trained::new(saved.as_ref());
            layernorm::batch_norm_train_backward(x, dy, params, trained, gradients, run)?;
            let outputs = sums.outputs(y, dx).wide(Name::Statistics, in_a_row(saved));
            Ok(outputs.wide(Name::Running, [running.mean, running.var].concat()))
        }
    }
}

fn write<E>(
    values: &mut [E],
    layout: Layout,
    [channels, positions]: [usize; 2],
) -> Result<BatchMut<'_, E>, Error> {
    match layout {
        Layout::ChannelsFirst => {
            BatchMut::channels_first(RowsMut::new(values, channels * positions)?, channels)
        }
        Layout::ChannelsLast => BatchMut::channels_last(RowsMut::new(values, channels)?, positions),
    }
}
