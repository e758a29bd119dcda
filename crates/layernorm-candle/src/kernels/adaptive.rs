//! The kernel of adaptive norms: a row of scales and one of shifts for each sample, in the places of weight and bias.

use super::{Kernel, Kind, Norm, Parameters};
use crate::rows::{Block, Blocks};
use crate::scalar::Scalar;
use candle_core::Layout;
use layernorm::{
    AdaGradients, Companion, Error, Modulation, ModulationGradients, Rows, RowsMut, Run, ScaleIs, Workspace,
};

/// y = norm(x) (1 + scale) + shift, by layer or RMS norm. There are as many samples as rows of scales, and each has as
/// many consecutive rows of x.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adaptive(pub(crate) Norm);

impl Adaptive {
    fn modulation<'a, P>(self, [scale, shift]: Parameters<'a, P>) -> Result<Modulation<'a, P>, Error> {
        let rows = |block: Option<Block<'a, P>>| block.map(Block::rows).transpose();
        let scale = rows(scale)?.map_or_else(|| Rows::new(&[], 0), Ok)?;
        Ok(Modulation { scale, shift: rows(shift)?, scale_is: ScaleIs::AboveOne, eps: self.0.eps })
    }
}

impl Kernel for Adaptive {
    fn name(&self) -> &'static str {
        match self.0.kind {
            Kind::Rms => "adaptive-rms-norm",
            _ => "adaptive-layer-norm",
        }
    }

    // All rows in one call, because the samples are counted from the first.
    fn blocks(&self, layout: &Layout, features: usize) -> Option<Blocks> {
        self.0.blocks(layout, features)?.if_one()
    }

    fn forward<E: Scalar, P: Companion<E>>(
        &self,
        x: Block<'_, E>,
        parameters: Parameters<'_, P>,
        y: &mut [E],
        run: Run,
    ) -> Result<(), Error> {
        let (modulation, y) = (self.modulation(parameters)?, RowsMut::new(y, x.features())?);
        match self.0.kind {
            Kind::Rms => layernorm::ada_rms_norm(x.rows()?, modulation, y, None, run),
            _ => layernorm::ada_layer_norm(x.rows()?, modulation, y, None, run),
        }
    }

    fn backward<E: Scalar, P: Companion<E>>(
        &self,
        [x, dy]: [Block<'_, E>; 2],
        parameters: Parameters<'_, P>,
        dx: Option<&mut [E]>,
        [dscale, dshift]: [Option<&mut [E::Acc]>; 2],
    ) -> Result<(), Error> {
        let (run, workspace, features) = (Run::default(), &mut Workspace::new(), x.features());
        let wanted = dscale.is_some() || dshift.is_some();
        let rows = |sums: Option<_>| sums.map(|sums| RowsMut::new(sums, features)).transpose();
        let (dscale, dshift) = (rows(dscale)?, rows(dshift)?);
        let sums = ModulationGradients { dscale, dshift, accumulate: false, workspace };
        let dx = dx.map(|dx| RowsMut::new(dx, features)).transpose()?;
        let gradients = AdaGradients { dx, modulation: wanted.then_some(sums) };
        let (x, dy, modulation) = (x.rows()?, dy.rows()?, self.modulation(parameters)?);
        match self.0.kind {
            Kind::Rms => layernorm::ada_rms_norm_backward(x, dy, modulation, None, gradients, run),
            _ => layernorm::ada_layer_norm_backward(x, dy, modulation, None, gradients, run),
        }
    }
}
