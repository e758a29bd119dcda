//! The last pass over a row: dx, and what the row adds to the sums over rows.

use super::super::last_pass::{Write, registers};
use super::super::totals::{Growing, Start};
use super::*;

/// What the last pass over a row reads and writes: as many numbers each as the row has features.
#[derive(Clone, Copy)]
pub(crate) struct Pointers<E: Element> {
    pub(crate) x: Place<E>,
    pub(crate) dy: Place<E>,
    /// May be the memory of `dy`.
    pub(crate) dx: Option<PlaceMut<E>>,
    pub(crate) upstream: Option<Place<E>>,
    /// The sums over rows.
    pub(crate) totals: Option<Growing<E::Acc>>,
}

impl<E: Element> Pointers<E> {
    /// # Safety
    /// The row exists and is this thread's.
    #[inline(always)]
    pub(super) unsafe fn at(call: &Backward<'_, E>, row: usize, totals: Option<Growing<E::Acc>>) -> Self {
        // SAFETY: the caller's.
        unsafe {
            Self {
                x: call.x.row(row),
                dy: Place::own(call.dy.row(row)),
                dx: call.dx.map(|dx| dx.row(row)),
                upstream: call.upstream.map(|upstream| upstream.row(row)),
                totals,
            }
        }
    }

    /// Write number `index` of dx, given the part of it that goes through the norm.
    ///
    /// # Safety
    /// The row has the number, and it is this thread's.
    pub(crate) unsafe fn write(&self, index: usize, dx: f64) {
        // SAFETY: the caller's.
        unsafe {
            let dx = match self.upstream {
                None => dx,
                Some(upstream) => E::Acc::from_f64(dx).add(upstream.number(index)).to_f64(),
            };
            if let Some(to) = self.dx {
                to.write(index, dx);
            }
        }
    }
}

/// dx = rstd (weight dy - mean(u) - x_hat mean(u x_hat)), and dy x_hat and dy added to the totals.
#[derive(Clone, Copy)]
pub(super) struct Differentiate<E: Element, P, V> {
    of: Pointers<E>,
    weight: P,
    standardise: Standardise<V>,
    pub(super) along_x_hat: V,
    pub(super) minus_along_ones: V,
}

impl<E: Element, P: Parameters<E>, V: Copy> Differentiate<E, P, V> {
    #[inline(always)]
    pub(super) fn new<S: Memory<E> + Vector<E::Acc, V = V>>(
        s: S,
        weight: P,
        of: Pointers<E>,
        ready: Ready<E::Acc>,
    ) -> Self {
        let Ready { moments, means: [along_x_hat, along_ones] } = ready;
        let standardise = Standardise::new(s, moments);
        let minus_along_ones = s.splat(along_ones.neg());
        Self { of, weight, standardise, along_x_hat: s.splat(along_x_hat), minus_along_ones }
    }

    /// The same, said so that a compiler knows what there is: all as elements, and `upstream` and sums or not.
    #[inline(always)]
    fn known(mut self, upstream: bool, start: Option<Start>) -> Self {
        let of = &mut self.of;
        of.x = Place::own(of.x.start);
        of.dx = of.dx.map(|dx| PlaceMut::own(dx.start));
        of.upstream = of.upstream.filter(|_| upstream).map(|of| Place::own(of.start));
        of.totals = match (start, of.totals) {
            (Some(start), Some(totals)) => Some(Growing { start, ..totals }),
            _ => None,
        };
        self
    }
}

impl<E: Element, P: Parameters<E>, S: Memory<E>> Write<E, S> for Differentiate<E, P, S::V> {
    #[inline(always)]
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool) {
        // SAFETY: the caller's.
        unsafe {
            let dy = self.of.dy.load(s, at, count);
            let x_hat = self.standardise.apply(s, self.of.x.load(s, at, count));
            if let Some(sums) = self.of.totals {
                let [w, b] = [sums.get(s, 0, at, count), sums.get(s, 1, at, count)];
                sums.set(s, 0, at, count, s.fma(dy, x_hat, w));
                sums.set(s, 1, at, count, s.add(b, dy));
            }
            if let Some(dx) = self.of.dx {
                // The u that the means were taken of, so that a row of one number has no gradient.
                let u = s.mul(self.weight.get(s, at, count), dy);
                let orthogonal = s.fnma(x_hat, self.along_x_hat, s.add(u, self.minus_along_ones));
                let rstd = self.standardise.rstd;
                // Not an fma: the bits are those of this pass alone, and an addition after it.
                let mut value = s.mul(rstd, orthogonal);
                if let Some(upstream) = self.of.upstream {
                    value = s.add(value, upstream.load(s, at, count));
                }
                dx.store(s, at, count, value, stream);
            }
        }
    }

    /// A loop for each of what there may be, because to ask in the loop takes as long as the arithmetic.
    #[inline(always)]
    unsafe fn registers(&self, s: S, range: Range<usize>, stream: bool) {
        let Pointers { x, dx, upstream, totals, .. } = self.of;
        let own = !x.is_wide()
            && dx.is_some_and(|dx| !dx.is_wide())
            && upstream.is_none_or(|upstream| !upstream.is_wide());
        // SAFETY: the caller's.
        unsafe {
            match (own, upstream, totals.map(|totals| totals.start)) {
                (true, None, None) => registers(s, &self.known(false, None), range, stream),
                (true, None, Some(Start::Zero)) => {
                    registers(s, &self.known(false, Some(Start::Zero)), range, stream);
                }
                (true, None, Some(Start::Held)) => {
                    registers(s, &self.known(false, Some(Start::Held)), range, stream);
                }
                (true, Some(_), Some(Start::Held)) => {
                    registers(s, &self.known(true, Some(Start::Held)), range, stream);
                }
                _ => s.outlined(Registers { of: *self, range, stream }),
            }
        }
    }

    #[inline(always)]
    fn input(&self) -> Place<E> {
        self.of.x
    }

    #[inline(always)]
    fn output(&self) -> Option<*mut E> {
        self.of.dx.filter(|dx| !dx.is_wide()).map(|dx| dx.start)
    }

    #[inline(always)]
    fn to(mut self, dx: *mut E) -> Self {
        self.of.dx = Some(PlaceMut::own(dx));
        self
    }
}

/// [`Write::registers`] where what there is is asked for each.
struct Registers<W> {
    of: W,
    range: Range<usize>,
    stream: bool,
}

impl<E: Element, P: Parameters<E>, S: Memory<E>> Work<S> for Registers<Differentiate<E, P, S::V>> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        // SAFETY: that of `Differentiate::registers`, which alone makes these.
        unsafe { registers(s, &self.of, self.range, self.stream) };
    }
}
