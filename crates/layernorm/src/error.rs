//! What can be wrong with a call. Everything is checked before anything is written.

use crate::Level;

/// A call that was refused. Nothing was read into and nothing was written to the caller's memory.
///
/// Each variant carries the numbers that disagree.
///
/// ```
/// use layernorm::{Error, Rows};
///
/// let x = [0.0f32; 10];
/// assert_eq!(Rows::new(&x, 4).unwrap_err(), Error::Ragged { len: 10, features: 4 });
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice is not a whole number of rows.
    #[error("{len} values are not a whole number of rows of {features} features")]
    Ragged {
        /// Length of the slice.
        len: usize,
        /// Features in a row.
        features: usize,
    },
    /// A slice has another length than the call needs.
    #[error("{what} has {got} values where {expected} are needed")]
    Length {
        /// Which argument.
        what: &'static str,
        /// The length that the call needs (for a strided view: at least).
        expected: usize,
        /// The length that was given.
        got: usize,
    },
    /// Two views that must have the same shape do not.
    #[error(
        "{what} has {} rows of {} features where {} rows of {} are needed",
        got.0, got.1, expected.0, expected.1
    )]
    Shape {
        /// Which argument.
        what: &'static str,
        /// `(rows, features)` that the call needs.
        expected: (usize, usize),
        /// `(rows, features)` that were given.
        got: (usize, usize),
    },
    /// Rows closer together than they are long.
    #[error("a stride of {stride} is less than the {features} features of a row")]
    Stride {
        /// Distance between the starts of two rows.
        stride: usize,
        /// Features in a row.
        features: usize,
    },
    /// The extent of a view is not a number of values that memory can hold.
    #[error("{rows} rows at a stride of {stride} overflow the address space")]
    Overflow {
        /// Number of rows.
        rows: usize,
        /// Distance between the starts of two rows.
        stride: usize,
    },
    /// Rows that are not as many for each sample.
    #[error("{rows} rows are not a whole number of rows for each of {samples} samples")]
    Samples {
        /// Number of rows.
        rows: usize,
        /// Number of samples.
        samples: usize,
    },
    /// A row picks parameters that there are not.
    #[error("row {row} has index {index} of a table with {entries} entries")]
    Index {
        /// The row.
        row: usize,
        /// What it picks.
        index: usize,
        /// How many there are to pick from.
        entries: usize,
    },
    /// The global index of the last row is not a number.
    #[error("{rows} rows from row {first_row} on overflow the row index")]
    RowIndex {
        /// Global index of the first row.
        first_row: usize,
        /// Number of rows.
        rows: usize,
    },
    /// Epsilon is negative or not finite, in `f64` or after rounding to the accumulation type.
    #[error("eps is {eps}, which is not in 0..={max}")]
    Epsilon {
        /// The epsilon that was given.
        eps: f64,
        /// The largest finite value of the accumulation type.
        max: f64,
    },
    /// A number that the accumulation type cannot hold.
    #[error("{what} is {value}, which is not in -{max}..={max}")]
    NotFinite {
        /// Which argument.
        what: &'static str,
        /// The number that was given.
        value: f64,
        /// The largest finite value of the accumulation type.
        max: f64,
    },
    /// Statistics of no feature, or of more than there are.
    #[error("statistics of the first {partial} features, where there are {features}")]
    Partial {
        /// How many features the statistics were to be taken of.
        partial: usize,
        /// Features in a row.
        features: usize,
    },
    /// Rows that are not the heads of whole tokens.
    #[error("{rows} rows, in groups of {group}, are not a whole number of tokens with {heads} heads")]
    Heads {
        /// Number of rows.
        rows: usize,
        /// Rows that follow each other at one distance: the heads that the view was made for, or all rows.
        group: usize,
        /// Heads of a token.
        heads: usize,
    },
    /// An axis that the shape does not have, or that was named before.
    #[error("axis {axis} is not one of {rank}, or was named twice")]
    Axis {
        /// The axis.
        axis: usize,
        /// How many axes there are.
        rank: usize,
    },
    /// A scale to divide by that is not positive or not finite.
    #[error("the scale is {scale}, which is not in 0 < scale <= {}", f32::MAX)]
    Scale {
        /// The scale that was given.
        scale: f32,
    },
    /// Channels that can't be cut into so many equal groups.
    #[error("{channels} channels cannot be cut into {groups} equal groups")]
    Groups {
        /// Channels of an image.
        channels: usize,
        /// The groups that were asked for.
        groups: usize,
    },
    /// Images or a batch without channels or positions.
    #[error("{channels} channels of {positions} positions: there is nothing to normalise")]
    NoChannels {
        /// Channels of a sample.
        channels: usize,
        /// Positions of a channel.
        positions: usize,
    },
    /// A number of things that is not a multiple of what it must be cut into.
    #[error("{len} {what} cannot be cut into {parts}")]
    Divide {
        /// Things of what kind.
        what: &'static str,
        /// How many.
        len: usize,
        /// What should divide it.
        parts: usize,
    },
    /// Training batch norm over fewer numbers a channel than two: their variance says nothing.
    #[error("a channel has {got} values where training needs {expected}")]
    Count {
        /// The least number of values.
        expected: usize,
        /// How many there are in the batch, over all its ranks.
        got: usize,
    },
    /// A momentum that is no weight.
    #[error("momentum is {momentum}, which is not in 0..=1")]
    Momentum {
        /// The momentum that was given.
        momentum: f64,
    },
    /// A running variance that is negative.
    #[error("the running variance of channel {channel} is {var}, which is less than 0")]
    Variance {
        /// The channel.
        channel: usize,
        /// Its variance.
        var: f64,
    },
    /// A rank of a batch that is spread over several takes no part any more.
    #[error("the batch's ranks cannot be gathered: {why}")]
    Reducer {
        /// What happened.
        why: String,
    },
    /// The sizes of axes make more numbers than memory can hold.
    #[error("axes of {axes:?} are more numbers than memory can hold")]
    Size {
        /// The sizes of the axes.
        axes: Vec<usize>,
    },
    /// More axes than a tensor may have here.
    #[error("a tensor of {got} axes, where {most} are the most")]
    Axes {
        /// The most that a tensor may have.
        most: usize,
        /// Those that were given.
        got: usize,
    },
    /// An instruction-set level that this machine does not have.
    #[error("level {asked} is not available here: the best is {best}")]
    Level {
        /// The level that was asked for.
        asked: Level,
        /// The best level of this machine.
        best: Level,
    },
    /// The environment variable [`LEVEL_VARIABLE`](crate::LEVEL_VARIABLE) names no level.
    #[error("{}={value} names no level: portable, avx2, avx512 or neon", crate::LEVEL_VARIABLE)]
    LevelName {
        /// What the variable holds.
        value: String,
    },
}
