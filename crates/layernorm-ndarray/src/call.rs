//! A call, from arrays to kernels: where the rows lie decides the way.
//!
//! 1. All rows of all arrays dense and evenly spaced: one call of the kernels, on the arrays' own memory.
//! 2. Dense, and evenly spaced in long blocks (two axes before the last swapped): one call a block.
//! 3. Otherwise in tiles: what does not lie as the kernels want it is gathered into a buffer, some rows at a time, and the
//!    result scattered. A tile stays in the cache.
//!
//! Whichever it is, a row has the same bits.

use crate::layout::Layout;
use crate::memory::{Buffer, Source, Target, block, evenly, tile};
use crate::operator::{Operator, Saved, SavedRef, part, part_ref};
use crate::totals::{Tree, give};
use layernorm::{Companion, Element, Error, Gradients, ParamGradients, Params, Run, Workspace};
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

/// Rows in a block that both layouts have, and the distances in each, if calls by block are worth it.
fn blocks<const N: usize>(layouts: [Layout<'_>; N]) -> Option<(usize, [usize; N])> {
    let mut strides = [0; N];
    let mut rows = layouts[0].rows();
    for (layout, stride) in layouts.into_iter().zip(&mut strides) {
        let block = block(layout)?;
        *stride = block.stride;
        rows = rows.min(block.rows);
    }
    let all = rows == layouts[0].rows();
    (all || rows * layouts[0].features() >= WORTH_A_CALL).then_some((rows, strides))
}

/// Ranges of so many of `rows`, from the first on.
fn pieces(rows: Range<usize>, each: usize) -> impl Iterator<Item = Range<usize>> {
    let end = rows.end;
    rows.step_by(each).map(move |start| start..end.min(start + each))
}

/// Nothing to compute; what is wrong with the call is found all the same.
fn is_empty(layout: Layout<'_>) -> bool {
    layout.shape.contains(&0)
}

/// From `x` to `y`, or in place without an `x`.
pub(crate) fn forward<E: Element, P: Companion<E>>(
    call: Call<'_, P>,
    x: Option<Source<'_, E>>,
    mut y: Target<'_, E>,
    mut saved: Saved<'_, E::Acc>,
) -> Result<(), Error> {
    let (layout, rows) = (y.layout, y.layout.rows());
    call.operator.check(saved.as_ref().map(|saved| layernorm::StatsRef { m: saved.m, c: saved.c, rstd: saved.rstd }), rows)?;
    let Call { operator, params, run } = call;
    let by_block = match (is_empty(layout), x) {
        (true, _) => Some((rows.max(1), [layout.features(); 2])),
        (false, Some(x)) => blocks([x.layout, layout]),
        (false, None) => blocks([layout]).map(|(rows, [stride])| (rows, [stride; 2])),
    };
    let Some((each, [from, to])) = by_block else {
        return forward_tiles(call, x, &mut y, saved, 0..rows);
    };
    let first = (0..rows.min(each), 0..0);
    todo!()
}
