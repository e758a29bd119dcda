//! Norms that take all rows in one call: what they refuse, and that what lies well is not copied.

use super::allocations::{allocations, run};
use super::*;
use layernorm::{Convention, HeadNorm, RunningRef, RunningStats, Training};
use layernorm_ndarray as ours;
use layernorm_ndarray::{AddGradients, Gains, Groups, Heads, Modulation, Scaled, WeightNormGradients};
use ndarray::{Array1, Array2, Array3, Array4, ArrayView4, ArrayViewMut4, aview1, s};

const WRONG: f32 = -77.0;

#[track_caller]
fn refused(result: Result<(), Error>, expected: Error, outputs: &[&Array3<f32>]) {
    assert_eq!(result.unwrap_err(), expected, "refused for another reason");
    let untouched = outputs.iter().all(|of| of.iter().all(|number| *number == WRONG));
    assert!(untouched, "written to, before {expected}");
}

#[test]
fn axes_of_channels() {
    let (x, mut y) = (Array3::<f32>::zeros((2, 6, 5)), Array3::from_elem((2, 6, 5), WRONG));
    let wrong = || Error::ChannelAxis { x: vec![2, 6, 5] };
    let first = || Norm::<f32>::by_channel(Axis(0));
    let two = Norm::<f32>::over(&[Axis(1), Axis(2)]);
    let result = ours::group_norm(x.view(), Groups::of(two, 2), y.view_mut(), None, run());
    refused(result, wrong(), &[&y]);
    refused(ours::instance_norm(x.view(), first(), y.view_mut(), None, run()), wrong(), &[&y]);
    let mut running = RunningStats::new(6);
    let result = ours::batch_norm_eval(x.view(), first(), running.as_ref(), y.view_mut(), run());
    refused(result, wrong(), &[&y]);
    let (mut saved, mut workspace) = (Stats::new(6), Workspace::new());
    let mut training = Training::new(saved.as_mut(), &mut workspace);
    training.running = Some(running.as_mut(Convention::PYTORCH));
    let result = ours::batch_norm_train_in_place(y.view_mut(), first(), training, run());
    refused(result, wrong(), &[&y]);
    assert_eq!(running, RunningStats::new(6), "moved");
}

#[test]
fn shapes_and_parameters_of_channels() {
    let (x, mut y) = (Array3::<f32>::zeros((2, 6, 5)), Array3::from_elem((2, 6, 5), WRONG));
    let norm = || Norm::<f32>::by_channel(Axis(1));
    let mut other = Array3::from_elem((2, 5, 6), WRONG);
    let shape = |what| Error::Shape { what, got: vec![2, 5, 6], x: vec![2, 6, 5] };
    let result = ours::group_norm(x.view(), Groups::of(norm(), 2), other.view_mut(), None, run());
    refused(result, shape("y"), &[&other]);
    let running = RunningRef { mean: &[0.0; 6], var: &[1.0; 6] };
    refused(ours::batch_norm_eval(x.view(), norm(), running, other.view_mut(), run()), shape("y"), &[&other]);
    let gradients = Gradients { dx: Some(other.view_mut()), params: None };
    let result = ours::batch_norm_eval_backward(x.view(), x.view(), norm(), running, gradients, run());
    refused(result, shape("dx"), &[&other]);

    let weight = Array1::ones(5);
    let result = ours::instance_norm(x.view(), norm().with_weight(&weight), y.view_mut(), None, run());
    refused(result, Error::Parameter { what: "weight", got: vec![5], expected: vec![6] }, &[&y]);
    let result = ours::group_norm(x.view(), Groups::of(norm(), 4), y.view_mut(), None, run());
    refused(result, layernorm::Error::Groups { channels: 6, groups: 4 }.into(), &[&y]);
    let mut dweight = Array1::zeros(5);
    let mut workspace = Workspace::new();
    let params = Some(ParamGradients {
        dweight: Some(dweight.view_mut().into_dyn()),
        ..ParamGradients::new(&mut workspace)
    });
    let gradients = Gradients { dx: Some(y.view_mut()), params };
    let result = ours::instance_norm_backward(x.view(), x.view(), norm(), None, gradients, run());
    refused(result, Error::Parameter { what: "dweight", got: vec![5], expected: vec![6] }, &[&y]);
    // One number a channel has no variance to train by.
    let (one, mut saved) = (Array2::<f32>::zeros((1, 6)), Stats::new(6));
    let training = Training::new(saved.as_mut(), &mut workspace);
    let result =
        ours::batch_norm_train(one.view(), norm(), Array2::zeros((1, 6)).view_mut(), training, run());
    assert!(matches!(result, Err(Error::Kernel(layernorm::Error::Count { .. }))), "{result:?}");
}

#[test]
fn samples_streams_heads_and_units() {
    let (x, mut y) = (Array3::<f32>::zeros((2, 6, 5)), Array3::from_elem((2, 6, 5), WRONG));
    let scale = Array2::<f32>::zeros((2, 5));
    let over_samples = Modulation::over(Axis(0), &scale);
    let result = ours::ada_layer_norm(x.view(), over_samples, y.view_mut(), None, run());
    refused(result, Error::SampleAxis { x: vec![2, 6, 5] }, &[&y]);
    let short = Array2::zeros((3, 5));
    let modulation = Modulation::over(Axis(2), &scale).with_shift(&short);
    let result = ours::ada_rms_norm(x.view(), modulation, y.view_mut(), None, run());
    refused(result, Error::Parameter { what: "shift", got: vec![3, 5], expected: vec![2, 5] }, &[&y]);

    let norm = || Norm::<f32>::over(Axis(2));
    let other = Array3::zeros((2, 5, 6));
    let shape = |what| Error::Shape { what, got: vec![2, 5, 6], x: vec![2, 6, 5] };
    let mut stream = y.clone();
    let to = [y.view_mut(), stream.view_mut()];
    let result = ours::add_layer_norm(x.view(), other.view(), norm(), to, None, run());
    refused(result, shape("residual"), &[&y, &stream]);
    let gradients = AddGradients { dstream: Some(other.view()), dx: y.view_mut(), params: None };
    let result = ours::add_rms_norm_backward(x.view(), x.view(), norm(), None, gradients, run());
    refused(result, shape("dstream"), &[&y]);

    let (weight, heads) = (Array2::ones((5, 6)), Heads { norm: HeadNorm::Rms, axis: Some(Axis(1)) });
    let result = ours::qk_norm(x.view(), norm().with_weight(&weight), heads, y.view_mut(), run());
    refused(result, Error::Parameter { what: "weight", got: vec![5, 6], expected: vec![6, 5] }, &[&y]);
    let same = Heads { axis: Some(Axis(2)), ..heads };
    refused(
        ours::qk_norm_in_place(y.view_mut(), norm(), same, run()),
        Error::SameAxis { axis: Axis(2) },
        &[&y],
    );

    let (mut dscale, mut workspace) = (Array1::zeros(5), Workspace::new());
    let params = Some(ParamGradients {
        dweight: Some(dscale.view_mut().into_dyn()),
        ..ParamGradients::new(&mut workspace)
    });
    let gradients = Gradients { dx: Some(y.view_mut()), params };
    let result =
        ours::scale_norm_backward(x.view(), x.view(), Scaled::over(Axis(2), 1.0f32), gradients, run());
    refused(result, Error::Parameter { what: "dscale", got: vec![5], expected: vec![1] }, &[&y]);

    let gains = Gains { g: aview1(&[1.0f32; 5]), axis: Axis(1) };
    let result = ours::weight_norm(x.view(), gains, y.view_mut(), None, run());
    assert!(matches!(result, Err(Error::Kernel(layernorm::Error::Length { expected: 6, got: 5, .. }))));
    let gradients = WeightNormGradients { dv: Some(y.view_mut()), dgain: None };
    let result = ours::weight_norm_backward(x.view(), other.view(), gains, None, gradients, run());
    refused(result, shape("dw"), &[&y]);
}

#[test]
fn no_samples_heads_or_units_are_fine() {
    let mut none = Array3::<f32>::zeros((0, 6, 5));
    let norm = || Norm::<f32>::by_channel(Axis(1));
    ours::group_norm_in_place(none.view_mut(), Groups::of(norm(), 2), None, run()).unwrap();
    let running = RunningRef { mean: &[0.0; 6], var: &[1.0; 6] };
    ours::batch_norm_eval_in_place(none.view_mut(), norm(), running, run()).unwrap();
    let (scale, mut headless) = (Array2::<f32>::zeros((0, 5)), Array3::<f32>::zeros((4, 0, 5)));
    let modulation = Modulation::over(Axis(2), &scale);
    ours::ada_layer_norm_in_place(none.view_mut(), modulation, None, run()).unwrap();
    let heads = Heads { norm: HeadNorm::L2, axis: Some(Axis(1)) };
    ours::qk_norm_in_place(headless.view_mut(), Norm::over(Axis(2)).with_weight(&scale), heads, run())
        .unwrap();
    let gains = Gains { g: aview1::<f32>(&[]), axis: Axis(0) };
    ours::weight_norm(none.clone().view(), gains, none.view_mut(), None, run()).unwrap();
}

/// Bytes that batch and group norm of `x`, into `y`, allocate.
fn of_images(x: ArrayView4<'_, f32>, mut y: ArrayViewMut4<'_, f32>, axis: Axis) -> [usize; 2] {
    let channels = x.len_of(axis);
    let (mean, var) = (vec![0.0; channels], vec![1.0; channels]);
    let running = RunningRef { mean: &mean, var: &var };
    let norm = || Norm::<f32>::by_channel(axis);
    let (_, batch) = allocations(|| ours::batch_norm_eval(x, norm(), running, y.view_mut(), run()));
    let (_, group) = allocations(|| ours::group_norm(x, Groups::of(norm(), 4), y.view_mut(), None, run()));
    [batch, group]
}

#[test]
fn images_without_gaps_are_not_copied() {
    let (x, mut y) = (Array4::<f32>::ones((8, 16, 64, 64)), Array4::zeros((8, 16, 64, 64)));
    let all = x.len() * size_of::<f32>();
    let bytes = of_images(x.view(), y.view_mut(), Axis(1));
    assert!(bytes.iter().all(|bytes| *bytes < 2048), "channels first: {bytes:?}");
    // Seen with the channels second, as candle and PyTorch see what lies channels last.
    let [x, y] = [x, y].map(|array| array.into_shape_with_order((8, 64, 64, 16)).unwrap());
    let (x, mut y) = (x.permuted_axes([0, 3, 1, 2]), y.permuted_axes([0, 3, 1, 2]));
    let [_, group] = of_images(x.view(), y.view_mut(), Axis(1));
    assert!(group < all / 2, "channels last: {group} of {all}"); // a workspace, not the array
    let [batch, _] = of_images(x.slice(s![..;2, .., .., ..]), y.slice_mut(s![..;2, .., .., ..]), Axis(1));
    assert!(batch > all / 2, "gaps: {batch} of {all}");
}

#[test]
fn evenly_spaced_rows_are_not_copied() {
    let (qkv, mut y) = (Array2::<f32>::ones((64, 3 * 256)), Array2::zeros((64, 256)));
    let (x, residual) = (qkv.slice(s![.., ..256]), qkv.slice(s![.., 256..512]));
    let mut stream = Array2::zeros((64, 2 * 256));
    let norm = Norm::<f32>::over(Axis(1));
    let (count, _) = allocations(|| {
        let to = [y.view_mut(), stream.slice_mut(s![.., 256..])];
        ours::add_layer_norm(x, residual, norm, to, None, run())
    });
    assert_eq!(count, 0, "add and norm");
    let scale = qkv.slice(s![.., 512..]);
    let (_, bytes) =
        allocations(|| ours::ada_layer_norm(x, Modulation::over(Axis(1), scale), y.view_mut(), None, run()));
    assert!(bytes < 256, "adaptive: {bytes}"); // some axes
}
