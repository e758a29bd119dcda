//! RMS norm.

use super::by_row::{self, Forms, input, output};
use super::oracle::{Divisor, Names, Sets};
use super::types::table;
use super::{
    Able, Expected, Flag, Given, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types,
};
use layernorm::{
    Epsilon, Error, Gradients, RmsParams, Rounding, reference, rms_norm, rms_norm_backward,
    rms_norm_backward_in_place, rms_norm_in_place,
};

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "rms_norm",
    formula: "y = weight x / sqrt(mean(x^2) + eps) + bias",
    structure: Structure::Rows,
    flags: &[Flag::Eps, Flag::Axis, Flag::WeightOffset, Flag::Partial, Flag::Epsilon, Flag::Rounding],
    eps: 1e-5,
    forward: Signature {
        needs: &[Slot::X],
        takes: &[Slot::Weight, Slot::Bias],
        writes: &[Slot::Y, Slot::Rstd],
        saves: &[Slot::Rstd],
        updates: &[],
    },
    backward: by_row::BACKWARD,
    extent: by_row::extent,
    able: Able::ALL,
    untimed: &[],
    kernels: table!(forward, backward),
    oracle: expected,
};

fn expected(problem: &Problem, given: &Given) -> Vec<Expected> {
    let options = &problem.options;
    let rounds = match options.rounding {
        Rounding::Llama => true,
        Rounding::T5 => !given.wide_parameters,
        Rounding::Once | Rounding::Gemma => false,
    };
    let rounds = given.element_half_ulp.filter(|_| rounds);
    let plain = options.weight_offset == 0.0 && options.partial.is_none() && rounds.is_none();
    if plain && options.epsilon == Epsilon::Inside {
        let forms = Forms { forward: reference::rms_norm, backward: reference::rms_norm_backward };
        return by_row::expected(problem, given, &forms, false);
    }
    let n = problem.features();
    let at = |row, j| (row * n + j, j);
    let first = options.partial.map(|first| move |place: usize| place % n < first);
    let sets = Sets {
        divisor: if options.epsilon == Epsilon::Inside { Divisor::Root } else { Divisor::RootAndMore },
        // An absent weight is 1, whatever the offset.
        offset: if given.get(Slot::Weight).is_some() { options.weight_offset } else { 0.0 },
        valid: first.as_ref().map(|first| first as &dyn Fn(usize) -> bool),
        rounds,
        ..by_row::sets(problem, given, false, &at)
    };
    sets.exactly(given, Names::USUAL)
}

fn params<'a, P>(
    problem: &Problem,
    weight: &'a Option<Vec<P>>,
    bias: &'a Option<Vec<P>>,
) -> RmsParams<'a, P> {
    let options = &problem.options;
    RmsParams {
        weight_offset: options.weight_offset,
        partial: options.partial,
        epsilon: options.epsilon,
        rounding: options.rounding,
        ..by_row::params(problem, weight, bias).into()
    }
}

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, bias, y, rstd, .. } = tensors;
    let (params, rstd) = (params(problem, weight, bias), rstd.as_deref_mut());
    if how.in_place {
        return rms_norm_in_place(output(problem, how, 0, x)?, params, rstd, how.run);
    }
    rms_norm(input(problem, how, x)?, params, output(problem, how, 1, y)?, rstd, how.run)
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { x, weight, dy, rstd, dx, dweight, dbias, workspace, .. } = tensors;
    let (params, rstd) = (params(problem, weight, &None), rstd.as_deref());
    let x = input(problem, how, x)?;
    let sums = by_row::param_gradients(how, dweight, dbias, workspace);
    if how.in_place {
        return rms_norm_backward_in_place(x, output(problem, how, 0, dy)?, params, rstd, sums, how.run);
    }
    let dx = dx.is_some().then(|| output(problem, how, 1, dx)).transpose()?;
    let gradients = Gradients { dx, params: sums };
    rms_norm_backward(x, input(problem, how, dy)?, params, rstd, gradients, how.run)
}
