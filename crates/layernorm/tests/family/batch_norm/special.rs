//! Channels out of their type's range, constant channels, NaN and infinity; empty batches.

use super::accuracy::{errors, in_f64};
use super::problem::{Base, Kind, Problem, Random, Which, assert_bits, assert_same, at, ways};
use layernorm::reference::{self, Affine};
use layernorm::{Convention, Level, RunningStats};

/// Scale channels to all ends of the range.
fn scale<E: Kind>(of: &mut Problem<E>, factors: &[f64]) {
    for channel in 0..of.channels {
        for place in of.places(channel) {
            of.x[place] = E::of(of.x[place].wide() * factors[channel % factors.len()]);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn channels_at_the_ends_of_the_range_stay_within_the_bounds() {
    let mut random = Random(6);
    let factors = [1.0, 1e-30, 1e30, 1e37, 1e-38, 1e-40, 2.0];
    for last in [false, true] {
        for shape in [[19, 23, 5], [40, 9, 1], [3, 17, 70]] {
            let mut problem = Problem::<f32>::new(last, shape, &mut random);
            for eps in [0.0, 1e-5, 1e30] {
                problem.eps = eps;
                problem.x = random.normals(problem.x.len());
                scale(&mut problem, &factors);
                // So that dx fits its type, and the gradients of parameters too.
                problem.dy = (0..problem.x.len()).map(|_| (random.normal() * 1e-3) as f32).collect();
                let expected = problem.run(at(Level::best()));
                let worst = errors(&problem, &expected);
                let n = (shape[0] * shape[2]) as f64;
                assert!(worst[0] <= 8.0 && worst[1] <= 16.0 && worst[2] <= 16.0 + n.log2(), "{worst:?}");
                for (way, how) in ways() {
                    assert_same(
                        &format!("{shape:?}, last {last}, eps {eps}, {way}"),
                        &problem.run(how),
                        &expected,
                    );
                }
            }
        }
    }
}

/// What is kept of them: for the backward pass, which takes its own, this is not seen in any gradient.
#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn statistics_at_the_ends_of_the_range_are_kept() {
    let mut random = Random(10);
    for (last, shape) in [false, true].into_iter().flat_map(|last| [(last, [19, 23, 5]), (last, [3, 17, 70])])
    {
        let mut problem = Problem::<f32>::new(last, shape, &mut random);
        problem.eps = 0.0;
        problem.x = random.normals(problem.x.len());
        problem.x.iter_mut().for_each(|x| *x += 3.0);
        scale(&mut problem, &[1.0, 1e-30, 1e30, 1e37, 1e-37, 1e17]);
        let (of_all, [x, ..]) = in_f64(&problem);
        let exact = reference::batch_norm_train(&x, of_all, Affine::NONE, 0.0);
        let unbiased = exact.count as f64 / (exact.count - 1) as f64;
        for level in Level::available() {
            let mut running = RunningStats::<f32>::new(problem.channels);
            let saved = problem.train(running.as_mut(Convention::PyTorch { momentum: Some(1.0) }), level);
            for k in 0..problem.channels {
                let near = |what: &str, got: f64, exact: f64, measure: f64| {
                    // Of numbers too large for f32, infinity, and of too small ones what is left.
                    let same = got == f64::from(exact as f32) && (exact as f32).is_infinite();
                    let within = (got - exact).abs() <= 8.0 * f32::U * measure + 2f64.powi(-149);
                    assert!(same || within, "{what} of {k}: {got} for {exact}, {level}, last {last}");
                };
                let (mean, var) = (exact.mean[k], exact.var[k]);
                let spread = mean.abs().max(var.sqrt());
                near("mean", f64::from(saved.m[k]) + f64::from(saved.c[k]), mean, spread);
                near("rstd", f64::from(saved.rstd[k]), exact.rstd[k], exact.rstd[k]);
                near("running mean", f64::from(running.mean[k]), mean, spread);
                near("running var", f64::from(running.var[k]), var * unbiased, var * unbiased);
            }
        }
    }
}

#[test]
fn masked_channels_out_of_range_are_those_of_the_valid_alone() {
    let mut random = Random(7);
    for last in [false, true] {
        let mut short = Problem::<f32>::new(last, [5, 4, 6], &mut random);
        scale(&mut short, &[1e30, 1.0, 1e-30, 1e38]);
        let mut long = Problem { positions: 9, which: Which::Lengths(vec![6; 5]), ..short.clone() };
        long.x = vec![f32::NAN; 5 * 4 * 9];
        long.dy = vec![0.0; 5 * 4 * 9];
        for (sample, channel) in (0..5).flat_map(|n| (0..4).map(move |k| (n, k))) {
            for position in 0..6 {
                let (from, to) = (short.at(sample, channel, position), long.at(sample, channel, position));
                (long.x[to], long.dy[to]) = (short.x[from], short.dy[from]);
            }
        }
        let (short_got, long_got) = (short.run(at(Level::best())), long.run(at(Level::best())));
        if !last {
            assert_bits("m", &short_got.saved.m, &long_got.saved.m);
            assert_bits("rstd", &short_got.saved.rstd, &long_got.saved.rstd);
        }
        for (sample, channel) in (0..5).flat_map(|n| (0..4).map(move |k| (n, k))) {
            for position in 0..6 {
                let at = [short.at(sample, channel, position), long.at(sample, channel, position)];
                let [left, right] = [short_got.y[at[0]], long_got.y[at[1]]];
                assert!((left - right).abs() <= 1e-5 * left.abs().max(1.0), "{left} {right}");
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn a_constant_channel_gives_the_bias() {
    let mut random = Random(8);
    for last in [false, true] {
        for eps in [0.0, 1e-5] {
            let mut problem = Problem::<f32>::new(last, [13, 6, 7], &mut random);
            problem.eps = eps;
            problem.bias = Some(random.normals(6));
            for channel in 0..6 {
                let constant = [0.0, 0.1, 1e30, 1e-40, 123_456.7, -3.3][channel];
                problem.places(channel).into_iter().for_each(|place| problem.x[place] = constant);
            }
            for (way, how) in ways() {
                let got = problem.run(how);
                for channel in 0..6 {
                    for place in problem.places(channel) {
                        assert_eq!(got.y[place], problem.bias.as_ref().unwrap()[channel], "{way}, {channel}");
                        assert!(eps > 0.0 || got.dx[place] == 0.0, "{way}, {channel}");
                    }
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn nan_and_infinity_stay_in_their_channel() {
    let mut random = Random(9);
    for last in [false, true] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut problem = Problem::<f32>::new(last, [11, 19, 3], &mut random);
            problem.weight = Some(random.normals(19));
            problem.bias = None;
            let clean = problem.run(at(Level::best()));
            let place = problem.at(4, 7, 1);
            problem.x[place] = bad;
            for (way, how) in ways() {
                let got = problem.run(how);
                for channel in 0..19 {
                    for place in problem.places(channel) {
                        let same = got.y[place].to_bits() == clean.y[place].to_bits()
                            && got.dx[place].to_bits() == clean.dx[place].to_bits();
                        assert!(if channel == 7 { got.y[place].is_nan() } else { same }, "{way}, {channel}");
                    }
                    assert!(
                        channel == 7 || got.dweight[channel].to_bits() == clean.dweight[channel].to_bits()
                    );
                }
            }
        }
    }
}

#[test]
fn of_no_samples_evaluation_is_nothing() {
    use layernorm::{Batch, BatchMut, Params, Rows, RowsMut, Run, RunningStats, Workspace, batch_norm_eval};
    let x = Batch::channels_first(Rows::<f32>::new(&[], 12).unwrap(), 3).unwrap();
    let y = BatchMut::channels_first(RowsMut::new(&mut [], 12).unwrap(), 3).unwrap();
    let running = RunningStats::new(3);
    batch_norm_eval(x, Params::<f32>::default(), running.as_ref(), y, &mut Workspace::new(), Run::default())
        .unwrap();
}
