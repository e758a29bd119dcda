//! Adaptive norms: a scale and a shift of each sample's own, from a condition (Perez et al. 2018, arXiv:1709.07871;
//! in diffusion transformers: Peebles, Xie 2023, arXiv:2212.09748, section 3.2):
//!
//! ```text
//! y = norm(x) (1 + scale) + shift
//! ```

use crate::apply::{apply, expect_epsilon, expect_features, or_panic};
use crate::operator::{
    Backward, Forward, Kernels, Kind, Operator, SourceRows, UpstreamRows, columns, columns_mut, last, rows_of,
};
use crate::rms_norm::Rms;
use crate::{Error, layer_norm};
use burn::config::Config;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};
use layernorm::{
    AdaGradients, Companion, Element, Modulation, ModulationGradients, ParamGradients, Params, Rows, RowsMut,
    ScaleIs,
};

/// Layer norm of `x` without gamma and beta, then a scale and a shift of each sample's own:
/// y = (x - mean) / sqrt(var + epsilon) (1 + scale) + shift.
///
/// - `x`: `[samples, ..., features]`, of any float type;
/// - `scale`, `shift`: `[samples, features]`, and `shift` may be `None` (0);
/// - the result has the shape and the type of `x`. Gradients reach `x`, `scale` and `shift`, in one call.
///
/// # Panics
/// Where [`try_adaptive_layer_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::adaptive_layer_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<3>::from_data([[[1.0, 3.0], [5.0, 9.0]], [[1.0, 3.0], [5.0, 9.0]]], &device);
/// let scale = Tensor::<2>::from_data([[0.0, 0.0], [1.0, 1.0]], &device); // the second sample is doubled
/// let y = adaptive_layer_norm(x, scale, None, 0.0);
/// assert_eq!(y.into_data(), [[[-1.0f32, 1.0], [-1.0, 1.0]], [[-2.0, 2.0], [-2.0, 2.0]]].into());
/// ```
#[track_caller]
pub fn adaptive_layer_norm<const D: usize>(
    x: Tensor<D>,
    scale: Tensor<2>,
    shift: impl Into<Option<Tensor<2>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_adaptive_layer_norm(x, scale, shift, epsilon))
}

/// [`adaptive_layer_norm`], with an error where that panics.
///
/// # Errors
/// [`Error::Samples`] if `scale` or `shift` doesn't fit, [`Error::Rank`] if `x` has no axis of samples,
/// [`Error::Quantized`], and [`Error::Kernel`] for an epsilon that is negative or not finite.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, try_adaptive_layer_norm};
///
/// let device = Device::flex();
/// let scale = Tensor::<2>::zeros([3, 4], &device);
/// let error = try_adaptive_layer_norm(Tensor::<3>::zeros([2, 5, 4], &device), scale, None, 1e-6).unwrap_err();
/// assert!(matches!(error, Error::Samples { name: "scale", samples: 2, features: 4, .. }));
/// ```
pub fn try_adaptive_layer_norm<const D: usize>(
    x: Tensor<D>,
    scale: Tensor<2>,
    shift: impl Into<Option<Tensor<2>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    modulated(Adaptive { centred: true }, x, scale, shift.into(), epsilon)
}

/// RMS norm of `x` without gamma, then a scale and a shift of each sample's own. As [`adaptive_layer_norm`].
///
/// # Panics
/// Where [`try_adaptive_rms_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::adaptive_rms_norm;
///
/// let device = Device::flex();
/// let x = Tensor::<2>::from_data([[1.0, 7.0]], &device);
/// let (scale, shift) = (Tensor::<2>::full([1, 2], 4.0, &device), Tensor::<2>::from_data([[0.0, 1.0]], &device));
/// let y = adaptive_rms_norm(x, scale, shift, 0.0);
/// y.into_data().assert_approx_eq::<f32>(&[[1.0, 8.0]].into(), Default::default());
/// ```
#[track_caller]
pub fn adaptive_rms_norm<const D: usize>(
    x: Tensor<D>,
    scale: Tensor<2>,
    shift: impl Into<Option<Tensor<2>>>,
    epsilon: f64,
) -> Tensor<D> {
    or_panic(try_adaptive_rms_norm(x, scale, shift, epsilon))
}

/// [`adaptive_rms_norm`], with an error where that panics.
///
/// # Errors
/// As [`try_adaptive_layer_norm`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::try_adaptive_rms_norm;
///
/// let device = Device::flex();
/// let scale = Tensor::<2>::zeros([1, 4], &device);
/// assert!(try_adaptive_rms_norm(Tensor::<1>::zeros([4], &device), scale, None, 1e-6).is_err());
/// ```
pub fn try_adaptive_rms_norm<const D: usize>(
    x: Tensor<D>,
    scale: Tensor<2>,
    shift: impl Into<Option<Tensor<2>>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    modulated(Adaptive { centred: false }, x, scale, shift.into(), epsilon)
}

fn modulated<const D: usize>(
    norm: Adaptive,
    x: Tensor<D>,
    scale: Tensor<2>,
    shift: Option<Tensor<2>>,
    epsilon: f64,
) -> Result<Tensor<D>, Error> {
    expect_row_of_each("scale", &scale, &x, x.dims().last().copied().unwrap_or(1))?;
    if let Some(shift) = &shift {
        expect_row_of_each("shift", shift, &x, scale.dims()[1])?;
    }
    apply(Operator::new(Kind::Adaptive(norm), epsilon), x, [Some(scale), shift])
}

/// `given` has a row of so many features for each sample of `x`.
fn expect_row_of_each<const D: usize>(
    name: &'static str,
    given: &Tensor<2>,
    x: &Tensor<D>,
    features: usize,
) -> Result<(), Error> {
    let (shape, got) = (x.dims().to_vec(), given.dims().to_vec());
    match shape[..] {
        [samples, _, ..] if got == [samples, features] => Ok(()),
        [samples, _, ..] => Err(Error::Samples { name, got, samples, features, x: shape }),
        _ => Err(Error::Rank { norm: "adaptive", needs: "[samples, ..., features]", x: shape }),
    }
}

/// Configuration of an [`AdaptiveNorm`].
///
/// ```
/// use layernorm_burn::AdaptiveNormConfig;
///
/// let norm = AdaptiveNormConfig::new(64, 16).init(&Default::default());
/// assert_eq!(norm.linear.weight.dims(), [16, 128]);
/// ```
#[derive(Debug, Config)]
pub struct AdaptiveNormConfig {
    /// The number of features: the length of the last axis of the input.
    pub d_model: usize,
    /// The number of features of a condition.
    pub d_condition: usize,
    /// If the norm is layer norm; else it is RMS norm. Default: true
    #[config(default = true)]
    pub centred: bool,
    /// Added to the variance or mean square. Default: 1e-6
    #[config(default = 1e-6)]
    pub epsilon: f64,
}

impl AdaptiveNormConfig {
    /// An [`AdaptiveNorm`] with Burn's usual first weights.
    ///
    /// # Panics
    /// If `epsilon` is negative or not finite.
    #[track_caller]
    pub fn init(&self, device: &Device) -> AdaptiveNorm {
        expect_epsilon(self.epsilon);
        AdaptiveNorm {
            linear: LinearConfig::new(self.d_condition, 2 * self.d_model).init(device),
            d_model: self.d_model,
            centred: self.centred,
            epsilon: self.epsilon,
        }
    }
}

/// A norm whose scale and shift come from a condition of each sample (a time step, a class, a text):
///
/// ```text
/// scale, shift = linear(silu(condition))
/// y = norm(x) (1 + scale) + shift
/// ```
///
/// [Peebles, Xie 2023](https://arxiv.org/abs/2212.09748), section 3.2. The order of the two halves is that of
/// `AdaLayerNormContinuous` in the library Diffusers.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::AdaptiveNormConfig;
///
/// let device = Device::flex();
/// let norm = AdaptiveNormConfig::new(8, 3).init(&device);
/// let y = norm.forward(Tensor::<3>::ones([2, 5, 8], &device), Tensor::<2>::ones([2, 3], &device));
/// assert_eq!(y.dims(), [2, 5, 8]);
/// ```
#[derive(Module, Debug)]
pub struct AdaptiveNorm {
    /// From a condition to scales, then shifts.
    pub linear: Linear,
    d_model: usize,
    centred: bool,
    /// Added to the variance or mean square.
    pub epsilon: f64,
}

impl AdaptiveNorm {
    /// The norm of `input`, modulated by `condition`.
    ///
    /// # Shapes
    /// - input, output: `[samples, ..., d_model]`
    /// - condition: `[samples, d_condition]`
    ///
    /// # Panics
    /// Where [`AdaptiveNorm::try_forward`] gives an error, with its message.
    #[track_caller]
    pub fn forward<const D: usize>(&self, input: Tensor<D>, condition: Tensor<2>) -> Tensor<D> {
        or_panic(self.try_forward(input, condition))
    }

    /// [`AdaptiveNorm::forward`], with an error where that panics.
    ///
    /// # Errors
    /// [`Error::Features`] if the last axis of `input` is not `d_model`, [`Error::Samples`] if `condition` doesn't fit;
    /// else as [`try_adaptive_layer_norm`].
    pub fn try_forward<const D: usize>(
        &self,
        input: Tensor<D>,
        condition: Tensor<2>,
    ) -> Result<Tensor<D>, Error> {
        expect_features(self.d_model, &input)?;
        let [d_condition, _] = self.linear.weight.dims();
        expect_row_of_each("condition", &condition, &input, d_condition)?;
        let both = self.linear.forward(silu(condition));
        let half = |index| both.clone().narrow(1, index * self.d_model, self.d_model);
        modulated(Adaptive { centred: self.centred }, input, half(0), Some(half(1)), self.epsilon)
    }
}

/// The kernels of [`layernorm::ada_layer_norm`] and [`layernorm::ada_rms_norm`]. Saved are the three columns of layer norm,
/// or the one of RMS norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adaptive {
    pub(crate) centred: bool,
}

impl Adaptive {
    /// x_hat from Burn's operations.
    pub(crate) fn x_hat<const D: usize>(self, x: Tensor<D>, eps: f64) -> Tensor<D> {
        if self.centred { layer_norm::x_hat(x, eps) } else { Rms { first: None }.x_hat(x, eps) }
    }
}

fn modulation<'a, P>(
    Params { weight, bias, eps }: Params<'a, P>,
    row: usize,
) -> Result<Modulation<'a, P>, layernorm::Error> {
    let scale = Rows::new(weight.unwrap_or(&[]), row)?;
    let shift = bias.map(|shift| Rows::new(shift, row)).transpose()?;
    Ok(Modulation { scale, shift, scale_is: ScaleIs::AboveOne, eps })
}

fn gradients_of<T>(
    of: ParamGradients<'_, T>,
    row: usize,
) -> Result<Option<ModulationGradients<'_, T>>, layernorm::Error> {
    let ParamGradients { dweight, dbias, accumulate, workspace, .. } = of;
    let rows = |of: Option<_>| of.map(|of| RowsMut::new(of, row)).transpose();
    let (dscale, dshift) = (rows(dweight)?, rows(dbias)?);
    let wanted = dscale.is_some() || dshift.is_some();
    Ok(wanted.then_some(ModulationGradients { dscale, dshift, accumulate, workspace }))
}

impl<E: Element, P: Companion<E>> Kernels<E, P> for Adaptive {
    fn row(&self, shape: &[usize]) -> usize {
        last(shape)
    }

    fn saved(&self, shape: &[usize]) -> usize {
        if self.centred { 3 * rows_of(shape) } else { rows_of(shape) }
    }

    fn forward(&self, call: Forward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Forward { shape, x, params, saved, run, .. } = call;
        let row = last(shape);
        let modulation = modulation(params, row)?;
        match (x.rows(row)?, self.centred) {
            (SourceRows::Apart(x, y), true) => {
                layernorm::ada_layer_norm(x, modulation, y, saved.map(columns_mut), run)
            }
            (SourceRows::Apart(x, y), false) => layernorm::ada_rms_norm(x, modulation, y, saved, run),
            (SourceRows::InPlace(x), true) => {
                layernorm::ada_layer_norm_in_place(x, modulation, saved.map(columns_mut), run)
            }
            (SourceRows::InPlace(x), false) => layernorm::ada_rms_norm_in_place(x, modulation, saved, run),
        }
    }

    fn backward(&self, call: Backward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Backward { shape, x, dy, params, saved, gradients, run, .. } = call;
        let row = last(shape);
        let (x, of, gradients) = (x.rows(row)?, modulation(params, row)?, gradients_of(gradients, row)?);
        match (dy.rows(row)?, self.centred) {
            (UpstreamRows::Apart(dy, dx), centred) => {
                let gradients = AdaGradients { dx, modulation: gradients };
                if centred {
                    layernorm::ada_layer_norm_backward(x, dy, of, Some(columns(saved)), gradients, run)
                } else {
                    layernorm::ada_rms_norm_backward(x, dy, of, Some(saved), gradients, run)
                }
            }
            (UpstreamRows::InPlace(dy), true) => {
                layernorm::ada_layer_norm_backward_in_place(x, dy, of, Some(columns(saved)), gradients, run)
            }
            (UpstreamRows::InPlace(dy), false) => {
                layernorm::ada_rms_norm_backward_in_place(x, dy, of, Some(saved), gradients, run)
            }
        }
    }
}
