//! The tensors that operators read and write.

use super::types::{Acc, Number, Types};
use layernorm::{E4M3, E5M2, RowsByIndex, Workspace};
use std::any::Any;
use std::ops::Range;

/// What a tensor's numbers are for, which says of which type they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of the type of x.
    E,
    /// Of the type of the parameters.
    P,
    /// Of the type of the residual.
    R,
    /// Of the type of sums and statistics.
    A,
    /// An index.
    I,
    /// Yes or no.
    B,
    /// Of f32, whatever x is.
    S,
    /// Of eight bits.
    Int8,
    /// Of eight bits, four of them an exponent.
    E4m3,
    /// Of eight bits, five of them an exponent.
    E5m2,
}

impl Kind {
    /// Can its numbers be none?
    pub fn holds_nan(self) -> bool {
        !matches!(self, Self::I | Self::B | Self::Int8)
    }
}

/// The same numbers in memory that has so many bytes to spare behind them.
fn with_spare<T: Copy>(numbers: &[T], bytes: usize) -> Vec<T> {
    let mut moved = Vec::with_capacity(numbers.len() + bytes / size_of::<T>());
    moved.extend_from_slice(numbers);
    moved
}

/// The type that a kind has.
macro_rules! of_kind {
    ($t:ident, E) => { $t::E };
    ($t:ident, P) => { $t::P };
    ($t:ident, R) => { $t::R };
    ($t:ident, A) => { Acc<$t> };
    ($t:ident, I) => { usize };
    ($t:ident, B) => { bool };
    ($t:ident, S) => { f32 };
    ($t:ident, Int8) => { i8 };
    ($t:ident, E4m3) => { E4M3 };
    ($t:ident, E5m2) => { E5M2 };
}

/// Defines [`Slot`] and [`Tensors`], which name the same things.
macro_rules! tensors {
    ($($(#[$doc:meta])* $slot:ident $field:ident: $kind:tt,)*) => {
        /// The tensors that operators read and write, by the names that they have in files.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Slot {
            $($(#[$doc])* $slot,)*
        }

        impl Slot {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$slot,)*];

            /// The name in files.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$slot => stringify!($field),)*
                }
            }

            /// What its numbers are for.
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$slot => Kind::$kind,)*
                }
            }
        }

        /// The tensors of one call; `None` where there is none.
        pub struct Tensors<T: Types> {
            $($(#[$doc])* pub $field: Option<Vec<of_kind!(T, $kind)>>,)*
            /// Memory for partial sums.
            pub workspace: Workspace<Acc<T>>,
            /// Memory for the sums of a second parameter group.
            pub second: Workspace<Acc<T>>,
            /// Memory for the order of rows by their index.
            pub order: RowsByIndex,
        }

        impl<T: Types> Default for Tensors<T> {
            fn default() -> Self {
                Self { $($field: None,)* workspace: Workspace::new(), second: Workspace::new(), order: RowsByIndex::default() }
            }
        }

        impl<T: Types> Clone for Tensors<T> {
            fn clone(&self) -> Self {
                Self { $($field: self.$field.clone(),)* workspace: Workspace::new(), second: Workspace::new(), order: RowsByIndex::default() }
            }
        }

        impl<T: Types> Tensors<T> {
            /// A tensor by name.
            pub fn get(&self, slot: Slot) -> Option<View<'_, T>> {
                match slot {
                    $(Slot::$slot => self.$field.as_deref().map(View::$kind),)*
                }
            }

            /// Puts a copy there.
            pub fn set(&mut self, slot: Slot, values: View<'_, T>) {
                match slot {
                    $(Slot::$slot => {
                        if let View::$kind(values) = values {
                            self.$field = Some(values.to_vec());
                        }
                    })*
                }
            }

            /// Puts these numbers there, rounded to its type.
            pub fn fill(&mut self, slot: Slot, numbers: impl IntoIterator<Item = f64>) {
                match slot {
                    $(Slot::$slot => self.$field = Some(numbers.into_iter().map(Number::narrow).collect()),)*
                }
            }

            /// Makes room for `len` numbers: zeros.
            pub fn allot(&mut self, slot: Slot, len: usize) {
                match slot {
                    $(Slot::$slot => self.$field = Some(vec![Number::narrow(0.0); len]),)*
                }
            }

            /// Moves each tensor to memory with so many bytes to spare behind it.
            pub fn apart(&mut self, bytes: usize) {
                $(
                    if let Some(numbers) = &mut self.$field {
                        *numbers = with_spare(numbers, bytes);
                    }
                )*
            }

            /// The place of a tensor, if it has the elements' type.
            pub fn of_elements(&mut self, slot: Slot) -> Option<&mut Option<Vec<T::E>>> {
                let place: &mut dyn Any = match slot {
                    $(Slot::$slot => &mut self.$field,)*
                };
                place.downcast_mut()
            }

            /// A tensor's numbers, if they have the elements' type.
            pub fn elements(&self, slot: Slot) -> Option<&[T::E]> {
                let place: &dyn Any = match slot {
                    $(Slot::$slot => &self.$field,)*
                };
                place.downcast_ref::<Option<Vec<T::E>>>()?.as_deref()
            }

            /// Takes a tensor away.
            pub fn clear(&mut self, slot: Slot) {
                match slot {
                    $(Slot::$slot => self.$field = None,)*
                }
            }
        }
    };
}

tensors! {
    /// The input.
    X x: E,
    /// What is added to the input first, or what the gated branch is added to.
    Residual residual: R,
    /// What the input is multiplied by before it is added: a dropout mask, scaled.
    Mask mask: E,
    /// What is added to the input before that: the bias of a branch's last layer.
    BranchBias branch_bias: P,
    /// gamma.
    Weight weight: P,
    /// beta.
    Bias bias: P,
    /// What the normalised rows of a sample are multiplied by, less 1; or what the rows' length becomes.
    Scale scale: P,
    /// What is added to the normalised rows of a sample.
    Shift shift: P,
    /// How much of the branch each sample lets in.
    Gate gate: P,
    /// Which row of weight and bias each row takes.
    Index index: I,
    /// Which numbers take part in the statistics.
    Valid valid: B,
    /// The mean of each channel over past batches.
    RunningMean running_mean: A,
    /// The variance of each channel over past batches.
    RunningVar running_var: A,
    /// Weights of units, whose length is to be learned apart.
    V v: E,
    /// The length that the weights of each unit get.
    G g: P,
    /// The gradient of the output.
    Dy dy: E,
    /// The gradient of the new residual, from those who read it besides.
    DresidualOut dresidual_out: R,
    /// The gradient of the normalised weights.
    Dw dw: E,
    /// The output.
    Y y: E,
    /// The output in eight bits: whole numbers.
    YInt8 y_int8: Int8,
    /// The output in eight bits, four of them an exponent.
    YE4m3 y_e4m3: E4m3,
    /// The output in eight bits, five of them an exponent.
    YE5m2 y_e5m2: E5m2,
    /// What a row in eight bits is to be multiplied by.
    YScale y_scale: S,
    /// The new residual.
    ResidualOut residual_out: R,
    /// The normalised weights.
    W w: E,
    /// The mean, rounded once, for people.
    Mean mean: A,
    /// The mean's first estimate, for the backward pass.
    M m: A,
    /// What that estimate lacks, for the backward pass.
    C c: A,
    /// 1 / sqrt(variance or mean square + eps).
    Rstd rstd: A,
    /// 1 / max(length, eps).
    Rnorm rnorm: A,
    /// The gradient of the input.
    Dx dx: E,
    /// The gradient of the residual.
    Dresidual dresidual: R,
    /// The gradient of the weights of units.
    Dv dv: E,
    /// The gradient of the weight.
    Dweight dweight: A,
    /// The gradient of the bias.
    Dbias dbias: A,
    /// The gradient of the branch's bias.
    DbranchBias dbranch_bias: A,
    /// The gradient of the scale.
    Dscale dscale: A,
    /// The gradient of the shift.
    Dshift dshift: A,
    /// The gradient of the gate.
    Dgate dgate: A,
    /// The gradient of the units' lengths.
    Dg dg: A,
}

impl Slot {
    /// The input without which this output makes no sense.
    pub fn comes_with(self) -> Option<Self> {
        match self {
            Self::Dweight => Some(Self::Weight),
            Self::Dbias => Some(Self::Bias),
            Self::Dscale => Some(Self::Scale),
            Self::Dshift => Some(Self::Shift),
            Self::Dgate => Some(Self::Gate),
            Self::Dg => Some(Self::G),
            Self::Dresidual => Some(Self::Residual),
            Self::ResidualOut => Some(Self::Residual),
            Self::DbranchBias => Some(Self::BranchBias),
            _ => None,
        }
    }

    /// The gradients of parameters: sums over rows, in one order.
    pub const SUMS: [Self; 7] =
        [Self::Dweight, Self::Dbias, Self::DbranchBias, Self::Dscale, Self::Dshift, Self::Dgate, Self::Dg];
}

/// A tensor's numbers.
#[derive(Debug)]
pub enum View<'a, T: Types> {
    /// Elements.
    E(&'a [T::E]),
    /// A parameter.
    P(&'a [T::P]),
    /// A residual.
    R(&'a [T::R]),
    /// Sums or statistics.
    A(&'a [Acc<T>]),
    /// Indices.
    I(&'a [usize]),
    /// Yes or no.
    B(&'a [bool]),
    /// Scales.
    S(&'a [f32]),
    /// Whole numbers of eight bits.
    Int8(&'a [i8]),
    /// Numbers of eight bits, four of them an exponent.
    E4m3(&'a [E4M3]),
    /// Numbers of eight bits, five of them an exponent.
    E5m2(&'a [E5M2]),
}

impl<T: Types> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T: Types> Copy for View<'_, T> {}

/// The same for the slice in a view, of whatever type.
macro_rules! with {
    ($view:expr, $values:ident => $result:expr) => {
        match $view {
            $crate::operators::View::E($values) => $result,
            $crate::operators::View::P($values) => $result,
            $crate::operators::View::R($values) => $result,
            $crate::operators::View::A($values) => $result,
            $crate::operators::View::I($values) => $result,
            $crate::operators::View::B($values) => $result,
            $crate::operators::View::S($values) => $result,
            $crate::operators::View::Int8($values) => $result,
            $crate::operators::View::E4m3($values) => $result,
            $crate::operators::View::E5m2($values) => $result,
        }
    };
}
pub(crate) use with;

impl<'a, T: Types> View<'a, T> {
    /// How many bytes.
    pub fn bytes(self) -> usize {
        with!(self, values => size_of_val(values))
    }

    /// How many numbers.
    pub fn len(self) -> usize {
        with!(self, values => values.len())
    }

    /// The numbers, exactly.
    pub fn widened(self) -> Vec<f64> {
        with!(self, values => values.iter().map(|value| value.widen()).collect())
    }

    /// Some of them.
    pub fn part(self, range: Range<usize>) -> Self {
        match self {
            Self::E(values) => Self::E(&values[range]),
            Self::P(values) => Self::P(&values[range]),
            Self::R(values) => Self::R(&values[range]),
            Self::A(values) => Self::A(&values[range]),
            Self::I(values) => Self::I(&values[range]),
            Self::B(values) => Self::B(&values[range]),
            Self::S(values) => Self::S(&values[range]),
            Self::Int8(values) => Self::Int8(&values[range]),
            Self::E4m3(values) => Self::E4m3(&values[range]),
            Self::E5m2(values) => Self::E5m2(&values[range]),
        }
    }

    /// How many numbers differ in a bit: a missing number differs too, and any NaN equals any NaN.
    pub fn differing(self, other: Self) -> usize {
        match (self, other) {
            (Self::E(a), Self::E(b)) => differing(a, b),
            (Self::P(a), Self::P(b)) => differing(a, b),
            (Self::R(a), Self::R(b)) => differing(a, b),
            (Self::A(a), Self::A(b)) => differing(a, b),
            (Self::I(a), Self::I(b)) => differing(a, b),
            (Self::B(a), Self::B(b)) => differing(a, b),
            (Self::S(a), Self::S(b)) => differing(a, b),
            (Self::Int8(a), Self::Int8(b)) => differing(a, b),
            (Self::E4m3(a), Self::E4m3(b)) => differing(a, b),
            (Self::E5m2(a), Self::E5m2(b)) => differing(a, b),
            _ => self.len().max(other.len()),
        }
    }
}

/// How many numbers differ in a bit, as [`View::differing`].
pub fn differing<N: Number>(a: &[N], b: &[N]) -> usize {
    // Every number has an f64 of its own, zeros of both signs too.
    let same = |(a, b): (&N, &N)| {
        let (a, b) = (a.widen(), b.widen());
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    };
    a.len().abs_diff(b.len()) + a.iter().zip(b).filter(|pair| !same(*pair)).count()
}
