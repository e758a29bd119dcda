//! RMS norm as a module: `candle_nn::rms_norm`, name by name.

use crate::layer_norm::{LayerNorm, layer_norm};
use candle_core::{Module, Result, Tensor};
use candle_nn::{LayerNormConfig, VarBuilder};

/// RMS norm with a weight that learns: [`ops::rms_norm`](crate::ops::rms_norm) as a module.
///
/// Constructors, methods and names are those of `candle_nn::RmsNorm`, and a value of that type converts [`From`] it.
///
/// ```
/// use candle_core::{Device, Module, Tensor};
/// use layernorm_candle::RmsNorm; // instead of candle_nn::RmsNorm
///
/// let norm = RmsNorm::new(Tensor::new(&[5f32, 5.], &Device::Cpu)?, 0.0);
/// let y = norm.forward(&Tensor::new(&[[1f32, 7.]], &Device::Cpu)?)?; // root mean square 5
/// assert_eq!(y.to_vec2::<f32>()?, [[1., 7.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RmsNorm(LayerNorm);

impl RmsNorm {
    /// RMS norm with this weight.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        Self(LayerNorm::rms_norm(weight, eps))
    }

    /// The same as a [`LayerNorm`] that doesn't remove the mean.
    pub fn into_inner(self) -> LayerNorm {
        self.0
    }

    /// The weight (scale).
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// What is added to the mean square.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }

    /// The same as `forward`, which is differentiable here; in candle only this one is.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_diff(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward(xs)
    }

    /// The sum `x + residual` and its norm, as `(y, sum)`: see [`ops::add_rms_norm`](crate::ops::add_rms_norm).
    ///
    /// # Errors
    /// If `x` and `residual` differ in shape, or as `forward`.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use layernorm_candle::RmsNorm;
    ///
    /// let norm = RmsNorm::new(Tensor::new(&[5f32, 5.], &Device::Cpu)?, 0.0);
    /// let x = Tensor::new(&[[1f32, 7.]], &Device::Cpu)?;
    /// let (y, sum) = norm.forward_add(&x, &x)?;
    /// assert_eq!((y.to_vec2::<f32>()?, sum.to_vec2::<f32>()?), (vec![vec![1., 7.]], vec![vec![2., 14.]]));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<(Tensor, Tensor)> {
        self.0.forward_add(x, residual)
    }
}

impl Module for RmsNorm {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }
}

impl From<candle_nn::RmsNorm> for RmsNorm {
    fn from(norm: candle_nn::RmsNorm) -> Self {
        Self(norm.into_inner().into())
    }
}

/// An [`RmsNorm`] of `size` features, from the variable `weight` (or `gamma`) at `vb`; 1 where `vb` makes a new one.
///
/// # Errors
/// If `vb` lacks the variable, or has it in another shape.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
///
/// let norm = layernorm_candle::rms_norm(8, 1e-6, VarBuilder::zeros(DType::F32, &Device::Cpu))?;
/// assert_eq!(norm.weight().dims(), [8]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn rms_norm(size: usize, eps: f64, vb: VarBuilder) -> Result<RmsNorm> {
    Ok(RmsNorm(layer_norm(size, LayerNormConfig { eps, remove_mean: false, affine: false }, vb)?))
}

impl From<RmsNorm> for LayerNorm {
    fn from(norm: RmsNorm) -> Self {
        norm.0
    }
}
