//! A forward call, from arrays to kernels: where the rows lie decides the way.
//!
//! 1. All rows of all arrays dense and evenly spaced: one call of the kernels, on the arrays' own memory.
//! 2. Dense, and evenly spaced in long blocks (two axes before the last swapped): one call a block.
//! 3. Otherwise in tiles: what does not lie as the kernels want it is gathered into a buffer, some rows at a time, and the
//!    result scattered. A tile stays in the cache.
//!
//! Whichever it is, a row has the same bits.

use crate::layout::Layout;
use crate::memory::{Buffer, Source, Target, tile};
use crate::operator::{Operator, Saved, part, split};
use crate::threads;
use layernorm::{Companion, Element, Error, Params, Run, StatsRef};
use std::ops::Range;

/// Numbers in a block for which a call of the kernels by itself costs little beside the work.
const WORTH_A_CALL: usize = 1024;

/// What all calls have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a, P> {
    pub(crate) operator: Operator,
    pub(crate) params: Params<'a, P>,
    pub(crate) run: Run,
}

/// How many rows of these arrays to give to the kernels at once, where they lie; `None` if it does not pay. All layouts have
/// the same shape.
pub(crate) fn block<const N: usize>(layouts: [Layout<'_>; N]) -> Option<usize> {
    let (all, features) = (layouts[0].rows(), layouts[0].features());
    if all == 0 || features == 0 {
        return Some(all);
    }
    if !layouts.iter().all(|layout| layout.is_dense()) {
        return None;
    }
    let rows = layouts.iter().map(|layout| layout.block().rows).fold(all, usize::min);
    (rows == all || rows * features >= WORTH_A_CALL).then_some(rows)
}

/// Ranges of so many of `rows`; one, if there are no rows, so that the kernels see what is wrong with the call.
pub(crate) fn pieces(rows: Range<usize>, each: usize) -> impl Iterator<Item = Range<usize>> {
    let each = each.max(1);
    let count = rows.len().div_ceil(each).max(1);
    (0..count).map(move |piece| {
        let start = rows.start + piece * each;
        start..rows.end.min(start.saturating_add(each))
    })
}

/// From `x` to `y`, or in place without an `x`. Shapes and axes must be checked.
pub(crate) fn forward<E: Element, P: Companion<E>>(
    call: Call<'_, P>,
    x: Option<Source<'_, E>>,
    mut y: Target<'_, E>,
    mut saved: Saved<'_, E::Acc>,
) -> Result<(), Error> {
    let (layout, rows) = (y.layout, y.layout.rows());
    let to_check = saved.as_ref().map(|saved| StatsRef { m: saved.m, c: saved.c, rstd: saved.rstd });
    call.operator.check(to_check, rows)?;
    let Some(each) = block([x.map_or(layout, |x| x.layout), layout]) else {
        let parts = threads::parts(call.run, rows * layout.features());
        return tiles(call, x, y, saved, (0..rows, parts));
    };
    let mut buffer = Buffer::new();
    for rows in pieces(0..rows, each) {
        let saved = part(&mut saved, rows.clone());
        piece(call, x, &mut y, (saved, rows), &mut buffer)?;
    }
    Ok(())
}

/// Some rows in tiles, on so many threads; `saved` is of these rows.
fn tiles<E: Element, P: Companion<E>>(
    call: Call<'_, P>,
    x: Option<Source<'_, E>>,
    mut y: Target<'_, E>,
    mut saved: Saved<'_, E::Acc>,
    (rows, parts): (Range<usize>, usize),
) -> Result<(), Error> {
    let each = tile::<E>(y.layout);
    if parts > 1 && rows.len() > each {
        let half = (rows.len() / 2).next_multiple_of(each);
        let (first, second) = (rows.start..rows.start + half, rows.start + half..rows.end);
        let [y_first, y_second] = y.split(second.start);
        let [saved_first, saved_second] = split(saved, half);
        // What the kernels refuse, they refuse for both, before either writes.
        let (one, other) = threads::both(
            || tiles(call, x, y_first, saved_first, (first, parts - parts / 2)),
            || tiles(call, x, y_second, saved_second, (second, parts / 2)),
        );
        return one.and(other);
    }
    let (mut buffer, first) = (Buffer::new(), rows.start);
    for rows in pieces(rows, each) {
        let saved = part(&mut saved, rows.start - first..rows.end - first);
        piece(call, x, &mut y, (saved, rows), &mut buffer)?;
    }
    Ok(())
}

/// Some rows at once: where they lie, or by way of the buffer.
fn piece<E: Element, P: Companion<E>>(
    Call { operator, params, run }: Call<'_, P>,
    x: Option<Source<'_, E>>,
    y: &mut Target<'_, E>,
    (saved, rows): (Saved<'_, E::Acc>, Range<usize>),
    buffer: &mut Buffer<E>,
) -> Result<(), Error> {
    let Some(x) = x else {
        if let Some(y) = y.rows(rows.clone()) {
            return operator.in_place(y, params, saved, run);
        }
        operator.in_place(buffer.gather_target(y, rows.clone())?, params, saved, run)?;
        buffer.scatter(y, rows);
        return Ok(());
    };
    if let Some(y) = y.rows(rows.clone()) {
        let x = x.rows(rows.clone()).map_or_else(|| buffer.gather(&x, rows), Ok)?;
        return operator.forward(x, params, y, saved, run);
    }
    if let Some(x) = x.rows(rows.clone()) {
        operator.forward(x, params, buffer.rows_mut(y.layout, rows.len())?, saved, run)?;
    } else {
        operator.in_place(buffer.gather_mut(&x, rows.clone())?, params, saved, run)?;
    }
    buffer.scatter(y, rows);
    Ok(())
}
