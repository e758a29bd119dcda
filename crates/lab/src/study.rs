//! Studies: a claim that somebody made, an experiment that could refute it, and a rule, stated before the run, that
//! turns the numbers into a verdict.
//!
//! A study is a value: a [`Card`] that says what is asked and how it will be judged, and a [`Plan`] that measures.
//! The plan is cut into *units*, one for each arm and seed; a [`Unit`] works in short steps and can be saved between
//! any two of them. One that is over in half a minute need not be: [`steps()`] makes it from a closure. Everything else
//! exists once, for all studies: threads, progress, checkpoints, Ctrl-C and resuming are in [`runner`], files in
//! [`store`], rules in [`verdict`], words on the command line in [`command`]. So a new study is one file in `studies/`
//! and one line in [`crate::studies::ALL`].

pub mod command;
pub mod runner;
mod steps;
pub mod store;
pub mod verdict;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use command::{StudyArgs, run};
pub use runner::Control;
pub use steps::steps;
pub use verdict::Rule;

use crate::report::model::{Figure, Measured, Point, Series, Tone};
use crate::report::number;

/// What a study asks and how it will be judged: fixed in the program, before anything runs.
#[derive(Debug)]
pub struct Card {
    /// The name on the command line and of the folder in `runs/`.
    pub name: &'static str,
    /// A headline.
    pub title: &'static str,
    /// What is asked, for a newcomer.
    pub question: &'static str,
    /// What is measured.
    pub metric: &'static str,
    /// What is compared, in the order of units and tables.
    pub arms: &'static [Arm],
    /// What is judged.
    pub claims: &'static [Claim],
    /// How long each budget takes on two cores, in words: quick, standard, full.
    pub takes: [&'static str; 3],
    /// Seeds of each budget: quick, standard, full.
    pub seeds: [u64; 3],
    /// Whether `--data` can replace the data that the program makes itself.
    pub real_data: bool,
}

/// One of the things that are compared.
#[derive(Debug)]
pub struct Arm {
    /// The key, in file names and results.
    pub name: &'static str,
    /// The words in legends and tables.
    pub label: &'static str,
    /// Its colour in all figures.
    pub tone: Tone,
}

/// A sentence that can turn out wrong.
#[derive(Debug)]
pub struct Claim {
    /// Its id in the list of claims, such as `C1`.
    pub id: &'static str,
    /// The sentence.
    pub says: &'static str,
    /// Who says it, and where.
    pub source: &'static str,
    /// How one seed's effect is computed, in words.
    pub measure: &'static str,
    /// The same as arithmetic.
    pub effect: fn(&Seed<'_>) -> f64,
    /// The effect's unit.
    pub unit: &'static str,
    /// What turns effects into a verdict.
    pub rule: Rule,
}

/// How much to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Budget {
    /// About a minute: shows the way, and may stay inconclusive
    Quick,
    /// About twenty minutes on two cores
    Standard,
    /// The source's own schedule: hours
    Full,
    /// A second, for the program's own tests
    #[value(hide = true)]
    Tiny,
}

impl Budget {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Full => "full",
            Self::Tiny => "tiny",
        }
    }

    /// The entry for this budget; `Tiny` is given apart.
    pub fn pick<T: Copy>(self, [quick, standard, full]: [T; 3], tiny: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Standard => standard,
            Self::Full => full,
            Self::Tiny => tiny,
        }
    }
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// How much to spend.
    pub budget: Budget,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The user's data, if any.
    pub data: Option<PathBuf>,
}

/// A study.
pub trait Study: Sync {
    /// What it asks and how it is judged.
    fn card(&self) -> &'static Card;

    /// Reads or makes the data and fixes the sizes.
    ///
    /// # Errors
    /// Data that can't be read.
    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error>;
}

/// A study with its data, ready to measure. Arms are given by their index in [`Card::arms`].
pub trait Plan: Sync {
    /// All that the numbers depend on, besides the budget and the seeds.
    fn settings(&self) -> BTreeMap<String, String>;

    /// The length of a unit of this arm, in ticks of about equal time over all arms.
    fn ticks(&self, _arm: usize) -> u64 {
        1
    }

    /// Whether units must run one at a time, because they measure time.
    fn alone(&self) -> bool {
        false
    }

    /// A unit, from its beginning or from what [`Unit::save`] gave.
    ///
    /// # Errors
    /// Saved bytes that can't be understood.
    fn unit(&self, arm: usize, seed: u64, saved: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error>;

    /// Pictures and tables, for the report.
    fn figures(&self, all: &Results) -> Vec<Figure>;

    /// What a reader should know besides.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Settings from pairs.
pub fn settings<const N: usize>(pairs: [(&str, String); N]) -> BTreeMap<String, String> {
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

/// The work of one arm with one seed: a value that steps forward.
///
/// The result must depend on nothing but the plan, the arm and the seed: neither on the number of threads nor on
/// where the work was interrupted.
pub trait Unit {
    /// Ticks done so far.
    fn done(&self) -> u64;

    /// Does a little, well under a second of work, and says whether there is more.
    ///
    /// # Errors
    /// Whatever went wrong in it.
    fn advance(&mut self) -> Result<bool, Error>;

    /// All that is needed to go on from here to the same bits. `None`: too short to be worth saving.
    ///
    /// # Errors
    /// State that can't be written down.
    fn save(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }

    /// What was measured; called once [`Unit::advance`] said that there is no more.
    ///
    /// # Errors
    /// Whatever went wrong in it.
    fn finish(self: Box<Self>) -> Result<Measured, Error>;
}

/// All measurements of a study.
#[derive(Debug)]
pub struct Results {
    /// The arms' names.
    arms: Vec<String>,
    /// Seed by seed, arm by arm.
    units: Vec<Measured>,
}

/// The measurements of one seed, arm by arm.
#[derive(Clone, Copy, Debug)]
pub struct Seed<'a> {
    arms: &'a [String],
    units: &'a [Measured],
}

impl Results {
    /// Arranges `units`, which come in any order.
    ///
    /// # Panics
    /// When a unit is missing: the runner gives all of them.
    pub fn new(card: &Card, seeds: &[u64], mut units: Vec<Measured>) -> Self {
        let arms: Vec<String> = card.arms.iter().map(|arm| arm.name.to_owned()).collect();
        let place = |unit: &Measured| {
            let seed = seeds.iter().position(|&seed| seed == unit.seed);
            (seed, arms.iter().position(|arm| *arm == unit.arm))
        };
        units.sort_by_key(place);
        assert_eq!(units.len(), arms.len() * seeds.len(), "one unit for each arm and seed");
        Self { arms, units }
    }

    /// All units, seed by seed.
    pub fn units(&self) -> &[Measured] {
        &self.units
    }

    /// The seeds one by one.
    pub fn seeds(&self) -> impl Iterator<Item = Seed<'_>> {
        self.units.chunks(self.arms.len()).map(|units| Seed { arms: &self.arms, units })
    }

    /// A number of one arm, in every seed.
    pub fn values(&self, arm: &str, name: &str) -> Vec<f64> {
        self.seeds().map(|seed| seed.value(arm, name)).collect()
    }

    /// The mean of a number of one arm over the seeds.
    pub fn mean(&self, arm: &str, name: &str) -> f64 {
        let values = self.values(arm, name);
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// A number of one arm as words, with its lowest and highest seed: `1.23 (1.20 to 1.26)`.
    pub fn spread(&self, arm: &str, name: &str, digits: usize) -> String {
        number::spread(&self.values(arm, name), digits)
    }

    /// A number that several arms measured, as one curve: at each x that of its arm.
    pub fn sweep(
        &self,
        label: &str,
        tone: Tone,
        arms: &[(f64, &str)],
        value: impl Fn(&Seed<'_>, &str) -> f64,
    ) -> Series {
        let point = |&(x, arm): &(f64, &str)| {
            Point::of(x, &self.seeds().map(|seed| value(&seed, arm)).collect::<Vec<f64>>())
        };
        Series { label: label.to_owned(), tone, points: arms.iter().map(point).collect() }
    }

    /// A curve of one arm over all seeds, in the arm's own words and colour. `stretch` multiplies the horizontal axis.
    pub fn series(&self, arm: &Arm, name: &str, stretch: f64) -> Series {
        let mut series = self.line(arm.label, arm.tone, arm.name, name);
        series.points.iter_mut().for_each(|point| point.x *= stretch);
        series
    }

    /// A curve of one arm over all seeds: the mean at each point, and the lowest and highest seed.
    pub fn line(&self, label: &str, tone: Tone, arm: &str, name: &str) -> Series {
        let curves = self.curves(arm, name);
        let length = curves.iter().map(|curve| curve.len()).min().unwrap_or(0);
        let point = |index: usize| {
            let values: Vec<f64> = curves.iter().map(|curve| curve[index][1]).collect();
            Point::of(curves[0][index][0], &values)
        };
        Series { label: label.to_owned(), tone, points: (0..length).map(point).collect() }
    }

    /// A curve of one arm, in every seed.
    pub fn curves(&self, arm: &str, name: &str) -> Vec<&[[f64; 2]]> {
        self.seeds().map(|seed| seed.curve(arm, name)).collect()
    }
}

impl<'a> Seed<'a> {
    fn unit(self, arm: &str) -> &'a Measured {
        let index = self.arms.iter().position(|name| name == arm);
        &self.units[index.unwrap_or_else(|| panic!("the study has no arm {arm}"))]
    }

    /// A number of an arm, NaN when the arm did not measure it.
    pub fn value(self, arm: &str, name: &str) -> f64 {
        self.unit(arm).values.get(name).copied().unwrap_or(f64::NAN)
    }

    /// A curve's y at this x, NaN when the arm did not measure it.
    pub fn at(self, arm: &str, name: &str, x: f64) -> f64 {
        self.curve(arm, name).iter().find(|point| point[0] == x).map_or(f64::NAN, |point| point[1])
    }

    /// A curve of an arm, empty when the arm did not measure it.
    pub fn curve(self, arm: &str, name: &str) -> &'a [[f64; 2]] {
        self.unit(arm).curves.get(name).map_or(&[], Vec::as_slice)
    }
}

/// What can keep a study from its verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No study of that name.
    #[error("no study named {asked}; there are: {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        asked: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// Data for a study that has no use for them.
    #[error("the study {study} makes its own data and can't use --data")]
    OwnData {
        /// The study.
        study: &'static str,
    },
    /// The user's data are not what they should be.
    #[error(transparent)]
    Data(#[from] crate::data::idx::Error),
    /// A saved run answers another question.
    #[error("{}: the saved run has other settings, so it can't be resumed:\n{differences}\nAsk for the saved settings, or start anew with --fresh", path.display())]
    Settings {
        /// The run's folder.
        path: PathBuf,
        /// Setting by setting, saved against asked.
        differences: String,
    },
    /// An unfinished run is there, and nobody said what to do with it.
    #[error("{} holds an unfinished run: continue it with --resume, or discard it with --fresh", path.display())]
    Unfinished {
        /// The run's folder.
        path: PathBuf,
    },
    /// There is nothing to resume.
    #[error("nothing to resume in {}", path.display())]
    NothingSaved {
        /// The run's folder.
        path: PathBuf,
    },
    /// A saved state that can't be read back.
    #[error("saved state of {unit}: {reason}")]
    State {
        /// Which arm and seed.
        unit: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or folder that can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that isn't what we wrote.
    #[error("{}: {source}", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Ctrl-C; the state is saved.
    #[error("interrupted; continue with: {again}")]
    Interrupted {
        /// The command that goes on.
        again: String,
    },
}

impl Error {
    /// The process's exit status: 130 after Ctrl-C as shells expect, else 2, bad use or input.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Interrupted { .. }) { 130 } else { 2 }
    }
}
