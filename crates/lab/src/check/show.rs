//! A check in words and tables.

use crate::console::table;
use crate::report::model::{CheckSummary, WorstError};
use std::fmt::Write;

/// The summary for a terminal.
pub fn show(summary: &CheckSummary) -> String {
    let mut text = String::from("Instruction sets\n");
    for level in &summary.levels {
        _ = writeln!(text, "  {:<9} {}", level.name, level.note);
    }
    _ = writeln!(text, "\nWorst errors, in u times the scale of the bound (see `layernorm check --help`)");
    text += &errors(&summary.errors);
    _ = writeln!(text, "\nThe same bits, whatever is varied");
    let bits: Vec<Vec<String>> = summary
        .bits
        .iter()
        .map(|case| {
            let verdict =
                if case.differing == 0 { "equal".into() } else { format!("{} DIFFER", case.differing) };
            vec![case.what.clone(), case.cases.to_string(), verdict]
        })
        .collect();
    text += &table(&["varied", "comparisons", ""], 1, &bits);
    _ = writeln!(text);
    for note in &summary.notes {
        _ = writeln!(text, "{note}");
    }
    let verdict = if summary.passed { "Everything held" } else { "NOT everything held" };
    _ = writeln!(text, "{verdict} ({:.1} s). Again: {}", summary.seconds, summary.command);
    text
}

/// One line for the levels of an operator, precision and output that are equal, as they should be.
fn errors(errors: &[WorstError]) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (i, error) in errors.iter().enumerate() {
        let same = |other: &&WorstError| {
            let key = |of: &WorstError| {
                (of.operator.clone(), of.dtype.clone(), of.quantity.clone(), of.worst.to_bits())
            };
            key(other) == key(error) && other.rows == error.rows && other.at == error.at
        };
        if errors[..i].iter().any(|other| same(&other)) {
            continue;
        }
        let levels: Vec<&str> = errors.iter().filter(same).map(|error| error.level.as_str()).collect();
        rows.push(vec![
            error.operator.clone(),
            error.dtype.clone(),
            error.quantity.clone(),
            levels.join(" "),
            error.at.clone(),
            if error.worst < 1e6 { format!("{:.2}", error.worst) } else { format!("{:.0e}", error.worst) },
            format!("{:.1}", error.bound),
            if error.worst <= error.bound { "held".into() } else { "BROKEN".into() },
            error.rows.to_string(),
        ]);
    }
    table(&["operator", "type", "output", "levels", "worst at", "worst", "allowed", "", "rows"], 5, &rows)
}
