//! Mean and variance of rows, for running statistics: numbers of their own, through which no gradient flows.

use crate::compose::centre;
use crate::error::Error;
use crate::kernels::Kind;
use crate::scalar::Scalar;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};
use layernorm::{Params, Real, Rows, RowsMut, Run, StatsMut};

/// Mean and variance (by the count, not one less) of each row of `rows`: `[rows, values]`, contiguous, f32 or f64.
/// Of RMS norm, the mean is 0 and the variance the mean square.
pub(crate) fn statistics(kind: Kind, rows: &Tensor) -> Result<[Tensor; 2]> {
    let rows = rows.detach();
    if rows.device().is_cpu() {
        let both = rows.apply_op1_no_bwd(&Statistics { kind })?;
        return Ok([both.get(0)?, both.get(1)?]);
    }
    compose(kind, &rows)
}

fn compose(kind: Kind, rows: &Tensor) -> Result<[Tensor; 2]> {
    if kind == Kind::Rms {
        let var = rows.sqr()?.mean(1)?;
        return Ok([var.zeros_like()?, var]);
    }
    // Of a mean that is large beside its deviations, the first sum loses digits; the second finds them.
    let first = rows.mean_keepdim(1)?;
    let mean = (&first + rows.broadcast_sub(&first)?.mean_keepdim(1)?)?;
    Ok([mean.squeeze(1)?, centre(rows, 1)?.sqr()?.mean(1)?])
}

/// What the norm of a row saves are its statistics. The norm itself goes into one row that all overwrite.
struct Statistics {
    kind: Kind,
}

impl Statistics {
    fn run<T: Scalar + Real>(&self, memory: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
        let (rows, values) = layout.shape().dims2()?;
        let memory = crate::stored::values::<T>((memory, layout))?;
        let zeros = |len| vec![<T as WithDType>::from_f64(0.0); len];
        let (mut scratch, mut both) = (zeros(values), zeros(2 * rows));
        let (means, vars) = both.split_at_mut(rows);
        for (x, (mean, var)) in memory.chunks_exact(values).zip(means.iter_mut().zip(vars)) {
            [*mean, *var] = self.of_row(x, &mut scratch)?.map(<T as WithDType>::from_f64);
        }
        Ok(T::to_cpu_storage_owned(both))
    }

    fn of_row<T: Scalar + Real>(&self, x: &[T], scratch: &mut [T]) -> std::result::Result<[f64; 2], Error> {
        let zero = || [<T as WithDType>::from_f64(0.0)];
        let (mut m, mut c, mut rstd) = (zero(), zero(), zero());
        let (x, y) = (Rows::new(x, x.len())?, RowsMut::new(scratch, x.len())?);
        let params = Params::<T> { eps: 0.0, ..Params::default() }; // so that rstd is of the variance alone
        match self.kind {
            Kind::Layer => {
                let saved = StatsMut { m: &mut m, c: &mut c, rstd: &mut rstd };
                layernorm::layer_norm(x, params, y, Some(saved), Run::default())?;
            }
            _ => layernorm::rms_norm(x, params, y, Some(&mut rstd), Run::default())?,
        }
        let [m, c, rstd] = [m, c, rstd].map(|[number]| WithDType::to_f64(number));
        Ok([m + c, if rstd == 0.0 { 0.0 } else { (rstd * rstd).recip() }])
    }
}

impl CustomOp1 for Statistics {
    fn name(&self) -> &'static str {
        "row-statistics"
    }

    fn cpu_fwd(&self, rows: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let both = match rows {
            CpuStorage::F32(_) => self.run::<f32>(rows, layout)?,
            CpuStorage::F64(_) => self.run::<f64>(rows, layout)?,
            other => return Err(Error::Type { name: "x", got: other.dtype() }.into()),
        };
        Ok((both, Shape::from((2, layout.dims()[0]))))
    }
}

#[cfg(test)]
mod tests {
    use super::{compose, statistics};
    use crate::kernels::Kind;
    use candle_core::{Device, Result, Tensor};

    #[test]
    fn are_those_of_the_rows() -> Result<()> {
        let rows = [[40000f32, 40001., 40002., 40003.], [7., 7., 7., 7.], [1e-20, -1e-20, 1e-20, -1e-20]];
        let rows = Tensor::new(&rows, &Device::Cpu)?;
        let expected = [
            (Kind::Layer, [[40001.5, 7.0, 0.0], [1.25, 0.0, 1e-40]]),
            (Kind::Rms, [[0.0; 3], [1600120003.5, 49.0, 1e-40]]),
        ];
        for (kind, expected) in expected {
            for by in [statistics, compose] {
                let both = by(kind, &rows)?.map(|numbers| numbers.to_vec1::<f32>());
                for (got, expected) in both.into_iter().zip(expected) {
                    for (got, expected) in got?.into_iter().zip(expected) {
                        let error = (f64::from(got) - expected).abs();
                        assert!(
                            error <= 1e-6 * expected + 1e-44,
                            "{kind:?}: {got} where {expected} is right"
                        );
                    }
                }
            }
        }
        Ok(())
    }
}
