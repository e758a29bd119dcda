//! What the report shows, as plain data: filled in by the check, the bench and the studies, kept as JSON, drawn by
//! [`super::page`]. Nothing here computes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::number::{curves, list, map, number};

/// Everything on the page. Parts that were not run are absent, and the page says so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The machine and the versions that made it.
    pub machine: Machine,
    /// The command that repeats the whole.
    pub command: String,
    /// Correctness of the kernels.
    pub check: Option<CheckSummary>,
    /// Speed of the kernels.
    pub bench: Option<BenchSummary>,
    /// The studies, in the order of the page.
    pub studies: Vec<StudyOutcome>,
}

/// Results of `layernorm check`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckSummary {
    /// Every bound kept, every bit equal.
    pub passed: bool,
    /// The command that repeats it.
    pub command: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// The instruction-set levels, those that this machine lacks too.
    pub levels: Vec<LevelStatus>,
    /// The worst errors, one entry for each operator, quantity and level.
    pub errors: Vec<WorstError>,
    /// Comparisons that must be equal to the last bit.
    pub bits: Vec<BitCase>,
    /// What a reader should know besides.
    pub notes: Vec<String>,
}

/// One instruction-set level.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LevelStatus {
    /// `portable`, `avx2`, `avx512`, `neon`.
    pub name: String,
    /// This machine has it, so it was tested.
    pub available: bool,
    /// Why not, or which one is the default.
    pub note: String,
}

/// The worst error of one operator, quantity and level, in units of the bound's u.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorstError {
    /// `layer_norm`, `rms_norm`.
    pub operator: String,
    /// `y`, `dx`, `dweight`, `dbias`.
    pub quantity: String,
    /// `f32`, `f64`.
    pub dtype: String,
    /// The instruction-set level.
    pub level: String,
    /// The worst error seen, in u relative to the bound's scale.
    #[serde(deserialize_with = "number")]
    pub worst: f64,
    /// The bound in the same unit.
    pub bound: f64,
    /// Which row it was: distribution, length.
    pub at: String,
    /// How many rows were judged.
    pub rows: u64,
}

/// A comparison of bits: over levels, batch sizes, positions, strides, threads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BitCase {
    /// What was varied, in words.
    pub what: String,
    /// How many comparisons.
    pub cases: u64,
    /// How many of them differed: 0 or a failure.
    pub differing: u64,
}

/// Results of `layernorm bench`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BenchSummary {
    /// The command that repeats it.
    pub command: String,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// The level that was timed.
    pub level: String,
    /// One row for each shape, operator, direction and number of threads.
    pub rows: Vec<BenchRow>,
    /// How it was measured.
    pub notes: Vec<String>,
}

/// One timing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BenchRow {
    /// `layer_norm`, `rms_norm`, ...
    pub operator: String,
    /// `forward`, `backward`.
    pub direction: String,
    /// `f32`, `f64`, `f16`, `bf16`.
    pub dtype: String,
    /// Rows of the input, or its samples: the first axis.
    pub rows: usize,
    /// Numbers of a row or sample.
    pub features: usize,
    /// All axes of the input. Absent in results of old.
    #[serde(default)]
    pub shape: Vec<usize>,
    /// Threads used.
    pub threads: usize,
    /// Nanoseconds a call, the median.
    pub ns: f64,
    /// Bytes that must be moved, by nanosecond.
    pub gbps: f64,
    /// Time over the time of the best copy of the same bytes in the same run.
    #[serde(deserialize_with = "number")]
    pub ratio: f64,
    /// Which copy was the best: `memcpy`, `loop`, `stream`.
    pub copy: String,
    /// `L2`, `L3` or `memory`: where the data lived.
    pub place: String,
}

/// What a study found: written to `runs/NAME/result.json`, read back by `layernorm report`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StudyOutcome {
    /// The name on the command line.
    pub name: String,
    /// A headline.
    pub title: String,
    /// What is asked, in two sentences that a newcomer understands.
    pub question: String,
    /// What is measured.
    pub metric: String,
    /// The arms, in order.
    pub arms: Vec<Arm>,
    /// Everything that the numbers depend on.
    pub settings: Settings,
    /// The weakest of the findings' verdicts.
    pub verdict: Verdict,
    /// One for each claim.
    pub findings: Vec<Finding>,
    /// Pictures and tables, in the order of the page.
    pub figures: Vec<Figure>,
    /// What a reader should know besides.
    pub notes: Vec<String>,
    /// The raw measurements, one for each arm and seed.
    pub units: Vec<Measured>,
    /// The command that repeats it.
    pub command: String,
    /// Seconds of work, over all arms and seeds and sittings.
    pub seconds: f64,
    /// Where it ran.
    pub machine: Machine,
}

/// Everything that a study's numbers depend on: two runs with equal settings give equal bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The study's name.
    pub study: String,
    /// `quick`, `standard`, `full`.
    pub budget: String,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The rest, by name: data, sizes, rates.
    pub details: BTreeMap<String, String>,
}

/// One arm of a study.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arm {
    /// The key, used in file names.
    pub name: String,
    /// The words in legends.
    pub label: String,
    /// Its colour, the same on the whole page.
    pub tone: Tone,
}

/// Colours by meaning: one method keeps one colour over all figures, in light and dark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tone {
    /// Layer norm.
    Layer,
    /// Batch norm.
    Batch,
    /// RMS norm.
    Rms,
    /// RMS norm by a part of the features.
    Partial,
    /// Group norm.
    Group,
    /// Instance norm.
    Instance,
    /// A scale alone: scale norm, L2.
    Scale,
    /// Weight norm.
    Weight,
    /// No normalization.
    Plain,
    /// What is no norm, such as a placement or a remedy: the first of a sequence.
    First,
    /// The second of a sequence.
    Second,
    /// The third of a sequence.
    Third,
    /// The fourth of a sequence.
    Fourth,
    /// The fifth of a sequence.
    Fifth,
}

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The rule says yes.
    Reproduced,
    /// The rule says no.
    NotReproduced,
    /// The interval includes both answers.
    Inconclusive,
}

impl Verdict {
    /// The verdict in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Reproduced => "Reproduced",
            Self::NotReproduced => "Not reproduced",
            Self::Inconclusive => "Inconclusive",
        }
    }
}

/// A claim, the rule that was stated before the run, and what came out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The claim's id in the list of claims.
    pub claim: String,
    /// The claim.
    pub says: String,
    /// Who says so, and where.
    pub source: String,
    /// How the effect is computed for one seed.
    pub measure: String,
    /// The rule.
    pub rule: String,
    /// What the rule said.
    pub verdict: Verdict,
    /// The size of the effect.
    pub effect: Effect,
}

/// An effect over seeds: the mean of the paired differences with its 95% interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The mean.
    #[serde(deserialize_with = "number")]
    pub mean: f64,
    /// The interval, absent with fewer than two seeds.
    pub interval: Option<[f64; 2]>,
    /// One value for each seed.
    #[serde(deserialize_with = "list")]
    pub seeds: Vec<f64>,
    /// Where the rule draws its line or lines.
    pub lines: Vec<f64>,
    /// The unit, in words.
    pub unit: String,
}

/// What one arm measured with one seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The arm's name.
    pub arm: String,
    /// The seed.
    pub seed: u64,
    /// Curves by name: pairs of x and y.
    #[serde(deserialize_with = "curves")]
    pub curves: BTreeMap<String, Vec<[f64; 2]>>,
    /// Numbers by name.
    #[serde(deserialize_with = "map")]
    pub values: BTreeMap<String, f64>,
    /// Fingerprints by name, such as that of the final weights: equal bits, equal text.
    pub marks: BTreeMap<String, String>,
    /// Seconds of work. Not part of what must be the same.
    pub seconds: f64,
}

impl Measured {
    /// Notes a number.
    pub fn set(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
    }

    /// Adds to a number that begins at 0.
    pub fn add(&mut self, name: &str, value: f64) {
        *self.values.entry(name.to_owned()).or_default() += value;
    }

    /// Adds a point to a curve.
    pub fn point(&mut self, curve: &str, x: f64, y: f64) {
        self.curves.entry(curve.to_owned()).or_default().push([x, y]);
    }
}

/// A picture or a table of a study.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Figure {
    /// Curves with bands.
    Lines(LineChart),
    /// Numbers in rows.
    Table(Table),
    /// Words in rows and columns, each on its colour.
    Matrix(Matrix),
    /// A grid of small pictures.
    Images(ImageGrid),
}

/// Curves over a common axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LineChart {
    /// What the picture shows, as a sentence where possible.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The curves.
    pub series: Vec<Series>,
}

/// An axis.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Axis {
    /// What is on it, with its unit.
    pub label: String,
    /// Logarithmic.
    pub log: bool,
}

impl Axis {
    /// In equal steps.
    pub fn linear(label: &str) -> Self {
        Self { label: label.to_owned(), log: false }
    }

    /// In equal factors.
    pub fn log(label: &str) -> Self {
        Self { label: label.to_owned(), log: true }
    }
}

/// One curve with its band.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// The words in the legend.
    pub label: String,
    /// Its colour.
    pub tone: Tone,
    /// The points, from left to right.
    pub points: Vec<Point>,
}

/// The middle of the seeds at one x, and their extremes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// The mean over seeds.
    #[serde(deserialize_with = "number")]
    pub y: f64,
    /// The lowest seed.
    #[serde(deserialize_with = "number")]
    pub low: f64,
    /// The highest seed.
    #[serde(deserialize_with = "number")]
    pub high: f64,
}

impl Point {
    /// The seeds' values at one x.
    pub fn of(x: f64, values: &[f64]) -> Self {
        Self {
            x,
            y: values.iter().sum::<f64>() / values.len() as f64,
            low: values.iter().copied().fold(f64::INFINITY, f64::min),
            high: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// A table: the first column is left-aligned, the others are numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows' cells.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(title: &str, caption: &str, columns: &[&str], rows: Vec<Vec<String>>) -> Self {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        Self { title: title.to_owned(), caption: caption.to_owned(), columns, rows }
    }
}

/// Rows and columns of cells, coloured by a value: what holds for whom, or where something is large.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Matrix {
    /// What it shows.
    pub title: String,
    /// How to read it, the colours too.
    pub caption: String,
    /// The columns' names.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<MatrixRow>,
}

/// One row of a matrix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MatrixRow {
    /// The words at its left.
    pub label: String,
    /// One cell for each column.
    pub cells: Vec<Cell>,
}

/// One cell of a matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// What it says. Colours are no more than a help.
    pub text: String,
    /// Its colour: from -1, the warm one, through 0, none, to 1, the cool one. NaN: crossed out.
    #[serde(deserialize_with = "number")]
    pub shade: f64,
}

impl Matrix {
    /// A matrix with these columns.
    pub fn new(title: &str, caption: &str, columns: &[&str], rows: Vec<MatrixRow>) -> Self {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        Self { title: title.to_owned(), caption: caption.to_owned(), columns, rows }
    }
}

impl MatrixRow {
    /// A row of cells.
    pub fn new(label: &str, cells: Vec<Cell>) -> Self {
        Self { label: label.to_owned(), cells }
    }
}

impl Cell {
    /// Words on a colour.
    pub fn new(text: impl Into<String>, shade: f64) -> Self {
        Self { text: text.into(), shade }
    }

    /// Yes on the cool colour, no on the warm one.
    pub fn yes(yes: bool) -> Self {
        if yes { Self::new("yes", 1.0) } else { Self::new("no", -1.0) }
    }
}

/// Small pictures in rows and columns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageGrid {
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The columns' names; empty for none.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<ImageRow>,
}

/// One row of pictures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRow {
    /// The words at its left.
    pub label: String,
    /// The pictures.
    pub images: Vec<Image>,
}

/// One picture.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// A PNG in base64.
    pub png: String,
    /// Black ink on nothing, to be inverted on a dark page.
    pub ink: bool,
    /// What it shows, for those who can't see it.
    pub alt: String,
    /// Words below it; empty for none.
    pub note: String,
}
