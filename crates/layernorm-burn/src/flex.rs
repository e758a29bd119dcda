//! The kernels on the tensors of Flex, Burn's CPU backend.

use crate::memory::{Number, Scalar, block, contiguous, is_exclusive, memory, slice, with_rows, zeros};
use crate::operator::{Backward, Forward, Operator, Source, Upstream};
use crate::ops::{BackwardCall, Beside, Inputs, NormKernels, NormOps, Output, Params};
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape, bf16, f16};
use layernorm::{Companion, ParamGradients, Run, Threads, Workspace};

impl NormOps for Flex {
    fn norm(
        norm: Operator,
        x: FlexTensor,
        params: Params<Self>,
        beside: Beside<Self>,
    ) -> (FlexTensor, Beside<Self>) {
        let Output { y, beside, .. } = Self::forward(norm, x, &params, beside, false);
        (y, beside)
    }
}

/// A function of elements and parameters, in the types that those of a call are.
macro_rules! of_types {
    ($function:ident, $x:expr, $params:expr, $call:expr) => {{
        let x = $x.dtype();
        match (x, $params.gamma().or($params.beta()).is_none_or(|parameter| parameter.dtype() == x)) {
            (DType::F64, _) => $function::<f64, f64>($call),
            (DType::F16, true) => $function::<f16, f16>($call),
            (DType::F16, false) => $function::<f16, f32>($call),
            (DType::BF16, true) => $function::<bf16, bf16>($call),
            (DType::BF16, false) => $function::<bf16, f32>($call),
            _ => $function::<f32, f32>($call),
        }
    }};
}

impl NormKernels for Flex {
    fn forward(
        norm: Operator,
        x: FlexTensor,
        params: &Params<Self>,
        beside: Beside<Self>,
        save: bool,
    ) -> Output<Self> {
        of_types!(forward, x, params, (norm, x, params, beside, save))
    }

    fn backward(norm: Operator, call: BackwardCall<Self>) -> Inputs<Option<FlexTensor>> {
        of_types!(backward, call.x, call.params, (norm, call))
    }
}

const CHECKED: &str = "every call is checked before it is dispatched";

fn forward<E: Scalar, P: Scalar + Companion<E>>(
    (norm, mut x, params, beside, save): (Operator, FlexTensor, &Params<Flex>, Beside<Flex>, bool),
) -> Output<Flex> {
    let kernels = norm.kernels::<E, P>();
    let shape = x.layout().shape().clone();
    let row = kernels.row(&shape);
    let affine = Affine::new(params);
    let mut saved = save.then(|| zeros::<E::Acc>(Shape::from([kernels.saved(&shape)])));
    let (mut residual, mut running) = match beside {
        Beside::Nothing => (None, None),
        Beside::Residual(residual) => (Some(residual), None),
        Beside::Running(mean, var) => (None, Some(statistics::<E::Acc>([&mean, &var]))),
    };
    let mut run = |x: Source<'_, E>, residual: Option<Source<'_, E>>| {
        let call = Forward {
            shape: &shape,
            x,
            residual,
            params: affine.params::<P>(norm),
            running: running.as_mut().map(|of| of.each_mut().map(memory)),
            saved: saved.as_mut().map(memory),
            run: Run::default(),
        };
        kernels.forward(call).expect(CHECKED);
    };

    let in_place =
        kernels.takes_one_memory() && is_exclusive(&x) && residual.as_ref().is_none_or(is_exclusive);
    let (y, sum) = if in_place {
        run(Source::InPlace(memory(&mut x)), residual.as_mut().map(|of| Source::InPlace(memory(of))));
        (x, residual)
    } else {
        let with_rows = |of| with_rows(of, row, kernels.takes_gaps());
        let (x, residual) = (with_rows(x), residual.map(with_rows));
        let mut y = zeros::<E>(shape.clone());
        let mut sum = residual.as_ref().map(|_| zeros::<E>(shape.clone()));
        let to_sum = residual.as_ref().zip(sum.as_mut());
        let to_sum = to_sum.map(|(of, sum)| Source::Apart(block(of, row), memory(sum)));
        run(Source::Apart(block(&x, row), memory(&mut y)), to_sum);
        (y, sum)
    };
    let beside = match (sum, running) {
        (Some(sum), _) => Beside::Residual(sum),
        (None, Some([mean, var])) => Beside::Running(mean, var),
        (None, None) => Beside::Nothing,
    };
    Output { y, beside, saved }
}

fn backward<E: Scalar, P: Scalar + Companion<E>>(
    (norm, call): (Operator, BackwardCall<Flex>),
) -> Inputs<Option<FlexTensor>> {
    let BackwardCall { x, mut dy, params, running, saved, wanted } = call;
    let kernels = norm.kernels::<E, P>();
    let shape = x.layout().shape().clone();
    let row = kernels.row(&shape);
    let with_rows = |of| with_rows(of, row, kernels.takes_gaps());
    let x = with_rows(x);
    let affine = Affine::new(&params);
    let running = running.map(|of| statistics::<E::Acc>(of.each_ref()));
    let mut workspace = Workspace::new();
    let sums = |of: &FlexTensor| zeros::<E::Acc>(of.layout().shape().clone());
    let mut dgamma = params.gamma().filter(|_| wanted.gamma).map(sums);
    let mut dbeta = params.beta().filter(|_| wanted.beta).map(sums);

    let mut run = |dy: Upstream<'_, E>| {
        let gradients = ParamGradients {
            dweight: dgamma.as_mut().map(memory),
            dbias: dbeta.as_mut().map(memory),
            accumulate: false,
            first_row: 0,
            workspace: &mut workspace,
        };
        let call = Backward {
            shape: &shape,
            x: block(&x, row),
            dy,
            params: affine.params::<P>(norm),
            running: running.as_ref().map(|of| of.each_ref().map(slice)),
            saved: slice(&saved),
            gradients,
            run: backward_run(),
        };
        kernels.backward(call).expect(CHECKED);
    };

    let dx = if wanted.x && kernels.takes_one_memory() && is_exclusive(&dy) {
        run(Upstream::InPlace(memory(&mut dy)));
        Some(dy)
    } else {
        let dy = with_rows(dy);
        let mut dx = wanted.x.then(|| zeros::<E>(shape.clone()));
        run(Upstream::Apart(block(&dy, row), dx.as_mut().map(memory)));
        dx
    };
    // Summed in the type that x is computed in, and rounded once to that of the parameter.
    let rounded = |sums: Option<FlexTensor>| sums.map(|sums| Flex::float_cast(sums, P::dtype().into()));
    Inputs { x: dx, gamma: rounded(dgamma), beta: rounded(dbeta) }
}

/// Burn runs a backward step with the graph locked, and the lock is not reentrant. A rayon worker that waits for
/// its part of the rows may steal a task that wants the same lock, and would wait for itself for ever. A thread
/// outside the pool only waits.
fn backward_run() -> Run {
    match rayon::current_thread_index() {
        Some(_) => Run::default().with_threads(Threads::One),
        None => Run::default(),
    }
}

/// Running mean and variance, which are a few numbers: copied, because somebody else may still read them. A variance below
/// 0, which the kernels refuse, is NaN, as its root would be.
fn statistics<T: Number>([mean, var]: [&FlexTensor; 2]) -> [FlexTensor; 2] {
    let copy = |of: &FlexTensor| {
        let mut copy = zeros::<T>(of.layout().shape().clone());
        memory::<T>(&mut copy).copy_from_slice(slice(&contiguous(of)));
        copy
    };
    let (mean, mut var) = (copy(mean), copy(var));
    for var in memory::<T>(&mut var).iter_mut().filter(|var| var.to_f64() < 0.0) {
        *var = T::from_elem(f64::NAN);
    }
    [mean, var]
}

/// gamma and beta as slices.
struct Affine {
    gamma: Option<FlexTensor>,
    beta: Option<FlexTensor>,
}

impl Affine {
    fn new(params: &Params<Flex>) -> Self {
        Self { gamma: params.gamma().map(contiguous), beta: params.beta().map(contiguous) }
    }

    fn params<P: Scalar>(&self, norm: Operator) -> layernorm::Params<'_, P> {
        layernorm::Params {
            weight: self.gamma.as_ref().map(slice),
            bias: self.beta.as_ref().map(slice),
            eps: norm.eps,
        }
    }
}
