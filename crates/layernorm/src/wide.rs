//! Rows that need more range than their type has: redone in f64, in the same order, and rounded at the end.
//!
//! The fast loops hand a row over when a sum is not finite or var + eps lies outside [`Number::RANGE`],
//! where squares lose digits or overflow. Nothing here is fast (so what is added up is a `dyn Fn`, compiled once), and
//! nothing depends on the level. All quantities are scaled by powers of two, which changes no digit, so that f64 rows have room too.
//!
//! [`Number::RANGE`]: crate::real::private::Number::RANGE

use crate::by_row::backward::{Backward, Pointers, RunSums};
use crate::by_row::forward::Forward;
use crate::by_row::{Moments, Statistics};
use crate::element::private::Stored;
use crate::form::{Divisor, Form};
use crate::order::Carry;
use crate::rows::Place;
use crate::{Element, Real};
use std::marker::PhantomData;
use std::ops::Range;

/// 2^exponent, for exponents of normal numbers.
pub(crate) const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// value * 2^exponent, rounded once (twice where the result is subnormal).
pub(crate) fn scale(value: f64, exponent: i32) -> f64 {
    // Three steps reach from one end of the range to the other.
    let step = (exponent / 3).clamp(-1022, 1023);
    let rest = (exponent - 2 * step).clamp(-1022, 1023);
    value * power_of_two(step) * power_of_two(step) * power_of_two(rest)
}

/// The exponent of two of a finite number; of 0 and of what is not finite, 0.
pub(crate) fn exponent(value: f64) -> i32 {
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
pub(crate) fn largest(n: usize, value: &dyn Fn(usize) -> f64) -> f64 {
    (0..n).fold(0.0, |max: f64, i| max.max(value(i).abs()))
}

/// The canonical sum of `n` terms in the order of `T`, in f64. A term is `a * b`, added by one fma.
pub(crate) fn sum<T: Real>(n: usize, term: &dyn Fn(usize) -> [f64; 2]) -> f64 {
    let mut carry = Carry::starting_at(0);
    let mut nodes = [0.0; usize::BITS as usize];
    for start in (0..n).step_by(T::BLOCK) {
        let step = carry.push();
        let block = block::<T>(start..n.min(start + T::BLOCK), term);
        nodes[step.level] = step.absorb.fold(block, |right, level| nodes[level] + right);
    }
    let mut left = carry.finish();
    let last = left.next().map_or(0.0, |level| nodes[level]);
    left.fold(last, |right, level| nodes[level] + right)
}

/// One block of a [`sum`].
fn block<T: Real>(positions: Range<usize>, term: &dyn Fn(usize) -> [f64; 2]) -> f64 {
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

/// In which order terms are added.
pub(crate) trait Order {
    /// The sum of all terms. A term is `a * b`, added by one fma.
    fn sum(&self, term: &dyn Fn(usize) -> [f64; 2]) -> f64;
    /// The largest absolute value; NaN is skipped.
    fn largest(&self, value: &dyn Fn(usize) -> f64) -> f64;
}

/// The order of a row of so many numbers.
struct OfRow<T>(usize, PhantomData<T>);

impl<T: Real> Order for OfRow<T> {
    fn sum(&self, term: &dyn Fn(usize) -> [f64; 2]) -> f64 {
        sum::<T>(self.0, term)
    }

    fn largest(&self, value: &dyn Fn(usize) -> f64) -> f64 {
        largest(self.0, value)
    }
}

/// Statistics of a row: x is scaled by 2^-x_exponent, its deviations and 1 / r by 2^-d_exponent.
pub(crate) struct Wide {
    x_exponent: i32,
    pub(crate) d_exponent: i32,
    m: f64,
    c: f64,
    /// The variance, scaled as its root would be.
    var: f64,
    pub(crate) r: f64,
    /// What a gradient along x_hat is multiplied by.
    along: f64,
}

impl Wide {
    /// Of a row.
    fn new<T: Real>(statistics: Statistics, form: &Form<T>, x: &dyn Fn(usize) -> f64) -> Self {
        Self::of(statistics, form, &OfRow::<T>(form.used, PhantomData), x)
    }

    /// Of numbers in an order of their own.
    pub(crate) fn of<T: Real>(
        statistics: Statistics,
        form: &Form<T>,
        order: &dyn Order,
        x: &dyn Fn(usize) -> f64,
    ) -> Self {
        let centred = matches!(statistics, Statistics::Centred);
        let x_exponent = exponent(order.largest(x));
        let mut of =
            Self { x_exponent, d_exponent: x_exponent, m: 0.0, c: 0.0, var: 0.0, r: 0.0, along: 1.0 };
        if centred {
            of.m = order.sum(&|i| [scale(x(i), -x_exponent), 1.0]) / form.count as f64;
        }
        let mut var = of.variance(centred, form, order, x);
        if centred && var < of.c * of.c {
            of.m += scale(of.c, of.d_exponent - x_exponent);
            var = of.variance(centred, form, order, x);
        }
        of.var = if var < 0.0 { 0.0 } else { var };
        [of.r, of.along] = of.reciprocal(of.var, form.divisor, form.eps.to_f64());
        of
    }

    /// 1 over the divisor, times 2^d_exponent, and what a gradient along x_hat is multiplied by.
    fn reciprocal(&self, var: f64, divisor: Divisor, eps: f64) -> [f64; 2] {
        let reciprocal = |divisor: f64| if divisor == 0.0 { 0.0 } else { 1.0 / divisor };
        if divisor == Divisor::Inside {
            return [reciprocal((var + scale(eps, -2 * self.d_exponent)).sqrt()), 1.0];
        }
        let (root, eps) = (var.sqrt(), scale(eps, -self.d_exponent));
        match divisor {
            Divisor::Outside => [reciprocal(root + eps), (root + eps) * reciprocal(root)],
            _ if root <= eps => [reciprocal(eps), 0.0],
            _ => [reciprocal(root), 1.0],
        }
    }

    fn deviation(&self, x: f64) -> f64 {
        scale(scale(x, -self.x_exponent) - self.m, self.x_exponent - self.d_exponent)
    }

    fn variance<T: Real>(
        &mut self,
        centred: bool,
        form: &Form<T>,
        order: &dyn Order,
        x: &dyn Fn(usize) -> f64,
    ) -> f64 {
        let (count, eps) = (form.count as f64, form.eps.to_f64());
        // The scale of the deviations, or of eps where that is more: then var or eps is about 1.
        self.d_exponent = self.x_exponent;
        let spread = order.largest(&|i| self.deviation(x(i)));
        let spread = (spread > 0.0).then(|| exponent(spread) + self.x_exponent);
        let root = if form.divisor == Divisor::Inside { 2 } else { 1 };
        let floor = (eps > 0.0).then(|| exponent(eps) / root);
        self.d_exponent = spread.max(floor).unwrap_or(self.x_exponent);

        let mean_square = order.sum(&|i| [self.deviation(x(i)); 2]) / count;
        if centred {
            self.c = order.sum(&|i| [self.deviation(x(i)), 1.0]) / count;
        }
        (-self.c).mul_add(self.c, mean_square)
    }

    pub(crate) fn x_hat(&self, x: f64) -> f64 {
        self.deviation(x).mul_add(self.r, -(self.c * self.r))
    }

    /// The variance, as it is.
    pub(crate) fn variance_unscaled(&self) -> f64 {
        scale(self.var, 2 * self.d_exponent)
    }

    /// As they are saved.
    pub(crate) fn moments<T: Real>(&self) -> Moments<T> {
        let mean = scale(self.m, self.x_exponent);
        let m = T::from_f64(mean);
        Moments {
            m,
            c: T::from_f64(mean - m.to_f64() + scale(self.c, self.d_exponent)),
            rstd: T::from_f64(scale(self.r, -self.d_exponent)),
            along: T::from_f64(self.along),
        }
    }
}

/// The statistics of one row, as they are saved.
///
/// # Safety
/// `x` has the numbers that `form` uses.
#[cold]
#[inline(never)]
pub(crate) unsafe fn statistics<E: Element>(
    of: Statistics,
    x: Place<E>,
    form: &Form<E::Acc>,
) -> Moments<E::Acc> {
    // SAFETY: the caller's, for `i < n`.
    Wide::new(of, form, &|i| unsafe { x.number(i) }.to_f64()).moments()
}

/// x_hat of one row in its place, of which the form may use the first numbers alone; gives the statistics to save.
#[cold]
#[inline(never)]
pub(crate) fn standardise<T: Real>(of: Statistics, form: &Form<T>, row: &mut [T]) -> Moments<T> {
    let wide = Wide::new(of, form, &|i| row[i].to_f64());
    row.iter_mut().for_each(|x| *x = T::from_f64(wide.x_hat(x.to_f64())));
    wide.moments()
}

/// Normalise one row; gives the statistics to save.
///
/// # Safety
/// `x` and `y` have as many numbers as a row; they may be the same memory.
#[cold]
#[inline(never)]
pub(crate) unsafe fn forward<E: Element>(
    statistics: Statistics,
    call: &Forward<'_, E>,
    row: usize,
    x: Place<E>,
    y: *mut E,
) -> Moments<E::Acc> {
    // SAFETY: the caller's, for `i < n`.
    unsafe { normalise(statistics, call, row, x, &mut |i, value| y.add(i).write(value)) }
}

/// As [`forward`], where `y` takes the numbers one by one.
///
/// # Safety
/// `x` has as many numbers as a row. Number `i` is not read after `y` has taken it.
#[cold]
#[inline(never)]
pub(crate) unsafe fn normalise<E: Element>(
    statistics: Statistics,
    call: &Forward<'_, E>,
    row: usize,
    x: Place<E>,
    y: &mut dyn FnMut(usize, E),
) -> Moments<E::Acc> {
    let round = call.rounding.rounds::<E>(call.weight.is_wide());
    // SAFETY: the caller's, for `i < n`.
    let x = |i: usize| unsafe { x.number(i) }.to_f64();
    let wide = Wide::new(statistics, &call.form, &x);
    for i in 0..call.shape.features {
        let [weight, bias] = [&call.weight, &call.bias].map(|of| of.number(row, i).to_f64());
        let mut x_hat = wide.x_hat(x(i));
        if round {
            x_hat = E::from_f64(x_hat).to_f64();
        }
        y(i, E::from_f64(x_hat.mul_add(weight, bias)));
    }
    wide.moments()
}

/// The backward pass over one row, its statistics taken from x once more.
///
/// # Safety
/// What [`Pointers`] says; and the sums of runs have the row.
#[cold]
#[inline(never)]
pub(crate) unsafe fn backward<E: Element>(
    statistics: Statistics,
    call: &Backward<'_, E>,
    row: usize,
    of: &Pointers<E>,
) {
    let n = call.shape.features;
    // SAFETY: the caller's, for `i < n`; so below.
    let x = |i: usize| unsafe { of.x.number(i) }.to_f64();
    // SAFETY: as above.
    let dy = |i: usize| unsafe { of.dy.number(i) }.to_f64();
    let weight = |i: usize| call.weight.number(row, i).to_f64();
    let wide = Wide::new(statistics, &call.form, &x);
    let x_hat = |i: usize| E::Acc::from_f64(wide.x_hat(x(i)));

    let (w_exponent, dy_exponent) = (exponent(largest(n, &weight)), exponent(largest(n, &dy)));
    let factors = |i: usize| [scale(weight(i), -w_exponent), scale(dy(i), -dy_exponent)];
    let u = |i: usize| factors(i).into_iter().product::<f64>();
    let count = call.form.count as f64;
    let along_ones = match statistics {
        Statistics::Centred => sum::<E::Acc>(n, &|i| [u(i), 1.0]) / count,
        Statistics::Uncentred => 0.0,
    };
    let along_x_hat = sum::<E::Acc>(n, &|i| [u(i), wide.x_hat(x(i))]) / count * wide.along;

    if let Some(RunSums { runs, sums: [products, plain] }) = call.sums_of_runs {
        for i in 0..runs.per_row {
            let at = |j: usize| i * runs.run + j;
            let product = sum::<E::Acc>(runs.run, &|j| [dy(at(j)), x_hat(at(j)).to_f64()]);
            let ones = sum::<E::Acc>(runs.run, &|j| [dy(at(j)), 1.0]);
            // SAFETY: the caller's.
            unsafe {
                products.row(row).add(i).write(E::Acc::from_f64(product));
                plain.row(row).add(i).write(E::Acc::from_f64(ones));
            }
        }
    }
    for i in 0..n {
        let [along_x_hat, along_ones] = if i < call.form.used { [along_x_hat, along_ones] } else { [0.0; 2] };
        let orthogonal = (-wide.x_hat(x(i))).mul_add(along_x_hat, u(i) - along_ones);
        let dx_i = scale(wide.r * orthogonal, w_exponent + dy_exponent - wide.d_exponent);
        // SAFETY: the caller's, for `i < n`. dy is read before dx, which may be its memory, is written.
        unsafe {
            if let Some(sums) = of.totals {
                sums.add(i, of.dy.number(i), x_hat(i));
            }
            of.write(i, dx_i);
        }
    }
}
