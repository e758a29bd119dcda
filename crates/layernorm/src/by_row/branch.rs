//! Residual connections without a norm behind them: the sum, and the gradient of the branch.

use super::add::{Add, Multiply};
use super::*;
use crate::rows::{Shape, Shared};
use crate::vector::{Body, dispatch};
use crate::{Error, Run, threads};
use std::ops::Range;

/// A checked call.
pub(crate) struct Branch<'a, E: Element> {
    pub(crate) shape: Shape,
    pub(crate) work: OfRow<'a, E>,
}

/// What is done to each row.
pub(crate) enum OfRow<'a, E: Element> {
    Add(Add<'a, E>),
    Multiply { of: Mixed<'a, E>, factor: Shared<'a, E>, to: Target<'a, E> },
}

impl<E: Element> Branch<'_, E> {
    /// Run the call. (By way of a function that is not generic.)
    pub(crate) fn run(self, run: Run) -> Result<(), Error> {
        E::branch(&self, run)
    }

    pub(crate) fn run_rows(&self, run: Run) -> Result<(), Error> {
        let level = run.level()?;
        let Shape { rows, features, .. } = self.shape;
        let parts = threads::parts(run.threads(), rows, features);
        threads::over_rows(parts, rows, |rows| dispatch(level, Part { call: self, rows }));
        Ok(())
    }
}

/// Some rows of a call.
struct Part<'a, 'b, E: Element> {
    call: &'b Branch<'a, E>,
    rows: Range<usize>,
}

impl<E: Element> Body<E> for Part<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let n = self.call.shape.features;
        for row in self.rows {
            // SAFETY: all rows are rows of the checked shape, and these are this thread's alone.
            unsafe {
                match self.call.work {
                    OfRow::Add(add) => add.of_row(row, None).run(s, n),
                    OfRow::Multiply { of, factor, to } => {
                        let (of, factor) = (of.row(row), Some(factor.row(row)));
                        s.outlined(Multiply { of, factor, to: PlaceMut::own(to.row(row)), n });
                    }
                }
            }
        }
    }
}
