//! A report, as a table for a terminal and as one in markdown.

use crate::console;
use crate::machine::Machine;
use crate::peers::Peer;
use crate::report::{Cell, Line, Outcome, Report};

/// For a terminal: a line for each peer.
pub fn text(report: &Report) -> String {
    let headings = ["shape", "operator", "direction", "type", "threads", "who", "a call", "x ours", "x copy"];
    let rows: Vec<_> = report.lines.iter().flat_map(rows).collect();
    format!(
        "{}\n{}\n{}\n({:.0} s). Again: {}",
        versions(report),
        console::table(&headings, 6, &rows),
        report.notes.join("\n"),
        report.seconds,
        report.command
    )
}

/// The lines of the copy and of the peers; what they have in common is said once.
fn rows(line: &Line) -> Vec<Vec<String>> {
    let common = [
        line.shape.clone(),
        line.operator.name(),
        line.direction.name().into(),
        line.dtype.name().into(),
        line.threads.to_string(),
    ];
    let copy = [format!("copy ({})", line.copy.way), duration(line.copy.ns), String::new(), "1.00".into()];
    let mut rows = vec![common.into_iter().chain(copy).collect::<Vec<_>>()];
    rows.extend(line.cells.iter().map(|cell| {
        let [time, x_ours, x_copy] = match &cell.outcome {
            Outcome::Timed { ns, x_ours, x_copy, agrees, .. } => {
                [duration(*ns) + mark(*agrees), x_ours.map_or(String::new(), times), times(*x_copy)]
            }
            Outcome::Lacking { lacks } => [lacks.clone(), String::new(), String::new()],
        };
        let common = std::iter::repeat_n(String::new(), 5);
        common.chain([cell.peer.name().into(), time, x_ours, x_copy]).collect()
    }));
    rows
}

/// For a document, with its heading.
pub fn section(report: &Report) -> String {
    format!("## Beside other libraries\n\n{}\n\n{}", where_and_when(report), markdown(report))
}

/// The machine and the day, and how quiet the one was on the other.
pub fn where_and_when(report: &Report) -> String {
    let Machine { cpu, threads, system, commit, .. } = &report.machine;
    let load = report.load.map_or(String::new(), |load| {
        let others = if load < 0.2 { "nothing else at work" } else { "other programs at work" };
        format!("; {others} (a load of {load:.1} as it began)")
    });
    format!("{cpu}, {threads} threads, {system}; {}, commit {commit}{load}.", report.day)
}

/// For a document: a line for each case, a column for each peer.
fn markdown(report: &Report) -> String {
    let peers: Vec<&str> = report.versions.iter().map(|version| version.peer.name()).collect();
    let mut text = format!(
        "{}\n\nEach cell: the time of a call, how many times ours that is, and (how many times the best copy).\n\n\
         | shape | operator | direction | type | threads | best copy | {} |\n|{}\n",
        versions(report),
        peers.join(" | "),
        "---|".repeat(6 + peers.len()),
    );
    for line in &report.lines {
        let copy = format!("{} ({})", duration(line.copy.ns), line.copy.way);
        let [operator, direction] = [line.operator.name(), line.direction.name().to_owned()];
        let common = [line.shape.clone(), operator, direction, line.dtype.name().into()];
        let cells = common.into_iter().chain([line.threads.to_string(), copy]);
        let cells: Vec<String> = cells.chain(line.cells.iter().map(cell)).collect();
        text += &format!("| {} |\n", cells.join(" | "));
    }
    let notes: String = report.notes.iter().map(|note| format!("- {note}\n")).collect();
    format!("{text}\n{notes}\nAgain: `{}`\n", report.command)
}

fn cell(cell: &Cell) -> String {
    match &cell.outcome {
        Outcome::Timed { ns, x_ours, x_copy, agrees, .. } => {
            let ours = x_ours.filter(|_| cell.peer != Peer::Ours).map(|x| format!(", {}", times(x)));
            format!("{}{}{} ({})", duration(*ns), mark(*agrees), ours.unwrap_or_default(), times(*x_copy))
        }
        Outcome::Lacking { lacks } => lacks.clone(),
    }
}

fn versions(report: &Report) -> String {
    let versions = report.versions.iter().map(|of| format!("{} {}", of.peer.name(), of.version));
    format!("{}; our kernels at level {}", versions.collect::<Vec<_>>().join(", "), report.level)
}

fn mark(agrees: bool) -> &'static str {
    if agrees { "" } else { " !" }
}

fn times(ratio: f64) -> String {
    match ratio {
        ..100.0 => format!("{ratio:.2}"),
        _ => format!("{ratio:.0}"),
    }
}

/// Four digits or so.
pub fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e4 => format!("{ns:.0} ns"),
        ns if ns < 1e7 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::Dtype;
    use crate::operators::{Direction, Operator};
    use crate::report::{BestCopy, Version};

    #[test]
    fn a_column_for_each_peer_with_what_it_lacks() {
        let timed =
            Outcome::Timed { ns: 2500.0, best_ns: 2400.0, x_ours: Some(1.25), x_copy: 2.5, agrees: false };
        let lacking = Outcome::Lacking { lacks: "not installed".into() };
        let cells =
            vec![Cell { peer: Peer::Candle, outcome: timed }, Cell { peer: Peer::Torch, outcome: lacking }];
        let report = Report {
            command: "again".into(),
            machine: Machine::default(),
            day: "today".into(),
            load: None,
            level: "avx2".into(),
            versions: [Peer::Candle, Peer::Torch].map(|peer| Version { peer, version: "1".into() }).into(),
            lines: vec![Line {
                shape: "2x3".into(),
                operator: Operator::LayerNorm,
                direction: Direction::Forward,
                dtype: Dtype::F32,
                threads: 1,
                copy: BestCopy { ns: 1000.0, way: "loop".into() },
                cells,
            }],
            notes: vec![],
            seconds: 1.0,
        };
        let line = "| 2x3 | layer_norm | forward | f32 | 1 | 1000 ns (loop) | 2500 ns !, 1.25 (2.50) | not installed |";
        let markdown = markdown(&report);
        assert!(markdown.contains(line), "{markdown}");
        assert!(text(&report).contains("2500 ns !    1.25    2.50"), "{}", text(&report));
    }
}
