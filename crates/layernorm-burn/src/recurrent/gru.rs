//! The gated recurrent unit, plain and with layer norm (the supplement of Ba, Kiros, Hinton 2016):
//!
//! ```text
//! z, r  = N_h(h W_h) + N_x(x W_x) + b             both gates are one vector, normalised together
//! h_hat = tanh(N_w(x W) + s(r) N_u(h U) + b_hat)  the reset comes after U and its norm
//! h     = (1 - s(z)) h + s(z) h_hat
//! ```

use super::cell::{CellConfig, matrix, plus, split, vector};
use super::state::CellState;
use crate::Norm;
use burn::module::{Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

/// A GRU cell. The gates lie in the order z, r; where z is open, the new value enters. (PyTorch's z is 1 - s(z) here.)
///
/// ```
/// use layernorm_burn::{NormConfig, recurrent::{Cell, RecurrentConfig}};
///
/// let network = RecurrentConfig::gru(3, 4).with_norm(NormConfig::layer()).init(&Default::default());
/// let Cell::Gru(cell) = &network.cells[0] else { unreachable!() };
/// assert_eq!((cell.w_x.dims(), cell.u.dims()), ([3, 8], [4, 4]));
/// ```
#[derive(Module, Debug)]
pub struct GruCell {
    /// The gates' weights of the input, `[d_input, 2 d_hidden]`.
    pub w_x: Param<Tensor<2>>,
    /// The gates' weights of the hidden state, `[d_hidden, 2 d_hidden]`.
    pub w_h: Param<Tensor<2>>,
    /// The gates' bias, `[2 d_hidden]`.
    pub b: Option<Param<Tensor<1>>>,
    /// The new value's weights of the input, `[d_input, d_hidden]`.
    pub w: Param<Tensor<2>>,
    /// The new value's weights of the hidden state, `[d_hidden, d_hidden]`.
    pub u: Param<Tensor<2>>,
    /// The new value's bias, `[d_hidden]`.
    pub b_hat: Option<Param<Tensor<1>>>,
    /// The norm of what comes to the gates from the input.
    pub norm_x: Norm,
    /// The norm of what comes to the gates from the hidden state.
    pub norm_h: Norm,
    /// The norm of what comes to the new value from the input.
    pub norm_w: Norm,
    /// The norm of what comes to the new value from the hidden state.
    pub norm_u: Norm,
}

impl GruCell {
    pub(super) fn new(config: &CellConfig<'_>, device: &Device) -> Self {
        let [d, h] = config.sizes;
        Self {
            w_x: matrix([d, 2 * h], h, device),
            w_h: matrix([h, 2 * h], h, device),
            b: vector(2 * h, config.bias, device),
            w: matrix([d, h], h, device),
            u: matrix([h, h], h, device),
            b_hat: vector(h, config.bias, device),
            norm_x: config.norm.init(2 * h, device),
            norm_h: config.norm.init(2 * h, device),
            norm_w: config.norm.init(h, device),
            norm_u: config.norm.init(h, device),
        }
    }

    /// One step: x and h give the next h.
    pub fn step(&self, x: Tensor<2>, CellState { h, .. }: CellState, t: usize) -> CellState {
        let from_h = self.norm_h.forward_at(h.clone().matmul(self.w_h.val()), t);
        let from_x = self.norm_x.forward_at(x.clone().matmul(self.w_x.val()), t);
        let [z, r] = split(plus(from_h + from_x, &self.b)).map(sigmoid);
        let new = self.norm_w.forward_at(x.matmul(self.w.val()), t);
        let old = self.norm_u.forward_at(h.clone().matmul(self.u.val()), t);
        let h_hat = plus(new + r * old, &self.b_hat).tanh();
        let h = (1.0 - z.clone()) * h + z * h_hat;
        CellState { h, c: None }
    }
}
