//! Norms stored in eight bits: the bytes and scales of the y that the norm gives by itself, quantised by the definition.

use crate::case::{Case, EPSILONS, Given, Norm, call_with};
use crate::level::{Effort, at, best, levels};
use crate::number::{Stored, bits, power_of_two};
use crate::random::Random;
use layernorm::{
    E4M3, E5M2, Error, Level, Params, Quantum, Rows, RowsMut, Run, Scale, layer_norm_quantized, quantize,
    rms_norm_quantized,
};

for_all!(what_the_norm_gives_is_quantised, any_rows_are_quantised, what_is_wrong_is_refused, nothing_to_do);

/// A type of eight bits, by its definition.
trait Eight: Quantum + Default {
    /// The exponent's bias, and digits of the fraction. Integers have none.
    const FORM: Option<(i32, i32)>;
    const CODE_OF_LARGEST: u8;

    fn code(self) -> u8;
    fn of_code(code: u8) -> Self;
}

macro_rules! eight {
    ($t:ty, $form:expr, $largest:literal, $code:expr, $of_code:expr) => {
        impl Eight for $t {
            const FORM: Option<(i32, i32)> = $form;
            const CODE_OF_LARGEST: u8 = $largest;

            fn code(self) -> u8 {
                $code(self)
            }
            fn of_code(code: u8) -> Self {
                $of_code(code)
            }
        }
    };
}
eight!(i8, None, 127, |x: i8| x as u8, |code| code as i8);
eight!(E4M3, Some((7, 3)), 0x7e, |x: E4M3| x.0, E4M3);
eight!(E5M2, Some((15, 2)), 0x7b, |x: E5M2| x.0, E5M2);

/// The number of a code without a sign, up to that of the largest.
fn magnitude<Q: Eight>(code: u8) -> f64 {
    let Some((bias, digits)) = Q::FORM else { return code.into() };
    let (exponent, fraction) = (i32::from(code >> digits), f64::from(code & ((1 << digits) - 1)));
    let whole = if exponent == 0 { 0.0 } else { power_of_two(digits) };
    (whole + fraction) * power_of_two(exponent.max(1) - bias - digits)
}

/// The nearest of all, with an even code where two are; the largest beyond it.
fn nearest<Q: Eight>(value: f32) -> u8 {
    if value.is_nan() {
        return if Q::FORM.is_some() { 0x7f } else { 0 };
    }
    let size = f64::from(value.abs());
    // The first code above, and the one below it.
    let (mut above, mut end) = (0, Q::CODE_OF_LARGEST + 1);
    while above < end {
        let code = above + (end - above) / 2;
        if magnitude::<Q>(code) <= size { above = code + 1 } else { end = code }
    }
    let code = if above > Q::CODE_OF_LARGEST {
        Q::CODE_OF_LARGEST
    } else {
        let [left, right] = [size - magnitude::<Q>(above - 1), magnitude::<Q>(above) - size];
        if left < right || left == right && above % 2 == 1 { above - 1 } else { above }
    };
    match (value.is_sign_negative(), Q::FORM) {
        (false, _) => code,
        (true, None) => code.wrapping_neg(),
        (true, Some(_)) => code | 0x80,
    }
}

/// A row's codes and scale.
fn row<Q: Eight>(y: &[f32], given: Option<f32>) -> (Vec<u8>, f32) {
    let largest = y
        .iter()
        .fold(0.0, |max: f32, y| if max.is_nan() || y.is_nan() { f32::NAN } else { max.max(y.abs()) });
    let scale = given.unwrap_or_else(|| {
        let scale = largest / Q::LARGEST;
        if scale == 0.0 { 1.0 } else { scale }
    });
    (y.iter().map(|y| nearest::<Q>(y / scale)).collect(), scale)
}

/// Quantise to rows that are apart, and see that nothing is written between.
fn quantised<E: Stored, Q: Eight>(
    norm: Option<Norm>,
    (x, n): (&[E], usize),
    given: &Given<E>,
    scale: Option<f32>,
    run: Run,
) -> (Vec<u8>, Vec<f32>) {
    let (rows, stride) = (x.len() / n, n + 3);
    let mut to = vec![Q::of_code(0x55); rows * stride];
    let mut scales = vec![-1.0; rows];
    {
        let (x, y) = (Rows::new(x, n).unwrap(), RowsMut::strided(&mut to, rows, n, stride).unwrap());
        let scale = scale.map_or(Scale::OfRows(&mut scales), Scale::Given);
        call_with!(*given, |params| match norm {
            Some(Norm::Layer) => layer_norm_quantized(x, params, y, scale, run),
            Some(Norm::Rms) => rms_norm_quantized(x, params, y, scale, run),
            None => quantize(x, y, scale, run),
        })
        .unwrap();
    }
    let mut codes = vec![];
    for row in to.chunks(stride) {
        codes.extend(row[..n].iter().map(|y| y.code()));
        assert!(row[n..].iter().all(|y| y.code() == 0x55), "written between rows");
    }
    (codes, scales)
}

fn check<E: Stored, Q: Eight>(norm: Option<Norm>, case: &Case<E>, y: &[E]) {
    let wide: Vec<f32> = y.iter().map(|y| y.wide() as f32).collect();
    for given in [None, Some(0.03), Some(7.0)] {
        let expected: Vec<_> = wide.chunks(case.n).map(|y| row::<Q>(y, given)).collect();
        for level in levels() {
            let (codes, scales) =
                quantised::<E, Q>(norm, (&case.x, case.n), &case.params(), given, at(level));
            for (i, (expected, scale)) in expected.iter().enumerate() {
                let what = || {
                    let to = std::any::type_name::<Q>();
                    format!("{norm:?} {} to {to} at {level}: {:?}", E::NAME, &wide[i * case.n..][..case.n])
                };
                assert_eq!(&codes[i * case.n..][..case.n], expected, "{}", what());
                let scale = if given.is_some() { -1.0 } else { *scale };
                assert_eq!(bits(scales[i]), bits(scale), "{}", what());
            }
        }
    }
}

fn check_all<E: Stored>(norm: Option<Norm>, case: &Case<E>, y: &[E]) {
    check::<E, i8>(norm, case, y);
    check::<E, E4M3>(norm, case, y);
    check::<E, E5M2>(norm, case, y);
}

fn lengths() -> Vec<usize> {
    Effort::of(
        vec![5],
        vec![1, 7, 64, 300],
        (1..=40).chain([64, 255, 256, 257, 511, 512, 600, 1025]).collect(),
    )
}

fn what_the_norm_gives_is_quantised<E: Stored>() {
    let mut random = Random::new(71);
    for (n, norm) in lengths().into_iter().flat_map(|n| Norm::BOTH.map(|norm| (n, norm))) {
        let mut case = Case::<E>::random(norm, Effort::of(2, 9, 16), n, &mut random);
        case.x[..n].fill(E::of(0.0));
        check_all(Some(norm), &case, &case.run(best()).y);
    }
}

fn any_rows_are_quantised<E: Stored>() {
    let mut random = Random::new(72);
    for n in lengths() {
        let ordinary = Case::<E>::random(Norm::Layer, Effort::of(1, 6, 12), n, &mut random);
        let of_bits = (0..4 * n).map(|_| E::of_bits(random.bits()));
        // Its scale is below all numbers.
        let smallest = (0..n).map(|_| E::of(E::SMALLEST));
        let x = ordinary.x.iter().copied().chain(of_bits).chain(smallest).collect();
        let case = Case { x, ..ordinary };
        check_all(None, &case, &case.x);
    }
}

fn what_is_wrong_is_refused<E: Stored>() {
    type Call<E> = fn(Rows<'_, E>, Params<'_, E>, RowsMut<'_, i8>, Scale<'_>, Run) -> Result<(), Error>;
    let norms: [Call<E>; 2] = [layer_norm_quantized, rms_norm_quantized];
    let quantize: Call<E> = |x, _, y, scale, run| quantize(x, y, scale, run);
    let x = vec![E::of(1.0); 12];
    let missing = Level::ALL.into_iter().find(|level| !level.is_available()).unwrap();
    let shape = |got| Error::Shape { what: "y", expected: (3, 4), got };
    let length = |what, expected, got| Error::Length { what, expected, got };
    let absent = Error::Level { asked: missing, best: Level::best() };
    // Rows and features of y, lengths of weight and of scale, level; for `quantize` too?
    let table = [
        ([2, 4, 4, 3], best(), shape((2, 4)), true),
        ([4, 3, 4, 3], best(), shape((4, 3)), true),
        ([3, 4, 4, 2], best(), length("scale", 3, 2), true),
        ([3, 4, 4, 12], best(), length("scale", 3, 12), true),
        ([3, 4, 3, 3], best(), length("weight", 4, 3), false),
        ([3, 4, 0, 3], best(), length("weight", 4, 0), false),
        ([3, 4, 4, 3], Run::default().with_level(missing), absent, true),
    ];
    for ([rows, n, weights, scales], run, expected, anyway) in table {
        for call in norms.into_iter().chain(anyway.then_some(quantize)) {
            let (mut y, mut scale) = (vec![99i8; rows * n], vec![-1.0; scales]);
            let weight = vec![E::of(1.0); weights];
            let params = Params { weight: Some(&weight[..]), bias: None, eps: EPSILONS[1] };
            let to = RowsMut::new(&mut y, n).unwrap();
            let got = call(Rows::new(&x, 4).unwrap(), params, to, Scale::OfRows(&mut scale), run);
            assert_eq!(got, Err(expected.clone()));
            assert!(y.iter().all(|y| *y == 99) && scale.iter().all(|scale| *scale == -1.0), "{expected}");
        }
    }
    for scale in [0.0, -0.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        for call in norms.into_iter().chain([quantize]) {
            let mut y = [99i8; 12];
            let (x, to) = (Rows::new(&x, 4).unwrap(), RowsMut::new(&mut y, 4).unwrap());
            let error = call(x, Params::default(), to, Scale::Given(scale), best()).unwrap_err();
            let Error::Scale { scale: got } = error else { panic!("{error:?}") };
            assert_eq!((got.to_bits(), y), (scale.to_bits(), [99; 12]));
        }
    }
    for eps in [f64::NAN, -1.0, f64::INFINITY] {
        for call in norms {
            let mut y = [99i8; 12];
            let (x, to) = (Rows::new(&x, 4).unwrap(), RowsMut::new(&mut y, 4).unwrap());
            let error = call(x, Params { eps, ..Params::default() }, to, Scale::Given(1.0), best());
            assert!(matches!(error, Err(Error::Epsilon { .. })), "{error:?}");
            assert_eq!(y, [99; 12]);
        }
    }
}

fn nothing_to_do<E: Stored>() {
    for level in levels() {
        let mut scale = [-1.0; 5];
        let (x, y) =
            (Rows::<E>::strided(&[], 5, 0, 0).unwrap(), RowsMut::<i8>::strided(&mut [], 5, 0, 0).unwrap());
        layer_norm_quantized(x, Params::<E>::default(), y, Scale::OfRows(&mut scale), at(level)).unwrap();
        assert_eq!(scale, [1.0; 5], "the largest of no numbers is 0");
        let (x, y) = (Rows::<E>::new(&[], 4).unwrap(), RowsMut::<i8>::new(&mut [], 4).unwrap());
        rms_norm_quantized(x, Params::<E>::default(), y, Scale::OfRows(&mut []), at(level)).unwrap();
    }
}

fn rounding_of<Q: Eight>() {
    let codes = (0..Q::CODE_OF_LARGEST).step_by(Effort::of(9, 1, 1));
    let mut numbers = vec![0.0, f32::MAX, f32::INFINITY, f32::NAN, f32::from_bits(1), 1e-30];
    for code in codes {
        let [below, above] = [code, code + 1].map(magnitude::<Q>);
        for number in [below as f32, ((below + above) / 2.0) as f32, above as f32] {
            numbers.extend([number.next_down(), number, number.next_up()]);
        }
    }
    // Between the largest and what would be one step more.
    let largest = magnitude::<Q>(Q::CODE_OF_LARGEST) as f32;
    numbers.extend((0..200).map(|i| largest * (1.0 + i as f32 / 100.0)));
    let mut random = Random::new(73);
    numbers.extend((0..Effort::of(100, 10_000, 100_000)).map(|_| f32::from_bits(random.bits() as u32)));
    for number in numbers.into_iter().flat_map(|number| [number, -number]) {
        assert_eq!(Q::nearest(number).code(), nearest::<Q>(number), "{number:e}");
    }
    for code in 0..=Q::CODE_OF_LARGEST {
        let number = Q::of_code(code).to_f32();
        assert_eq!(f64::from(number), magnitude::<Q>(code), "{code:x}");
        assert_eq!(Q::nearest(number).code(), code, "{code:x}");
    }
}

#[test]
fn eight_bits_are_the_nearest() {
    rounding_of::<i8>();
    rounding_of::<E4M3>();
    rounding_of::<E5M2>();
    assert_eq!((i8::LARGEST, E4M3::LARGEST, E5M2::LARGEST), (127.0, 448.0, 57344.0));
    assert_eq!((-128i8).to_f32(), -128.0);
    let special = |code: u8| [E4M3(code).to_f32(), E5M2(code).to_f32()];
    assert!([0x7f, 0xff].iter().all(|code| special(*code).iter().all(|x| x.is_nan())));
    assert!(E5M2(0x7d).to_f32().is_nan() && E5M2(0x7e).to_f32().is_nan());
    assert_eq!([E5M2(0x7c), E5M2(0xfc)].map(Quantum::to_f32), [f32::INFINITY, f32::NEG_INFINITY]);
    assert_eq!(E4M3(0x7c).to_f32(), 384.0);
    assert_eq!(E4M3(0x88).to_f32(), -power_of_two(-6) as f32);
}

/// Threads show in no bit.
#[cfg(feature = "rayon")]
#[test]
fn threads_do_not_show() {
    use layernorm::Threads;

    let mut random = Random::new(74);
    let (rows, n) = Effort::of((20, 5), (200, 700), (300, 1000));
    let case = Case::<f32>::random(Norm::Layer, rows, n, &mut random);
    let of = |run: Run| quantised::<f32, E4M3>(Some(Norm::Layer), (&case.x, n), &case.params(), None, run);
    let (codes, scales) = of(best());
    let (codes_of_pool, scales_of_pool) = of(best().with_threads(Threads::Pool));
    assert_eq!(codes_of_pool, codes);
    assert!(scales.iter().zip(&scales_of_pool).all(|(a, b)| bits(*a) == bits(*b)), "scales");
}
