//! A small convolutional network reads digits; how often its units are on, by how far from the border they are.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use layernorm_burn::{Norm, NormConfig};

use crate::data::{Images, Split};
use crate::models::adam::adam;
use crate::models::fit::Fit;
use crate::models::mlp::linear;
use crate::models::train::{nll, wrong};
use crate::report::model::Measured;
use crate::rng::{Purpose, Rng};

/// Side of a picture: the digits at half their size.
const SIDE: usize = 14;
const CHANNELS: [usize; 3] = [1, 8, 16];
/// In words.
pub const SHAPE: &str = "digits at 14 x 14, convolutions of 3 x 3 to 8 and, with stride 2, to 16 channels, ReLU, linear; \
                         Adam at 3e-3";

#[derive(Module, Debug)]
struct ConvNet {
    convolutions: Vec<Conv2d>,
    norms: Vec<Norm>,
    last: Linear,
}

impl ConvNet {
    fn new(norm: &NormConfig, seed: u64, device: &Device) -> Self {
        let layers = [0, 1];
        let mut rng = Rng::new(seed, Purpose::Study("axis"), 10);
        let convolutions = layers.map(|layer| convolution(layer, &mut rng, device)).into();
        let norms = layers.map(|layer| norm.init(CHANNELS[layer + 1], device)).into();
        let last = linear([CHANNELS[2] * SIDE * SIDE / 4, 10], &mut rng, device);
        Self { convolutions, norms, last }
    }

    /// What goes into each ReLU, and the logits.
    fn forward(&self, x: Tensor<4>) -> (Vec<Tensor<4>>, Tensor<2>) {
        let (mut x, mut inputs) = (x, Vec::new());
        for (convolution, norm) in self.convolutions.iter().zip(&self.norms) {
            let input = norm.forward(convolution.forward(x));
            inputs.push(input.clone());
            x = relu(input);
        }
        (inputs, self.last.forward(x.flatten(1, 3)))
    }
}

/// Uniform within ±1/sqrt(inputs), as Burn's own, by our random numbers.
fn convolution(layer: usize, rng: &mut Rng, device: &Device) -> Conv2d {
    let [inputs, outputs] = [CHANNELS[layer], CHANNELS[layer + 1]];
    let stride = if layer == 0 { 1 } else { 2 };
    let config = Conv2dConfig::new([inputs, outputs], [3, 3])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
    let bound = 1.0 / (9.0 * inputs as f32).sqrt();
    let mut draw = |count: usize| (0..count).map(|_| rng.range(-bound, bound)).collect::<Vec<f32>>();
    let weight = TensorData::new(draw(outputs * inputs * 9), [outputs, inputs, 3, 3]);
    let bias = TensorData::new(draw(outputs), [outputs]);
    let empty = config.init(device);
    Conv2d { weight: Param::from_data(weight, device), bias: Some(Param::from_data(bias, device)), ..empty }
}

/// Trains a network with this norm, and notes its test error and how often units are on.
pub fn read(
    norm: &NormConfig,
    data: &Split,
    [batch, epochs]: [usize; 2],
    seed: u64,
    measured: &mut Measured,
) {
    let device = Device::flex().autodiff();
    let mut network = Fit::new(ConvNet::new(norm, seed, &device), adam());
    for epoch in 0..u32::try_from(epochs).expect("few epochs") {
        let count = u32::try_from(data.train.len()).expect("few pictures");
        let order = Rng::new(seed, Purpose::Order, epoch).permutation(count);
        for chosen in order.chunks_exact(batch) {
            let chosen: Vec<usize> = chosen.iter().map(|&index| index as usize).collect();
            let (x, labels) = tensors(&data.train, &chosen, &device);
            network.update(3e-3, |model| nll(model.forward(x).1, labels));
        }
    }
    let (inputs, error) = test(&network.model.valid(), &data.test, &device.inner());
    measured.set("test error", error);
    for (distance, share) in on(&inputs).into_iter().enumerate() {
        measured.point("on", distance as f64, share);
    }
}

/// What goes into the first ReLU for the test pictures, and the error on them in per cent.
fn test(network: &ConvNet, images: &Images, device: &Device) -> (Vec<f32>, f64) {
    let all: Vec<usize> = (0..images.len()).collect();
    let (x, _) = tensors(images, &all, device);
    let (mut inputs, logits) = network.forward(x);
    let wrong = wrong(logits, images.labels.iter().map(|&label| usize::from(label)));
    let error = 100.0 * wrong as f64 / images.len() as f64;
    (inputs.swap_remove(0).into_data().try_into_vec().expect("f32 in, f32 out"), error)
}

/// The share of units above 0, in per cent, by their distance from the border.
fn on(inputs: &[f32]) -> Vec<f64> {
    let mut counts = vec![[0.0; 2]; SIDE / 2];
    for (index, &input) in inputs.iter().enumerate() {
        let (row, column) = (index / SIDE % SIDE, index % SIDE);
        let distance = row.min(column).min(SIDE - 1 - row).min(SIDE - 1 - column);
        counts[distance][0] += f64::from(u8::from(input > 0.0));
        counts[distance][1] += 1.0;
    }
    counts.into_iter().map(|[on, all]| 100.0 * on / all).collect()
}

/// The chosen pictures at half their size, with their labels as a column.
fn tensors(images: &Images, chosen: &[usize], device: &Device) -> (Tensor<4>, Tensor<2, Int>) {
    let pixels = chosen.iter().flat_map(|&index| halved(images.picture(index), images.columns)).collect();
    let labels: Vec<i32> = chosen.iter().map(|&index| i32::from(images.labels[index])).collect();
    let x = TensorData::new::<f32, _>(pixels, [chosen.len(), 1, SIDE, SIDE]);
    let labels = TensorData::new(labels, [chosen.len(), 1]);
    (Tensor::from_data(x, device), Tensor::from_data(labels, device))
}

/// Each number the mean of four pixels, as 0 to 1.
fn halved(picture: &[u8], columns: usize) -> Vec<f32> {
    let pixel = |row: usize, column: usize| f32::from(picture[row * columns + column]) / (4.0 * 255.0);
    let mean = |index: usize| {
        let (row, column) = (2 * (index / SIDE), 2 * (index % SIDE));
        pixel(row, column) + pixel(row, column + 1) + pixel(row + 1, column) + pixel(row + 1, column + 1)
    };
    (0..SIDE * SIDE).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_told_apart() {
        // One channel of one picture, on at its border only.
        let at = |index: usize| {
            let (row, column) = (index / SIDE, index % SIDE);
            let border = row == 0 || column == 0 || row == SIDE - 1 || column == SIDE - 1;
            if border { 1.0 } else { -1.0 }
        };
        let picture: Vec<f32> = (0..SIDE * SIDE).map(at).collect();
        assert_eq!(on(&picture), [100.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn four_pixels_become_one() {
        let mut picture = vec![0; 28 * 28];
        for index in [0, 1, 28, 29] {
            picture[index] = 255;
        }
        picture[2] = 255;
        assert_eq!(halved(&picture, 28)[..3], [1.0, 0.25, 0.0]);
    }
}
