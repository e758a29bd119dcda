//! Our kernels through `layernorm-ndarray`: arrays in, new arrays out.

use std::time::Duration;

use layernorm::{Run, Threads};
use layernorm_ndarray::{self as norms, ArrayGradients, Norm};
use ndarray::{Array1, Array2, ArrayView2, Axis, Ix2};

use super::Job;
use crate::error::Error;
use crate::number::Number;
use crate::operators::{Case, Direction, Operator};
use crate::tensors::{Name, Tensors};
use crate::work::{Work, timed};

/// All that a call reads.
struct Arrays<T> {
    x: Array2<T>,
    dy: Option<Array2<T>>,
    weight: Array1<T>,
    bias: Option<Array1<T>>,
    operator: Operator,
    run: Run,
}

/// Copies the numbers.
///
/// # Errors
/// An operator that the crate has not, or none of rows.
pub fn prepare<T: Number>(job: &Job<'_, T>) -> Result<Box<dyn Work<T> + Send>, Error> {
    let Case { operator, direction, .. } = *job.case;
    if !matches!(operator, Operator::LayerNorm | Operator::RmsNorm) {
        return Err(Error::lacks("not asked"));
    }
    let units = job.case.units();
    let given = |name: Name| {
        let rows = ArrayView2::from_shape((job.case.shape.numbers() / units, units), &job.data[name]);
        rows.map(|rows| rows.to_owned()).map_err(|error| Error::Ndarray(error.to_string()))
    };
    let param = |name: Name| Array1::from_vec(job.data[name].clone());
    Ok(Box::new(Arrays {
        x: given(Name::X)?,
        dy: (direction == Direction::Backward).then(|| given(Name::Dy)).transpose()?,
        weight: param(Name::Weight),
        bias: job.case.inputs().contains(&Name::Bias).then(|| param(Name::Bias)),
        operator,
        run: Run::default().with_threads(if job.threads == 1 { Threads::One } else { Threads::Pool }),
    }))
}

impl<T: Number> Arrays<T> {
    fn norm(&self) -> Norm<'_, T> {
        let norm = Norm::over(Axis(1)).with_eps(Case::EPS).with_weight(&self.weight);
        match &self.bias {
            Some(bias) => norm.with_bias(bias),
            None => norm,
        }
    }

    fn forward(&self) -> Result<Array2<T>, Error> {
        let (x, norm) = (self.x.view(), self.norm());
        Ok(match self.operator {
            Operator::LayerNorm => norms::layer_norm_array(x, norm, self.run)?,
            _ => norms::rms_norm_array(x, norm, self.run)?,
        })
    }

    fn backward(&self, dy: &Array2<T>) -> Result<ArrayGradients<T, Ix2>, Error> {
        let (x, dy, norm) = (self.x.view(), dy.view(), self.norm());
        Ok(match self.operator {
            Operator::LayerNorm => norms::layer_norm_backward_arrays(x, dy, norm, self.run)?,
            _ => norms::rms_norm_backward_arrays(x, dy, norm, self.run)?,
        })
    }
}

impl<T: Number> Work<T> for Arrays<T> {
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        match &self.dy {
            None => timed(calls, || self.forward()),
            Some(dy) => timed(calls, || self.backward(dy)),
        }
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        let mut out = Tensors::default();
        let Some(dy) = &self.dy else {
            out[Name::Y] = self.forward()?.into_raw_vec_and_offset().0;
            return Ok(out);
        };
        let gradients = self.backward(dy)?;
        out[Name::Dx] = gradients.dx.into_raw_vec_and_offset().0;
        for (name, sums) in [(Name::Dweight, gradients.dweight), (Name::Dbias, gradients.dbias)] {
            out[name] = sums.into_iter().flatten().map(|sum| T::narrow(sum.into())).collect();
        }
        Ok(out)
    }
}
