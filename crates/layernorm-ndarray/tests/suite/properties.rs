//! Any shape, any axes, any layout.

use super::*;
use proptest::prelude::*;

fn lie(axes: usize) -> impl Strategy<Value = Lie> {
    let steps = prop::collection::vec(
        prop_oneof![3 => Just(1isize), 1 => Just(-1), 1 => Just(2), 1 => Just(-3)],
        axes,
    );
    (Just((0..axes).collect::<Vec<_>>()).prop_shuffle(), steps)
        .prop_map(|(order, steps)| Lie { order, steps })
}

fn case() -> impl Strategy<Value = Case> {
    let size = prop_oneof![1 => Just(0usize), 3 => Just(1), 12 => 2..8usize, 2 => Just(33)];
    let shape = prop::collection::vec(size, 1..5)
        .prop_filter("not too large", |shape| shape.iter().product::<usize>() < 8000);
    let axes = |n: usize| Just((0..n).collect::<Vec<_>>()).prop_shuffle();
    let param = || prop_oneof![Just(None), Just(Some(false)), Just(Some(true))];
    shape
        .prop_flat_map(move |shape| {
            let n = shape.len();
            let lies = [lie(n), lie(n), lie(n), lie(n)];
            (Just(shape), axes(n), 1..=n, lies, (param(), param()), (0..40usize, any::<bool>()))
        })
        .prop_map(|(shape, axes, count, lies, (weight, bias), (first_row, accumulate))| Case {
            weight,
            bias,
            first_row,
            accumulate,
            ..Case::new(&shape, &axes[..count], lies)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 512 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn has_the_bits_of_the_slice_kernels(case in case()) {
        case.check::<f32, f32>(one_thread());
    }

    #[test]
    fn in_halves_too(case in case()) {
        case.check::<bf16, f32>(one_thread());
    }
}
