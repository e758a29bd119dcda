//! One binary, because each would link Burn again. A file for each promise.

mod autodiff;
mod batch_norm;
mod bits;
mod checkpoints;
mod conformance;
mod copies;
mod errors;
mod family;
mod gradients;
mod kernels;
mod migrating;
mod norms;
mod pytorch;
mod records;
mod recurrent;
mod threads;
mod training;
mod transformer;
mod types;
mod weight_norm;

use burn::tensor::{DType, Device, Element, Tensor, TensorData};
use layernorm_burn::{layer_norm, rms_norm};

/// The two norms, as a value to loop over.
#[derive(Debug, Clone, Copy)]
enum Norm {
    Layer,
    Rms,
}

const NORMS: [Norm; 2] = [Norm::Layer, Norm::Rms];
const EPS: f64 = 1e-5;

impl Norm {
    fn of<const D: usize>(
        self,
        x: Tensor<D>,
        gamma: Option<Tensor<1>>,
        beta: Option<Tensor<1>>,
    ) -> Tensor<D> {
        match self {
            Self::Layer => layer_norm(x, gamma, beta, EPS),
            Self::Rms => rms_norm(x, gamma, beta, EPS),
        }
    }
}

/// Numbers in -1..1 that depend on `seed` alone (splitmix64).
fn numbers(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    (0..len).map(|_| (next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0).collect()
}

/// A tensor of such numbers.
fn tensor<const D: usize>(shape: [usize; D], seed: u64, device: &Device, dtype: DType) -> Tensor<D> {
    let data = TensorData::new(numbers(shape.iter().product(), seed), shape);
    Tensor::from_data(data, (device, dtype))
}

/// The numbers of a tensor, which must be of this type.
fn vec_of<T: Element, const D: usize>(tensor: Tensor<D>) -> Vec<T> {
    tensor.into_data().try_into_vec().expect("the type of the tensor")
}

/// The bits of an f32 tensor, every NaN the same.
fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    let canonical = |v: f32| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() };
    vec_of::<f32, D>(tensor).into_iter().map(canonical).collect()
}
