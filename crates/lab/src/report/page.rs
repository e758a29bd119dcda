//! The page: verdicts first, then what they rest on. One HTML file that needs no other.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::machine::Machine;
use super::model::{
    BenchRow, BenchSummary, CheckSummary, Figure, Finding, ImageGrid, Matrix, Report, StudyOutcome, Table,
    Verdict, WorstError,
};
use super::{chart, headline};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(report: &Report) -> String {
    let title = "Layer normalization, measured";
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.lead { "Is it right, is it fast, and does it do what the papers say? Answers from one run on "
                        (report.machine.cpu) "." }
                }
                main {
                    (verdicts(report))
                    @for study in &report.studies { (self::study(study)) }
                    @if let Some(check) = &report.check { (self::check(check)) }
                    @if let Some(bench) = &report.bench { (self::bench(bench)) }
                }
                footer { (provenance(&report.machine, &report.command)) }
            }
        }
    };
    page.into_string()
}

/// The answers in words, each with a way to its reasons.
fn verdicts(report: &Report) -> Markup {
    let findings = || report.studies.iter().flat_map(|study| &study.findings);
    html! {
        section.verdicts aria-label="Verdicts" {
            @if findings().next().is_some() { p.counts { @for verdict in VERDICTS {
                @let count = findings().filter(|finding| finding.verdict == verdict).count();
                @if count > 0 { span { b { (count) } " " (chip(verdict)) } }
            } } }
            div.overview {
                @for study in &report.studies {
                    article.card {
                        h3 { a href={ "#" (study.name) } { (study.title) } }
                        ul { @for (index, finding) in study.findings.iter().enumerate() {
                            li class=(class(finding.verdict)) {
                                a href={ "#" (anchor(study, index)) } title=(headline::effect(&finding.effect)) { (finding.says) }
                                span.hidden { " (" (finding.verdict.words()) ")" }
                                " " span.fine { (finding.claim) }
                            }
                        } }
                    }
                }
                @if let Some(check) = &report.check {
                    article.card {
                        h3 { a href="#check" { "Is it right?" } }
                        ul {
                            li class=(if check.passed { "yes" } else { "no" }) { a href="#check" { (headline::check(check)) } }
                            li class=(if check.passed { "yes" } else { "no" }) { a href="#check" { (headline::bits(check)) } }
                        }
                    }
                }
                @if let Some(bench) = &report.bench {
                    article.card {
                        h3 { a href="#bench" { "Is it fast?" } }
                        ul { li.measured { a href="#bench" { (headline::bench(bench)) } } }
                    }
                }
            }
        }
    }
}

const VERDICTS: [Verdict; 3] = [Verdict::Reproduced, Verdict::NotReproduced, Verdict::Inconclusive];

/// Where a finding stands on the page.
fn anchor(study: &StudyOutcome, index: usize) -> String {
    format!("{}-{}", study.name, index + 1)
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reproduced => "yes",
        Verdict::NotReproduced => "no",
        Verdict::Inconclusive => "open",
    }
}

fn chip(verdict: Verdict) -> Markup {
    html! { span class={ "chip " (class(verdict)) } { (verdict.words()) } }
}

fn study(study: &StudyOutcome) -> Markup {
    html! {
        section id=(study.name) {
            h2 { (study.title) }
            p.lead { (study.question) }
            div.findings { @for (index, finding) in study.findings.iter().enumerate() {
                (self::finding(&anchor(study, index), finding))
            } }
            div.figures { @for figure in &study.figures { (self::figure(figure)) } }
            ul.notes { @for note in &study.notes { li { (note) } } }
            (settings(study))
            (again(&study.command, study.seconds, " of work over all arms and seeds"))
        }
    }
}

fn finding(anchor: &str, finding: &Finding) -> Markup {
    html! {
        article.finding id=(anchor) {
            header { (chip(finding.verdict)) span.fine { "claim " (finding.claim) ", " (finding.source) } }
            h3 { (finding.says) }
            p { b { (headline::effect(&finding.effect)) } }
            @if finding.effect.seeds.iter().any(|seed| *seed != 0.0) { (chart::effect(&finding.effect)) }
            p.fine { b { "Effect. " } (sentence(&finding.measure)) }
            p.fine { b { "Rule, fixed before the run. " } (finding.rule) }
        }
    }
}

fn figure(figure: &Figure) -> Markup {
    match figure {
        Figure::Lines(lines) => html! {
            figure { h3 { (lines.title) } (chart::lines(lines)) figcaption { (lines.caption) } }
        },
        Figure::Table(table) => html! {
            figure class=[(table.columns.len() > 3).then_some("wide")] { h3 { (table.title) } (self::table(table)) figcaption { (table.caption) } }
        },
        Figure::Matrix(matrix) => html! {
            figure class=[(matrix.columns.len() > 4).then_some("wide")] { h3 { (matrix.title) } (self::matrix(matrix)) figcaption { (matrix.caption) } }
        },
        Figure::Images(images) => html! {
            figure.wide { h3 { (images.title) } (grid(images)) figcaption { (images.caption) } }
        },
    }
}

fn table(table: &Table) -> Markup {
    html! {
        div.scroll { table {
            thead { tr { @for name in &table.columns { th scope="col" { (name) } } } }
            tbody { @for row in &table.rows { tr { @for cell in row { td { (cell) } } } } }
        } }
    }
}

fn matrix(matrix: &Matrix) -> Markup {
    html! {
        div.scroll { table.matrix {
            thead { tr { td {} @for name in &matrix.columns { th scope="col" { (name) } } } }
            tbody { @for row in &matrix.rows { tr {
                th scope="row" { (row.label) }
                @for cell in &row.cells { td class=(shade(cell.shade)) style=(strength(cell.shade)) { (cell.text) } }
            } } }
        } }
    }
}

/// The class of a cell's colour.
fn shade(shade: f64) -> &'static str {
    match shade {
        shade if shade.is_nan() => "none",
        shade if shade < 0.0 => "warm",
        _ => "cool",
    }
}

/// How much of the colour; the words on it stay readable at its fullest.
fn strength(shade: f64) -> String {
    let percent = if shade.is_nan() { 0.0 } else { 100.0 * shade.abs().min(1.0) };
    format!("--much:{percent:.0}%")
}

fn grid(grid: &ImageGrid) -> Markup {
    html! {
        div.scroll { table.images {
            @if !grid.columns.is_empty() {
                thead { tr { td {} @for name in &grid.columns { th scope="col" { (name) } } } }
            }
            tbody { @for row in &grid.rows { tr {
                @if !row.label.is_empty() { th scope="row" { (row.label) } }
                @for image in &row.images {
                    td {
                        img class=[image.ink.then_some("ink")] alt=(image.alt) style=(format!("aspect-ratio:{}/{};width:{}rem", image.width, image.height, width(image.width, image.height)))
                            src={ "data:image/png;base64," (image.png) };
                        @if !image.note.is_empty() { span.fine { (image.note) } }
                    }
                }
            } } }
        } }
    }
}

/// The width in rem: a picture alone gets six; strips and sheets of several get 2.2 for each 28 pixels.
fn width(width: u32, height: u32) -> f64 {
    if width <= height { 6.0 } else { f64::from(width) * 2.2 / 28.0 }
}

fn settings(study: &StudyOutcome) -> Markup {
    html! {
        dl.settings {
            dt { "budget" } dd { (study.settings.budget) }
            dt { "seeds" } dd { (study.settings.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")) }
            dt { "measured" } dd { (study.metric) }
            @for (name, value) in &study.settings.details { dt { (name) } dd { (value) } }
            dt { "machine" } dd { (machine(&study.machine)) }
        }
    }
}

fn check(check: &CheckSummary) -> Markup {
    html! {
        section #check {
            h2 { "Is it right?" }
            p.lead { (headline::check(check)) " " (headline::bits(check)) }
            p { "Every operator is run on rows of many kinds and compared with an exact computation. Errors are in u, half \
                the distance from 1 to the next number, times the scale that the bound is stated in." }
            figure.wide {
                h3 { "Worst errors" }
                div.scroll { table {
                    thead { tr { @for name in ["operator", "output", "type", "instruction sets", "worst row", "worst, u", "allowed, u", ""] {
                        th scope="col" { (name) }
                    } } }
                    tbody { @for (error, levels) in by_level(&check.errors) { tr class=[(error.worst > error.bound || error.worst.is_nan()).then_some("broken")] {
                        td { (error.operator) } td { (error.quantity) } td { (error.dtype) } td { (levels) } td { (error.at) }
                        td { (format!("{:.2}", error.worst)) } td { (format!("{:.1}", error.bound)) }
                        td.bar { (bar(error.worst / error.bound, None)) }
                    } } }
                } }
                figcaption { "The bar is the worst error as a part of what is allowed." }
            }
            figure.wide {
                h3 { "The same bits, whatever is varied" }
                div.scroll { table {
                    thead { tr { @for name in ["varied", "comparisons", "that differ"] { th scope="col" { (name) } } } }
                    tbody { @for case in &check.bits { tr class=[(case.differing > 0).then_some("broken")] {
                        td { (case.what) } td { (headline::thousands(case.cases)) } td { (case.differing) }
                    } } }
                } }
            }
            dl.settings { @for level in &check.levels { dt { (level.name) } dd { (level.note) } } }
            ul.notes { @for note in &check.notes { li { (note) } } }
            (again(&check.command, check.seconds, ""))
        }
    }
}

/// Entries that differ in nothing but the level, as one with the levels' names.
fn by_level(errors: &[WorstError]) -> Vec<(&WorstError, String)> {
    let mut rows: Vec<(&WorstError, String)> = Vec::new();
    for error in errors {
        let same = |row: &&mut (&WorstError, String)| {
            let levelless = |e: &WorstError| WorstError { level: String::new(), ..e.clone() };
            levelless(row.0) == levelless(error)
        };
        match rows.iter_mut().find(same) {
            Some(row) => row.1 += &format!(", {}", error.level),
            None => rows.push((error, error.level.clone())),
        }
    }
    rows
}

fn bench(bench: &BenchSummary) -> Markup {
    // A tiny call may cost many copies; its bar ends at four, so that the others stay readable.
    let most = bench.rows.iter().map(|row| row.ratio).fold(1.0, f64::max).min(4.0);
    html! {
        section #bench {
            h2 { "Is it fast?" }
            p.lead { (headline::bench(bench)) }
            p { "The floor is to read every input once and to write every output once. How near a kernel comes is its \
                time over that of the best memory copy of the same bytes, in the same run: 1 is as fast as copying." }
            figure.wide {
                div.scroll { table {
                    thead { tr { @for name in ["operator", "type", "rows × features", "data in", "threads", "time a call", "GB/s", "× copy", ""] {
                        th scope="col" { (name) }
                    } } }
                    tbody { @for row in &bench.rows { (bench_row(row, most)) } }
                } }
                figcaption { "The bar is the time over a copy's; the line across it is the copy. Instruction set: " (bench.level) "." }
            }
            ul.notes { @for note in &bench.notes { li { (note) } } }
            (again(&bench.command, bench.seconds, ""))
        }
    }
}

fn bench_row(row: &BenchRow, most: f64) -> Markup {
    html! { tr {
        td { (row.operator) " " (row.direction) }
        td { (row.dtype) }
        td { (row.rows) " × " (row.features) }
        td { (row.place) } td { (row.threads) }
        td { (headline::duration(row.ns)) } td { (format!("{:.1}", row.gbps)) }
        td { b { (format!("{:.2}", row.ratio)) } }
        td.bar { (bar(row.ratio / most, Some(1.0 / most))) }
    } }
}

/// A bar that fills a part of its cell, with a line at `mark`.
fn bar(part: f64, mark: Option<f64>) -> Markup {
    let percent =
        |part: f64| format!("{:.1}%", 100.0 * if part.is_nan() { 1.0 } else { part.clamp(0.0, 1.0) });
    html! {
        div {
            span style={ "width:" (percent(part)) } {}
            @if let Some(mark) = mark { i style={ "left:" (percent(mark)) } {} }
        }
    }
}

fn again(command: &str, seconds: f64, of: &str) -> Markup {
    let took = headline::duration(seconds * 1e9);
    html! {
        p.again { "Again: " code { (command) } " " span.fine { "(" (took) (of) ")" } }
    }
}

fn provenance(machine: &Machine, command: &str) -> Markup {
    html! {
        p { (self::machine(machine)) }
        p.again { "The whole page again: " code { (command) } }
    }
}

fn machine(machine: &Machine) -> String {
    let threads =
        if machine.threads == 1 { "one thread".to_owned() } else { format!("{} threads", machine.threads) };
    let commit =
        if machine.commit.is_empty() { String::new() } else { format!(" at commit {}", machine.commit) };
    let libraries: String = machine.libraries.iter().map(|library| format!(", {library}")).collect();
    format!(
        "{}, {threads}, {}; layernorm {}{commit}{libraries}",
        machine.cpu, machine.system, machine.version
    )
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    first + letters.as_str() + "."
}
