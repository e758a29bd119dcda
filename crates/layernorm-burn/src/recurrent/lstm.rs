//! Long short-term memory, plain, with layer norm (the supplement of Ba, Kiros, Hinton 2016) and with recurrent batch
//! norm (Cooijmans et al. 2016, arXiv:1603.09025):
//!
//! ```text
//! f, i, o, g = N_h(h W_h) + N_x(x W_x) + b        all four gates are one vector, normalised together
//! c = s(f) c + s(i) tanh(g)                       carried as it is
//! h = s(o) tanh(N_c(c))
//! ```

use super::cell::{CellConfig, matrix, plus, split, vector};
use super::state::CellState;
use crate::Norm;
use burn::module::{Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

/// An LSTM cell. The gates lie in the order f, i, o, g.
///
/// ```
/// use layernorm_burn::{NormConfig, recurrent::{Cell, RecurrentConfig}};
///
/// let network = RecurrentConfig::lstm(3, 4).with_norm(NormConfig::layer()).init(&Default::default());
/// let Cell::Lstm(cell) = &network.cells[0] else { unreachable!() };
/// assert_eq!(cell.w_x.dims(), [3, 16]);
/// assert_eq!(cell.norm_h.gamma.as_ref().unwrap().dims(), [16]);
/// ```
#[derive(Module, Debug)]
pub struct LstmCell {
    /// Weights of the input, `[d_input, 4 d_hidden]`.
    pub w_x: Param<Tensor<2>>,
    /// Weights of the hidden state, `[d_hidden, 4 d_hidden]`.
    pub w_h: Param<Tensor<2>>,
    /// The bias, `[4 d_hidden]`.
    pub b: Option<Param<Tensor<1>>>,
    /// The norm of what comes from the input.
    pub norm_x: Norm,
    /// The norm of what comes from the hidden state.
    pub norm_h: Norm,
    /// The norm of the memory, on its way to h.
    pub norm_c: Norm,
}

impl LstmCell {
    pub(super) fn new(config: &CellConfig<'_>, device: &Device) -> Self {
        let [d, h] = config.sizes;
        Self {
            w_x: matrix([d, 4 * h], h, device),
            w_h: matrix([h, 4 * h], h, device),
            b: vector(4 * h, config.bias, device),
            norm_x: config.norm.init(4 * h, device),
            norm_h: config.norm.init(4 * h, device),
            norm_c: config.norm_memory.init(h, device),
        }
    }

    /// One step: x, h and c give the next h and c.
    ///
    /// # Panics
    /// If the state has no c.
    pub fn step(&self, x: Tensor<2>, CellState { h, c }: CellState, t: usize) -> CellState {
        let c = c.expect("the state of an LSTM has a memory c");
        let from_h = self.norm_h.forward_at(h.matmul(self.w_h.val()), t);
        let from_x = self.norm_x.forward_at(x.matmul(self.w_x.val()), t);
        let [f, i, o, g] = split(plus(from_h + from_x, &self.b));
        let c = sigmoid(f) * c + sigmoid(i) * g.tanh();
        let h = sigmoid(o) * self.norm_c.forward_at(c.clone(), t).tanh();
        CellState { h, c: Some(c) }
    }
}
