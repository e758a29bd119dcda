//! What a backend must offer to run a norm.

use crate::operator::Operator;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, backend_extension};

/// The operation that Burn dispatches. `x` is f32, f64, f16 or bf16, the parameters of that type or f32 beside halves, and
/// every shape fits.
///
/// A backend that is not listed here panics in Burn's dispatch, so `apply` sends it nothing.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait NormOps: Backend {
    /// y, of the shape of x, and what becomes of what is beside it. Gradients reach x, the parameters and a residual.
    fn norm(
        norm: Operator,
        x: FloatTensor<Self>,
        #[extension_type] params: Params<Self>,
        #[extension_type] beside: Beside<Self>,
    ) -> (FloatTensor<Self>, Beside<Self>);
}

/// The fused kernels of a backend without autodiff: all that `autodiff` needs to record a norm.
pub(crate) trait NormKernels: Backend {
    /// y; and what the backward pass needs to know of x, if it is to be saved.
    fn forward(
        norm: Operator,
        x: FloatTensor<Self>,
        params: &Params<Self>,
        beside: Beside<Self>,
        save: bool,
    ) -> Output<Self>;

    /// The gradients of x, gamma and beta, in one call.
    fn backward(norm: Operator, call: BackwardCall<Self>) -> Inputs<Option<FloatTensor<Self>>>;
}

/// What a forward pass gives.
pub(crate) struct Output<B: Backend> {
    pub(crate) y: FloatTensor<B>,
    pub(crate) beside: Beside<B>,
    pub(crate) saved: Option<FloatTensor<B>>,
}

/// What a backward pass is given.
pub(crate) struct BackwardCall<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) dy: FloatTensor<B>,
    pub(crate) params: Params<B>,
    /// As the forward pass was given them.
    pub(crate) running: Option<[FloatTensor<B>; 2]>,
    pub(crate) saved: FloatTensor<B>,
    /// Which gradients somebody waits for.
    pub(crate) wanted: Inputs<bool>,
}

/// Something for each input of a norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inputs<V> {
    pub(crate) x: V,
    pub(crate) gamma: V,
    pub(crate) beta: V,
}

/// What a call takes beside x and its parameters, and gives back as it has become.
#[derive(Debug, Clone, ExtensionType)]
pub(crate) enum Beside<B: Backend> {
    Nothing,
    /// What is added to x before it is normalised; becomes the sum.
    Residual(FloatTensor<B>),
    /// Running mean and variance, in the type that x is computed in; become those after the batch, in training.
    Running(FloatTensor<B>, FloatTensor<B>),
}

/// gamma and beta, where they are there. (Burn's dispatch has no notion of an optional input tensor, but it
/// understands an enum.)
#[derive(Debug, Clone, ExtensionType)]
pub(crate) enum Params<B: Backend> {
    None,
    Gamma(FloatTensor<B>),
    Beta(FloatTensor<B>),
    Both(FloatTensor<B>, FloatTensor<B>),
}

impl<B: Backend> Params<B> {
    pub(crate) fn new(gamma: Option<FloatTensor<B>>, beta: Option<FloatTensor<B>>) -> Self {
        match (gamma, beta) {
            (None, None) => Self::None,
            (Some(gamma), None) => Self::Gamma(gamma),
            (None, Some(beta)) => Self::Beta(beta),
            (Some(gamma), Some(beta)) => Self::Both(gamma, beta),
        }
    }

    pub(crate) fn gamma(&self) -> Option<&FloatTensor<B>> {
        match self {
            Self::Gamma(gamma) | Self::Both(gamma, _) => Some(gamma),
            Self::None | Self::Beta(_) => None,
        }
    }

    pub(crate) fn beta(&self) -> Option<&FloatTensor<B>> {
        match self {
            Self::Beta(beta) | Self::Both(_, beta) => Some(beta),
            Self::None | Self::Gamma(_) => None,
        }
    }
}
