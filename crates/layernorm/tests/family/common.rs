//! Numbers of all types, rows with holes between them, and the runs that must all give the same bits.

use crate::random::Random;
use half::{bf16, f16};
use layernorm::reference::RowNorm;
use layernorm::{Element, Level, Rows, RowsMut, Run, Threads};

/// A type of elements. Everything is compared in f64, which holds each exactly.
pub(crate) trait Number: Element + PartialEq {
    const NAME: &'static str;
    /// Unit roundoff.
    const U: f64;
    /// That of the type of statistics.
    const ACC_U: f64;
    /// Half of the smallest positive number.
    const TINY: f64;
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    /// In the type of statistics.
    fn acc(value: f64) -> Self::Acc;
    fn wide_acc(value: Self::Acc) -> f64;
}

macro_rules! number {
    ($t:ident, $digits:literal, $acc:ident, $tiny:literal, $of:expr) => {
        impl Number for $t {
            const NAME: &'static str = stringify!($t);
            const U: f64 = 1.0 / (1u64 << $digits) as f64;
            const ACC_U: f64 = $acc::EPSILON as f64 / 2.0;
            const TINY: f64 = $tiny;
            fn of(value: f64) -> Self {
                $of(value)
            }
            fn wide(self) -> f64 {
                self.into()
            }
            fn acc(value: f64) -> $acc {
                value as $acc
            }
            fn wide_acc(value: $acc) -> f64 {
                value.into()
            }
        }
    };
}

number!(f32, 24, f32, 1e-45, |value| value as f32);
number!(f64, 53, f64, 1e-323, |value| value);
number!(f16, 11, f32, 3e-8, |value| f16::from_f32(value as f32));
number!(bf16, 8, f32, 1e-40, |value| bf16::from_f32(value as f32));

/// Each test for all types of elements `E` and companions `R`.
macro_rules! for_all_types {
    ($($test:ident),* $(,)?) => {
        mod f32_f32 { $(#[test] fn $test() { super::$test::<f32, f32>() })* }
        mod f64_f64 { $(#[test] fn $test() { super::$test::<f64, f64>() })* }
        mod f16_f16 { $(#[test] fn $test() { super::$test::<half::f16, half::f16>() })* }
        mod f16_f32 { $(#[test] fn $test() { super::$test::<half::f16, f32>() })* }
        mod bf16_bf16 { $(#[test] fn $test() { super::$test::<half::bf16, half::bf16>() })* }
        mod bf16_f32 { $(#[test] fn $test() { super::$test::<half::bf16, f32>() })* }
    };
}
pub(crate) use for_all_types;

/// Which norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Norm {
    Layer,
    Rms,
}

impl Norm {
    pub(crate) const BOTH: [Self; 2] = [Self::Layer, Self::Rms];

    pub(crate) fn reference(self, n: usize, eps: f64) -> RowNorm {
        match self {
            Self::Layer => RowNorm::layer(n, eps),
            Self::Rms => RowNorm::rms(n, eps),
        }
    }
}

/// What a call gave, by name, in f64.
pub(crate) type Results = Vec<(&'static str, Vec<f64>)>;

pub(crate) fn get<'a>(results: &'a Results, what: &str) -> &'a [f64] {
    &results.iter().find(|(name, _)| *name == what).unwrap_or_else(|| panic!("no {what}")).1
}

/// The same bits, where any NaN is like any other.
#[track_caller]
pub(crate) fn same(what: &str, left: &[f64], right: &[f64]) {
    assert_eq!(left.len(), right.len(), "{what}");
    for (i, (left, right)) in left.iter().zip(right).enumerate() {
        let both_nan = left.is_nan() && right.is_nan();
        assert!(both_nan || left.to_bits() == right.to_bits(), "{what}[{i}]: {left:e} and {right:e}");
    }
}

#[track_caller]
pub(crate) fn same_results(what: &str, left: &Results, right: &Results) {
    assert_eq!(left.len(), right.len(), "{what}");
    for ((name, left), (_, right)) in left.iter().zip(right) {
        same(&format!("{what}: {name}"), left, right);
    }
}

/// Each number within its bound.
#[track_caller]
pub(crate) fn near(what: &str, got: &[f64], exact: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), exact.len(), "{what}");
    for (i, (got, exact)) in got.iter().zip(exact).enumerate() {
        let (error, bound) = ((got - exact).abs(), bound(i));
        assert!(error <= bound, "{what}[{i}]: {got:e} for {exact:e}, off by {error:e}, allowed {bound:e}");
    }
}

pub(crate) const SENTINEL: f64 = -77.0;

/// Rows with holes between them that nobody may write.
#[derive(Debug, Clone)]
pub(crate) struct Strided<E> {
    data: Vec<E>,
    rows: usize,
    n: usize,
    stride: usize,
}

impl<E: Number> Strided<E> {
    pub(crate) fn new(values: &[E], n: usize, hole: usize) -> Self {
        let (rows, stride) = (values.len() / n, n + hole);
        let mut data = vec![E::of(SENTINEL); rows * stride];
        for (row, values) in values.chunks(n).enumerate() {
            data[row * stride..][..n].copy_from_slice(values);
        }
        Self { data, rows, n, stride }
    }

    pub(crate) fn blank(rows: usize, n: usize, hole: usize) -> Self {
        Self::new(&vec![E::of(SENTINEL); rows * n], n, hole)
    }

    pub(crate) fn rows(&self) -> Rows<'_, E> {
        Rows::strided(&self.data, self.rows, self.n, self.stride).unwrap()
    }

    pub(crate) fn rows_mut(&mut self) -> RowsMut<'_, E> {
        RowsMut::strided(&mut self.data, self.rows, self.n, self.stride).unwrap()
    }

    /// The numbers of the rows; the holes must be as they were.
    pub(crate) fn wide(&self) -> Vec<f64> {
        for (i, number) in self.data.iter().enumerate() {
            assert!(i % self.stride < self.n || number.wide() == SENTINEL, "number {i} was written");
        }
        (0..self.rows).flat_map(|row| wide(&self.data[row * self.stride..][..self.n])).collect()
    }

    /// How far apart its rows are, beside their length.
    pub(crate) fn hole(&self) -> usize {
        self.stride - self.n
    }

    pub(crate) fn untouched(&self) -> bool {
        self.data.iter().all(|number| number.wide() == SENTINEL)
    }
}

pub(crate) fn wide<E: Number>(values: &[E]) -> Vec<f64> {
    values.iter().map(|value| value.wide()).collect()
}

/// Numbers in the type of statistics of `E`.
pub(crate) fn wide_acc<E: Number>(values: &[E::Acc]) -> Vec<f64> {
    values.iter().map(|value| E::wide_acc(*value)).collect()
}

/// Rounded to the type of statistics of `E`.
pub(crate) fn in_acc<E: Number>(value: f64) -> f64 {
    E::wide_acc(E::acc(value))
}

pub(crate) fn of<E: Number>(values: &[f64]) -> Vec<E> {
    values.iter().map(|value| E::of(*value)).collect()
}

pub(crate) fn normal<E: Number>(random: &mut Random, len: usize) -> Vec<E> {
    // Four numbers in [0, 1) less 2 are near enough to normal, with deviation 0.58.
    (0..len).map(|_| E::of(((0..4).map(|_| random.unit()).sum::<f64>() - 2.0) * 1.75)).collect()
}

/// One thread, at the best level.
pub(crate) fn best() -> Run {
    at(levels().last().copied().unwrap())
}

/// One thread, at a level; outputs from 2 MiB on past the caches, so that tests of both ways stay small.
pub(crate) fn at(level: Level) -> Run {
    Run::default().with_level(level).with_threads(Threads::One).with_stream_from(2 << 20)
}

/// Miri knows few vector instructions.
fn levels() -> Vec<Level> {
    if cfg!(miri) { vec![Level::Portable] } else { Level::available().collect() }
}

/// Are so many numbers few enough? Under Miri, a thousand times slower, and on an emulated machine fewer are.
pub(crate) fn affordable(numbers: usize) -> bool {
    let small = std::env::var("LAYERNORM_TEST_EFFORT").is_ok();
    numbers
        <= if cfg!(miri) {
            250
        } else if small {
            50_000
        } else {
            usize::MAX
        }
}

/// All levels on one thread, then some numbers of threads: the call must give the same each time.
pub(crate) fn everywhere(what: &str, call: impl Fn(Run) -> Results + Sync) {
    let expected = call(best());
    for level in levels() {
        same_results(&format!("{what} at {level}"), &call(at(level)), &expected);
    }
    #[cfg(feature = "rayon")]
    for threads in if cfg!(miri) { vec![3] } else { vec![2, 5] } {
        let got = on(threads, &call);
        same_results(&format!("{what} on {threads} threads"), &got, &expected);
    }
}

/// The call on so many threads. Under Miri there are three and no pool, whose queues break its rules.
#[cfg(feature = "rayon")]
fn on(threads: usize, call: &(impl Fn(Run) -> Results + Sync)) -> Results {
    let run = best().with_threads(Threads::Pool);
    if cfg!(miri) {
        return call(run);
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| call(run))
}

/// How a norm with parameters for samples or rows is called.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Way {
    /// Numbers between rows.
    pub(crate) hole: usize,
    pub(crate) in_place: bool,
    /// Are the statistics taken again for the backward pass?
    pub(crate) without_saved: bool,
}

/// [`everywhere`] in the plainest way, and the same in the other ones.
pub(crate) fn in_every_way(what: &str, call: impl Fn(Way, Run) -> Results + Sync) {
    let way = Way::default();
    everywhere(what, |run| call(way, run));
    let expected = call(way, best());
    for other in [
        Way { hole: 3, ..way },
        Way { in_place: true, ..way },
        Way { hole: 1, in_place: true, ..way },
        Way { without_saved: true, ..way },
    ] {
        same_results(&format!("{what}, {other:?}"), &call(other, best()), &expected);
    }
}

/// Two levels and two threads, for outputs that are large.
pub(crate) fn here_and_there(what: &str, call: impl Fn(Run) -> Results + Sync) {
    let expected = call(best());
    same_results(&format!("{what}, portable"), &call(at(Level::Portable)), &expected);
    #[cfg(feature = "rayon")]
    same_results(&format!("{what} on 2 threads"), &on(2, &call), &expected);
}

/// Features around the thresholds of lanes and blocks, and all small ones.
pub(crate) fn lengths() -> Vec<usize> {
    match () {
        () if cfg!(miri) => vec![1, 3, 33],
        () if !affordable(100_000) => vec![1, 2, 7, 31, 32, 33, 257, 300],
        () => (1..=70).chain([127, 128, 129, 255, 256, 257, 300, 511, 512, 513]).collect(),
    }
}

/// The derivative of `loss` by `of[i]`: a difference of fourth order.
pub(crate) fn slope(of: &[f64], i: usize, loss: impl Fn(&[f64]) -> f64) -> f64 {
    let h = 1e-3;
    let at = |steps: f64| {
        let mut moved = of.to_vec();
        moved[i] += steps * h;
        loss(&moved)
    };
    (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * h)
}

/// `got` is the gradient of `loss` by `of`.
#[track_caller]
pub(crate) fn is_gradient(what: &str, got: &[f64], of: &[f64], loss: impl Fn(&[f64]) -> f64) {
    assert_eq!(got.len(), of.len(), "{what}");
    for (i, got) in got.iter().enumerate() {
        let slope = slope(of, i, &loss);
        assert!(
            (got - slope).abs() <= 1e-8 * (1.0 + slope.abs()),
            "{what}[{i}]: {got}, by differences {slope}"
        );
    }
}

/// What y may be off by: 8 u |g| max(1, |x_hat|), and the rounding of the type.
pub(crate) fn y_bound<E: Number>(x_hat: f64, weight: f64, y: f64) -> f64 {
    // Of f64 the oracle, in f64 itself, may err as much.
    let u = if E::U == E::ACC_U && E::ACC_U < 1e-10 { 2.0 * E::ACC_U } else { E::ACC_U };
    8.0 * u * weight.abs() * x_hat.abs().max(1.0) + E::U * y.abs() * 1.001 + u * y.abs() + E::TINY
}

/// What dx of a row may be off by: 16 u r max |g dy| max(1, |x_hat|), and the rounding of the type.
pub(crate) fn dx_bound<E: Number, R: Number>(unit: f64, x_hat: f64, dx: f64) -> f64 {
    16.0 * E::ACC_U * unit * x_hat.abs().max(1.0) + (R::U * 1.001 + 2.0 * E::ACC_U) * dx.abs() + R::TINY
}

/// What a sum over rows may be off by, given the sum of magnitudes.
pub(crate) fn sum_bound<E: Number>(rows: usize, magnitudes: f64) -> f64 {
    (16.0 + (rows.max(1) as f64).log2()) * E::ACC_U * magnitudes + 1e-44
}

/// Rows of sums, in the type of statistics of `E`.
pub(crate) struct Sums<E: Number> {
    data: Vec<E::Acc>,
    rows: usize,
    n: usize,
}

impl<E: Number> Sums<E> {
    pub(crate) fn new(rows: usize, n: usize) -> Self {
        Self { data: vec![E::acc(SENTINEL); rows * n], rows, n }
    }

    pub(crate) fn rows_mut(&mut self) -> RowsMut<'_, E::Acc> {
        RowsMut::strided(&mut self.data, self.rows, self.n, self.n).unwrap()
    }

    pub(crate) fn wide(&self) -> Vec<f64> {
        wide_acc::<E>(&self.data)
    }
}

/// Some rows that the fast loops do, some that are constant or at the ends of the range, some that hold what is no
/// number.
pub(crate) fn hard_rows<E: Number>(x: &mut [E], n: usize, random: &mut Random) {
    for (row, x) in x.chunks_mut(n).enumerate() {
        match row % 7 {
            1 => x.iter_mut().for_each(|x| *x = E::of(x.wide() * 3e4)),
            2 => x.fill(E::of(0.5)),
            3 => x.iter_mut().for_each(|x| *x = E::of(x.wide() * 1e30)),
            4 => x[random.below(n)] = E::of(f64::NAN),
            5 => x[random.below(n)] = E::of(f64::INFINITY),
            _ => {}
        }
    }
}
