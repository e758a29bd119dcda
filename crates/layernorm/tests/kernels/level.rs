//! The levels under test, and how much to test.

use layernorm::{Level, Run, Threads};
use std::io::Write;

/// Names of levels, with commas, that must be there: else a test fails. For machines that are known to have them.
const REQUIRE: &str = "LAYERNORM_REQUIRE_LEVELS";

/// `small` where the machine is emulated: fewer and shorter rows.
const EFFORT: &str = "LAYERNORM_TEST_EFFORT";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Under Miri, a thousand times slower: each path once.
    Tiny,
    Small,
    Full,
}

impl Effort {
    pub(crate) fn get() -> Self {
        match std::env::var(EFFORT).as_deref() {
            _ if cfg!(miri) => Self::Tiny,
            Ok("small") => Self::Small,
            Ok(other) => panic!("{EFFORT}={other}: only `small` is known"),
            Err(_) => Self::Full,
        }
    }

    /// One of three values.
    pub(crate) fn of<V>(tiny: V, small: V, full: V) -> V {
        match Self::get() {
            Self::Tiny => tiny,
            Self::Small => small,
            Self::Full => full,
        }
    }
}

/// The levels that tests run at. Miri knows few vector instructions, so there it is the portable one.
pub(crate) fn levels() -> Vec<Level> {
    if cfg!(miri) { vec![Level::Portable] } else { Level::available().collect() }
}

/// One thread, at a level; outputs from 2 MiB on past the caches, so that tests of both ways stay small.
pub(crate) fn at(level: Level) -> Run {
    Run::default().with_level(level).with_threads(Threads::One).with_stream_from(2 << 20)
}

/// One thread, at the best level under test.
pub(crate) fn best() -> Run {
    at(levels().last().copied().unwrap())
}

/// Written past the harness's capture, because a skipped level must show.
#[allow(clippy::explicit_write, reason = "`eprintln` is captured")]
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

#[test]
fn every_required_level_is_here() {
    let tested = levels();
    for level in Level::ALL {
        let is = match (tested.contains(&level), level.is_available()) {
            (true, _) => "tested",
            (false, true) => "SKIPPED: under Miri",
            (false, false) => "SKIPPED: not on this machine",
        };
        say(&format!("level {level}: {is}"));
    }
    if Effort::get() != Effort::Full {
        say(&format!("effort: {:?}", Effort::get()));
    }
    let required = std::env::var(REQUIRE).unwrap_or_default();
    for name in required.split(',').filter(|name| !name.is_empty()) {
        let level: Level = name.trim().parse().unwrap();
        assert!(tested.contains(&level), "{REQUIRE} names {level}, which this machine lacks");
    }
}
