//! Rows of which only some numbers take part in the statistics.
//!
//! The valid numbers of a row are put first, the others after them, and the loop over rows takes the statistics of the
//! first ones alone, as for a partial norm. That is done in the type that sums have and without parameters; those follow
//! in the row's own order. Row by row, so this is not the fast road.

use super::{Mask, OverBackward, OverForward, Plan};
use crate::affine::Affine;
use crate::by_row::Moments;
use crate::by_row::backward::{Backward, sum_runs};
use crate::by_row::forward::Forward;
use crate::by_row::totals::{Summands, Tree};
use crate::element::Values;
use crate::element::private::Stored;
use crate::form::Form;
use crate::real::private::Number;
use crate::rows::{Mixed, MixedMut, Shape, Source, Target};
use crate::{Element, Level, Rounding, Run, Threads};

/// What a backward pass works with: where sums of runs go, memory, and the level.
type Means<'a, T> = ([Target<'a, T>; 2], &'a mut [T], Level);

/// Rows of memory that a pass takes.
pub(super) const FORWARD: usize = 1;
pub(super) const BACKWARD: usize = 5;

/// A row's valid numbers first.
struct Order<'a> {
    mask: &'a Mask<'a>,
    base: usize,
    n: usize,
    valid: usize,
}

impl<'a> Order<'a> {
    fn new(mask: &'a Mask<'a>, row: usize, n: usize) -> Self {
        let mut order = Self { mask, base: mask.outer.offset(row), n, valid: 0 };
        order.valid = (0..n).filter(|j| order.is_valid(*j)).count();
        order
    }

    fn is_valid(&self, j: usize) -> bool {
        self.mask.valid[self.base + self.mask.inner.offset(j)]
    }

    /// Each number and its place.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut next = [self.valid, 0];
        (0..self.n).map(move |j| {
            let next = &mut next[usize::from(self.is_valid(j))];
            *next += 1;
            (j, *next - 1)
        })
    }

    /// How the row is measured. Of no valid number, it is made a row of zeros.
    fn form<T: Copy>(&self, form: Form<T>) -> Form<T> {
        let used = if self.valid == 0 { self.n } else { self.valid };
        Form { used, count: used, ..form }
    }
}

/// The parameter of number `j`.
fn param<E: Element>(
    plan: &Plan,
    values: Option<Values<'_, E>>,
    absent: f64,
    row: usize,
    j: usize,
) -> E::Acc {
    match values {
        None => E::Acc::from_f64(absent),
        Some(values) if values.len() == 1 => values.get(0),
        Some(values) => values.get(plan.param(row, j / plan.runs.run)),
    }
}

/// x_hat of a row that is in order already, in place.
///
/// # Safety
/// `x` has `n` numbers, this thread's.
unsafe fn x_hat<E: Element>(call: Forward<'_, E::Acc>, statistics: crate::by_row::Statistics, level: Level) {
    let done = call.run(statistics, Run::default().with_level(level).with_threads(Threads::One));
    debug_assert!(done.is_ok(), "a level that was checked");
}

fn standardise<'a, T>(x: *mut T, order: &Order<'_>, form: Form<T>) -> Forward<'a, T>
where
    T: crate::Real,
{
    let n = order.n;
    // SAFETY: the callers give a row of `n` numbers.
    let (x, y) = unsafe { (Source::at(x, n), Target::at(x, n)) };
    Forward {
        shape: Shape { rows: 1, features: n, stride: n },
        x: Mixed::Own(x),
        y,
        in_place: true,
        weight: Affine::new(None, 1.0),
        bias: Affine::new(None, -0.0),
        form: order.form(form),
        rounding: Rounding::Once,
        saved: None,
        add: None,
        stream_from: usize::MAX,
    }
}

/// One row.
///
/// # Safety
/// `x` and `y`, which may be the same, have the row's numbers side by side; they are this thread's; `memory` has
/// [`FORWARD`] rows.
pub(super) unsafe fn forward<E: Element>(
    call: &OverForward<'_, E>,
    mask: &Mask<'_>,
    row: usize,
    (x, y): (*mut E, *mut E),
    memory: &mut [E::Acc],
    level: Level,
) {
    let plan = &call.plan;
    let order = Order::new(mask, row, plan.features);
    for (j, place) in order.places() {
        // SAFETY: the caller's.
        let x = unsafe { x.add(j).read() }.to_acc();
        memory[place] = if order.valid == 0 { E::Acc::from_f64(0.0) } else { x };
    }
    let standardise = standardise(memory.as_mut_ptr(), &order, call.form);
    // SAFETY: there is such a row of statistics, and it is this thread's.
    unsafe {
        let saved = call.saved.map(|saved| saved.from(row));
        x_hat::<E>(Forward { saved, ..standardise }, call.statistics, level);
        if let (0, Some(saved)) = (order.valid, saved) {
            saved.set(0, Moments::none());
        }
    }
    for (j, place) in order.places() {
        let weight = param(plan, call.weight, 1.0, row, j);
        let value = memory[place].fma(weight, param(plan, call.bias, -0.0, row, j));
        // SAFETY: the caller's.
        unsafe { y.add(j).write(E::from_f64(value.to_f64())) };
    }
}

/// One row.
///
/// # Safety
/// As [`forward`]; `dx` may be `dy`, `memory` has [`BACKWARD`] rows, and `sums` the runs of one, if they are wanted.
pub(super) unsafe fn backward<E: Element>(
    call: &OverBackward<'_, E>,
    mask: &Mask<'_>,
    row: usize,
    (x, dy, dx): (*mut E, *mut E, Option<*mut E>),
    totals: Option<&mut Tree<'_, E::Acc>>,
    (sums, memory, level): Means<'_, E::Acc>,
) {
    let (plan, n) = (&call.plan, call.plan.features);
    let order = Order::new(mask, row, n);
    let (xs, rest) = memory.split_at_mut(n);
    let (us, rest) = rest.split_at_mut(n);
    let (x_hats, rest) = rest.split_at_mut(n);
    let (of_x_hat, of_dy) = rest[..2 * n].split_at_mut(n);
    for (j, place) in order.places() {
        // SAFETY: the caller's.
        let [x, dy] = unsafe { [x, dy].map(|of| of.add(j).read().to_acc()) };
        xs[place] = if order.valid == 0 { E::Acc::from_f64(0.0) } else { x };
        us[place] = param(plan, call.weight, 1.0, row, j).mul(dy);
        of_dy[j] = dy;
    }
    x_hats.copy_from_slice(xs);
    // SAFETY: rows of `n` numbers, and there is such a row of statistics.
    unsafe {
        x_hat::<E>(standardise(x_hats.as_mut_ptr(), &order, call.form), call.statistics, level);
        let in_place = us.as_mut_ptr();
        let saved = call.saved.filter(|_| order.valid > 0).map(|saved| saved.from(row));
        let call_of_row = Backward {
            shape: Shape { rows: 1, features: n, stride: n },
            x: Mixed::Own(Source::at(xs.as_ptr(), n)),
            dy: Source::at(in_place, n),
            dx: Some(MixedMut::Own(Target::at(in_place, n))),
            in_place: true,
            weight: Affine::new(None, 1.0),
            form: order.form(call.form),
            saved,
            upstream: None,
            branch: None,
            sums_of_runs: None,
            only: None,
            first: 0,
            stream_from: usize::MAX,
        };
        call_of_row.part(call.statistics, level, 0..1, None);
    }
    for (j, place) in order.places() {
        of_x_hat[j] = x_hats[place];
        if let Some(dx) = dx {
            let value = if order.valid == 0 { 0.0 } else { us[place].to_f64() };
            // SAFETY: the caller's.
            unsafe { dx.add(j).write(E::from_f64(value)) };
        }
    }
    if let Some(totals) = totals {
        Summands { rows: [&*of_x_hat, &*of_dy], factors: true, first: row }.add_to(totals, level);
    } else if call.wants_runs() {
        sum_runs([&*of_x_hat, &*of_dy], plan.runs, sums, level);
    }
}
