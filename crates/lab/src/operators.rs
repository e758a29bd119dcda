//! The operators: the one table that `apply`, `check` and `bench` go through.
//!
//! An operator is an entry: its name, which tensors its passes read and write, its kernels, and its oracle. The three
//! commands know no operator by name, so a new one is a file in `operators/` and a line in [`ALL`].

mod ada_norm;
mod add_norm;
mod axes_norm;
mod batch_norm;
mod by_row;
mod conditional_norm;
mod exact;
mod gated;
mod group_norm;
mod l2_norm;
mod layer_norm;
mod lp_norm;
mod mean_variance_norm;
mod options;
mod oracle;
mod problem;
mod qk_norm;
mod quantised;
mod rms_norm;
mod scale_norm;
mod silu;
mod structure;
mod tensors;
mod types;
mod weight_norm;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use layernorm::Run;

pub use options::{Asked, Flag, Mode, Options, Order};
pub use oracle::{Expected, Given};
pub use problem::Problem;
pub use structure::{Extent, Structure};
pub(crate) use tensors::with;
pub use tensors::{Kind, Slot, Tensors, View, differing};
pub use types::{Acc, Number, Table, Types, Wide, WideResidual};

/// Every operator.
pub const ALL: &[Operator] = &[
    layer_norm::OPERATOR,
    rms_norm::OPERATOR,
    axes_norm::LAYER,
    axes_norm::RMS,
    add_norm::LAYER,
    add_norm::RMS,
    ada_norm::LAYER,
    ada_norm::RMS,
    conditional_norm::LAYER,
    conditional_norm::RMS,
    gated::RESIDUAL,
    gated::LAYER,
    gated::RMS,
    scale_norm::OPERATOR,
    l2_norm::OPERATOR,
    qk_norm::OPERATOR,
    lp_norm::OPERATOR,
    weight_norm::OPERATOR,
    mean_variance_norm::OPERATOR,
    group_norm::GROUP,
    group_norm::GROUP_SILU,
    group_norm::INSTANCE,
    batch_norm::OPERATOR,
    quantised::LAYER_INT8,
    quantised::LAYER_E4M3,
    quantised::LAYER_E5M2,
    quantised::RMS_INT8,
    quantised::RMS_E4M3,
    quantised::RMS_E5M2,
];

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
    /// What its input looks like.
    pub structure: Structure,
    /// The options that it has a use for.
    pub flags: &'static [Flag],
    /// The epsilon that is usual.
    pub eps: f64,
    /// From input to output. What it needs first is the input that gives the others their shapes.
    pub forward: Signature,
    /// From the output's gradient to the input's. What it needs last is the output's gradient; where it needs nothing
    /// there is no such pass.
    pub backward: Signature,
    /// How a tensor's shape follows from that of the input.
    pub extent: fn(Slot) -> Extent,
    /// In which ways it can be run.
    pub able: Able,
    /// What few models ask for, and `bench` does without.
    pub untimed: &'static [Slot],
    /// Its kernels.
    pub kernels: Table,
    /// The right answers for given inputs, and how far from them an output may lie.
    pub oracle: fn(&Problem, &Given) -> Vec<Expected>,
}

/// In which ways an operator can be run.
#[derive(Debug, Clone, Copy)]
pub struct Able {
    /// Forward, with these outputs where these inputs were; empty where it can't.
    pub in_place: &'static [(Slot, Slot)],
    /// The same backward.
    pub backward_in_place: &'static [(Slot, Slot)],
    /// With rows that lie apart.
    pub strided: bool,
    /// Backward without the statistics that the forward pass saves.
    pub unsaved: bool,
    /// Does the gradient of a number depend on all numbers that are normalised with it?
    pub normalises: bool,
    /// Over a part of a batch, so that the parameters' gradients of the parts add up to those of the whole.
    pub shards: bool,
    /// With the parameters' gradients added to others.
    pub accumulates: bool,
}

impl Able {
    /// All of it.
    pub const ALL: Self = Self {
        in_place: &[(Slot::X, Slot::Y)],
        backward_in_place: &[(Slot::Dy, Slot::Dx)],
        strided: true,
        unsaved: true,
        normalises: true,
        shards: true,
        accumulates: true,
    };
    /// Nothing of it, but the backward pass without statistics.
    pub const NONE: Self = Self {
        in_place: &[],
        backward_in_place: &[],
        strided: false,
        unsaved: true,
        normalises: true,
        shards: false,
        accumulates: false,
    };
}

impl Operator {
    /// The tensor that gives the others their shapes.
    pub fn input(&self) -> Slot {
        self.forward.needs[0]
    }

    /// The gradient of the output, if there is a backward pass.
    pub fn output_gradient(&self) -> Option<Slot> {
        self.backward.needs.last().copied()
    }

    /// Everything that comes from the caller, whichever pass reads it; each once.
    pub fn reads(&self) -> impl Iterator<Item = Slot> {
        let Self { forward, backward, .. } = *self;
        let mut seen: Vec<Slot> = Vec::new();
        let read = [forward.needs, forward.takes, forward.updates, backward.needs, backward.takes];
        for &slot in read.into_iter().flatten() {
            if !seen.contains(&slot) && !forward.writes.contains(&slot) && !forward.saves.contains(&slot) {
                seen.push(slot);
            }
        }
        seen.into_iter()
    }

    /// Has it a tensor of this kind?
    pub fn has(&self, kind: Kind) -> bool {
        self.reads().any(|slot| slot.kind() == kind)
    }

    /// Makes room for the outputs, contiguous, and runs both passes: the backward one where its inputs are there.
    /// Gives the outputs that were written.
    ///
    /// # Errors
    /// What the kernels refuse.
    pub fn run<T: Types>(
        &self,
        problem: &Problem,
        how: &How,
        tensors: &mut Tensors<T>,
    ) -> Result<Vec<Slot>, layernorm::Error> {
        let kernels = T::kernels(self);
        for &slot in self.forward.writes.iter().chain(self.forward.saves) {
            self.allot(problem, tensors, slot);
        }
        (kernels.forward)(problem, how, tensors)?;
        let there = |tensors: &Tensors<T>, slot| tensors.get(slot).is_some();
        let updates = if problem.options.mode == Mode::Train { self.forward.updates } else { &[] };
        let writes = self.forward.writes.iter().chain(updates);
        let mut written: Vec<Slot> = writes.copied().filter(|&slot| there(tensors, slot)).collect();
        let back = self.output_gradient().is_some();
        if back && self.backward.needs.iter().all(|&slot| there(tensors, slot)) {
            for &slot in self.backward.writes {
                self.allot(problem, tensors, slot);
            }
            (kernels.backward)(problem, how, tensors)?;
            written.extend(self.backward.writes.iter().filter(|&&slot| there(tensors, slot)));
        }
        Ok(written)
    }

    /// Zeros for an output, if its input is there: a parameter's gradient is as long as the parameter.
    pub fn allot<T: Types>(&self, problem: &Problem, tensors: &mut Tensors<T>, slot: Slot) {
        let len = match slot.comes_with() {
            Some(input) => tensors.get(input).map(View::len),
            None => Some(problem.len((self.extent)(slot))),
        };
        match len {
            Some(len) => tensors.allot(slot, len),
            None => tensors.clear(slot),
        }
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
    /// What it changes, in training, where it is given.
    pub updates: &'static [Slot],
}

impl Signature {
    /// No pass at all.
    pub const NONE: Self = Self { needs: &[], takes: &[], writes: &[], saves: &[], updates: &[] };
}

/// An operator in one combination of types.
#[derive(Debug, Clone, Copy)]
pub struct Kernels<T: Types> {
    /// From input to output: writes those outputs for which there is memory.
    pub forward: Pass<T>,
    /// From the output's gradient to the input's: writes those gradients for which there is memory, and takes the
    /// statistics that [`Signature::saves`] names where they are there.
    pub backward: Pass<T>,
}

/// A kernel, bound to named tensors.
pub type Pass<T> = fn(&Problem, &How, &mut Tensors<T>) -> Result<(), layernorm::Error>;

/// In which way a pass is run: nothing here may change a bit of a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// Level and threads.
    pub run: Run,
    /// Overwrite the input: the output comes in its place, the input's gradient in that of the output's.
    pub in_place: bool,
    /// Rows that lie apart: those of what a forward pass reads and of gradients that come in, and those of the outputs
    /// of both passes. Contiguous where absent.
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
