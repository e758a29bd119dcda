//! Group and instance norm.

use super::by_row;
use super::oracle::{Names, Reference, Sets};
use super::silu;
use super::types::table;
use super::{
    Able, Expected, Extent, Flag, Given, How, Operator, Order, Problem, Signature, Slot, Structure, Tensors,
    Types,
};
use layernorm::reference::{self, Affine, Nchw};
use layernorm::{
    Activation, Error, Groups, Images, Instances, Layout, TensorGradients, group_norm, group_norm_backward,
    group_norm_backward_in_place, group_norm_in_place, instance_norm, instance_norm_backward,
    instance_norm_backward_in_place, instance_norm_in_place,
};

/// Group norm.
pub const GROUP: Operator = Operator {
    name: "group_norm",
    formula: "y = weight (x - mean) / sqrt(var + eps) + bias over groups of channels of a sample",
    structure: Structure::Groups,
    flags: &[Flag::Eps, Flag::Groups, Flag::Layout],
    eps: 1e-5,
    forward: Signature {
        needs: &[Slot::X],
        takes: &[Slot::Weight, Slot::Bias],
        writes: &[Slot::Y, Slot::Mean, Slot::Rstd],
        saves: &[Slot::M, Slot::C, Slot::Rstd],
        updates: &[],
    },
    backward: by_row::BACKWARD,
    extent: |slot| match slot {
        Slot::Mean | Slot::M | Slot::C | Slot::Rstd => Extent::Groups,
        Slot::Weight | Slot::Bias | Slot::Dweight | Slot::Dbias => Extent::Channels,
        _ => Extent::Whole,
    },
    able: Able { strided: false, ..Able::ALL },
    untimed: &[Slot::Mean],
    kernels: table!(forward, backward),
    oracle: |problem, given| expected(problem, given, given.get(Slot::Dy)),
};

/// Group norm, and SiLU of it.
pub const GROUP_SILU: Operator = Operator {
    name: "group_norm_silu",
    formula: "y = z / (1 + exp(-z)), with z = group_norm(x)",
    kernels: table!(silu_forward, silu_backward),
    oracle: |problem, given| silu::after(given, |dy| expected(problem, given, dy)),
    ..GROUP
};

/// Instance norm.
pub const INSTANCE: Operator = Operator {
    name: "instance_norm",
    formula: "y = weight (x - mean) / sqrt(var + eps) + bias over each channel of a sample",
    structure: Structure::Channels,
    flags: &[Flag::Eps, Flag::Layout],
    kernels: table!(instance_forward, instance_backward),
    ..GROUP
};

fn expected(problem: &Problem, given: &Given, dy: Option<&[f64]>) -> Vec<Expected> {
    let (groups, n) = (problem.options.groups, problem.features());
    let at = |set, j| (problem.place(set, j), problem.channel(set, j));
    let sets = Sets { dy, ..by_row::sets(problem, given, true, &at) };
    sets.expected(given, Names::USUAL, || {
        // The reference has channels first.
        let gather =
            |of: &[f64]| -> Vec<f64> { (0..of.len()).map(|i| of[problem.place(i / n, i % n)]).collect() };
        let scatter = |of: &[f64]| {
            let mut to = vec![0.0; of.len()];
            of.iter().enumerate().for_each(|(i, value)| to[problem.place(i / n, i % n)] = *value);
            to
        };
        let (x, affine) = (gather(sets.x), Affine { weight: sets.weight, bias: sets.bias });
        let shape =
            Nchw { batch: problem.samples(), channels: problem.channels(), positions: problem.positions() };
        let reference::Forward { y, mean, rstd } = reference::group_norm(&x, shape, groups, affine, sets.eps);
        let x_hat = reference::group_norm(&x, shape, groups, Affine::NONE, sets.eps).y;
        let back = |dy| reference::group_norm_backward(&gather(dy), &x, shape, groups, affine, sets.eps);
        let reference::Backward { dx, dweight, dbias } = sets.dy.map(back).unwrap_or_default();
        let (y, x_hat, dx) = (scatter(&y), scatter(&x_hat), scatter(&dx));
        Reference { y, mean, rstd, x_hat, dx, dweight, dbias }
    })
}

fn images(problem: &Problem) -> Result<Images, Error> {
    let shape = &problem.shape;
    let (spatial, layout) = match problem.options.order {
        Order::Nchw => (&shape[2..], Layout::ChannelsFirst),
        Order::Nhwc => (&shape[1..shape.len() - 1], Layout::ChannelsLast),
    };
    Images::new(problem.samples(), problem.channels(), spatial, layout)
}

fn groups<'a, P>(
    problem: &Problem,
    weight: &'a Option<Vec<P>>,
    bias: &'a Option<Vec<P>>,
) -> Result<Groups<'a, P>, Error> {
    let params = by_row::params(problem, weight, bias);
    let (images, groups) = (images(problem)?, problem.options.groups);
    Ok(Groups { images, groups, params, activation: Activation::None })
}

fn silu_groups<'a, P>(
    problem: &Problem,
    weight: &'a Option<Vec<P>>,
    bias: &'a Option<Vec<P>>,
) -> Result<Groups<'a, P>, Error> {
    Ok(Groups { activation: Activation::Silu, ..groups(problem, weight, bias)? })
}

fn instances<'a, P>(
    problem: &Problem,
    weight: &'a Option<Vec<P>>,
    bias: &'a Option<Vec<P>>,
) -> Result<Instances<'a, P>, Error> {
    let params = by_row::params(problem, weight, bias);
    Ok(Instances { images: images(problem)?, params, activation: Activation::None })
}

/// The norms differ in their names alone.
macro_rules! passes {
    ($forward:ident, $backward:ident, $of:ident, $norm:ident, $in_place:ident, $gradients:ident, $gradients_in_place:ident) => {
        fn $forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
            let Tensors { x, weight, bias, y, mean, m, c, rstd, workspace, .. } = tensors;
            let norm = $of(problem, weight, bias)?;
            let saved = by_row::stats_mut(m, c, rstd);
            if how.in_place {
                $in_place(norm, x.as_deref_mut().unwrap_or_default(), saved, workspace, how.run)?;
            } else {
                let (x, y) = (x.as_deref().unwrap_or_default(), y.as_deref_mut().unwrap_or_default());
                $norm(norm, x, y, saved, workspace, how.run)?;
            }
            by_row::mean(mean, m, c);
            Ok(())
        }

        fn $backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
            let Tensors { x, weight, bias, dy, m, c, rstd, dx, dweight, dbias, workspace, .. } = tensors;
            let norm = $of(problem, weight, bias)?;
            let saved = by_row::stats(m, c, rstd);
            let x = x.as_deref().unwrap_or_default();
            let params = by_row::sums(how, dweight, dbias, workspace);
            if how.in_place {
                let dy = dy.as_deref_mut().unwrap_or_default();
                return $gradients_in_place(norm, x, dy, saved, params, how.run);
            }
            let gradients = TensorGradients { dx: dx.as_deref_mut(), params };
            $gradients(norm, x, dy.as_deref().unwrap_or_default(), saved, gradients, how.run)
        }
    };
}

passes!(
    forward,
    backward,
    groups,
    group_norm,
    group_norm_in_place,
    group_norm_backward,
    group_norm_backward_in_place
);
passes!(
    silu_forward,
    silu_backward,
    silu_groups,
    group_norm,
    group_norm_in_place,
    group_norm_backward,
    group_norm_backward_in_place
);
passes!(
    instance_forward,
    instance_backward,
    instances,
    instance_norm,
    instance_norm_in_place,
    instance_norm_backward,
    instance_norm_backward_in_place
);
