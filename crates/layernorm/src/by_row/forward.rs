//! The forward loop over rows.

use super::stage::Stage;
use super::*;
use crate::rows::{Shape, Source};
use crate::vector::{Body, dispatch};
use crate::{Error, Params, Rows, RowsMut, Run, threads, wide};
use std::ops::Range;

/// A checked forward call.
#[derive(Clone, Copy)]
pub(crate) struct Forward<'a, T> {
    shape: Shape,
    x: Source<'a, T>,
    y: Target<'a, T>,
    params: Params<'a, T>,
    eps: T,
    saved: Option<Columns<Target<'a, T>>>,
    /// Is `y` the memory of `x`? Then it is in cache when it is written.
    in_place: bool,
}

impl<'a, T: Real> Forward<'a, T> {
    pub(crate) fn new(
        x: Rows<'a, T>,
        params: Params<'a, T>,
        y: RowsMut<'a, T>,
        saved: Option<Columns<Target<'a, T>>>,
    ) -> Result<Self, Error> {
        let shape = x.shape();
        y.shape().expect("y", shape)?;
        let eps = params.check(shape.features)?;
        Ok(Self { shape, x: x.source(), y: y.target(), params, eps, saved, in_place: false })
    }

    pub(crate) fn in_place(
        x: RowsMut<'a, T>,
        params: Params<'a, T>,
        saved: Option<Columns<Target<'a, T>>>,
    ) -> Result<Self, Error> {
        let shape = x.shape();
        let eps = params.check(shape.features)?;
        let (x, y) = x.in_place();
        Ok(Self { shape, x, y, params, eps, saved, in_place: true })
    }

    /// Run the call. (By way of a function that is not generic, so that the loops are compiled in this
    /// crate, once, and not in each that uses it.)
    pub(crate) fn run(self, statistics: Statistics, run: Run) -> Result<(), Error> {
        T::forward(self, statistics, run)
    }

    pub(crate) fn run_kind<K: Kind>(self, run: Run) -> Result<(), Error> {
        let level = run.level()?;
        let features = self.shape.features;
        if features == 0 {
            return Ok(());
        }
        let weight = Affine::new(self.params.weight, 1.0, features);
        let bias = Affine::new(self.params.bias, -0.0, features);
        let parts = threads::parts(run.threads(), self.shape.rows, features);
        threads::over_rows(parts, self.shape.rows, |rows| {
            let (weight, bias) = (weight.numbers(), bias.numbers());
            dispatch(level, Part { call: &self, rows, kind: PhantomData::<K>, weight, bias });
        });
        Ok(())
    }

    fn streams(&self) -> bool {
        !self.in_place && self.shape.bytes::<T>() >= STREAM_FROM
    }
}

/// Some rows of a call.
struct Part<'a, T, K> {
    call: &'a Forward<'a, T>,
    rows: Range<usize>,
    kind: PhantomData<K>,
    weight: Numbers<'a, T>,
    bias: Numbers<'a, T>,
}

impl<T: Real, K: Kind> Body<T> for Part<'_, T, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Vector<T>>(self, s: S) {
        let Self { call, rows, weight, bias, .. } = self;
        let n = call.shape.features;
        let stream = call.streams();
        let Some(last) = rows.clone().last() else { return };
        // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
        unsafe {
            let row_at = |row: usize| call.x.row(last.min(row));
            let start = rows.start;
            let mut stage = if stream { Stage::new(call.y, start, n) } else { None };
            let stream = stream && stage.is_none();
            let standardise = Standardise::<_, K>::new(s, Moments::none());
            let (x, y) = (row_at(start), call.y.row(start));
            let mut write = Write { x, y, n, at: n, stream, weight, bias, standardise }; // nothing yet
            for row in rows {
                let x = row_at(row);
                let fast = statistics::<T, S, K, _>(s, x, n, call.eps, &mut write, row_at(row + 1));
                write.finish(s);
                if let Some(stage) = stage.as_mut().filter(|_| row > start) {
                    stage.row_done(s);
                }
                let y = stage.as_mut().map_or(call.y.row(row), Stage::slot);
                let moments = fast.unwrap_or_else(|| wide::forward::<T, K>(x, y, n, call.eps, &call.params));
                if let Some(saved) = call.saved {
                    saved.set(row, moments);
                }
                let at = if fast.is_some() { 0 } else { n };
                write = Write { x, y, at, standardise: Standardise::new(s, moments), ..write };
                write.start(s);
            }
            write.finish(s);
            if let Some(stage) = &mut stage {
                stage.row_done(s);
                stage.finish(s);
            }
        }
        if stream {
            s.fence();
        }
    }
}

/// The last pass over a row, from `at` on: y = fma(x_hat, weight, bias).
///
/// The pointers are valid for `n` numbers, for all its methods.
struct Write<'a, T, V, K> {
    x: *const T,
    y: *mut T,
    n: usize,
    at: usize,
    stream: bool,
    weight: Numbers<'a, T>,
    bias: Numbers<'a, T>,
    standardise: Standardise<V, K>,
}

impl<T: Real, V: Copy, K: Kind> Write<'_, T, V, K> {
    /// `count` numbers.
    ///
    /// # Safety
    /// `count` numbers are left.
    #[inline(always)]
    unsafe fn value<S: Vector<T, V = V>>(&self, s: S, count: usize) -> V {
        // SAFETY: the caller's.
        unsafe {
            let x_hat = self.standardise.apply(s, load(s, self.x, self.at, count));
            s.fma(x_hat, self.weight.get(s, self.at, count), self.bias.get(s, self.at, count))
        }
    }

    /// Up to the first line of `y`, if it is to be streamed.
    ///
    /// # Safety
    /// The type's.
    #[inline(always)]
    unsafe fn start<S: Vector<T, V = V>>(&mut self, s: S) {
        if self.stream {
            // SAFETY: as far as the row goes.
            unsafe { self.plain(s, self.n.min(self.at + self.y.align_offset(LINE))) };
        }
    }

    /// What is left.
    ///
    /// # Safety
    /// The type's.
    #[inline(always)]
    unsafe fn finish<S: Vector<T, V = V>>(&mut self, s: S) {
        // SAFETY: as far as the row goes.
        unsafe {
            while self.n - self.at >= T::LANES {
                Beside::<T, S>::step::<2>(self, s);
            }
            self.plain(s, self.n);
        }
    }

    /// Up to `end`, with plain stores.
    ///
    /// # Safety
    /// `end <= n`.
    #[inline(always)]
    unsafe fn plain<S: Vector<T, V = V>>(&mut self, s: S, end: usize) {
        while self.at < end {
            let count = S::WIDTH.min(end - self.at);
            // SAFETY: the caller's.
            unsafe { store(s, self.y, self.at, count, self.value(s, count)) };
            self.at += count;
        }
    }
}

impl<T: Real, S: Vector<T>, K: Kind> Beside<T, S> for Write<'_, T, S::V, K> {
    const STREAMS: bool = true;

    #[inline(always)]
    unsafe fn step<const LINES: usize>(&mut self, s: S) {
        let count = LINES * (LINE / size_of::<T>());
        if self.n - self.at < count {
            return;
        }
        for _ in 0..count / S::WIDTH {
            // SAFETY: a step is left; when streaming, `start` has reached a line of `y`.
            unsafe {
                let y = self.value(s, S::WIDTH);
                if self.stream { s.stream(self.y.add(self.at), y) } else { s.store(self.y.add(self.at), y) }
            }
            self.at += S::WIDTH;
        }
    }
}
