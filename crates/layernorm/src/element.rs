//! The types that numbers are stored in.

use crate::activation::Activate;
use crate::by_column::backward::Backward as BatchBackward;
use crate::by_column::forward::{Forward as BatchForward, Keep};
use crate::by_row::{Statistics, backward::Backward, forward::Forward};
use crate::by_row::{branch::Branch, columns::ColumnSums, groups::Sums, quantised::Quantised};
use crate::over::{OverBackward, OverForward, ParamSums};
use crate::rows::{Mixed, MixedMut};
#[cfg(target_arch = "aarch64")]
use crate::vector::neon::Neon;
use crate::vector::{Body, dispatch, portable::Portable};
#[cfg(target_arch = "x86_64")]
use crate::vector::{avx2::Avx2, avx512::Avx512};
use crate::{Error, Level, Real, Rows, RowsMut, Run};

/// A type that tensors hold: `f32`, `f64`, and with the feature `half` `f16` and `bf16` of the
/// [crate of that name](https://docs.rs/half). Sealed.
///
/// Halves are read as f32, exactly; sums and statistics are f32; and results are rounded once, to nearest even.
///
/// ```
/// use half::bf16;
/// use layernorm::{Params, Rows, RowsMut, Run, layer_norm};
///
/// let x = [1.0, 2.0, 3.0, 4.0].map(bf16::from_f32);
/// let mut y = [bf16::ZERO; 4];
/// let params = Params { weight: Some(&[2.0f32]), eps: 0.0, ..Params::default() }; // in f32; bf16 would do too
/// layer_norm(Rows::new(&x, 2)?, params, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!(y.map(f32::from), [-2.0, 2.0, -2.0, 2.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no type that `layernorm` computes with",
    note = "elements are f32 and f64, and f16 and bf16 of the crate `half` with the feature `half` of `layernorm`"
)]
pub trait Element: Copy + Default + Send + Sync + std::fmt::Debug + private::Stored + 'static {
    /// The type of sums and statistics: f64 for f64, f32 for all others.
    type Acc: Real;
}

impl Element for f32 {
    type Acc = Self;
}
impl Element for f64 {
    type Acc = Self;
}

/// A type that parameters and residuals beside elements `E` may have: `E` itself, or f32 beside halves. Sealed.
///
/// ```
/// fn fits<E: layernorm::Element, P: layernorm::Companion<E>>() {}
/// fits::<f64, f64>();
/// fits::<half::f16, f32>();
/// ```
pub trait Companion<E: Element>: Element<Acc = E::Acc> + private::Beside<E> {}

impl<E: Element> Companion<E> for E {}

/// Numbers beside elements `E`, in the elements' own type or in the one that they accumulate in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Values<'a, E: Element> {
    Own(&'a [E]),
    Wide(&'a [E::Acc]),
}

impl<E: Element> Values<'_, E> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Own(values) => values.len(),
            Self::Wide(values) => values.len(),
        }
    }

    pub(crate) fn get(self, index: usize) -> E::Acc {
        match self {
            Self::Own(values) => values[index].to_acc(),
            Self::Wide(values) => values[index],
        }
    }
}

#[macro_use]
pub(crate) mod private {
    #![allow(
        private_interfaces,
        private_bounds,
        reason = "nobody outside can name these traits: they seal `Element` and `Companion`"
    )]

    use super::*;
    use crate::ParamGradients;

    /// Is it `E` itself?
    pub trait Beside<E: Element>: Sized {
        fn values(values: &[Self]) -> Values<'_, E>;
        fn mixed(rows: Rows<'_, Self>) -> Mixed<'_, E>;
        /// The same memory, to read and to write.
        fn mixed_in_place(rows: RowsMut<'_, Self>) -> (Mixed<'_, E>, MixedMut<'_, E>);
        const WIDE: bool;
    }

    impl<E: Element> Beside<E> for E {
        const WIDE: bool = false;
        fn values(values: &[Self]) -> Values<'_, E> {
            Values::Own(values)
        }
        fn mixed(rows: Rows<'_, Self>) -> Mixed<'_, E> {
            Mixed::Own(rows.source())
        }
        fn mixed_in_place(rows: RowsMut<'_, Self>) -> (Mixed<'_, E>, MixedMut<'_, E>) {
            let (from, to) = rows.in_place();
            (Mixed::Own(from), MixedMut::Own(to))
        }
    }

    /// What the kernels need of an element.
    pub trait Stored: Sized + Copy {
        /// Is it narrower than what it accumulates in?
        const NARROW: bool;

        fn to_acc(self) -> Self::Acc
        where
            Self: Element;
        fn to_f64(self) -> f64;
        /// Rounded once, to nearest even.
        fn from_f64(value: f64) -> Self;

        fn forward(call: &Forward<'_, Self>, statistics: Statistics, run: Run) -> Result<(), Error>
        where
            Self: Element;
        fn backward(
            call: &Backward<'_, Self>,
            statistics: Statistics,
            sums: Sums<'_, Self::Acc>,
            run: Run,
        ) -> Result<(), Error>
        where
            Self: Element;
        fn branch(call: &Branch<'_, Self>, run: Run) -> Result<(), Error>
        where
            Self: Element;
        fn sums_of_columns(
            call: &ColumnSums<'_, Self>,
            sums: Sums<'_, Self::Acc>,
            run: Run,
        ) -> Result<(), Error>
        where
            Self: Element;

        fn quantised(call: &Quantised<'_, Self>, run: Run) -> Result<(), Error>
        where
            Self: Element;

        fn batch_train(
            call: BatchForward<'_, Self>,
            keep: Keep<'_, Self::Acc>,
            run: Run,
        ) -> Result<(), Error>
        where
            Self: Element;
        fn batch_given(call: &BatchForward<'_, Self>, of: [&[Self::Acc]; 3], run: Run) -> Result<(), Error>
        where
            Self: Element;
        fn batch_backward<'a>(
            call: BatchBackward<'a, Self>,
            params: ParamGradients<'a, Self::Acc>,
            run: Run,
        ) -> Result<(), Error>
        where
            Self: Element;

        /// A call on a tensor whose rows lie anyhow.
        fn forward_over(
            call: &OverForward<'_, Self>,
            memory: &mut [Self::Acc],
            run: Run,
        ) -> Result<(), Error>
        where
            Self: Element;
        fn backward_over(
            call: &OverBackward<'_, Self>,
            sums: ParamSums<'_, Self::Acc>,
            memory: &mut [Self::Acc],
            run: Run,
        ) -> Result<(), Error>
        where
            Self: Element;
        fn activate(call: Activate<Self>, level: Level)
        where
            Self: Element;

        fn run_portable<B: Body<Self>>(body: B, s: Portable) -> B::Output
        where
            Self: Element;
        #[cfg(target_arch = "x86_64")]
        fn run_avx2<B: Body<Self>>(body: B, s: Avx2) -> B::Output
        where
            Self: Element;
        #[cfg(target_arch = "x86_64")]
        fn run_avx512<B: Body<Self>>(body: B, s: Avx512) -> B::Output
        where
            Self: Element;
        #[cfg(target_arch = "aarch64")]
        fn run_neon<B: Body<Self>>(body: B, s: Neon) -> B::Output
        where
            Self: Element;
    }

    macro_rules! stored {
        ($t:ty, $narrow:literal, $widen:expr, $from_f64:expr) => {
            impl Stored for $t {
                const NARROW: bool = $narrow;

                #[inline(always)]
                fn to_acc(self) -> <Self as Element>::Acc {
                    $widen(self)
                }
                #[inline(always)]
                fn to_f64(self) -> f64 {
                    self.into()
                }
                #[inline(always)]
                fn from_f64(value: f64) -> Self {
                    $from_f64(value)
                }

                #[inline(never)]
                fn forward(call: &Forward<'_, Self>, statistics: Statistics, run: Run) -> Result<(), Error> {
                    call.run_rows(statistics, run)
                }
                #[inline(never)]
                fn backward(
                    call: &Backward<'_, Self>,
                    statistics: Statistics,
                    sums: Sums<'_, <Self as Element>::Acc>,
                    run: Run,
                ) -> Result<(), Error> {
                    call.run_rows(statistics, sums, run)
                }
                #[inline(never)]
                fn branch(call: &Branch<'_, Self>, run: Run) -> Result<(), Error> {
                    call.run_rows(run)
                }
                #[inline(never)]
                fn sums_of_columns(
                    call: &ColumnSums<'_, Self>,
                    sums: Sums<'_, <Self as Element>::Acc>,
                    run: Run,
                ) -> Result<(), Error> {
                    call.run_rows(sums, run)
                }

                #[inline(never)]
                fn quantised(call: &Quantised<'_, Self>, run: Run) -> Result<(), Error> {
                    call.run_rows(run)
                }

                #[inline(never)]
                fn batch_train(
                    call: BatchForward<'_, Self>,
                    keep: Keep<'_, <Self as Element>::Acc>,
                    run: Run,
                ) -> Result<(), Error> {
                    call.train_here(keep, run)
                }
                #[inline(never)]
                fn batch_given(
                    call: &BatchForward<'_, Self>,
                    of: [&[<Self as Element>::Acc]; 3],
                    run: Run,
                ) -> Result<(), Error> {
                    call.given_here(of, run)
                }
                #[inline(never)]
                fn batch_backward<'a>(
                    call: BatchBackward<'a, Self>,
                    params: ParamGradients<'a, <Self as Element>::Acc>,
                    run: Run,
                ) -> Result<(), Error> {
                    call.run_here(params, run)
                }

                #[inline(never)]
                fn forward_over(
                    call: &OverForward<'_, Self>,
                    memory: &mut [<Self as Element>::Acc],
                    run: Run,
                ) -> Result<(), Error> {
                    call.run_in(memory, run)
                }
                #[inline(never)]
                fn backward_over(
                    call: &OverBackward<'_, Self>,
                    sums: ParamSums<'_, <Self as Element>::Acc>,
                    memory: &mut [<Self as Element>::Acc],
                    run: Run,
                ) -> Result<(), Error> {
                    call.run_in(sums, memory, run)
                }
                #[inline(never)]
                fn activate(call: Activate<Self>, level: Level) {
                    dispatch(level, call);
                }

                #[inline(always)]
                fn run_portable<B: Body<Self>>(body: B, s: Portable) -> B::Output {
                    body.run(s)
                }
                #[cfg(target_arch = "x86_64")]
                #[inline(always)]
                fn run_avx2<B: Body<Self>>(body: B, s: Avx2) -> B::Output {
                    body.run(s)
                }
                #[cfg(target_arch = "x86_64")]
                #[inline(always)]
                fn run_avx512<B: Body<Self>>(body: B, s: Avx512) -> B::Output {
                    body.run(s)
                }
                #[cfg(target_arch = "aarch64")]
                #[inline(always)]
                fn run_neon<B: Body<Self>>(body: B, s: Neon) -> B::Output {
                    body.run(s)
                }
            }
        };
    }

    #[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
    pub(super) fn to_f32(value: f64) -> f32 {
        value as f32
    }

    stored!(f32, false, |x| x, to_f32);
    stored!(f64, false, |x| x, |x| x);
}

#[cfg(feature = "half")]
mod halves;
