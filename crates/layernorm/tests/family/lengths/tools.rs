//! What the tests share.

use half::{bf16, f16};
use layernorm::{Element, Level, ParamGradients, Run, Threads, Workspace};
use std::fmt::Display;

/// A number, with what a test needs of it.
pub(crate) trait Plain: Copy {
    /// Half an ulp.
    const HALF_ULP: f64;
    /// u of what it accumulates in; with room for the reference, which rounds in f64.
    const U: f64;
    /// The smallest number above 0.
    const SMALLEST: f64;
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
}

/// A type of elements.
pub(crate) trait Number: Plain + Element<Acc: Plain> {}
impl<E: Plain + Element<Acc: Plain>> Number for E {}

const U: f64 = f32::EPSILON as f64 / 2.0;

macro_rules! number {
    ($t:ty, $half_ulp:expr, $u:expr, $smallest:expr, $of:expr) => {
        impl Plain for $t {
            const HALF_ULP: f64 = $half_ulp;
            const U: f64 = $u;
            const SMALLEST: f64 = $smallest;
            fn of(value: f64) -> Self {
                $of(value)
            }
            fn wide(self) -> f64 {
                self.into()
            }
        }
    };
}

number!(f32, U, U, f32::from_bits(1) as f64, |value| value as f32);
number!(f64, f64::EPSILON / 2.0, f64::EPSILON * 4.0, f64::from_bits(1), |value| value);
number!(f16, 1.0 / 2048.0, U, 1.0 / 16_777_216.0, f16::from_f64);
number!(bf16, 1.0 / 256.0, U, 1e-40, bf16::from_f64);

pub(crate) fn wide<E: Plain>(values: &[E]) -> Vec<f64> {
    values.iter().map(|value| value.wide()).collect()
}

pub(crate) fn rounded<E: Plain>(values: &[f64]) -> Vec<E> {
    values.iter().map(|value| E::of(*value)).collect()
}

/// What outputs hold before a call.
pub(crate) fn blank<E: Plain>(len: usize) -> Vec<E> {
    vec![E::of(-1234.5); len]
}

pub(crate) fn is_blank<E: Plain>(values: &[E]) -> bool {
    values.iter().all(|value| value.wide() == E::of(-1234.5).wide())
}

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// Nearly normal.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| (self.bits() >> 11) as f64 * (f64::EPSILON / 2.0)).sum::<f64>() - 6.0
    }

    /// Numbers of a type.
    pub(crate) fn numbers<E: Plain>(&mut self, len: usize) -> Vec<E> {
        (0..len).map(|_| E::of(self.normal())).collect()
    }
}

/// The results at the first level, which those at all others and on many threads must equal in every bit.
#[track_caller]
pub(crate) fn everywhere(of: impl Fn(Run) -> Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    let mut first: Option<Vec<Vec<f64>>> = None;
    for level in Level::available().filter(|level| !cfg!(miri) || *level == Level::Portable) {
        for run in [Run::default().with_threads(Threads::One), Run::default()] {
            let got = of(run.with_level(level));
            match &first {
                Some(first) => same(&got, first, &format!("{level}")),
                None => first = Some(got),
            }
        }
    }
    first.expect("there is the portable level")
}

/// Panics unless all bits are the same; any NaN is like any other.
#[track_caller]
pub(crate) fn same(got: &[Vec<f64>], want: &[Vec<f64>], context: &str) {
    let bits = |value: f64| if value.is_nan() { u64::MAX } else { value.to_bits() };
    assert_eq!(got.len(), want.len(), "{context}");
    for (output, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len(), "{context}: output {output}");
        let different = got.iter().zip(want).position(|(got, want)| bits(*got) != bits(*want));
        if let Some(at) = different {
            panic!("{context}: output {output}[{at}] is {:?}, and {:?}", got[at], want[at]);
        }
    }
}

/// Panics unless an element is within `times` u of `measure` and its own rounding.
#[track_caller]
pub(crate) fn near<E: Plain>(got: f64, want: f64, times: f64, measure: f64, what: impl Display) {
    if E::of(want).wide().is_infinite() {
        assert_eq!(got, E::of(want).wide(), "{what}");
        return;
    }
    let most = times * E::U * measure + (E::HALF_ULP + E::U) * want.abs() + 2.0 * E::SMALLEST;
    assert!((got - want).abs() <= most, "{what}: {got:e} where {want:e} is right, {most:e} allowed");
}

/// Panics unless `dx` are the slopes of `loss` at `x`: differences of fourth order.
#[track_caller]
pub(crate) fn slopes(x: &[f64], dx: &[f64], loss: impl Fn(&[f64]) -> f64, what: &str) {
    let h = 1e-3;
    for (i, dx) in dx.iter().enumerate() {
        let at = |steps: f64| {
            let mut x = x.to_vec();
            x[i] += steps * h;
            loss(&x)
        };
        let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * h);
        assert!(
            (dx - slope).abs() <= 1e-7 * (1.0 + slope.abs()),
            "{what}[{i}]: {dx}, by differences {slope}"
        );
    }
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Gradients of parameters, to be replaced.
pub(crate) fn of_params<'a, T>(
    dweight: Option<&'a mut [T]>,
    dbias: Option<&'a mut [T]>,
    workspace: &'a mut Workspace<T>,
) -> ParamGradients<'a, T> {
    ParamGradients { dweight, dbias, accumulate: false, first_row: 0, workspace }
}

/// Rows and features: each small number of features, and those about the thresholds; once so many that threads share.
pub(crate) fn shapes() -> Vec<[usize; 2]> {
    if cfg!(miri) {
        return vec![[0, 3], [1, 1], [3, 35]];
    }
    let small = (1..=70).map(|n| [n % 4, n]);
    let large = [127, 128, 129, 255, 256, 257, 511, 513, 1000, 2049].map(|n| [2, n]);
    small.chain(large).chain([[9, 32], [1, 5], [70, 1000]]).collect()
}
