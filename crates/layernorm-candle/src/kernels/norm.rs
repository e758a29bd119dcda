//! Norms of rows and of groups of channels: all whose statistics are of memory side by side.

use super::{Kernel, Parameters, params};
use crate::rows::{Block, Blocks};
use crate::scalar::Scalar;
use layernorm::{
    Activation, Companion, Error, Gradients, Groups, Images, Layout, ParamGradients, Params, Real, RowsMut,
    Run, TensorGradients, Workspace,
};

/// Which norm, and its constant. A new one is a variant of [`Kind`] and its lines here and in `compose.rs`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm {
    pub(crate) kind: Kind,
    pub(crate) eps: f64,
}

/// By what a row is normalised, and what a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Layer,
    Rms,
    /// By its Euclidean length; times one scale for all, or none.
    Length,
    /// A row is a sample, and has several statistics.
    Group(Channels),
}

/// The channels of a sample, and their groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) channels: usize,
    pub(crate) positions: usize,
    pub(crate) groups: usize,
    pub(crate) layout: Layout,
    pub(crate) activation: Activation,
}

impl Channels {
    fn norm<'a, P>(&self, samples: usize, params: Params<'a, P>) -> Result<Groups<'a, P>, Error> {
        let images = Images::new(samples, self.channels, &[self.positions], self.layout)?;
        Ok(Groups { images, groups: self.groups, params, activation: self.activation })
    }
}

impl Norm {
    pub(crate) fn layer(eps: f64) -> Self {
        Self { kind: Kind::Layer, eps }
    }

    pub(crate) fn rms(eps: f64) -> Self {
        Self { kind: Kind::Rms, eps }
    }

    /// Scale norm, or L2 norm.
    pub(crate) fn length(eps: f64) -> Self {
        Self { kind: Kind::Length, eps }
    }

    /// Layer norm, or without its mean, which is RMS norm.
    pub(crate) fn with_mean_removed(remove_mean: bool, eps: f64) -> Self {
        if remove_mean { Self::layer(eps) } else { Self::rms(eps) }
    }

    /// The kernels' own checks of everything but shapes, for where no kernel will run: a call on no rows.
    pub(crate) fn check<T: Scalar + Real>(self) -> Result<(), Error> {
        self.forward(Block::<T>::none(), [None::<Block<'_, T>>; 2], &mut [], Run::default())
    }
}

impl Kernel for Norm {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Layer => "layer-norm",
            Kind::Rms => "rms-norm",
            Kind::Length => "scale-norm",
            Kind::Group(_) => "group-norm",
        }
    }

    fn blocks(&self, layout: &candle_core::Layout, features: usize) -> Option<Blocks> {
        let blocks = Blocks::of(layout, features)?;
        Some(if let Kind::Group(_) = self.kind { blocks.without_gaps() } else { blocks.in_groups() })
    }

    fn forward<E: Scalar, P: Companion<E>>(
        &self,
        x: Block<'_, E>,
        parameters: Parameters<'_, P>,
        y: &mut [E],
        run: Run,
    ) -> Result<(), Error> {
        let (features, params) = (x.features(), params(parameters, self.eps));
        match self.kind {
            Kind::Layer => layernorm::layer_norm(x.rows()?, params, RowsMut::new(y, features)?, None, run),
            Kind::Rms => layernorm::rms_norm(x.rows()?, params, RowsMut::new(y, features)?, None, run),
            Kind::Length => match params.weight {
                Some(&[scale]) => {
                    layernorm::scale_norm(x.rows()?, scale, self.eps, RowsMut::new(y, features)?, None, run)
                }
                _ => layernorm::l2_norm(x.rows()?, self.eps, RowsMut::new(y, features)?, None, run),
            },
            Kind::Group(channels) => {
                let norm = channels.norm(x.count(), params)?;
                layernorm::group_norm(norm, x.values(), y, None, &mut Workspace::new(), run)
            }
        }
    }

    fn backward_reads_bias(&self) -> bool {
        matches!(self.kind, Kind::Group(Channels { activation, .. }) if activation != Activation::None)
    }

    // Nothing is saved, so the statistics are taken again.
    fn backward<E: Scalar, P: Companion<E>>(
        &self,
        [x, dy]: [Block<'_, E>; 2],
        parameters: Parameters<'_, P>,
        dx: Option<&mut [E]>,
        [dweight, dbias]: [Option<&mut [E::Acc]>; 2],
    ) -> Result<(), Error> {
        let (run, features) = (Run::default(), x.features());
        let (params, workspace) = (params(parameters, self.eps), &mut Workspace::new());
        let wanted = dweight.is_some() || dbias.is_some();
        let of_params = ParamGradients { dweight, dbias, accumulate: false, first_row: 0, workspace };
        if let Kind::Group(channels) = self.kind {
            let norm = channels.norm(x.count(), params)?;
            let gradients = TensorGradients { dx, params: of_params };
            return layernorm::group_norm_backward(norm, x.values(), dy.values(), None, gradients, run);
        }
        let dx = dx.map(|dx| RowsMut::new(dx, features)).transpose()?;
        let gradients = Gradients { dx, params: wanted.then_some(of_params) };
        let (x, dy) = (x.rows()?, dy.rows()?);
        match (self.kind, params.weight, gradients) {
            (Kind::Length, Some(&[scale]), gradients) => {
                layernorm::scale_norm_backward(x, dy, scale, self.eps, gradients, run)
            }
            (Kind::Length, _, Gradients { dx: Some(dx), .. }) => {
                layernorm::l2_norm_backward(x, dy, self.eps, dx, run)
            }
            (Kind::Length, ..) => Ok(()),
            (Kind::Rms, _, gradients) => layernorm::rms_norm_backward(x, dy, params, None, gradients, run),
            (.., gradients) => layernorm::layer_norm_backward(x, dy, params, None, gradients, run),
        }
    }
}
