//! Weights and biases as the loops over many rows want them.

use super::*;
use std::mem::MaybeUninit;

/// The parameters of a row: widened, offset and all, and where no read of a register takes two lines.
pub(super) struct Table<T, const REGISTERS: usize>(MaybeUninit<[Register<T>; REGISTERS]>);

impl<T: Real, const REGISTERS: usize> Table<T, REGISTERS> {
    pub(super) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Are `n` numbers, behind less than a register of others, few enough?
    pub(super) fn has_room_for(n: usize) -> bool {
        n <= (REGISTERS - 1) * Register::<T>::LEN
    }

    /// The numbers of a row of `n` features, of which the one at `first` begins a line.
    ///
    /// # Safety
    /// There are so many features, and there is room for them.
    #[inline(always)]
    pub(super) unsafe fn fill<E, S>(
        &mut self,
        s: S,
        with: impl Parameters<E>,
        n: usize,
        first: usize,
    ) -> Place<E>
    where
        E: Element<Acc = T>,
        S: Memory<E>,
    {
        let before = first.wrapping_neg() % Register::<T>::LEN;
        // SAFETY: the caller's; so below.
        let to: *mut T = unsafe { self.0.as_mut_ptr().cast::<T>().add(before) };
        for at in (0..n).step_by(S::WIDTH) {
            let count = S::WIDTH.min(n - at);
            // SAFETY: the caller's.
            unsafe { store(s, to, at, count, with.get(s, at, count)) };
        }
        Place::wide(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;
    use crate::vector::{Body, dispatch};

    /// Fills a table with as many numbers as there is room for, wherever their first line begins.
    struct Fill;

    impl Body<f32> for Fill {
        type Output = ();

        #[inline(always)]
        fn run<S: Memory<f32>>(self, s: S) {
            let numbers: Vec<f32> = (0u8..33).map(f32::from).collect();
            for first in 0..16 {
                let mut table = Table::<f32, 3>::new();
                for n in (0..33).filter(|n| Table::<f32, 3>::has_room_for(*n)) {
                    // SAFETY: there are so many numbers, and there is room.
                    let filled = unsafe { table.fill(s, Place::<f32>::own(numbers.as_ptr()), n, first) };
                    assert_eq!(filled.start.wrapping_add(first).addr() % LINE, 0, "line, {first}");
                    // SAFETY: filled just now.
                    assert_eq!(unsafe { std::slice::from_raw_parts(filled.start, n) }, &numbers[..n]);
                }
            }
        }
    }

    #[test]
    fn a_table_has_the_numbers_and_a_line_begins_where_it_was_asked_to() {
        for level in if cfg!(miri) { vec![Level::Portable] } else { Level::available().collect() } {
            dispatch(level, Fill);
        }
    }
}
