//! What each integration adds to the kernel, as a table for a document.

use crate::operators::Direction;
use crate::peers::Peer;
use crate::report::{Line, Outcome, Report};
use crate::show::{duration, where_and_when};

/// What an integration may add to a call: so many nanoseconds, or such a share of it.
const GOAL: (f64, f64) = (5e3, 0.05);

/// An integration, and what its framework takes for a backward pass through nothing.
const INTEGRATIONS: [(Peer, Option<Peer>, &str); 3] = [
    (Peer::OursCandle, Some(Peer::CandleGraph), "candle"),
    (Peer::OursBurn, Some(Peer::BurnGraph), "Burn"),
    (Peer::OursNdarray, None, "ndarray"),
];

/// For a document, with its heading.
pub fn section(report: &Report) -> String {
    format!(
        "## Integrations' overhead\n\n{}\n\n{ABOUT}\n\n{}\nAgain: `{}`\n",
        where_and_when(report),
        markdown(report),
        report.command
    )
}

/// What the columns mean.
const ABOUT: &str = "\
What an integration adds to a call of the kernel. The goal is 5 us or 5%, whichever is more; what is above is in bold.
*Kernel* writes into the caller's memory and, backward, has the statistics of the forward pass. *Into new memory* allocates
its output, as every integration must, and takes the statistics again, as candle's and ndarray's must (Burn keeps them, so
it may come out below). What is added is counted from there. Backward, candle and Burn run a graph: the product with the
output's gradient, zeros, additions. The same graph without a norm is timed beside it and taken off (*graph*): in candle's
there is an operation that hands out gradients made before, in Burn's there is none. Times are the best of the rounds,
in which all take turns, because other programs only add.";

/// A line for each case, a column for each integration.
pub fn markdown(report: &Report) -> String {
    let names = INTEGRATIONS.map(|(_, _, name)| name).join(" | ");
    let mut text = format!(
        "| shape | operator | direction | type | threads | kernel | into new memory | {names} |\n|{}\n",
        "---|".repeat(7 + INTEGRATIONS.len()),
    );
    for line in &report.lines {
        let (Some(bare), Some(new)) = (time(line, Peer::Ours), time(line, Peer::OursNew)) else { continue };
        let mut cells = vec![
            line.shape.clone(),
            line.operator.name(),
            line.direction.name().to_owned(),
            line.dtype.name().to_owned(),
            line.threads.to_string(),
            duration(bare),
            duration(new),
        ];
        cells.extend(INTEGRATIONS.map(|(peer, graph, _)| {
            let Some(all) = time(line, peer) else { return "-".to_owned() };
            let graph = graph.filter(|_| line.direction == Direction::Backward);
            cell(all, graph.map(|graph| time(line, graph).unwrap_or(f64::NAN)), new)
        }));
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

/// What is added, in bold where that is more than it may be, and of which times.
fn cell(all: f64, graph: Option<f64>, kernel: f64) -> String {
    let added = all - graph.unwrap_or(0.0) - kernel;
    let said = format!(
        "{}{} ({:+.0}%)",
        if added < 0.0 { "-" } else { "+" },
        duration(added.abs()),
        100.0 * added / kernel
    );
    let said = if added > GOAL.0.max(GOAL.1 * kernel) { format!("**{said}**") } else { said };
    let of = graph.map_or(String::new(), |graph| format!(" of {}, graph {}", duration(all), duration(graph)));
    said + &of
}

fn time(line: &Line, peer: Peer) -> Option<f64> {
    let cell = line.cells.iter().find(|cell| cell.peer == peer)?;
    match cell.outcome {
        Outcome::Timed { best_ns, .. } => Some(best_ns),
        Outcome::Lacking { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn what_is_added_is_bold_where_it_is_too_much() {
        assert_eq!(cell(1500.0, None, 1000.0), "+500 ns (+50%)");
        assert_eq!(cell(900.0, None, 1000.0), "-100 ns (-10%)");
        assert_eq!(cell(8000.0, None, 1000.0), "**+7000 ns (+700%)**");
        assert_eq!(cell(1.09e6, Some(5e4), 1e6), "+40.0 us (+4%) of 1090.0 us, graph 50.0 us");
        assert_eq!(cell(1.11e6, Some(5e4), 1e6), "**+60.0 us (+6%)** of 1110.0 us, graph 50.0 us");
    }
}
