//! A norm with kernels, as a value that travels to where it runs.

use layernorm::{Error, Gradients, ParamGradients, Params, Real, Rows, RowsMut, Run};

/// Which norm, and its constant. A new one is a variant of [`Kind`] and its lines here and in `compose.rs`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    pub(crate) kind: Kind,
    pub(crate) eps: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Layer,
    Rms,
}

impl Norm {
    pub(crate) fn layer(eps: f64) -> Self {
        Self { kind: Kind::Layer, eps }
    }

    pub(crate) fn rms(eps: f64) -> Self {
        Self { kind: Kind::Rms, eps }
    }

    /// Layer norm, or without its mean, which is RMS norm.
    pub(crate) fn with_mean_removed(remove_mean: bool, eps: f64) -> Self {
        if remove_mean { Self::layer(eps) } else { Self::rms(eps) }
    }

    pub(crate) fn name(self) -> &'static str {
        match self.kind {
            Kind::Layer => "layer-norm",
            Kind::Rms => "rms-norm",
        }
    }

    /// y of each row.
    pub(crate) fn forward<T: Real>(
        self,
        x: Rows<'_, T>,
        params: Params<'_, T>,
        y: RowsMut<'_, T>,
        run: Run,
    ) -> Result<(), Error> {
        match self.kind {
            Kind::Layer => layernorm::layer_norm(x, params, y, None, run),
            Kind::Rms => layernorm::rms_norm(x, params, y, None, run),
        }
    }

    /// The gradients of x and the parameters. Candle's operations save nothing, so the statistics are taken again.
    pub(crate) fn backward<T: Real>(
        self,
        x: Rows<'_, T>,
        dy: Rows<'_, T>,
        params: Params<'_, T>,
        dx: Option<RowsMut<'_, T>>,
        gradients: Option<ParamGradients<'_, T>>,
    ) -> Result<(), Error> {
        let gradients = Gradients { dx, params: gradients };
        match self.kind {
            Kind::Layer => layernorm::layer_norm_backward(x, dy, params, None, gradients, Run::default()),
            Kind::Rms => layernorm::rms_norm_backward(x, dy, params, None, gradients, Run::default()),
        }
    }

    /// The kernels' own checks of everything but shapes, for where no kernel will run: a call on no rows.
    pub(crate) fn check<T: Real>(self) -> Result<(), Error> {
        let params = Params::<T> { eps: self.eps, ..Params::default() };
        self.forward(Rows::new(&[], 0)?, params, RowsMut::new(&mut [], 0)?, Run::default())
    }
}
