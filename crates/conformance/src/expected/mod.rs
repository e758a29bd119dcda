//! The outputs of a case by the kernels on slices: what every framework must give. On one thread, so that a framework's
//! threads are compared with none.

mod images;
mod residual;
mod rows;
mod samples;
mod weights;

use crate::{Affine, Case, Name, Number, Operator, Outputs, Parameters};
use layernorm::{Companion, Error, ParamGradients, Params, Real, Run, Stats, Threads, Workspace};

/// The outputs of a case.
pub(crate) fn expected<E: Number>(case: &Case<E>) -> Result<Outputs<E>, Error> {
    match &case.parameters {
        Parameters::Own(of) => of_operator(&Call { case, of }),
        Parameters::Wide(of) => of_operator(&Call { case, of }),
    }
}

fn of_operator<E: Number, P: Companion<E>>(call: &Call<'_, E, P>) -> Result<Outputs<E>, Error> {
    match call.case.operator {
        Operator::LayerNorm => rows::layer_norm(call),
        Operator::RmsNorm { .. } => rows::rms_norm(call),
        Operator::ScaleNorm => rows::scale_norm(call),
        Operator::L2Norm => rows::l2_norm(call),
        Operator::QkNorm { norm, by_head } => rows::qk_norm(call, norm, by_head),
        Operator::GroupNorm { groups, layout, activation } => {
            images::group_norm(call, groups, layout, activation)
        }
        Operator::InstanceNorm { layout } => images::instance_norm(call, layout),
        Operator::BatchNorm { layout, mode } => images::batch_norm(call, layout, mode),
        Operator::AdaLayerNorm(scale_is) => samples::ada_layer_norm(call, scale_is),
        Operator::AdaRmsNorm(scale_is) => samples::ada_rms_norm(call, scale_is),
        Operator::AddLayerNorm => residual::add_layer_norm(call),
        Operator::AddRmsNorm => residual::add_rms_norm(call),
        Operator::WeightNorm { axis } => weights::weight_norm(call, axis),
    }
}

/// A case whose parameters have the type `P`.
struct Call<'a, E: Number, P> {
    case: &'a Case<E>,
    of: &'a Affine<P>,
}

impl<E: Number, P> Call<'_, E, P> {
    fn params(&self) -> Params<'_, P> {
        Params { weight: self.of.weight.as_deref(), bias: self.of.bias.as_deref(), eps: self.case.eps }
    }

    /// Room for numbers like x.
    fn like_x(&self) -> Vec<E> {
        vec![E::default(); self.case.x.len()]
    }

    fn sums(&self) -> Sums<E::Acc> {
        let zeros = |of: &Option<Vec<P>>| of.as_ref().map(|of| zeros(of.len()));
        Sums { dweight: zeros(&self.of.weight), dbias: zeros(&self.of.bias), workspace: Workspace::new() }
    }
}

const RUN: fn() -> Run = || Run::default().with_threads(Threads::One);

fn zeros<T: Real>(len: usize) -> Vec<T> {
    vec![T::default(); len]
}

/// The gradients of the parameters that are there.
struct Sums<T> {
    dweight: Option<Vec<T>>,
    dbias: Option<Vec<T>>,
    workspace: Workspace<T>,
}

impl<T: Real> Sums<T> {
    fn gradients(&mut self) -> ParamGradients<'_, T> {
        ParamGradients {
            dweight: self.dweight.as_deref_mut(),
            dbias: self.dbias.as_deref_mut(),
            accumulate: false,
            first_row: 0,
            workspace: &mut self.workspace,
        }
    }

    /// y and dx, and these.
    fn outputs<E: Number<Acc = T>>(self, y: Vec<E>, dx: Vec<E>) -> Outputs<E> {
        let mut outputs = Outputs::new().own(Name::Y, y).own(Name::Dx, dx);
        for (name, sums) in [(Name::Dweight, self.dweight), (Name::Dbias, self.dbias)] {
            if let Some(sums) = sums {
                outputs = outputs.wide(name, sums);
            }
        }
        outputs
    }
}

/// All three, one after the other.
fn in_a_row<T: Real>(Stats { m, c, rstd }: Stats<T>) -> Vec<T> {
    [m, c, rstd].concat()
}
