//! Every public function meets every argument that can be wrong: it is refused by an error that carries the numbers, and
//! nothing is written before.
//!
//! The functions are in tables: [`rows`], [`residuals`], [`tensors`] and [`batches`]. A line says which arguments can be wrong and
//! how the function is called; [`call`] has the arguments. A function of `lib.rs` that no table names is a failure. Errors
//! to the letter, and what only one function can be told wrongly, stand in the tests of the families.
//!
//! Two arguments can't share memory: the borrow checker refuses that. Where strides could make numbers of one tensor share
//! it, the functions over axes refuse them (`tests/family/axes.rs`).

#![allow(clippy::missing_assert_message, reason = "in helpers too, the values say what went wrong")]

mod batches;
mod call;
mod residuals;
mod rows;
mod tensors;

use call::{Call, Entry, SENTINEL, Wrong};
use layernorm::{Error, Level, Run};
use std::collections::BTreeSet;

fn entries() -> impl Iterator<Item = &'static Entry> {
    let residuals = residuals::TABLES.into_iter().flatten();
    let tensors = tensors::TABLES.into_iter().flatten();
    rows::TABLE.iter().chain(residuals).chain(tensors).chain(batches::TABLE)
}

/// Calls with this argument wrong; what is refused has written nothing.
fn refused(entry: &Entry, wrong: Wrong) -> Error {
    let mut call = Call::new(entry, wrong);
    let error = match (entry.call)(&mut call) {
        Err(error) => error,
        Ok(()) => panic!("{} takes {wrong:?}", entry.name),
    };
    assert!(call.untouched(), "{} wrote before it refused {wrong:?}: {error}", entry.name);
    error
}

fn numbers(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty()).collect()
}

#[test]
fn what_is_right_is_taken() {
    for entry in entries() {
        assert_eq!((entry.call)(&mut Call::new(entry, Wrong::Nothing)), Ok(()), "{}", entry.name);
    }
}

/// One number (of what has rows, one row) too few, one too many, none, and twice as many.
#[test]
fn wrong_lengths() {
    for entry in entries() {
        for argument in entry.lengths {
            let (right, step) = Call::length(entry, argument);
            let wrong = match *argument {
                // Any samples that divide the six rows are right.
                "gate" => vec![0, 4 * step, 5 * step],
                _ => vec![right - step, right + step, 0, 2 * right],
            };
            // One number is a shared parameter.
            for got in wrong.into_iter().filter(|got| *got != 1) {
                let error = refused(entry, Wrong::Length(argument, got));
                let text = error.to_string();
                let of = numbers(&text);
                let carried = of.contains(&*got.to_string()) || of.contains(&*(got / step).to_string());
                assert!(
                    carried && of.len() >= 2,
                    "{}: {argument} of {got} where {right}: {text:?}",
                    entry.name
                );
            }
        }
    }
}

#[test]
fn wrong_epsilons() {
    for entry in entries().filter(|entry| entry.eps) {
        for eps in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-300, -1.0, 3.5e38] {
            let error = refused(entry, Wrong::Eps(eps));
            let Error::Epsilon { eps: got, max } = error else { panic!("{}: {error}", entry.name) };
            assert_eq!((got.to_bits(), max), (eps.to_bits(), f32::MAX.into()), "{}", entry.name);
        }
    }
}

#[test]
fn levels_that_are_not_here() {
    for asked in Level::ALL.into_iter().filter(|level| !level.is_available()) {
        for entry in entries().filter(|entry| entry.runs) {
            let error = refused(entry, Wrong::Run(Run::default().with_level(asked)));
            assert_eq!(error, Error::Level { asked, best: Level::best() }, "{}", entry.name);
        }
    }
}

/// Groups that do not divide the channels, an axis that is not there, shapes that no memory holds, rows beyond the last
/// index, and the like.
#[test]
fn wrong_numbers() {
    for entry in entries() {
        for number in entry.numbers {
            for got in number.wrong() {
                let text = refused(entry, Wrong::Number(*number, *got)).to_string();
                assert!(
                    numbers(&text).contains(&*got.to_string()),
                    "{}: {number:?} {got}: {text:?}",
                    entry.name
                );
            }
        }
    }
}

/// The functions that `lib.rs` makes public are those of the tables.
#[test]
fn no_function_is_forgotten() {
    let text = include_str!("../../src/lib.rs");
    let mut public = BTreeSet::new();
    for list in text.split("\npub use ").skip(1) {
        let names = list.split(';').next().unwrap_or_default();
        let names = names.rsplit("::").next().unwrap_or_default();
        let names = names.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        public.extend(names.filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase())));
    }
    let mut tables = BTreeSet::new();
    for entry in entries() {
        assert!(tables.insert(entry.name), "{} is there twice", entry.name);
    }
    assert_eq!(public, tables);
    assert!(public.len() > 80, "{}", public.len());
}

/// A test that finds nothing is none: a function that writes first is found out, and so is one that takes anything.
#[test]
#[should_panic(expected = "wrote before it refused")]
fn a_function_that_writes_first_is_found_out() {
    let hasty = Entry {
        name: "hasty",
        call: |of| {
            of.y.fill(SENTINEL + 1.0);
            (rows::TABLE[0].call)(of)
        },
        ..rows::TABLE[0]
    };
    refused(&hasty, Wrong::Eps(-1.0));
}
