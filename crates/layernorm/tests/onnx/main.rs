//! The node tests of ONNX 1.22.0 for its normalization operators: all 53, against reference and kernels.
//!
//! `cases.txt` holds them, written by `extract.py` from the `onnx` package. The 53 are the models of one node
//! that is a `LayerNormalization` or an `RMSNormalization` (19 each), an `LpNormalization` (6), a
//! `BatchNormalization` (4, of which 2 in training), an `InstanceNormalization` or a `GroupNormalization` (2
//! each) or a `MeanVarianceNormalization` (1). Their 61 `_expanded` and `_expanded_ver18` twins are not among
//! them: they hold the same numbers, for a graph of elementary operators.
//!
//! ONNX allows 1e-3 relative and 1e-7 absolute. Here errors are told in u = 2^-24 of a unit that
//! [`reference::Output`] defines, and what is allowed is a thousandth of that: [`OF_ONNX`] and [`OF_F32`].
//!
//! [`kernels::kernel`] says which operators have kernels, and why one has none yet. To see it, and the
//! errors: `cargo test -p layernorm --test onnx -- --nocapture`.

// They take no way through the unsafe code that other tests don't take, and Miri would take minutes to read
// them.
#![cfg(not(miri))]

mod case;
mod kernels;
mod reference;

use case::{Case, Operator, cases};
use kernels::{Kernel, kernel};

const U: f64 = (f32::EPSILON / 2.0) as f64;

/// How far ONNX's numbers may be from the truth, in u. They come from numpy in f32, with sums of up to 120
/// numbers. Seen are 4.33 in mean-variance norm, where E[x^2] - E[x]^2 costs digits, and 3.66 elsewhere. The
/// file and the reference never change, so there is no need for more.
const OF_ONNX: f64 = 5.0;

/// What a kernel in f32 may add: 8 for the statistics and 1 for the last rounding, the promise of section 9
/// of `docs/numerics.md`. One in f64 adds nothing that shows here.
const OF_F32: f64 = 9.0;

/// The largest error of a case, in u of the unit.
fn worst(case: &Case, got: &[Vec<f64>]) -> f64 {
    let want = reference::run(case);
    assert_eq!(got.len(), case.outputs.len(), "{}: outputs", case.name);
    let mut worst = 0.0_f64;
    for ((got, want), onnx) in got.iter().zip(&want).zip(&case.outputs) {
        assert_eq!(got.len(), onnx.values.len(), "{}: numbers in {}", case.name, onnx.name);
        for ((got, onnx), unit) in got.iter().zip(&onnx.values).zip(&want.units) {
            let error = (got - f64::from(*onnx)).abs();
            // Where the unit is 0, as in a line of zeros, only 0 is right.
            let error = if error == 0.0 { 0.0 } else { error / (U * unit) };
            // `max` drops a NaN, which is no result.
            worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        }
    }
    worst
}

/// Runs each case of an operator; gives how many there are, and the largest error.
#[track_caller]
fn check(operator: Operator, allowed: f64, run: impl Fn(&Case) -> Vec<Vec<f64>>) -> (usize, f64) {
    let cases: Vec<Case> = cases().into_iter().filter(|case| case.operator == operator).collect();
    let errors = cases.iter().map(|case| {
        let error = worst(case, &run(case));
        assert!(error <= allowed, "{}: off by {error:.2} u, allowed are {allowed} u", case.name);
        error
    });
    (cases.len(), errors.fold(0.0, f64::max))
}

#[test]
fn the_file_has_the_53_cases() {
    let cases = cases();
    assert_eq!(cases.len(), 53, "cases in the file");
    let count = |operator| cases.iter().filter(|case| case.operator == operator).count();
    assert_eq!(Operator::ALL.map(count), [19, 19, 2, 2, 2, 2, 3, 3, 1], "{:?}", Operator::ALL);
}

#[test]
fn the_reference_agrees_with_onnx() {
    let mut ran = 0;
    for operator in Operator::ALL {
        let (cases, error) = check(operator, OF_ONNX, |case| {
            let outputs = reference::run(case);
            for (output, onnx) in outputs.iter().zip(&case.outputs) {
                assert_eq!(output.shape, onnx.shape, "{}: shape of {}", case.name, onnx.name);
            }
            outputs.into_iter().map(|output| output.values).collect()
        });
        println!("{operator:?}: {cases} cases, reference within {error:.2} u");
        ran += cases;
    }
    assert_eq!(ran, 53, "cases that ran");
}

#[test]
fn the_kernels_agree_with_onnx() {
    let mut ran = 0;
    for operator in Operator::ALL {
        let Kernel { in_f32, in_f64 } = kernel(operator);
        let (cases, of_f32) = check(operator, OF_ONNX + OF_F32, in_f32);
        let (_, of_f64) = check(operator, OF_ONNX, in_f64);
        println!("{operator:?}: {cases} cases, f32 within {of_f32:.2} u, f64 within {of_f64:.2} u");
        ran += cases;
    }
    assert_eq!(ran, 53, "cases that ran");
}
