//! Random shapes, strides, offsets and values of every kind, any bit pattern included: the bits are those of
//! the naive implementation, and nothing is written between rows.

use crate::case::{Case, EPSILONS, Norm, assert_same};
use crate::level::{Effort, at, levels};
use crate::naive;
use crate::number::{Stored, Value, power_of_two};
use crate::same_bits::run_placed;
use half::{bf16, f16};
use proptest::prelude::*;

/// Mostly ordinary numbers; some of any magnitude; few that are any bits at all.
fn number<T: Value>() -> impl Strategy<Value = T> + Clone {
    prop_oneof![
        12 => (-4.0..4.0f64).prop_map(T::of),
        2 => (-300..300i32, -2.0..2.0f64).prop_map(|(e, x)| T::of(x * power_of_two(e))),
        1 => prop::sample::select(vec![0.0, -0.0, 1.0, 1e5, 100_001.0]).prop_map(T::of),
        1 => any::<u64>().prop_map(T::of_bits),
    ]
}

fn parameter<T: Value>(n: usize) -> impl Strategy<Value = Option<Vec<T>>> {
    prop_oneof![
        Just(None),
        prop::collection::vec(number::<T>(), 1).prop_map(Some),
        prop::collection::vec(number::<T>(), n).prop_map(Some),
    ]
}

/// A number of a row's kind, or a row's worth of them.
fn rows<T: Value>(rows: usize, n: usize) -> impl Strategy<Value = Vec<T>> {
    let ordinary = prop::collection::vec((-4.0..4.0f64).prop_map(T::of), rows * n);
    let any = prop::collection::vec(number::<T>(), rows * n);
    let constant = prop::collection::vec(number::<T>(), rows)
        .prop_map(move |row| row.iter().flat_map(|x| vec![*x; n]).collect::<Vec<T>>());
    prop_oneof![3 => ordinary, 2 => any, 1 => constant]
}

fn case<T: Stored>() -> impl Strategy<Value = Case<T>> {
    let (most_rows, most) = Effort::of((4usize, 12usize), (12, 90), (20, 160));
    (1..most_rows, 1..most).prop_flat_map(|(count, n)| {
        let norm = prop::sample::select(Norm::BOTH.to_vec());
        let eps = prop_oneof![prop::sample::select(EPSILONS.to_vec()), 0.0..1e30f64];
        let numbers = (rows::<T>(count, n), rows::<T>(count, n));
        (norm, numbers, parameter::<T>(n), parameter::<T>(n), eps, 0usize..5000).prop_map(
            move |(norm, (x, dy), weight, bias, eps, first_row)| {
                let [weight, bias] =
                    [weight, bias].map(|of| of.map(|of| of.iter().map(|value| value.acc()).collect()));
                let wide = first_row % 2 == 1;
                Case { norm, n, x, dy, weight, bias, wide, eps, first_row }
            },
        )
    })
}

fn config() -> ProptestConfig {
    // Miri has no files to keep failures in.
    let failure_persistence = None;
    ProptestConfig { cases: Effort::of(2, 60, 500), failure_persistence, ..ProptestConfig::default() }
}

fn check<T: Stored>(case: Case<T>, apart: [usize; 4], offsets: [usize; 4]) {
    let expected = naive::run(&case);
    for level in levels() {
        let got = run_placed(&case, apart.map(|apart| case.n + apart), offsets, at(level));
        assert_same(&got, &expected, || format!("{level}"));
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn f32_bits_are_those_of_the_document(
        case in case::<f32>(),
        apart in prop::array::uniform4(0usize..40),
        offsets in prop::array::uniform4(0usize..17),
    ) {
        check(case, apart, offsets);
    }

    #[test]
    fn f16_bits_are_those_of_the_document(
        case in case::<f16>(),
        apart in prop::array::uniform4(0usize..40),
        offsets in prop::array::uniform4(0usize..17),
    ) {
        check(case, apart, offsets);
    }

    #[test]
    fn bf16_bits_are_those_of_the_document(
        case in case::<bf16>(),
        apart in prop::array::uniform4(0usize..40),
        offsets in prop::array::uniform4(0usize..17),
    ) {
        check(case, apart, offsets);
    }

    #[test]
    fn f64_bits_are_those_of_the_document(
        case in case::<f64>(),
        apart in prop::array::uniform4(0usize..40),
        offsets in prop::array::uniform4(0usize..17),
    ) {
        check(case, apart, offsets);
    }
}
