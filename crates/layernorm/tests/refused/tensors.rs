//! Norms of whole tensors: of images, over any axes, of lines and of weights.

use crate::call::{Call, Entry, entry, images, params, stats, stats_mut, sums};
use layernorm::{
    Activation, AxesMask, Groups, Instances, Lp, LpNorm, MeanVariance, OverAxes, Params, TensorGradients,
    WeightNorm, WeightNormGradients, WeightNormInit, group_norm, group_norm_backward,
    group_norm_backward_in_place, group_norm_in_place, instance_norm, instance_norm_backward,
    instance_norm_backward_in_place, instance_norm_in_place, layer_norm_axes, layer_norm_axes_backward,
    layer_norm_axes_backward_in_place, layer_norm_axes_in_place, lp_norm, lp_norm_backward,
    mean_variance_norm, mean_variance_norm_backward, rms_norm_axes, rms_norm_axes_backward,
    rms_norm_axes_backward_in_place, rms_norm_axes_in_place, weight_norm, weight_norm_backward,
    weight_norm_init,
};

fn groups<'a>(params: Params<'a, f32>, groups: usize) -> Groups<'a, f32> {
    Groups { images: images(), groups, params, activation: Activation::Silu }
}

fn instances<'a>(params: Params<'a, f32>, _: usize) -> Instances<'a, f32> {
    Instances { images: images(), params, activation: Activation::None }
}

/// The four functions of a norm of images.
macro_rules! of_images {
    ($of_params:ident, right $right:tt, [$($number:ident)*], $norm:ident, $in_place:ident, $backward:ident, $backward_in_place:ident) => {
        [
            entry!($norm, ["x" "y" "m" "c" "rstd" "weight" "bias"], right $right, numbers [$($number)*], + eps, |of| {
                let norm = $of_params(params(&of.weight, &of.bias, of.eps), of.groups);
                let saved = Some(stats_mut(&mut of.m, &mut of.c, &mut of.rstd));
                $norm(norm, &of.x, &mut of.y, saved, &mut of.workspace, of.run)
            }),
            entry!($in_place, ["x" "m" "c" "rstd" "weight" "bias"], right $right, numbers [$($number)*], + eps, |of| {
                let norm = $of_params(params(&of.weight, &of.bias, of.eps), of.groups);
                let saved = Some(stats_mut(&mut of.m, &mut of.c, &mut of.rstd));
                $in_place(norm, &mut of.x, saved, &mut of.workspace, of.run)
            }),
            entry!(
                $backward,
                ["x" "dy" "dx" "m" "c" "rstd" "weight" "bias" "dweight" "dbias"],
                right $right,
                numbers [First $($number)*],
                + eps,
                |of| {
                    let norm = $of_params(params(&of.weight, &of.bias, of.eps), of.groups);
                    let params = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
                    let gradients = TensorGradients { dx: Some(&mut of.dx), params };
                    let saved = Some(stats(&of.m, &of.c, &of.rstd));
                    $backward(norm, &of.x, &of.dy, saved, gradients, of.run)
                }
            ),
            entry!(
                $backward_in_place,
                ["x" "dy" "m" "c" "rstd" "weight" "bias" "dweight" "dbias"],
                right $right,
                numbers [First $($number)*],
                + eps,
                |of| {
                    let norm = $of_params(params(&of.weight, &of.bias, of.eps), of.groups);
                    let params = sums(&mut of.dweight, &mut of.dbias, of.first, &mut of.workspace);
                    let saved = Some(stats(&of.m, &of.c, &of.rstd));
                    $backward_in_place(norm, &of.x, &mut of.dy, saved, params, of.run)
                }
            ),
        ]
    };
}

const GROUP: [Entry; 4] = of_images!(
    groups,
    right [],
    [Groups],
    group_norm,
    group_norm_in_place,
    group_norm_backward,
    group_norm_backward_in_place
);

const INSTANCE: [Entry; 4] = of_images!(
    instances,
    right [("m", 12), ("c", 12), ("rstd", 12)],
    [],
    instance_norm,
    instance_norm_in_place,
    instance_norm_backward,
    instance_norm_backward_in_place
);

/// Over the second axis, of which one number takes no part.
fn over<'a>(of: &'a Axes, params: Params<'a, f32>) -> OverAxes<'a, f32> {
    let mask = Some(AxesMask { valid: &[false, true, true, true], strides: &[0, 1] });
    OverAxes { shape: &of.shape, strides: None, over: &of.axis, affine: &of.axis, params, mask }
}

/// What a norm over axes borrows.
struct Axes {
    shape: [usize; 2],
    axis: [usize; 1],
}

impl Axes {
    fn of(call: &Call) -> Self {
        Self { shape: call.shape, axis: [call.axis] }
    }
}

/// The four functions of a norm over axes.
macro_rules! over_axes {
    ([$($stat:literal)*], |$of:ident| $save:expr, $saved:expr, $norm:ident, $in_place:ident, $backward:ident, $backward_in_place:ident) => {
        [
            entry!($norm, ["x" "y" "weight" "bias" $($stat)*], numbers [Axis Size], + eps, |$of| {
                let axes = Axes::of($of);
                let norm = over(&axes, params(&$of.weight, &$of.bias, $of.eps));
                $norm(norm, &$of.x, &mut $of.y, Some($save), &mut $of.workspace, $of.run)
            }),
            entry!($in_place, ["x" "weight" "bias" $($stat)*], numbers [Axis Size], + eps, |$of| {
                let axes = Axes::of($of);
                let norm = over(&axes, params(&$of.weight, &$of.bias, $of.eps));
                $in_place(norm, &mut $of.x, Some($save), &mut $of.workspace, $of.run)
            }),
            entry!(
                $backward,
                ["x" "dy" "dx" "weight" "bias" "dweight" "dbias" $($stat)*],
                numbers [First Axis Size],
                + eps,
                |$of| {
                    let axes = Axes::of($of);
                    let norm = over(&axes, params(&$of.weight, &$of.bias, $of.eps));
                    let params = sums(&mut $of.dweight, &mut $of.dbias, $of.first, &mut $of.workspace);
                    let gradients = TensorGradients { dx: Some(&mut $of.dx), params };
                    $backward(norm, &$of.x, &$of.dy, Some($saved), gradients, $of.run)
                }
            ),
            entry!(
                $backward_in_place,
                ["x" "dy" "weight" "bias" "dweight" "dbias" $($stat)*],
                numbers [First Axis Size],
                + eps,
                |$of| {
                    let axes = Axes::of($of);
                    let norm = over(&axes, params(&$of.weight, &$of.bias, $of.eps));
                    let params = sums(&mut $of.dweight, &mut $of.dbias, $of.first, &mut $of.workspace);
                    $backward_in_place(norm, &$of.x, &mut $of.dy, Some($saved), params, $of.run)
                }
            ),
        ]
    };
}

const LAYER_AXES: [Entry; 4] = over_axes!(
    ["m" "c" "rstd"],
    |of| stats_mut(&mut of.m, &mut of.c, &mut of.rstd),
    stats(&of.m, &of.c, &of.rstd),
    layer_norm_axes,
    layer_norm_axes_in_place,
    layer_norm_axes_backward,
    layer_norm_axes_backward_in_place
);

const RMS_AXES: [Entry; 4] = over_axes!(
    ["rstd"],
    |of| &mut of.rstd[..],
    &of.rstd[..],
    rms_norm_axes,
    rms_norm_axes_in_place,
    rms_norm_axes_backward,
    rms_norm_axes_backward_in_place
);

const OTHERS: [Entry; 7] = [
    entry!(lp_norm, ["x" "y"], numbers [Axis Size], |of| {
        let norm = LpNorm { shape: &of.shape, axis: of.axis, p: Lp::One };
        lp_norm(&of.x, norm, &mut of.y, &mut of.workspace, of.run)
    }),
    entry!(lp_norm_backward, ["x" "dy" "dx"], numbers [Axis Size], |of| {
        let norm = LpNorm { shape: &of.shape, axis: of.axis, p: Lp::Two };
        lp_norm_backward(&of.x, &of.dy, norm, &mut of.dx, &mut of.workspace, of.run)
    }),
    entry!(mean_variance_norm, ["x" "y"], numbers [Axis Size], + eps, |of| {
        let norm = MeanVariance { shape: &of.shape, axes: &[of.axis], eps: of.eps };
        mean_variance_norm(&of.x, norm, &mut of.y, &mut of.workspace, of.run)
    }),
    entry!(mean_variance_norm_backward, ["x" "dy" "dx"], numbers [Axis Size], + eps, |of| {
        let norm = MeanVariance { shape: &of.shape, axes: &[of.axis], eps: of.eps };
        mean_variance_norm_backward(&of.x, &of.dy, norm, &mut of.dx, &mut of.workspace, of.run)
    }),
    entry!(weight_norm, ["x" "y" "gain" "rstd"], right [("gain", 4), ("rstd", 4)], numbers [Axis Size], |of| {
        let norm = WeightNorm { gain: &of.gain, shape: &of.shape, axis: of.axis };
        weight_norm(&of.x, norm, &mut of.y, Some(&mut of.rstd), &mut of.workspace, of.run)
    }),
    entry!(
        weight_norm_backward,
        ["x" "dy" "dx" "gain" "dgain" "rstd"],
        right [("gain", 4), ("dgain", 4), ("rstd", 4)],
        numbers [Axis Size],
        |of| {
            let norm = WeightNorm { gain: &of.gain, shape: &of.shape, axis: of.axis };
            let (dv, dgain) = (Some(&mut of.dx[..]), Some(&mut of.dgain[..]));
            let gradients = WeightNormGradients { dv, dgain, workspace: &mut of.workspace };
            weight_norm_backward(&of.x, &of.dy, norm, Some(&of.rstd), gradients, of.run)
        }
    ),
    entry!(
        weight_norm_init,
        ["x" "gain" "bias"],
        right [("gain", 4)],
        numbers [Axis Size],
        + eps,
        |of| {
            let init = WeightNormInit { shape: &of.shape, axis: of.axis, scale: 1.0, eps: of.eps };
            weight_norm_init(&of.x, init, &mut of.gain, &mut of.bias, &mut of.workspace, of.run)
        }
    ),
];

pub(crate) const TABLES: [&[Entry]; 5] = [&GROUP, &INSTANCE, &LAYER_AXES, &RMS_AXES, &OTHERS];
