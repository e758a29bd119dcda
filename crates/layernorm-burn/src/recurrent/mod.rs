//! Recurrent networks in which any norm can stand: RNN, LSTM and GRU, plain, with layer or RMS norm, or with batch norm
//! by time step; several layers, masks, batches of one, and streams.
//!
//! | network | configuration |
//! |---|---|
//! | plain | [`RecurrentConfig::rnn`], [`RecurrentConfig::lstm`], [`RecurrentConfig::gru`] |
//! | LN-RNN, LN-LSTM, LN-GRU | the same `.with_norm(NormConfig::layer())` |
//! | with RMS norm, or any other | the same `.with_norm(NormConfig::rms())` |
//! | LSTM with the memory alone normalised (DRAW's) | `.with_norm_memory(Some(NormConfig::layer()))` |
//! | per-step BN-RNN | `.with_norm(NormConfig::batch().with_steps(longest))` |
//! | recurrent BN-LSTM | [`RecurrentConfig::batch_lstm`] |
//!
//! The equations are in the files of the cells: `rnn.rs`, `lstm.rs`, `gru.rs`. The paper has a bias besides those of
//! its norms in the LSTM alone; here each cell has one, of zeros at first, unless `.with_bias(false)`.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use layernorm_burn::{NormConfig, recurrent::RecurrentConfig};
//!
//! let device = Device::flex().autodiff();
//! let network = RecurrentConfig::lstm(8, 16).with_norm(NormConfig::layer()).with_layers(2).init(&device);
//! let (outputs, state) = network.forward(Tensor::ones([4, 20, 8], &device), None, None);
//! assert_eq!(outputs.dims(), [4, 20, 16]);
//! assert_eq!(state.layers.len(), 2);
//! ```

mod cell;
mod gru;
mod lstm;
mod rnn;
mod state;

pub use cell::{Cell, CellKind};
pub use gru::GruCell;
pub use lstm::LstmCell;
pub use rnn::RnnCell;
pub use state::{CellState, RecurrentState};

use crate::norm::NormConfig;
use crate::{Affine, BatchMode};
use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};
use cell::CellConfig;

/// Configuration of a [`Recurrent`] network.
///
/// ```
/// use layernorm_burn::{NormConfig, recurrent::RecurrentConfig};
///
/// let config = RecurrentConfig::gru(8, 16).with_norm(NormConfig::layer()).with_layers(3).with_bias(false);
/// assert_eq!(config.init(&Default::default()).cells.len(), 3);
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct RecurrentConfig {
    /// Which equations the cells follow.
    pub kind: CellKind,
    /// Features of the input.
    pub d_input: usize,
    /// Features of the hidden state of each layer.
    pub d_hidden: usize,
    /// The norm of the summed inputs. Default: none
    #[config(default = "NormConfig::none()")]
    pub norm: NormConfig,
    /// LSTM only: the norm of the memory on its way to h, if it differs from `norm`.
    pub norm_memory: Option<NormConfig>,
    /// If the cells have a bias besides that of the norm. Default: true
    #[config(default = true)]
    pub bias: bool,
    /// How many cells are stacked, each on the outputs of the one below. Default: 1
    #[config(default = 1)]
    pub layers: usize,
}

impl RecurrentConfig {
    /// Cells of h = tanh(N(x W_x + h W_h) + b).
    pub fn rnn(d_input: usize, d_hidden: usize) -> Self {
        Self::new(CellKind::Rnn, d_input, d_hidden)
    }

    /// Cells of long short-term memory.
    pub fn lstm(d_input: usize, d_hidden: usize) -> Self {
        Self::new(CellKind::Lstm, d_input, d_hidden)
    }

    /// Cells of gated recurrent units.
    pub fn gru(d_input: usize, d_hidden: usize) -> Self {
        Self::new(CellKind::Gru, d_input, d_hidden)
    }

    /// Recurrent batch norm as its authors have it (Cooijmans et al. 2016): an LSTM with gains of 0.1 at first, no
    /// biases in the norms of summed inputs, and running statistics of their own for each of `steps` time steps, the
    /// length of the longest sequence in training. Later steps take those of the last one.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use layernorm_burn::recurrent::RecurrentConfig;
    ///
    /// let device = Device::flex().autodiff();
    /// let network = RecurrentConfig::batch_lstm(3, 4, 10).init(&device);
    /// network.forward(Tensor::ones([8, 10, 3], &device), None, None); // a step of training
    /// ```
    pub fn batch_lstm(d_input: usize, d_hidden: usize, steps: usize) -> Self {
        let norm = NormConfig::batch().with_steps(steps).with_initial_gamma(0.1);
        let config = Self::lstm(d_input, d_hidden).with_norm(norm.clone().with_beta(Affine::None));
        config.with_norm_memory(Some(norm))
    }

    /// A network with weights uniform within 1 / sqrt(d_hidden), biases of 0, and the norms' first gains.
    ///
    /// # Panics
    /// If there are no layers, and as [`NormConfig::init`].
    #[track_caller]
    pub fn init(&self, device: &Device) -> Recurrent {
        assert!(self.layers > 0, "{} layers: a recurrent network needs at least 1", self.layers);
        let cell = |layer| {
            let d_input = if layer == 0 { self.d_input } else { self.d_hidden };
            let config = CellConfig {
                sizes: [d_input, self.d_hidden],
                norm: &self.norm,
                norm_memory: self.norm_memory.as_ref().unwrap_or(&self.norm),
                bias: self.bias,
            };
            Cell::new(self.kind, &config, device)
        };
        Recurrent { cells: (0..self.layers).map(cell).collect() }
    }
}

/// A recurrent network: one cell a layer, run over sequences.
///
/// A step sees nothing but its input and the state, so a sequence may come in pieces of any length. Layer and RMS norm
/// see nothing but one sample: a batch of one works as any other. Batch norm in training does not, and takes samples
/// behind the end of their mask into its statistics too.
///
/// ```
/// use burn::tensor::{Bool, Device, Tensor};
/// use layernorm_burn::{NormConfig, recurrent::RecurrentConfig};
///
/// let device = Device::flex();
/// let network = RecurrentConfig::rnn(1, 4).with_norm(NormConfig::layer()).init(&device);
/// let x = Tensor::<3>::from_data([[[1.0], [2.0], [3.0]], [[1.0], [0.0], [0.0]]], &device);
/// let mask = Tensor::<2, Bool>::from_data([[true, true, true], [true, false, false]], &device);
/// let (outputs, _) = network.forward(x, Some(mask), None);
/// // The second sequence ended after its first step; its state stays as it was.
/// let at = |t| outputs.clone().slice([1..2, t..t + 1]).into_data();
/// assert_eq!(at(0), at(2));
/// ```
#[derive(Module, Debug)]
pub struct Recurrent {
    /// The cell of each layer, the lowest first.
    pub cells: Vec<Cell>,
}

impl Recurrent {
    /// The outputs at all steps, and the state after the last.
    ///
    /// # Shapes
    /// - x: `[batch, time, d_input]`
    /// - mask: `[batch, time]`, false where a sequence has ended: there h and c stay as they are
    /// - state: where to go on; `None` begins with zeros
    /// - outputs: `[batch, time, d_hidden]`, the h of the highest layer
    ///
    /// # Panics
    /// If x has no steps, if mask or state doesn't fit x, and as [`Cell::step`].
    #[track_caller]
    pub fn forward(
        &self,
        x: Tensor<3>,
        mask: Option<Tensor<2, Bool>>,
        state: Option<RecurrentState>,
    ) -> (Tensor<3>, RecurrentState) {
        let [batch, time, _] = x.dims();
        assert!(time > 0, "x has shape {:?}: it must have at least 1 step", x.dims());
        if let Some(mask) = &mask {
            assert!(
                mask.dims() == [batch, time],
                "the mask has shape {:?} and x has shape {:?}: the mask must be [{batch}, {time}]",
                mask.dims(),
                x.dims()
            );
        }
        let mut state = state.unwrap_or_else(|| self.initial(&x));
        let (layers, cells) = (state.layers.len(), self.cells.len());
        assert!(layers == cells, "the state is of {layers} layers, and the network has {cells}");
        let mut outputs = Vec::with_capacity(time);
        for step in 0..time {
            let mut input = x.clone().slice([0..batch, step..step + 1]).squeeze_dim::<2>(1);
            let go = mask.as_ref().map(|mask| mask.clone().slice([0..batch, step..step + 1]));
            for (cell, state_of_layer) in self.cells.iter().zip(&mut state.layers) {
                let next = cell.step(input, state_of_layer.clone(), state.t);
                *state_of_layer = match &go {
                    Some(go) => state_of_layer.advanced(next, go),
                    None => next,
                };
                input = state_of_layer.h.clone();
            }
            outputs.push(input);
            state.t += 1;
        }
        (Tensor::stack(outputs, 1), state)
    }

    /// The state before the first step, for as many samples as `x` has: zeros.
    fn initial(&self, x: &Tensor<3>) -> RecurrentState {
        let [batch, _, _] = x.dims();
        let first = x.clone().slice([0..batch, 0..1]).squeeze_dim::<2>(1);
        RecurrentState { t: 0, layers: self.cells.iter().map(|cell| cell.initial(&first)).collect() }
    }

    /// The same network with all its batch norms in this mode.
    pub fn with_mode(mut self, mode: BatchMode) -> Self {
        for norm in self.cells.iter_mut().flat_map(Cell::norms_mut) {
            *norm = norm.clone().with_mode(mode);
        }
        self
    }
}
