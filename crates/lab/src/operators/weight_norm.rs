//! Weight norm.

use super::oracle::{Divisor, Names, Reference, Sets};
use super::types::table;
use super::{Able, Extent, Flag, How, Operator, Problem, Signature, Slot, Structure, Tensors, Types};
use layernorm::{Error, WeightNorm, WeightNormGradients, reference, weight_norm, weight_norm_backward};

/// The entry.
pub const OPERATOR: Operator = Operator {
    name: "weight_norm",
    formula: "w = g v / |v| for each unit",
    structure: Structure::Units,
    flags: &[Flag::Axis],
    eps: 0.0,
    forward: Signature {
        needs: &[Slot::V, Slot::G],
        takes: &[],
        writes: &[Slot::W, Slot::Rnorm],
        saves: &[Slot::Rnorm],
        updates: &[],
    },
    backward: Signature {
        needs: &[Slot::V, Slot::G, Slot::Dw],
        takes: &[],
        writes: &[Slot::Dv, Slot::Dg],
        saves: &[],
        updates: &[],
    },
    extent: |slot| match slot {
        Slot::G | Slot::Dg | Slot::Rnorm => Extent::PerUnit,
        _ => Extent::Whole,
    },
    able: Able::NONE,
    untimed: &[],
    kernels: table!(forward, backward),
    oracle: |problem, given| {
        let (units, n) = (problem.rows(), problem.features());
        let at = |unit, j| (problem.place(unit, j), unit);
        let sets = Sets {
            sets: units,
            n,
            at: &at,
            centred: false,
            divisor: Divisor::Length,
            eps: 0.0,
            valid: None,
            rounds: None,
            x: given.all(Slot::V),
            weight: given.get(Slot::G),
            offset: 0.0,
            bias: None,
            dy: given.get(Slot::Dw),
            upstream: None,
        };
        let names = Names { y: Slot::W, rstd: Slot::Rnorm, dx: Slot::Dv, dweight: Slot::Dg, ..Names::USUAL };
        sets.expected(given, names, || {
            // The reference has units one after the other.
            let gather = |of: &[f64]| -> Vec<f64> {
                (0..units * n).map(|i| of[problem.place(i / n, i % n)]).collect()
            };
            let scatter = |of: &[f64]| {
                let mut to = vec![0.0; of.len()];
                of.iter().enumerate().for_each(|(i, value)| to[problem.place(i / n, i % n)] = *value);
                to
            };
            let (v, g) = (gather(sets.x), given.all(Slot::G));
            let out = reference::weight_norm(&v, g);
            let x_hat = scatter(&reference::weight_norm(&v, &vec![1.0; units]).w);
            let rstd = out.norm.iter().map(|norm| if *norm == 0.0 { 0.0 } else { 1.0 / norm }).collect();
            let back = sets.dy.map(|dw| reference::weight_norm_backward(&gather(dw), &v, g));
            let (dx, dweight) = back.map(|back| (scatter(&back.dv), back.dgain)).unwrap_or_default();
            Reference { y: scatter(&out.w), rstd, x_hat, dx, dweight, ..Reference::default() }
        })
    },
};

fn of<'a, P>(problem: &'a Problem, g: &'a Option<Vec<P>>) -> WeightNorm<'a, P> {
    WeightNorm { gain: g.as_deref().unwrap_or_default(), shape: &problem.shape, axis: problem.axis() }
}

fn forward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { v, g, w, rnorm, workspace, .. } = tensors;
    let (v, w) = (v.as_deref().unwrap_or_default(), w.as_deref_mut().unwrap_or_default());
    weight_norm(v, of(problem, g), w, rnorm.as_deref_mut(), workspace, how.run)
}

fn backward<T: Types>(problem: &Problem, how: &How, tensors: &mut Tensors<T>) -> Result<(), Error> {
    let Tensors { v, g, dw, rnorm, dv, dg, workspace, .. } = tensors;
    let (v, dw) = (v.as_deref().unwrap_or_default(), dw.as_deref().unwrap_or_default());
    let gradients = WeightNormGradients { dv: dv.as_deref_mut(), dgain: dg.as_deref_mut(), workspace };
    weight_norm_backward(v, dw, of(problem, g), rnorm.as_deref(), gradients, how.run)
}
