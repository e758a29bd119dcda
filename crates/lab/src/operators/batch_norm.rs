//! Batch norm, in training and in evaluation.

use super::by_row;
use super::exact::reciprocal_root;
use super::oracle::{Names, Reference, Sets};
use super::types::table;
use super::{
    Able, Expected, Extent, Flag, Given, How, Mode, Operator, Order, Problem, Signature, Slot, Structure,
    Tensors, Types,
};
use layernorm::reference::{self, Affine, Nchw};
use layernorm::{
    Batch, BatchGradients, BatchMut, Convention, Error, ParamGradients, Rows, RowsMut, RunningMut,
    RunningRef, StatsMut, StatsRef, Trained, Training, batch_norm_eval, batch_norm_eval_backward,
    batch_norm_eval_backward_in_place, batch_norm_eval_in_place, batch_norm_train, batch_norm_train_backward,
    batch_norm_train_backward_in_place, batch_norm_train_in_place,
};
use twofloat::TwoFloat;

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "batch_norm",
    formula: "y = weight (x - mean) / sqrt(var + eps) + bias over each channel of all samples",
    structure: Structure::Batch,
    flags: &[Flag::Eps, Flag::Mode, Flag::Layout, Flag::Momentum],
    eps: 1e-5,
    forward: Signature {
        needs: &[Slot::X],
        takes: &[Slot::Weight, Slot::Bias],
        writes: &[Slot::Y, Slot::Mean, Slot::Rstd],
        saves: &[Slot::M, Slot::C, Slot::Rstd],
        updates: &[Slot::RunningMean, Slot::RunningVar],
    },
    backward: by_row::BACKWARD,
    extent: |slot| match slot {
        Slot::X | Slot::Y | Slot::Dx | Slot::Dy => Extent::Whole,
        Slot::Weight | Slot::Bias | Slot::Dweight | Slot::Dbias => Extent::Channels,
        _ => Extent::PerChannel,
    },
    able: Able { strided: false, unsaved: false, ..Able::ALL },
    untimed: &[Slot::Mean],
    kernels: table!(forward, backward),
    oracle: |problem, given| match problem.options.mode {
        Mode::Train => trained(problem, given),
        Mode::Eval => evaluated(problem, given),
    },
};

fn trained(problem: &Problem, given: &Given) -> Vec<Expected> {
    let at = |channel, j| (problem.place(channel, j), channel);
    let sets = by_row::sets(problem, given, true, &at);
    let (channels, positions, n) = (problem.channels(), problem.positions(), problem.features());
    let mut all = sets.expected(given, Names::USUAL, || {
        // The reference has channels first.
        let place = |i: usize| {
            let (sample, channel, position) =
                (i / positions / channels, i / positions % channels, i % positions);
            problem.place(channel, sample * positions + position)
        };
        let gather = |of: &[f64]| -> Vec<f64> { (0..of.len()).map(|i| of[place(i)]).collect() };
        let scatter = |of: &[f64]| {
            let mut to = vec![0.0; of.len()];
            of.iter().enumerate().for_each(|(i, value)| to[place(i)] = *value);
            to
        };
        let (x, affine) = (gather(sets.x), Affine { weight: sets.weight, bias: sets.bias });
        let shape = Nchw { batch: problem.samples(), channels, positions };
        let reference::BatchForward { y, mean, rstd, .. } =
            reference::batch_norm_train(&x, shape, affine, sets.eps);
        let x_hat = reference::batch_norm_train(&x, shape, Affine::NONE, sets.eps).y;
        let back = |dy| reference::batch_norm_train_backward(&gather(dy), &x, shape, affine, sets.eps);
        let reference::Backward { dx, dweight, dbias } = sets.dy.map(back).unwrap_or_default();
        let (y, x_hat, dx) = (scatter(&y), scatter(&x_hat), scatter(&dx));
        Reference { y, mean, rstd, x_hat, dx, dweight, dbias }
    });
    // Squares of larger numbers are beyond f64.
    let moderate = sets.x.iter().all(|x| x.abs() < 1e150);
    if let (Some(mean), Some(var), true) =
        (given.get(Slot::RunningMean), given.get(Slot::RunningVar), moderate && n > 1)
    {
        let moved = running(problem, &sets, [mean, var], given.largest);
        all.extend(moved);
    }
    all
}

/// The running statistics, moved by PyTorch's formula. A statistic may err by 8 u of its own scale, and the sum rounds.
/// Nothing is known where the batch's variance, which is a number of the type of sums first, is beyond that's `largest`.
fn running(problem: &Problem, sets: &Sets<'_>, old: [&[f64]; 2], largest: f64) -> [Expected; 2] {
    let (n, momentum) = (problem.features(), problem.options.momentum);
    let (mut means, mut variances) = (Vec::new(), Vec::new());
    let (mut mean_scales, mut var_scales) = (Vec::new(), Vec::new());
    for (channel, (old_mean, old_var)) in old[0].iter().zip(old[1]).enumerate() {
        let x = || (0..n).map(|j| TwoFloat::from(sets.x[problem.place(channel, j)]));
        let add = |sum: TwoFloat, value: TwoFloat| sum + value;
        let mean = x().fold(TwoFloat::from(0.0), add) / n as f64;
        let squares = x().map(|x| (x - mean) * (x - mean)).fold(TwoFloat::from(0.0), add);
        // Scaled, because the smallest numbers' squares vanish.
        let furthest = x().map(|x| (x - mean).hi().abs()).fold(f64::MIN_POSITIVE, f64::max);
        let scaled: f64 = x().map(|x| ((x - mean).hi() / furthest).powi(2)).sum();
        let (std, var) = (furthest * (scaled / n as f64).sqrt(), squares / (n - 1) as f64);
        let keep = TwoFloat::new_sub(1.0, momentum);
        means.push(keep * *old_mean + mean * momentum);
        variances.push(keep * *old_var + var * momentum);
        mean_scales.push(old_mean.abs() + momentum * (mean.hi().abs() + std));
        let moved = old_var.abs() + momentum * var.hi().abs();
        var_scales.push(if var.hi() < largest * (1.0 - 1e-6) { moved } else { f64::INFINITY });
    }
    let one = |slot, values, scales, bound| Expected { slot, values, scales, bound, rounding: true };
    [one(Slot::RunningMean, means, mean_scales, 8.0), one(Slot::RunningVar, variances, var_scales, 16.0)]
}

/// By the running statistics, in double-double arithmetic whatever the type. Nothing is known where x_hat itself, or the
/// difference that it is made of, is out of range.
fn evaluated(problem: &Problem, given: &Given) -> Vec<Expected> {
    let (mean, var) = (given.all(Slot::RunningMean), given.all(Slot::RunningVar));
    let (x, dy) = (given.all(Slot::X), given.get(Slot::Dy));
    let (weight, bias) = (given.get(Slot::Weight), given.get(Slot::Bias));
    let own = |of: Option<&[f64]>, absent: f64, channel: usize| {
        of.map_or(absent, |of| of[if of.len() == 1 { 0 } else { channel }])
    };
    let zero = TwoFloat::from(0.0);
    let units = |of: Option<&[f64]>| of.map_or(0, <[f64]>::len);
    let (mut y, mut y_scales) = (vec![zero; x.len()], vec![0.0; x.len()]);
    let (mut dx, mut dx_scales) = (vec![zero; x.len()], vec![0.0; x.len()]);
    let mut sums = [vec![zero; units(weight)], vec![zero; units(bias)]];
    let mut sizes = [vec![0.0; units(weight)], vec![0.0; units(bias)]];
    for channel in 0..problem.channels() {
        let r = reciprocal_root(TwoFloat::new_add(var[channel], given.eps));
        let (w, b) = (own(weight, 1.0, channel), own(bias, 0.0, channel));
        for j in 0..problem.features() {
            let at = problem.place(channel, j);
            let difference = TwoFloat::new_sub(x[at], mean[channel]);
            let x_hat = difference * r;
            let size = x_hat.hi().abs().max(1.0);
            let in_range = |of: TwoFloat| of.hi().abs() < given.largest * (1.0 - 1e-6);
            let known = in_range(difference) && in_range(x_hat);
            y[at] = x_hat * w + b;
            y_scales[at] = if known { w.abs() * size } else { f64::INFINITY };
            let Some(dy) = dy.map(|dy| dy[at]) else { continue };
            dx[at] = r * w * dy;
            dx_scales[at] = dx[at].hi().abs();
            let of_weight = if known && in_range(x_hat * dy) { dy.abs() * size } else { f64::INFINITY };
            let terms = [(x_hat * dy, of_weight), (dy.into(), dy.abs())];
            for (i, (term, scale)) in terms.into_iter().enumerate() {
                let units = sums[i].len();
                if units > 0 {
                    let unit = if units == 1 { 0 } else { channel };
                    sums[i][unit] += term;
                    sizes[i][unit] += scale;
                }
            }
        }
    }
    let one = |slot, values, scales, bound, rounding| Expected { slot, values, scales, bound, rounding };
    let mut all = vec![one(Slot::Y, y, y_scales, 8.0, true)];
    if dy.is_some() {
        let [dweight, dbias] = sums;
        let [of_weight, of_bias] = sizes;
        let terms = |units: usize| (x.len() as f64 / units.max(1) as f64).max(1.0).log2();
        let (more, still_more) = (terms(dweight.len()), terms(dbias.len()));
        all.push(one(Slot::Dx, dx, dx_scales, 16.0, false));
        all.push(one(Slot::Dweight, dweight, of_weight, 16.0 + more, false));
        all.push(one(Slot::Dbias, dbias, of_bias, 8.0 + still_more, false));
    }
    all
}

fn batch<'a, N>(problem: &Problem, of: &'a Option<Vec<N>>) -> Result<Batch<'a, N>, Error> {
    let of = of.as_deref().unwrap_or_default();
    let (samples, channels, positions) = (problem.samples(), problem.channels(), problem.positions());
    match problem.options.order {
        Order::Nchw => {
            let n = channels * positions;
            Batch::channels_first(Rows::strided(of, samples, n, n)?, channels)
        }
        Order::Nhwc => {
            Batch::channels_last(Rows::strided(of, samples * positions, channels, channels)?, positions)
        }
    }
}

fn batch_mut<'a, N>(problem: &Problem, of: &'a mut Option<Vec<N>>) -> Result<BatchMut<'a, N>, Error> {
    let of = of.as_deref_mut().unwrap_or_default();
    let (samples, channels, positions) = (problem.samples(), problem.channels(), problem.positions());
    match problem.options.order {
        Order::Nchw => {
            let n = channels * positions;
            BatchMut::channels_first(RowsMut::strided(of, samples, n, n)?, channels)
        }
        Order::Nhwc => {
            BatchMut::channels_last(RowsMut::strided(of, samples * positions, channels, channels)?, positions)
        }
    }
}

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors {
        x, weight, bias, running_mean, running_var, y, mean, m, c, rstd, workspace, second, ..
    } = tensors;
    let params = by_row::params(problem, weight, bias);
    if problem.options.mode == Mode::Eval {
        // Statistics are the caller's: there are none to be told.
        (*mean, *m, *c, *rstd) = (None, None, None, None);
        let (mean, var) = (running_mean.as_deref(), running_var.as_deref());
        let running = RunningRef { mean: mean.unwrap_or_default(), var: var.unwrap_or_default() };
        return if how.in_place {
            batch_norm_eval_in_place(batch_mut(problem, x)?, params, running, workspace, how.run)
        } else {
            let (x, y) = (batch(problem, x)?, batch_mut(problem, y)?);
            batch_norm_eval(x, params, running, y, workspace, how.run)
        };
    }
    // A training pass saves its statistics in any case.
    let channels = problem.channels();
    let mut own = layernorm::Stats::new(if m.is_some() { 0 } else { channels });
    let saved = match (m.as_deref_mut(), c.as_deref_mut(), rstd.as_deref_mut()) {
        (Some(m), Some(c), Some(rstd)) => StatsMut { m, c, rstd },
        _ => own.as_mut(),
    };
    let convention = Convention::PyTorch { momentum: Some(problem.options.momentum) };
    let mut updates = 0;
    let running = match (running_mean.as_deref_mut(), running_var.as_deref_mut()) {
        (None, None) => None,
        (mean, var) => {
            let (mean, var) = (mean.unwrap_or_default(), var.unwrap_or_default());
            Some(RunningMut { mean, var, updates: &mut updates, convention })
        }
    };
    let training = Training { running, ..Training::new(saved, second) };
    if how.in_place {
        batch_norm_train_in_place(batch_mut(problem, x)?, params, training, how.run)?;
    } else {
        batch_norm_train(batch(problem, x)?, params, batch_mut(problem, y)?, training, how.run)?;
    }
    by_row::mean(mean, m, c);
    Ok(())
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors {
        x, weight, running_mean, running_var, dy, m, c, rstd, dx, dweight, dbias, workspace, ..
    } = tensors;
    let params = by_row::params(problem, weight, &None);
    let x = batch(problem, x)?;
    let (dweight, dbias) = (dweight.as_deref_mut(), dbias.as_deref_mut());
    let (accumulate, first_row) = (how.accumulate, how.first_row);
    let of_params = ParamGradients { dweight, dbias, accumulate, first_row, workspace };
    if problem.options.mode == Mode::Eval {
        let (mean, var) = (running_mean.as_deref(), running_var.as_deref());
        let running = RunningRef { mean: mean.unwrap_or_default(), var: var.unwrap_or_default() };
        if how.in_place {
            let dy = batch_mut(problem, dy)?;
            return batch_norm_eval_backward_in_place(x, dy, params, running, of_params, how.run);
        }
        let dx = dx.is_some().then(|| batch_mut(problem, dx)).transpose()?;
        let gradients = BatchGradients { dx, params: of_params };
        return batch_norm_eval_backward(x, batch(problem, dy)?, params, running, gradients, how.run);
    }
    let [m, c, rstd] = [&*m, &*c, &*rstd].map(|of| of.as_deref().unwrap_or_default());
    let trained = Trained::new(StatsRef { m, c, rstd });
    if how.in_place {
        let dy = batch_mut(problem, dy)?;
        return batch_norm_train_backward_in_place(x, dy, params, trained, of_params, how.run);
    }
    let dx = dx.is_some().then(|| batch_mut(problem, dx)).transpose()?;
    let gradients = BatchGradients { dx, params: of_params };
    batch_norm_train_backward(x, batch(problem, dy)?, params, trained, gradients, how.run)
}
