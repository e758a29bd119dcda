//! What a recurrent network carries from one step to the next.

use burn::tensor::{Bool, Tensor};

/// What one cell carries.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::recurrent::CellState;
///
/// let h = Tensor::<2>::zeros([1, 4], &Device::flex());
/// let state = CellState { h: h.clone(), c: Some(h) }; // of an LSTM
/// assert!(state.c.is_some());
/// ```
#[derive(Clone, Debug)]
pub struct CellState {
    /// The hidden state, `[batch, d_hidden]`, which is the output too.
    pub h: Tensor<2>,
    /// The memory of an LSTM, `[batch, d_hidden]`, never normalised itself.
    pub c: Option<Tensor<2>>,
}

impl CellState {
    /// `next` for the samples where `go` is true, this state for the others. `go`: `[batch, 1]`.
    pub(super) fn advanced(&self, next: Self, go: &Tensor<2, Bool>) -> Self {
        let pick = |old: &Tensor<2>, new| old.clone().mask_where(go.clone().expand(old.dims()), new);
        let c = self.c.as_ref().zip(next.c).map(|(old, new)| pick(old, new));
        Self { h: pick(&self.h, next.h), c }
    }
}

/// What a [`Recurrent`](super::Recurrent) network carries: give it back with the rest of a sequence, and the outputs are
/// those of the whole, to the bit.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{NormConfig, recurrent::RecurrentConfig};
///
/// let device = Device::flex();
/// let network = RecurrentConfig::gru(3, 4).with_norm(NormConfig::layer()).init(&device);
/// let (_, state) = network.forward(Tensor::ones([1, 5, 3], &device), None, None);
/// let (_, state) = network.forward(Tensor::ones([1, 2, 3], &device), None, Some(state));
/// assert_eq!(state.t, 7);
/// ```
#[derive(Clone, Debug)]
pub struct RecurrentState {
    /// The steps taken, which per-step batch norm counts.
    pub t: usize,
    /// The state of each layer, the lowest first.
    pub layers: Vec<CellState>,
}
