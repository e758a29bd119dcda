//! The loop over rows: statistics over contiguous features, then the affine map; forward and backward.
//!
//! A row takes two or three passes. Only the first reads memory, the others find the row in cache; so each
//! row's last pass, which writes, runs beside the next row's last reading one, which asks for the memory of the row
//! after it, and the memory never waits for the arithmetic:
//!
//! ```text
//! forward   statistics(x[0])
//!           for each row r:  write y[r]   beside  statistics(x[r + 1]), asking for x[r + 2]
//! backward  projections(x[0], dy[0])
//!           for each row r:  write dx[r], add to dweight, dbias   beside  projections(x[r + 1], dy[r + 1])
//! ```
//!
//! One body, compiled once, serves both kinds of [`Statistics`]: those of RMS norm are a pass less, and then m = c = 0, with
//! which the same formulas drop the mean exactly, zero signs included.

pub(crate) mod add;
pub(crate) mod backward;
pub(crate) mod branch;
pub(crate) mod columns;
pub(crate) mod forward;
pub(crate) mod groups;
pub(crate) mod last_pass;
pub(crate) mod quantised;
pub(crate) mod seam;
pub(crate) mod short;
mod table;
pub(crate) mod totals;
mod ways;

use crate::affine::{Affine, Parameters, Register, Scratch};
use crate::element::private::Stored;
use crate::form::{Form, in_range};
use crate::order::{Beside, Nothing, Plainly, Resting, Spread, Terms, sums};
use crate::real::private::Number;
use crate::rows::{Column, Mixed, MixedMut, Place, PlaceMut, Source, Target};
use crate::vector::{LINE, Memory, Vector, Work};
use crate::{Element, Real};
use std::cmp::Ordering;
use std::marker::PhantomData;

/// How far ahead of a pass that reads memory in order to prefetch, in bytes: two pages, because the processor's own
/// prefetching stops at the end of each.
const AHEAD: usize = 8192;

/// Two rows of so many bytes and a weight leave the first cache. What goes beside a sum of the next row is then spread
/// evenly; the bursts of shorter rows, which take fewer instructions, would be in the way of what comes from the second.
const LONG: usize = 8192;

/// Which statistics a norm takes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statistics {
    /// Mean and variance: layer norm.
    Centred,
    /// Mean square: RMS norm.
    Uncentred,
}

/// The statistics of a row: x_hat = fma(x - m, rstd, -(c rstd)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments<T> {
    pub(crate) m: T,
    pub(crate) c: T,
    pub(crate) rstd: T,
    /// What the projection of a gradient on x_hat is multiplied by: 1 where epsilon is in the root. Not saved.
    pub(crate) along: T,
}

impl<T: Real> Moments<T> {
    /// Of no row.
    pub(crate) fn none() -> Self {
        let zero = T::from_f64(0.0);
        Self { m: zero, c: zero, rstd: zero, along: zero }
    }

    /// With which x_hat is x, bit for bit.
    pub(crate) fn unit() -> Self {
        Self { rstd: T::from_f64(1.0), ..Self::none() }
    }
}

/// Statistics of rows in memory, one number a row in each column: columns to read or columns to write.
#[derive(Clone, Copy)]
pub(crate) struct Columns<C> {
    /// m and c. RMS norm has none.
    pub(crate) centre: Option<[C; 2]>,
    pub(crate) rstd: C,
}

impl<T: Real> Columns<&[T]> {
    /// From row `index` on.
    pub(crate) fn from(self, index: usize) -> Self {
        Self { centre: self.centre.map(|columns| columns.map(|of| &of[index..])), rstd: &self.rstd[index..] }
    }

    /// # Safety
    /// The row exists.
    #[inline(always)]
    unsafe fn get(self, row: usize) -> Moments<T> {
        // SAFETY: the caller's.
        unsafe {
            let zero = T::from_f64(0.0);
            let [m, c] =
                self.centre.map_or([zero; 2], |[m, c]| [*m.get_unchecked(row), *c.get_unchecked(row)]);
            Moments { m, c, rstd: *self.rstd.get_unchecked(row), along: T::from_f64(1.0) }
        }
    }
}

impl<T: Real> Columns<Column<'_, T>> {
    /// From row `index` on.
    ///
    /// # Safety
    /// There is such a row.
    pub(crate) unsafe fn from(self, index: usize) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self {
                centre: self.centre.map(|[m, c]| [m.from(index), c.from(index)]),
                rstd: self.rstd.from(index),
            }
        }
    }

    /// # Safety
    /// The row exists and is this thread's.
    #[inline(always)]
    pub(crate) unsafe fn set(self, row: usize, moments: Moments<T>) {
        // SAFETY: the caller's.
        unsafe {
            if let Some([m, c]) = self.centre {
                m.set(row, moments.m);
                c.set(row, moments.c);
            }
            self.rstd.set(row, moments.rstd);
        }
    }
}

/// x_hat in registers.
#[derive(Clone, Copy)]
pub(crate) struct Standardise<V> {
    m: V,
    pub(crate) rstd: V,
    shift: V,
}

impl<V: Copy> Standardise<V> {
    #[inline(always)]
    fn new<T: Real, S: Vector<T, V = V>>(s: S, of: Moments<T>) -> Self {
        let shift = of.c.mul(of.rstd).neg();
        Self { m: s.splat(of.m), rstd: s.splat(of.rstd), shift: s.splat(shift) }
    }

    /// Of m, c and rstd in registers, each lane by itself.
    #[inline(always)]
    pub(crate) fn of_lanes<T: Real, S: Vector<T, V = V>>(s: S, [m, c, rstd]: [V; 3]) -> Self {
        let shift = s.fnma(c, rstd, s.splat(T::from_f64(-0.0)));
        Self { m, rstd, shift }
    }

    #[inline(always)]
    pub(crate) fn apply<T: Real, S: Vector<T, V = V>>(self, s: S, x: V) -> V {
        // Without a mean, m is +0, and x - 0 is x.
        s.fma(s.sub(x, self.m), self.rstd, self.shift)
    }
}

impl<E: Element> Place<E> {
    /// `count` numbers from `at` on; +0 in the other lanes.
    ///
    /// # Safety
    /// The place has `at + count` numbers; `count <= S::WIDTH`.
    #[inline(always)]
    pub(crate) unsafe fn load<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe {
            if self.is_wide() {
                load::<E::Acc, S>(s, self.start.cast(), at, count)
            } else {
                let from = self.start.add(at);
                if count == S::WIDTH { s.read(from) } else { s.read_first(from, count) }
            }
        }
    }
}

impl<E: Element> PlaceMut<E> {
    /// Write `count` numbers from `at` on, past the cache if `stream`.
    ///
    /// # Safety
    /// The place has `at + count` numbers, `count <= S::WIDTH`; to `stream` they fill a register, and are aligned
    /// elements.
    #[inline(always)]
    pub(crate) unsafe fn store<S: Memory<E>>(self, s: S, at: usize, count: usize, v: S::V, stream: bool) {
        // SAFETY: the caller's.
        unsafe {
            if self.is_wide() {
                return store::<E::Acc, S>(s, self.start.cast(), at, count, v);
            }
            let to = self.start.add(at);
            if stream {
                s.write_past(to, v);
            } else if count == S::WIDTH {
                s.write(to, v);
            } else {
                s.write_first(to, v, count);
            }
        }
    }
}

/// `count` numbers of `from`, from `at` on; +0 in the other lanes.
///
/// # Safety
/// `from` is valid for reads of `at + count` numbers.
#[inline(always)]
pub(crate) unsafe fn load<T: Real, S: Vector<T>>(s: S, from: *const T, at: usize, count: usize) -> S::V {
    // SAFETY: the caller's.
    unsafe { if count == S::WIDTH { s.load(from.add(at)) } else { s.load_first(from.add(at), count) } }
}

/// Write `count` numbers to `to`, from `at` on.
///
/// # Safety
/// `to` is valid for writes of `at + count` numbers.
#[inline(always)]
pub(crate) unsafe fn store<T: Real, S: Vector<T>>(s: S, to: *mut T, at: usize, count: usize, v: S::V) {
    // SAFETY: the caller's.
    unsafe { if count == S::WIDTH { s.store(to.add(at), v) } else { s.store_first(to.add(at), v, count) } }
}

/// The numbers of a row, in memory or not yet.
trait RowNumbers<T: Real, S: Vector<T>> {
    /// `count` numbers from `at` on; +0 in the other lanes.
    ///
    /// # Safety
    /// The row has these numbers, `count <= S::WIDTH`.
    unsafe fn get(&self, s: S, at: usize, count: usize) -> S::V;
}

impl<E: Element, S: Memory<E>> RowNumbers<E::Acc, S> for Place<E> {
    #[inline(always)]
    unsafe fn get(&self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe { self.load(s, at, count) }
    }
}

/// The numbers of a row, or their squares.
struct Summed<N> {
    numbers: N,
    squared: bool,
}

/// What is left of a row without `m`: its sum, and the sum of its squares.
pub(crate) struct Deviations<E, V>(pub(crate) Place<E>, pub(crate) V);

impl<T: Real, S: Vector<T>, N: RowNumbers<T, S>> Terms<T, S> for Summed<N> {
    const SUMS: usize = 1;

    #[inline(always)]
    unsafe fn add(&self, s: S, at: usize, count: usize, [sum, unused]: [S::V; 2]) -> [S::V; 2] {
        // SAFETY: the caller's: the row has these positions. The other lanes get +0.
        let x = unsafe { self.numbers.get(s, at, count) };
        [if self.squared { s.fma(x, x, sum) } else { s.add(sum, x) }, unused]
    }
}

impl<E: Element, S: Memory<E>> Terms<E::Acc, S> for Deviations<E, S::V> {
    const SUMS: usize = 2;

    #[inline(always)]
    unsafe fn add(&self, s: S, at: usize, count: usize, [sum, squares]: [S::V; 2]) -> [S::V; 2] {
        // SAFETY: the caller's: the row has these positions.
        let mut d = s.sub(unsafe { self.0.load(s, at, count) }, self.1);
        if count < S::WIDTH {
            d = s.keep_first(d, count);
        }
        [s.add(sum, d), s.fma(d, d, squares)]
    }
}

/// Asks for the memory from some addresses on, which need not be anyone's: as many bytes as elements of `E` would take.
struct Prefetch<E, const ARRAYS: usize> {
    from: [*const u8; ARRAYS],
    elements: PhantomData<E>,
}

impl<E, const ARRAYS: usize> Prefetch<E, ARRAYS> {
    fn new(from: [*const u8; ARRAYS]) -> Self {
        Self { from, elements: PhantomData }
    }
}

impl<E: Element, S: Memory<E>, const ARRAYS: usize> Beside<E::Acc, S> for Prefetch<E, ARRAYS> {
    const STREAMS: bool = false;

    #[inline(always)]
    unsafe fn step(&mut self, s: S) {
        for from in &mut self.from {
            for _ in 0..E::Acc::LANES * size_of::<E>() / LINE {
                s.prefetch(*from);
                *from = from.wrapping_byte_add(LINE);
            }
        }
    }
}

impl Statistics {
    /// The first pass over a row: the sum that [`Statistics::second_pass`] wants. `beside` is other work to do meanwhile.
    ///
    /// # Safety
    /// `x` has the numbers that `form` uses, and what `beside` wants.
    #[inline(always)]
    unsafe fn first_pass<E, S, B>(self, s: S, x: Place<E>, form: &Form<E::Acc>, beside: &mut B) -> E::Acc
    where
        E: Element,
        S: Memory<E>,
        B: Beside<E::Acc, S>,
    {
        let terms = self.summed(x);
        // SAFETY: the caller's.
        unsafe {
            let [sum, _] = if self == Self::Centred {
                // The pass before this one, over the row before, asked for this row; so will the next one for the next row.
                sums(s, form.used, &terms, &mut Resting::<B>(PhantomData))
            } else {
                let ahead = Prefetch::<E, 1>::new([x.bytes_on(AHEAD)]);
                sums(s, form.used, &terms, &mut (&mut spread(beside, form.used * size_of::<E>()), ahead))
            };
            sum
        }
    }

    /// What the first pass sums.
    #[inline(always)]
    fn summed<N>(self, numbers: N) -> Summed<N> {
        Summed { numbers, squared: self == Self::Uncentred }
    }

    /// The statistics of a row, given the sum of its numbers, or of their squares; `None` if they need more range than its
    /// type has (see [`crate::wide`]). `beside` is other work to do meanwhile, and memory is asked for so many bytes `ahead`.
    ///
    /// # Safety
    /// As [`Statistics::first_pass`].
    #[inline(always)]
    unsafe fn second_pass<E, S, B>(
        self,
        s: S,
        (sum, x, ahead): (E::Acc, Place<E>, usize),
        form: &Form<E::Acc>,
        beside: &mut B,
    ) -> Option<Moments<E::Acc>>
    where
        E: Element,
        S: Memory<E>,
        B: Beside<E::Acc, S>,
    {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Self::Centred => {
                    let ahead = Prefetch::<E, 1>::new([x.bytes_on(ahead)]);
                    centred(s, sum, x, form, &mut (&mut spread(beside, form.used * size_of::<E>()), ahead))
                }
                Self::Uncentred => uncentred(sum, form),
            }
        }
    }

    /// Both passes over a row in cache, by themselves: a sum by itself takes several blocks at once.
    ///
    /// # Safety
    /// As [`Statistics::first_pass`].
    #[inline(always)]
    pub(crate) unsafe fn in_cache<E, S>(
        self,
        s: S,
        x: Place<E>,
        form: &Form<E::Acc>,
    ) -> Option<Moments<E::Acc>>
    where
        E: Element,
        S: Memory<E>,
    {
        s.outlined(InCache { statistics: self, sum: None, x, form })
    }
}

/// A work beside a pass over a row of so many bytes.
#[inline(always)]
fn spread<B>(work: &mut B, bytes: usize) -> Spread<'_, B> {
    Spread { work, evenly: bytes > LONG }
}

/// Those of layer norm, given the sum of the row.
///
/// # Safety
/// As [`Statistics::first_pass`].
#[inline(always)]
unsafe fn centred<E, S, B>(
    s: S,
    sum: E::Acc,
    x: Place<E>,
    form: &Form<E::Acc>,
    beside: &mut B,
) -> Option<Moments<E::Acc>>
where
    E: Element,
    S: Memory<E>,
    B: Beside<E::Acc, S>,
{
    let zero = E::Acc::from_f64(0.0);
    let mut m = sum.div(E::Acc::from_count(form.count));
    let mut repeated = false;
    let (c, mut var) = loop {
        // SAFETY: the caller's.
        let (c, var) = unsafe { deviations(s, x, form, m, beside) };
        if repeated || var.partial_cmp(&c.mul(c)) != Some(Ordering::Less) {
            break (c, var);
        }
        m = m.add(c);
        repeated = true;
    };
    if var < zero {
        var = zero;
    }
    let [rstd, along] = form.reciprocal(var)?;
    Some(Moments { m, c, rstd, along })
}

/// Those of RMS norm, given the sum of the row's squares.
#[inline(always)]
fn uncentred<T: Real>(squares: T, form: &Form<T>) -> Option<Moments<T>> {
    let zero = T::from_f64(0.0);
    let [rstd, along] = form.reciprocal(squares.div(T::from_count(form.count)))?;
    Some(Moments { m: zero, c: zero, rstd, along })
}

/// [`Statistics::in_cache`], out of line; without the first pass, given its sum.
struct InCache<'a, E: Element> {
    statistics: Statistics,
    sum: Option<E::Acc>,
    x: Place<E>,
    form: &'a Form<E::Acc>,
}

impl<E: Element, S: Memory<E>> Work<S> for InCache<'_, E> {
    type Output = Option<Moments<E::Acc>>;

    #[inline(always)]
    fn run(self, s: S) -> Self::Output {
        let Self { statistics, sum, x, form } = self;
        // SAFETY: who makes these promises what `Statistics::first_pass` wants.
        unsafe {
            let (sum, ahead) = match sum {
                // The row was added up just now: there is nothing to ask for.
                Some(sum) => (sum, 0),
                None => {
                    (statistics.first_pass(s, x, form, &mut Nothing), AHEAD.max(form.used * size_of::<E>()))
                }
            };
            statistics.second_pass(s, (sum, x, ahead), form, &mut Nothing)
        }
    }
}

/// mean(x - m), and the variance that follows from it and mean((x - m)^2).
///
/// # Safety
/// As [`Statistics::first_pass`].
#[inline(always)]
unsafe fn deviations<E, S, B>(
    s: S,
    x: Place<E>,
    form: &Form<E::Acc>,
    m: E::Acc,
    beside: &mut B,
) -> (E::Acc, E::Acc)
where
    E: Element,
    S: Memory<E>,
    B: Beside<E::Acc, S>,
{
    // SAFETY: the caller's.
    let sums = unsafe { sums(s, form.used, &Deviations(x, s.splat(m)), beside) };
    mean_and_variance(sums, E::Acc::from_count(form.count))
}

/// Of `count` numbers, given their sum and that of their squares.
#[inline(always)]
fn mean_and_variance<T: Real>([sum, squares]: [T; 2], count: T) -> (T, T) {
    let c = sum.div(count);
    (c, c.neg().fma(c, squares.div(count)))
}
