//! Arrays in place of registers: every processor has these.

use super::{Body, Vector, Work};
use crate::Element;

/// Arrays of four: as much as the smallest registers have, and no more than that to compile.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

pub(super) fn run<E: Element, B: Body<E>>(body: B) -> B::Output {
    E::run_portable(body, Portable)
}

#[inline(never)]
fn outlined<W: Work<Portable>>(s: Portable, work: W) -> W::Output {
    work.run(s)
}

const WIDTH: usize = 4;

/// An array, by lane. (A loop, because `array::from_fn` is functions in functions, and much to compile.)
macro_rules! lanes {
    ($i:ident => $lane:expr) => {{
        let mut of = [0.0; WIDTH];
        for $i in 0..WIDTH {
            of[$i] = $lane;
        }
        of
    }};
}

/// `a * b + c` of arrays.
trait Fused: Sized {
    fn fused(a: &[Self; WIDTH], b: &[Self; WIDTH], c: &[Self; WIDTH]) -> [Self; WIDTH];
}

macro_rules! portable {
    ($t:ty, $registers:literal, $mantissa:literal) => {
        impl Fused for $t {
            // Without instructions for it, each is a call of the C library: eight of them everywhere would only be long.
            #[cfg_attr(target_arch = "x86_64", inline(never))]
            #[cfg_attr(not(target_arch = "x86_64"), inline(always))]
            fn fused(a: &[Self; WIDTH], b: &[Self; WIDTH], c: &[Self; WIDTH]) -> [Self; WIDTH] {
                lanes!(i => a[i].mul_add(b[i], c[i]))
            }
        }

        impl Vector<$t> for Portable {
            type V = [$t; WIDTH];
            type Lanes = [[$t; WIDTH]; $registers];
            type Folded = $t;
            const WIDTH: usize = WIDTH;
            const STREAMS: bool = false;

            #[inline(always)]
            fn outlined<W: Work<Self>>(self, work: W) -> W::Output {
                outlined(self, work)
            }

            #[inline(always)]
            fn splat(self, value: $t) -> Self::V {
                [value; WIDTH]
            }
            #[inline(always)]
            fn zero_lanes(self) -> Self::Lanes {
                [[0.0; WIDTH]; $registers]
            }
            #[inline(always)]
            fn add(self, a: Self::V, b: Self::V) -> Self::V {
                lanes!(i => a[i] + b[i])
            }
            #[inline(always)]
            fn sub(self, a: Self::V, b: Self::V) -> Self::V {
                lanes!(i => a[i] - b[i])
            }
            #[inline(always)]
            fn mul(self, a: Self::V, b: Self::V) -> Self::V {
                lanes!(i => a[i] * b[i])
            }
            #[inline(always)]
            fn div(self, a: Self::V, b: Self::V) -> Self::V {
                lanes!(i => a[i] / b[i])
            }
            #[inline(always)]
            fn select_less(self, a: Self::V, b: Self::V, then: Self::V, otherwise: Self::V) -> Self::V {
                lanes!(i => if a[i] < b[i] { then[i] } else { otherwise[i] })
            }
            #[inline(always)]
            fn power_of_two(self, v: Self::V) -> Self::V {
                lanes!(i => <$t>::from_bits(v[i].to_bits() << $mantissa))
            }
            #[inline(always)]
            fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                Fused::fused(&a, &b, &c)
            }
            #[inline(always)]
            fn fnma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                Fused::fused(&lanes!(i => -a[i]), &b, &c)
            }
            #[inline(always)]
            fn zip(self, a: Self::V, b: Self::V) -> [Self::V; 2] {
                [0, WIDTH].map(|first| {
                    lanes!(i => if i % 2 == 0 { a[(first + i) / 2] } else { b[(first + i) / 2] })
                })
            }
            #[inline(always)]
            fn keep_first(self, v: Self::V, count: usize) -> Self::V {
                lanes!(i => if i < count { v[i] } else { 0.0 })
            }
            folds_to_a_number!($t);
            #[inline(always)]
            fn fold(self, lanes: Self::Lanes) -> $t {
                let mut level = [0.0; WIDTH * $registers];
                for (i, number) in level.iter_mut().enumerate() {
                    *number = lanes[i / WIDTH][i % WIDTH];
                }
                let mut width = level.len();
                while width > 1 {
                    width /= 2;
                    for i in 0..width {
                        level[i] = level[2 * i] + level[2 * i + 1];
                    }
                }
                level[0]
            }
            #[inline(always)]
            unsafe fn load(self, from: *const $t) -> Self::V {
                // SAFETY: the caller's; an array has its element's alignment.
                unsafe { from.cast::<Self::V>().read() }
            }
            #[inline(always)]
            unsafe fn load_first(self, from: *const $t, count: usize) -> Self::V {
                let mut v = [0.0; WIDTH];
                // SAFETY: the caller's for the reads; `count < WIDTH` for the writes.
                unsafe { v.as_mut_ptr().copy_from_nonoverlapping(from, count) };
                v
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $t, v: Self::V) {
                // SAFETY: the caller's; an array has its element's alignment.
                unsafe { to.cast::<Self::V>().write(v) }
            }
            #[inline(always)]
            unsafe fn store_first(self, to: *mut $t, v: Self::V, count: usize) {
                // SAFETY: the caller's for the writes; `count < WIDTH` for the reads.
                unsafe { to.copy_from_nonoverlapping(v.as_ptr(), count) }
            }
            #[inline(always)]
            unsafe fn stream(self, to: *mut $t, v: Self::V) {
                // SAFETY: the caller's.
                unsafe { self.store(to, v) }
            }
            #[inline(always)]
            fn fence(self) {}
            #[inline(always)]
            fn prefetch(self, _: *const u8) {}
        }
    };
}

portable!(f32, 8, 23);
portable!(f64, 4, 52);
