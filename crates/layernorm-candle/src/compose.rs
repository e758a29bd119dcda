//! The norms from candle's own operations: for devices whose memory the kernels can't reach, and for gradients of
//! gradients. Candle differentiates them itself. The kernels' bounds and bits are not promised here.

use crate::kernels::{Channels, Kind, Norm};
use crate::ops::channels::affine;
use candle_core::{Result, Tensor};
use layernorm::Activation;

/// `norm` of the rows of `features` values of `x`, times `weight` and plus `bias`; all f32 or all f64.
pub(crate) fn compose(
    norm: Norm,
    x: &Tensor,
    features: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    if let Kind::Group(Channels { channels, positions, groups, activation, .. }) = norm.kind {
        let x_hat = compose(Norm::layer(norm.eps), x, channels / groups * positions, None, None)?;
        let y = affine(x_hat, weight, bias)?;
        return if activation == Activation::Silu { y.silu() } else { Ok(y) };
    }
    let rows = x.reshape(((), features))?;
    let rows = match norm.kind {
        Kind::Layer => centre(&rows, 1)?,
        _ => rows,
    };
    let factor = match norm.kind {
        Kind::Length => over_length(&rows.sqr()?.sum_keepdim(1)?, norm.eps)?,
        _ => rstd(&rows.sqr()?.mean_keepdim(1)?, norm.eps)?,
    };
    let mut y = rows.broadcast_mul(&factor)?;
    if let Some(weight) = weight {
        y = y.broadcast_mul(weight)?;
    }
    if let Some(bias) = bias {
        y = y.broadcast_add(bias)?;
    }
    y.reshape(x.shape())
}

/// `x` less its mean over one axis. The mean is taken twice, so that large means leave small deviations intact.
pub(crate) fn centre(x: &Tensor, axis: usize) -> Result<Tensor> {
    let once = x.broadcast_sub(&x.mean_keepdim(axis)?)?;
    once.broadcast_sub(&once.mean_keepdim(axis)?)
}

/// `1 / sqrt(variance + eps)`. Where that is 1 / 0, it and its gradient are 0, as in the kernels.
pub(crate) fn rstd(variance: &Tensor, eps: f64) -> Result<Tensor> {
    let shifted = (variance + eps)?;
    let nothing = shifted.eq(0.0)?;
    // Before the root, because its derivative at 0 would make NaN of a gradient that is masked only after it.
    let rstd = nothing.where_cond(&shifted.ones_like()?, &shifted)?.sqrt()?.recip()?;
    nothing.where_cond(&rstd.zeros_like()?, &rstd)
}

/// `1 / max(sqrt(square), eps)`, which does not depend on the length where eps is larger. 0 where that is 1 / 0.
fn over_length(square: &Tensor, eps: f64) -> Result<Tensor> {
    let longer = square.detach().sqrt()?.gt(eps)?;
    // Before the root, as in `rstd`.
    let over = longer.where_cond(square, &square.ones_like()?)?.sqrt()?.recip()?;
    let over_eps = if eps > 0.0 { eps.recip() } else { 0.0 };
    longer.where_cond(&over, &(square.ones_like()?.detach() * over_eps)?)
}

#[cfg(test)]
mod tests {
    use super::compose;
    use crate::apply::over_rows;
    use crate::kernels::{Channels, Kind, Norm};
    use candle_core::{Device, Result, Tensor, Var};
    use layernorm::{Activation, Layout};

    const EPS: f64 = 1e-5;

    fn leaf(shape: &[usize]) -> Result<Var> {
        let len = shape.iter().product::<usize>();
        let values = (0..len).map(|i| (i as f64 * 1.7).sin() + 0.1 * i as f64).collect();
        Var::from_vec::<_, f64>(values, shape, &Device::Cpu)
    }

    /// y, dx, dweight, dbias of a norm on new leaves.
    fn results(norm: Norm, composed: bool) -> Result<[Vec<f64>; 4]> {
        let (x, weight, bias) = (leaf(&[3, 6, 4])?, leaf(&[6])?, leaf(&[6])?);
        // Of samples of six channels, or of any six numbers.
        let features = if let Kind::Group(_) = norm.kind { 6 * 4 } else { 6 };
        let by = if composed { compose } else { over_rows };
        let y = if norm.kind == Kind::Length {
            by(norm, &x, features, Some(&weight.narrow(0, 1, 1)?), None)?
        } else {
            by(norm, &x, features, Some(&weight), Some(&bias))?
        };
        let gradients = y.tanh()?.sum_all()?.backward()?;
        let of = |var: &Var| match gradients.get(var) {
            Some(gradient) => gradient.flatten_all()?.to_vec1(),
            None => Ok(Vec::new()),
        };
        Ok([y.flatten_all()?.to_vec1()?, of(&x)?, of(&weight)?, of(&bias)?])
    }

    #[test]
    fn composed_agrees_with_the_kernels() -> Result<()> {
        let groups = |groups, activation| {
            let layout = Layout::ChannelsFirst;
            Norm {
                kind: Kind::Group(Channels { channels: 6, positions: 4, groups, layout, activation }),
                eps: EPS,
            }
        };
        let group_norms = [groups(3, Activation::None), groups(6, Activation::Silu)];
        // Some rows are shorter than 3.
        let norms = [Norm::layer(EPS), Norm::rms(EPS), Norm::length(EPS), Norm::length(3.0)];
        for norm in norms.into_iter().chain(group_norms) {
            for (composed, kernels) in results(norm, true)?.iter().zip(results(norm, false)?) {
                assert_eq!(composed.len(), kernels.len(), "{norm:?}");
                for (a, b) in composed.iter().zip(kernels) {
                    assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{norm:?}: {a} and {b}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn composed_keeps_small_deviations_from_large_means() -> Result<()> {
        let x = Tensor::new(&[[40000f32, 40001., 40002., 40003.]], &Device::Cpu)?;
        let y = compose(Norm::layer(EPS), &x, 4, None, None)?.flatten_all()?.to_vec1::<f32>()?;
        for (got, deviation) in y.into_iter().zip([-1.5, -0.5, 0.5, 1.5]) {
            assert!((f64::from(got) - deviation / 1.25001f64.sqrt()).abs() < 1e-6, "{got}");
        }
        Ok(())
    }

    #[test]
    fn composed_is_0_where_nothing_varies_at_eps_0() -> Result<()> {
        for norm in [Norm::layer(0.0), Norm::rms(0.0), Norm::length(0.0)] {
            let x = Var::new(&[[0f32; 3]; 2], &Device::Cpu)?;
            let y = compose(norm, &x, 3, None, None)?;
            assert_eq!(y.to_vec2::<f32>()?, [[0.0; 3]; 2], "{norm:?}");
            let gradients = (&y + &y)?.tanh()?.sum_all()?.backward()?;
            let dx = gradients.get(&x).map(|dx| dx.to_vec2::<f32>()).transpose()?;
            assert_eq!(dx, Some(vec![vec![0.0; 3]; 2]), "{norm:?}");
        }
        Ok(())
    }
}
