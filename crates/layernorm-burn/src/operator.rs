//! A norm with kernels, as a value that travels to the backend, and what each brings there.

use crate::{layer_norm::Layer, rms_norm::Rms};
use burn::tensor::Tensor;
use layernorm::{ParamGradients, Params, Real, Rows, RowsMut, Run};

/// Which norm, and its constant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operator {
    pub(crate) kind: Kind,
    pub(crate) eps: f64,
}

/// The norms. A new one is a variant here, and a file that says what it does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Layer,
    Rms,
}

impl Operator {
    /// Its kernels on slices of `T`.
    pub(crate) fn kernels<T: Real>(self) -> &'static dyn Kernels<T> {
        match self.kind {
            Kind::Layer => &Layer,
            Kind::Rms => &Rms,
        }
    }

    /// The same from Burn's operations, for devices that the kernels cannot reach.
    pub(crate) fn compose<const D: usize>(
        self,
        x: Tensor<D>,
        gamma: Option<Tensor<1>>,
        beta: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let x_hat = match self.kind {
            Kind::Layer => crate::layer_norm::compose(x, self.eps),
            Kind::Rms => crate::rms_norm::compose(x, self.eps),
        };
        let scaled = match gamma {
            Some(gamma) => x_hat * gamma.unsqueeze(),
            None => x_hat,
        };
        match beta {
            Some(beta) => scaled + beta.unsqueeze(),
            None => scaled,
        }
    }
}

/// `x / sqrt(variance + eps)`. Where that is 0 / 0, the result and its gradient are 0, as in the kernels.
pub(crate) fn divide_by_deviation<const D: usize>(x: Tensor<D>, variance: Tensor<D>, eps: f64) -> Tensor<D> {
    let shifted = variance + eps;
    // Before the root, because its derivative at 0 would make NaN of a gradient that is masked only after it.
    let nothing = shifted.clone().equal_elem(0.0);
    let rstd = shifted.mask_fill(nothing.clone(), 1.0).sqrt().recip();
    x * rstd.mask_fill(nothing, 0.0)
}

/// The kernels of a norm. Every error is found before anything is written.
pub(crate) trait Kernels<T: Real> {
    /// Length of a row of a tensor of this shape: what is normalised together.
    fn features(&self, shape: &[usize]) -> usize;

    /// How many statistics a row has for the backward pass. They are saved as that many columns.
    fn columns(&self) -> usize;

    /// y, and the statistics where they are asked for.
    fn forward(
        &self,
        x: Source<'_, T>,
        params: Params<'_, T>,
        saved: Option<&mut [T]>,
        run: Run,
    ) -> Result<(), layernorm::Error>;

    /// The gradients of x and the parameters.
    fn backward(&self, call: Backward<'_, T>) -> Result<(), layernorm::Error>;
}

/// The rows of x, and where y goes.
pub(crate) enum Source<'a, T> {
    /// Into memory of its own.
    Apart(Rows<'a, T>, RowsMut<'a, T>),
    /// Over x.
    InPlace(RowsMut<'a, T>),
}

/// The rows of dy, and where dx goes.
pub(crate) enum Upstream<'a, T> {
    /// Into memory of its own, if anybody wants it.
    Apart(Rows<'a, T>, Option<RowsMut<'a, T>>),
    /// Over dy.
    InPlace(RowsMut<'a, T>),
}

/// What a backward pass works on.
pub(crate) struct Backward<'a, T> {
    pub(crate) x: Rows<'a, T>,
    pub(crate) dy: Upstream<'a, T>,
    pub(crate) params: Params<'a, T>,
    /// The statistics, as `forward` saved them.
    pub(crate) saved: &'a [T],
    pub(crate) gradients: Option<ParamGradients<'a, T>>,
    pub(crate) run: Run,
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
