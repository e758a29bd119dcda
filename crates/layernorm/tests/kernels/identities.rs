//! What must hold between results, whatever the truth is.

use crate::case::{Case, Norm};
use crate::level::{Effort, at, levels};
use crate::number::{Number, Stored, Value, difference, power_of_two};
use crate::random::Random;
use crate::rows::{self, Shape};

for_all!(layer_norm_of_a_centred_row_is_its_rms_norm, the_negative_row_gives_the_negative_norm);

mod with_all_digits {
    use super::*;
    for_both!(
        dx_is_orthogonal_to_what_changes_nothing,
        a_power_of_two_changes_no_bit,
        a_shift_stays_within_the_bound,
    );
}

fn lengths() -> Vec<usize> {
    Effort::of(vec![8], vec![8, 300], vec![2, 8, 31, 64, 300, 1000, 4096])
}

/// A row without its last digits, so that a shift by a power of two is exact.
fn coarse<T: Value>(random: &mut Random, n: usize) -> Vec<T> {
    (0..n).map(|_| T::of((random.normal() * 256.0).round() / 64.0)).collect()
}

/// The mean is exactly 0, so m = c = 0 and each formula is the other one.
fn layer_norm_of_a_centred_row_is_its_rms_norm<T: Stored>() {
    let mut random = Random::new(51);
    for n in lengths() {
        let half = coarse::<T>(&mut random, n / 2);
        let x: Vec<T> = half.iter().copied().chain(half.iter().map(|x| -*x)).collect();
        let layer = Case::new(Norm::Layer, x.clone(), x.len(), &mut random);
        let rms = Case { norm: Norm::Rms, ..layer.clone() };
        for level in levels() {
            let (layer, rms) = (layer.run(at(level)), rms.run(at(level)));
            assert_eq!(difference("y", &layer.y, &rms.y), None, "N {n}");
            assert_eq!(difference("rstd", &layer.rstd, &rms.rstd), None, "N {n}");
        }
    }
}

/// A shift, and without eps a scale too, change no y; so dx has no part along them.
fn dx_is_orthogonal_to_what_changes_nothing<T: Number + Stored<Acc = T>>() {
    let mut random = Random::new(52);
    for (n, shape) in lengths().into_iter().flat_map(|n| Shape::some().iter().map(move |shape| (n, shape))) {
        for norm in Norm::BOTH {
            let row = shape.row(&mut random, n);
            let case =
                Case::new(norm, rows::rounded::<T>(&rows::with_mean(&mut random, row, 3.0)), n, &mut random);
            let case = Case { eps: 0.0, ..case };
            for level in levels() {
                let got = case.run(at(level));
                let weight = crate::oracle::spread(&case.weight, 1.0, n);
                let largest =
                    weight.iter().zip(&case.dy).fold(0.0, |max: f64, (w, dy)| max.max((w * dy.wide()).abs()));
                let unit = 16.0 * T::UNIT_ROUNDOFF * got.rstd[0].wide() * largest * n as f64;
                let dx = || got.dx.iter().map(|dx| dx.wide());
                let centre = if norm == Norm::Layer { got.m[0].wide() + got.c[0].wide() } else { 0.0 };
                let x_hat = || case.x.iter().map(|x| (x.wide() - centre) * got.rstd[0].wide());
                let most = x_hat().fold(1.0, |max: f64, x_hat| max.max(x_hat.abs()));
                if norm == Norm::Layer {
                    let along_ones = dx().sum::<f64>().abs();
                    assert!(along_ones <= unit * most, "{shape:?} N {n}: sum(dx) = {along_ones}");
                }
                let along_x_hat = dx().zip(x_hat()).map(|(dx, x_hat)| dx * x_hat).sum::<f64>().abs();
                assert!(along_x_hat <= unit * most * most, "{shape:?} N {n}: sum(dx x_hat) = {along_x_hat}");
            }
        }
    }
}

/// x 2^k, without eps: the same y to the bit, statistics and dx scaled to the bit.
fn a_power_of_two_changes_no_bit<T: Number + Stored<Acc = T>>() {
    let mut random = Random::new(53);
    for (n, norm) in lengths().into_iter().flat_map(|n| Norm::BOTH.map(|norm| (n, norm))) {
        let x = coarse::<T>(&mut random, n);
        let case = Case { eps: 0.0, ..Case::new(norm, x, n, &mut random) };
        for level in levels() {
            let plain = case.run(at(level));
            for k in [-20, -1, 1, 20] {
                let factor = power_of_two(k);
                let times =
                    |numbers: &[T], by: f64| -> Vec<T> { numbers.iter().map(|x| *x * T::of(by)).collect() };
                let scaled = Case { x: times(&case.x, factor), ..case.clone() }.run(at(level));
                assert_eq!(difference("y", &scaled.y, &plain.y), None, "N {n}, 2^{k}");
                assert_eq!(
                    difference("dx", &scaled.dx, &times(&plain.dx, 1.0 / factor)),
                    None,
                    "N {n}, 2^{k}"
                );
                assert_eq!(
                    difference("rstd", &scaled.rstd, &times(&plain.rstd, 1.0 / factor)),
                    None,
                    "N {n}, 2^{k}"
                );
                assert_eq!(difference("m", &scaled.m, &times(&plain.m, factor)), None, "N {n}, 2^{k}");
            }
        }
    }
}

fn a_shift_stays_within_the_bound<T: Number + Stored<Acc = T>>() {
    let mut random = Random::new(54);
    for n in lengths() {
        let x = coarse::<T>(&mut random, n);
        let case = Case { eps: 0.0, weight: None, bias: None, ..Case::new(Norm::Layer, x, n, &mut random) };
        for level in levels() {
            let plain = case.run(at(level)).y;
            for shift in [1.0, -64.0, 4096.0] {
                let x = case.x.iter().map(|x| *x + T::of(shift)).collect();
                let shifted = Case { x, ..case.clone() }.run(at(level)).y;
                for (plain, shifted) in plain.iter().zip(shifted) {
                    let (error, one) = ((plain.wide() - shifted.wide()).abs(), plain.wide().abs().max(1.0));
                    assert!(error <= 18.0 * T::UNIT_ROUNDOFF * one, "N {n}, {shift}: {plain} and {shifted}");
                }
            }
        }
    }
}

/// Rounding is symmetric; only zeros may differ in their sign.
fn the_negative_row_gives_the_negative_norm<T: Stored>() {
    let mut random = Random::new(55);
    for (n, norm) in lengths().into_iter().flat_map(|n| Norm::BOTH.map(|norm| (n, norm))) {
        let x: Vec<T> = rows::rounded(&Shape::Lognormal.row(&mut random, n));
        let case = Case { bias: None, ..Case::new(norm, x, n, &mut random) };
        let negative = Case { x: case.x.iter().map(|x| -*x).collect(), ..case.clone() };
        for level in levels() {
            let (y, negative) = (case.run(at(level)).y, negative.run(at(level)).y);
            assert!(y.iter().zip(&negative).all(|(y, negative)| *y == -*negative), "{norm:?} N {n}");
        }
    }
}
