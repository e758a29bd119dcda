//! The operators: the one table that the command line, the copies and all peers go through.
//!
//! A new one is a variant of [`Operator`] and its entry in [`Operator::entry`]; then each library that has it gets
//! an arm in its file in `peers/`, and an entry in `peers.py`.

use clap::ValueEnum;
use serde::Serialize;

use crate::shape::Shape;
use crate::tensors::Name;

/// An operator of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Rows, mean and variance
    LayerNorm,
    /// Rows, mean square
    RmsNorm,
    /// Rows, RMS norm of x + residual, and that sum
    AddRmsNorm,
    /// Images, groups of channels (32 of them)
    GroupNorm,
    /// Images, each channel of each by itself
    InstanceNorm,
    /// Images, each channel over the batch; updates running statistics
    BatchNorm,
    /// Images, by the running statistics
    BatchNormEval,
}

/// Which pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From input to output
    Forward,
    /// From the output's gradient to those of the input and the parameters
    Backward,
}

/// What an operator works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Rows x features; a weight a feature.
    Rows,
    /// Images x channels x height x width; a weight a channel.
    Images,
}

/// What is to be known of an operator.
#[derive(Debug)]
pub struct Entry {
    /// What it works on.
    pub layout: Layout,
    /// What each pass reads beside [`Pass::reads`].
    pub params: &'static [Name],
    /// From input to output.
    pub forward: Pass,
    /// From the output's gradient to the others.
    pub backward: Pass,
}

/// The tensors of a pass.
#[derive(Debug)]
pub struct Pass {
    /// The large ones that it can't do without reading: those that a copy of the same bytes reads.
    pub reads: &'static [Name],
    /// The large ones that it writes, and a copy too.
    pub writes: &'static [Name],
    /// The small ones that it writes.
    pub sums: &'static [Name],
}

impl Operator {
    /// Its entry.
    pub fn entry(self) -> Entry {
        use Name::*;
        let forward = Pass { reads: &[X], writes: &[Y], sums: &[] };
        let backward = Pass { reads: &[X, Dy], writes: &[Dx], sums: &[Dweight, Dbias] };
        let images = Entry {
            layout: Layout::Images,
            params: &[Weight, Bias],
            forward: Pass { ..forward },
            backward: Pass { ..backward },
        };
        match self {
            Self::LayerNorm => Entry { layout: Layout::Rows, params: &[Weight, Bias], forward, backward },
            Self::RmsNorm => Entry {
                layout: Layout::Rows,
                params: &[Weight],
                forward,
                backward: Pass { sums: &[Dweight], ..backward },
            },
            Self::AddRmsNorm => Entry {
                layout: Layout::Rows,
                params: &[Weight, Residual],
                forward: Pass { reads: &[X, Residual], writes: &[Y, Sum], sums: &[] },
                // x stands for the sum, which a pass that has kept it reads.
                backward: Pass { reads: &[X, Dy, Dsum], writes: &[Dx], sums: &[Dweight] },
            },
            Self::GroupNorm | Self::InstanceNorm => images,
            Self::BatchNorm | Self::BatchNormEval => Entry { params: &[Weight, Bias, Mean, Var], ..images },
        }
    }

    /// Its name on the command line and in `peers.py`.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Forward, Self::Backward];

    /// Its name in tables and in `peers.py`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        }
    }
}

impl Layout {
    /// Whether it has such shapes.
    pub fn fits(self, shape: &Shape) -> bool {
        shape.axes().len() == if self == Self::Rows { 2 } else { 4 }
    }

    /// How many weights there are.
    pub fn units(self, shape: &Shape) -> usize {
        match self {
            Self::Rows => shape.axes().last().copied().unwrap_or(0),
            Self::Images => shape.axes().get(1).copied().unwrap_or(0),
        }
    }
}

/// One pass of an operator over one shape.
#[derive(Debug, Clone)]
pub struct Case {
    /// Which operator.
    pub operator: Operator,
    /// Which pass.
    pub direction: Direction,
    /// Of x.
    pub shape: Shape,
}

impl Case {
    /// Added under the root, in every peer.
    pub const EPS: f64 = 1e-5;
    /// Of group norm.
    pub const GROUPS: usize = 32;

    /// Its tensors.
    pub fn pass(&self) -> Pass {
        let entry = self.operator.entry();
        match self.direction {
            Direction::Forward => entry.forward,
            Direction::Backward => entry.backward,
        }
    }

    /// All that it reads.
    pub fn inputs(&self) -> Vec<Name> {
        [self.pass().reads, self.operator.entry().params].concat()
    }

    /// All that it writes.
    pub fn outputs(&self) -> Vec<Name> {
        [self.pass().writes, self.pass().sums].concat()
    }

    /// How many numbers such a tensor has.
    pub fn len(&self, name: Name) -> usize {
        if name.is_large() { self.shape.numbers() } else { self.units() }
    }

    /// How many weights there are.
    pub fn units(&self) -> usize {
        self.operator.entry().layout.units(&self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Operator};
    use clap::ValueEnum;

    /// What the Python side promises in its docstring.
    #[test]
    fn every_operator_has_its_entries_in_python() {
        let script = include_str!("../peers.py");
        for operator in Operator::value_variants() {
            let entries = script.matches(&format!("    \"{}\": ", operator.name())).count();
            assert_eq!(entries, 2, "{} in TORCH and in ONNX", operator.name());
        }
    }

    #[test]
    fn copies_exist_for_every_pass() {
        for operator in Operator::value_variants() {
            for direction in Direction::ALL {
                let entry = operator.entry();
                let pass = if direction == Direction::Forward { entry.forward } else { entry.backward };
                assert!((1..=3).contains(&pass.reads.len()), "{operator:?} {direction:?}");
                assert!((1..=2).contains(&pass.writes.len()), "{operator:?} {direction:?}");
            }
        }
    }
}
