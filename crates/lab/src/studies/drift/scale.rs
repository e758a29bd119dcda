//! One signal through many steps of a network of ReLUs, in time or in depth, and its gradient back: how large they are
//! after each step.
//!
//! ```text
//! a = h W        h = relu(norm(a))        W: the same at every time step, another one in every layer
//! ```

use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use layernorm_burn::{BatchMode, Norm, NormConfig};

use crate::rng::Rng;

/// Units of a layer. In narrow networks chance drifts too, by about 1 / sqrt(units) a layer, and hides the rest.
const UNITS: usize = 256;
/// Signals side by side.
const BATCH: usize = 16;

/// Where the signal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through time: every step has the same weights.
    Time,
    /// Through layers, each with its own.
    Depth,
}

/// Root mean squares after each step.
pub struct Sizes {
    /// Of the summed inputs a.
    pub forward: Vec<f64>,
    /// Of the gradient by a, of a random projection of the last h.
    pub backward: Vec<f64>,
}

/// A random signal through `steps` steps. Weights are drawn with standard deviation `scale` sqrt(2 / units): at 1, He's
/// initialization, ReLUs keep the signal's size on average.
pub fn sizes(way: Way, norm: &NormConfig, scale: f64, steps: usize, rng: &mut Rng) -> Sizes {
    let device = Device::flex().autodiff();
    let norm = norm.clone().with_mode(BatchMode::Train).init(UNITS, &device);
    let deviation = scale * (2.0 / UNITS as f64).sqrt();
    let mut h = relu(random([BATCH, UNITS], 2f64.sqrt(), rng, &device));
    let mut w = random([UNITS, UNITS], deviation, rng, &device);
    let (mut leaves, mut forward) = (Vec::with_capacity(steps), Vec::with_capacity(steps));
    for step in 0..steps {
        if way == Way::Depth && step > 0 {
            w = random([UNITS, UNITS], deviation, rng, &device);
        }
        let (next, leaf, size) = one_step(h, w.clone(), &norm);
        h = next;
        leaves.push(leaf);
        forward.push(size);
    }
    let gradients = (h * random([BATCH, UNITS], 1.0, rng, &device)).sum().backward();
    let gradient = |leaf: &Tensor<2>| leaf.grad(&gradients).expect("a leaf of the graph");
    Sizes { forward, backward: leaves.iter().map(|leaf| size(gradient(leaf))).collect() }
}

/// The next h, a leaf whose gradient is that of a, and the size of a.
fn one_step(h: Tensor<2>, w: Tensor<2>, norm: &Norm) -> (Tensor<2>, Tensor<2>, f64) {
    let leaf = h.zeros_like().detach().require_grad();
    let a = h.matmul(w) + leaf.clone();
    let forward = size(a.clone().without_autodiff());
    (relu(norm.forward(a)), leaf, forward)
}

/// The root mean square, in f64: squares of these numbers overflow f32.
fn size(x: Tensor<2>) -> f64 {
    let values = x.into_data().try_into_vec::<f32>().expect("f32 in, f32 out");
    (values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

fn random(shape: [usize; 2], deviation: f64, rng: &mut Rng, device: &Device) -> Tensor<2> {
    // Uniform numbers: their deviation is all that counts among so many, and a bell takes twelve times as long.
    let bound = 3f32.sqrt();
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| rng.range(-bound, bound)).collect();
    Tensor::from_data(TensorData::new(values, shape), device) * deviation
}

/// Decades between the smallest and the largest of some sizes; NaN if a size is none.
pub fn decades(sizes: impl Iterator<Item = f64>) -> f64 {
    let [low, high] = sizes.map(power_of_ten).fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], log| {
        if log.is_nan() { [f64::NAN; 2] } else { [least(low, log), -least(-high, -log)] }
    });
    high - low
}

/// The logarithm to base ten. A signal that is gone counts as the smallest number of f32, one beyond all numbers as the
/// largest.
pub fn power_of_ten(size: f64) -> f64 {
    let [low, high] = [f32::MIN_POSITIVE, f32::MAX].map(f64::from);
    libm::log10(size.clamp(low, high))
}

/// The smaller one, or NaN if the first is; `f64::min` would forget it.
fn least(so_far: f64, next: f64) -> f64 {
    if next < so_far { next } else { so_far }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn sizes_of(way: Way, norm: &NormConfig, scale: f64) -> Sizes {
        sizes(way, norm, scale, 40, &mut Rng::new(1, Purpose::Check, 0))
    }

    #[test]
    fn twice_the_weights_double_the_signal_at_every_step() {
        for way in [Way::Time, Way::Depth] {
            let (once, twice) =
                (sizes_of(way, &NormConfig::none(), 1.0), sizes_of(way, &NormConfig::none(), 2.0));
            for (step, (a, b)) in once.forward.iter().zip(&twice.forward).enumerate() {
                let factor = 2f64.powf(step as f64 + 1.0);
                assert!((b / a / factor - 1.0).abs() < 1e-4, "{way:?}, step {step}: {a} and {b}");
            }
            // The gradient by a passes the weights of the later steps.
            for (step, (a, b)) in once.backward.iter().zip(&twice.backward).enumerate() {
                let factor = 2f64.powf(39.0 - step as f64);
                assert!((b / a / factor - 1.0).abs() < 1e-4, "{way:?}, step {step}: {a} and {b}");
            }
        }
    }

    #[test]
    fn with_eps_0_a_norm_forgets_the_scale_of_the_weights() {
        let norm = NormConfig::layer().with_epsilon(0.0);
        let (once, twice) = (sizes_of(Way::Depth, &norm, 1.0), sizes_of(Way::Depth, &norm, 2.0));
        for (a, b) in once.forward.iter().zip(&twice.forward) {
            assert!((b / a / 2.0 - 1.0).abs() < 1e-4, "{a} and {b}"); // one factor, not one a step
        }
    }

    #[test]
    fn decades_reach_from_the_smallest_to_the_largest() {
        assert!((decades([1.0, 100.0, 0.1].into_iter()) - 3.0).abs() < 1e-12);
        assert!((decades([1.0, 0.0].into_iter()) - 37.93).abs() < 0.01); // f32 ends at 1.18e-38
        assert!(decades([1.0, f64::NAN, 2.0].into_iter()).is_nan());
    }
}
