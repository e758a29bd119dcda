//! Scale norm as a module. Candle has none; the names are those of its neighbours.

use crate::ops;
use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Scale norm with a scale that learns: [`ops::scale_norm`] as a module.
///
/// ```
/// use candle_core::{Device, Module, Tensor};
/// use layernorm_candle::ScaleNorm;
///
/// let norm = ScaleNorm::new(Tensor::new(&[10f32], &Device::Cpu)?, 1e-5);
/// let y = norm.forward(&Tensor::new(&[[3f32, 4.]], &Device::Cpu)?)?;
/// assert_eq!(y.to_vec2::<f32>()?, [[6., 8.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ScaleNorm {
    scale: Tensor,
    eps: f64,
}

impl ScaleNorm {
    /// Scale norm with this scale, one number.
    pub fn new(scale: Tensor, eps: f64) -> Self {
        Self { scale, eps }
    }

    /// The scale.
    pub fn scale(&self) -> &Tensor {
        &self.scale
    }

    /// The least length that is divided by.
    pub fn eps(&self) -> f64 {
        self.eps
    }
}

impl Module for ScaleNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::scale_norm(x, &self.scale, self.eps)
    }
}

/// A [`ScaleNorm`] from the variable `scale` at `vb`, of shape `[1]`; where `vb` makes a new one it is the root of
/// `features`, as the authors begin.
///
/// # Errors
/// If `vb` lacks the variable, or has it in another shape.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::{VarBuilder, VarMap};
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let norm = layernorm_candle::scale_norm(64, 1e-5, vb)?;
/// assert_eq!(norm.scale().to_vec1::<f32>()?, [8.]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn scale_norm(features: usize, eps: f64, vb: VarBuilder) -> Result<ScaleNorm> {
    Ok(ScaleNorm { scale: vb.get_with_hints(1, "scale", Init::Const((features as f64).sqrt()))?, eps })
}
