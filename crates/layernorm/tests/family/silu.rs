//! SiLU and its gradient against f64, which is good to 2^-52 and so says what f32 is.

use crate::tools::{Random, assert_same, levels};
use layernorm::{Error, Run, silu, silu_backward, silu_backward_in_place, silu_in_place};

/// silu(x) and silu'(x), and what the error of the latter is measured by.
fn truth(x: f64) -> [f64; 3] {
    let a = (-x.abs()).exp();
    let [sigmoid, opposite] =
        if x < 0.0 { [a / (1.0 + a), 1.0 / (1.0 + a)] } else { [1.0 / (1.0 + a), a / (1.0 + a)] };
    let part = if x.is_infinite() { 0.0 } else { x * opposite };
    let y = if x == f64::NEG_INFINITY { -0.0 } else { x * sigmoid };
    // Where sigmoid is 0, so is its product with what grows.
    let of = |sum: f64| if sigmoid == 0.0 { 0.0 } else { sigmoid * sum };
    [y, of(1.0 + part), of(1.0 + part.abs())]
}

const U: f64 = 1.0 / (1u32 << 24) as f64;

/// The worst errors of all numbers with these bits, in u.
fn worst(bits: impl Iterator<Item = u32>) -> [f64; 2] {
    let mut worst = [0.0f64; 2];
    let mut bits = bits.peekable();
    while bits.peek().is_some() {
        let x: Vec<f32> = bits.by_ref().take(1 << 12).map(f32::from_bits).collect();
        let (mut y, mut dx) = (vec![0.0f32; x.len()], vec![0.0f32; x.len()]);
        silu(&x, &mut y, Run::default()).unwrap();
        silu_backward(&x, &vec![1.0; x.len()], &mut dx, Run::default()).unwrap();
        for ((x, y), dx) in x.iter().zip(&y).zip(&dx) {
            if x.is_nan() {
                assert!(y.is_nan() && dx.is_nan(), "silu({x}) is {y}, its slope {dx}");
                continue;
            }
            let [true_y, true_slope, scale] = truth(f64::from(*x));
            if true_y.is_infinite() {
                assert!(*y == f32::INFINITY && *dx == 1.0, "silu({x}) is {y}, its slope {dx}");
                continue;
            }
            // Nothing is 0 before its time, and signs are right.
            assert!(y.is_sign_negative() == x.is_sign_negative(), "silu({x}) is {y}");
            let error = (f64::from(*y) - true_y).abs() - 2f64.powi(-149);
            worst[0] = worst[0].max(error / (U * true_y.abs()).max(f64::MIN_POSITIVE));
            let error = (f64::from(*dx) - true_slope).abs() - 2f64.powi(-149);
            worst[1] = worst[1].max(error / (U * scale).max(f64::MIN_POSITIVE));
        }
    }
    worst
}

fn check([y, slope]: [f64; 2]) {
    println!("worst: silu {y:.3} u, its slope {slope:.3} u");
    assert!(y <= 5.0 && slope <= 5.0, "silu errs by {y} u, its slope by {slope} u");
}

/// Every 4099th number, and the neighbourhood of those that matter.
#[test]
fn numbers_are_right() {
    let near = [
        0.0f32,
        -0.0,
        1.0,
        -1.0,
        -1.278_464_5,
        -87.3,
        -88.7,
        -103.97,
        -119.9,
        -120.1,
        88.7,
        120.0,
        f32::INFINITY,
    ]
    .into_iter()
    .flat_map(|x| {
        (0..if cfg!(miri) { 2 } else { 2000 })
            .map(move |i| x.to_bits().wrapping_add(i).wrapping_sub(if cfg!(miri) { 1 } else { 1000 }))
    });
    check(worst((0..=u32::MAX).step_by(if cfg!(miri) { 1 << 26 } else { 4099 }).chain(near)));
}

#[test]
#[ignore = "all 2^32 numbers: minutes on two cores"]
fn all_numbers_are_right() {
    let parts: Vec<[f64; 2]> = std::thread::scope(|scope| {
        let of = |part: u32| move || worst((part << 28)..=(part << 28 | 0x0fff_ffff));
        let threads: Vec<_> = (0..16).map(|part| scope.spawn(of(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    check(parts.into_iter().fold([0.0; 2], |[y, s], [a, b]| [f64::max(y, a), f64::max(s, b)]));
}

/// In f64 the oracle has errors of its own, about as large.
#[test]
fn f64_is_right() {
    let mut random = Random(7);
    let mut worst = [0.0f64; 2];
    for scale in [1e-300, 1e-8, 0.1, 1.0, 10.0, 100.0, 400.0] {
        let x: Vec<f64> = random.numbers(if cfg!(miri) { 20 } else { 100_000 }, 0.0, scale);
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        silu(&x, &mut y, Run::default()).unwrap();
        silu_backward(&x, &vec![1.0; x.len()], &mut dx, Run::default()).unwrap();
        for ((x, y), dx) in x.iter().zip(&y).zip(&dx) {
            let [true_y, true_slope, scale] = truth(*x);
            let u = f64::EPSILON / 2.0;
            worst[0] =
                worst[0].max(((y - true_y).abs() - 1e-320) / (u * true_y.abs()).max(f64::MIN_POSITIVE));
            worst[1] = worst[1].max(((dx - true_slope).abs() - 1e-320) / (u * scale).max(f64::MIN_POSITIVE));
        }
    }
    println!("worst in f64: silu {:.3} u, its slope {:.3} u", worst[0], worst[1]);
    assert!(worst[0] <= 5.0 && worst[1] <= 8.0, "{worst:?}");
    let mut ends = [f64::NEG_INFINITY, -1e300, -746.0, 1e300, f64::INFINITY, f64::NAN];
    silu_in_place(&mut ends, Run::default()).unwrap();
    assert_same(&ends, &[-0.0, -0.0, ends[2], 1e300, f64::INFINITY, f64::NAN], "the ends");
}

#[test]
fn levels_and_places_give_the_same_bits() {
    let mut random = Random(3);
    for len in (0..if cfg!(miri) { 10 } else { 70 }).chain([100]) {
        let x: Vec<f32> = (0..len).map(|_| f32::from_bits((random.bits() >> 32) as u32)).collect();
        let dy: Vec<f32> = random.numbers(len, 0.0, 1.0);
        let (mut y, mut dx) = (vec![0.0; len], vec![0.0; len]);
        silu(&x, &mut y, Run::default()).unwrap();
        silu_backward(&x, &dy, &mut dx, Run::default()).unwrap();
        for level in levels() {
            let run = Run::default().with_level(level);
            let (mut at_level, mut of_x, mut of_dy) = (vec![0.0; len], x.clone(), dy.clone());
            silu(&x, &mut at_level, run).unwrap();
            assert_same(&y, &at_level, "silu");
            silu_in_place(&mut of_x, run).unwrap();
            assert_same(&y, &of_x, "silu in place");
            silu_backward_in_place(&x, &mut of_dy, run).unwrap();
            assert_same(&dx, &of_dy, "its gradient");
        }
    }
}

#[test]
fn lengths_are_checked() {
    let mut y = [5.0f32; 2];
    let length = |what, expected, got| Err(Error::Length { what, expected, got });
    assert_eq!(silu(&[1.0; 3], &mut y, Run::default()), length("y", 3, 2));
    assert_eq!(silu_backward(&[1.0; 2], &[1.0; 3], &mut y, Run::default()), length("dy", 2, 3));
    assert_eq!(silu_backward(&[1.0; 3], &[1.0; 3], &mut y, Run::default()), length("dx", 3, 2));
    assert_eq!(silu_backward_in_place(&[1.0; 3], &mut y, Run::default()), length("dy", 3, 2));
    assert_eq!(y, [5.0; 2]);
}
