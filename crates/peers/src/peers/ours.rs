//! The crate `layernorm`: into memory of the caller's, which is made before the clock starts.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use layernorm::{
    Gradients, ParamGradients, Params, Real, Rows, RowsMut, Run, Stats, Threads, Workspace, layer_norm,
    layer_norm_backward, rms_norm, rms_norm_backward,
};

use super::Job;
use crate::error::Error;
use crate::number::Number;
use crate::operators::{Case, Direction, Operator};
use crate::tensors::{Name, Tensors};
use crate::work::{Work, timed};

/// All that a call reads and writes.
struct Ours<T> {
    data: Arc<Tensors<T>>,
    out: Tensors<T>,
    features: usize,
    saved: Stats<T>,
    workspace: Workspace<T>,
    run: Run,
    call: Call<T>,
}

type Call<T> = fn(&mut Ours<T>) -> Result<(), layernorm::Error>;

/// Makes room for the outputs; before a backward pass, saves what a forward pass would have.
///
/// # Errors
/// An operator that isn't there yet, and what the kernels refuse.
pub fn prepare<T: Number + Real>(job: &Job<'_, T>) -> Result<Box<dyn Work<T> + Send>, Error> {
    let Case { operator, direction, .. } = job.case;
    let (forward, backward): (Call<T>, Call<T>) = match operator {
        Operator::LayerNorm => (Ours::layer_norm, Ours::layer_norm_backward),
        Operator::RmsNorm => (Ours::rms_norm, Ours::rms_norm_backward),
        _ => return Err(Error::lacks("none yet")),
    };
    let mut out = Tensors::default();
    for name in [vec![Name::Y], job.case.outputs()].concat() {
        out[name] = vec![<T as Number>::narrow(0.0); job.case.len(name)];
    }
    let features = job.case.units();
    let threads = if job.threads == 1 { Threads::One } else { Threads::Pool };
    let mut ours = Ours {
        data: job.data.clone(),
        out,
        features,
        saved: Stats::new(job.case.shape.numbers() / features.max(1)),
        workspace: Workspace::new(),
        run: Run::default().with_threads(threads),
        call: forward,
    };
    match direction {
        // A forward pass that is not followed by a backward one saves nothing.
        Direction::Forward => ours.saved = Stats::new(0),
        Direction::Backward => {
            forward(&mut ours)?;
            ours.out[Name::Y] = Vec::new();
            ours.call = backward;
        }
    }
    Ok(Box::new(ours))
}

impl<T: Number + Real> Ours<T> {
    fn layer_norm(&mut self) -> Result<(), layernorm::Error> {
        let Self { data, out, features, saved, run, .. } = self;
        let (x, y) = (Rows::new(&data[Name::X], *features)?, RowsMut::new(&mut out[Name::Y], *features)?);
        let saved = (!saved.rstd.is_empty()).then(|| saved.as_mut());
        layer_norm(x, params(data), y, saved, *run)
    }

    fn layer_norm_backward(&mut self) -> Result<(), layernorm::Error> {
        let Self { data, out, features, saved, workspace, run, .. } = self;
        let (x, dy) = (Rows::new(&data[Name::X], *features)?, Rows::new(&data[Name::Dy], *features)?);
        let gradients = gradients(out, *features, workspace)?;
        layer_norm_backward(x, dy, params(data), Some(saved.as_ref()), gradients, *run)
    }

    fn rms_norm(&mut self) -> Result<(), layernorm::Error> {
        let Self { data, out, features, saved, run, .. } = self;
        let (x, y) = (Rows::new(&data[Name::X], *features)?, RowsMut::new(&mut out[Name::Y], *features)?);
        let rstd = (!saved.rstd.is_empty()).then_some(&mut *saved.rstd);
        rms_norm(x, params(data), y, rstd, *run)
    }

    fn rms_norm_backward(&mut self) -> Result<(), layernorm::Error> {
        let Self { data, out, features, saved, workspace, run, .. } = self;
        let (x, dy) = (Rows::new(&data[Name::X], *features)?, Rows::new(&data[Name::Dy], *features)?);
        let gradients = gradients(out, *features, workspace)?;
        rms_norm_backward(x, dy, params(data), Some(&saved.rstd), gradients, *run)
    }
}

impl<T: Number + Real> Work<T> for Ours<T> {
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        let call = self.call;
        timed(calls, || Ok(call(black_box(self))?))
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        (self.call)(self)?;
        Ok(self.out.clone())
    }
}

/// Weight, and bias where the operator has one.
fn params<T>(data: &Tensors<T>) -> Params<'_, T> {
    let bias = &data[Name::Bias];
    Params { weight: Some(&data[Name::Weight]), bias: (!bias.is_empty()).then_some(&**bias), eps: Case::EPS }
}

/// Those for which there is room.
fn gradients<'a, T: Real>(
    out: &'a mut Tensors<T>,
    features: usize,
    workspace: &'a mut Workspace<T>,
) -> Result<Gradients<'a, T>, layernorm::Error> {
    let [dx, dweight, dbias] = out.get_mut([Name::Dx, Name::Dweight, Name::Dbias]);
    let params = ParamGradients {
        dweight: Some(dweight),
        dbias: (!dbias.is_empty()).then_some(dbias),
        accumulate: false,
        first_row: 0,
        workspace,
    };
    Ok(Gradients { dx: Some(RowsMut::new(dx, features)?), params: Some(params) })
}
