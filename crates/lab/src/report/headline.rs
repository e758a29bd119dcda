//! Results as sentences.

use super::model::{BenchSummary, CheckSummary, Effect};

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

/// An effect with its interval.
pub fn effect(effect: &Effect) -> String {
    let Effect { mean, interval, seeds, unit, .. } = effect;
    let seeds = if seeds.len() == 1 { "one seed".to_owned() } else { format!("{} seeds", seeds.len()) };
    match interval {
        Some([low, high]) if low != high => {
            format!("{} {unit} (95% interval {} to {}, {seeds})", short(*mean), short(*low), short(*high))
        }
        _ => format!("{} {unit} ({seeds})", short(*mean)),
    }
}

/// Three significant digits.
fn short(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "no number".to_owned();
    }
    if size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{value:.1e}").replace('-', "−");
    }
    let digits = if size == 0.0 { 0.0 } else { (2.0 - size.log10().floor()).max(0.0) };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 6")]
    let digits = digits as usize;
    format!("{value:.digits$}").replace('-', "−")
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
    #[test]
    fn effects_are_told_with_three_digits() {
        let effect = |mean, interval| Effect {
            mean,
            interval,
            seeds: vec![1.0, 2.4],
            lines: vec![1.1],
            unit: "times".to_owned(),
        };
        let told = |mean, interval| super::effect(&effect(mean, interval));
        assert_eq!(told(1.6962, Some([-0.0213, 3.4])), "1.70 times (95% interval −0.0213 to 3.40, 2 seeds)");
        assert_eq!(told(-12_345.0, None), "−12345 times (2 seeds)");
        assert_eq!(told(2.5e-8, None), "2.5e−8 times (2 seeds)");
        assert_eq!(told(f64::NAN, None), "no number times (2 seeds)");
    }
}
