//! Short rows, several at a time.
//!
//! The sums of a row of one block are the tree of its lanes for the most part, and a division and a root are to wait for. So
//! the trees of several rows end together, and then all their divisions and roots.

use super::*;
use crate::order::lanes;
use crate::vector::TREES;
use std::mem::MaybeUninit;

/// Are rows of so many features, measured so, to be taken together?
pub(super) fn suits<T: Real>(features: usize, streams: bool, form: &Form<T>) -> bool {
    // Past the caches, longer rows are faster where one is written while the next one is read.
    let longest = if streams { T::BLOCK / 4 * 3 } else { T::BLOCK };
    features <= longest && form.used > 0 && form.is_inside()
}

/// The statistics of [`TREES`] rows.
pub(super) struct MomentsOfRows<T> {
    m: [T; TREES],
    c: [T; TREES],
    rstd: [T; TREES],
}

impl<T: Real> MomentsOfRows<T> {
    /// Those of the rows of `x` from `first` on, unless one of them needs more than the first estimate of its mean, or more
    /// range than its type has.
    ///
    /// # Safety
    /// There are these rows, and they have the numbers that `form`, which must suit, uses.
    #[inline(always)]
    pub(super) unsafe fn of<E, S>(
        s: S,
        statistics: Statistics,
        x: &Mixed<'_, E>,
        first: usize,
        form: &Form<T>,
    ) -> Option<Self>
    where
        E: Element<Acc = T>,
        S: Memory<E>,
    {
        s.outlined(Taken { statistics, x, first, form })
    }

    /// Those saved of the rows from `first` on.
    ///
    /// # Safety
    /// There are these rows.
    #[inline(always)]
    pub(super) unsafe fn saved(from: Columns<&[T]>, first: usize) -> Self {
        let zero = T::from_f64(0.0);
        let mut of = Self { m: [zero; TREES], c: [zero; TREES], rstd: [zero; TREES] };
        for i in 0..TREES {
            // SAFETY: the caller's.
            let Moments { m, c, rstd, .. } = unsafe { from.get(first + i) };
            (of.m[i], of.c[i], of.rstd[i]) = (m, c, rstd);
        }
        of
    }

    /// Are all of them for the fast path of a backward pass?
    #[inline(always)]
    pub(super) fn in_range(&self) -> bool {
        self.rstd.iter().fold(true, |all, rstd| all & in_range(*rstd))
    }

    /// Those of row `i`.
    #[inline(always)]
    pub(super) fn get(&self, i: usize) -> Moments<T> {
        Moments { m: self.m[i], c: self.c[i], rstd: self.rstd[i], along: T::from_f64(1.0) }
    }
}

/// [`MomentsOfRows::of`] in a function of its own, of both directions.
struct Taken<'a, 'b, E: Element> {
    statistics: Statistics,
    x: &'b Mixed<'a, E>,
    first: usize,
    form: &'b Form<E::Acc>,
}

impl<E: Element, S: Memory<E>> Work<S> for Taken<'_, '_, E> {
    type Output = Option<MomentsOfRows<E::Acc>>;

    #[inline(always)]
    fn run(self, s: S) -> Self::Output {
        let Self { statistics, x, first, form } = self;
        let zero = E::Acc::from_f64(0.0);
        let (n, count) = (form.used, E::Acc::from_count(form.count));
        let mut of = MomentsOfRows { m: [zero; TREES], c: [zero; TREES], rstd: [zero; TREES] };
        let mut folded = [Trees::new(), Trees::new()];
        // SAFETY: that of `MomentsOfRows::of`, which alone makes these; all of what is folded is written before it is read.
        unsafe {
            for i in 0..TREES {
                let x = x.row(first + i);
                let mut ahead = Prefetch::<E, 1>::new([x.bytes_on(AHEAD)]);
                let [sum, _] = lanes(s, 0, n, &statistics.summed(x), &mut ahead);
                folded[0].write(i, s.fold(sum));
            }
            of.rstd = s.rests_of_trees(folded[0].all());
            if statistics == Statistics::Centred {
                for (m, sum) in of.m.iter_mut().zip(of.rstd) {
                    *m = sum.div(count);
                }
                for i in 0..TREES {
                    let deviations = Deviations(x.row(first + i), s.splat(of.m[i]));
                    let [sum, squares] = lanes(s, 0, n, &deviations, &mut Nothing);
                    folded[0].write(i, s.fold(sum));
                    folded[1].write(i, s.fold(squares));
                }
                of.c = s.rests_of_trees(folded[0].all());
                of.rstd = s.rests_of_trees(folded[1].all());
            }
        }
        let mut fast = true;
        for (c, rstd) in of.c.iter_mut().zip(&mut of.rstd) {
            let (mean, var) = mean_and_variance([*c, *rstd], count);
            let again = var < mean.mul(mean);
            let (reciprocal, in_range) = form.reciprocal_inside(if var < zero { zero } else { var });
            fast &= !again & in_range;
            (*c, *rstd) = (mean, reciprocal);
        }
        fast.then_some(of)
    }
}

/// Trees that were begun.
pub(super) struct Trees<F>(MaybeUninit<[F; TREES]>);

impl<F> Trees<F> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    #[inline(always)]
    pub(super) fn write(&mut self, i: usize, folded: F) {
        assert!(i < TREES, "there are so many");
        // SAFETY: one of the array's.
        unsafe { self.0.as_mut_ptr().cast::<F>().add(i).write(folded) };
    }

    /// # Safety
    /// All were written.
    #[inline(always)]
    pub(super) unsafe fn all(&self) -> &[F; TREES] {
        // SAFETY: the caller's.
        unsafe { self.0.assume_init_ref() }
    }
}
