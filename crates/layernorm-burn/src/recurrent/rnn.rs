//! The plain recurrent cell, and LN-RNN (Ba, Kiros, Hinton 2016, equation 4) and BN-RNN with it:
//!
//! ```text
//! h = tanh(N(x W_x + h W_h) + b)
//! ```

use super::cell::{CellConfig, matrix, plus, vector};
use super::state::CellState;
use crate::Norm;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

/// A recurrent cell: h = tanh(N(x W_x + h W_h) + b).
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{NormConfig, layer_norm, recurrent::{Cell, RecurrentConfig}};
///
/// // A step of LN-RNN as a formula:
/// let device = Device::flex();
/// let step = |x: Tensor<2>, h: Tensor<2>, [w_x, w_h]: [Tensor<2>; 2]| {
///     layer_norm(x.matmul(w_x) + h.matmul(w_h), None, None, 1e-5).tanh()
/// };
///
/// // The same by the module.
/// let config = RecurrentConfig::rnn(3, 4).with_norm(NormConfig::layer());
/// let network = config.init(&device);
/// let Cell::Rnn(cell) = &network.cells[0] else { unreachable!() };
/// let weights = [cell.w_x.val(), cell.w_h.val()];
/// let x = Tensor::<2>::from_data([[1.0, -2.0, 0.5]], &device);
/// let h = step(x.clone(), Tensor::zeros([1, 4], &device), weights.clone());
/// let h = step(x.clone(), h, weights);
/// let (outputs, _) = network.forward(Tensor::stack(vec![x.clone(), x], 1), None, None);
/// assert_eq!(outputs.slice([0..1, 1..2]).into_data(), h.unsqueeze::<3>().into_data());
/// ```
#[derive(Module, Debug)]
pub struct RnnCell {
    /// Weights of the input, `[d_input, d_hidden]`.
    pub w_x: Param<Tensor<2>>,
    /// Weights of the hidden state, `[d_hidden, d_hidden]`.
    pub w_h: Param<Tensor<2>>,
    /// The bias, `[d_hidden]`.
    pub b: Option<Param<Tensor<1>>>,
    /// The norm of the summed inputs.
    pub norm: Norm,
}

impl RnnCell {
    pub(super) fn new(config: &CellConfig<'_>, device: &Device) -> Self {
        let [d, h] = config.sizes;
        Self {
            w_x: matrix([d, h], h, device),
            w_h: matrix([h, h], h, device),
            b: vector(h, config.bias, device),
            norm: config.norm.init(h, device),
        }
    }

    /// One step: x and h give the next h.
    pub fn step(&self, x: Tensor<2>, CellState { h, .. }: CellState, t: usize) -> CellState {
        let a = x.matmul(self.w_x.val()) + h.matmul(self.w_h.val());
        let h = plus(self.norm.forward_at(a, t), &self.b).tanh();
        CellState { h, c: None }
    }
}
