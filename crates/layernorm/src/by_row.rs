//! The loop over rows: statistics over contiguous features, then the affine map; forward and backward.
//!
//! A row takes two or three passes. Only the first reads memory, the others find the row in cache; so each
//! row's last pass, which writes, runs beside the next row's others, and the memory never waits for the
//! arithmetic:
//!
//! ```text
//! forward   statistics(x[0])
//!           for each row r:  write y[r]   beside  statistics(x[r + 1])
//! backward  projections(x[0], dy[0])
//!           for each row r:  write dx[r], add to dweight, dbias   beside  projections(x[r + 1], dy[r + 1])
//! ```
//!
//! One body serves both kinds of statistics: [`Centred`] (layer norm) and [`Uncentred`] (RMS norm, where
//! m = c = 0 and the same formulas drop the mean exactly, zero signs included).

pub(crate) mod backward;
pub(crate) mod forward;
mod last_pass;
mod stage;
mod totals;

use crate::Real;
use crate::order::{Beside, Nothing, Terms, sums};
use crate::rows::{Source, Target};
use crate::vector::{LINE, Vector};
use std::cmp::Ordering;
use std::marker::PhantomData;

/// Outputs of this many bytes are written past the cache: they would not stay in it, and a write through
/// the cache reads its line first.
const STREAM_FROM: usize = 2 << 20;

/// How far ahead of a pass that reads memory in order to prefetch, in bytes.
const AHEAD: usize = 1024;

/// Rows of at most this many bytes are short: memory is read some rows ahead of them.
const SHORT: usize = 4096;

/// Which statistics a norm takes of a row.
pub(crate) trait Kind: Copy + Send + Sync {
    /// Is the mean subtracted?
    const CENTRED: bool;
}

/// Which [`Kind`], as a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Statistics {
    Centred,
    Uncentred,
}

/// Mean and variance.
#[derive(Clone, Copy)]
pub(crate) struct Centred;

/// Mean square.
#[derive(Clone, Copy)]
pub(crate) struct Uncentred;

impl Kind for Centred {
    const CENTRED: bool = true;
}

impl Kind for Uncentred {
    const CENTRED: bool = false;
}

/// The statistics of a row: x_hat = fma(x - m, rstd, -(c rstd)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments<T> {
    pub(crate) m: T,
    pub(crate) c: T,
    pub(crate) rstd: T,
}

impl<T: Real> Moments<T> {
    /// Of no row.
    fn none() -> Self {
        let zero = T::from_f64(0.0);
        Self { m: zero, c: zero, rstd: zero }
    }
}

/// Statistics of rows in memory, one number a row in each column: columns to read or columns to write.
#[derive(Clone, Copy)]
pub(crate) struct Columns<C> {
    /// m and c. RMS norm has none.
    pub(crate) centre: Option<[C; 2]>,
    pub(crate) rstd: C,
}

impl<T: Real> Columns<Source<'_, T>> {
    /// # Safety
    /// The row exists.
    unsafe fn get(self, row: usize) -> Moments<T> {
        // SAFETY: the caller's.
        unsafe {
            let [m, c] = self.centre.map_or([T::from_f64(0.0); 2], |of| of.map(|column| *column.row(row)));
            Moments { m, c, rstd: *self.rstd.row(row) }
        }
    }
}

impl<T: Real> Columns<Target<'_, T>> {
    /// # Safety
    /// The row exists and is this thread's.
    unsafe fn set(self, row: usize, moments: Moments<T>) {
        // SAFETY: the caller's.
        unsafe {
            if let Some([m, c]) = self.centre {
                *m.row(row) = moments.m;
                *c.row(row) = moments.c;
            }
            *self.rstd.row(row) = moments.rstd;
        }
    }
}

/// x_hat in registers.
#[derive(Clone, Copy)]
struct Standardise<V, K> {
    m: V,
    rstd: V,
    shift: V,
    kind: PhantomData<K>,
}

impl<V: Copy, K: Kind> Standardise<V, K> {
    #[inline(always)]
    fn new<T: Real, S: Vector<T, V = V>>(s: S, of: Moments<T>) -> Self {
        let shift = of.c.mul(of.rstd).neg();
        Self { m: s.splat(of.m), rstd: s.splat(of.rstd), shift: s.splat(shift), kind: PhantomData }
    }

    #[inline(always)]
    fn apply<T: Real, S: Vector<T, V = V>>(self, s: S, x: V) -> V {
        let deviation = if K::CENTRED { s.sub(x, self.m) } else { x };
        s.fma(deviation, self.rstd, self.shift)
    }
}

/// A weight or a bias: one number a feature, or one for all.
///
/// Both are read in the same way, so that one loop serves them: `same` again and again costs a load from the
/// first cache, which no loop is short of.
pub(crate) struct Affine<'a, T> {
    per_unit: Option<&'a [T]>,
    same: Register<T>,
}

/// As many numbers as the widest register has.
#[repr(align(64))]
struct Register<T>([T; LINE / size_of::<f32>()]);

impl<'a, T: Real> Affine<'a, T> {
    /// `values`: one a feature, a single one, or none, which is the same as `absent`.
    pub(crate) fn new(values: Option<&'a [T]>, absent: f64, features: usize) -> Self {
        let per_unit = values.filter(|values| values.len() == features);
        let same = values.and_then(|values| values.first().copied()).unwrap_or(T::from_f64(absent));
        Self { per_unit, same: Register([same; _]) }
    }

    fn numbers(&self) -> Numbers<'_, T> {
        match self.per_unit {
            Some(values) => Numbers { values, mask: usize::MAX },
            None => Numbers { values: &self.same.0, mask: 0 },
        }
    }
}

/// An [`Affine`] by position.
#[derive(Clone, Copy)]
struct Numbers<'a, T> {
    values: &'a [T],
    /// Of a position: all of it, or nothing.
    mask: usize,
}

impl<T: Real> Numbers<'_, T> {
    /// The numbers for `count` features from `at` on.
    ///
    /// # Safety
    /// The features exist.
    #[inline(always)]
    unsafe fn get<S: Vector<T>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's: there is one number a feature; or a register of them, read from its start.
        unsafe { load(s, self.values.as_ptr(), at & self.mask, count) }
    }
}

/// `count` numbers of `from`, from `at` on; +0 in the other lanes.
///
/// # Safety
/// `from` is valid for reads of `at + count` numbers.
#[inline(always)]
unsafe fn load<T: Real, S: Vector<T>>(s: S, from: *const T, at: usize, count: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { if count == S::WIDTH { s.load(from.add(at)) } else { s.load_first(from.add(at), count) } }
}

/// Write `count` numbers to `to`, from `at` on.
///
/// # Safety
/// `to` is valid for writes of `at + count` numbers.
#[inline(always)]
unsafe fn store<T: Real, S: Vector<T>>(s: S, to: *mut T, at: usize, count: usize, v: S::V) {
    // SAFETY: the caller's.
    unsafe { if count == S::WIDTH { s.store(to.add(at), v) } else { s.store_first(to.add(at), v, count) } }
}

/// The numbers of a row: their sum.
struct Sum<T>(*const T);

/// The numbers of a row: the sum of their squares.
struct Squares<T>(*const T);

/// What is left of a row without `m`: its sum, and the sum of its squares.
struct Deviations<T, V>(*const T, V);

impl<T: Real, S: Vector<T>> Terms<T, S> for Sum<T> {
    const SUMS: usize = 1;

    #[inline(always)]
    unsafe fn add(&self, s: S, at: usize, count: usize, [sum, unused]: [S::V; 2]) -> [S::V; 2] {
        // SAFETY: the caller's: the row has these positions. The other lanes get +0.
        [s.add(sum, unsafe { load(s, self.0, at, count) }), unused]
    }
}

impl<T: Real, S: Vector<T>> Terms<T, S> for Squares<T> {
    const SUMS: usize = 1;

    #[inline(always)]
    unsafe fn add(&self, s: S, at: usize, count: usize, [sum, unused]: [S::V; 2]) -> [S::V; 2] {
        // SAFETY: the caller's: the row has these positions. The other lanes get +0.
        let x = unsafe { load(s, self.0, at, count) };
        [s.fma(x, x, sum), unused]
    }
}

impl<T: Real, S: Vector<T>> Terms<T, S> for Deviations<T, S::V> {
    const SUMS: usize = 2;

    #[inline(always)]
    unsafe fn add(&self, s: S, at: usize, count: usize, [sum, squares]: [S::V; 2]) -> [S::V; 2] {
        // SAFETY: the caller's: the row has these positions.
        let mut d = s.sub(unsafe { load(s, self.0, at, count) }, self.1);
        if count < S::WIDTH {
            d = s.keep_first(d, count);
        }
        [s.add(sum, d), s.fma(d, d, squares)]
    }
}

/// Asks for the memory from some addresses on, which need not be anyone's.
struct Prefetch<T, const ARRAYS: usize>([*const T; ARRAYS]);

impl<T: Real, S: Vector<T>, const ARRAYS: usize> Beside<T, S> for Prefetch<T, ARRAYS> {
    const STREAMS: bool = false;

    #[inline(always)]
    unsafe fn step<const LINES: usize>(&mut self, s: S) {
        for from in &mut self.0 {
            for _ in 0..LINES {
                s.prefetch(*from);
                *from = from.wrapping_byte_add(LINE);
            }
        }
    }
}

/// The statistics of a row; `None` if they need more range than `T` has (see [`crate::wide`]).
/// `beside` is other work to do meanwhile, and `ahead` the row that will be read next.
///
/// # Safety
/// `x` is valid for reads of `n` numbers, and what `beside` wants.
#[inline(always)]
unsafe fn statistics<T, S, K, B>(
    s: S,
    x: *const T,
    n: usize,
    eps: T,
    beside: &mut B,
    ahead: *const T,
) -> Option<Moments<T>>
where
    T: Real,
    S: Vector<T>,
    K: Kind,
    B: Beside<T, S>,
{
    let count = T::from_count(n);
    let zero = T::from_f64(0.0);
    if !K::CENTRED {
        let mut beside = (beside, Prefetch([x.wrapping_byte_add(AHEAD)]));
        // SAFETY: the caller's.
        let [squares, _] = unsafe { sums::<_, _, _, _, 2>(s, n, &Squares(x), &mut beside) };
        return Some(Moments { m: zero, c: zero, rstd: rstd(squares.div(count), eps)? });
    }
    // Half of the other work, and half of the reading, in each pass: the memory is never idle.
    // Of a long row the second half is fetched in the first pass, and the first half of the next row in the
    // second; of short rows, one that comes soon enough.
    let row = n * size_of::<T>();
    let soon = x.wrapping_byte_add(row.max(AHEAD));
    let (rest, ahead) =
        if row <= SHORT { (soon, soon.wrapping_add(n / 2)) } else { (x.wrapping_add(n / 2), ahead) };
    let mut first = (&mut *beside, Prefetch([rest]));
    // SAFETY: the caller's.
    let [sum, _] = unsafe { sums::<_, _, _, _, 1>(s, n, &Sum(x), &mut first) };
    let mut m = sum.div(count);
    let mut beside = (beside, Prefetch([ahead]));
    let mut repeated = false;
    let (c, mut var) = loop {
        // SAFETY: the caller's.
        let (c, var) = unsafe { deviations(s, x, n, m, &mut beside) };
        if repeated || var.partial_cmp(&c.mul(c)) != Some(Ordering::Less) {
            break (c, var);
        }
        m = m.add(c);
        repeated = true;
    };
    if var < zero {
        var = zero;
    }
    Some(Moments { m, c, rstd: rstd(var, eps)? })
}

/// mean(x - m), and the variance that follows from it and mean((x - m)^2).
///
/// # Safety
/// As [`statistics`].
#[inline(always)]
unsafe fn deviations<T, S, B>(s: S, x: *const T, n: usize, m: T, beside: &mut B) -> (T, T)
where
    T: Real,
    S: Vector<T>,
    B: Beside<T, S>,
{
    let count = T::from_count(n);
    // SAFETY: the caller's.
    let [sum, squares] = unsafe { sums::<_, _, _, _, 1>(s, n, &Deviations(x, s.splat(m)), beside) };
    let c = sum.div(count);
    (c, c.neg().fma(c, squares.div(count)))
}

/// 1 / sqrt(var + eps), if var + eps is in range.
#[inline(always)]
fn rstd<T: Real>(var: T, eps: T) -> Option<T> {
    let v = var.add(eps);
    let (low, high) = (power::<T>(T::RANGE.0), power::<T>(T::RANGE.1));
    (low <= v && v <= high).then(|| T::from_f64(1.0).div(v.sqrt()))
}

/// 2^exponent.
#[inline(always)]
fn power<T: Real>(exponent: i32) -> T {
    T::from_f64(crate::wide::power_of_two(exponent))
}
