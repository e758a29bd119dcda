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
    use super::compose;
    use crate::adaptive_norm::Adaptive;
    use crate::apply::{Beside, apply_beside};
    use crate::batch_norm::{Batch, Running};
    use crate::group_norm::Groups;
    use crate::operator::{Kind, Operator};
    use crate::qk_norm::{HeadNormKind, Heads};
    use crate::weight_norm::Weight;
    use crate::{layer_norm::Layer, rms_norm::Rms};
    use burn::tensor::{DType, Device, Tensor, TensorData};

    const LAYER: Kind = Kind::Layer(Layer);
    const RMS: Kind = Kind::Rms(Rms { first: None });
    const SHAPE: [usize; 3] = [3, 4, 5];

    fn leaf<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
        let len: usize = shape.iter().product();
        let values = (0..len).map(|i| (i as f64 * 1.7).sin() + 0.1 * i as f64).collect();
        let data = TensorData::new::<f64, _>(values, shape);
        Tensor::from_data(data, (device, DType::F64)).require_grad()
    }

    /// Each norm, and the shape of its parameters.
    fn norms() -> Vec<(Kind, [usize; 2])> {
        let heads = |kind| Kind::Heads(Heads { kind, heads: 4 });
        vec![
            (LAYER, [1, 5]),
            (RMS, [1, 5]),
            (Kind::Rms(Rms { first: Some(2) }), [1, 5]),
            (heads(HeadNormKind::Rms), [1, 5]),
            (heads(HeadNormKind::Layer), [4, 5]),
            (heads(HeadNormKind::L2), [4, 5]),
            (Kind::Groups(Groups { groups: 2 }), [1, 4]),
            (Kind::Batch(Batch::Train(Running::new())), [1, 4]),
            (Kind::Weight(Weight { axis: 1 }), [1, 4]),
            (Kind::Adaptive(Adaptive { centred: true }), [3, 5]),
            (Kind::Adaptive(Adaptive { centred: false }), [3, 5]),
        ]
    }

    type Norm<'a> = &'a dyn Fn(
        Operator,
        Tensor<3>,
        [Option<Tensor<1>>; 2],
        [Option<Tensor<2>>; 2],
        Beside<3>,
    ) -> (Tensor<3>, Beside<3>);

    /// Either road, with parameters of one axis or two.
    const ROADS: [Norm<'static>; 2] = [
        &|norm, x, flat, square, beside| match norm.kind {
            Kind::Adaptive(_) => compose(norm, x, square, beside),
            _ => compose(norm, x, flat, beside),
        },
        &|norm, x, flat, square, beside| {
            match norm.kind {
                Kind::Adaptive(_) => apply_beside(norm, x, square, beside),
                _ => apply_beside(norm, x, flat, beside),
            }
            .expect("it fits")
        },
    ];

    /// y, what is beside it, and the gradients of x and the parameters.
    fn results(road: Norm<'_>, kind: Kind, of_params: [usize; 2], beside: usize) -> Vec<Vec<f64>> {
        let device = Device::flex().autodiff();
        let x = leaf(SHAPE, &device);
        let beta = !matches!(kind, Kind::Weight(_));
        let params: [Tensor<2>; 2] = [(); 2].map(|()| leaf(of_params, &device));
        let square = [Some(params[0].clone()), Some(params[1].clone()).filter(|_| beta)];
        let flat = square.clone().map(|of| of.map(|of| of.flatten(0, 1)));
        let given = match (beside, kind) {
            (1, Kind::Layer(_) | Kind::Rms(Rms { first: None })) => Beside::Residual(x.clone().flip([0])),
            (1, Kind::Batch(_)) => Beside::Running([(); 2].map(|()| leaf([4], &device).detach().abs() + 0.5)),
            _ => Beside::Nothing,
        };
        let (y, after) = road(Operator::new(kind, 1e-5), x.clone(), flat, square, given);
        let mut results = vec![values(y.clone())];
        let mut loss = y.tanh().sum();
        match after {
            Beside::Nothing => {}
            Beside::Residual(sum) => {
                results.push(values(sum.clone()));
                loss = loss + sum.sin().sum();
            }
            Beside::Running(after) => results.extend(after.map(values)),
        }
        let gradients = loss.backward();
        results.push(values(x.grad(&gradients).expect("dx")));
        let tracked = if beta { &params[..] } else { &params[..1] };
        results.extend(tracked.iter().map(|of| values(of.grad(&gradients).expect("a gradient"))));
        results
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.without_autodiff().into_data().try_into_vec().expect("f64")
    }

    #[test]
    fn composed_agrees_with_the_kernels() {
        let evaluation = (Kind::Batch(Batch::Eval), [1, 4], 1);
        let all = norms().into_iter().flat_map(|(kind, of)| [(kind, of, 0), (kind, of, 1)]);
        for (kind, of_params, beside) in all.chain([evaluation]) {
            let [composed, by_kernels] = ROADS.map(|road| results(road, kind, of_params, beside));
            assert_eq!(composed.len(), by_kernels.len(), "{kind:?}");
            for (composed, by_kernels) in composed.into_iter().zip(by_kernels) {
                assert_eq!(composed.len(), by_kernels.len(), "{kind:?}");
                for (a, b) in composed.into_iter().zip(by_kernels) {
                    assert!((a - b).abs() <= 1e-11 * (1.0 + b.abs()), "{kind:?} {beside}: {a} and {b}");
                }
            }
        }
    }

    fn x_hat(kind: Kind, x: Tensor<2>, eps: f64) -> Tensor<2> {
        compose::<2, 1>(Operator::new(kind, eps), x, [None, None], Beside::Nothing).0
    }

    #[test]
    fn composed_halves_are_f32_rounded_once() {
        let x = leaf([4, 7], &Device::flex().autodiff()).without_autodiff().cast(DType::F16);
        let wide = x_hat(LAYER, x.clone().cast(DType::F32), 1e-5).cast(DType::F16);
        assert_eq!(x_hat(LAYER, x, 1e-5).into_data(), wide.into_data());
    }

    #[test]
    fn composed_keeps_small_deviations_from_large_means() {
        let x = Tensor::<2>::from_data([[40000.0, 40001.0, 40002.0, 40003.0]], &Device::flex());
        let y: Vec<f32> = x_hat(LAYER, x, 1e-5).into_data().try_into_vec().expect("f32");
        for (got, deviation) in y.into_iter().zip([-1.5, -0.5, 0.5, 1.5]) {
            assert!((f64::from(got) - deviation / 1.25001f64.sqrt()).abs() < 1e-6, "{got}");
        }
    }

    #[test]
    fn composed_is_0_where_nothing_varies_at_eps_0() {
        for kind in [LAYER, RMS] {
            let x = Tensor::<2>::zeros([2, 3], &Device::flex().autodiff()).require_grad();
            let y = x_hat(kind, x.clone(), 0.0);
            assert_eq!(y.to_data(), TensorData::from([[0.0f32; 3]; 2]));
            let dx = x.grad(&(y.clone() + y).tanh().sum().backward()).expect("dx");
            let dx: Vec<f32> = dx.into_data().try_into_vec().expect("f32");
            assert!(dx.iter().all(|dx| *dx == 0.0), "{kind:?}: {dx:?}");
        }
    }
}
