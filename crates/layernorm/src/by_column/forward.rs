//! The forward pass of batch norm: the statistics of the batch, or given ones.

use super::last_pass::Last;
use super::sums::Centres;
use super::wide;
use super::*;
use crate::affine::Affine;
use crate::element::private::Stored;
use crate::form::Form;
use crate::sync::gather;
use crate::{Companion, Params, Reducer, RunningMut, StatsMut, Valid};
use std::cmp::Ordering;
use std::convert::Infallible;

/// A checked forward call.
pub(crate) struct Forward<'a, E: Element> {
    pub(crate) inputs: Inputs<'a, E>,
    pub(crate) y: Target<'a, E>,
    /// Is `y` the memory of `x`?
    pub(crate) in_place: bool,
    pub(crate) weight: Affine<'a, E>,
    pub(crate) bias: Affine<'a, E>,
    pub(crate) form: Form<E::Acc>,
    pub(crate) reducer: Option<&'a dyn Reducer>,
}

/// What a training pass keeps.
pub(crate) struct Keep<'a, T> {
    pub(crate) saved: StatsMut<'a, T>,
    pub(crate) running: Option<RunningMut<'a, T>>,
    pub(crate) workspace: &'a mut Workspace<T>,
}

/// Numbers of the arrays of a call.
const M: usize = 0;
const C: usize = 1;
const R: usize = 2;
const VAR: usize = 3;
const SUM: usize = 4;
const SQUARES: usize = 5;

impl<'a, E: Element> Forward<'a, E> {
    pub(crate) fn new<P: Companion<E>>(
        (grid, x): (Grid, Source<'a, E>),
        params: Params<'a, P>,
        y: Target<'a, E>,
        in_place: bool,
    ) -> Result<Self, Error> {
        let form = Form::new(params.eps, grid.channels)?;
        let [weight, bias] = params.affine(grid.channels)?;
        let inputs = Inputs { grid, x, dy: None, valid: Valid::All, first_row: 0 };
        Ok(Self { inputs, y, in_place, weight, bias, form, reducer: None })
    }

    /// Run a call in training.
    pub(crate) fn train(self, keep: Keep<'_, E::Acc>, run: Run) -> Result<(), Error> {
        E::batch_train(self, keep, run)
    }

    /// Run a call with these means, corrections of them, and 1 / deviations.
    pub(crate) fn given(self, of: [&[E::Acc]; 3], run: Run) -> Result<(), Error> {
        E::batch_given(&self, of, run)
    }

    pub(crate) fn given_here(&self, of: [&[E::Acc]; 3], run: Run) -> Result<(), Error> {
        let plan = Plan::new::<E>(&self.inputs.grid, false, 0, run)?;
        let [m, c, rstd] = of;
        self.write(&plan, 0..self.inputs.grid.channels, [m, c, rstd, &[]], plan.parts);
        Ok(())
    }

    fn write(&self, plan: &Plan, channels: Range<usize>, of: [&[E::Acc]; 4], parts: usize) {
        let [m, c, rstd, left_out] = of;
        let none = || Affine::new(None, 0.0);
        // An absent correction is +0.
        let c = if c.is_empty() { none() } else { numbers(c) };
        // A list of those left out may be absent; a number for each channel is not.
        let of = [numbers(m), c, numbers(rstd), none(), none()];
        let Self { inputs, y, in_place, weight, bias, .. } = self;
        Last { inputs, to: *y, in_place: *in_place, channels, of, weight, bias, left_out }.run(plan, parts);
    }

    pub(crate) fn train_here(mut self, keep: Keep<'_, E::Acc>, run: Run) -> Result<(), Error> {
        let Self { inputs, reducer, .. } = &self;
        let (grid, reducer) = (inputs.grid, *reducer);
        let channels = grid.channels;
        let plan = Plan::new::<E>(&grid, inputs.valid != Valid::All, 0, run)?;
        inputs.valid.check(&grid)?;
        if let Some(running) = &keep.running {
            running.check(channels)?;
        }
        let StatsMut { m, c, rstd } = keep.saved;
        for (what, got) in [("m", m.len()), ("c", c.len()), ("rstd", rstd.len())] {
            if got != channels {
                return Err(Error::Length { what, expected: channels, got });
            }
        }
        let mut count = inputs.valid.count(&grid);
        if reducer.is_none() {
            enough(count)?;
        }
        let (arrays, rooms) = plan.room(6, channels, keep.workspace)?;
        self.form.count = count;
        if grid.last || reducer.is_some() {
            // SAFETY: the only use of the arrays that is under way.
            count = unsafe { self.all(&plan, arrays, rooms)? };
        } else {
            let groups = channels.div_ceil(plan.group);
            threads::for_each(plan.parts, |part| {
                for group in threads::share(part, plan.parts, groups) {
                    let at = group * plan.group;
                    let group = at..channels.min(at + plan.group);
                    // SAFETY: this thread's channels, and its part.
                    unsafe { self.group(&plan, arrays, group, (part, rooms)) };
                }
            });
        }
        // SAFETY: all threads are done.
        let [new_m, new_c, new_rstd, var] =
            [M, C, R, VAR].map(|array| &*unsafe { arrays.of(array, &(0..channels)) });
        if let Some(running) = keep.running {
            running.update([new_m, new_c, var], count);
        }
        m.copy_from_slice(new_m);
        c.copy_from_slice(new_c);
        rstd.copy_from_slice(new_rstd);
        Ok(())
    }

    /// Some channels from their sums to y, on this thread.
    ///
    /// # Safety
    /// These channels' arrays and the part's memory are this thread's.
    unsafe fn group(
        &self,
        plan: &Plan,
        arrays: Arrays<'_, E::Acc>,
        channels: Range<usize>,
        (part, rooms): (usize, Rooms<'_, E::Acc>),
    ) {
        // SAFETY: the caller's.
        let mut of = unsafe { Statistics::of(arrays, &channels) };
        let Ok(()) = of.settle(&self.form, |m, to, _| {
            let centres = Centres { m, c: &[], rstd: &[] };
            self.inputs.sums(plan, channels.clone(), centres, to, (part..part + 1, rooms));
            Ok::<_, Infallible>(self.form.count)
        });
        self.write(plan, channels.clone(), [of.m, of.c, of.rstd, of.sum], 1);
        for i in 0..channels.len() {
            if of.sum[i] != E::Acc::from_f64(0.0) {
                // On one rank this fails in no way.
                if let Ok(channel) = wide::forward(self, channels.start + i, None) {
                    of.set(i, channel);
                }
            }
        }
    }

    /// All channels, each pass on all threads; gives the count of the whole batch.
    ///
    /// # Safety
    /// The arrays and memories are this call's.
    unsafe fn all(
        &mut self,
        plan: &Plan,
        arrays: Arrays<'_, E::Acc>,
        rooms: Rooms<'_, E::Acc>,
    ) -> Result<usize, Error> {
        let channels = 0..self.inputs.grid.channels;
        let mut whole = self.form.count;
        // SAFETY: the caller's.
        let mut of = unsafe { Statistics::of(arrays, &channels) };
        let form = self.form;
        of.settle(&form, |m, [sum, squares], second| {
            let centres = Centres { m, c: &[], rstd: &[] };
            self.inputs.sums(
                plan,
                channels.clone(),
                centres,
                [&mut *sum, &mut *squares],
                (0..plan.parts, rooms),
            );
            if let Some(reducer) = self.reducer {
                let empty = self.inputs.grid.shape.rows == 0;
                let sums: &mut [&mut [E::Acc]] = if second { &mut [sum, squares] } else { &mut [sum] };
                whole = gather(reducer, empty, form.count, sums)?;
                enough(whole)?;
            }
            Ok(whole)
        })?;
        self.form.count = whole;
        self.write(plan, channels.clone(), [of.m, of.c, of.rstd, of.sum], plan.parts);
        for channel in channels {
            if of.sum[channel] != E::Acc::from_f64(0.0) {
                of.set(channel, wide::forward(self, channel, self.reducer)?);
            }
        }
        Ok(whole)
    }
}

/// Check that a channel has numbers enough for a variance.
pub(super) fn enough(count: usize) -> Result<(), Error> {
    if count < 2 { Err(Error::Count { expected: 2, got: count }) } else { Ok(()) }
}

/// The statistics of some channels.
struct Statistics<'a, T> {
    m: &'a mut [T],
    c: &'a mut [T],
    rstd: &'a mut [T],
    var: &'a mut [T],
    /// In the end, not 0 for channels that need more range than their type has.
    sum: &'a mut [T],
    squares: &'a mut [T],
}

impl<'a, T: Real> Statistics<'a, T> {
    /// # Safety
    /// These channels' arrays are this thread's.
    unsafe fn of(arrays: Arrays<'a, T>, channels: &Range<usize>) -> Self {
        // SAFETY: the caller's.
        let [m, c, rstd, var, sum, squares] =
            [M, C, R, VAR, SUM, SQUARES].map(|array| unsafe { arrays.of(array, channels) });
        Self { m, c, rstd, var, sum, squares }
    }

    /// Take them, given what sums up x - m and its square (which is not wanted at first), and gives the count of a channel.
    fn settle<Failure>(
        &mut self,
        form: &Form<T>,
        mut sums: impl FnMut(&[T], [&mut [T]; 2], bool) -> Result<usize, Failure>,
    ) -> Result<(), Failure> {
        let zero = T::from_f64(0.0);
        let Self { m, c, rstd, var, sum, squares } = self;
        m.fill(zero);
        let count = T::from_count(sums(m, [sum, squares], false)?);
        for (m, sum) in m.iter_mut().zip(sum.iter()) {
            *m = sum.div(count);
        }
        let mut repeated = false;
        loop {
            sums(m, [sum, squares], true)?;
            let mut repeat = false;
            for i in 0..m.len() {
                c[i] = sum[i].div(count);
                var[i] = c[i].neg().fma(c[i], squares[i].div(count));
                if !repeated && var[i].partial_cmp(&c[i].mul(c[i])) == Some(Ordering::Less) {
                    m[i] = m[i].add(c[i]);
                    repeat = true;
                }
            }
            if !repeat {
                break;
            }
            repeated = true;
        }
        for i in 0..m.len() {
            if var[i] < zero {
                var[i] = zero;
            }
            let reciprocal = form.reciprocal(var[i]);
            sum[i] = T::from_f64(if reciprocal.is_none() { 1.0 } else { 0.0 });
            rstd[i] = reciprocal.map_or(zero, |[rstd, _]| rstd);
        }
        Ok(())
    }

    /// Keep what was taken elsewhere of a channel.
    fn set(&mut self, i: usize, wide::Channel { moments, var }: wide::Channel<T>) {
        [self.m[i], self.c[i], self.rstd[i], self.var[i]] = [moments.m, moments.c, moments.rstd, var];
    }
}
