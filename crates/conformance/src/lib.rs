//! One conformance test for all integrations: the cases are defined once, and whatever framework runs them must give the
//! bits of the kernels on slices.
//!
//! A framework implements [`Backend`] for each of the four [`Number`] types, and its test asserts what the [`Report`] of
//! [`run`] says:
//!
//! ```
//! use layernorm_conformance::{Backend, Case, Failure, Name, Number, Operator, Outputs, run, unsupported};
//!
//! /// It knows that a length of zeros gives zeros, and nothing else.
//! struct Lazy;
//!
//! impl<E: Number> Backend<E> for Lazy {
//!     fn run(&self, case: &Case<E>) -> Result<Outputs<E>, Failure> {
//!         match case.operator {
//!             Operator::L2Norm => Ok(Outputs::new().lacking(Name::Dx, "no gradients").own(Name::Y, case.x.clone())),
//!             _ => Err(unsupported("not written yet")),
//!         }
//!     }
//! }
//!
//! let report = run(&Lazy);
//! assert!(!report.differences.is_empty()); // of lengths that are not zero
//! assert!(report.unsupported.contains_key("dx: no gradients"));
//! ```
//!
//! # Files
//! `case.rs` is what a framework is given, `outputs.rs` what it gives back, `backend.rs` how it is asked and `report.rs` what
//! came of it. `cases.rs` is the list, of numbers that `data.rs` makes; `expected/` asks the kernels; `number.rs` has
//! the types and what "the same bits" means. `migrating.rs` reads the table of docs/migrating.md for tests.

mod backend;
mod case;
mod cases;
mod data;
mod expected;
pub mod migrating;
mod number;
mod outputs;
mod report;

pub use backend::{Backend, Failure, run, unsupported};
pub use case::{Affine, Case, Mode, Operator, Parameters, Stream};
pub use cases::cases;
pub use data::Data;
pub use number::{Float, Number, same_bits};
pub use outputs::{Name, Outputs, Values};
pub use report::Report;

/// The code of the repository's README.md, run as a test: here, because the file is not in the package of the kernels.
#[doc = include_str!("../../../README.md")]
#[cfg(doctest)]
struct Readme;
