//! Rows of which only some numbers take part in the statistics.
//!
//! For what is summed, the valid numbers of a row are put first, the others after them, as for a partial norm, in the type
//! that sums have. What is done number by number goes the ordinary way, in the row's own order. A row that needs more range
//! than its type has goes on as its x_hat, rounded.

use super::{Axis, Mask};
use crate::affine::Affine;
use crate::by_row::backward::Backward;
use crate::by_row::forward::Forward;
use crate::by_row::totals::Tree;
use crate::by_row::{Moments, Statistics};
use crate::element::private::Stored;
use crate::form::Form;
use crate::rows::{Mixed, MixedMut, Place, PlaceMut, Shape, Source, Target};
use crate::vector::convert::Convert;
use crate::vector::{Body, Memory, dispatch};
use crate::{Element, Level, wide};

/// Rows of memory that a pass takes.
pub(super) const ROWS: usize = 3;

/// What rows of a call have besides.
#[derive(Clone, Copy)]
pub(super) struct Masked<'a> {
    pub(super) mask: &'a Mask<'a>,
    pub(super) statistics: Statistics,
    /// Rows before these.
    pub(super) first: usize,
    pub(super) level: Level,
}

impl Masked<'_> {
    /// All rows of a call, with memory for [`ROWS`].
    pub(super) fn forward<E: Element>(self, call: Forward<'_, E>, memory: &mut [E::Acc]) {
        dispatch(self.level, ForwardRows { of: self, call, memory });
    }

    /// As [`Masked::forward`]; the sums over rows go on in `totals`.
    pub(super) fn backward<E: Element>(
        self,
        call: Backward<'_, E>,
        totals: Option<&mut Tree<'_, E::Acc>>,
        memory: &mut [E::Acc],
    ) {
        dispatch(self.level, BackwardRows { of: self, call, totals, memory });
    }

    /// dx of one row, of its `x` in this order, in the place of u = weight dy.
    ///
    /// # Safety
    /// The call has the row.
    unsafe fn differentiate<E: Element>(
        self,
        call: &Backward<'_, E>,
        row: usize,
        order: &Order<'_>,
        (x, u): (&[E::Acc], &mut [E::Acc]),
    ) {
        let (n, u) = (order.n, u.as_mut_ptr());
        // SAFETY: rows of `n` numbers, and the caller's.
        let call = unsafe {
            Backward::<E::Acc> {
                shape: Shape { rows: 1, features: n, stride: n },
                x: Mixed::Own(Source::at(x.as_ptr(), n)),
                dy: Source::at(u, n),
                dx: Some(MixedMut::Own(Target::at(u, n))),
                in_place: true,
                weight: Affine::new(None, 1.0),
                form: order.form(&call.form),
                saved: call.saved.map(|saved| saved.from(row)),
                upstream: None,
                branch: None,
                sums_of_runs: None,
                only: None,
                first: 0,
                stream_from: usize::MAX,
            }
        };
        call.part(self.statistics, self.level, 0..1, None);
    }

    /// That of a row of `n` numbers.
    fn order(&self, row: usize, n: usize) -> Order<'_> {
        let base = self.mask.outer.offset(self.first + row);
        let order = Order { mask: self.mask, base, n, valid: 0 };
        let mut valid = 0;
        if self.mask.inner.is_every(0) {
            // One look is enough.
            valid = usize::from(self.mask.valid[base]) * n;
        } else {
            order.words(|_, _, bits| valid += bits.count_ones() as usize);
        }
        Order { valid, ..order }
    }
}

/// A row's valid numbers first.
struct Order<'a> {
    mask: &'a Mask<'a>,
    base: usize,
    n: usize,
    valid: usize,
}

impl Order<'_> {
    /// Takes numbers along the last axis, up to 64 at a time: the first, how many, and which of them are valid, a bit each.
    #[inline(always)]
    fn words(&self, mut take: impl FnMut(usize, usize, u64)) {
        let Mask { valid, inner, .. } = self.mask;
        let Axis { size, stride } = inner.last().unwrap_or(Axis { size: 1, stride: 0 });
        for line in (0..self.n).step_by(size) {
            let line_at = self.base + inner.offset(line);
            for i in (0..size).step_by(64) {
                let (at, len) = (line_at + i * stride, 64.min(size - i));
                let bits = match stride {
                    0 => u64::from(valid[at]) * (u64::MAX >> (64 - len)),
                    1 => bits(&valid[at..at + len]),
                    _ => (0..len).fold(0, |bits, k| bits | u64::from(valid[at + k * stride]) << k),
                };
                take(line + i, len, bits);
            }
        }
    }

    /// Is it the row's own?
    fn is_own(&self) -> bool {
        self.valid == 0 || self.valid == self.n
    }

    /// From the row to this order, or back.
    fn copy<T: Copy, const GATHER: bool>(&self, from: &[T], to: &mut [T]) {
        let mut next = [0, self.valid];
        self.words(|start, len, valid| {
            let all = u64::MAX >> (64 - len);
            for (mut bits, next) in [valid, all & !valid].into_iter().zip(&mut next) {
                let mut place = *next;
                *next += bits.count_ones() as usize;
                if bits == all {
                    let (from_at, to_at) = if GATHER { (start, place) } else { (place, start) };
                    to[to_at..to_at + len].copy_from_slice(&from[from_at..from_at + len]);
                    continue;
                }
                // Without a branch for each number: masks may be at random.
                while bits != 0 {
                    let j = start + bits.trailing_zeros() as usize;
                    let (from_at, to_at) = if GATHER { (j, place) } else { (place, j) };
                    to[to_at] = from[from_at];
                    place += 1;
                    bits &= bits - 1;
                }
            }
        });
    }

    /// How the row is measured.
    fn form<T: Copy>(&self, form: &Form<T>) -> Form<T> {
        Form { used: self.valid, count: self.valid, ..*form }
    }

    /// Numbers that give x_hat, and with which statistics; and the statistics of the row, which are others where the
    /// numbers are x_hat itself. The first row of memory gets `x` in this order, unless it is the row's own.
    ///
    /// # Safety
    /// `x` has the row's numbers.
    #[inline(always)]
    unsafe fn measure<E: Element, S: Memory<E>>(
        &self,
        s: S,
        (statistics, form): (Statistics, &Form<E::Acc>),
        x: Place<E>,
        [first, second, third]: [&mut [E::Acc]; ROWS],
    ) -> (Place<E>, [Moments<E::Acc>; 2]) {
        let (form, unit) = (self.form(form), Moments::unit());
        if self.valid == 0 {
            second.fill(E::Acc::from_f64(0.0));
            return (Place::wide(second.as_ptr()), [unit, Moments::none()]);
        }
        // SAFETY: the caller's; rows of memory are as long.
        unsafe {
            let valid = if self.is_own() {
                x
            } else {
                widen(s, x, second);
                self.copy::<_, true>(second, first);
                Place::wide(first.as_ptr())
            };
            if let Some(moments) = statistics.in_cache(s, valid, &form) {
                return (x, [moments; 2]);
            }
            widen(s, x, second);
            self.copy::<_, true>(second, third);
            let moments = wide::standardise(statistics, &form, third);
            self.copy::<_, false>(third, second);
            (Place::wide(second.as_ptr()), [unit, moments])
        }
    }
}

/// Up to 64 of them, a bit each.
#[inline(always)]
fn bits(valid: &[bool]) -> u64 {
    let (eights, rest) = valid.as_chunks::<8>();
    let rest = rest.iter().rev().fold(0, |bits, valid| bits << 1 | u64::from(*valid));
    eights.iter().rev().fold(rest, |bits, eight| {
        // A sum of shifts has the last bits of all bytes in its highest one.
        let bytes = u64::from_le_bytes(eight.map(u8::from));
        bits << 8 | bytes.wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
}

/// Elements as what they accumulate in.
///
/// # Safety
/// `from` has as many numbers.
#[inline(always)]
unsafe fn widen<E: Element, S: Memory<E>>(s: S, from: Place<E>, to: &mut [E::Acc]) {
    Convert { from, to: PlaceMut::wide(to.as_mut_ptr()), len: to.len() }.run(s);
}

/// [`ROWS`] rows of `n` numbers.
fn rows<T>(memory: &mut [T], n: usize) -> [&mut [T]; ROWS] {
    let (first, rest) = memory.split_at_mut(n);
    let (second, rest) = rest.split_at_mut(n);
    [first, second, &mut rest[..n]]
}

struct ForwardRows<'a, E: Element> {
    of: Masked<'a>,
    call: Forward<'a, E>,
    memory: &'a mut [E::Acc],
}

impl<E: Element> Body<E> for ForwardRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let Self { of, call, memory } = self;
        let Shape { rows: count, features, .. } = call.shape;
        for row in 0..count {
            let order = of.order(row, features);
            // SAFETY: rows of the call, which are this thread's.
            unsafe {
                let measure = (of.statistics, &call.form);
                let memory = rows(memory, features);
                let (x, [moments, saved]) = order.measure(s, measure, call.x.row(row), memory);
                if let Some(to) = call.saved {
                    to.set(row, saved);
                }
                call.write(s, row, x, moments);
            }
        }
    }
}

struct BackwardRows<'a, 'b, E: Element> {
    of: Masked<'a>,
    call: Backward<'a, E>,
    totals: Option<&'a mut Tree<'b, E::Acc>>,
    memory: &'a mut [E::Acc],
}

impl<E: Element> Body<E> for BackwardRows<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let Self { of, call, mut totals, memory } = self;
        let [first, second, third] = rows(memory, call.shape.features);
        for row in 0..call.shape.rows {
            let order = of.order(row, call.shape.features);
            // SAFETY: rows of the call, which are this thread's. dy, which may be the memory of dx, is read before.
            unsafe {
                let x = call.x.row(row);
                let memory = [&mut *first, &mut *second, &mut *third];
                let (x_hat, [moments, _]) = order.measure(s, (of.statistics, &call.form), x, memory);
                call.sum(s, row, (x_hat, moments), totals.as_deref_mut());
                let Some(dx) = call.dx else { continue };
                if order.valid > 0 {
                    call.weigh(s, row, PlaceMut::wide(second.as_mut_ptr()));
                }
                match order.valid {
                    0 => second.fill(E::Acc::from_f64(0.0)),
                    _ if order.is_own() => {
                        widen(s, x, first);
                        of.differentiate(&call, row, &order, (first, second));
                    }
                    _ => {
                        order.copy::<_, true>(second, third);
                        of.differentiate(&call, row, &order, (first, third));
                        order.copy::<_, false>(third, second);
                    }
                }
                Convert { from: Place::wide(second.as_ptr()), to: dx.row(row), len: order.n }.run(s);
            }
        }
    }
}
