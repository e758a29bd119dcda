//! The tour: everything once, quickly, on this machine. Check, bench, studies, page.

use std::path::Path;

use crate::bench::BenchArgs;
use crate::check::CheckArgs;
use crate::console::print;
use crate::error::Error;
use crate::report::model::Verdict;
use crate::report::{self, headline};
use crate::study::{command, store};
use crate::{bench, check, interrupt, studies};

/// Where the tour keeps its results, and where it leaves its page.
const RUNS: &str = "runs";
const REPORT: &str = "report";

/// The studies that the tour shows, within its three minutes.
const STUDIES: [&str; 4] = ["neighbours", "invariance", "placement", "mnist"];

/// Takes the tour, and says whether everything held.
///
/// # Errors
/// Ctrl-C, or a folder that can't be written to.
pub fn run() -> Result<bool, Error> {
    let runs = Path::new(RUNS);
    std::fs::create_dir_all(runs).map_err(Error::io(runs))?;
    print("The tour: is layer normalization right, fast and useful on this machine? About three minutes.\n")?;

    let checked = check::run(&CheckArgs::default(), interrupt::ctrl_c())?;
    store::write_json(&runs.join(report::CHECK), &checked)?;
    print(&format!("check: {}\n       {}", headline::check(&checked), headline::bits(&checked)))?;

    let timed = bench::run(&BenchArgs { quick: true, ..BenchArgs::default() }, interrupt::ctrl_c())?;
    store::write_json(&runs.join(report::BENCH), &timed)?;
    print(&format!("bench: {}", headline::bench(&timed)))?;

    let mut held = checked.passed;
    for name in STUDIES {
        let outcome = command::run_quick(studies::find(name)?, runs)?;
        held &= outcome.verdict != Verdict::NotReproduced;
        print(&format!("study {}", command::summary(&outcome)))?;
    }

    let page = report::write(&report::collect(runs, "layernorm")?, Path::new(REPORT))?;
    print("\nThe other studies: layernorm study list; all of them: layernorm study run --all")?;
    print(&format!("All of it, with pictures: {}", page.display()))?;
    Ok(held)
}
