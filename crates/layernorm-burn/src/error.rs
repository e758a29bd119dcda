//! What can be wrong with a call.

use burn::tensor::DType;

/// A call that was refused, before anything was computed.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use layernorm_burn::{Error, try_layer_norm};
///
/// let device = Device::flex();
/// let (x, gamma) = (Tensor::<2>::zeros([2, 4], &device), Tensor::<1>::ones([3], &device));
/// let error = try_layer_norm(x, gamma, None, 1e-5).unwrap_err();
/// assert_eq!(error, Error::Parameter { name: "gamma", len: 3, features: 4, x: vec![2, 4] });
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter that holds neither one value for each feature nor one for all.
    #[error(
        "{name} has shape [{len}] and x has shape {x:?}: \
         {name} needs {features} values, one for each feature, or one for all"
    )]
    Parameter {
        /// `gamma` or `beta`.
        name: &'static str,
        /// How many values it holds.
        len: usize,
        /// Features of x: the length of its last axis.
        features: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// A module that was made for another number of features.
    #[error("the norm has {d_model} features and x has shape {x:?}: the last axis of x must be {d_model}")]
    Features {
        /// The features of the module.
        d_model: usize,
        /// The shape of x.
        x: Vec<usize>,
    },
    /// A quantized tensor.
    #[error("x is quantized ({dtype:?}): dequantize it first")]
    Quantized {
        /// The type of x.
        dtype: DType,
    },
    /// What the kernels refuse: an epsilon that is negative or not finite in the type of the computation, or
    /// an instruction-set level that this machine lacks.
    #[error(transparent)]
    Kernel(#[from] layernorm::Error),
}
