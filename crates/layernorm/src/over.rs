//! Rows that lie anyhow in a tensor: statistics over any axes, parameters along any axes.
//!
//! A [`Plan`] says where the numbers of a row are. Where they are contiguous, the loop over rows works on them where they
//! lie; otherwise in tiles: some rows are gathered into the workspace, normalised there, and scattered. So the layout
//! shows in no bit. A tile is also what an activation works on, while it is in cache.
//!
//! ```text
//! for each tile:  gather (copy.rs)  ->  by_row  ->  activation  ->  scatter
//! ```

mod copy;
mod masked;

use self::copy::Way;
use crate::activation::Activate;
use crate::affine::{Affine, Runs};
use crate::by_row::backward::{Backward, RunSums};
use crate::by_row::forward::Forward;
use crate::by_row::totals::{Split, Summands, Tree};
use crate::by_row::{Columns, Statistics};
use crate::element::Values;
use crate::element::private::Stored;
use crate::form::Form;
use crate::rows::{Column, Mixed, MixedMut, Shape, Source, Target};
use crate::threads::{self, share};
use crate::vector::LINE;
use crate::{Activation, Element, Error, Level, ParamGradients, Rounding, Run, Threads, Workspace};
use masked::Masked;
use std::ops::Range;

/// Axes that a tensor may have.
pub(crate) const MOST: usize = 16;

/// Bytes of a tile, if its rows are not longer: it stays in the second cache beside its like.
const TILE: usize = 128 << 10;

/// Bytes of a tile of long rows, which is wider than one row only so that memory is read by whole lines.
const WIDE_TILE: usize = 4 << 20;

/// Which numbers take part in the statistics: where each is in `valid`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask<'a> {
    pub(crate) valid: &'a [bool],
    pub(crate) outer: Axes,
    pub(crate) inner: Axes,
}

/// One axis: so many numbers, so far apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    pub(crate) size: usize,
    pub(crate) stride: usize,
}

/// Some axes, the slowest first. Those that are one in memory are one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axes {
    axes: [Axis; MOST],
    len: usize,
}

impl Axes {
    /// None: one place, at 0.
    pub(crate) const NONE: Self = Self { axes: [Axis { size: 1, stride: 0 }; MOST], len: 0 };

    /// These, at most [`MOST`].
    pub(crate) fn of(axes: impl IntoIterator<Item = Axis>) -> Self {
        axes.into_iter().filter(|axis| axis.size != 1).fold(Self::NONE, |mut all, axis| {
            match all.axes[..all.len].last_mut() {
                Some(last) if last.stride == axis.size.wrapping_mul(axis.stride) => {
                    *last = Axis { size: last.size * axis.size, stride: axis.stride };
                }
                _ => {
                    all.axes[all.len] = axis;
                    all.len += 1;
                }
            }
            all
        })
    }

    fn axes(&self) -> &[Axis] {
        &self.axes[..self.len]
    }

    fn last(&self) -> Option<Axis> {
        self.axes().last().copied()
    }

    /// Where place `index` is.
    fn offset(&self, index: usize) -> usize {
        let mut left = index;
        self.axes().iter().rev().fold(0, |offset, axis| {
            let i = left % axis.size;
            left /= axis.size;
            offset + i * axis.stride
        })
    }

    /// Is place `i` at `i * stride`?
    fn is_every(&self, stride: usize) -> bool {
        match self.axes() {
            [] => true,
            [axis] => axis.stride == stride,
            _ => false,
        }
    }
}

/// Where the numbers of rows are, and which parameters are theirs. A size of 0 anywhere makes no rows, or no features.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rows: usize,
    pub(crate) features: usize,
    /// In the tensor: the rows, and the features of a row.
    pub(crate) outer: Axes,
    pub(crate) inner: Axes,
    /// Features that share a parameter follow each other.
    pub(crate) runs: Runs,
    pub(crate) params: usize,
    /// Of a row, its first parameter; and how far from that the parameter of a run is.
    pub(crate) first_param: Axes,
    pub(crate) param_of_run: Axes,
    /// Of a row, which it is among those that share its parameters.
    pub(crate) sample: Axes,
    pub(crate) samples: usize,
    /// Are the sums over rows those of a feature? (Otherwise those of a run's sums.)
    pub(crate) by_feature: bool,
}

impl Plan {
    /// The distance between rows, where those are contiguous and evenly apart.
    fn stride(&self) -> Option<usize> {
        let rows = match self.outer.axes() {
            [] => Some(self.features),
            [axis] => Some(axis.stride),
            _ => None,
        };
        rows.filter(|_| self.inner.is_every(1))
    }

    /// Is parameter `i` of row `r` number `r * per_row + i`, modulo their number?
    fn in_order(&self) -> bool {
        let rows = match self.first_param.axes() {
            [] => self.params == self.runs.per_row,
            [axis] | [Axis { stride: 0, .. }, axis] => {
                let is_fixed = axis.stride == 0 && self.params == self.runs.per_row;
                is_fixed || axis.stride == self.runs.per_row && self.params == axis.size * self.runs.per_row
            }
            _ => false,
        };
        rows && self.param_of_run.is_every(1)
    }

    /// The parameter of a run of a row.
    fn param(&self, row: usize, run: usize) -> usize {
        self.first_param.offset(row) + self.param_of_run.offset(run)
    }

    fn is_empty(&self) -> bool {
        self.rows == 0 || self.features == 0
    }

    /// How a call is cut: at once (`whole`), or in tiles, of which `gathered` are of tensors, where those must be gathered,
    /// and `others` are not.
    fn cut<E: Element>(&self, run: Run, whole: bool, gathered: usize, others: usize) -> Cut {
        let parts = threads::parts(run.threads(), self.rows, self.features);
        let stream_from = run.stream_from();
        if whole {
            return Cut { parts, rows: self.rows.max(1), tiles: 0, tile: 0, params: 0, stream_from };
        }
        let bytes = self.features.saturating_mul(size_of::<E>()).max(1);
        let gathers = self.stride().is_none();
        // Of rows that lie side by side, enough to fill lines.
        let side_by_side = match (self.outer.last(), self.inner.last()) {
            (Some(rows), Some(last)) if gathers && last.stride > rows.stride => {
                let dense = self.inner.axes().iter().filter(|axis| axis.stride < rows.stride);
                let dense = dense.fold(1, |numbers: usize, axis| numbers.saturating_mul(axis.size)).max(1);
                (2 * LINE / size_of::<E>()).div_ceil(dense)
            }
            _ => 1,
        };
        let rows = (TILE / bytes).max(side_by_side.min(WIDE_TILE / bytes));
        // Whole lines, if it is some.
        let rows = if rows > side_by_side { rows - rows % side_by_side } else { rows };
        let rows = rows.clamp(1, self.rows.div_ceil(parts).max(1));
        let same_in_all_rows = self.in_order() && self.params == self.runs.per_row;
        let params = if same_in_all_rows { 0 } else { pad(rows.saturating_mul(self.runs.per_row)) };
        let tile = pad(rows.saturating_mul(self.features).div_ceil(size_of::<E::Acc>() / size_of::<E>()));
        Cut { parts, rows, tiles: others + if gathers { gathered } else { 0 }, tile, params, stream_from }
    }
}

/// Up to whole lines.
fn pad(numbers: usize) -> usize {
    numbers.saturating_add(LINE / size_of::<f32>() - 1) / (LINE / size_of::<f32>())
        * (LINE / size_of::<f32>())
}

/// A call, cut into parts and tiles.
#[derive(Clone, Copy)]
struct Cut {
    parts: usize,
    /// Rows of a tile.
    rows: usize,
    /// Tiles of a part, and the numbers to accumulate in whose memory each takes.
    tiles: usize,
    tile: usize,
    /// Numbers of a tile's weights, and of its biases, where they are not the same for all rows.
    params: usize,
    /// Outputs of so many bytes are written past the caches. (A tile is in one.)
    stream_from: usize,
}

impl Cut {
    /// Numbers that a part takes, with `others` of its own.
    fn each(&self, others: usize) -> usize {
        let all = self.tiles.saturating_mul(self.tile).saturating_add(self.params.saturating_mul(2));
        all.saturating_add(pad(others))
    }

    /// Numbers that all parts take.
    fn room(&self, others: usize) -> Result<usize, Error> {
        let (rows, stride) = (self.parts, self.each(others));
        let all = rows.checked_mul(stride).and_then(|all| all.checked_add(LINE));
        all.filter(|all| *all < isize::MAX as usize / size_of::<f64>())
            .ok_or(Error::Overflow { rows, stride })
    }

    /// Numbers of the sums of the runs of a tile.
    fn sums(&self, plan: &Plan) -> usize {
        self.rows.saturating_mul(plan.runs.per_row).saturating_mul(2)
    }

    /// The tiles of some rows.
    fn tiles_of(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (of, end) = (self.rows, rows.end);
        rows.step_by(of).map(move |start| start..end.min(start + of))
    }
}

/// Memory that is handed out piece by piece.
struct Pieces<'a, T>(&'a mut [T]);

impl<'a, T> Pieces<'a, T> {
    /// From a line's start on.
    fn new(memory: &'a mut [T]) -> Self {
        let before = memory.as_ptr().align_offset(LINE).min(memory.len());
        Self(&mut memory[before..])
    }

    fn take(&mut self, len: usize) -> &'a mut [T] {
        let (piece, rest) = std::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        piece
    }

    /// Elements, in the memory of numbers that are not narrower.
    fn tile<E: Element<Acc = T>>(&mut self, len: usize) -> *mut E {
        self.take(len).as_mut_ptr().cast()
    }
}

/// What parts take, a piece each.
#[derive(Clone, Copy)]
struct Shared<T> {
    start: *mut T,
    each: usize,
}

// SAFETY: a part takes its own piece only.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(memory: &mut [T], parts: usize, each: usize) -> Self {
        assert!(memory.len() >= parts * each, "the memory has the room");
        Self { start: memory.as_mut_ptr(), each }
    }

    /// # Safety
    /// The part is one of those that there is memory for, nobody else takes it, and the memory lives.
    unsafe fn part<'a>(&self, part: usize) -> Pieces<'a, T> {
        // SAFETY: the caller's.
        Pieces(unsafe { std::slice::from_raw_parts_mut(self.start.add(part * self.each), self.each) })
    }
}

/// The weight or the bias of a tile.
fn affine<'a, E: Element>(
    plan: &Plan,
    values: Option<Values<'a, E>>,
    absent: f64,
    rows: Range<usize>,
    memory: &'a mut [E::Acc],
) -> Affine<'a, E> {
    let runs = plan.runs;
    let Some(values) = values.filter(|values| values.len() > 1 && !memory.is_empty()) else {
        return Affine::with(values, absent, None, runs);
    };
    let len = rows.len() * runs.per_row;
    for (row, to) in rows.zip(memory.chunks_exact_mut(runs.per_row)) {
        for (run, to) in to.iter_mut().enumerate() {
            *to = values.get(plan.param(row, run));
        }
    }
    Affine::with(Some(Values::Wide(&memory[..len])), absent, None, runs)
}

/// Rows of a tensor, or of a tile.
#[derive(Clone, Copy)]
struct Place<E> {
    start: *mut E,
    stride: usize,
}

impl<E: Element> Place<E> {
    /// # Safety
    /// There are as many rows as it will be used for, during `'a`.
    unsafe fn source<'a>(self) -> Source<'a, E> {
        // SAFETY: the caller's.
        unsafe { Source::at(self.start, self.stride) }
    }

    /// # Safety
    /// As [`Place::source`], and they are this thread's.
    unsafe fn target<'a>(self) -> Target<'a, E> {
        // SAFETY: the caller's.
        unsafe { Target::at(self.start, self.stride) }
    }

    /// The activation of `rows` rows of `n` numbers; or, given the gradient of its output, that of its input.
    ///
    /// # Safety
    /// There are as many, and they are this thread's.
    unsafe fn activate(self, dy: Option<Self>, n: usize, rows: usize, level: Level) {
        for row in 0..rows {
            // SAFETY: the caller's.
            let [x, dy] = unsafe { [Some(self), dy].map(|of| of.map(|of| of.start.add(row * of.stride))) };
            if let Some(to) = x {
                E::activate(Activate { x: to, dy: dy.map(<*mut E>::cast_const), to, n }, level);
            }
        }
    }
}

/// A checked forward call. The tensors are given as their first number, from which the plan leads to all others.
pub(crate) struct OverForward<'a, E: Element> {
    pub(crate) plan: Plan,
    pub(crate) statistics: Statistics,
    pub(crate) x: Source<'a, E>,
    /// May be the memory of `x`.
    pub(crate) y: Target<'a, E>,
    pub(crate) in_place: bool,
    pub(crate) weight: Option<Values<'a, E>>,
    pub(crate) bias: Option<Values<'a, E>>,
    pub(crate) form: Form<E::Acc>,
    pub(crate) saved: Option<Columns<Column<'a, E::Acc>>>,
    pub(crate) activation: Activation,
    pub(crate) mask: Option<Mask<'a>>,
}

impl<E: Element> OverForward<'_, E> {
    /// Run the call, in the room of `workspace`.
    pub(crate) fn run(&self, workspace: &mut Workspace<E::Acc>, run: Run) -> Result<(), Error> {
        // Before anything is allocated.
        run.level()?;
        let memory = workspace.room(self.cut(run).room(self.others())?);
        E::forward_over(self, memory, run)
    }

    fn cut(&self, run: Run) -> Cut {
        self.plan.cut::<E>(run, self.is_whole(), 1, 0)
    }

    /// Can the loop over rows do the whole at once?
    fn is_whole(&self) -> bool {
        let plain = self.activation == Activation::None && self.mask.is_none();
        plain && self.plan.in_order() && self.plan.stride().is_some()
    }

    /// Numbers that a part takes beside tiles and parameters.
    fn others(&self) -> usize {
        if self.mask.is_some() { masked::ROWS * self.plan.features } else { 0 }
    }

    pub(crate) fn run_in(&self, memory: &mut [E::Acc], run: Run) -> Result<(), Error> {
        let level = run.level()?;
        let (plan, cut) = (&self.plan, self.cut(run));
        if plan.is_empty() {
            return Ok(());
        }
        if let (true, Some(stride)) = (self.is_whole(), plan.stride()) {
            // SAFETY: all rows.
            let call = unsafe {
                let place = |start| Place { start, stride };
                let [x, y] = [self.x.row(0).cast_mut(), self.y.row(0)].map(place);
                self.rows(0..plan.rows, x, y, [&mut [], &mut []])
            };
            return Forward { in_place: self.in_place, ..call }.run(self.statistics, run);
        }
        let memory = Pieces::new(memory).0;
        let memory = Shared::new(memory, cut.parts, cut.each(self.others()));
        threads::for_each(cut.parts, |part| {
            // SAFETY: the memory of this part.
            let mut memory = unsafe { memory.part(part) };
            let tile = memory.tile::<E>(if cut.tiles > 0 { cut.tile } else { 0 });
            let [weights, biases] = [(); 2].map(|()| memory.take(cut.params));
            let others = memory.0;
            for rows in cut.tiles_of(share(part, cut.parts, plan.rows)) {
                // SAFETY: rows of the plan, which are this thread's, and a tile for as many.
                unsafe {
                    let (x, y) = match plan.stride() {
                        Some(stride) => {
                            let at = plan.outer.offset(rows.start);
                            let [x, y] = [self.x.row(at).cast_mut(), self.y.row(at)];
                            (Place { start: x, stride }, Place { start: y, stride })
                        }
                        None => {
                            copy::rows(
                                Way::Gather,
                                self.x.row(0).cast_mut(),
                                tile,
                                plan,
                                rows.clone(),
                                level,
                            );
                            let tile = Place { start: tile, stride: plan.features };
                            (tile, tile)
                        }
                    };
                    let call = self.rows(rows.clone(), x, y, [&mut *weights, &mut *biases]);
                    if let Some(mask) = &self.mask {
                        Masked { mask, statistics: self.statistics, first: rows.start, level }
                            .forward(call, &mut *others);
                    } else {
                        let done = call.run(
                            self.statistics,
                            Run::default().with_level(level).with_threads(Threads::One),
                        );
                        debug_assert!(done.is_ok(), "a level that was checked");
                    }
                    if self.activation == Activation::Silu {
                        y.activate(None, plan.features, rows.len(), level);
                    }
                    if plan.stride().is_none() {
                        copy::rows(Way::Scatter, self.y.row(0), tile, plan, rows, level);
                    }
                }
            }
        });
        Ok(())
    }

    /// Some rows.
    ///
    /// # Safety
    /// `x` and `y` have them, and they are this thread's.
    unsafe fn rows<'b>(
        &'b self,
        rows: Range<usize>,
        x: Place<E>,
        y: Place<E>,
        [weights, biases]: [&'b mut [E::Acc]; 2],
    ) -> Forward<'b, E> {
        let plan = &self.plan;
        // SAFETY: the caller's.
        unsafe {
            Forward {
                shape: Shape { rows: rows.len(), features: plan.features, stride: x.stride },
                x: Mixed::Own(x.source()),
                y: y.target(),
                // A tile is in cache.
                in_place: true,
                weight: affine(plan, self.weight, 1.0, rows.clone(), weights),
                bias: affine(plan, self.bias, -0.0, rows.clone(), biases),
                form: self.form,
                rounding: Rounding::Once,
                saved: self.saved.map(|saved| saved.from(rows.start)),
                add: None,
                stream_from: usize::MAX,
            }
        }
    }
}

/// Where the gradients of parameters go.
pub(crate) struct ParamSums<'b, T> {
    pub(crate) dweight: Option<&'b mut [T]>,
    pub(crate) dbias: Option<&'b mut [T]>,
    pub(crate) accumulate: bool,
}

/// A checked backward call. As [`OverForward`].
pub(crate) struct OverBackward<'a, E: Element> {
    pub(crate) plan: Plan,
    pub(crate) statistics: Statistics,
    pub(crate) x: Source<'a, E>,
    pub(crate) dy: Source<'a, E>,
    /// May be the memory of `dy`.
    pub(crate) dx: Option<Target<'a, E>>,
    pub(crate) in_place: bool,
    pub(crate) weight: Option<Values<'a, E>>,
    /// Looked at by an activation alone.
    pub(crate) bias: Option<Values<'a, E>>,
    pub(crate) form: Form<E::Acc>,
    pub(crate) saved: Option<Columns<&'a [E::Acc]>>,
    pub(crate) activation: Activation,
    pub(crate) mask: Option<Mask<'a>>,
    /// If gradients of parameters are wanted: rows (samples, where sums are not by feature) before those of this call.
    pub(crate) first: Option<usize>,
}

impl<E: Element> OverBackward<'_, E> {
    /// Run the call, in the room of `workspace`.
    pub(crate) fn run(&self, params: ParamGradients<'_, E::Acc>, run: Run) -> Result<(), Error> {
        let ParamGradients { dweight, dbias, accumulate, workspace, .. } = params;
        run.level()?;
        let (rows, stride) = (self.plan.rows, self.plan.features);
        let room = self.rooms(run)?.iter().try_fold(0usize, |all, room| all.checked_add(*room));
        let memory = workspace.room(room.ok_or(Error::Overflow { rows, stride })?);
        E::backward_over(self, ParamSums { dweight, dbias, accumulate }, memory, run)
    }

    fn cut(&self, run: Run) -> Cut {
        let activates = self.activation != Activation::None;
        self.plan.cut::<E>(run, self.is_whole(), 2, usize::from(activates))
    }

    /// Can the loop over rows do the whole at once?
    fn is_whole(&self) -> bool {
        let plain = self.activation == Activation::None && self.mask.is_none();
        plain && self.plan.in_order() && self.plan.stride().is_some()
    }

    fn wants_runs(&self) -> bool {
        self.first.is_some() && !self.plan.by_feature
    }

    /// Numbers for parts, for the totals, and for the sums of the runs of all rows.
    fn rooms(&self, run: Run) -> Result<[usize; 3], Error> {
        let (cut, (rows, stride)) = (self.cut(run), (self.plan.samples, self.plan.params));
        let parts = cut.room(self.others(&cut))?;
        let Some(split) = self.split(&cut)? else { return Ok([parts, 0, 0]) };
        let sums = if self.wants_runs() {
            rows.checked_mul(stride).and_then(|all| all.checked_mul(2))
        } else {
            Some(0)
        };
        Ok([parts, split.room::<E::Acc>()?, sums.ok_or(Error::Overflow { rows, stride })?])
    }

    /// Numbers that a part takes beside tiles and parameters: what a mask needs, and the sums of the runs of a tile.
    fn others(&self, cut: &Cut) -> usize {
        let sums = if self.wants_runs() && !self.is_whole() { cut.sums(&self.plan) } else { 0 };
        sums.saturating_add(if self.mask.is_some() { masked::ROWS * self.plan.features } else { 0 })
    }

    /// How what is summed over rows is split.
    fn split(&self, cut: &Cut) -> Result<Option<Split>, Error> {
        let Plan { rows, features, samples, params, by_feature, .. } = self.plan;
        let Some(first) = self.first else { return Ok(None) };
        let (rows, features) = if by_feature { (rows, features) } else { (samples, params) };
        Split::new(Shape { rows, features, stride: features }, first, cut.parts).map(Some)
    }

    pub(crate) fn run_in(
        &self,
        sums: ParamSums<'_, E::Acc>,
        memory: &mut [E::Acc],
        run: Run,
    ) -> Result<(), Error> {
        let level = run.level()?;
        let [parts_room, totals_room, sums_room] = self.rooms(run)?;
        let (plan, cut) = (&self.plan, self.cut(run));
        let split = self.split(&cut)?;
        let ParamSums { dweight, dbias, accumulate } = sums;
        if plan.is_empty() {
            let zero = E::Acc::from_f64(0.0);
            [dweight, dbias].into_iter().flatten().filter(|_| !accumulate).for_each(|sums| sums.fill(zero));
            return Ok(());
        }
        let mut memory = Pieces(memory);
        let totals = split.map(|split| split.totals_in(memory.take(totals_room)));
        let (products, ones) = memory.take(sums_room).split_at_mut(sums_room / 2);
        let parts_memory = Pieces::new(memory.take(parts_room)).0;
        let shared = Shared::new(parts_memory, cut.parts, cut.each(self.others(&cut)));
        let parts = split.filter(|_| plan.by_feature).map_or(cut.parts, |split| split.parts());
        {
            let places = [&mut *products, &mut *ones].map(|sums| Target::every(sums, 1));
            threads::for_each(parts, |part| {
                let split = split.filter(|_| plan.by_feature);
                let rows = split.map_or_else(|| share(part, parts, plan.rows), |split| split.rows(part));
                let mut tree = totals.filter(|_| plan.by_feature).map(|totals| totals.of_part(part));
                // SAFETY: the rows are this part's, and so is the memory.
                unsafe { self.part(rows, tree.as_mut(), places, shared.part(part), (&cut, level)) };
            });
        }
        let (Some(totals), Some(split)) = (totals, split) else { return Ok(()) };
        if !plan.by_feature {
            let (products, ones) = (&*products, &*ones);
            threads::for_each(split.parts(), |part| {
                let rows = split.rows(part);
                let numbers = rows.start * plan.params..rows.end * plan.params;
                let of = [&products[numbers.clone()], &ones[numbers]];
                let summands = Summands { rows: of, factors: false, first: rows.start };
                summands.add_to(&mut totals.of_part(part), level);
            });
        }
        totals.finish(level, [dweight, dbias], accumulate);
        Ok(())
    }

    /// Some rows, on this thread.
    ///
    /// # Safety
    /// They are rows of the plan and this thread's; `places` has room for the sums of the runs of all rows, if they are
    /// wanted, and the memory is what [`Cut::each`] says.
    unsafe fn part(
        &self,
        rows: Range<usize>,
        mut tree: Option<&mut Tree<'_, E::Acc>>,
        places: [Target<'_, E::Acc>; 2],
        mut memory: Pieces<'_, E::Acc>,
        (cut, level): (&Cut, Level),
    ) {
        let plan = &self.plan;
        let (n, runs) = (plan.features, plan.runs);
        // SAFETY: the caller's.
        let dx_at = |at: usize| self.dx.map(|dx| unsafe { dx.row(at) });
        if let (true, Some(stride)) = (self.is_whole(), plan.stride()) {
            // SAFETY: all rows of the plan, of which these are this thread's.
            unsafe {
                let place = |start| Place { start, stride };
                let of = [self.x.row(0), self.dy.row(0)].map(|start| place(start.cast_mut()));
                let call = self.rows(0..plan.rows, of, dx_at(0).map(place), &mut []);
                let sums = places.map(|sums| sums.every_of(runs.per_row));
                let sums_of_runs = self.wants_runs().then_some(RunSums { runs, sums });
                let (in_place, stream_from) = (self.in_place, cut.stream_from);
                let call = Backward { in_place, stream_from, sums_of_runs, ..call };
                call.part(self.statistics, level, rows, tree);
            }
            return;
        }
        let gathers = plan.stride().is_none();
        let [x_tile, dy_tile] =
            [(); 2].map(|()| if gathers { memory.tile::<E>(cut.tile) } else { std::ptr::null_mut() });
        let z_tile = match self.activation {
            Activation::None => std::ptr::null_mut(),
            Activation::Silu => memory.tile::<E>(cut.tile),
        };
        let [weights, biases] = [(); 2].map(|()| memory.take(cut.params));
        let tile_sums = memory.take(if self.wants_runs() { cut.sums(plan) } else { 0 });
        let of_mask = memory.0;
        for rows in cut.tiles_of(rows) {
            let k = rows.len();
            // SAFETY: rows of the plan, which are this thread's, and tiles for as many.
            unsafe {
                let at = plan.outer.offset(rows.start);
                let (x, mut dy, mut dx) = match plan.stride() {
                    Some(stride) => {
                        let place = |start| Place { start, stride };
                        let [x, dy] = [self.x.row(at), self.dy.row(at)].map(|start| place(start.cast_mut()));
                        (x, dy, dx_at(at).map(place))
                    }
                    None => {
                        copy::rows(Way::Gather, self.x.row(0).cast_mut(), x_tile, plan, rows.clone(), level);
                        copy::rows(
                            Way::Gather,
                            self.dy.row(0).cast_mut(),
                            dy_tile,
                            plan,
                            rows.clone(),
                            level,
                        );
                        let [x, dy] = [x_tile, dy_tile].map(|start| Place { start, stride: n });
                        (x, dy, self.dx.map(|_| dy))
                    }
                };
                if self.activation == Activation::Silu {
                    let z = Place { start: z_tile, stride: n };
                    self.output(rows.clone(), x, z, [&mut *weights, &mut *biases], level);
                    z.activate(Some(dy), n, k, level);
                    dy = z;
                    if gathers {
                        dx = dx.map(|_| z);
                    }
                }
                let sums = tile_sums.split_at_mut(tile_sums.len() / 2);
                let sums = [sums.0, sums.1].map(|sums| Target::every(sums, runs.per_row));
                let call = self.rows(rows.clone(), [x, dy], dx, &mut *weights);
                let sums_of_runs = self.wants_runs().then_some(RunSums { runs, sums });
                let call = Backward { sums_of_runs, first: rows.start, ..call };
                if let Some(mask) = &self.mask {
                    Masked { mask, statistics: self.statistics, first: rows.start, level }.backward(
                        call,
                        tree.as_deref_mut(),
                        &mut *of_mask,
                    );
                } else {
                    call.part(self.statistics, level, 0..k, tree.as_deref_mut());
                }
                if self.wants_runs() {
                    for (i, row) in rows.clone().enumerate() {
                        let first = plan.sample.offset(row) * plan.params;
                        for run in 0..runs.per_row {
                            for (place, sum) in places.iter().zip(sums) {
                                *place.row(first + plan.param(row, run)) = *sum.row(i).add(run);
                            }
                        }
                    }
                }
                if let (true, Some(from), Some(to)) = (gathers, dx, self.dx) {
                    copy::rows(Way::Scatter, to.row(0), from.start, plan, rows, level);
                }
            }
        }
    }

    /// The output of the forward pass before its activation, once more.
    ///
    /// # Safety
    /// As [`OverForward::rows`].
    unsafe fn output(
        &self,
        rows: Range<usize>,
        x: Place<E>,
        z: Place<E>,
        [weights, biases]: [&mut [E::Acc]; 2],
        level: Level,
    ) {
        let plan = &self.plan;
        // SAFETY: the caller's.
        let call = unsafe {
            Forward {
                shape: Shape { rows: rows.len(), features: plan.features, stride: x.stride },
                x: Mixed::Own(x.source()),
                y: z.target(),
                in_place: true,
                weight: affine(plan, self.weight, 1.0, rows.clone(), weights),
                bias: affine(plan, self.bias, -0.0, rows, biases),
                form: self.form,
                rounding: Rounding::Once,
                saved: None,
                add: None,
                stream_from: usize::MAX,
            }
        };
        let done = call.run(self.statistics, Run::default().with_level(level).with_threads(Threads::One));
        debug_assert!(done.is_ok(), "a level that was checked");
    }

    /// Some rows.
    ///
    /// # Safety
    /// `x`, `dy` and `dx` have them, and they are this thread's.
    unsafe fn rows<'b>(
        &'b self,
        rows: Range<usize>,
        [x, dy]: [Place<E>; 2],
        dx: Option<Place<E>>,
        weights: &'b mut [E::Acc],
    ) -> Backward<'b, E> {
        // SAFETY: the caller's.
        unsafe {
            Backward {
                shape: Shape { rows: rows.len(), features: self.plan.features, stride: x.stride },
                x: Mixed::Own(x.source()),
                dy: dy.source(),
                dx: dx.map(|dx| MixedMut::Own(dx.target())),
                // A tile is in cache.
                in_place: true,
                weight: affine(&self.plan, self.weight, 1.0, rows.clone(), weights),
                form: self.form,
                saved: self.saved.map(|saved| saved.from(rows.start)),
                upstream: None,
                branch: None,
                sums_of_runs: None,
                only: None,
                first: 0,
                stream_from: usize::MAX,
            }
        }
    }
}
