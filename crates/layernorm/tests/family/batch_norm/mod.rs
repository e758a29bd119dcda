//! Batch norm: against [`layernorm::reference`] within the bounds, against a naive implementation bit for bit.

pub(crate) mod accuracy;
mod bits;
mod conventions;
mod gradients;
pub(crate) mod naive;
pub(crate) mod problem;
mod ranks;
mod refused;
mod special;
