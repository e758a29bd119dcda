//! Weight normalization (Salimans, Kingma 2016, arXiv:1602.07868, equation 2): not of activations, but of the weights
//! of each unit:
//!
//! ```text
//! w = gamma v / |v|
//! ```
//!
use crate::Error;
use crate::apply::{apply, or_panic};
use crate::operator::{Backward, Forward, Kernels, Kind, Operator, Source, Upstream};
use crate::qk_norm::reciprocal_length;
use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::Tensor;
use layernorm::{Companion, Element, WeightNormGradients, Workspace};

/// The weights `gamma v / |v|`, with the length |v| of each unit.
///
/// - `v`: `[inputs, units]`, as in Burn's linear layer, of any float type;
/// - `gamma`: a tensor of `[units]`, or of `[1]`;
/// - the result has the shape and the type of `v`. A unit whose `v` is 0 has weights of 0.
///
/// # Panics
/// Where [`try_weight_norm`] gives an error, with its message.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::weight_norm;
///
/// let device = Device::flex();
/// let v = Tensor::<2>::from_data([[0.0, 2.0], [5.0, 0.0]], &device);
/// let gamma = Tensor::<1>::from_data([1.0, 3.0], &device);
/// assert_eq!(weight_norm(v, gamma).into_data(), [[0.0f32, 3.0], [1.0, 0.0]].into());
/// ```
#[track_caller]
pub fn weight_norm(v: Tensor<2>, gamma: Tensor<1>) -> Tensor<2> {
    or_panic(try_weight_norm(v, gamma, 1))
}

/// [`weight_norm`] of a tensor of any shape, with its units on any axis, and with an error where that panics.
///
/// Units of a convolution are on axis 0, `[channels_out, channels_in, ...]`, where the kernel reads them as they lie; on
/// other axes it gathers them.
///
/// # Errors
/// [`Error::Axis`] if `v` has no such axis, [`Error::Units`] if `gamma` doesn't fit, and [`Error::Quantized`].
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::try_weight_norm;
///
/// let device = Device::flex();
/// let v = Tensor::<4>::ones([8, 3, 5, 5], &device);
/// let w = try_weight_norm(v.clone(), Tensor::<1>::full([8], 5.0, &device), 0)?;
/// w.slice([0..1, 0..1, 0..1, 0..1]).into_data().assert_approx_eq::<f32>(
///     &[[[[5.0 / 75f32.sqrt()]]]].into(),
///     Default::default(),
/// );
/// assert!(try_weight_norm(v, Tensor::<1>::ones([8], &device), 1).is_err());
/// # Ok::<(), layernorm_burn::Error>(())
/// ```
pub fn try_weight_norm<const D: usize>(
    v: Tensor<D>,
    gamma: Tensor<1>,
    axis: usize,
) -> Result<Tensor<D>, Error> {
    let shape = v.dims().to_vec();
    let Some(&units) = shape.get(axis) else {
        return Err(Error::Axis { axis, rank: D, v: shape });
    };
    let gamma = match gamma.dims() {
        [len] if len == units => gamma,
        [1] => gamma.expand([units]),
        [len] => return Err(Error::Units { len, units, axis, v: shape }),
    };
    apply(Operator::new(Kind::Weight(Weight { axis }), 0.0), v, [Some(gamma), None])
}

/// What weight norm adds to a parameter, which becomes `v`: the lengths of the units.
///
/// It is one of Burn's reparameterizations, so any model can have it: every matrix in the module that it is applied to
/// is taken for the weights of a linear layer, `[inputs, units]`, and gets a gamma that leaves it as it is.
///
/// ```
/// use burn::module::Module;
/// use burn::nn::LinearConfig;
/// use burn::tensor::Device;
/// use layernorm_burn::WeightNorm;
///
/// let linear = LinearConfig::new(4, 3).init(&Device::flex());
/// let linear = linear.apply_reparameterization(WeightNorm::everywhere());
/// let gamma = &linear.weight.reparameterization::<WeightNorm>().unwrap().gamma;
/// assert_eq!(gamma.dims(), [3]);
/// ```
#[derive(Module, Debug)]
pub struct WeightNorm {
    /// The length of each unit's weights.
    pub gamma: Param<Tensor<1>>,
}

impl WeightNorm {
    /// For [`Module::apply_reparameterization`].
    ///
    /// ```
    /// use burn::module::Module;
    /// use burn::nn::LinearConfig;
    /// use layernorm_burn::WeightNorm;
    ///
    /// let linear = LinearConfig::new(4, 3).init(&Default::default());
    /// let normed = linear.clone().apply_reparameterization(WeightNorm::everywhere());
    /// assert_eq!(normed.num_params(), linear.num_params() + 3);
    /// ```
    pub fn everywhere() -> impl Reparameterizer<Reparam = Self> {
        Everywhere
    }
}

impl Reparameterization for WeightNorm {
    const NAME: &'static str = "weight_norm";

    fn apply<const D: usize>(&self, v: Tensor<D>) -> Tensor<D> {
        or_panic(try_weight_norm(v, self.gamma.val(), D - 1))
    }
}

struct Everywhere;

impl Reparameterizer for Everywhere {
    type Reparam = WeightNorm;

    fn reparameterize<const D: usize>(
        &mut self,
        _: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<WeightNorm>) {
        if D != 2 {
            return (param, None);
        }
        let lengths = param.val().square().sum_dim(0).sqrt().flatten(0, 1);
        (param, Some(WeightNorm { gamma: Param::from_tensor(lengths.detach()) }))
    }
}

/// The kernels of [`layernorm::weight_norm`]. The whole tensor is one row. Saved is the reciprocal length of each unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight {
    /// The axis of the units.
    pub(crate) axis: usize,
}

impl Weight {
    fn of<'a, P>(self, shape: &'a [usize], params: layernorm::Params<'a, P>) -> layernorm::WeightNorm<'a, P> {
        layernorm::WeightNorm { gain: params.weight.unwrap_or(&[]), shape, axis: self.axis }
    }

    /// v / |v| from Burn's operations. The squares must fit the type.
    pub(crate) fn x_hat<const D: usize>(self, v: Tensor<D>) -> Tensor<D> {
        let others = (0..D).filter(|axis| *axis != self.axis);
        let squares = others.fold(v.clone().square(), |squares, axis| squares.sum_dim(axis));
        v * reciprocal_length(squares, 0.0)
    }
}

impl<E: Element, P: Companion<E>> Kernels<E, P> for Weight {
    fn row(&self, shape: &[usize]) -> usize {
        shape.iter().product()
    }

    fn takes_gaps(&self) -> bool {
        false
    }

    fn takes_one_memory(&self) -> bool {
        false
    }

    fn saved(&self, shape: &[usize]) -> usize {
        shape[self.axis]
    }

    fn forward(&self, call: Forward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Forward { shape, x, params, saved, run, .. } = call;
        match x {
            Source::Apart(v, w) => {
                let of = self.of(shape, params);
                layernorm::weight_norm(v.values(), of, w, saved, &mut Workspace::new(), run)
            }
            Source::InPlace(_) => unreachable!("it doesn't take one memory"),
        }
    }

    fn backward(&self, call: Backward<'_, E, P>) -> Result<(), layernorm::Error> {
        let Backward { shape, x, dy, params, saved, gradients, run, .. } = call;
        match dy {
            Upstream::Apart(dw, dv) => {
                let (dgain, workspace) = (gradients.dweight, gradients.workspace);
                let (of, wanted) = (self.of(shape, params), WeightNormGradients { dv, dgain, workspace });
                layernorm::weight_norm_backward(x.values(), dw.values(), of, Some(saved), wanted, run)
            }
            Upstream::InPlace(_) => unreachable!("it doesn't take one memory"),
        }
    }
}
