//! The report.
pub mod machine;
pub mod model;
pub mod picture;
