//! Results as sentences.

use super::model::{BenchSummary, CheckSummary};

/// What the check found about errors.
pub fn check(check: &CheckSummary) -> String {
    let rows: u64 = check.errors.iter().map(|error| error.rows).sum();
    let nearest = check.errors.iter().map(|error| error.worst / error.bound).fold(0.0, f64::max);
    if check.errors.iter().all(|error| error.worst <= error.bound) {
        format!("On {} rows no error came nearer to its bound than {:.0}%.", thousands(rows), 100.0 * nearest)
    } else {
        let broken: Vec<String> = check
            .errors
            .iter()
            .filter(|error| error.worst > error.bound || error.worst.is_nan())
            .map(|error| format!("{} of {}", error.quantity, error.operator))
            .collect();
        format!("An error bound is broken: {}.", broken.join(", "))
    }
}

/// What the check found about bits.
pub fn bits(check: &CheckSummary) -> String {
    let cases: u64 = check.bits.iter().map(|case| case.cases).sum();
    match check.bits.iter().map(|case| case.differing).sum::<u64>() {
        0 => format!(
            "{} comparisons over instruction sets, batches, strides and threads: not one bit differs.",
            thousands(cases)
        ),
        differing => {
            format!("{} of {} comparisons differ in their bits.", thousands(differing), thousands(cases))
        }
    }
}

/// The largest data's forward and backward, beside a copy.
pub fn bench(bench: &BenchSummary) -> String {
    let largest = |direction: &str| {
        let rows = bench.rows.iter().filter(|row| row.operator == "layer_norm" && row.direction == direction);
        rows.filter(|row| row.place != "L2").map(|row| row.ratio).reduce(f64::max)
    };
    match (largest("forward"), largest("backward")) {
        (Some(forward), Some(backward)) => format!(
            "Out of a core's own cache, layer norm takes at most {forward:.2} times as long as copying its bytes; backward, {backward:.2} times."
        ),
        _ => "Timings beside a memory copy.".to_owned(),
    }
}

/// 1234567 as 1,234,567.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// Nanoseconds in a unit that suits them.
pub fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns if ns < 1.2e11 => format!("{:.0} s", ns / 1e9),
        ns if ns < 7.2e12 => format!("{:.0} minutes", ns / 6e10),
        ns => format!("{:.1} hours", ns / 3.6e12),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let text = [0, 12, 123, 1234, 1_234_567].map(thousands);
        assert_eq!(text, ["0", "12", "123", "1,234", "1,234,567"]);
    }

    #[test]
    fn durations_have_their_unit() {
        let text = [850.0, 1500.0, 2.5e6, 3e9, 3e11, 9e12].map(duration);
        assert_eq!(text, ["850 ns", "1.50 µs", "2.50 ms", "3 s", "5 minutes", "2.5 hours"]);
    }
}
