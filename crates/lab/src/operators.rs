//! The operators: the one table that `apply`, `check` and `bench` go through.
//!
//! An operator is an entry: its name, which tensors its passes read and write, its kernels, and its oracle. The three
//! commands know no operator by name, so a new one is a file in `operators/` and a line in [`ALL`].

mod by_row;
mod exact;
mod layer_norm;
mod rms_norm;

use crate::error::Error;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use layernorm::{Run, Workspace};
use twofloat::TwoFloat;

/// Every operator.
pub const ALL: &[Operator] = &[layer_norm::OPERATOR, rms_norm::OPERATOR];

/// An operator by its name, for the command line.
pub fn by_name() -> impl TypedValueParser<Value = &'static Operator> {
    let names = ALL.iter().map(|operator| PossibleValue::new(operator.name).help(operator.formula));
    let find = |name: String| ALL.iter().find(|operator| operator.name == name).ok_or("there is none");
    PossibleValuesParser::new(names).try_map(find)
}

/// An operator of the family.
#[derive(Debug, Clone, Copy)]
pub struct Operator {
    /// Its name, in commands and reports.
    pub name: &'static str,
    /// Its formula, in one line.
    pub formula: &'static str,
    /// From input to output.
    pub forward: Signature,
    /// From the output's gradient to the input's.
    pub backward: Signature,
    /// How a tensor's shape follows from that of `x`.
    pub extent: fn(Slot) -> Extent,
    /// In single precision.
    pub f32: Kernels<f32>,
    /// In double precision.
    pub f64: Kernels<f64>,
}

impl Operator {
    /// Makes room for the outputs, contiguous, and runs both passes: the backward one where its inputs are there.
    /// Gives the outputs that were written.
    ///
    /// # Errors
    /// What the kernels refuse.
    pub fn run<T: Float>(
        &self,
        problem: &Problem,
        how: &How,
        tensors: &mut Tensors<T>,
    ) -> Result<Vec<Slot>, layernorm::Error> {
        let kernels = T::kernels(self);
        for &slot in self.forward.writes.iter().chain(self.forward.saves) {
            *tensors.slot(slot) = self.room(problem, tensors, slot);
        }
        (kernels.forward)(problem, how, tensors)?;
        let mut written = self.forward.writes.to_vec();
        if self.backward.needs.iter().all(|&slot| tensors.get(slot).is_some()) {
            for &slot in self.backward.writes {
                *tensors.slot(slot) = self.room(problem, tensors, slot);
            }
            (kernels.backward)(problem, how, tensors)?;
            written.extend(self.backward.writes.iter().filter(|&&slot| tensors.get(slot).is_some()));
        }
        Ok(written)
    }

    /// Zeros for an output, if its input is there: a parameter's gradient is as long as the parameter.
    pub fn room<T: Float>(&self, problem: &Problem, tensors: &Tensors<T>, slot: Slot) -> Option<Vec<T>> {
        let len = match slot.comes_with() {
            Some(input) => tensors.get(input)?.len(),
            None => problem.len((self.extent)(slot)),
        };
        Some(vec![T::default(); len])
    }
}

/// What a pass reads and writes.
#[derive(Debug, Clone, Copy)]
pub struct Signature {
    /// What it can't do without.
    pub needs: &'static [Slot],
    /// What it reads where it is given.
    pub takes: &'static [Slot],
    /// What it writes for the caller, where the input that [`Slot::comes_with`] says is given.
    pub writes: &'static [Slot],
    /// What a forward pass keeps for the backward pass and no one else.
    pub saves: &'static [Slot],
}

/// An operator in one precision.
#[derive(Debug, Clone, Copy)]
pub struct Kernels<T> {
    /// From input to output: writes those outputs for which there is memory.
    pub forward: Pass<T>,
    /// From the output's gradient to the input's: writes those gradients for which there is memory, and takes the
    /// statistics that [`Signature::saves`] names where they are there.
    pub backward: Pass<T>,
    /// The right answers for given inputs, and how far from them an output may lie.
    pub oracle: fn(&Problem, &Tensors<T>) -> Vec<Expected>,
}

/// A kernel, bound to named tensors.
pub type Pass<T> = fn(&Problem, &How, &mut Tensors<T>) -> Result<(), layernorm::Error>;

/// Defines [`Slot`] and [`Tensors`], which name the same things.
macro_rules! tensors {
    ($($(#[$doc:meta])* $slot:ident $field:ident,)*) => {
        /// The tensors that operators read and write, by the names that they have in files.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Slot {
            $($(#[$doc])* $slot,)*
        }

        impl Slot {
            /// The name in files.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$slot => stringify!($field),)*
                }
            }
        }

        /// The tensors of one call; `None` where there is none.
        #[derive(Debug, Clone)]
        pub struct Tensors<T> {
            $($(#[$doc])* pub $field: Option<Vec<T>>,)*
            /// Memory for partial sums.
            pub workspace: Workspace<T>,
        }

        impl<T: Float> Default for Tensors<T> {
            fn default() -> Self {
                Self { $($field: None,)* workspace: Workspace::new() }
            }
        }

        impl<T> Tensors<T> {
            /// A tensor by name.
            pub fn get(&self, slot: Slot) -> Option<&Vec<T>> {
                match slot {
                    $(Slot::$slot => self.$field.as_ref(),)*
                }
            }

            /// The place of a tensor.
            pub fn slot(&mut self, slot: Slot) -> &mut Option<Vec<T>> {
                match slot {
                    $(Slot::$slot => &mut self.$field,)*
                }
            }
        }
    };
}

tensors! {
    /// The input.
    X x,
    /// gamma.
    Weight weight,
    /// beta.
    Bias bias,
    /// The gradient of the output.
    Dy dy,
    /// The output.
    Y y,
    /// The mean, rounded once, for people.
    Mean mean,
    /// The mean's first estimate, for the backward pass.
    M m,
    /// What that estimate lacks, for the backward pass.
    C c,
    /// 1 / sqrt(variance or mean square + eps).
    Rstd rstd,
    /// The gradient of the input.
    Dx dx,
    /// The gradient of the weight.
    Dweight dweight,
    /// The gradient of the bias.
    Dbias dbias,
}

impl Slot {
    /// The input without which this output makes no sense.
    pub fn comes_with(self) -> Option<Self> {
        match self {
            Self::Dweight => Some(Self::Weight),
            Self::Dbias => Some(Self::Bias),
            _ => None,
        }
    }
}

/// How a tensor's shape follows from that of `x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// As x.
    Whole,
    /// x.shape[..axis].
    Rows,
    /// x.shape[axis..], or a single number for all; the gradient of a parameter is shaped as it is.
    Units,
}

/// What an operator is to do, besides the numbers.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The shape of x.
    pub shape: Vec<usize>,
    /// The first of the axes that are normalised together; those before it count rows.
    pub axis: usize,
    /// Added to the variance or mean square.
    pub eps: f64,
    rows: usize,
    features: usize,
}

impl Problem {
    /// Over the axes of `shape` from `axis` on; a negative one counts from the end.
    ///
    /// # Errors
    /// [`Error::Axis`] for an axis that isn't there, [`Error::TooLarge`] for a shape that no memory holds.
    pub fn new(shape: &[usize], axis: i64, eps: f64) -> Result<Self, Error> {
        let axes = shape.len();
        let wrong = Error::Axis { axis, axes };
        let from_start = if axis < 0 { axis.checked_add_unsigned(axes as u64) } else { Some(axis) };
        let axis = from_start
            .and_then(|axis| usize::try_from(axis).ok())
            .filter(|&axis| axis < axes)
            .ok_or(wrong)?;
        let count = |axes: &[usize]| axes.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let too_large = || Error::TooLarge { shape: shape.to_vec() };
        let rows = count(&shape[..axis]).ok_or_else(too_large)?;
        let features = count(&shape[axis..]).ok_or_else(too_large)?;
        rows.checked_mul(features).ok_or_else(too_large)?;
        Ok(Self { shape: shape.to_vec(), axis, eps, rows, features })
    }

    /// A matrix whose rows are normalised.
    pub fn matrix(rows: usize, features: usize, eps: f64) -> Self {
        Self { shape: vec![rows, features], axis: 1, eps, rows, features }
    }

    /// How many sets of numbers are normalised.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a set has.
    pub fn features(&self) -> usize {
        self.features
    }

    /// The shape of such a tensor.
    pub fn dims(&self, extent: Extent) -> &[usize] {
        match extent {
            Extent::Whole => &self.shape,
            Extent::Rows => &self.shape[..self.axis],
            Extent::Units => &self.shape[self.axis..],
        }
    }

    /// How many numbers such a tensor has.
    pub fn len(&self, extent: Extent) -> usize {
        match extent {
            Extent::Whole => self.rows * self.features,
            Extent::Rows => self.rows,
            Extent::Units => self.features,
        }
    }
}

/// In which way a pass is run: nothing here may change a bit of a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// Level and threads.
    pub run: Run,
    /// Overwrite the input: `y` comes in `x`, `dx` in `dy`.
    pub in_place: bool,
    /// Rows that lie apart: those of x and dy, and those of y and dx. Contiguous where absent.
    pub layout: Option<[Layout; 2]>,
    /// The index of the first row in a batch that is split over calls.
    pub first_row: usize,
    /// Add to the parameters' gradients.
    pub accumulate: bool,
}

/// Rows in memory: row `i` starts at `offset + i * stride`.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Where the first row starts.
    pub offset: usize,
    /// From the start of a row to the start of the next.
    pub stride: usize,
}

/// What an output must be.
#[derive(Debug)]
pub struct Expected {
    /// Which output.
    pub slot: Slot,
    /// The exact values.
    pub values: Vec<TwoFloat>,
    /// What an error of 1u amounts to at each value, divided by u.
    pub scales: Vec<f64>,
    /// How many such units are allowed.
    pub bound: f64,
    /// Whether rounding the result itself, u |value|, is allowed on top.
    pub rounding: bool,
}

/// f32 or f64.
pub trait Float: layernorm::Real + Default + std::ops::Add<Output = Self> {
    /// The name in reports.
    const NAME: &'static str;
    /// The smallest positive number.
    const TINY: f64;
    /// Rounded to nearest even.
    fn narrow(value: f64) -> Self;
    /// Exactly.
    fn widen(self) -> f64;
    /// Equal to the last bit, where any NaN equals any NaN.
    fn same(self, other: Self) -> bool;
    /// The operator in this precision.
    fn kernels(operator: &Operator) -> &Kernels<Self>;
}

macro_rules! float {
    ($t:ident) => {
        impl Float for $t {
            const NAME: &'static str = stringify!($t);
            #[allow(clippy::unnecessary_cast, reason = "in one of the two types")]
            const TINY: f64 = <$t>::from_bits(1) as f64;
            #[allow(clippy::cast_possible_truncation, reason = "rounding to nearest is what is wanted")]
            fn narrow(value: f64) -> Self {
                value as Self
            }
            fn widen(self) -> f64 {
                self.into()
            }
            fn same(self, other: Self) -> bool {
                self.to_bits() == other.to_bits() || (self.is_nan() && other.is_nan())
            }
            fn kernels(operator: &Operator) -> &Kernels<Self> {
                &operator.$t
            }
        }
    };
}

float!(f32);
float!(f64);

/// How many numbers differ in a bit: a missing number differs too.
pub fn differing<T: Float>(a: &[T], b: &[T]) -> usize {
    a.len().abs_diff(b.len()) + a.iter().zip(b).filter(|(a, b)| !a.same(**b)).count()
}
