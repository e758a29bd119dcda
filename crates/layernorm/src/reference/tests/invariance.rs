//! Table 1 of the paper, with RMS norm added: what each method does not notice, and what it does.
//!
//! Summed inputs are `a = X W^T`, a row of `X` a case, a row of `W` a unit. `eps` is 0 and nothing is added
//! before the norm; weight norm stands for `W` normalised, its output being the summed inputs.

use super::super::*;
use super::{distance, numbers};

const CASES: usize = 6;
const INPUTS: usize = 4;
const UNITS: usize = 5;

type Method = fn(x: &[f64], w: &[f64]) -> Vec<f64>;

fn summed_inputs(x: &[f64], w: &[f64]) -> Vec<f64> {
    let product = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum();
    x.chunks(INPUTS).flat_map(|x| w.chunks(INPUTS).map(move |w| product(x, w))).collect()
}

fn batch(x: &[f64], w: &[f64]) -> Vec<f64> {
    let shape = Nchw { batch: CASES, channels: UNITS, positions: 1 };
    batch_norm_train(&summed_inputs(x, w), shape, Affine::NONE, 0.0).y
}

fn weight(x: &[f64], w: &[f64]) -> Vec<f64> {
    summed_inputs(x, &weight_norm(w, &[1.0; UNITS]).w)
}

fn layer(x: &[f64], w: &[f64]) -> Vec<f64> {
    layer_norm(&summed_inputs(x, w), UNITS, Affine::NONE, 0.0).y
}

fn rms(x: &[f64], w: &[f64]) -> Vec<f64> {
    rms_norm(&summed_inputs(x, w), UNITS, Affine::NONE, 0.0).y
}

fn partial_rms(x: &[f64], w: &[f64]) -> Vec<f64> {
    partial_rms_norm(&summed_inputs(x, w), UNITS, 2, Affine::NONE, 0.0).y
}

/// One column of the table: what is done to the cases and to the weights.
fn changed(column: usize, x: &[f64], w: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut x, mut w) = (x.to_vec(), w.to_vec());
    let direction = numbers(3, INPUTS);
    match column {
        0 => w.iter_mut().for_each(|w| *w *= 3.0),
        1 => w.iter_mut().enumerate().for_each(|(i, w)| *w = 3.0 * *w + direction[i % INPUTS]),
        2 => w[..INPUTS].iter_mut().for_each(|w| *w *= 3.0),
        3 => x.iter_mut().for_each(|x| *x *= 3.0),
        4 => x.iter_mut().enumerate().for_each(|(i, x)| *x += direction[i % INPUTS]),
        _ => x[..INPUTS].iter_mut().for_each(|x| *x *= 3.0),
    }
    (x, w)
}

#[test]
fn the_invariance_table() {
    const COLUMNS: [&str; 6] = [
        "weight matrix scale",
        "weight matrix recentre",
        "weight vector scale",
        "dataset scale",
        "dataset recentre",
        "one case's scale",
    ];
    let table: [(&str, Method, [bool; 6]); 5] = [
        ("batch", batch, [true, false, true, true, true, false]),
        ("weight", weight, [true, false, true, false, false, false]),
        ("layer", layer, [true, true, false, true, false, true]),
        ("rms", rms, [true, false, false, true, false, true]),
        ("partial rms", partial_rms, [true, false, false, true, false, true]),
    ];
    let (x, w) = (numbers(1, CASES * INPUTS), numbers(2, UNITS * INPUTS));
    for (name, method, invariant) in table {
        let before = method(&x, &w);
        for (column, invariant) in invariant.into_iter().enumerate() {
            let (x, w) = changed(column, &x, &w);
            let moved = distance(&method(&x, &w), &before);
            let held = if invariant { moved < 1e-12 } else { moved > 1e-2 };
            assert!(held, "{name} norm, {}: moved by {moved:e}, expected {invariant}", COLUMNS[column]);
        }
    }
}

#[test]
fn one_case_never_moves_another_but_in_batch_norm() {
    let (x, w) = (numbers(1, CASES * INPUTS), numbers(2, UNITS * INPUTS));
    let (scaled, _) = changed(5, &x, &w);
    for method in [layer, rms, partial_rms, weight] {
        assert_eq!(method(&x, &w)[UNITS..], method(&scaled, &w)[UNITS..]);
    }
    assert!(distance(&batch(&x, &w)[UNITS..], &batch(&scaled, &w)[UNITS..]) > 1e-2);
}
