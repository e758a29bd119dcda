//! The forward loop over rows.

use super::last_pass::{LastPass, Write};
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
        let streams = call.streams();
        let Some(last) = rows.clone().last() else { return };
        // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
        unsafe {
            let row_at = |row: usize| call.x.row(last.min(row));
            let start = rows.start;
            let mut stage = if streams { Stage::new(call.y, start, n) } else { None };
            let stream = streams && stage.is_none();
            let (x, y) = (row_at(start), call.y.row(start));
            let standardise = Standardise::<_, K>::new(s, Moments::none());
            let nothing = Normalise { x, y, weight, bias, standardise };
            let mut write = LastPass::start(s, nothing, n, n, None);
            for row in rows {
                let x = row_at(row);
                let ahead = row_at(row + 1);
                let fast = if streams {
                    let fast = statistics::<T, S, K, _>(s, x, n, call.eps, &mut write, ahead);
                    write.finish(s);
                    fast
                } else {
                    // In cache there is nothing to wait for, and a sum by itself takes several blocks at once.
                    write.finish(s);
                    statistics::<T, S, K, _>(s, x, n, call.eps, &mut Nothing, ahead)
                };
                if let Some(stage) = stage.as_mut().filter(|_| row > start) {
                    stage.row_done(s);
                }
                let y = stage.as_mut().map_or(call.y.row(row), Stage::slot);
                let moments = fast.unwrap_or_else(|| wide::forward::<T, K>(x, y, n, call.eps, &call.params));
                if let Some(saved) = call.saved {
                    saved.set(row, moments);
                }
                let at = if fast.is_some() { 0 } else { n };
                let normalise = Normalise { x, y, weight, bias, standardise: Standardise::new(s, moments) };
                write = LastPass::start(s, normalise, at, n, stream.then_some(y));
            }
            write.finish(s);
            if let Some(stage) = &mut stage {
                stage.row_done(s);
                stage.finish(s);
            }
        }
        if streams {
            s.fence();
        }
    }
}

/// y = fma(x_hat, weight, bias).
///
/// The pointers are valid for a row.
struct Normalise<'a, T, V, K> {
    x: *const T,
    y: *mut T,
    weight: Numbers<'a, T>,
    bias: Numbers<'a, T>,
    standardise: Standardise<V, K>,
}

impl<T: Real, S: Vector<T>, K: Kind> Write<T, S> for Normalise<'_, T, S::V, K> {
    #[inline(always)]
    unsafe fn numbers(&self, s: S, at: usize, count: usize, stream: bool) {
        // SAFETY: the caller's.
        unsafe {
            let x_hat = self.standardise.apply(s, load(s, self.x, at, count));
            let y = s.fma(x_hat, self.weight.get(s, at, count), self.bias.get(s, at, count));
            if stream { s.stream(self.y.add(at), y) } else { store(s, self.y, at, count, y) }
        }
    }
}
