//! What came of a run.

use crate::{Case, Float, Number, Values, same_bits};
use std::collections::BTreeMap;
use std::fmt;

/// What came of a run of all cases.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Cases.
    pub cases: usize,
    /// Outputs that have the bits of the kernels.
    pub same: usize,
    /// What has not, in words.
    pub differences: Vec<String>,
    /// What the framework lacks, as "operator: reason" or (of all operators) "output: reason", and in how many cases.
    pub unsupported: BTreeMap<String, usize>,
}

impl Report {
    /// Nothing differs, and exactly this is lacking: in so many cases each. So what a framework lacks cannot grow unnoticed.
    ///
    /// # Panics
    /// If not, with what differs, or with the list as it should be.
    #[track_caller]
    pub fn assert(&self, unsupported: &[(&str, usize)]) {
        assert!(self.differences.is_empty() && self.same > 0, "{self}");
        let expected = unsupported.iter().map(|(what, cases)| ((*what).to_string(), *cases)).collect();
        assert!(self.unsupported == expected, "what is unsupported is not what was expected; it is\n{self}");
    }

    pub(crate) fn lacks(&mut self, what: impl fmt::Display, reason: &str) {
        *self.unsupported.entry(format!("{what}: {reason}")).or_default() += 1;
    }

    pub(crate) fn differs<E: Number>(&mut self, case: &Case<E>, what: impl fmt::Display) {
        self.differences.push(format!("{case}: {what}"));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cases, same, differences, unsupported } = self;
        writeln!(f, "{cases} cases: {same} outputs the same, {} not", differences.len())?;
        for (what, cases) in unsupported {
            writeln!(f, "        ({what:?}, {cases}),")?;
        }
        const SHOWN: usize = 30;
        for difference in differences.iter().take(SHOWN) {
            writeln!(f, "    {difference}")?;
        }
        match differences.len().checked_sub(SHOWN) {
            Some(more @ 1..) => writeln!(f, "    and {more} more"),
            _ => Ok(()),
        }
    }
}

/// Where `got` is not what the kernels give, if anywhere.
pub(crate) fn difference<E: Number>(
    got: &Values<E>,
    wanted: &Values<E>,
    added_to_zeros: bool,
) -> Option<String> {
    match (got, wanted) {
        (Values::Own(got), Values::Own(wanted)) => first(got, wanted.iter().copied(), added_to_zeros),
        (Values::Wide(got), Values::Wide(wanted)) => first(got, wanted.iter().copied(), added_to_zeros),
        (Values::Own(got), Values::Wide(sums)) => {
            first(got, sums.iter().map(|sum| E::rounded(*sum)), added_to_zeros)
        }
        (Values::Wide(_), Values::Own(_)) => {
            Some("it has the type of sums, not that of elements".to_string())
        }
    }
}

fn first<T: Float>(
    got: &[T],
    wanted: impl ExactSizeIterator<Item = T>,
    added_to_zeros: bool,
) -> Option<String> {
    if got.len() != wanted.len() {
        return Some(format!("{} numbers where {} are expected", got.len(), wanted.len()));
    }
    // Of all numbers, 0 + changes -0 alone.
    let wanted = wanted.map(|wanted| if added_to_zeros { T::nearest(wanted.exact() + 0.0) } else { wanted });
    let mut pairs = got.iter().copied().zip(wanted).enumerate();
    let (index, (got, wanted)) = pairs.find(|(_, (got, wanted))| !same_bits(*got, *wanted))?;
    Some(format!("{:e} where {:e} is expected, at {index}", got.exact(), wanted.exact()))
}
