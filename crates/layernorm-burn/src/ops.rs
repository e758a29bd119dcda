//! What a backend must offer to run a norm.

use crate::operator::Operator;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, ExtensionType, backend_extension};

/// The operation that Burn dispatches. `x` is f32 or f64, the parameters of the same type, and every shape fits.
///
/// A backend that is not listed here panics in Burn's dispatch, so `apply` sends it nothing.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait NormOps: Backend {
    /// y, of the shape of x.
    fn norm(
        norm: Operator,
        x: FloatTensor<Self>,
        #[extension_type] params: Params<Self>,
    ) -> FloatTensor<Self>;
}

/// The fused kernels of a backend without autodiff: all that `autodiff` needs to record a norm.
pub(crate) trait NormKernels: Backend {
    /// y.
    fn forward(norm: Operator, x: FloatTensor<Self>, params: &Params<Self>) -> FloatTensor<Self>;

    /// y, and what the backward pass needs to know of each row.
    fn forward_saving(
        norm: Operator,
        x: FloatTensor<Self>,
        params: &Params<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradients of x, gamma and beta, in one call.
    fn backward(norm: Operator, call: BackwardCall<Self>) -> Inputs<Option<FloatTensor<Self>>>;
}

/// What a backward pass is given.
pub(crate) struct BackwardCall<B: Backend> {
    pub(crate) x: FloatTensor<B>,
    pub(crate) dy: FloatTensor<B>,
    pub(crate) params: Params<B>,
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
