//! What a run has found: plain data, printed as a table, as markdown or as JSON.

use serde::Serialize;

use crate::machine::Machine;
use crate::number::Dtype;
use crate::operators::{Direction, Operator};
use crate::peers::Peer;

/// A run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The command that repeats it.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// When: the day, in UTC.
    pub day: String,
    /// How many programs wanted a processor when it began, in the mean of a minute.
    pub load: Option<f64>,
    /// The instruction set of our kernels.
    pub level: String,
    /// Each peer's version, or why it has none.
    pub versions: Vec<Version>,
    /// One for each case and number of threads.
    pub lines: Vec<Line>,
    /// What to know when reading the numbers.
    pub notes: Vec<String>,
    /// How long all of it took.
    pub seconds: f64,
}

/// A peer's version.
#[derive(Debug, Serialize)]
pub struct Version {
    /// Whose.
    pub peer: Peer,
    /// The version, or why there is none.
    pub version: String,
}

/// One case on so many threads.
#[derive(Debug, Serialize)]
pub struct Line {
    /// Such as 512x768.
    pub shape: String,
    /// What.
    pub operator: Operator,
    /// Which pass.
    pub direction: Direction,
    /// The type of the numbers.
    pub dtype: Dtype,
    /// On how many.
    pub threads: usize,
    /// The best copy of the same bytes: nanoseconds and way.
    pub copy: BestCopy,
    /// The peers, in one order in all lines.
    pub cells: Vec<Cell>,
}

/// The best copy.
#[derive(Debug, Serialize)]
pub struct BestCopy {
    /// Nanoseconds.
    pub ns: f64,
    /// memcpy, loop or stream.
    pub way: String,
}

/// A peer in a line.
#[derive(Debug, Serialize)]
pub struct Cell {
    /// Who.
    pub peer: Peer,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of timing a peer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// A time.
    Timed {
        /// Nanoseconds a call: the median of the rounds.
        ns: f64,
        /// The least of them: what the call takes where nobody else wants the machine.
        best_ns: f64,
        /// The median of the ratios to our times, round by round.
        x_ours: Option<f64>,
        /// The median of the ratios to the best copy's times.
        x_copy: f64,
        /// Whether its result is that of the peer trusted most, within the type's tolerance.
        agrees: bool,
    },
    /// No time.
    Lacking {
        /// Why.
        lacks: String,
    },
}
