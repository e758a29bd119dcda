//! Recurrent cells against numbers from their equations, gradients against differences, and what a sequence must not
//! depend on: where it is cut, what stands behind its end, who is in the batch.

use super::*;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::{LstmConfig, LstmState};
use burn::store::ModuleRecord;
use burn::tensor::{Bool, s};
use layernorm_burn::recurrent::{Cell, CellKind, Recurrent, RecurrentConfig};
use layernorm_burn::{BatchMode, NormConfig};

const KINDS: [CellKind; 3] = [CellKind::Rnn, CellKind::Lstm, CellKind::Gru];

fn configs(d_input: usize, d_hidden: usize) -> Vec<RecurrentConfig> {
    let norms = [NormConfig::none(), NormConfig::layer(), NormConfig::rms(), NormConfig::scale()];
    KINDS
        .into_iter()
        .flat_map(|kind| {
            norms.clone().map(|norm| RecurrentConfig::new(kind, d_input, d_hidden).with_norm(norm))
        })
        .collect()
}

/// Gives every parameter random numbers in f64.
struct Random(u64);

impl ModuleMapper for Random {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        let (id, value, _) = param.consume();
        let random = tensor(value.dims(), self.0, &value.device(), DType::F64);
        Param::initialized(id, (random + 0.1).set_require_grad(value.is_autodiff()))
    }
}

fn network(config: &RecurrentConfig, device: &Device) -> Recurrent {
    config.init(device).map(&mut Random(100))
}

/// `w[i][j] = (7 k mod 11 - 5) / 10` with `k = i columns + j + offset`.
fn weights([rows, columns]: [usize; 2], offset: usize, device: &Device) -> Param<Tensor<2>> {
    let values =
        (0..rows * columns).map(|k| (((k + offset) * 7 % 11) as f64 - 5.0) / 10.0).collect::<Vec<_>>();
    Param::from_tensor(Tensor::from_data(TensorData::new(values, [rows, columns]), (device, DType::F64)))
}

/// 0, 0.1, 0.2, ...
fn bias(len: usize, device: &Device) -> Option<Param<Tensor<1>>> {
    let values: Vec<f64> = (0..len).map(|k| 0.1 * k as f64).collect();
    Some(Param::from_tensor(Tensor::from_data(TensorData::new(values, [len]), (device, DType::F64))))
}

/// h after two steps of three units, and c.
fn golden(kind: CellKind, norm: NormConfig) -> (Vec<f64>, Option<Vec<f64>>) {
    let device = Device::flex();
    let mut network = RecurrentConfig::new(kind, 2, 3).with_norm(norm).init(&device);
    match &mut network.cells[0] {
        Cell::Rnn(cell) => {
            (cell.w_x, cell.w_h) = (weights([2, 3], 0, &device), weights([3, 3], 1, &device));
            cell.b = bias(3, &device);
        }
        Cell::Lstm(cell) => {
            (cell.w_x, cell.w_h) = (weights([2, 12], 0, &device), weights([3, 12], 1, &device));
            cell.b = bias(12, &device);
        }
        Cell::Gru(cell) => {
            (cell.w_x, cell.w_h) = (weights([2, 6], 0, &device), weights([3, 6], 1, &device));
            (cell.w, cell.u) = (weights([2, 3], 2, &device), weights([3, 3], 3, &device));
            (cell.b, cell.b_hat) = (bias(6, &device), bias(3, &device));
        }
    }
    let x = Tensor::<3>::from_data([[[0.5, -1.0], [1.5, 0.25]]], (&device, DType::F64));
    let (_, state) = network.forward(x, None, None);
    let state = state.layers[0].clone();
    (vec_of(state.h), state.c.map(vec_of))
}

/// The numbers come from the equations in plain Python, with `W(r, c, k)` for `weights`, `B` for `bias`, `s` for the
/// logistic function, `N` for nothing or for `(v - mean) / sqrt(var + 1e-5)`, lists added number by number:
///
/// ```text
/// RNN    h = tanh(N(x W(2,3,0) + h W(3,3,1)) + B(3))
/// LSTM   f, i, o, g = N(h W(3,12,1)) + N(x W(2,12,0)) + B(12)
///        c = s(f) c + s(i) tanh(g);  h = s(o) tanh(N(c))
/// GRU    z, r = s(N(h W(3,6,1)) + N(x W(2,6,0)) + B(6))
///        h_hat = tanh(N(x W(2,3,2)) + r N(h W(3,3,3)) + B(3));  h = (1 - z) h + z h_hat
/// ```
#[test]
fn cells_follow_their_equations() {
    type Golden = (CellKind, [f64; 3], Option<[f64; 3]>);
    let plain: [Golden; 3] = [
        (CellKind::Rnn, [-0.6303899544196062, 0.3541227403569091, -0.32633649916228596], None),
        (
            CellKind::Lstm,
            [0.4835677542438622, 0.3978255553233447, 0.2088898376513164],
            Some([0.7703784752799976, 0.7262170346310178, 0.389912120473455]),
        ),
        (CellKind::Gru, [-0.06136960596992145, 0.44383079809447473, 0.21988542883516526], None),
    ];
    let normed: [Golden; 3] = [
        (CellKind::Rnn, [-0.8379817443596534, 0.8704069987968476, 0.17769439691830097], None),
        (
            CellKind::Lstm,
            [0.03791242360946308, 0.6132820788938033, -0.5739323266743915],
            Some([0.3452142747900594, 1.1410658435107388, -0.5695848914076799]),
        ),
        (CellKind::Gru, [-0.0697374511624104, 0.737631847969332, 0.24757380761229475], None),
    ];
    for (norm, expected) in [(NormConfig::none(), plain), (NormConfig::layer(), normed)] {
        for (kind, h, c) in expected {
            let (got_h, got_c) = golden(kind, norm.clone());
            let want = h.iter().chain(c.iter().flatten());
            let got: Vec<f64> = got_h.into_iter().chain(got_c.into_iter().flatten()).collect();
            assert_eq!(got.len(), want.clone().count(), "{kind:?}");
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < 1e-12, "{kind:?} with {:?}: {got}, not {want}", norm.kind);
            }
        }
    }
}

/// Recurrent batch norm of one unit, two samples, at its first step (h = 0): by hand. With W_x = (1, 1, 1, 1) and x of
/// -1 and 1, a batch's statistics are mean 0 and variance 1, so f = i = o = g = 0.1 x up to epsilon. Then
/// c = s(0.1 x) tanh(0.1 x), whose batch norm is -1 and 1 for two values whatever they are, and h = s(0.1 x) tanh(-0.1)
/// for the smaller, s(0.1 x) tanh(0.1) for the larger.
#[test]
fn recurrent_batch_norm_by_hand() {
    let device = Device::flex();
    let mut network = RecurrentConfig::batch_lstm(1, 1, 2).init(&device).with_mode(BatchMode::Train);
    let Cell::Lstm(cell) = &mut network.cells[0] else { panic!("it is an LSTM") };
    cell.w_x = Param::from_tensor(Tensor::ones([1, 4], &device));
    let x = Tensor::<3>::from_data([[[-1.0]], [[1.0]]], &device);
    let h = vec_of::<f32, 3>(network.forward(x, None, None).0);
    // s(-0.1) tanh(0.1) negated: c of x = -1 is negative, so the smaller.
    for (got, want) in h.iter().zip([-0.04734447, 0.05232352]) {
        // epsilon of 1e-5 over a variance of about 0.0025 moves c's norm by 0.2 per cent.
        assert!((got - want).abs() < 2e-4, "{got}, not {want}");
    }
}

#[test]
fn a_plain_lstm_is_that_of_burn() {
    let device = Device::flex();
    let (d, width, batch, time) = (3, 4, 2, 5);
    let mut network = RecurrentConfig::lstm(d, width).init(&device);
    let Cell::Lstm(cell) = &mut network.cells[0] else { panic!("it is an LSTM") };
    let mut theirs = LstmConfig::new(d, width, true).init(&device);
    let b = Param::from_tensor(tensor::<1>([4 * width], 2, &device, DType::F32));
    cell.b = Some(b.clone());
    let columns = |gate: usize| gate * width..(gate + 1) * width;
    {
        let forget = theirs.forget_gate.as_mut().expect("an uncoupled gate");
        let gates = [forget, &mut theirs.input_gate, &mut theirs.output_gate, &mut theirs.cell_gate];
        for (index, gate) in gates.into_iter().enumerate() {
            let part = |w: &Param<Tensor<2>>| {
                let rows = w.dims()[0];
                Param::from_tensor(w.val().slice([0..rows, columns(index)]))
            };
            let b = b.val().slice(s![columns(index)]);
            gate.input_transform.weight = part(&cell.w_x);
            gate.hidden_transform.weight = part(&cell.w_h);
            gate.hidden_transform.bias = Some(Param::from_tensor(b.zeros_like()));
            gate.input_transform.bias = Some(Param::from_tensor(b));
        }
    }
    let x = tensor::<3>([batch, time, d], 1, &device, DType::F32);
    let (their_outputs, LstmState { cell, .. }) = theirs.forward(x.clone(), None);
    let (outputs, state) = network.forward(x, None, None);
    let close = |a: Vec<f32>, b: Vec<f32>| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(&b).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{a} and {b}"));
    };
    close(vec_of(outputs), vec_of(their_outputs));
    close(vec_of(state.layers[0].c.clone().expect("an LSTM")), vec_of(cell));
}

/// A loss of a network's outputs and last state, so that every part has a gradient.
fn loss(network: &Recurrent, x: Tensor<3>) -> Tensor<1> {
    let (outputs, state) = network.forward(x, None, None);
    let factors = tensor(outputs.dims(), 9, &outputs.device(), DType::F64);
    let memory = state.layers.iter().filter_map(|layer| layer.c.clone()).map(|c| c.sin().sum());
    memory.fold((outputs * factors).sum(), |sum, c| sum + c)
}

/// Adds to one number of one parameter: the `index`-th of all.
struct Nudge {
    index: usize,
    by: f64,
}

impl ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, value, _) = param.consume();
        let len = value.shape().num_elements();
        let mut values = vec_of::<f64, D>(value.clone());
        if let Some(number) = values.get_mut(self.index) {
            *number += self.by;
        }
        self.index = self.index.wrapping_sub(len);
        Param::initialized(
            id,
            Tensor::from_data(TensorData::new(values, value.dims()), (&value.device(), DType::F64)),
        )
    }
}

struct Gradients<'a>(&'a burn::tensor::Gradients, Vec<f64>);

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1.extend(vec_of::<f64, D>(param.val().grad(self.0).expect("every parameter has a gradient")));
    }
}

#[test]
fn gradients_agree_with_differences() {
    const STEP: f64 = 1e-6;
    let (inner, device) = (Device::flex(), Device::flex().autodiff());
    for config in configs(2, 3) {
        let config = config.with_layers(2);
        let recorded = network(&config, &device);
        let x = tensor::<3>([2, 3, 2], 1, &device, DType::F64);
        let gradients = loss(&recorded, x).backward();
        let mut visitor = Gradients(&gradients, Vec::new());
        recorded.visit(&mut visitor);
        let plain = network(&config, &inner);
        let at = |index, by| {
            let x = tensor::<3>([2, 3, 2], 1, &inner, DType::F64);
            loss(&plain.clone().map(&mut Nudge { index, by }), x).into_scalar::<f64>()
        };
        assert_eq!(visitor.1.len(), plain.num_params());
        for (index, got) in visitor.1.iter().enumerate() {
            let want = (at(index, STEP) - at(index, -STEP)) / (2.0 * STEP);
            let (kind, norm) = (config.kind, config.norm.kind);
            assert!(
                (got - want).abs() <= 2e-5 * (1.0 + want.abs()),
                "{kind:?} with {norm:?}, number {index}: {got} where differences give {want}"
            );
        }
    }
}

/// All configurations, with two layers, and recurrent batch norm with its running statistics.
fn all(d_input: usize, d_hidden: usize) -> Vec<RecurrentConfig> {
    let mut all = configs(d_input, d_hidden);
    all.push(RecurrentConfig::batch_lstm(d_input, d_hidden, 3));
    all.into_iter().map(|config| config.with_layers(2)).collect()
}

#[test]
fn a_sequence_cut_in_two_gives_the_same_bits() {
    let device = Device::flex();
    for config in all(3, 5) {
        let network = config.init(&device);
        let x = tensor::<3>([2, 7, 3], 1, &device, DType::F32);
        let (whole, end) = network.forward(x.clone(), None, None);
        let (first, state) = network.forward(x.clone().slice([0..2, 0..4]), None, None);
        let (second, state) = network.forward(x.slice([0..2, 4..7]), None, Some(state));
        assert_eq!(bits(Tensor::cat(vec![first, second], 1)), bits(whole), "{config}");
        assert_eq!(state.t, end.t);
        for (a, b) in state.layers.into_iter().zip(end.layers) {
            assert_eq!(bits(a.h), bits(b.h), "{config}");
            assert_eq!(a.c.map(bits), b.c.map(bits), "{config}");
        }
    }
}

#[test]
fn masked_steps_are_as_if_they_were_not() {
    let device = Device::flex();
    for config in all(3, 5) {
        let network = config.init(&device);
        let x = tensor::<3>([2, 6, 3], 1, &device, DType::F32);
        let (_, short) = network.forward(x.clone().slice([0..2, 0..4]), None, None);
        let mask = Tensor::<2, Bool>::from_data([[true, true, true, true, false, false]; 2], &device);
        let (outputs, state) = network.forward(x, Some(mask), None);
        for (a, b) in state.layers.into_iter().zip(short.layers) {
            assert_eq!(bits(a.h), bits(b.h), "{config}");
            assert_eq!(a.c.map(bits), b.c.map(bits), "{config}");
        }
        let at = |t: usize| bits(outputs.clone().slice([0..2, t..t + 1]));
        assert_eq!(at(5), at(3), "{config}: the outputs behind the end repeat the last");
    }
}

#[test]
fn each_sample_has_its_own_mask() {
    let device = Device::flex();
    let network = RecurrentConfig::lstm(3, 5).with_norm(NormConfig::layer()).init(&device);
    let x = tensor::<3>([2, 4, 3], 1, &device, DType::F32);
    let mask = Tensor::<2, Bool>::from_data([[true; 4], [true, true, false, false]], &device);
    let (_, masked) = network.forward(x.clone(), Some(mask), None);
    let (whole, _) = network.forward(x, None, None);
    let row = |t: Tensor<2>, r: usize| bits(t.slice(s![r..r + 1]));
    let at = |r: usize, t: usize| bits(whole.clone().slice([r..r + 1, t..t + 1]));
    assert_eq!(row(masked.layers[0].h.clone(), 0), at(0, 3));
    assert_eq!(row(masked.layers[0].h.clone(), 1), at(1, 1));
}

#[test]
fn a_batch_of_one_is_as_good_as_any() {
    let device = Device::flex();
    for config in configs(3, 5) {
        let network = network(&config, &device);
        let x = tensor::<3>([4, 3, 3], 1, &device, DType::F64);
        let (together, _) = network.forward(x.clone(), None, None);
        let (alone, _) = network.forward(x.slice(s![2..3]), None, None);
        for (a, b) in vec_of::<f64, 3>(together.slice(s![2..3])).iter().zip(vec_of::<f64, 3>(alone)) {
            assert!((a - b).abs() < 1e-13, "{config}: {a} and {b}"); // the norms give the same bits; matmul need not
        }
    }
}

#[test]
fn per_step_batch_norm_has_statistics_for_each_step_and_the_last_for_all_later() {
    let device = Device::flex();
    let norm = NormConfig::batch().with_steps(3);
    let network = RecurrentConfig::rnn(2, 4).with_norm(norm).init(&device).with_mode(BatchMode::Train);
    network.forward(tensor([8, 5, 2], 1, &device, DType::F32), None, None);
    let Cell::Rnn(cell) = &network.cells[0] else { panic!("it is an RNN") };
    let means: Vec<Vec<f32>> = cell.norm.running.iter().map(|r| vec_of(r.values()[0].clone())).collect();
    assert_eq!(means.len(), 3);
    assert!(means[0] != means[1] && means[1] != means[2]);
    let x = |seed| tensor::<2>([2, 4], seed, &device, DType::F32);
    let norm = cell.norm.clone().with_mode(BatchMode::Eval);
    assert_eq!(bits(norm.forward_at(x(1), 2)), bits(norm.forward_at(x(1), 99)));
    assert_ne!(bits(norm.forward_at(x(1), 1)), bits(norm.forward_at(x(1), 2)));
}

#[test]
fn records_go_round() {
    let device = Device::flex();
    for config in all(3, 5) {
        let network = config.init(&device).with_mode(BatchMode::Train);
        let x = tensor::<3>([4, 3, 3], 1, &device, DType::F32);
        network.forward(x.clone(), None, None);
        let network = network.with_mode(BatchMode::Eval);
        let (outputs, _) = network.forward(x.clone(), None, None);
        let bytes = network.into_record().into_bytes().expect("a record");
        let record = ModuleRecord::from_bytes(bytes).expect("the same record");
        let (again, _) = config.init(&device).load_record(record).forward(x, None, None);
        assert_eq!(bits(again), bits(outputs), "{config}");
    }
}

#[test]
#[should_panic(expected = "the mask has shape [2, 3] and x has shape [2, 4, 1]: the mask must be [2, 4]")]
fn a_mask_of_another_length_is_refused() {
    let device = Device::flex();
    let mask = Tensor::<2, Bool>::from_data([[true; 3]; 2], &device);
    RecurrentConfig::rnn(1, 2).init(&device).forward(Tensor::ones([2, 4, 1], &device), Some(mask), None);
}
