//! Layer norm as a module: `candle_nn::layer_norm`, name by name.

use crate::apply::over_last_axis;
use crate::error::Error;
use crate::kernels::Norm;
use crate::ops;
use candle_core::{Module, Result, Tensor};
use candle_nn::{Init, LayerNormConfig, VarBuilder};

/// Layer norm with a weight and perhaps a bias that learn: [`ops::layer_norm`] as a module.
///
/// The constructors, the methods and the names of the parameters are those of `candle_nn::LayerNorm`, and a value of
/// that type converts [`From`] it. Without `remove_mean` it is RMS norm.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use layernorm_candle::{LayerNorm, layer_norm}; // instead of candle_nn::{LayerNorm, layer_norm}
///
/// let variables = VarMap::new();
/// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let norm: LayerNorm = layer_norm(4, 1e-5, vb.pp("norm"))?;
/// let y = norm.forward(&Tensor::new(&[[40000f32, 40001., 40002., 40003.]], &Device::Cpu)?)?;
/// let gradients = y.powf(3.)?.sum_all()?.backward()?;
/// assert!(gradients.get(norm.weight()).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    remove_mean: bool,
    eps: f64,
}

impl LayerNorm {
    /// Layer norm with these parameters.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight, bias: Some(bias), remove_mean: true, eps }
    }

    /// Layer norm without a bias.
    pub fn new_no_bias(weight: Tensor, eps: f64) -> Self {
        Self { weight, bias: None, remove_mean: true, eps }
    }

    /// RMS norm: neither a mean nor a bias.
    pub fn rms_norm(weight: Tensor, eps: f64) -> Self {
        Self { weight, bias: None, remove_mean: false, eps }
    }

    /// The weight (scale).
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, if there is one.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// Is this layer norm, and not RMS norm?
    pub fn remove_mean(&self) -> bool {
        self.remove_mean
    }

    /// The sum `x + residual` and its norm, as `(y, sum)`: see [`ops::add_layer_norm`].
    ///
    /// # Errors
    /// If `x` and `residual` differ in shape, or as `forward`.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use layernorm_candle::LayerNorm;
    ///
    /// let norm = LayerNorm::new_no_bias(Tensor::ones(2, DType::F32, &Device::Cpu)?, 0.0);
    /// let x = Tensor::new(&[[1f32, 2.]], &Device::Cpu)?;
    /// let (y, sum) = norm.forward_add(&x, &x)?;
    /// assert_eq!((y.to_vec2::<f32>()?, sum.to_vec2::<f32>()?), (vec![vec![-1., 1.]], vec![vec![2., 4.]]));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn forward_add(&self, x: &Tensor, residual: &Tensor) -> Result<(Tensor, Tensor)> {
        self.expect_features(x)?;
        ops::normed_sum(self.norm(), x, residual, Some(&self.weight), self.bias.as_ref())
    }

    fn norm(&self) -> Norm {
        Norm::with_mean_removed(self.remove_mean, self.eps)
    }

    /// A module of some features takes no other `x`, though one weight for all features would fit.
    fn expect_features(&self, x: &Tensor) -> Result<()> {
        let features = self.weight.elem_count();
        if self.weight.rank() == 1 && x.dims().last() == Some(&features) {
            return Ok(());
        }
        let features = x.dims().last().copied().unwrap_or(1);
        let got = self.weight.shape().clone();
        Err(Error::Parameter { name: "weight", got, features, x: x.shape().clone() }.into())
    }
}

impl Module for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.expect_features(x)?;
        over_last_axis(self.norm(), x, Some(&self.weight), self.bias.as_ref())
    }
}

impl From<candle_nn::LayerNorm> for LayerNorm {
    fn from(norm: candle_nn::LayerNorm) -> Self {
        Self {
            weight: norm.weight().clone(),
            bias: norm.bias().cloned(),
            remove_mean: norm.remove_mean(),
            eps: norm.eps(),
        }
    }
}

/// A [`LayerNorm`] of `size` features, from the variables `weight` and `bias` at `vb`; weight 1 and bias 0 where `vb`
/// makes new ones.
///
/// `config` is an eps, or a [`LayerNormConfig`]: as in candle, `affine: false` leaves out the bias alone. Checkpoints
/// that name them `gamma` and `beta`, as TensorFlow's and the oldest BERT's do, load too.
///
/// # Errors
/// If `vb` lacks the variables, or has them in other shapes.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
/// use layernorm_candle::{LayerNormConfig, layer_norm};
///
/// let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
/// let norm = layer_norm(8, LayerNormConfig { affine: false, ..Default::default() }, vb)?;
/// assert!(norm.bias().is_none());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn layer_norm<C: Into<LayerNormConfig>>(size: usize, config: C, vb: VarBuilder) -> Result<LayerNorm> {
    let config = config.into();
    // The older name only where it is there, so that a builder that makes variables makes them by the newer.
    let named = |name, old| if !vb.contains_tensor(name) && vb.contains_tensor(old) { old } else { name };
    let weight = vb.get_with_hints(size, named("weight", "gamma"), Init::Const(1.))?;
    let bias = if config.affine {
        Some(vb.get_with_hints(size, named("bias", "beta"), Init::Const(0.))?)
    } else {
        None
    };
    Ok(LayerNorm { weight, bias, remove_mean: config.remove_mean, eps: config.eps })
}

/// A [`LayerNorm`] without a bias.
///
/// # Errors
/// As [`layer_norm`].
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::VarBuilder;
///
/// let norm = layernorm_candle::layer_norm_no_bias(8, 1e-5, VarBuilder::zeros(DType::F32, &Device::Cpu))?;
/// assert!(norm.bias().is_none() && norm.remove_mean());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn layer_norm_no_bias(size: usize, eps: f64, vb: VarBuilder) -> Result<LayerNorm> {
    layer_norm(size, LayerNormConfig { eps, remove_mean: true, affine: false }, vb)
}
