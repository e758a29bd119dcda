//! The report: all results so far as one page that stands alone, `report/index.html`, and as data beside it.
//!
//! [`model`] is what the page shows, [`page`] its text, [`chart`] its curves, [`headline`] its sentences,
//! [`picture`] its small pictures, [`machine`] where the numbers come from.

mod chart;
pub mod headline;
pub mod machine;
pub mod model;
pub mod number;
mod page;
pub mod picture;

use std::path::{Path, PathBuf};

use crate::error::Error;
use model::Report;

/// Writes `index.html` and, for machines, `report.json` into `folder`; gives the page's path.
///
/// # Errors
/// A folder that can't be written to.
pub fn write(parts: &Report, folder: &Path) -> Result<PathBuf, Error> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let json = serde_json::to_vec_pretty(parts).expect("our own values have text keys and no cycles");
    let [page, data] = ["index.html", "report.json"].map(|name| folder.join(name));
    for (path, bytes) in [(&page, page::page(parts).into_bytes()), (&data, json)] {
        std::fs::write(path, bytes).map_err(Error::io(path))?;
    }
    Ok(page)
}

#[cfg(feature = "studies")]
pub use command::{BENCH, CHECK, ReportArgs, collect, run};

#[cfg(feature = "studies")]
mod command {
    use super::model::Verdict;
    use super::{Error, Path, PathBuf, Report, machine::Machine};
    use crate::studies;
    use crate::study::store;

    /// The check's result among the runs.
    pub const CHECK: &str = "check.json";
    /// The bench's result among the runs.
    pub const BENCH: &str = "bench.json";

    /// The arguments of `layernorm report`.
    #[derive(Debug, clap::Args)]
    pub struct ReportArgs {
        /// Folder of the runs
        #[arg(long, value_name = "DIR", default_value = "runs")]
        pub runs: PathBuf,
        /// Folder of the page
        #[arg(long, value_name = "DIR", default_value = "report")]
        pub out: PathBuf,
        /// Print the report's data as JSON
        #[arg(long)]
        pub json: bool,
    }

    /// Makes the page of all results so far, and says whether everything held.
    ///
    /// # Errors
    /// Results that can't be read, a page that can't be written.
    pub fn run(arguments: &ReportArgs) -> Result<bool, Error> {
        let report = collect(&arguments.runs, "layernorm report")?;
        let page = super::write(&report, &arguments.out)?;
        if arguments.json {
            crate::console::print_json(&report)?;
        } else {
            crate::console::print(&format!("{}", page.display()))?;
        }
        Ok(held(&report))
    }

    /// Everything that lies among the runs.
    ///
    /// # Errors
    /// A result that can't be read.
    pub fn collect(runs: &Path, command: &str) -> Result<Report, Error> {
        let names: Vec<&str> = studies::ALL.iter().map(|study| study.card().name).collect();
        Ok(Report {
            machine: Machine::here(),
            command: command.to_owned(),
            check: store::read_json(&runs.join(CHECK))?,
            bench: store::read_json(&runs.join(BENCH))?,
            studies: store::outcomes(runs, &names)?,
        })
    }

    /// No check failed and no claim was found not reproduced.
    fn held(report: &Report) -> bool {
        let refuted = |outcome: &super::model::StudyOutcome| outcome.verdict == Verdict::NotReproduced;
        report.check.as_ref().is_none_or(|check| check.passed) && !report.studies.iter().any(refuted)
    }
}
