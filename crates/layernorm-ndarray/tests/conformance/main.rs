//! ndarray's views through the cases that all frameworks share: the bits of the slice kernels, in three layouts, and in place.

mod laid;

use laid::{Laid, Lie, parameter};
use layernorm::{Companion, Layout, Run, Stats, Trained, Training, Workspace};
use layernorm_conformance::{
    Affine, Backend, Case, Failure, Mode, Name, Number, Operator, Outputs, Parameters, run,
};
use layernorm_ndarray::{
    self as ours, AddGradients, Axes, Gains, Gradients, Groups, Heads, Modulation, Norm, ParamGradients, Rms,
    Scaled, WeightNormGradients,
};
use ndarray::{ArrayD, ArrayViewD, Axis, Ix1};

/// The functions of this crate: on arrays that lie so, in place where they can be.
struct Ndarray {
    lie: Lie,
    in_place: bool,
}

impl<E: Number> Backend<E> for Ndarray {
    fn run(&self, case: &Case<E>) -> Result<Outputs<E>, Failure> {
        match &case.parameters {
            Parameters::Own(of) => self.outputs(case, of),
            Parameters::Wide(of) => self.outputs(case, of),
        }
    }
}

/// (heads, numbers of a head), (samples, features), or as many as there are.
fn parameter_shape<E: Number>(case: &Case<E>) -> Vec<usize> {
    let (shape, features) = (&case.shape, case.features());
    match case.operator {
        Operator::QkNorm { by_head: true, .. } => vec![shape[1], features],
        Operator::AdaLayerNorm(_) | Operator::AdaRmsNorm(_) => vec![shape[0], features],
        Operator::GroupNorm { layout, .. }
        | Operator::InstanceNorm { layout }
        | Operator::BatchNorm { layout, .. } => {
            vec![case.images(layout)[1]]
        }
        Operator::WeightNorm { axis } => vec![shape[axis]],
        _ => vec![features],
    }
}

fn view<P>(array: &Option<ArrayD<P>>) -> Option<ArrayViewD<'_, P>> {
    array.as_ref().map(|array| array.view())
}

fn channel_axis(layout: Layout) -> Axis {
    Axis(if layout == Layout::ChannelsLast { 2 } else { 1 })
}

impl Ndarray {
    /// Forward and backward, of parameters of the type `P`.
    fn outputs<E: Number, P: Companion<E>>(
        &self,
        case: &Case<E>,
        of: &Affine<P>,
    ) -> Result<Outputs<E>, Failure> {
        let (eps, run, last) = (case.eps, Run::default(), Axis(case.shape.len() - 1));
        let lay = |values: &[E]| Laid::new(values, &case.shape, self.lie);
        let (x, dy) = (lay(&case.x), lay(&case.dy));
        // In place, y begins as x and dx as dy.
        let (mut y, mut dx) = if self.in_place { (x.clone(), dy.clone()) } else { (lay(&[]), lay(&[])) };
        let shape = parameter_shape(case);
        let (weight, mut dweight) = parameter::<_, E::Acc>(&of.weight, &shape);
        let (bias, mut dbias) = parameter::<_, E::Acc>(&of.bias, &shape);
        let mut workspace = Workspace::new();
        let entries = match case.operator {
            Operator::GroupNorm { groups, .. } => case.shape[0] * groups,
            Operator::InstanceNorm { layout } => case.shape[0] * case.images(layout)[1],
            Operator::BatchNorm { layout, .. } => case.images(layout)[1],
            Operator::WeightNorm { axis } => case.shape[axis],
            _ => case.rows(),
        };
        let mut saved = Stats::<E::Acc>::new(entries);
        let (mut stream, mut running) = (None, None);

        /// In place, or apart.
        macro_rules! either {
            ($in_place:expr, $apart:expr) => {
                if self.in_place { $in_place } else { $apart }
            };
        }
        macro_rules! norm {
            ($axis:expr) => {
                Norm { axes: Axes::One($axis), weight: view(&weight), bias: view(&bias), eps }
            };
        }
        macro_rules! params {
            () => {
                ParamGradients {
                    dweight: dweight.as_mut().map(|of| of.view_mut()),
                    dbias: dbias.as_mut().map(|of| of.view_mut()),
                    ..ParamGradients::new(&mut workspace)
                }
            };
        }
        macro_rules! gradients {
            () => {
                Gradients { dx: Some(dx.view_mut()), params: Some(params!()) }
            };
        }
        let (xv, dyv) = (x.view(), dy.view());
        match case.operator {
            Operator::LayerNorm => {
                let to = Some(saved.as_mut());
                either!(
                    ours::layer_norm_in_place(y.view_mut(), norm!(last), to, run),
                    ours::layer_norm(xv.view(), norm!(last), y.view_mut(), to, run)
                )?;
                let from = Some(saved.as_ref());
                either!(
                    ours::layer_norm_backward_in_place(
                        xv,
                        dx.view_mut(),
                        norm!(last),
                        from,
                        Some(params!()),
                        run
                    ),
                    ours::layer_norm_backward(xv, dyv, norm!(last), from, gradients!(), run)
                )?;
            }
            Operator::RmsNorm { weight_offset, partial, epsilon, rounding } => {
                let partial = partial.then(|| case.features().div_ceil(2));
                let norm = |norm| Rms { norm, weight_offset, partial, epsilon, rounding };
                let to = Some(&mut saved.rstd[..]);
                either!(
                    ours::rms_norm_in_place(y.view_mut(), norm(norm!(last)), to, run),
                    ours::rms_norm(xv.view(), norm(norm!(last)), y.view_mut(), to, run)
                )?;
                let (norm, from) = (norm(norm!(last)), Some(&saved.rstd[..]));
                either!(
                    ours::rms_norm_backward_in_place(xv, dx.view_mut(), norm, from, Some(params!()), run),
                    ours::rms_norm_backward(xv, dyv, norm, from, gradients!(), run)
                )?;
            }
            Operator::ScaleNorm => {
                let scale = of.weight.as_ref().expect("a scale")[0];
                let (norm, to) = (Scaled { scale, axes: last.into(), eps }, Some(&mut saved.rstd[..]));
                either!(
                    ours::scale_norm_in_place(y.view_mut(), norm, to, run),
                    ours::scale_norm(xv.view(), norm, y.view_mut(), to, run)
                )?;
                either!(
                    ours::scale_norm_backward_in_place(xv, dx.view_mut(), norm, Some(params!()), run),
                    ours::scale_norm_backward(xv, dyv, norm, gradients!(), run)
                )?;
            }
            Operator::L2Norm => {
                let to = Some(&mut saved.rstd[..]);
                either!(
                    ours::l2_norm_in_place(y.view_mut(), last, eps, to, run),
                    ours::l2_norm(xv.view(), last, eps, y.view_mut(), to, run)
                )?;
                either!(
                    ours::l2_norm_backward_in_place(xv, dx.view_mut(), last, eps, run),
                    ours::l2_norm_backward(xv, dyv, last, eps, dx.view_mut(), run)
                )?;
            }
            Operator::QkNorm { norm, by_head } => {
                let heads = Heads { norm, axis: by_head.then_some(Axis(1)) };
                either!(
                    ours::qk_norm_in_place(y.view_mut(), norm!(last), heads, run),
                    ours::qk_norm(xv.view(), norm!(last), heads, y.view_mut(), run)
                )?;
                either!(
                    ours::qk_norm_backward_in_place(
                        xv,
                        dx.view_mut(),
                        norm!(last),
                        heads,
                        Some(params!()),
                        run
                    ),
                    ours::qk_norm_backward(xv, dyv, norm!(last), heads, gradients!(), run)
                )?;
            }
            Operator::GroupNorm { groups: count, layout, activation } => {
                let (channels, to) = (channel_axis(layout), Some(saved.as_mut()));
                let groups = |norm| Groups { norm, count, activation };
                either!(
                    ours::group_norm_in_place(y.view_mut(), groups(norm!(channels)), to, run),
                    ours::group_norm(xv.view(), groups(norm!(channels)), y.view_mut(), to, run)
                )?;
                let (norm, from) = (norm!(channels), Some(saved.as_ref()));
                either!(
                    ours::group_norm_backward_in_place(
                        xv,
                        dx.view_mut(),
                        groups(norm),
                        from,
                        Some(params!()),
                        run
                    ),
                    ours::group_norm_backward(xv, dyv, groups(norm), from, gradients!(), run)
                )?;
            }
            Operator::InstanceNorm { layout } => {
                let (channels, to) = (channel_axis(layout), Some(saved.as_mut()));
                either!(
                    ours::instance_norm_in_place(y.view_mut(), norm!(channels), to, run),
                    ours::instance_norm(xv.view(), norm!(channels), y.view_mut(), to, run)
                )?;
                let (norm, from) = (norm!(channels), Some(saved.as_ref()));
                either!(
                    ours::instance_norm_backward_in_place(
                        xv,
                        dx.view_mut(),
                        norm,
                        from,
                        Some(params!()),
                        run
                    ),
                    ours::instance_norm_backward(xv, dyv, norm, from, gradients!(), run)
                )?;
            }
            Operator::BatchNorm { layout, mode: Mode::Train(convention) } => {
                let (channels, mut workspace_of_pass) = (channel_axis(layout), Workspace::new());
                let mut moved = case.running.clone().expect("running statistics");
                let mut training = Training::new(saved.as_mut(), &mut workspace_of_pass);
                training.running = Some(moved.as_mut(convention));
                either!(
                    ours::batch_norm_train_in_place(y.view_mut(), norm!(channels), training, run),
                    ours::batch_norm_train(xv.view(), norm!(channels), y.view_mut(), training, run)
                )?;
                let (norm, trained) = (norm!(channels), Trained::new(saved.as_ref()));
                either!(
                    ours::batch_norm_train_backward_in_place(
                        xv,
                        dx.view_mut(),
                        norm,
                        trained,
                        Some(params!()),
                        run
                    ),
                    ours::batch_norm_train_backward(xv, dyv, norm, trained, gradients!(), run)
                )?;
                running = Some([moved.mean, moved.var].concat());
            }
            Operator::BatchNorm { layout, mode: Mode::Frozen } => {
                let channels = channel_axis(layout);
                let of = case.running.as_ref().expect("running statistics").as_ref();
                either!(
                    ours::batch_norm_eval_in_place(y.view_mut(), norm!(channels), of, run),
                    ours::batch_norm_eval(xv.view(), norm!(channels), of, y.view_mut(), run)
                )?;
                let norm = norm!(channels);
                either!(
                    ours::batch_norm_eval_backward_in_place(
                        xv,
                        dx.view_mut(),
                        norm,
                        of,
                        Some(params!()),
                        run
                    ),
                    ours::batch_norm_eval_backward(xv, dyv, norm, of, gradients!(), run)
                )?;
            }
            Operator::AdaLayerNorm(scale_is) | Operator::AdaRmsNorm(scale_is) => {
                let modulation = || Modulation {
                    axes: Axes::One(last),
                    scale: view(&weight).expect("a scale"),
                    shift: view(&bias),
                    scale_is,
                    eps,
                };
                let layer = matches!(case.operator, Operator::AdaLayerNorm(_));
                match (layer, self.in_place) {
                    (true, true) => {
                        ours::ada_layer_norm_in_place(y.view_mut(), modulation(), Some(saved.as_mut()), run)
                    }
                    (true, false) => {
                        ours::ada_layer_norm(xv.view(), modulation(), y.view_mut(), Some(saved.as_mut()), run)
                    }
                    (false, true) => {
                        ours::ada_rms_norm_in_place(y.view_mut(), modulation(), Some(&mut saved.rstd), run)
                    }
                    (false, false) => {
                        ours::ada_rms_norm(xv.view(), modulation(), y.view_mut(), Some(&mut saved.rstd), run)
                    }
                }?;
                if layer {
                    ours::ada_layer_norm_backward(
                        xv,
                        dyv,
                        modulation(),
                        Some(saved.as_ref()),
                        gradients!(),
                        run,
                    )?;
                } else {
                    ours::ada_rms_norm_backward(xv, dyv, modulation(), Some(&saved.rstd), gradients!(), run)?;
                }
            }
            Operator::AddLayerNorm | Operator::AddRmsNorm => {
                let of = case.stream.as_ref().expect("a residual");
                let (residual, dsum) = (lay(&of.residual), lay(&of.dsum));
                let mut sum = if self.in_place { residual.clone() } else { lay(&[]) };
                let layer = case.operator == Operator::AddLayerNorm;
                let (rv, norm) = (residual.view(), norm!(last));
                match (layer, self.in_place) {
                    (true, true) => ours::add_layer_norm_in_place(
                        y.view_mut(),
                        sum.view_mut(),
                        norm,
                        Some(saved.as_mut()),
                        run,
                    ),
                    (true, false) => {
                        let to = [y.view_mut(), sum.view_mut()];
                        ours::add_layer_norm(xv, rv, norm, to, Some(saved.as_mut()), run)
                    }
                    (false, true) => ours::add_rms_norm_in_place(
                        y.view_mut(),
                        sum.view_mut(),
                        norm,
                        Some(&mut saved.rstd),
                        run,
                    ),
                    (false, false) => {
                        let to = [y.view_mut(), sum.view_mut()];
                        ours::add_rms_norm(xv, rv, norm, to, Some(&mut saved.rstd), run)
                    }
                }?;
                let gradients =
                    AddGradients { dstream: Some(dsum.view()), dx: dx.view_mut(), params: Some(params!()) };
                let norm = norm!(last);
                if layer {
                    ours::add_layer_norm_backward(
                        sum.view(),
                        dyv,
                        norm,
                        Some(saved.as_ref()),
                        gradients,
                        run,
                    )?;
                } else {
                    ours::add_rms_norm_backward(sum.view(), dyv, norm, Some(&saved.rstd), gradients, run)?;
                }
                stream = Some(sum.numbers());
            }
            Operator::WeightNorm { axis } => {
                let g = view(&weight).expect("gains").into_dimensionality::<Ix1>()?;
                let (of, rnorm) = (Gains { g, axis: Axis(axis) }, Some(&mut saved.rstd[..]));
                ours::weight_norm(xv.view(), of, y.view_mut(), rnorm, run)?;
                let dgain = dweight.as_mut().expect("gains").view_mut().into_dimensionality()?;
                let gradients = WeightNormGradients { dv: Some(dx.view_mut()), dgain: Some(dgain) };
                ours::weight_norm_backward(xv, dyv, of, Some(&saved.rstd), gradients, run)?;
            }
        }
        let mut outputs = Outputs::new().own(Name::Y, y.numbers()).own(Name::Dx, dx.numbers());
        for (name, gradient) in [(Name::Dweight, dweight), (Name::Dbias, dbias)] {
            if let Some(gradient) = gradient {
                outputs = outputs.wide(name, gradient.into_iter().collect());
            }
        }
        if let Some(stream) = stream {
            outputs = outputs.own(Name::Stream, stream);
        }
        if let Some(running) = running {
            outputs = outputs.wide(Name::Running, running);
        }
        Ok(match case.operator {
            Operator::QkNorm { .. } | Operator::BatchNorm { mode: Mode::Frozen, .. } => outputs,
            Operator::LayerNorm
            | Operator::AddLayerNorm
            | Operator::AdaLayerNorm(_)
            | Operator::GroupNorm { .. }
            | Operator::InstanceNorm { .. }
            | Operator::BatchNorm { .. } => {
                outputs.wide(Name::Statistics, [saved.m, saved.c, saved.rstd].concat())
            }
            _ => outputs.wide(Name::Statistics, saved.rstd),
        })
    }
}

#[test]
fn the_bits_of_the_kernels() {
    for lie in [Lie::C, Lie::Fortran, Lie::Steps] {
        run(&Ndarray { lie, in_place: false }).assert(&[]);
    }
}

#[test]
fn the_same_in_place() {
    for lie in [Lie::C, Lie::Fortran] {
        run(&Ndarray { lie, in_place: true }).assert(&[]);
    }
}
