//! From elements to what they accumulate in, or back.

use super::{Body, Memory};
use crate::Element;
use crate::rows::{Place, PlaceMut};

/// `len` numbers, read from one place and written to another.
///
/// Made by those who hold the slices of as many numbers that both places are.
pub(crate) struct Convert<E> {
    pub(crate) from: Place<E>,
    pub(crate) to: PlaceMut<E>,
    pub(crate) len: usize,
}

impl<E: Element> Body<E> for Convert<E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Memory<E>>(self, s: S) {
        let Self { from, to, len } = self;
        for at in (0..len).step_by(S::WIDTH) {
            let count = S::WIDTH.min(len - at);
            // SAFETY: both have these numbers.
            unsafe { to.store(s, at, count, from.load(s, at, count), false) };
        }
    }
}
