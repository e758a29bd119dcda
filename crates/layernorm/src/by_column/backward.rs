//! The backward pass of batch norm. With A = sum dy x_hat and B = sum dy, which are dweight and dbias:
//! dx = weight rstd (dy - B / n - x_hat A / n); where the statistics were given, dx = weight rstd dy.

use super::forward::enough;
use super::last_pass::Last;
use super::sums::Centres;
use super::wide;
use super::*;
use crate::affine::Affine;
use crate::by_row::totals::Finished;
use crate::element::private::Stored;
use crate::form::{Form, in_range};
use crate::real::private::Number;
use crate::sync::gather;
use crate::{Companion, ParamGradients, Params, Reducer, RunningRef, StatsRef, Valid};

/// A checked backward call.
pub(crate) struct Backward<'a, E: Element> {
    /// With dy.
    pub(crate) inputs: Inputs<'a, E>,
    pub(crate) dy: Source<'a, E>,
    pub(crate) dx: Option<Target<'a, E>>,
    /// Is `dx` the memory of `dy`?
    pub(crate) in_place: bool,
    pub(crate) weight: Affine<'a, E>,
    pub(crate) form: Form<E::Acc>,
    /// Statistics of the forward pass. Where they were given: the mean, no correction, and the variance.
    pub(crate) saved: StatsRef<'a, E::Acc>,
    /// Are the statistics constants, which x has no part in?
    pub(crate) frozen: bool,
    pub(crate) reducer: Option<&'a dyn Reducer>,
}

/// Numbers of the arrays of a call.
const PRODUCTS: usize = 0;
const ONES: usize = 1;
const A: usize = 2;
const B: usize = 3;
const OUT: usize = 4;

impl<'a, E: Element> Backward<'a, E> {
    pub(crate) fn new<P: Companion<E>>(
        (grid, x): (Grid, Source<'a, E>),
        dy: Source<'a, E>,
        params: Params<'a, P>,
        saved: StatsRef<'a, E::Acc>,
    ) -> Result<Self, Error> {
        let form = Form::new(params.eps, grid.channels)?;
        let [weight, _] = params.affine(grid.channels)?;
        let inputs = Inputs { grid, x, dy: Some(dy), valid: Valid::All, first_row: 0 };
        let (dx, in_place, frozen, reducer) = (None, false, false, None);
        Ok(Self { inputs, dy, dx, in_place, weight, form, saved, frozen, reducer })
    }

    /// Run the call.
    pub(crate) fn run(self, params: ParamGradients<'a, E::Acc>, run: Run) -> Result<(), Error> {
        E::batch_backward(self, params, run)
    }

    pub(crate) fn run_here(mut self, params: ParamGradients<'a, E::Acc>, run: Run) -> Result<(), Error> {
        let grid = self.inputs.grid;
        let channels = grid.channels;
        self.inputs.first_row = params.first_row;
        let plan = Plan::new::<E>(&grid, false, params.first_row, run)?;
        self.inputs.valid.check(&grid)?;
        params.check(channels)?;
        let StatsRef { m, c, rstd } = self.saved;
        // Given statistics have no correction.
        let c_len = if self.frozen { channels } else { c.len() };
        for (what, got) in [("m", m.len()), ("c", c_len), ("rstd", rstd.len())] {
            if got != channels {
                return Err(Error::Length { what, expected: channels, got });
            }
        }
        self.form.count = self.inputs.valid.count(&grid);
        if !self.frozen && self.reducer.is_none() {
            enough(self.form.count)?;
        }
        let ParamGradients { dweight, dbias, accumulate, workspace, .. } = params;
        let (arrays, rooms) = plan.room(5, channels, workspace)?;
        if self.frozen {
            // SAFETY: the only use of these arrays that is under way: there are no means, and nothing is left out.
            let [c, rstd] = [A, OUT].map(|array| unsafe { arrays.of(array, &(0..channels)) });
            let given = RunningRef { mean: m, var: self.saved.rstd };
            c.fill(E::Acc::from_f64(0.0));
            rstd.iter_mut().enumerate().for_each(|(i, rstd)| *rstd = given.rstd(i, self.form.eps));
            self.saved = StatsRef { m, c, rstd };
            if dweight.is_some() || dbias.is_some() {
                // SAFETY: the only use of the arrays that is under way.
                let to = [PRODUCTS, ONES].map(|array| unsafe { arrays.of(array, &(0..channels)) });
                self.sums(&plan, 0..channels, to, (0..plan.parts, rooms));
            }
            self.write_frozen(&plan);
        } else if grid.last || self.reducer.is_some() {
            // SAFETY: the only use of the arrays that is under way.
            unsafe { self.all(&plan, arrays, rooms)? };
        } else {
            let groups = channels.div_ceil(plan.group);
            threads::for_each(plan.parts, |part| {
                for group in threads::share(part, plan.parts, groups) {
                    let at = group * plan.group;
                    // SAFETY: this thread's channels, and its part.
                    unsafe { self.group(&plan, arrays, at..channels.min(at + plan.group), (part, rooms)) };
                }
            });
        }
        if dweight.is_some() || dbias.is_some() {
            // SAFETY: all threads are done.
            let totals = [PRODUCTS, ONES].map(|array| &*unsafe { arrays.of(array, &(0..channels)) });
            Finished { totals, outputs: [dweight, dbias], accumulate }.write(plan.level);
        }
        Ok(())
    }

    fn sums(
        &self,
        plan: &Plan,
        channels: Range<usize>,
        to: [&mut [E::Acc]; 2],
        memory: (Range<usize>, Rooms<'_, E::Acc>),
    ) {
        let StatsRef { m, c, rstd } = self.saved;
        let [m, c, rstd] = [m, c, rstd].map(|of| &of[channels.clone()]);
        let centres = Centres { m, c, rstd };
        self.inputs.sums(plan, channels.clone(), centres, to, memory);
    }

    /// Some channels from their sums to dx, on this thread.
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
        let [products, ones, a, b, out] =
            [PRODUCTS, ONES, A, B, OUT].map(|array| unsafe { arrays.of(array, &channels) });
        self.sums(plan, channels.clone(), [products, ones], (part..part + 1, rooms));
        self.means(&channels, [products, ones], [a, b, out]);
        self.write(plan, channels.clone(), [a, b, out], 1);
        for i in 0..channels.len() {
            if out[i] != E::Acc::from_f64(0.0) {
                // On one rank this fails in no way.
                if let Ok(sums) = wide::backward(self, self.dy, channels.start + i, None) {
                    [products[i], ones[i]] = sums;
                }
            }
        }
    }

    /// All channels, each pass on all threads.
    ///
    /// # Safety
    /// The arrays and memories are this call's.
    unsafe fn all(
        &mut self,
        plan: &Plan,
        arrays: Arrays<'_, E::Acc>,
        rooms: Rooms<'_, E::Acc>,
    ) -> Result<(), Error> {
        let channels = 0..self.inputs.grid.channels;
        // SAFETY: the caller's.
        let [products, ones, a, b, out] =
            [PRODUCTS, ONES, A, B, OUT].map(|array| unsafe { arrays.of(array, &channels) });
        self.sums(plan, channels.clone(), [products, ones], (0..plan.parts, rooms));
        if let Some(reducer) = self.reducer {
            let empty = self.inputs.grid.shape.rows == 0;
            self.form.count = gather(reducer, empty, self.form.count, &mut [products, ones])?;
            enough(self.form.count)?;
        }
        self.means(&channels, [products, ones], [a, b, out]);
        self.write(plan, channels.clone(), [a, b, out], plan.parts);
        for channel in channels {
            if out[channel] != E::Acc::from_f64(0.0) {
                [products[channel], ones[channel]] = wide::backward(self, self.dy, channel, self.reducer)?;
            }
        }
        Ok(())
    }

    /// The means of the sums, and which channels need more range than their type has.
    fn means(&self, channels: &Range<usize>, sums: [&[E::Acc]; 2], [a, b, out]: [&mut [E::Acc]; 3]) {
        let count = E::Acc::from_count(self.form.count);
        for i in 0..channels.len() {
            [a[i], b[i]] = [sums[0][i].div(count), sums[1][i].div(count)];
            let fits = in_range(self.saved.rstd[channels.start + i]) && a[i].is_finite() && b[i].is_finite();
            out[i] = E::Acc::from_f64(if fits { 0.0 } else { 1.0 });
        }
    }

    fn write(&self, plan: &Plan, channels: Range<usize>, [a, b, left_out]: [&[E::Acc]; 3], parts: usize) {
        let Self { inputs, in_place, weight, .. } = self;
        let Some(to) = self.dx else { return };
        let StatsRef { m, c, rstd } = self.saved;
        let [m, c, rstd] = [m, c, rstd].map(|of| numbers(&of[channels.clone()]));
        let of = [m, c, rstd, numbers(a), numbers(b)];
        let bias = &Affine::new(None, -0.0);
        Last { inputs, to, in_place: *in_place, channels, of, weight, bias, left_out }.run(plan, parts);
    }

    /// dx = dy rstd weight: the forward formula of dy.
    fn write_frozen(&self, plan: &Plan) {
        let Some(to) = self.dx else { return };
        let inputs = &Inputs { x: self.dy, dy: None, ..self.inputs };
        let none = || Affine::new(None, 0.0);
        let of = [none(), none(), numbers(self.saved.rstd), none(), none()];
        let (channels, bias) = (0..inputs.grid.channels, &Affine::new(None, -0.0));
        let Self { in_place, weight, .. } = self;
        let last = Last { inputs, to, in_place: *in_place, channels, of, weight, bias, left_out: &[] };
        last.run(plan, plan.parts);
    }
}
