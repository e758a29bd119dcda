//! Fine-tuning a small convolutional net with frozen batch norm:
//! `cargo run --release -p layernorm-burn --example frozen_batch_norm`, some seconds.
//!
//! The net learns from large batches to tell textures apart. Then a second camera comes, darker and inverted, and few
//! pictures of it, two at a time and both of one kind. Batch norm that goes on training follows these batches: the net
//! learns the new camera, and loses the old one. Frozen, it keeps the statistics and gains of the first training; the
//! other weights learn, and the net tells the pictures of both.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::loss::cross_entropy_with_logits;
use burn::tensor::{Device, Tensor, TensorData};
use layernorm_burn::{BatchMode, BatchNorm, BatchNormConfig};

const KINDS: usize = 4;
const SIDE: usize = 16;

/// Two convolutions with batch norm, the mean over the picture, and logits.
#[derive(Module, Debug)]
struct Net {
    convolutions: [Conv2d; 2],
    norms: [BatchNorm; 2],
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let convolution = |channels| Conv2dConfig::new(channels, [3, 3]).with_stride([2, 2]).with_bias(false);
        Self {
            convolutions: [convolution([1, 8]).init(device), convolution([8, 16]).init(device)],
            norms: [8, 16].map(|channels| BatchNormConfig::new(channels).init(device)),
            head: LinearConfig::new(16, KINDS).init(device),
        }
    }

    /// The same net with its batch norms in this mode.
    fn with_mode(mut self, mode: BatchMode) -> Self {
        self.norms = self.norms.map(|norm| norm.with_mode(mode));
        self
    }

    fn forward(&self, pictures: Tensor<4>) -> Tensor<2> {
        let layers = self.convolutions.iter().zip(&self.norms);
        let features =
            layers.fold(pictures, |x, (convolution, norm)| relu(norm.forward(convolution.forward(x))));
        self.head.forward(features.flatten::<3>(2, 3).mean_dim(2).flatten(1, 2))
    }

    /// The share of pictures whose kind it tells.
    fn accuracy(&self, camera: Camera) -> f64 {
        let net = self.valid();
        let kinds: Vec<usize> = (0..400).map(|index| index % KINDS).collect();
        let logits = net.forward(camera.pictures(&kinds, &mut Random(99), &Device::flex()));
        let told: Vec<i64> = logits.argmax(1).into_data().iter().collect();
        let right =
            told.iter().zip(&kinds).filter(|&(&told, &kind)| usize::try_from(told) == Ok(kind)).count();
        right as f64 / kinds.len() as f64
    }
}

/// Numbers that depend on a seed alone (splitmix64).
struct Random(u64);

impl Random {
    /// Uniform in 0..1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn kind(&mut self) -> usize {
        [0, 1, 2, 3]
            .into_iter()
            .find(|kind| self.uniform() < 1.0 / (KINDS - kind) as f64)
            .unwrap_or(KINDS - 1)
    }
}

/// What becomes of a texture in a picture.
#[derive(Debug, Clone, Copy)]
struct Camera {
    contrast: f64,
    brightness: f64,
    noise: f64,
}

const OLD: Camera = Camera { contrast: 1.0, brightness: 0.0, noise: 0.4 };
const NEW: Camera = Camera { contrast: -0.5, brightness: 0.7, noise: 0.25 };

impl Camera {
    /// A picture of each of these kinds: stripes across, stripes down, both, and oblique ones, of any phase.
    fn pictures(self, kinds: &[usize], random: &mut Random, device: &Device) -> Tensor<4> {
        let mut values = Vec::with_capacity(kinds.len() * SIDE * SIDE);
        for kind in kinds {
            let (phase, other) = (random.uniform() * 6.3, random.uniform() * 6.3);
            for (row, column) in (0..SIDE * SIDE).map(|index| ((index / SIDE) as f64, (index % SIDE) as f64))
            {
                let texture = match kind {
                    0 => (row * 1.6 + phase).sin(),
                    1 => (column * 1.6 + phase).sin(),
                    2 => (row * 1.6 + phase).sin() * (column * 1.6 + other).sin(),
                    _ => ((row + column) * 1.1 + phase).sin(),
                };
                let texture = texture.max(-0.3); // more dark than light, so that brightness tells something
                values.push(
                    self.contrast * texture + self.brightness + self.noise * (random.uniform() - 0.5) * 3.5,
                );
            }
        }
        Tensor::from_data(TensorData::new(values, [kinds.len(), 1, SIDE, SIDE]), device)
    }
}

/// So many steps with Adam, on the batches of kinds that `next` gives.
fn train(
    mut net: Net,
    camera: Camera,
    steps: usize,
    rate: f64,
    mut next: impl FnMut(&mut Random) -> Vec<usize>,
) -> Net {
    let (device, mut random) = (Device::flex().autodiff(), Random(7));
    let mut optimizer = AdamConfig::new().init();
    for _ in 0..steps {
        let kinds = next(&mut random);
        let pictures = camera.pictures(&kinds, &mut random, &device);
        let hot: Vec<f64> =
            kinds.iter().flat_map(|of| (0..KINDS).map(move |kind| f64::from(kind == *of))).collect();
        let hot = Tensor::from_data(TensorData::new(hot, [kinds.len(), KINDS]), &device);
        let loss = cross_entropy_with_logits(net.forward(pictures), hot);
        let gradients = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(rate, net, gradients);
    }
    net
}

fn main() {
    let device = Device::flex().autodiff();
    device.seed(1);
    let before = train(Net::new(&device), OLD, 200, 1e-2, |random| (0..64).map(|_| random.kind()).collect());
    let two_of_a_kind = |random: &mut Random| vec![random.kind(); 2];
    // A module's clones share their running statistics, a record's don't.
    let copy = || Net::new(&device).load_record(before.clone().into_record());
    let training = train(copy(), NEW, 300, 1e-3, two_of_a_kind);
    let frozen = train(copy().with_mode(BatchMode::Frozen), NEW, 300, 1e-3, two_of_a_kind);

    println!("share of pictures told right       old camera   new camera");
    for (what, net) in [
        ("trained with the old camera", &before),
        ("fine-tuned, batch norm training", &training),
        ("fine-tuned, batch norm frozen", &frozen),
    ] {
        let percent = |camera| 100.0 * net.accuracy(camera);
        println!("{what:<33} {:>9.1} % {:>10.1} %", percent(OLD), percent(NEW));
    }
    let worse = |net: &Net| net.accuracy(OLD).min(net.accuracy(NEW));
    assert!(frozen.accuracy(NEW) > before.accuracy(NEW), "it learns the new camera");
    assert!(worse(&frozen) > worse(&training), "and keeps the old one");
}

#[test]
fn it_ends_well() {
    main();
}
