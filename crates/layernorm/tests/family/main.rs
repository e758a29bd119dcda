//! The rest of the family, operator by operator, against the reference and against each other.

mod axes;
mod group;
mod silu;
mod tools;
