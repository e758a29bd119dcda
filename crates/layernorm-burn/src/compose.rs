//! The norms from Burn's own operations, for devices that the kernels cannot reach. Burn differentiates them itself.

use crate::apply::{Beside, convert, types};
use crate::operator::{Kind, Operator};
use burn::tensor::Tensor;

/// Along which axes of x a parameter lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Along {
    /// The last one: a number a feature, or one for all.
    Last,
    /// The last one, or the last two: a number a feature, or so many for each head.
    Heads,
    /// This one: a number a channel, or one for all.
    Axis(usize),
    /// The first and the last: so many for each sample, of which gamma is what is above 1.
    Samples,
}

impl Along {
    /// The shape in which a parameter of `len` numbers broadcasts to x.
    fn shape<const D: usize>(self, x: [usize; D], len: usize) -> [usize; D] {
        let mut shape = [1; D];
        match self {
            Self::Last => shape[D - 1] = len,
            Self::Heads if len == 1 || len == x[D - 1] => shape[D - 1] = len,
            Self::Heads => (shape[D - 2], shape[D - 1]) = (x[D - 2], x[D - 1]),
            Self::Axis(axis) => shape[axis] = len,
            Self::Samples => (shape[0], shape[D - 1]) = (x[0], x[D - 1]),
        }
        shape
    }
}

/// `gamma x_hat + beta`, with what is beside it.
pub(crate) fn compose<const D: usize, const P: usize>(
    norm: Operator,
    x: Tensor<D>,
    params: [Option<Tensor<P>>; 2],
    beside: Beside<D>,
) -> (Tensor<D>, Beside<D>) {
    let x = match &beside {
        Beside::Residual(residual) => x + residual.clone(),
        _ => x,
    };
    let stored = x.dtype();
    let computed = types(stored).map_or(stored.into(), |(_, computed)| computed);
    let sum = x.clone();
    let x = convert(x, computed);

    let (running, beside) = match (norm.kind, beside) {
        (Kind::Batch(batch), Beside::Running(running)) => {
            (Some(running.clone()), Beside::Running(batch.moved(&x, running)))
        }
        (_, Beside::Residual(_)) => (None, Beside::Residual(sum)),
        (_, other) => (None, other),
    };
    let (along, shape) = (norm.along(), x.dims());
    let [gamma, beta] = params.map(|parameter| {
        parameter.map(|parameter| {
            let len = parameter.dims().iter().product();
            convert(parameter, computed).reshape(along.shape(shape, len))
        })
    });
    let x_hat = norm.x_hat(x, running.as_ref());
    let scaled = match (gamma, along) {
        (Some(scale), Along::Samples) => x_hat * (scale + 1.0),
        (Some(gamma), _) => x_hat * gamma,
        (None, _) => x_hat,
    };
    let y = match beta {
        Some(beta) => scaled + beta,
        None => scaled,
    };
    (convert(y, stored.into()), beside)
}

#[cfg(test)]
mod tests {
    use super::{Kind, Operator};
    use crate::apply::apply;
    use burn::tensor::{DType, Device, Tensor, TensorData};

    fn leaf<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        let len: usize = shape.iter().product();
        let values = (0..len).map(|i| (i as f64 * 1.7).sin() + 0.1 * i as f64).collect();
        let data = TensorData::new::<f64, _>(values, shape);
        Tensor::from_data(data, (device, DType::F64)).require_grad()
    }

    /// y, dx, dgamma, dbeta of a norm on new leaves.
    fn results(norm: Operator, composed: bool) -> [Vec<f64>; 4] {
        let device = Device::flex().autodiff();
        let x = leaf([3, 2, 5], &device);
        let [gamma, beta] = [(); 2].map(|()| leaf([5], &device));
        let affine = (Some(gamma.clone()), Some(beta.clone()));
        let y = if composed {
            norm.compose(x.clone(), affine.0, affine.1)
        } else {
            apply(norm, x.clone(), affine.0, affine.1).expect("it fits")
        };
        let gradients = y.clone().tanh().sum().backward();
        [
            y.into_data(),
            x.grad(&gradients).expect("dx").into_data(),
            gamma.grad(&gradients).expect("dgamma").into_data(),
            beta.grad(&gradients).expect("dbeta").into_data(),
        ]
        .map(|data| data.try_into_vec().expect("f64"))
    }

    #[test]
    fn composed_agrees_with_the_kernels() {
        for kind in [Kind::Layer, Kind::Rms] {
            let norm = Operator { kind, eps: 1e-5 };
            for (by_burn, by_kernels) in results(norm, true).iter().zip(results(norm, false)) {
                assert_eq!(by_burn.len(), by_kernels.len());
                for (a, b) in by_burn.iter().zip(by_kernels) {
                    assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{kind:?}: {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn composed_keeps_small_deviations_from_large_means() {
        let x = Tensor::<2>::from_data([[40000.0, 40001.0, 40002.0, 40003.0]], &Device::flex());
        let y = Operator { kind: Kind::Layer, eps: 1e-5 }.compose(x, None, None);
        let y: Vec<f32> = y.into_data().try_into_vec().expect("f32");
        for (got, deviation) in y.into_iter().zip([-1.5, -0.5, 0.5, 1.5]) {
            assert!((f64::from(got) - deviation / 1.25001f64.sqrt()).abs() < 1e-6, "{got}");
        }
    }

    #[test]
    fn composed_is_0_where_nothing_varies_at_eps_0() {
        for kind in [Kind::Layer, Kind::Rms] {
            let x = Tensor::<2>::zeros([2, 3], &Device::flex().autodiff()).require_grad();
            let y = Operator { kind, eps: 0.0 }.compose(x.clone(), None, None);
            assert_eq!(y.to_data(), TensorData::from([[0.0f32; 3]; 2]));
            let dx = x.grad(&(y.clone() + y).tanh().sum().backward()).expect("dx");
            let dx: Vec<f32> = dx.into_data().try_into_vec().expect("f32");
            assert!(dx.iter().all(|dx| *dx == 0.0), "{kind:?}: {dx:?}");
        }
    }
}
