//! The sections of a document that this program writes, each between two markers.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::error::Error;

/// Writes a section into a document: in the place of the one of that name, else at its end.
///
/// # Errors
/// A file that can't be read or written.
pub fn write(path: &Path, name: &str, section: &str) -> Result<(), Error> {
    let document =
        if path.exists() { fs::read_to_string(path).map_err(Error::io(path))? } else { String::new() };
    fs::write(path, with_section(&document, name, section)).map_err(Error::io(path))
}

fn with_section(document: &str, name: &str, section: &str) -> String {
    let [start, end] =
        ["begin", "end"].map(|word| format!("<!-- {word} {name}: written by crates/peers -->"));
    let section = format!("{start}\n{}\n{end}\n", section.trim());
    let around =
        document.split_once(&start).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    match around {
        Some((before, after)) => format!("{before}{section}{}", after.strip_prefix('\n').unwrap_or(after)),
        None if document.is_empty() => section,
        None => format!("{}\n\n{section}", document.trim_end()),
    }
}

/// The day of a time, in UTC: 2026-11-25.
pub fn day(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // In years that begin in March, so that a leap day is a year's last, and in eras of 400 years, which are all alike.
    let days = since.as_secs() / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_the_one_of_its_name() {
        let once = with_section("# Title\n\nText.\n", "a", "one");
        let both = with_section(&once, "b", "two");
        let again = with_section(&both, "a", "three\n");
        assert!(once.starts_with("# Title\n\nText.\n\n<!-- begin a") && once.contains("-->\none\n<!--"));
        assert_eq!(again, both.replace("one", "three"));
        assert_eq!(with_section(&again, "a", "three"), again, "to write it twice changes nothing");
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_767_225_599, "2025-12-31"),
        ] {
            assert_eq!(day(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
