//! Channels that need more range than their type has: redone in f64, in the same order; see [`crate::wide`].

use super::backward::Backward;
use super::forward::Forward;
use super::{Grid, Inputs};
use crate::by_row::{Moments, Statistics};
use crate::element::private::Stored;
use crate::order::{CHUNK, Carry};
use crate::rows::Source;
use crate::sync;
use crate::wide::{Order, Wide, exponent, scale, sum};
use crate::{Element, Error, Real, Reducer, Valid};
use std::cell::RefCell;
use std::marker::PhantomData;

/// The order of a channel: its numbers are counted row by row.
struct OfChannel<'a, T> {
    grid: Grid,
    first_row: usize,
    valid: Valid<'a>,
    reducer: Option<&'a dyn Reducer>,
    failure: &'a RefCell<Option<Error>>,
    number: PhantomData<T>,
}

impl<T: Real> OfChannel<'_, T> {
    /// What a rank's gathering gives; after a failure, anything.
    fn gathered(&self, of: impl FnOnce(&dyn Reducer) -> Result<f64, Error>, local: f64) -> f64 {
        let Some(reducer) = self.reducer else { return local };
        if self.failure.borrow().is_some() {
            return local;
        }
        of(reducer).unwrap_or_else(|failure| {
            *self.failure.borrow_mut() = Some(failure);
            local
        })
    }

    /// Is number `i` part of the batch?
    fn holds(&self, i: usize) -> bool {
        // Channels last, a row is a position; first, it has all positions of a sample.
        self.valid.holds(i, self.grid.positions)
    }
}

impl<T: Real> Order for OfChannel<'_, T> {
    fn sum(&self, term: &dyn Fn(usize) -> [f64; 2]) -> f64 {
        self.sum_of(&term)
    }

    fn largest(&self, value: &dyn Fn(usize) -> f64) -> f64 {
        self.largest_of(&value)
    }
}

/// By reference, so that they are compiled once.
impl<T: Real> OfChannel<'_, T> {
    fn sum_of(&self, term: &dyn Fn(usize) -> [f64; 2]) -> f64 {
        let Grid { shape, run, last, .. } = self.grid;
        let term = |i: usize| if self.holds(i) { term(i) } else { [0.0; 2] };
        let mut carry = Carry::starting_at(self.first_row / CHUNK);
        let mut nodes = [0.0; usize::BITS as usize];
        let mut chunk = 0.0;
        for row in 0..shape.rows {
            chunk = if last {
                let [a, b] = term(row);
                if self.holds(row) { f64::mul_add(a, b, chunk) } else { chunk }
            } else {
                chunk + sum::<T>(run, &|j| term(row * run + j))
            };
            if row + 1 == shape.rows || (self.first_row + row + 1).is_multiple_of(CHUNK) {
                let step = carry.push();
                nodes[step.level] = step.absorb.fold(chunk, |right, level| nodes[level] + right);
                chunk = 0.0;
            }
        }
        let mut left = carry.finish();
        let lowest = left.next().map_or(0.0, |level| nodes[level]);
        let local = left.fold(lowest, |right, level| nodes[level] + right);
        let gather = |reducer: &dyn Reducer| {
            let mut total = [local];
            sync::gather(reducer, shape.rows == 0, 0, &mut [&mut total[..]])?;
            Ok(total[0])
        };
        self.gathered(gather, local)
    }

    fn largest_of(&self, value: &dyn Fn(usize) -> f64) -> f64 {
        let numbers = self.grid.shape.rows * self.grid.run;
        let local =
            (0..numbers).filter(|i| self.holds(*i)).fold(0.0, |largest: f64, i| largest.max(value(i).abs()));
        self.gathered(|reducer| sync::largest(reducer, local), local)
    }
}

/// The statistics of a channel, as they are saved, and its variance.
pub(super) struct Channel<T> {
    pub(super) moments: Moments<T>,
    pub(super) var: T,
}

/// Number `i` of a channel, where rows start so.
///
/// # Safety
/// The batch has the number.
unsafe fn number<E>(grid: &Grid, channel: usize, row: impl Fn(usize) -> *const E, i: usize) -> *const E {
    // SAFETY: the caller's: a row has a run for each channel.
    unsafe { row(i / grid.run).add(channel * grid.run + i % grid.run) }
}

/// Normalise one channel.
#[cold]
#[inline(never)]
pub(super) fn forward<E: Element>(
    call: &Forward<'_, E>,
    channel: usize,
    reducer: Option<&dyn Reducer>,
) -> Result<Channel<E::Acc>, Error> {
    let Inputs { grid, first_row, valid, .. } = call.inputs;
    let failure = &RefCell::new(None);
    let order = OfChannel::<E::Acc> { grid, first_row, valid, reducer, failure, number: PhantomData };
    // SAFETY: `i` is a number of the channel.
    let x = |i: usize| unsafe { number(&grid, channel, |row| call.inputs.x.row(row), i).read() }.to_f64();
    let wide = Wide::of(Statistics::Centred, &call.form, &order, &x);
    if let Some(failure) = failure.take() {
        return Err(failure);
    }
    let [weight, bias] = [&call.weight, &call.bias].map(|of| of.number(0, channel).to_f64());
    for i in 0..grid.shape.rows * grid.run {
        let y = E::from_f64(wide.x_hat(x(i)).mul_add(weight, bias));
        // SAFETY: as above; and y is as large as x, and this channel of it is this thread's.
        unsafe { number(&grid, channel, |row| call.y.row(row).cast_const(), i).cast_mut().write(y) };
    }
    Ok(Channel { moments: wide.moments(), var: E::Acc::from_f64(wide.variance_unscaled()) })
}

/// The backward pass over one channel, its statistics taken from x once more; gives the sums of dy x_hat and of dy.
#[cold]
#[inline(never)]
pub(super) fn backward<E: Element>(
    call: &Backward<'_, E>,
    dy: Source<'_, E>,
    channel: usize,
    reducer: Option<&dyn Reducer>,
) -> Result<[E::Acc; 2], Error> {
    let Inputs { grid, first_row, valid, .. } = call.inputs;
    let failure = &RefCell::new(None);
    let of = |valid| OfChannel::<E::Acc> { grid, first_row, valid, reducer, failure, number: PhantomData };
    // SAFETY: `i` is a number of the channel; so below.
    let x = |i: usize| unsafe { number(&grid, channel, |row| call.inputs.x.row(row), i).read() }.to_f64();
    // SAFETY: as above.
    let dy = |i: usize| unsafe { number(&grid, channel, |row| dy.row(row), i).read() }.to_f64();
    let (count, all) = (call.form.count as f64, of(Valid::All));
    let wide = Wide::of(Statistics::Centred, &call.form, &of(valid), &x);
    let dy_exponent = exponent(all.largest(&dy));
    let dy = |i: usize| scale(dy(i), -dy_exponent);
    let products = all.sum(&|i| [dy(i), wide.x_hat(x(i))]);
    let ones = all.sum(&|i| [dy(i), 1.0]);
    if let Some(failure) = failure.take() {
        return Err(failure);
    }
    let weight = call.weight.number(0, channel).to_f64();
    let w_exponent = exponent(weight);
    let factor = wide.r * scale(weight, -w_exponent);
    let numbers = if call.dx.is_some() { grid.shape.rows * grid.run } else { 0 };
    for i in 0..numbers {
        let orthogonal = if valid.holds(i, grid.positions) {
            (-wide.x_hat(x(i))).mul_add(products / count, dy(i) - ones / count)
        } else {
            dy(i)
        };
        let value = scale(factor * orthogonal, w_exponent + dy_exponent - wide.d_exponent);
        if let Some(dx) = call.dx {
            // SAFETY: as above; dx is as large as x, and this channel of it is this thread's. dy, which may be its
            // memory, has been read.
            unsafe {
                let at = number(&grid, channel, |row| dx.row(row).cast_const(), i).cast_mut();
                at.write(E::from_f64(value));
            }
        }
    }
    Ok([products, ones].map(|sum| E::Acc::from_f64(scale(sum, dy_exponent))))
}
