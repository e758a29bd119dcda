//! The ways that rows of a call can go, each a function of its own, so that none takes registers from another.

use crate::Element;
use crate::vector::{Memory, TREES, Work};
use std::marker::PhantomData;

/// Some rows of a call.
pub(super) trait Part<E: Element, S: Memory<E>>: Sized {
    /// How many.
    fn len(&self) -> usize;

    /// Are they so short that several go together?
    fn is_short(&self) -> bool;

    /// Do they go past the caches?
    fn streams(&self) -> bool;

    /// [`TREES`] at a time.
    fn together(self, s: S);

    /// One by one, past the caches or through them.
    fn one_by_one<const STREAMS: bool>(self, s: S);
}

/// All of them, the best way.
#[inline(always)]
pub(super) fn take<E: Element, S: Memory<E>>(s: S, part: impl Part<E, S>) {
    if part.len() >= TREES && part.is_short() {
        s.outlined(Together(part, PhantomData));
    } else if S::STREAMS && part.streams() {
        s.outlined(OneByOne::<E, _, true>(part, PhantomData));
    } else {
        in_cache(s, part);
    }
}

/// All of them, one by one, through the caches.
#[inline(always)]
pub(super) fn in_cache<E: Element, S: Memory<E>>(s: S, part: impl Part<E, S>) {
    s.outlined(OneByOne::<E, _, false>(part, PhantomData));
}

struct Together<E, P>(P, PhantomData<E>);

impl<E: Element, S: Memory<E>, P: Part<E, S>> Work<S> for Together<E, P> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        self.0.together(s);
    }
}

struct OneByOne<E, P, const STREAMS: bool>(P, PhantomData<E>);

impl<E: Element, S: Memory<E>, P: Part<E, S>, const STREAMS: bool> Work<S> for OneByOne<E, P, STREAMS> {
    type Output = ();

    #[inline(always)]
    fn run(self, s: S) {
        self.0.one_by_one::<STREAMS>(s);
    }
}
