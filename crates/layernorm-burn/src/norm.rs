//! A norm as a value that travels to the backend, and what each norm brings there.

use crate::{layer_norm::Layer, rms_norm::Rms};
use burn::tensor::Tensor;
use layernorm::{ParamGradients, Params, Real, Rows, RowsMut, Run};

/// Which norm, and its constant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    pub(crate) kind: Kind,
    pub(crate) eps: f64,
}

/// The norms. A new one is a variant here, and a file that says what it does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Layer,
    Rms,
}

impl Norm {
    /// Its kernels on slices of `T`.
    pub(crate) fn kernels<T: Real>(self) -> &'static dyn Kernels<T> {
        match self.kind {
            Kind::Layer => &Layer,
            Kind::Rms => &Rms,
        }
    }

    /// The same from Burn's operations, for devices that the kernels cannot reach.
    pub(crate) fn compose<const D: usize>(
        self,
        x: Tensor<D>,
        gamma: Option<Tensor<1>>,
        beta: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let x_hat = match self.kind {
            Kind::Layer => crate::layer_norm::compose(x, self.eps),
            Kind::Rms => crate::rms_norm::compose(x, self.eps),
        };
        let scaled = match gamma {
            Some(gamma) => x_hat * gamma.unsqueeze(),
            None => x_hat,
        };
        match beta {
            Some(beta) => scaled + beta.unsqueeze(),
            None => scaled,
        }
    }
}

/// `x / sqrt(variance + eps)`. Where that is 0 / 0, the result and its gradient are 0, as in the kernels.
pub(crate) fn divide_by_deviation<const D: usize>(x: Tensor<D>, variance: Tensor<D>, eps: f64) -> Tensor<D> {
    let shifted = variance + eps;
    // Before the root, because its derivative at 0 would make NaN of a gradient that is masked only after it.
    let nothing = shifted.clone().equal_elem(0.0);
    x / shifted.mask_fill(nothing, 1.0).sqrt()
}

/// The kernels of a norm. Every error is found before anything is written.
pub(crate) trait Kernels<T: Real> {
    /// Length of a row of a tensor of this shape: what is normalised together.
    fn features(&self, shape: &[usize]) -> usize;

    /// How many statistics a row has for the backward pass. They are saved as that many columns.
    fn columns(&self) -> usize;

    /// y, and the statistics where they are asked for.
    fn forward(
        &self,
        x: Source<'_, T>,
        params: Params<'_, T>,
        saved: Option<&mut [T]>,
        run: Run,
    ) -> Result<(), layernorm::Error>;

    /// The gradients of x and the parameters.
    fn backward(&self, call: Backward<'_, T>) -> Result<(), layernorm::Error>;
}

/// The rows of x, and where y goes.
pub(crate) enum Source<'a, T> {
    /// Into memory of its own.
    Apart(Rows<'a, T>, RowsMut<'a, T>),
    /// Over x.
    InPlace(RowsMut<'a, T>),
}

/// The rows of dy, and where dx goes.
pub(crate) enum Upstream<'a, T> {
    /// Into memory of its own, if anybody wants it.
    Apart(Rows<'a, T>, Option<RowsMut<'a, T>>),
    /// Over dy.
    InPlace(RowsMut<'a, T>),
}

/// What a backward pass works on.
pub(crate) struct Backward<'a, T> {
    pub(crate) x: Rows<'a, T>,
    pub(crate) dy: Upstream<'a, T>,
    pub(crate) params: Params<'a, T>,
    /// The statistics, as `forward` saved them.
    pub(crate) saved: &'a [T],
    pub(crate) gradients: Option<ParamGradients<'a, T>>,
    pub(crate) run: Run,
}
