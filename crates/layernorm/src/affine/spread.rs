//! The numbers of runs of features, spread over lanes as they are asked for.

use super::{Parameters, Register};
use crate::Element;
use crate::element::private::Stored;
use crate::real::private::Number;
use crate::rows::Place;
use crate::vector::{Memory, Work};
use std::mem::MaybeUninit;
use std::ops::Range;

/// One a run of features.
#[derive(Clone, Copy)]
pub(crate) struct RunNumbers<E: Element> {
    scratch: *mut Scratch<E>,
}

/// Where the numbers of runs are spread over lanes.
pub(crate) struct Scratch<E: Element> {
    /// Filled when it is asked for.
    numbers: MaybeUninit<Register<E::Acc>>,
    /// The features whose number they all are.
    holds: Range<usize>,
    /// The row's numbers, one a run.
    from: Place<E>,
    run: usize,
    offset: E::Acc,
}

impl<E: Element> Scratch<E> {
    pub(crate) fn new() -> Self {
        let (from, offset) = (Place::own(std::ptr::null()), E::Acc::from_f64(-0.0));
        Self { numbers: MaybeUninit::uninit(), holds: 0..0, from, run: 1, offset }
    }

    /// The numbers of a row, one for each `run` features `from` on, above an offset.
    pub(super) fn of_row(&mut self, from: Place<E>, run: usize, offset: E::Acc) -> RunNumbers<E> {
        (self.holds, self.from, self.run, self.offset) = (0..0, from, run, offset);
        RunNumbers { scratch: self }
    }
}

/// Fills the register of a scratch for `count` features from `at` on.
struct Fill<E: Element> {
    scratch: *mut Scratch<E>,
    at: usize,
    count: usize,
}

/// The fill, called cold: so that loops keep their registers where it is not called.
#[cold]
#[inline(never)]
fn fill<E: Element, S: Memory<E>>(s: S, fill: Fill<E>) {
    s.outlined(fill);
}

impl<E: Element, S: Memory<E>> Work<S> for Fill<E> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Self { scratch, at, count } = self;
        // SAFETY: `RunNumbers::get`, which alone makes these, has the scratch to itself, and there is one number a run.
        unsafe {
            let Scratch { numbers, holds, from, run, offset } = &mut *scratch;
            let number = |run: usize| from.number(run).add(*offset);
            let first = at / *run;
            let end = (first + 1) * *run;
            let lanes: *mut E::Acc = numbers.as_mut_ptr().cast();
            // By one store of a register: a read of several narrower ones would wait until they have left for the cache.
            if at + count <= end {
                *holds = end - *run..end;
                s.store(lanes, s.splat(number(first)));
                return;
            }
            *holds = 0..0;
            if at + count <= end + *run {
                let split = s.splat(E::Acc::from_count(end - at));
                let lane = s.load(E::Acc::LANE.as_ptr());
                s.store(
                    lanes,
                    s.select_less(lane, split, s.splat(number(first)), s.splat(number(first + 1))),
                );
                return;
            }
            let (mut of, mut end) = (first, end);
            for i in 0..S::WIDTH {
                if at + i == end && i < count {
                    (of, end) = (of + 1, end + *run);
                }
                lanes.add(i).write(number(of));
            }
        }
    }
}

impl<E: Element> Parameters<E> for RunNumbers<E> {
    #[inline(always)]
    unsafe fn get<S: Memory<E>>(self, s: S, at: usize, count: usize) -> S::V {
        // SAFETY: the caller's: the scratch lives, and nobody else uses it. A register holds what was spread.
        unsafe {
            let scratch = &mut *self.scratch;
            if !(scratch.holds.start <= at && at + count <= scratch.holds.end) {
                fill(s, Fill { scratch, at, count });
            }
            s.load(scratch.numbers.as_ptr().cast())
        }
    }
}
