//! Gradients of a block against central differences, in f64: of its input and of every parameter.

use super::*;
use burn::module::ModuleVisitor;
use burn::tensor::Gradients;
use layernorm_burn::transformer::Block;

const H: f64 = 1e-5;

/// All gradients, parameter by parameter.
struct Collect<'a>(&'a Gradients, Vec<Vec<f64>>);

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1.push(vec_of(param.val().grad(self.0).expect("every parameter has a gradient")));
    }
}

fn config(placement: Placement) -> BlockConfig {
    block(placement).with_qk_norm(Some(NormConfig::layer()))
}

/// A sum of tanh(y) with random weights.
fn loss(block: &Block, x: Tensor<3>) -> Tensor<1> {
    let weights = tensor(x.dims(), 9, &x.device(), DType::F64);
    (block.forward(x).tanh() * weights).sum()
}

/// The block with one number of one parameter moved.
fn moved(placement: Placement, device: &Device, which: usize, number: usize, step: f64) -> Block {
    config(placement).init(device).map(&mut Fill(0, DType::F64, |index, len| {
        let mut values = numbers(len, 1000 + index as u64);
        if index == which {
            values[number] += step;
        }
        values
    }))
}

#[track_caller]
fn expect(got: f64, plus: f64, minus: f64, what: &str) {
    let want = (plus - minus) / (2.0 * H);
    assert!((got - want).abs() <= 1e-7 * (1.0 + want.abs()), "{what}: {got} where differences give {want}");
}

#[test]
fn agree_with_differences() {
    let (training, inference) = (Device::flex().autodiff(), Device::flex());
    let x = |device: &Device| tensor::<3>([2, 3, 4], 1, device, DType::F64);
    for placement in PLACEMENTS {
        let block = filled(config(placement).init(&training), DType::F64);
        let leaf = x(&training).require_grad();
        let gradients = loss(&block, leaf.clone()).backward();
        let mut collect = Collect(&gradients, Vec::new());
        block.visit(&mut collect);

        for (which, of_parameter) in collect.1.iter().enumerate() {
            for (number, &got) in of_parameter.iter().enumerate() {
                let at = |step| {
                    let block = moved(placement, &inference, which, number, step);
                    loss(&block, x(&inference)).into_scalar::<f64>()
                };
                expect(got, at(H), at(-H), &format!("{placement:?}, parameter {which}, number {number}"));
            }
        }
        let dx = vec_of::<f64, 3>(leaf.grad(&gradients).expect("x has a gradient"));
        let block = block.valid();
        for (number, &got) in dx.iter().enumerate() {
            let at = |step: f64| {
                let mut numbers = numbers(24, 1);
                numbers[number] += step;
                let x = Tensor::from_data(TensorData::new(numbers, [2, 3, 4]), (&inference, DType::F64));
                loss(&block, x).into_scalar::<f64>()
            };
            expect(got, at(H), at(-H), &format!("{placement:?}, x, number {number}"));
        }
    }
}
