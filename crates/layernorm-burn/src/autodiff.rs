//! How a norm is recorded: one node in Burn's graph, with a fused backward step. Behind a residual addition, two: a
//! `Backward` has one output that gradients come from, so the sum is a node of its own, though one call computes both.

use crate::operator::Operator;
use crate::ops::{BackwardCall, Beside, Inputs, NormKernels, NormOps, Output, Params};
use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

impl<B: NormKernels, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn norm(
        norm: Operator,
        x: FloatTensor<Self>,
        params: Params<Self>,
        beside: Beside<Self>,
    ) -> (FloatTensor<Self>, Beside<Self>) {
        let running = match beside {
            Beside::Residual(residual) => return behind_sum(norm, x, residual, params),
            Beside::Running(mean, var) => Some([mean, var].map(FloatTensor::<Self>::into_primitive)),
            Beside::Nothing => None,
        };
        let given = match running.clone() {
            Some([mean, var]) => Beside::Running(mean, var),
            None => Beside::Nothing,
        };
        let mut after = Beside::Nothing;
        let y = record::<B, C>(norm, x, params, running, |x, params, save| {
            let Output { y, beside, saved } = B::forward(norm, x, params, given, save);
            after = beside.constant();
            (y, saved)
        });
        (y, after)
    }
}

/// y, and what becomes of what is beside x.
type Outputs<B> = (FloatTensor<B>, Beside<B>);

/// The norm of x + residual.
fn behind_sum<B: NormKernels, C: CheckpointStrategy>(
    norm: Operator,
    x: FloatTensor<Autodiff<B, C>>,
    residual: FloatTensor<Autodiff<B, C>>,
    params: Params<Autodiff<B, C>>,
) -> Outputs<Autodiff<B, C>> {
    let inputs = [Some(&x), Some(&residual), params.gamma(), params.beta()];
    let save = inputs.into_iter().flatten().any(FloatTensor::<Autodiff<B, C>>::is_tracked);
    let ((x, x_node), (residual, residual_node)) = (x.into_parts(), residual.into_parts());
    let output = B::forward(norm, x, &params.inner(), Beside::Residual(residual), save);
    let Beside::Residual(sum) = output.beside else { unreachable!("a residual becomes the sum") };
    let nodes = [x_node, residual_node];
    let sum = Backward::<B, 2>::prepare::<C>(SumBackward, nodes).compute_bound().stateless(sum);
    // The norm is of the sum, and has been computed already.
    let y = record::<B, C>(norm, sum.clone(), params, None, |_, _, _| (output.y, output.saved));
    (y, Beside::Residual(sum))
}

impl<B: NormKernels> Beside<B> {
    /// Where no gradient comes from.
    fn constant<C: CheckpointStrategy>(self) -> Beside<Autodiff<B, C>> {
        let constant = FloatTensor::<Autodiff<B, C>>::new;
        match self {
            Self::Nothing => Beside::Nothing,
            Self::Residual(sum) => Beside::Residual(constant(sum)),
            Self::Running(mean, var) => Beside::Running(constant(mean), constant(var)),
        }
    }
}

impl<B: NormKernels, C: CheckpointStrategy> Params<Autodiff<B, C>> {
    fn inner(&self) -> Params<B> {
        let inner = |tensor: &FloatTensor<Autodiff<B, C>>| tensor.primitive().clone();
        Params::new(self.gamma().map(inner), self.beta().map(inner))
    }
}

/// y, and what is saved.
type Computed<B> = (FloatTensor<B>, Option<FloatTensor<B>>);

/// The forward pass, and its node over x, and gamma and beta where they are there.
fn record<B: NormKernels, C: CheckpointStrategy>(
    norm: Operator,
    x: FloatTensor<Autodiff<B, C>>,
    params: Params<Autodiff<B, C>>,
    running: Option<[FloatTensor<B>; 2]>,
    forward: impl FnOnce(FloatTensor<B>, &Params<B>, bool) -> Computed<B>,
) -> FloatTensor<Autodiff<B, C>> {
    let (inner, x_node) = (params.inner(), x.node());
    match params {
        Params::None => over::<B, C, 1>(norm, x, inner, running, [x_node], forward),
        Params::Gamma(of) | Params::Beta(of) => {
            over::<B, C, 2>(norm, x, inner, running, [x_node, of.node()], forward)
        }
        Params::Both(gamma, beta) => {
            over::<B, C, 3>(norm, x, inner, running, [x_node, gamma.node(), beta.node()], forward)
        }
    }
}

/// The forward pass, and its node over the `nodes` of the inputs.
fn over<B: NormKernels, C: CheckpointStrategy, const N: usize>(
    norm: Operator,
    x: FloatTensor<Autodiff<B, C>>,
    params: Params<B>,
    running: Option<[FloatTensor<B>; 2]>,
    nodes: [NodeGuard; N],
    forward: impl FnOnce(FloatTensor<B>, &Params<B>, bool) -> Computed<B>,
) -> FloatTensor<Autodiff<B, C>> {
    // Compute bound: a checkpointing strategy keeps y. It may drop x and compute it again, if x is cheap.
    match Backward::<B, N>::prepare::<C>(NormBackward, nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let x_node = prep.checkpoint(&x);
            let (y, saved) = forward(x.into_primitive(), &params, true);
            let saved = saved.expect("what was asked for is saved");
            prep.finish(Recorded { norm, x: x_node, params, running, saved }, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(x.into_primitive(), &params, false).0),
    }
}

/// What stays alive until the backward pass. The parameters are as short as one row, so they are kept as they
/// are; x is kept, or computed again, by Burn's checkpointer.
#[derive(Debug, Clone)]
struct Recorded<B: NormKernels> {
    norm: Operator,
    x: NodeId,
    params: Params<B>,
    running: Option<[FloatTensor<B>; 2]>,
    saved: FloatTensor<B>,
}

#[derive(Debug)]
struct NormBackward;

impl<B: NormKernels, const N: usize> Backward<B, N> for NormBackward {
    type State = Recorded<B>;

    fn backward(self, ops: Ops<Recorded<B>, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let Recorded { norm, x, params, running, saved } = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);

        // A parent is there if it waits for a gradient.
        let mut parents = ops.parents.into_iter();
        let parent_x = parents.next().flatten();
        let parent_gamma = params.gamma().and_then(|_| parents.next().flatten());
        let parent_beta = params.beta().and_then(|_| parents.next().flatten());
        let wanted =
            Inputs { x: parent_x.is_some(), gamma: parent_gamma.is_some(), beta: parent_beta.is_some() };

        let gradients = B::backward(norm, BackwardCall { x, dy, params, running, saved, wanted });
        let pairs = [(parent_x, gradients.x), (parent_gamma, gradients.gamma), (parent_beta, gradients.beta)];
        for (parent, gradient) in pairs {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// The gradient of a sum is that of both that were added.
#[derive(Debug)]
struct SumBackward;

impl<B: NormKernels> Backward<B, 2> for SumBackward {
    type State = ();

    fn backward(self, ops: Ops<(), 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        for parent in ops.parents.into_iter().flatten() {
            grads.register::<B>(parent.id, gradient.clone());
        }
    }
}
