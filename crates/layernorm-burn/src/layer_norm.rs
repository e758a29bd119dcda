//! Layer normalization (Ba, Kiros, Hinton 2016, arXiv:1607.06450, equation 4), over the last axis:
//!
//! ```text
//! mu = mean(x)    var = mean((x - mu)^2)
//! y  = gamma (x - mu) / sqrt(var + epsilon) + beta
//! ```

use crate::Error;
use crate::apply::{apply, expect_features};
use crate::operator::{Backward, Kernels, Kind, Operator, Source, Upstream, divide_by_deviation};
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor};
use layernorm::{Gradients, Params, Real, Run, StatsMut, StatsRef};

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
    apply(Operator { kind: Kind::Layer, eps: epsilon }, x, gamma.into(), beta.into())
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

#[track_caller]
pub(crate) fn or_panic<V>(result: Result<V, Error>) -> V {
    result.unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
pub(crate) fn expect_epsilon(epsilon: f64) {
    assert!(
        epsilon >= 0.0 && epsilon.is_finite(),
        "epsilon is {epsilon}: it must be finite and not negative"
    );
}

/// The kernels of [`mod@layernorm`]. Saved are three columns: m, c and rstd.
pub(crate) struct Layer;

impl<T: Real> Kernels<T> for Layer {
    fn features(&self, shape: &[usize]) -> usize {
        shape.last().copied().unwrap_or(1)
    }

    fn columns(&self) -> usize {
        3
    }

    fn forward(
        &self,
        x: Source<'_, T>,
        params: Params<'_, T>,
        saved: Option<&mut [T]>,
        run: Run,
    ) -> Result<(), layernorm::Error> {
        let saved = saved.map(|saved| {
            let rows = saved.len() / 3;
            let (m, rest) = saved.split_at_mut(rows);
            let (c, rstd) = rest.split_at_mut(rows);
            StatsMut { m, c, rstd }
        });
        match x {
            Source::Apart(x, y) => layernorm::layer_norm(x, params, y, saved, run),
            Source::InPlace(x) => layernorm::layer_norm_in_place(x, params, saved, run),
        }
    }

    fn backward(&self, call: Backward<'_, T>) -> Result<(), layernorm::Error> {
        let Backward { x, dy, params, saved, gradients, run } = call;
        let (m, rest) = saved.split_at(saved.len() / 3);
        let (c, rstd) = rest.split_at(saved.len() / 3);
        let saved = Some(StatsRef { m, c, rstd });
        match dy {
            Upstream::Apart(dy, dx) => {
                let gradients = Gradients { dx, params: gradients };
                layernorm::layer_norm_backward(x, dy, params, saved, gradients, run)
            }
            Upstream::InPlace(dy) => {
                layernorm::layer_norm_backward_in_place(x, dy, params, saved, gradients, run)
            }
        }
    }
}

/// x_hat from Burn's operations. The mean is taken twice, so that large means leave small deviations intact.
pub(crate) fn compose<const D: usize>(x: Tensor<D>, eps: f64) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let centred = centred.clone() - centred.mean_dim(D - 1);
    let variance = centred.clone().square().mean_dim(D - 1);
    divide_by_deviation(centred, variance, eps)
}
