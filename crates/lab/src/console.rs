//! What people see: results on standard output, progress on standard error.
//!
//! `crates/peers` has this file too, by its path: of the lab it may use `crate::error::Error` alone.

use crate::error::Error;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// Print a text. A reader that has seen enough, such as `head`, is no error.
///
/// # Errors
/// Standard output that can't be written to.
pub fn print(text: &str) -> Result<(), Error> {
    match writeln!(std::io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Print one JSON document.
///
/// # Errors
/// Standard output that can't be written to.
pub fn print_json(value: &impl Serialize) -> Result<(), Error> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&text),
        Err(error) => Err(Error::Output(error.into())),
    }
}

/// A bar for work of `steps` steps, on standard error, and only where someone is looking.
pub fn progress(steps: u64, name: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let template = "{prefix:>10} [{bar:32}] {percent:>3}%  {elapsed} gone, {eta} to go  {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_prefix(name)
}

/// A table with its headings: the first `words` columns to the left, numbers to the right.
pub fn table(headings: &[&str], words: usize, rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let pad = |(column, cell): (usize, &str)| match (column < words, widths[column]) {
            (true, width) => format!("{cell:<width$}"),
            (false, width) => format!("{cell:>width$}"),
        };
        let cells: Vec<String> = cells.enumerate().map(pad).collect();
        format!("  {}\n", cells.join("  ").trim_end())
    };
    let mut text = line(&mut headings.iter().copied());
    rows.iter().for_each(|row| text += &line(&mut row.iter().map(String::as_str)));
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn tables_line_up() {
        let rows = [vec!["ab".to_owned(), "1.5".to_owned()], vec!["c".to_owned(), "10.25".to_owned()]];
        assert_eq!(super::table(&["name", "u"], 1, &rows), "  name      u\n  ab      1.5\n  c     10.25\n");
    }
}
