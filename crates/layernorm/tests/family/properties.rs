//! Group, instance and batch norm of random shapes, layouts, types and levels, against their oracles: the reference within
//! the bounds, and in f32 and f64 the bits of the naive batch norm.

use crate::batch_norm::accuracy::errors;
use crate::batch_norm::naive;
use crate::batch_norm::problem::{self, Base, Kind, Problem, Which, Wide, assert_same as same_results, ways};
use crate::group::{Case, Shape, assert_all_same, lay, within_the_bounds};
use crate::tools::{Number, assert_same, levels};
use half::{bf16, f16};
use layernorm::{Activation, Instances, Layout, Run, Threads, Workspace, instance_norm};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Fewer where the machine is emulated. The same ones each time, unless PROPTEST_RNG_SEED says other.
fn config() -> ProptestConfig {
    let small = std::env::var_os("LAYERNORM_TEST_EFFORT").is_some();
    let default = ProptestConfig::default();
    let rng_seed = match default.rng_seed {
        RngSeed::Random => RngSeed::Fixed(20),
        given => given,
    };
    ProptestConfig { cases: if small { 20 } else { 150 }, failure_persistence: None, rng_seed, ..default }
}

/// Numbers of some size around some mean, few of them far out.
fn numbers(len: usize) -> impl Strategy<Value = Vec<f64>> {
    let number = prop_oneof![9 => -3.0..3.0f64, 1 => -60.0..60.0f64];
    (vec(number, len), -3..3i32, prop_oneof![Just(0.0), -20.0..20.0f64]).prop_map(
        |(numbers, exponent, mean)| {
            numbers.into_iter().map(|number| (number + mean) * f64::from(exponent).exp2()).collect()
        },
    )
}

/// Absent, one for all, or one a channel.
fn parameter(channels: usize) -> impl Strategy<Value = Option<Vec<f64>>> {
    prop_oneof![Just(None), vec(-2.0..2.0f64, 1).prop_map(Some), vec(-2.0..2.0f64, channels).prop_map(Some)]
}

fn eps() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![1e-6, 1e-5, 1e-3, 1.0])
}

fn of<T: Number>(numbers: &[f64]) -> Vec<T> {
    numbers.iter().map(|number| T::of(*number)).collect()
}

fn group<T: Number>() -> impl Strategy<Value = Case<T>>
where
    T::Acc: Number,
{
    (0..5usize, 1..5usize, 1..6usize, 1..40usize).prop_flat_map(|(samples, groups, per_group, positions)| {
        let channels = groups * per_group;
        let len = samples * channels * positions;
        let tensors = (numbers(len), vec(-3.0..3.0f64, len));
        (tensors, parameter(channels), parameter(channels), eps(), 0..100usize).prop_map(
            move |((x, dy), weight, bias, eps, first)| Case {
                shape: Shape { samples, channels, positions, groups },
                x: of(&x),
                dy: of(&dy),
                weight: weight.map(|weight| of(&weight)),
                bias: bias.map(|bias| of(&bias)),
                eps,
                activation: Activation::None,
                first,
            },
        )
    })
}

fn check_group<T: Number>(mut case: Case<T>, [last, in_place, saved]: [bool; 3], level: usize)
where
    T::Acc: Number,
{
    let layout = if last { Layout::ChannelsLast } else { Layout::ChannelsFirst };
    let one = Run::default().with_threads(Threads::One);
    let run = one.with_level(levels()[level % levels().len()]);
    let got = case.run(layout, in_place, saved, run);
    within_the_bounds(&case, &got);
    if case.shape.groups == case.shape.channels {
        let groups = case.norm(layout);
        let norm = Instances { images: groups.images, params: groups.params, activation: Activation::None };
        let x = lay(case.shape, layout, &case.x, false);
        let mut y = x.clone();
        instance_norm(norm, &x, &mut y, None, &mut Workspace::new(), run).unwrap();
        assert_same(&lay(case.shape, layout, &y, true), &got.y, "instance norm");
    }
    // Whatever is done, the bits are those of the plainest way; after SiLU too.
    for activation in [Activation::None, Activation::Silu] {
        case.activation = activation;
        let plain = case.run(Layout::ChannelsFirst, false, true, one.with_level(levels()[0]));
        assert_all_same(&case.run(layout, in_place, saved, run), &plain, "bits");
        let past = case.run(layout, in_place, saved, run.with_stream_from(0));
        assert_all_same(&past, &plain, "bits past the caches");
    }
}

fn batch<E: Kind>() -> impl Strategy<Value = Problem<E>> {
    (any::<bool>(), 1..7usize, 1..20usize, 1..30usize).prop_flat_map(
        |(last, samples, channels, positions)| {
            // One number a channel has no variance.
            let samples = samples + usize::from(samples * positions < 2);
            let len = samples * channels * positions;
            let tensors = (numbers(len), vec(-3.0..3.0f64, len));
            (tensors, parameter(channels), parameter(channels), eps(), 0..100usize).prop_map(
                move |((x, dy), weight, bias, eps, first)| {
                    let of = |numbers: Vec<f64>| numbers.into_iter().map(E::of).collect::<Vec<E>>();
                    let (x, dy, which) = (of(x), of(dy), Which::All);
                    let (weight, bias) = (weight.map(of), bias.map(of));
                    Problem { last, samples, channels, positions, x, dy, weight, bias, eps, which, first }
                },
            )
        },
    )
}

/// The largest mean of a channel, in standard deviations.
fn largest_mean<E: Kind>(of: &Problem<E>) -> f64 {
    let channel = |i: usize| if of.last { i % of.channels } else { i / of.positions % of.channels };
    let of_channel = |wanted: usize| -> f64 {
        let numbers = of.x.iter().enumerate().filter(|(i, _)| channel(*i) == wanted);
        let numbers: Vec<f64> = numbers.map(|(_, x)| x.wide()).collect();
        let mean_of =
            |of: &dyn Fn(f64) -> f64| numbers.iter().map(|x| of(*x)).sum::<f64>() / numbers.len() as f64;
        let mean = mean_of(&|x| x);
        mean.abs() / (mean_of(&|x| (x - mean).powi(2)) + of.eps).sqrt()
    };
    (0..of.channels).map(of_channel).fold(0.0, f64::max)
}

fn check_batch<E: Kind>(of: &Problem<E>, way: usize) -> problem::Results<E> {
    let ways = ways();
    let (what, how) = &ways[way % ways.len()];
    let got = of.run(*how);
    let n = (of.samples * of.positions) as f64;
    // The reference rounds in f64 too, and loses digits to large means.
    let more = if E::Acc::U < 1e-12 { 100.0 * (1.0 + n.sqrt()) * (1.0 + largest_mean(of)) } else { 0.0 };
    let terms = (n * if of.weight.is_some() { of.channels as f64 } else { 1.0 }).log2();
    let bounds = [8.0, 16.0, 16.0 + terms, 8.0 + terms];
    for (i, (worst, bound)) in errors(of, &got).into_iter().zip(bounds).enumerate() {
        assert!(worst <= bound + more, "{i}: {worst} of {bound}, {what}");
    }
    got
}

fn check_batch_bits<T: Wide>(of: &Problem<T>, way: usize) {
    same_results("the naive one", &check_batch(of, way), &naive::run(of));
}

/// The properties of a type of elements.
macro_rules! properties {
    ($($name:ident: $t:ty, $batch:expr;)*) => {$(
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(config())]

                #[test]
                fn group_norm_is_the_reference(case in group::<$t>(), how in any::<[bool; 3]>(), level in 0..4usize) {
                    check_group(case, how, level);
                }

                #[test]
                fn batch_norm_is_the_reference(of in batch::<$t>(), way in 0..100usize) {
                    $batch(&of, way);
                }
            }
        }
    )*};
}

properties! {
    in_f32: f32, check_batch_bits;
    in_f64: f64, check_batch_bits;
    in_f16: f16, |of, way| { check_batch(of, way); };
    in_bf16: bf16, |of, way| { check_batch(of, way); };
}
