//! Weight normalization (Salimans, Kingma 2016, arXiv:1602.07868, equation 2): not of activations, but of the weights
//! of each unit:
//!
//! ```text
//! w = gamma v / |v|
//! ```
//!
//! Composed from Burn's operations; kernels follow. The squares of `v` must fit its type.

use crate::affine::affine;
use crate::scale_norm::reciprocal_length;
use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::Tensor;

/// The weights `gamma v / |v|`, with the length |v| of each unit.
///
/// - `v`: `[inputs, units]`, as in Burn's linear layer, of any float type;
/// - `gamma`: a tensor of `[units]`, or of `[1]`;
/// - the result has the shape and the type of `v`. A unit whose `v` is 0 has weights of 0.
///
/// # Panics
/// If `gamma` doesn't fit.
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
    of_columns(v, gamma)
}

#[track_caller]
fn of_columns<const D: usize>(v: Tensor<D>, gamma: Tensor<1>) -> Tensor<D> {
    affine(v.clone() * reciprocal_length(v, 0, 0.0), D - 1, Some(gamma), None)
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
        of_columns(v, self.gamma.val())
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
