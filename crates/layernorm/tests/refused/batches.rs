//! Batch norm.

use crate::call::{Entry, batch, batch_mut, entry, params, stats, stats_mut, sums};
use layernorm::{
    BatchGradients, Convention, Folded, RunningMut, RunningRef, Trained, Training, Valid, batch_norm_eval,
    batch_norm_eval_backward, batch_norm_eval_backward_in_place, batch_norm_eval_in_place, batch_norm_fold,
    batch_norm_folded, batch_norm_train, batch_norm_train_backward, batch_norm_train_backward_in_place,
    batch_norm_train_in_place,
};

/// Statistics are of the four channels.
macro_rules! of_channels {
    ($name:ident, $lengths:tt, $(numbers $numbers:tt,)? $(+ $flag:ident,)* |$of:pat_param| $call:expr) => {
        entry!(
            $name,
            $lengths,
            right [("m", 4), ("c", 4), ("rstd", 4), ("scale", 4), ("shift", 4)],
            $(numbers $numbers,)?
            $(+ $flag,)*
            |$of| $call
        )
    };
}

fn running<'a>(mean: &'a mut [f32], var: &'a mut [f32], updates: &'a mut u64) -> Option<RunningMut<'a, f32>> {
    Some(RunningMut { mean, var, updates, convention: Convention::PYTORCH })
}

pub(crate) const TABLE: &[Entry] = &[
    of_channels!(batch_norm_train, ["x" "y" "m" "c" "rstd" "weight" "bias" "mean" "var"], + eps, |of| {
        let mut updates = 0;
        let saved = stats_mut(&mut of.m, &mut of.c, &mut of.rstd);
        let running = running(&mut of.mean, &mut of.var, &mut updates);
        let training = Training { running, ..Training::new(saved, &mut of.workspace) };
        let params = params(&of.weight, &of.bias, of.eps);
        batch_norm_train(batch(&of.x), params, batch_mut(&mut of.y), training, of.run)
    }),
    of_channels!(batch_norm_train_in_place, ["m" "c" "rstd" "weight" "bias" "mean" "var"], + eps, |of| {
        let mut updates = 0;
        let saved = stats_mut(&mut of.m, &mut of.c, &mut of.rstd);
        let running = running(&mut of.mean, &mut of.var, &mut updates);
        let training = Training { running, ..Training::new(saved, &mut of.workspace) };
        batch_norm_train_in_place(batch_mut(&mut of.x), params(&of.weight, &of.bias, of.eps), training, of.run)
    }),
    of_channels!(
        batch_norm_train_backward,
        ["x" "dy" "dx" "m" "c" "rstd" "weight" "dweight" "dbias"],
        numbers [First],
        + eps,
        |of| {
            let params = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let gradients = BatchGradients { dx: Some(batch_mut(&mut of.dx)), params };
            let trained = Trained { saved: stats(&of.m, &of.c, &of.rstd), valid: Valid::All, reducer: None };
            let params = crate::call::params(&of.weight, &of.weight, of.eps);
            batch_norm_train_backward(batch(&of.x), batch(&of.dy), params, trained, gradients, of.run)
        }
    ),
    of_channels!(
        batch_norm_train_backward_in_place,
        ["x" "dy" "m" "c" "rstd" "weight" "dweight" "dbias"],
        numbers [First],
        + eps,
        |of| {
            let sums = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let trained = Trained { saved: stats(&of.m, &of.c, &of.rstd), valid: Valid::All, reducer: None };
            let params = params(&of.weight, &of.weight, of.eps);
            let dy = batch_mut(&mut of.dy);
            batch_norm_train_backward_in_place(batch(&of.x), dy, params, trained, sums, of.run)
        }
    ),
    of_channels!(batch_norm_eval, ["x" "y" "weight" "bias" "mean" "var"], + eps, |of| {
        let running = RunningRef { mean: &of.mean, var: &of.var };
        let params = params(&of.weight, &of.bias, of.eps);
        batch_norm_eval(batch(&of.x), params, running, batch_mut(&mut of.y), &mut of.workspace, of.run)
    }),
    of_channels!(batch_norm_eval_in_place, ["weight" "bias" "mean" "var"], + eps, |of| {
        let running = RunningRef { mean: &of.mean, var: &of.var };
        let params = params(&of.weight, &of.bias, of.eps);
        batch_norm_eval_in_place(batch_mut(&mut of.x), params, running, &mut of.workspace, of.run)
    }),
    of_channels!(
        batch_norm_eval_backward,
        ["x" "dy" "dx" "weight" "dweight" "dbias" "mean" "var"],
        numbers [First],
        + eps,
        |of| {
            let params = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let gradients = BatchGradients { dx: Some(batch_mut(&mut of.dx)), params };
            let running = RunningRef { mean: &of.mean, var: &of.var };
            let params = crate::call::params(&of.weight, &of.weight, of.eps);
            batch_norm_eval_backward(batch(&of.x), batch(&of.dy), params, running, gradients, of.run)
        }
    ),
    of_channels!(
        batch_norm_eval_backward_in_place,
        ["x" "dy" "weight" "dweight" "dbias" "mean" "var"],
        numbers [First],
        + eps,
        |of| {
            let sums = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
            let running = RunningRef { mean: &of.mean, var: &of.var };
            let params = params(&of.weight, &of.weight, of.eps);
            let dy = batch_mut(&mut of.dy);
            batch_norm_eval_backward_in_place(batch(&of.x), dy, params, running, sums, of.run)
        }
    ),
    Entry {
        runs: false,
        ..of_channels!(batch_norm_fold, ["weight" "bias" "mean" "var"], + eps, |of| {
            let running = RunningRef { mean: &of.mean, var: &of.var };
            batch_norm_fold(params(&of.weight, &of.bias, of.eps), running).map(|_: Folded<f32>| ())
        })
    },
    of_channels!(batch_norm_folded, ["x" "y" "scale" "shift"], |of| {
        let folded = Folded { scale: of.scale.clone(), shift: of.shift.clone() };
        batch_norm_folded(batch(&of.x), &folded, batch_mut(&mut of.y), of.run)
    }),
];
