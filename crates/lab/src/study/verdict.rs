//! Rules: what turns the effects of several seeds into a verdict.
//!
//! A rule is stated in the study's card, so before the run; its words and its arithmetic are the same value, and no
//! study has a way to judge otherwise.

use crate::report::model::{Effect, Verdict};

/// When a claim counts as reproduced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// The effect is larger than this: as a 95% interval of its mean over the seeds, wholly above is yes, wholly
    /// below is no, anything else is inconclusive.
    Exceeds(f64),
    /// The effect lies within this distance of 0: by the same interval, wholly inside is yes, wholly outside is no.
    Within(f64),
    /// The effect lies between these two: by the same interval, wholly inside is yes, wholly outside is no.
    Between(f64, f64),
    /// The effect counts violations: none in any seed is yes, a single one is no.
    Never,
}

impl Rule {
    /// The rule as a sentence.
    pub fn words(self, unit: &str) -> String {
        match self {
            Self::Exceeds(least) => format!(
                "Reproduced if the 95% interval over the seeds (Student's t) lies wholly above {least} {unit}, not \
                 reproduced if wholly below, else inconclusive."
            ),
            Self::Within(margin) => format!(
                "Reproduced if the 95% interval over the seeds (Student's t) lies wholly within ±{margin} {unit}, not \
                 reproduced if wholly outside, else inconclusive."
            ),
            Self::Between(low, high) => format!(
                "Reproduced if the 95% interval over the seeds (Student's t) lies wholly between {low} and {high} \
                 {unit}, not reproduced if wholly outside, else inconclusive."
            ),
            Self::Never => {
                format!("Reproduced if there are no {unit} in any seed, not reproduced at the first one.")
            }
        }
    }

    /// The verdict on one effect a seed.
    pub fn judge(self, seeds: Vec<f64>, unit: &str) -> (Effect, Verdict) {
        let (mean, interval) = interval(&seeds);
        let (lines, verdict) = match self {
            Self::Exceeds(least) => (vec![least], side(interval, least, f64::INFINITY)),
            Self::Within(margin) => (vec![-margin, margin], side(interval, -margin, margin)),
            Self::Between(low, high) => (vec![low, high], side(interval, low, high)),
            Self::Never => (vec![0.0], never(&seeds)),
        };
        (Effect { mean, interval, seeds, lines, unit: unit.to_owned() }, verdict)
    }
}

/// Where an interval lies with respect to low..high.
fn side(interval: Option<[f64; 2]>, low: f64, high: f64) -> Verdict {
    match interval {
        Some([from, to]) if from > low && to < high => Verdict::Reproduced,
        Some([from, to]) if to < low || from > high => Verdict::NotReproduced,
        _ => Verdict::Inconclusive,
    }
}

fn never(seeds: &[f64]) -> Verdict {
    if seeds.is_empty() || seeds.iter().any(|count| count.is_nan()) {
        Verdict::Inconclusive
    } else if seeds.iter().all(|&count| count == 0.0) {
        Verdict::Reproduced
    } else {
        Verdict::NotReproduced
    }
}

/// The mean and, from two finite values on, its two-sided 95% interval by Student's t.
fn interval(values: &[f64]) -> (f64, Option<[f64; 2]>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return (mean, None);
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = t95(values.len() - 1) * (variance / n).sqrt();
    (mean, half.is_finite().then_some([mean - half, mean + half]))
}

/// The 97.5% point of Student's t; beyond 30 degrees of freedom the one for 30, which is on the safe side.
fn t95(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
        2.045, 2.042,
    ];
    TABLE[freedom.clamp(1, TABLE.len()) - 1]
}

/// The verdict on several claims together: as good as the worst of them.
pub fn weakest(verdicts: impl IntoIterator<Item = Verdict>) -> Verdict {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::NotReproduced => 0,
        Verdict::Inconclusive => 1,
        Verdict::Reproduced => 2,
    };
    verdicts.into_iter().min_by_key(rank).unwrap_or(Verdict::Inconclusive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(rule: Rule, seeds: &[f64]) -> Verdict {
        rule.judge(seeds.to_vec(), "units").1
    }

    #[test]
    fn the_interval_is_students() {
        // R: t.test(c(1, 2, 3, 4)) gives 0.445739743 to 4.554260257.
        let (mean, interval) = interval(&[1.0, 2.0, 3.0, 4.0]);
        let [low, high] = interval.unwrap();
        assert_eq!(mean, 2.5);
        assert!((low - 0.445_740).abs() < 2e-3 && (high - 4.554_260).abs() < 2e-3, "{low} to {high}");
    }

    #[test]
    fn exceeds_has_three_answers() {
        let rule = Rule::Exceeds(1.0);
        assert_eq!(verdict(rule, &[2.0, 2.1, 1.9]), Verdict::Reproduced);
        assert_eq!(verdict(rule, &[0.2, 0.1, 0.3]), Verdict::NotReproduced);
        assert_eq!(verdict(rule, &[0.5, 1.0, 1.6]), Verdict::Inconclusive);
    }

    #[test]
    fn within_has_three_answers() {
        let rule = Rule::Within(1.0);
        assert_eq!(verdict(rule, &[0.1, -0.1, 0.0]), Verdict::Reproduced);
        assert_eq!(verdict(rule, &[-2.0, -2.1, -1.9]), Verdict::NotReproduced);
        assert_eq!(verdict(rule, &[0.9, 1.0, 1.1]), Verdict::Inconclusive);
    }

    #[test]
    fn between_has_three_answers() {
        let rule = Rule::Between(1.0, 2.0);
        assert_eq!(verdict(rule, &[1.4, 1.5, 1.6]), Verdict::Reproduced);
        assert_eq!(verdict(rule, &[0.1, 0.2, 0.0]), Verdict::NotReproduced);
        assert_eq!(verdict(rule, &[2.4, 2.5, 2.6]), Verdict::NotReproduced);
        assert_eq!(verdict(rule, &[1.9, 2.0, 2.1]), Verdict::Inconclusive);
    }

    #[test]
    fn never_means_never() {
        assert_eq!(verdict(Rule::Never, &[0.0, 0.0]), Verdict::Reproduced);
        assert_eq!(verdict(Rule::Never, &[0.0, 1.0]), Verdict::NotReproduced);
        assert_eq!(verdict(Rule::Never, &[]), Verdict::Inconclusive);
    }

    #[test]
    fn one_seed_or_nan_proves_nothing() {
        assert_eq!(verdict(Rule::Exceeds(0.0), &[5.0]), Verdict::Inconclusive);
        assert_eq!(verdict(Rule::Exceeds(0.0), &[5.0, f64::NAN]), Verdict::Inconclusive);
        assert_eq!(verdict(Rule::Never, &[0.0, f64::NAN]), Verdict::Inconclusive);
    }

    #[test]
    fn together_they_are_as_good_as_the_worst() {
        use Verdict::{Inconclusive, NotReproduced, Reproduced};
        assert_eq!(weakest([Reproduced, Reproduced]), Reproduced);
        assert_eq!(weakest([Reproduced, Inconclusive]), Inconclusive);
        assert_eq!(weakest([Inconclusive, NotReproduced, Reproduced]), NotReproduced);
    }
}
