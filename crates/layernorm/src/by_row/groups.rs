//! Sums over rows: of all rows of a call, or of each group of them by itself (the rows of a sample, or of an index).
//!
//! A group's rows count from 0, so its sums are those of a call with these rows alone.

use super::totals::{Split, Totals, Tree};
use crate::rows::{Shape, Target};
use crate::{Error, Level, ParamGradients, Real, Run, Workspace, threads};
use std::ops::Range;

/// Which sums over rows a call takes.
pub(crate) enum Sums<'a, T> {
    OfAll(Option<ParamGradients<'a, T>>),
    OfGroups(GroupSums<'a, T>),
}

/// Sums of each group.
pub(crate) struct GroupSums<'a, T> {
    pub(crate) groups: Groups<'a>,
    /// A row for each group: of dy x_hat, and of dy.
    pub(crate) outputs: [Option<Target<'a, T>>; 2],
    pub(crate) accumulate: bool,
    pub(crate) workspace: &'a mut Workspace<T>,
}

/// The positions of a call, cut into groups.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Groups<'a> {
    /// So many, of as many rows each.
    Equal { count: usize, rows: usize },
    /// Where each starts, and where the last one ends.
    Starts(&'a [usize]),
}

/// Takes the rows at some positions, and adds them to totals.
type TakeRows<'a, T> = dyn Fn(Level, Range<usize>, Option<Tree<'_, T>>) + Send + Sync + 'a;

impl Groups<'_> {
    fn count(&self) -> usize {
        match self {
            Self::Equal { count, .. } => *count,
            Self::Starts(starts) => starts.len().saturating_sub(1),
        }
    }

    fn start(&self, group: usize) -> usize {
        match self {
            Self::Equal { rows, .. } => group * rows,
            Self::Starts(starts) => starts[group],
        }
    }

    /// How many start before a position.
    fn before(&self, position: usize) -> usize {
        match self {
            Self::Equal { count, rows } => position.div_ceil((*rows).max(1)).min(*count),
            Self::Starts(starts) => starts[..self.count()].partition_point(|start| *start < position),
        }
    }
}

impl<T: Real> Sums<'_, T> {
    /// Take all rows of the shape, which begin `phase` numbers behind the start of a line, on the threads of `run`.
    pub(crate) fn run(
        self,
        shape: Shape,
        phase: usize,
        run: Run,
        rows: &TakeRows<'_, T>,
    ) -> Result<(), Error> {
        let level = run.level()?;
        let parts = threads::parts(run.threads(), shape.rows, shape.features);
        let params = match self {
            Self::OfAll(Some(params)) => params,
            Self::OfAll(None) => {
                threads::over_rows(parts, shape.rows, |part| rows(level, part, None));
                return Ok(());
            }
            Self::OfGroups(sums) => return sums.run(shape, phase, (level, run, parts), rows),
        };
        params.check(shape.features)?;
        let ParamGradients { dweight, dbias, accumulate, first_row, workspace } = params;
        let split = Split::new(shape, first_row, parts)?.in_phase(phase);
        let totals = split.totals(workspace)?;
        take(level, split, totals, rows);
        totals.finish(level, [dweight, dbias], accumulate);
        Ok(())
    }
}

/// The rows of a split, a thread for each part.
fn take<T: Real>(level: Level, split: Split, totals: Totals<'_, T>, rows: &TakeRows<'_, T>) {
    threads::for_each(split.parts(), |part| {
        rows(level, split.rows(part), Some(totals.of_part(part)));
    });
}

impl<T: Real> GroupSums<'_, T> {
    fn run(
        self,
        shape: Shape,
        phase: usize,
        (level, run, parts): (Level, Run, usize),
        rows: &TakeRows<'_, T>,
    ) -> Result<(), Error> {
        let Self { groups, outputs, accumulate, workspace } = self;
        if shape.features == 0 {
            return Ok(());
        }
        let count = groups.count();
        let len = |group: usize| match groups {
            Groups::Equal { rows, .. } => rows,
            Groups::Starts(starts) => starts[group + 1] - starts[group],
        };
        let parts_of = |rows: usize| threads::parts(run.threads(), rows, shape.features);
        let split = |group: usize, parts: usize| {
            let split = Split::new(Shape { rows: len(group), ..shape }, 0, parts)?;
            Ok::<_, Error>(split.from(groups.start(group)).in_phase(phase))
        };
        let finish = |group: usize, totals: Totals<'_, T>| {
            // SAFETY: the outputs have a row of features for each group, and one thread has the group.
            let outputs = unsafe {
                outputs.map(|to| to.map(|to| std::slice::from_raw_parts_mut(to.row(group), shape.features)))
            };
            totals.finish(level, outputs, accumulate);
        };

        let largest = (0..count).map(len).max().unwrap_or(0);
        // Many small groups are shared among the threads; else the threads share each group.
        let shared = parts == 1 || parts_of(largest) == 1 || largest <= shape.rows / (4 * parts);
        let mut room = 0;
        for group in 0..count {
            let parts = if shared { 1 } else { parts_of(len(group)) };
            room = room.max(split(group, parts)?.room::<T>()?);
        }
        if !shared {
            let memory = workspace.room(room);
            for group in 0..count {
                let split = split(group, parts_of(len(group)))?;
                let totals = split.totals_in(memory);
                take(level, split, totals, rows);
                finish(group, totals);
            }
            return Ok(());
        }
        let overflow = Error::Overflow { rows: parts, stride: room };
        let memory = Target::every(workspace.room(parts.checked_mul(room).ok_or(overflow)?), room);
        threads::for_each(parts, |part| {
            let share = threads::share(part, parts, shape.rows);
            let last = if part + 1 == parts { count } else { groups.before(share.end) };
            for group in groups.before(share.start)..last {
                // SAFETY: each part has so much memory for itself.
                let memory = unsafe { std::slice::from_raw_parts_mut(memory.row(part), room) };
                // They fit, or there had been an error above.
                let Ok(split) = split(group, 1) else { continue };
                let totals = split.totals_in(memory);
                rows(level, split.rows(0), Some(totals.of_part(0)));
                finish(group, totals);
            }
        });
        Ok(())
    }
}
