//! Layer normalization (Ba, Kiros, Hinton 2016, arXiv:1607.06450, equation 4), over the last axis:
//!
//! ```text
//! mu = mean(x)    var = mean((x - mu)^2)
//! y  = gamma (x - mu) / sqrt(var + epsilon) + beta
//! ```

use crate::Error;
use crate::add_norm::try_add_layer_norm;
use crate::apply::{apply, expect_epsilon, expect_features, expect_parameters, or_panic};
use crate::operator::{
    Backward, Forward, Kernels, Kind, Operator, SourceRows, UpstreamRows, columns, columns_mut,
    divide_by_deviation, last, rows_of, wanted,
};
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor};
use layernorm::{Branch, Companion, Element, Gradients, Residual};

/// Layer norm of `x` over its last axis: y = gamma (x - mean) / sqrt(var + epsilon) + beta.
///
/// - `x`: `[..., features]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[features]`, of `[1]` (one for all features), or `None` (1 and 0);
/// - the result has the shape and the type of `x`.
///
/// How it is computed, in which type and on which devices: see the [crate](crate).
///
/// # Panics
/// Where [`try_layer_norm`] gives an error, with its message; and as every operation of Burn if the tensors are on
/// different devices.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::layer_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], &device);
/// let beta = Tensor::<1>::from_data([0.5, 0.5, 0.5], &device);
/// let y = layer_norm(x, None, beta, 1e-5);
/// assert_eq!(y.slice([1..2]).into_data(), [[0.5f32, 0.5, 0.5]].into()); // a constant row gives exactly beta
/// ```
#[track_caller]
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_layer_norm(x, gamma, beta, epsilon))
}

/// [`layer_norm`], with an error where that panics.
///
/// # Errors
/// [`Error::Parameter`], [`Error::Quantized`], [`Error::Kernel`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::try_layer_norm;
///
/// let x = Tensor::<2>::zeros([2, 4], &Device::flex());
/// let error = try_layer_norm(x, None, None, -1.0).unwrap_err();
/// assert!(error.to_string().starts_with("eps is -1"));
/// ```
pub fn try_layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    let params = [gamma.into(), beta.into()];
    expect_parameters(&x, &params)?;
    apply(Operator::new(Kind::Layer(Layer), epsilon), x, params)
}

/// Configuration of a [`LayerNorm`]: that of `burn::nn`, field by field.
///
/// ```
/// use layernorm_burn::LayerNormConfig;
///
/// let norm = LayerNormConfig::new(64).with_epsilon(1e-6).with_bias(false).init(&Default::default());
/// assert!(norm.beta.is_none());
/// ```
#[derive(Debug, Config)]
pub struct LayerNormConfig {
    /// The number of features: the length of the last axis of the input.
    pub d_model: usize,
    /// Added to the variance. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// If a bias (beta) is added. Default: true
    #[config(default = true)]
    pub bias: bool,
}

impl LayerNormConfig {
    /// A [`LayerNorm`] with gamma 1 and beta 0.
    ///
    /// # Panics
    /// If `epsilon` is negative or not finite.
    pub fn init(&self, device: &Device) -> LayerNorm {
        expect_epsilon(self.epsilon);
        LayerNorm {
            gamma: Initializer::Ones.init([self.d_model], device),
            beta: self.bias.then(|| Initializer::Zeros.init([self.d_model], device)),
            epsilon: self.epsilon,
        }
    }
}

/// Layer norm as a module: [`layer_norm`] with a gamma and a beta that learn.
///
/// The fields are named as in `burn::nn::LayerNorm`, so a record of the one loads into the other. Epsilon is not
/// in a record, there as here.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::LayerNormConfig;
///
/// let device = Device::flex();
/// let norm = LayerNormConfig::new(2).init(&device);
/// let y = norm.forward(Tensor::<3>::from_data([[[1.0, 3.0], [7.0, 7.0]]], &device));
/// assert_eq!(y.dims(), [1, 2, 2]);
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct LayerNorm {
    /// The learnable weight (scale).
    pub gamma: Param<Tensor<1>>,
    /// The learnable bias (optional).
    pub beta: Option<Param<Tensor<1>>>,
    /// Added to the variance.
    epsilon: f64,
}

impl LayerNorm {
    /// The norm of `input`, over its last axis.
    ///
    /// # Shapes
    /// - input: `[..., d_model]`
    /// - output: `[..., d_model]`
    ///
    /// # Panics
    /// Where [`LayerNorm::try_forward`] gives an error, with its message.
    #[track_caller]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        or_panic(self.try_forward(input))
    }

    /// [`LayerNorm::forward`], with an error where that panics.
    ///
    /// # Errors
    /// [`Error::Features`] if the last axis of `input` is not `d_model`; else as [`try_layer_norm`].
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        let gamma = self.gamma.val();
        let [d_model] = gamma.dims();
        expect_features(d_model, &input)?;
        try_layer_norm(input, gamma, self.beta.as_ref().map(|beta| beta.val()), self.epsilon)
    }

    /// The norm of `input + residual`, and that sum, as `(y, sum)`: [`add_layer_norm`](crate::add_layer_norm), in one pass.
    ///
    /// # Shapes
    /// - input, residual, and the outputs: `[..., d_model]`
    ///
    /// # Panics
    /// Where [`LayerNorm::try_forward_add`] gives an error, with its message.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use layernorm_burn::LayerNormConfig;
    ///
    /// let device = Device::flex();
    /// let norm = LayerNormConfig::new(2).init(&device);
    /// let (branch, stream) = (Tensor::<2>::ones([1, 2], &device), Tensor::<2>::from_data([[1.0, 3.0]], &device));
    /// let (y, stream) = norm.forward_add(branch, stream);
    /// assert_eq!(stream.clone().into_data(), [[2.0f32, 4.0]].into());
    /// assert_eq!(y.into_data(), norm.forward(stream).into_data());
    /// ```
    #[track_caller]
    pub fn forward_add<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> (Tensor<D>, Tensor<D>) {
        or_panic(self.try_forward_add(input, residual))
    }

    /// [`LayerNorm::forward_add`], with an error where that panics.
    ///
    /// # Errors
    /// [`Error::Features`] if the last axis of `input` is not `d_model`; else as [`try_add_layer_norm`](crate::try_add_layer_norm).
    pub fn try_forward_add<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>), Error> {
        let gamma = self.gamma.val();
        let [d_model] = gamma.dims();
        expect_features(d_model, &input)?;
        try_add_layer_norm(input, residual, gamma, self.beta.as_ref().map(|beta| beta.val()), self.epsilon)
    }
}

impl ModuleDisplay for LayerNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model] = self.gamma.shape().dims();
        content
            .add("d_model", &d_model)
            .add("epsilon", &self.epsilon)
            .add("bias", &self.beta.is_some())
            .optional()
    }
}

/// The kernels of [`mod@layernorm`]. Saved are three columns: m, c and rstd.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer;

impl<E: Element, P: Companion<E>> Kernels<E, P> for Layer {
    fn row(&self, shape: &[usize]) -> usize {
        last(shape)
    }

    fn saved(&self, shape: &[usize]) -> usize {
        3 * rows_of(shape)
    }

    fn forward(&self, call: Forward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Forward { shape, x, residual, params, saved, run, .. } = call;
        let (row, saved) = (last(shape), saved.map(columns_mut));
        let residual = residual.map(|residual| residual.rows(row)).transpose()?;
        match (x.rows(row)?, residual) {
            (SourceRows::Apart(x, y), Some(SourceRows::Apart(residual, out))) => {
                let residual = Residual { residual, out, branch: Branch::default() };
                layernorm::add_layer_norm(x, residual, params, y, saved, run)
            }
            (SourceRows::InPlace(x), Some(SourceRows::InPlace(residual))) => {
                layernorm::add_layer_norm_in_place(x, residual, Branch::default(), params, saved, run)
            }
            (SourceRows::Apart(x, y), None) => layernorm::layer_norm(x, params, y, saved, run),
            (SourceRows::InPlace(x), None) => layernorm::layer_norm_in_place(x, params, saved, run),
            _ => unreachable!("x and what is added to it lie alike"),
        }
    }

    fn backward(&self, call: Backward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Backward { shape, x, dy, params, saved, gradients, run, .. } = call;
        let (row, saved, of_params) = (last(shape), Some(columns(saved)), wanted(gradients));
        let x = x.rows(row)?;
        match dy.rows(row)? {
            UpstreamRows::Apart(dy, dx) => {
                let gradients = Gradients { dx, params: of_params };
                layernorm::layer_norm_backward(x, dy, params, saved, gradients, run)
            }
            UpstreamRows::InPlace(dy) => {
                layernorm::layer_norm_backward_in_place(x, dy, params, saved, of_params, run)
            }
        }
    }
}

/// x_hat from Burn's operations. The mean is taken twice, so that large means leave small deviations intact.
pub(crate) fn x_hat<const D: usize>(x: Tensor<D>, eps: f64) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let centred = centred.clone() - centred.mean_dim(D - 1);
    let variance = centred.clone().square().mean_dim(D - 1);
    divide_by_deviation(centred, variance, eps)
}
