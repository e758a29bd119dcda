//! How a norm is recorded: one node in Burn's graph, with a fused backward step.

use crate::operator::Operator;
use crate::ops::{BackwardCall, Inputs, NormKernels, NormOps, Params};
use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

impl<B: NormKernels, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn norm(norm: Operator, x: FloatTensor<Self>, params: Params<Self>) -> FloatTensor<Self> {
        let x_node = x.node();
        match params {
            Params::None => record::<B, C, 1>(norm, x, Params::None, [x_node]),
            Params::Gamma(gamma) => {
                let (gamma, node) = gamma.into_parts();
                record::<B, C, 2>(norm, x, Params::Gamma(gamma), [x_node, node])
            }
            Params::Beta(beta) => {
                let (beta, node) = beta.into_parts();
                record::<B, C, 2>(norm, x, Params::Beta(beta), [x_node, node])
            }
            Params::Both(gamma, beta) => {
                let ((gamma, gamma_node), (beta, beta_node)) = (gamma.into_parts(), beta.into_parts());
                record::<B, C, 3>(norm, x, Params::Both(gamma, beta), [x_node, gamma_node, beta_node])
            }
        }
    }
}

/// The forward pass, and its node over the `nodes` of the inputs: x, then gamma and beta where they are there.
fn record<B: NormKernels, C: CheckpointStrategy, const N: usize>(
    norm: Operator,
    x: FloatTensor<Autodiff<B, C>>,
    params: Params<B>,
    nodes: [NodeGuard; N],
) -> FloatTensor<Autodiff<B, C>> {
    // Compute bound: a checkpointing strategy keeps y. It may drop x and compute it again, if x is cheap.
    match Backward::<B, N>::prepare::<C>(NormBackward, nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let x_node = prep.checkpoint(&x);
            let (y, saved) = B::forward_saving(norm, x.into_primitive(), &params);
            prep.finish(Recorded { norm, x: x_node, params, saved }, y)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::forward(norm, x.into_primitive(), &params)),
    }
}

/// What stays alive until the backward pass. The parameters are as short as one row, so they are kept as they
/// are; x is kept, or computed again, by Burn's checkpointer.
#[derive(Debug, Clone)]
struct Recorded<B: NormKernels> {
    norm: Operator,
    x: NodeId,
    params: Params<B>,
    saved: FloatTensor<B>,
}

#[derive(Debug)]
struct NormBackward;

impl<B: NormKernels, const N: usize> Backward<B, N> for NormBackward {
    type State = Recorded<B>;

    fn backward(self, ops: Ops<Recorded<B>, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let Recorded { norm, x, params, saved } = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);

        // A parent is there if it waits for a gradient.
        let mut parents = ops.parents.into_iter();
        let parent_x = parents.next().flatten();
        let parent_gamma = params.gamma().and_then(|_| parents.next().flatten());
        let parent_beta = params.beta().and_then(|_| parents.next().flatten());
        let wanted =
            Inputs { x: parent_x.is_some(), gamma: parent_gamma.is_some(), beta: parent_beta.is_some() };

        let gradients = B::backward(norm, BackwardCall { x, dy, params, saved, wanted });
        let pairs = [(parent_x, gradients.x), (parent_gamma, gradients.gamma), (parent_beta, gradients.beta)];
        for (parent, gradient) in pairs {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}
