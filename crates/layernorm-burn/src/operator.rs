//! A norm with kernels, as a value that travels to the backend, and what each brings there.

use crate::adaptive_norm::Adaptive;
use crate::batch_norm::Batch;
use crate::compose::Along;
use crate::group_norm::Groups;
use crate::layer_norm::Layer;
use crate::memory::Block;
use crate::qk_norm::Heads;
use crate::rms_norm::Rms;
use crate::weight_norm::Weight;
use burn::tensor::Tensor;
use layernorm::{Companion, Element, Error, ParamGradients, Params, Rows, RowsMut, Run, StatsMut, StatsRef};

/// Which norm, and its constant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operator {
    pub(crate) kind: Kind,
    pub(crate) eps: f64,
}

/// The norms. A new one is a variant here, and a file that says what it does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Layer(Layer),
    Rms(Rms),
    Heads(Heads),
    Groups(Groups),
    Batch(Batch),
    Weight(Weight),
    Adaptive(Adaptive),
}

impl Operator {
    pub(crate) fn new(kind: Kind, eps: f64) -> Self {
        Self { kind, eps }
    }

    /// Its kernels on elements `E` beside parameters `P`.
    pub(crate) fn kernels<E: Element, P: Companion<E>>(&self) -> &dyn Kernels<E, P> {
        match &self.kind {
            Kind::Layer(norm) => norm,
            Kind::Rms(norm) => norm,
            Kind::Heads(norm) => norm,
            Kind::Groups(norm) => norm,
            Kind::Batch(norm) => norm,
            Kind::Weight(norm) => norm,
            Kind::Adaptive(norm) => norm,
        }
    }

    /// x_hat from Burn's operations, for devices that the kernels cannot reach. By running statistics, where they are
    /// there.
    pub(crate) fn x_hat<const D: usize>(&self, x: Tensor<D>, running: Option<&[Tensor<1>; 2]>) -> Tensor<D> {
        match (self.kind, running) {
            (Kind::Layer(_), _) => crate::layer_norm::x_hat(x, self.eps),
            (Kind::Rms(norm), _) => norm.x_hat(x, self.eps),
            (Kind::Heads(norm), _) => norm.x_hat(x, self.eps),
            (Kind::Groups(norm), _) => norm.x_hat(x, self.eps),
            (Kind::Batch(norm), running) => norm.x_hat(x, running, self.eps),
            (Kind::Weight(norm), _) => norm.x_hat(x),
            (Kind::Adaptive(norm), _) => norm.x_hat(x, self.eps),
        }
    }

    /// What a parameter is said to lie along.
    pub(crate) fn along(&self) -> Along {
        match self.kind {
            Kind::Layer(_) | Kind::Rms(_) => Along::Last,
            Kind::Heads(_) => Along::Heads,
            Kind::Groups(_) | Kind::Batch(_) => Along::Axis(1),
            Kind::Weight(Weight { axis }) => Along::Axis(axis),
            Kind::Adaptive(_) => Along::Samples,
        }
    }
}

/// `x / sqrt(variance + eps)`. Where that is 0 / 0, the result and its gradient are 0, as in the kernels.
pub(crate) fn divide_by_deviation<const D: usize>(x: Tensor<D>, variance: Tensor<D>, eps: f64) -> Tensor<D> {
    let shifted = variance + eps;
    // Before the root, because its derivative at 0 would make NaN of a gradient that is masked only after it.
    let nothing = shifted.clone().equal_elem(0.0);
    let rstd = shifted.mask_fill(nothing.clone(), 1.0).sqrt().recip();
    x * rstd.mask_fill(nothing, 0.0)
}

/// The kernels of a norm, and what they ask of memory. Every error is found before anything is written.
pub(crate) trait Kernels<E: Element, P: Companion<E>> {
    /// Numbers of a tensor of this shape that must lie side by side.
    fn row(&self, shape: &[usize]) -> usize;

    /// May there be gaps between rows?
    fn takes_gaps(&self) -> bool {
        true
    }

    /// May y be written over x, and dx over dy?
    fn takes_one_memory(&self) -> bool {
        true
    }

    /// How many numbers are saved for the backward pass.
    fn saved(&self, shape: &[usize]) -> usize;

    /// y, and what else the call has room for.
    fn forward(&self, call: Forward<'_, E, P>) -> Result<(), Error>;

    /// The gradients of x and the parameters.
    fn backward(&self, call: Backward<'_, E, P>) -> Result<(), Error>;
}

/// What a forward pass works on.
pub(crate) struct Forward<'a, E: Element, P> {
    /// Of x.
    pub(crate) shape: &'a [usize],
    pub(crate) x: Source<'a, E>,
    /// What is added to x before, and where the sum goes: over it if y goes over x.
    pub(crate) residual: Option<Source<'a, E>>,
    pub(crate) params: Params<'a, P>,
    /// Running mean and variance, which training moves.
    pub(crate) running: Option<[&'a mut [E::Acc]; 2]>,
    pub(crate) saved: Option<&'a mut [E::Acc]>,
    pub(crate) run: Run,
}

/// Where the numbers of a tensor are, and where those made of them go, which lie without gaps.
pub(crate) enum Source<'a, E> {
    /// Into memory of its own.
    Apart(Block<'a, E>, &'a mut [E]),
    /// Over what is read.
    InPlace(&'a mut [E]),
}

/// The same as rows.
pub(crate) enum SourceRows<'a, E> {
    Apart(Rows<'a, E>, RowsMut<'a, E>),
    InPlace(RowsMut<'a, E>),
}

impl<'a, E> Source<'a, E> {
    /// In rows of so many numbers.
    pub(crate) fn rows(self, row: usize) -> Result<SourceRows<'a, E>, Error> {
        Ok(match self {
            Self::Apart(x, y) => SourceRows::Apart(x.rows(row)?, RowsMut::new(y, row)?),
            Self::InPlace(x) => SourceRows::InPlace(RowsMut::new(x, row)?),
        })
    }
}

/// What a backward pass works on.
pub(crate) struct Backward<'a, E: Element, P> {
    /// Of x.
    pub(crate) shape: &'a [usize],
    pub(crate) x: Block<'a, E>,
    pub(crate) dy: Upstream<'a, E>,
    pub(crate) params: Params<'a, P>,
    /// Running mean and variance, if the forward pass was given them.
    pub(crate) running: Option<[&'a [E::Acc]; 2]>,
    /// The statistics, as the forward pass saved them.
    pub(crate) saved: &'a [E::Acc],
    pub(crate) gradients: ParamGradients<'a, E::Acc>,
    pub(crate) run: Run,
}

/// dy, and where dx goes.
pub(crate) enum Upstream<'a, E> {
    /// Into memory of its own, if anybody wants it.
    Apart(Block<'a, E>, Option<&'a mut [E]>),
    /// Over dy.
    InPlace(&'a mut [E]),
}

/// The same as rows.
pub(crate) enum UpstreamRows<'a, E> {
    Apart(Rows<'a, E>, Option<RowsMut<'a, E>>),
    InPlace(RowsMut<'a, E>),
}

impl<'a, E> Upstream<'a, E> {
    /// In rows of so many numbers.
    pub(crate) fn rows(self, row: usize) -> Result<UpstreamRows<'a, E>, Error> {
        Ok(match self {
            Self::Apart(dy, dx) => {
                let dx = dx.map(|dx| RowsMut::new(dx, row)).transpose()?;
                UpstreamRows::Apart(dy.rows(row)?, dx)
            }
            Self::InPlace(dy) => UpstreamRows::InPlace(RowsMut::new(dy, row)?),
        })
    }
}

/// The gradients of parameters, if one is wanted.
pub(crate) fn wanted<T>(of: ParamGradients<'_, T>) -> Option<ParamGradients<'_, T>> {
    Some(of).filter(|of| of.dweight.is_some() || of.dbias.is_some())
}

/// The length of the last axis: a row of the norms by row.
pub(crate) fn last(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1)
}

/// How many rows of the last axis there are.
pub(crate) fn rows_of(shape: &[usize]) -> usize {
    shape.iter().product::<usize>().checked_div(last(shape)).unwrap_or(0)
}

/// Three columns of statistics in the memory for what is saved.
pub(crate) fn columns_mut<T>(saved: &mut [T]) -> StatsMut<'_, T> {
    let rows = saved.len() / 3;
    let (m, rest) = saved.split_at_mut(rows);
    let (c, rstd) = rest.split_at_mut(rows);
    StatsMut { m, c, rstd }
}

/// And back.
pub(crate) fn columns<T>(saved: &[T]) -> StatsRef<'_, T> {
    let rows = saved.len() / 3;
    let (m, rest) = saved.split_at(rows);
    let (c, rstd) = rest.split_at(rows);
    StatsRef { m, c, rstd }
}
