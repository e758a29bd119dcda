//! Scale normalization (Nguyen, Salazar 2019, arXiv:1910.05895), over the last axis, and L2 norm, which is the same
//! without g:
//!
//! ```text
//! y = g x / max(|x|, epsilon)        one g for all features, sqrt(features) at first
//! ```

use crate::Error;
use crate::apply::{apply, expect_epsilon, expect_features, expect_parameters, or_panic};
use crate::operator::{Kind, Operator};
use crate::qk_norm::{HeadNormKind, Heads};
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor};

/// Scale norm of `x` over its last axis: y = g x / max(|x|, epsilon), with the Euclidean length |x|.
///
/// - `x`: `[..., features]`, of any float type;
/// - `g`: a tensor of `[1]`; of `[features]` for a gain of each feature; or `None` (1), which is [`l2_norm`];
/// - the result has the shape and the type of `x`. A row of zeros gives zeros.
///
/// # Panics
/// Where [`try_scale_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::scale_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[0.0, 4.0], [0.0, 0.0]], &device);
/// let g = Tensor::<1>::from_data([10.0], &device);
/// assert_eq!(scale_norm(x, g, 1e-5).into_data(), [[0.0f32, 10.0], [0.0, 0.0]].into());
/// ```
#[track_caller]
pub fn scale_norm<const D: usize>(x: Tensor<D>, g: impl Into<Option<Tensor<1>>>, epsilon: f64) -> Tensor<D> {
    or_panic(try_scale_norm(x, g, epsilon))
}

/// [`scale_norm`], with an error where that panics.
///
/// # Errors
/// [`Error::Parameter`] if `g` doesn't fit, [`Error::Quantized`], and [`Error::Kernel`] for an epsilon that is negative or
/// not finite.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::try_scale_norm;
///
/// let device = Device::flex();
/// let g = Tensor::<1>::ones([3], &device);
/// assert!(try_scale_norm(Tensor::<2>::zeros([2, 4], &device), g, 1e-5).is_err());
/// ```
pub fn try_scale_norm<const D: usize>(
    x: Tensor<D>,
    g: impl Into<Option<Tensor<1>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    of_length(x, [g.into(), None], epsilon)
}

/// Scale norm with a bias, too.
pub(crate) fn of_length<const D: usize>(
    x: Tensor<D>,
    params: [Option<Tensor<1>>; 2],
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    expect_parameters(&x, &params)?;
    let norm = Heads { kind: HeadNormKind::L2, heads: 1 };
    apply(Operator::new(Kind::Heads(norm), epsilon), x, params)
}

/// L2 norm of `x` over its last axis: y = x / max(|x|, epsilon). [`scale_norm`] without a gain.
///
/// # Panics
/// Where [`try_l2_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::l2_norm;
///
/// let x = Tensor::<2>::from_data([[0.0, -4.0]], &Device::flex());
/// assert_eq!(l2_norm(x, 1e-12).into_data(), [[0.0f32, -1.0]].into());
/// ```
#[track_caller]
pub fn l2_norm<const D: usize>(x: Tensor<D>, epsilon: f64) -> Tensor<D> {
    or_panic(try_l2_norm(x, epsilon))
}

/// [`l2_norm`], with an error where that panics.
///
/// # Errors
/// As [`try_scale_norm`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// assert!(layernorm_burn::try_l2_norm(Tensor::<2>::zeros([2, 4], &Device::flex()), f64::NAN).is_err());
/// ```
pub fn try_l2_norm<const D: usize>(x: Tensor<D>, epsilon: f64) -> Result<Tensor<D>, Error> {
    try_scale_norm(x, None, epsilon)
}

/// Configuration of a [`ScaleNorm`].
///
/// ```
/// use layernorm_burn::ScaleNormConfig;
///
/// let norm = ScaleNormConfig::new(64).init(&Default::default());
/// assert_eq!(norm.gamma.val().into_data(), [8.0f32].into());
/// ```
#[derive(Debug, Config)]
pub struct ScaleNormConfig {
    /// The number of features: the length of the last axis of the input.
    pub d_model: usize,
    /// The least length that is divided by. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

impl ScaleNormConfig {
    /// A [`ScaleNorm`] whose gain is the root of the number of features, as in the paper.
    ///
    /// # Panics
    /// If `epsilon` is negative or not finite.
    #[track_caller]
    pub fn init(&self, device: &Device) -> ScaleNorm {
        expect_epsilon(self.epsilon);
        let value = (self.d_model as f64).sqrt();
        ScaleNorm {
            gamma: Initializer::Constant { value }.init([1], device),
            d_model: self.d_model,
            epsilon: self.epsilon,
        }
    }
}

/// Scale norm as a module: [`scale_norm`] with one gain that learns.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::ScaleNormConfig;
///
/// let device = Device::flex();
/// let y = ScaleNormConfig::new(4).init(&device).forward(Tensor::<2>::from_data([[0.0, 3.0, 0.0, 4.0]], &device));
/// y.into_data().assert_approx_eq::<f32>(&[[0.0, 1.2, 0.0, 1.6]].into(), Default::default());
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct ScaleNorm {
    /// The learnable gain, `g` in the paper: one for all features.
    pub gamma: Param<Tensor<1>>,
    d_model: usize,
    /// The least length that is divided by.
    pub epsilon: f64,
}

impl ScaleNorm {
    /// The norm of `input`, over its last axis.
    ///
    /// # Shapes
    /// - input, output: `[..., d_model]`
    ///
    /// # Panics
    /// Where [`ScaleNorm::try_forward`] gives an error, with its message.
    #[track_caller]
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        or_panic(self.try_forward(input))
    }

    /// [`ScaleNorm::forward`], with an error where that panics.
    ///
    /// # Errors
    /// [`Error::Features`] if the last axis of `input` is not `d_model`; else as [`try_scale_norm`].
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        expect_features(self.d_model, &input)?;
        try_scale_norm(input, self.gamma.val(), self.epsilon)
    }
}

impl ModuleDisplay for ScaleNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content.add("d_model", &self.d_model).add("epsilon", &self.epsilon).optional()
    }
}
