//! The small vector type that every loop is generic over: one body, instantiated once per level.
//!
//! A [`Vector`] is a token: a value of it proves that the machine has the instructions, so arithmetic is
//! safe and only memory access is not. The files below it are the only place with intrinsics.
//! Every method is a single correctly rounded operation per lane, so the level never shows in a bit.

/// The methods of [`Vector`] that are one instruction at every level but the portable one, by the intrinsics' names.
/// The token that has them proves that the machine has the instructions.
macro_rules! instructions {
    ($t:ty, $v:ty, $splat:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $select:ident, $power:ident, $zip:ident, $load:ident, $store:ident) => {
        #[inline(always)]
        fn splat(self, value: $t) -> $v {
            // SAFETY: the token; so below.
            unsafe { $splat(value) }
        }
        #[inline(always)]
        fn add(self, a: $v, b: $v) -> $v {
            // SAFETY: the token.
            unsafe { $add(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: $v, b: $v) -> $v {
            // SAFETY: the token.
            unsafe { $sub(a, b) }
        }
        #[inline(always)]
        fn mul(self, a: $v, b: $v) -> $v {
            // SAFETY: the token.
            unsafe { $mul(a, b) }
        }
        #[inline(always)]
        fn div(self, a: $v, b: $v) -> $v {
            // SAFETY: the token.
            unsafe { $div(a, b) }
        }
        #[inline(always)]
        fn select_less(self, a: $v, b: $v, then: $v, otherwise: $v) -> $v {
            // SAFETY: the token.
            unsafe { $select(a, b, then, otherwise) }
        }
        #[inline(always)]
        fn power_of_two(self, v: $v) -> $v {
            // SAFETY: the token.
            unsafe { $power(v) }
        }
        #[inline(always)]
        fn zip(self, a: $v, b: $v) -> [$v; 2] {
            // SAFETY: the token.
            unsafe { $zip(a, b) }
        }
        #[inline(always)]
        unsafe fn load(self, from: *const $t) -> $v {
            // SAFETY: the token, and the caller's.
            unsafe { $load(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut $t, v: $v) {
            // SAFETY: the token, and the caller's.
            unsafe { $store(to, v) }
        }
    };
}

/// What the levels of x86-64 have in common besides.
#[cfg(target_arch = "x86_64")]
macro_rules! instructions_of_x86 {
    ($t:ty, $v:ty, $fma:ident, $fnma:ident, $stream:ident) => {
        #[inline(always)]
        fn fma(self, a: $v, b: $v, c: $v) -> $v {
            // SAFETY: the token.
            unsafe { $fma(a, b, c) }
        }
        #[inline(always)]
        fn fnma(self, a: $v, b: $v, c: $v) -> $v {
            // SAFETY: the token.
            unsafe { $fnma(a, b, c) }
        }
        #[inline(always)]
        unsafe fn stream(self, to: *mut $t, v: $v) {
            // SAFETY: the token, and the caller's.
            unsafe { $stream(to, v) }
        }
        #[inline(always)]
        fn fence(self) {
            // SAFETY: every x86-64 has it.
            unsafe { _mm_sfence() }
        }
        #[inline(always)]
        fn prefetch(self, at: *const u8) {
            // SAFETY: a prefetch of any address is allowed.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
    };
}

/// The tree of a level's lanes where several trees have nothing to do together.
macro_rules! folds_to_a_number {
    ($t:ty) => {
        #[inline(always)]
        fn rest_of_tree(self, folded: $t) -> $t {
            folded
        }
        #[inline(always)]
        fn rests_of_trees(self, folded: &[$t; super::TREES]) -> [$t; super::TREES] {
            *folded
        }
    };
}

pub(crate) mod convert;
#[cfg(feature = "half")]
mod halves;
pub(crate) mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;

use crate::{Element, Level, Real};

/// Bytes in a cache line: what [`Vector::stream`] wants its target aligned to, and prefetches fetch.
pub(crate) const LINE: usize = 64;

/// Trees that end together in [`Vector::rests_of_trees`].
pub(crate) const TREES: usize = 16;

/// A level's vectors of `T`, and its proof that they may be used.
pub(crate) trait Vector<T: Real>: Copy + Send + Sync {
    /// One register.
    type V: Copy;
    /// The registers that hold the lanes of a block (`T::LANES` numbers, lane 0 first).
    type Lanes: Copy + AsRef<[Self::V]> + AsMut<[Self::V]>;
    /// What is left of them in the middle of their tree.
    type Folded: Copy;
    /// Numbers in a register: a divisor of `T::LANES`.
    const WIDTH: usize;
    /// Has it stores that bypass the cache? Without, no pass runs beside another.
    const STREAMS: bool;

    /// All lanes `value`.
    fn splat(self, value: T) -> Self::V;
    /// All lanes +0.
    fn zero_lanes(self) -> Self::Lanes;
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `then` where `a < b`, else `otherwise`: there where either is NaN.
    fn select_less(self, a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V;
    /// The last bits of a number as the exponent of another: 2^n of `Number::MAGIC` + n, for n of a normal number.
    fn power_of_two(self, v: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`, rounded once.
    fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The lanes of `a` and `b` by turns: those of their first halves, and those of their last ones.
    fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2];
    /// The first `count` lanes; +0 in the others.
    fn keep_first(self, v: Self::V, count: usize) -> Self::V;
    /// The lanes combined by the tree of adjacent pairs,
    #[inline(always)]
    fn lane_tree(self, lanes: Self::Lanes) -> T {
        self.rest_of_tree(self.fold(lanes))
    }
    /// which is as much of it as is best done by itself,
    fn fold(self, lanes: Self::Lanes) -> Self::Folded;
    /// and the rest,
    fn rest_of_tree(self, folded: Self::Folded) -> T;
    /// or the rests of several trees together.
    fn rests_of_trees(self, folded: &[Self::Folded; TREES]) -> [T; TREES];

    /// `WIDTH` numbers.
    ///
    /// # Safety
    /// `from` is valid for reads of `WIDTH` numbers.
    unsafe fn load(self, from: *const T) -> Self::V;
    /// `count < WIDTH` numbers; +0 in the other lanes.
    ///
    /// # Safety
    /// `from` is valid for reads of `count` numbers.
    unsafe fn load_first(self, from: *const T, count: usize) -> Self::V;
    /// Write `WIDTH` numbers.
    ///
    /// # Safety
    /// `to` is valid for writes of `WIDTH` numbers.
    unsafe fn store(self, to: *mut T, v: Self::V);
    /// Write the first `count < WIDTH` numbers.
    ///
    /// # Safety
    /// `to` is valid for writes of `count` numbers.
    unsafe fn store_first(self, to: *mut T, v: Self::V, count: usize);
    /// Write `WIDTH` numbers past the cache, where the level can. [`Vector::fence`] must follow
    /// before another thread reads them.
    ///
    /// # Safety
    /// As [`Vector::store`], and `to` is aligned to the size of a register.
    unsafe fn stream(self, to: *mut T, v: Self::V);

    /// Run `work` in a function of its own, compiled for the level: what stands in several places and is not the
    /// innermost loop, so that it is compiled once.
    fn outlined<W: Work<Self>>(self, work: W) -> W::Output;

    /// Order the streamed writes before everything that follows.
    fn fence(self);
    /// Ask for the line at `at`, which may be any address.
    /// (Into the second cache: the first has too few lines under way for what lies as far ahead as memory wants it.)
    fn prefetch(self, at: *const u8);
}

/// A part of a body; see [`Vector::outlined`].
pub(crate) trait Work<S> {
    /// What it gives.
    type Output;
    /// The work. Implementations are `#[inline(always)]`.
    fn run(self, s: S) -> Self::Output;
}

/// A level's ways between registers and elements in memory, which may be narrower: reading is exact, writing rounds
/// once, to nearest even.
pub(crate) trait Memory<E: Element>: Vector<E::Acc> {
    /// `WIDTH` elements.
    ///
    /// # Safety
    /// `from` is valid for reads of `WIDTH` elements.
    unsafe fn read(self, from: *const E) -> Self::V;
    /// `count < WIDTH` elements; +0 in the other lanes.
    ///
    /// # Safety
    /// `from` is valid for reads of `count` elements.
    unsafe fn read_first(self, from: *const E, count: usize) -> Self::V;
    /// Write `WIDTH` elements.
    ///
    /// # Safety
    /// `to` is valid for writes of `WIDTH` elements.
    unsafe fn write(self, to: *mut E, v: Self::V);
    /// Write the first `count < WIDTH` elements.
    ///
    /// # Safety
    /// `to` is valid for writes of `count` elements.
    unsafe fn write_first(self, to: *mut E, v: Self::V, count: usize);
    /// As [`Vector::stream`].
    ///
    /// # Safety
    /// As [`Memory::write`], and `to` is aligned to `WIDTH` elements.
    unsafe fn write_past(self, to: *mut E, v: Self::V);
    /// What reading back would give.
    fn rounded(self, v: Self::V) -> Self::V;
}

/// Of the types that registers hold themselves.
impl<T: Real, S: Vector<T>> Memory<T> for S {
    #[inline(always)]
    unsafe fn read(self, from: *const T) -> S::V {
        // SAFETY: the caller's; so below.
        unsafe { self.load(from) }
    }
    #[inline(always)]
    unsafe fn read_first(self, from: *const T, count: usize) -> S::V {
        // SAFETY: the caller's.
        unsafe { self.load_first(from, count) }
    }
    #[inline(always)]
    unsafe fn write(self, to: *mut T, v: S::V) {
        // SAFETY: the caller's.
        unsafe { self.store(to, v) }
    }
    #[inline(always)]
    unsafe fn write_first(self, to: *mut T, v: S::V, count: usize) {
        // SAFETY: the caller's.
        unsafe { self.store_first(to, v, count) }
    }
    #[inline(always)]
    unsafe fn write_past(self, to: *mut T, v: S::V) {
        // SAFETY: the caller's.
        unsafe { self.stream(to, v) }
    }
    #[inline(always)]
    fn rounded(self, v: S::V) -> S::V {
        v
    }
}

/// Something to run at a level: the body of a call, generic over the vectors.
pub(crate) trait Body<E: Element> {
    /// What it gives.
    type Output;
    /// The body. Implementations are `#[inline(always)]`, or they would not be compiled for the level.
    fn run<S: Memory<E>>(self, s: S) -> Self::Output;
}

/// Run `body` at `level`, which [`Run::level`](crate::Run::level) has checked.
pub(crate) fn dispatch<E: Element, B: Body<E>>(level: Level, body: B) -> B::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a checked level is one that this machine has.
        Level::Avx512 => unsafe { avx512::run(body) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 => unsafe { avx2::run(body) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::Neon => unsafe { neon::run(body) },
        _ => portable::run(body),
    }
}
