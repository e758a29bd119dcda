//! A cell of any kind, and what all kinds are made of.

use super::gru::GruCell;
use super::lstm::LstmCell;
use super::rnn::RnnCell;
use super::state::CellState;
use crate::{Norm, NormConfig};
use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Tensor};

/// Which equations a cell follows.
///
/// ```
/// use layernorm_burn::recurrent::{CellKind, RecurrentConfig};
///
/// assert_eq!(RecurrentConfig::lstm(3, 4).kind, CellKind::Lstm);
/// ```
#[derive(Config, Debug, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CellKind {
    /// h = tanh(N(x W_x + h W_h) + b): see [`RnnCell`].
    Rnn,
    /// Long short-term memory: see [`LstmCell`].
    Lstm,
    /// The gated recurrent unit: see [`GruCell`].
    Gru,
}

/// A recurrent cell of any kind.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{NormConfig, recurrent::RecurrentConfig};
///
/// let device = Device::flex();
/// let network = RecurrentConfig::lstm(3, 4).with_norm(NormConfig::rms()).init(&device);
/// let cell = &network.cells[0];
/// let state = cell.initial(&Tensor::zeros([2, 3], &device));
/// let state = cell.step(Tensor::ones([2, 3], &device), state, 0);
/// assert_eq!(state.h.dims(), [2, 4]);
/// ```
#[allow(clippy::large_enum_variant, reason = "a network has a handful of cells")]
#[derive(Module, Debug)]
pub enum Cell {
    /// h = tanh(N(x W_x + h W_h) + b).
    Rnn(RnnCell),
    /// Long short-term memory.
    Lstm(LstmCell),
    /// The gated recurrent unit.
    Gru(GruCell),
}

impl Cell {
    /// The state before the first step: zeros, for as many samples as `x` has, in its type.
    pub fn initial(&self, x: &Tensor<2>) -> CellState {
        let [batch, _] = x.dims();
        let zeros = Tensor::zeros([batch, self.d_hidden()], (&x.device(), x.dtype()));
        let c = matches!(self, Self::Lstm(_)).then(|| zeros.clone());
        CellState { h: zeros, c }
    }

    /// One step at time `t`, which counts for per-step batch norm only. `x`: `[batch, d_input]`.
    ///
    /// # Panics
    /// As Burn's operations, and [`Norm::forward_at`](crate::Norm::forward_at), if something doesn't fit.
    pub fn step(&self, x: Tensor<2>, state: CellState, t: usize) -> CellState {
        match self {
            Self::Rnn(cell) => cell.step(x, state, t),
            Self::Lstm(cell) => cell.step(x, state, t),
            Self::Gru(cell) => cell.step(x, state, t),
        }
    }

    /// Features of the hidden state.
    pub fn d_hidden(&self) -> usize {
        let [d_hidden, _] = match self {
            Self::Rnn(cell) => cell.w_h.dims(),
            Self::Lstm(cell) => cell.w_h.dims(),
            Self::Gru(cell) => cell.w_h.dims(),
        };
        d_hidden
    }

    /// All norms of the cell.
    pub(super) fn norms_mut(&mut self) -> Vec<&mut Norm> {
        match self {
            Self::Rnn(cell) => vec![&mut cell.norm],
            Self::Lstm(cell) => vec![&mut cell.norm_x, &mut cell.norm_h, &mut cell.norm_c],
            Self::Gru(cell) => vec![&mut cell.norm_x, &mut cell.norm_h, &mut cell.norm_w, &mut cell.norm_u],
        }
    }

    pub(super) fn new(kind: CellKind, config: &CellConfig<'_>, device: &Device) -> Self {
        match kind {
            CellKind::Rnn => Self::Rnn(RnnCell::new(config, device)),
            CellKind::Lstm => Self::Lstm(LstmCell::new(config, device)),
            CellKind::Gru => Self::Gru(GruCell::new(config, device)),
        }
    }
}

/// What a cell is made from.
pub(super) struct CellConfig<'a> {
    /// d_input and d_hidden.
    pub(super) sizes: [usize; 2],
    pub(super) norm: &'a NormConfig,
    pub(super) norm_memory: &'a NormConfig,
    pub(super) bias: bool,
}

/// First weights as in PyTorch's recurrent layers: uniform within 1 / sqrt(d_hidden).
pub(super) fn matrix(shape: [usize; 2], d_hidden: usize, device: &Device) -> Param<Tensor<2>> {
    let max = 1.0 / (d_hidden as f64).sqrt();
    Initializer::Uniform { min: -max, max }.init(shape, device)
}

/// A bias of zeros, if one is wanted.
pub(super) fn vector(len: usize, wanted: bool, device: &Device) -> Option<Param<Tensor<1>>> {
    wanted.then(|| Initializer::Zeros.init([len], device))
}

/// `x + b`, where there is a b.
pub(super) fn plus(x: Tensor<2>, b: &Option<Param<Tensor<1>>>) -> Tensor<2> {
    match b {
        Some(b) => x + b.val().unsqueeze(),
        None => x,
    }
}

/// `[batch, N d_hidden]` as N tensors of `[batch, d_hidden]`.
pub(super) fn split<const N: usize>(x: Tensor<2>) -> [Tensor<2>; N] {
    let [batch, width] = x.dims();
    let d = width / N;
    std::array::from_fn(|part| x.clone().slice([0..batch, part * d..(part + 1) * d]))
}
