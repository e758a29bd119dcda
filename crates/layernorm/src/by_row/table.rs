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
