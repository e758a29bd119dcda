//! Sums over rows of plain columns, in the order of dweight and dbias: the gradients of a branch's bias and gate.

use super::groups::Sums;
use super::totals::Tree;
use super::*;
use crate::rows::{Shape, Shared};
use crate::vector::{Body, dispatch};
use crate::{Error, Run};
use std::ops::Range;

/// A checked call: for each feature the sum over rows of `of`; or, in the place of dweight, of `of` times `with`.
pub(crate) struct ColumnSums<'a, E: Element> {
    pub(crate) shape: Shape,
    pub(crate) of: Mixed<'a, E>,
    pub(crate) with: Option<Shared<'a, E>>,
}

impl<E: Element> ColumnSums<'_, E> {
    /// Run the call. (By way of a function that is not generic.)
    pub(crate) fn run(self, sums: Sums<'_, E::Acc>, run: Run) -> Result<(), Error> {
        E::sums_of_columns(&self, sums, run)
    }

    pub(crate) fn run_rows(&self, sums: Sums<'_, E::Acc>, run: Run) -> Result<(), Error> {
        sums.run(self.shape, 0, run, &|level, rows, totals| {
            if let Some(totals) = totals {
                dispatch(level, Part { call: self, rows, totals });
            }
        })
    }
}

/// Some rows of a call.
struct Part<'a, 'b, 'c, E: Element> {
    call: &'b ColumnSums<'a, E>,
    rows: Range<usize>,
    totals: Tree<'c, E::Acc>,
}

impl<E: Element> Body<E> for Part<'_, '_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let Self { call, rows, mut totals } = self;
        let n = call.shape.features;
        for row in rows {
            let sums = totals.current();
            // SAFETY: all rows are rows of the checked shape, and a node has room for one.
            unsafe {
                let of = call.of.row(row);
                let with = call.with.map(|with| with.row(row));
                let i = usize::from(with.is_none());
                for at in (0..n).step_by(S::WIDTH) {
                    let count = S::WIDTH.min(n - at);
                    let sum = sums.get(s, i, at, count);
                    let number = of.load(s, at, count);
                    let sum = match with {
                        None => s.add(sum, number),
                        Some(with) => s.fma(number, with.load(s, at, count), sum),
                    };
                    sums.set(s, i, at, count, sum);
                }
            }
            totals.row_done(s, row);
        }
    }
}
