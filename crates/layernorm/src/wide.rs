//! Rows that need more range than their type has: redone in f64, in the same order, and rounded at the end.
//!
//! The fast loops hand a row over when a sum is not finite or var + eps lies outside [`Number::RANGE`],
//! where squares lose digits or overflow. Nothing here is fast, and nothing depends on the level. All
//! quantities are scaled by powers of two, which changes no digit, so that f64 rows have room too.
//!
//! [`Number::RANGE`]: crate::real::private::Number::RANGE

use crate::by_row::{Kind, Moments};
use crate::order::Carry;
use crate::{Params, Real};
use std::ops::Range;

/// 2^exponent, for exponents of normal numbers.
pub(crate) const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// value * 2^exponent, rounded once (twice where the result is subnormal).
fn scale(value: f64, exponent: i32) -> f64 {
    // Three steps reach from one end of the range to the other.
    let step = (exponent / 3).clamp(-1022, 1023);
    let rest = (exponent - 2 * step).clamp(-1022, 1023);
    value * power_of_two(step) * power_of_two(step) * power_of_two(rest)
}

/// The exponent of two of a finite number; of 0 and of what is not finite, 0.
fn exponent(value: f64) -> i32 {
    if value == 0.0 || !value.is_finite() {
        return 0;
    }
    let biased = |value: f64| (value.to_bits() >> 52 & 0x7ff) as i32;
    match biased(value) {
        0 => biased(value * power_of_two(64)) - 64 - 1023,
        normal => normal - 1023,
    }
}

/// The largest of `n` absolute values; NaN is skipped.
fn largest(n: usize, value: impl Fn(usize) -> f64) -> f64 {
    (0..n).fold(0.0, |max: f64, i| max.max(value(i).abs()))
}

/// The canonical sum of `n` terms in the order of `T`, in f64. A term is `a * b`, added by one fma.
fn sum<T: Real>(n: usize, term: impl Fn(usize) -> [f64; 2]) -> f64 {
    let mut carry = Carry::starting_at(0);
    let mut nodes = [0.0; usize::BITS as usize];
    for start in (0..n).step_by(T::BLOCK) {
        let step = carry.push();
        let block = block::<T>(start..n.min(start + T::BLOCK), &term);
        nodes[step.level] = step.absorb.fold(block, |right, level| nodes[level] + right);
    }
    let mut left = carry.finish();
    let last = left.next().map_or(0.0, |level| nodes[level]);
    left.fold(last, |right, level| nodes[level] + right)
}

/// One block of a [`sum`].
fn block<T: Real>(positions: Range<usize>, term: impl Fn(usize) -> [f64; 2]) -> f64 {
    let mut lanes = [0.0f64; 32];
    for (j, position) in positions.enumerate() {
        let [a, b] = term(position);
        let lane = &mut lanes[j % T::LANES];
        *lane = a.mul_add(b, *lane);
    }
    let mut width = T::LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            lanes[i] = lanes[2 * i] + lanes[2 * i + 1];
        }
    }
    lanes[0]
}

/// Statistics of a row: x is scaled by 2^-x_exponent, its deviations and 1 / r by 2^-d_exponent.
struct Wide {
    x_exponent: i32,
    d_exponent: i32,
    m: f64,
    c: f64,
    r: f64,
}

impl Wide {
    fn new<T: Real, K: Kind>(n: usize, eps: f64, x: impl Fn(usize) -> f64) -> Self {
        let x_exponent = exponent(largest(n, &x));
        let mut of = Self { x_exponent, d_exponent: x_exponent, m: 0.0, c: 0.0, r: 0.0 };
        if K::CENTRED {
            of.m = sum::<T>(n, |i| [scale(x(i), -x_exponent), 1.0]) / n as f64;
        }
        let mut var = of.variance::<T, K>(n, eps, &x);
        if K::CENTRED && var < of.c * of.c {
            of.m += scale(of.c, of.d_exponent - x_exponent);
            var = of.variance::<T, K>(n, eps, &x);
        }
        let v = if var < 0.0 { 0.0 } else { var } + scale(eps, -2 * of.d_exponent);
        of.r = if v == 0.0 { 0.0 } else { 1.0 / v.sqrt() };
        of
    }

    fn deviation(&self, x: f64) -> f64 {
        scale(scale(x, -self.x_exponent) - self.m, self.x_exponent - self.d_exponent)
    }

    fn variance<T: Real, K: Kind>(&mut self, n: usize, eps: f64, x: &impl Fn(usize) -> f64) -> f64 {
        // The scale of the deviations, or of eps where that is more: then var or eps is about 1.
        self.d_exponent = self.x_exponent;
        let spread = largest(n, |i| self.deviation(x(i)));
        let spread = (spread > 0.0).then(|| exponent(spread) + self.x_exponent);
        let floor = (eps > 0.0).then(|| exponent(eps) / 2);
        self.d_exponent = spread.max(floor).unwrap_or(self.x_exponent);

        let mean_square = sum::<T>(n, |i| [self.deviation(x(i)); 2]) / n as f64;
        if K::CENTRED {
            self.c = sum::<T>(n, |i| [self.deviation(x(i)), 1.0]) / n as f64;
        }
        (-self.c).mul_add(self.c, mean_square)
    }

    fn x_hat(&self, x: f64) -> f64 {
        self.deviation(x).mul_add(self.r, -(self.c * self.r))
    }

    fn moments<T: Real>(&self) -> Moments<T> {
        let mean = scale(self.m, self.x_exponent);
        let m = T::from_f64(mean);
        Moments {
            m,
            c: T::from_f64(mean - m.to_f64() + scale(self.c, self.d_exponent)),
            rstd: T::from_f64(scale(self.r, -self.d_exponent)),
        }
    }
}

/// The parameter of feature `i`.
fn parameter<T: Real>(values: Option<&[T]>, absent: f64, i: usize) -> f64 {
    values.map_or(absent, |values| values[if values.len() == 1 { 0 } else { i }].to_f64())
}

/// The statistics of one row, as they are saved.
///
/// # Safety
/// `x` is valid for reads of `n` numbers.
#[cold]
#[inline(never)]
pub(crate) unsafe fn statistics<T: Real, K: Kind>(x: *const T, n: usize, eps: T) -> Moments<T> {
    // SAFETY: the caller's, for `i < n`.
    Wide::new::<T, K>(n, eps.to_f64(), |i| unsafe { *x.add(i) }.to_f64()).moments()
}

/// Normalise one row; gives the statistics to save.
///
/// # Safety
/// `x` is valid for reads and `y` for writes of `n` numbers; they may be the same memory.
#[cold]
#[inline(never)]
pub(crate) unsafe fn forward<T: Real, K: Kind>(
    x: *const T,
    y: *mut T,
    n: usize,
    eps: T,
    params: &Params<'_, T>,
) -> Moments<T> {
    // SAFETY: the caller's, for `i < n`.
    let x = |i: usize| unsafe { *x.add(i) }.to_f64();
    let wide = Wide::new::<T, K>(n, eps.to_f64(), x);
    for i in 0..n {
        let weight = parameter(params.weight, 1.0, i);
        let bias = parameter(params.bias, -0.0, i);
        let value = T::from_f64(wide.x_hat(x(i)).mul_add(weight, bias));
        // SAFETY: the caller's, for `i < n`.
        unsafe { y.add(i).write(value) };
    }
    wide.moments()
}

/// What the backward pass over one row reads and writes; each pointer is valid for `n` numbers.
pub(crate) struct Backward<'a, T> {
    pub(crate) n: usize,
    pub(crate) x: *const T,
    pub(crate) dy: *const T,
    /// May be the memory of `dy`.
    pub(crate) dx: Option<*mut T>,
    /// The sums over rows of dy x_hat and of dy that this row is added to.
    pub(crate) totals: Option<[*mut T; 2]>,
    pub(crate) weight: Option<&'a [T]>,
}

/// The backward pass over one row, its statistics taken from x once more.
///
/// # Safety
/// What [`Backward`] says.
#[cold]
#[inline(never)]
pub(crate) unsafe fn backward<T: Real, K: Kind>(row: &Backward<'_, T>, eps: T) {
    let n = row.n;
    // SAFETY: the caller's, for `i < n`; so below.
    let x = |i: usize| unsafe { *row.x.add(i) }.to_f64();
    // SAFETY: as above.
    let dy = |i: usize| unsafe { *row.dy.add(i) }.to_f64();
    let weight = |i: usize| parameter(row.weight, 1.0, i);
    let wide = Wide::new::<T, K>(n, eps.to_f64(), x);

    let (w_exponent, dy_exponent) = (exponent(largest(n, weight)), exponent(largest(n, dy)));
    let factors = |i: usize| [scale(weight(i), -w_exponent), scale(dy(i), -dy_exponent)];
    let u = |i: usize| factors(i).into_iter().product::<f64>();
    let count = n as f64;
    let along_ones = if K::CENTRED { sum::<T>(n, |i| [u(i), 1.0]) / count } else { 0.0 };
    let along_x_hat = sum::<T>(n, |i| [u(i), wide.x_hat(x(i))]) / count;

    for i in 0..n {
        let x_hat = wide.x_hat(x(i));
        let orthogonal = (-x_hat).mul_add(along_x_hat, u(i) - along_ones);
        let dx_i = scale(wide.r * orthogonal, w_exponent + dy_exponent - wide.d_exponent);
        // SAFETY: the caller's, for `i < n`. dy is read before dx, which may be its memory, is written.
        unsafe {
            let dy_i = *row.dy.add(i);
            if let Some([dweight, dbias]) = row.totals {
                *dweight.add(i) = dy_i.fma(T::from_f64(x_hat), *dweight.add(i));
                *dbias.add(i) = dbias.add(i).read().add(dy_i);
            }
            if let Some(dx) = row.dx {
                dx.add(i).write(T::from_f64(dx_i));
            }
        }
    }
}
