//! What the studies train: models with a choice of normalization, and the loop that trains them.

pub mod adam;
pub mod fit;
pub mod mlp;
pub mod norm;
pub mod train;
pub mod unbiased;
pub mod weights;
