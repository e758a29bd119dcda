//! Batch norm: against [`layernorm::reference`] within the bounds, against a naive implementation bit for bit.

mod accuracy;
mod bits;
mod conventions;
mod gradients;
mod naive;
mod problem;
mod ranks;
mod refused;
mod special;
