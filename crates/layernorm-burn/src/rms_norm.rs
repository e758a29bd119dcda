//! Root mean square normalization (Zhang, Sennrich 2019, arXiv:1910.07467, equation 4), over the last axis:
//!
//! ```text
//! y = gamma x / sqrt(mean(x^2) + epsilon) + beta
//! ```

use crate::Error;
use crate::add_norm::try_add_rms_norm;
use crate::apply::{apply, expect_epsilon, expect_features, expect_parameters, or_panic};
use crate::operator::{
    Backward, Forward, Kernels, Kind, Operator, SourceRows, UpstreamRows, divide_by_deviation, last, rows_of,
    wanted,
};
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor, s};
use layernorm::{Branch, Companion, Element, Gradients, Params, Residual, RmsParams};

/// RMS norm of `x` over its last axis: y = gamma x / sqrt(mean(x^2) + epsilon) + beta.
///
/// - `x`: `[..., features]`, of any float type;
/// - `gamma`, `beta`: a tensor of `[features]`, of `[1]` (one for all features), or `None` (1 and 0);
/// - the result has the shape and the type of `x`.
///
/// How it is computed, in which type and on which devices: see the [crate](crate).
///
/// # Panics
/// Where [`try_rms_norm`] gives an error, with its message; and as every operation of Burn if the tensors are on
/// different devices.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::rms_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[1.0, 7.0]], &device); // root mean square 5
/// let gamma = Tensor::<1>::from_data([5.0], &device); // shared by all features
/// assert_eq!(rms_norm(x, gamma, None, 0.0).into_data(), [[1.0f32, 7.0]].into());
/// ```
#[track_caller]
pub fn rms_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_rms_norm(x, gamma, beta, epsilon))
}

/// [`rms_norm`], with an error where that panics.
///
/// # Errors
/// [`Error::Parameter`], [`Error::Quantized`], [`Error::Kernel`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::try_rms_norm;
///
/// let device = Device::flex();
/// let (x, gamma) = (Tensor::<2>::zeros([2, 4], &device), Tensor::<1>::ones([3], &device));
/// let error = try_rms_norm(x, gamma, None, 1e-5).unwrap_err();
/// assert!(error.to_string().starts_with("gamma has shape [3] and x has shape [2, 4]"));
/// ```
pub fn try_rms_norm<const D: usize>(
    x: Tensor<D>,
    gamma: impl Into<Option<Tensor<1>>>,
    beta: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    let params = [gamma.into(), beta.into()];
    expect_parameters(&x, &params)?;
    apply(Operator::new(Kind::Rms(Rms { first: None }), epsilon), x, params)
}

/// Configuration of an [`RmsNorm`]: that of `burn::nn`, field by field.
///
/// ```
/// use layernorm_burn::RmsNormConfig;
///
/// let norm = RmsNormConfig::new(64).with_epsilon(1e-6).init(&Default::default());
/// assert_eq!(norm.gamma.dims(), [64]);
/// ```
#[derive(Debug, Config)]
pub struct RmsNormConfig {
    /// The number of features: the length of the last axis of the input.
    pub d_model: usize,
    /// Added to the mean square. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

impl RmsNormConfig {
    /// An [`RmsNorm`] with gamma 1.
    ///
    /// # Panics
    /// If `epsilon` is negative or not finite. (`burn::nn` refuses 0 too; here 0 is fine.)
    pub fn init(&self, device: &Device) -> RmsNorm {
        expect_epsilon(self.epsilon);
        RmsNorm { gamma: Initializer::Ones.init([self.d_model], device), epsilon: self.epsilon }
    }
}

/// RMS norm as a module: [`rms_norm`] with a gamma that learns.
///
/// The fields are named as in `burn::nn::RmsNorm`, so a record of the one loads into the other. Unlike that one,
/// which computes the mean square of any type in f32, this computes f64 in f64.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::RmsNormConfig;
///
/// let device = Device::flex();
/// let norm = RmsNormConfig::new(2).init(&device);
/// let y = norm.forward(Tensor::<3>::from_data([[[1.0, 7.0], [0.0, 0.0]]], &device));
/// assert_eq!(y.dims(), [1, 2, 2]);
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct RmsNorm {
    /// The learnable weight (scale).
    pub gamma: Param<Tensor<1>>,
    /// Added to the mean square.
    pub epsilon: f64,
}

impl RmsNorm {
    /// The norm of `input`, over its last axis.
    ///
    /// # Shapes
    /// - input: `[..., d_model]`
    /// - output: `[..., d_model]`
    ///
    /// # Panics
    /// Where [`RmsNorm::try_forward`] gives an error, with its message.
    #[track_caller]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        or_panic(self.try_forward(input))
    }

    /// [`RmsNorm::forward`], with an error where that panics.
    ///
    /// # Errors
    /// [`Error::Features`] if the last axis of `input` is not `d_model`; else as [`try_rms_norm`].
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        let gamma = self.gamma.val();
        let [d_model] = gamma.dims();
        expect_features(d_model, &input)?;
        try_rms_norm(input, gamma, None, self.epsilon)
    }

    /// The norm of `input + residual`, and that sum, as `(y, sum)`: [`add_rms_norm`](crate::add_rms_norm), in one pass.
    ///
    /// # Shapes
    /// - input, residual, and the outputs: `[..., d_model]`
    ///
    /// # Panics
    /// Where [`RmsNorm::try_forward_add`] gives an error, with its message.
    ///
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use layernorm_burn::RmsNormConfig;
    ///
    /// let device = Device::flex();
    /// let norm = RmsNormConfig::new(2).init(&device);
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

    /// [`RmsNorm::forward_add`], with an error where that panics.
    ///
    /// # Errors
    /// [`Error::Features`] if the last axis of `input` is not `d_model`; else as [`try_add_rms_norm`](crate::try_add_rms_norm).
    pub fn try_forward_add<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>), Error> {
        let gamma = self.gamma.val();
        let [d_model] = gamma.dims();
        expect_features(d_model, &input)?;
        try_add_rms_norm(input, residual, gamma, None, self.epsilon)
    }
}

impl ModuleDisplay for RmsNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model] = self.gamma.shape().dims();
        content.add("d_model", &d_model).add("epsilon", &self.epsilon).optional()
    }
}

/// The kernels of [`layernorm::rms_norm`](mod@layernorm). Saved is one column, rstd.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rms {
    /// The mean square is that of the first so many features, if not of all.
    pub(crate) first: Option<usize>,
}

impl Rms {
    fn params<'a, P>(self, params: Params<'a, P>) -> RmsParams<'a, P> {
        RmsParams { partial: self.first, ..params.into() }
    }

    /// x_hat from Burn's operations.
    pub(crate) fn x_hat<const D: usize>(self, x: Tensor<D>, eps: f64) -> Tensor<D> {
        let seen = match self.first {
            Some(first) => x.clone().slice_dim(D - 1, s![0..first]),
            None => x.clone(),
        };
        divide_by_deviation(x, seen.square().mean_dim(D - 1), eps)
    }
}

impl<E: Element, P: Companion<E>> Kernels<E, P> for Rms {
    fn row(&self, shape: &[usize]) -> usize {
        last(shape)
    }

    fn saved(&self, shape: &[usize]) -> usize {
        rows_of(shape)
    }

    fn forward(&self, call: Forward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Forward { shape, x, residual, params, saved, run, .. } = call;
        let row = last(shape);
        let residual = residual.map(|residual| residual.rows(row)).transpose()?;
        match (x.rows(row)?, residual) {
            (SourceRows::Apart(x, y), Some(SourceRows::Apart(residual, out))) => {
                let residual = Residual { residual, out, branch: Branch::default() };
                layernorm::add_rms_norm(x, residual, params, y, saved, run)
            }
            (SourceRows::InPlace(x), Some(SourceRows::InPlace(residual))) => {
                layernorm::add_rms_norm_in_place(x, residual, Branch::default(), params, saved, run)
            }
            (SourceRows::Apart(x, y), None) => layernorm::rms_norm(x, self.params(params), y, saved, run),
            (SourceRows::InPlace(x), None) => {
                layernorm::rms_norm_in_place(x, self.params(params), saved, run)
            }
            _ => unreachable!("x and what is added to it lie alike"),
        }
    }

    fn backward(&self, call: Backward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Backward { shape, x, dy, params, saved, gradients, run, .. } = call;
        let (row, params, of_params) = (last(shape), self.params(params), wanted(gradients));
        let x = x.rows(row)?;
        match dy.rows(row)? {
            UpstreamRows::Apart(dy, dx) => {
                let gradients = Gradients { dx, params: of_params };
                layernorm::rms_norm_backward(x, dy, params, Some(saved), gradients, run)
            }
            UpstreamRows::InPlace(dy) => {
                layernorm::rms_norm_backward_in_place(x, dy, params, Some(saved), of_params, run)
            }
        }
    }
}
