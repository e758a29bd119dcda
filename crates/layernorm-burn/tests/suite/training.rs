//! The same small net with the norms of `burn::nn` and with ours, from the same seed.

use super::*;
use burn::module::{Module, ModuleDisplay, ModuleVisitor, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use std::sync::Mutex;

/// A norm as a module, whoever made it.
trait Layer: Module + ModuleDisplay {
    fn init(device: &Device) -> Self;
    fn forward(&self, x: Tensor<2>) -> Tensor<2>;
}

macro_rules! layer {
    ($($module:ident, $config:ident($($argument:expr),*), $shape:expr;)*) => {$(
        layer!(burn::nn::$module, burn::nn::$config, ($($argument),*), $shape);
        layer!(layernorm_burn::$module, layernorm_burn::$config, ($($argument),*), $shape);
    )*};
    ($module:ty, $config:ty, ($($argument:expr),*), $shape:expr) => {
        impl Layer for $module {
            fn init(device: &Device) -> Self {
                <$config>::new($($argument),*).init(device)
            }
            fn forward(&self, x: Tensor<2>) -> Tensor<2> {
                let shape = x.dims();
                self.forward(x.reshape($shape)).reshape(shape)
            }
        }
    };
}
layer! {
    LayerNorm, LayerNormConfig(32), [-1, 32];
    RmsNorm, RmsNormConfig(32), [-1, 32];
    GroupNorm, GroupNormConfig(4, 16), [-1, 16, 2];
    InstanceNorm, InstanceNormConfig(4), [-1, 4, 8];
    BatchNorm, BatchNormConfig(32), [-1, 32];
}

#[derive(Module, Debug)]
struct Net<N: Module> {
    first: Linear,
    norm: N,
    second: Linear,
    last_norm: N,
    last: Linear,
}

impl<N: Layer> Net<N> {
    fn new(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(6, 32).init(device),
            norm: N::init(device),
            second: LinearConfig::new(32, 32).init(device),
            last_norm: N::init(device),
            last: LinearConfig::new(32, 1).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.first.forward(x)));
        let x = relu(self.last_norm.forward(self.second.forward(x)));
        self.last.forward(x)
    }
}

const STEPS: usize = 80;

/// How many parameters a module has; running statistics are none.
fn learnable(module: &impl Module) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            self.0 += usize::from(parameter.val().is_require_grad());
        }
    }
    let mut count = Count(0);
    module.visit(&mut count);
    count.0
}

/// The losses of a regression, and the output of the trained net on a device without autodiff.
fn train<N: Layer>() -> (Vec<f64>, Vec<f32>) {
    // The seed belongs to the device, which the tests of this binary share.
    static SEED: Mutex<()> = Mutex::new(());
    let device = Device::flex().autodiff();
    let mut net = {
        let _alone = SEED.lock().expect("no test panics between seeding and use");
        device.seed(7);
        let net = Net::<N>::new(&device);
        // Parameters are drawn when they are first looked at.
        drop(net.forward(Tensor::zeros([2, 6], &device)).into_data());
        net
    };
    let x = tensor::<2>([64, 6], 1, &device, DType::F32);
    let target = (x.clone() * x.clone()).sum_dim(1) + x.clone().sum_dim(1).sin();
    let mut optimizer = AdamConfig::new().init();
    let losses = (0..STEPS)
        .map(|_| {
            let loss = (net.forward(x.clone()) - target.clone()).square().mean();
            let value = loss.clone().into_scalar::<f32>();
            let gradients = GradientsParams::from_grads(loss.backward(), &net);
            assert_eq!(gradients.len(), learnable(&net), "every parameter has a gradient");
            net = optimizer.step(1e-2, net.clone(), gradients);
            f64::from(value)
        })
        .collect();
    let output = net.valid().forward(x.inner());
    assert!(!output.device().is_autodiff(), "evaluation runs without autodiff");
    (losses, vec_of(output))
}

fn compare<Theirs: Layer, Ours: Layer>() {
    let ((theirs, their_output), (ours, our_output)) = (train::<Theirs>(), train::<Ours>());
    assert!(ours[STEPS - 1] < 0.05 * ours[0], "it learns: {} to {}", ours[0], ours[STEPS - 1]);
    assert!((ours[0] - theirs[0]).abs() <= 1e-6 * theirs[0], "the first loss: {} and {}", ours[0], theirs[0]);
    for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        // Twenty times what is seen: rounding differences grow along a training.
        assert!((ours - theirs).abs() <= 2e-5 * theirs, "step {step}: {ours} and {theirs}");
    }
    for (ours, theirs) in our_output.iter().zip(&their_output) {
        assert!((ours - theirs).abs() <= 1e-4, "after training: {ours} and {theirs}");
    }
}

#[test]
fn layer_norm_learns_as_that_of_burn() {
    compare::<burn::nn::LayerNorm, layernorm_burn::LayerNorm>();
}

#[test]
fn rms_norm_learns_as_that_of_burn() {
    compare::<burn::nn::RmsNorm, layernorm_burn::RmsNorm>();
}

#[test]
fn group_norm_learns_as_that_of_burn() {
    compare::<burn::nn::GroupNorm, layernorm_burn::GroupNorm>();
}

#[test]
fn instance_norm_learns_as_that_of_burn() {
    compare::<burn::nn::InstanceNorm, layernorm_burn::InstanceNorm>();
}

#[test]
fn batch_norm_learns_as_that_of_burn() {
    compare::<burn::nn::BatchNorm, layernorm_burn::BatchNorm>();
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let (first, second) = (train::<layernorm_burn::LayerNorm>(), train::<layernorm_burn::LayerNorm>());
    assert_eq!(first, second);
}
