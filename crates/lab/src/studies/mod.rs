//! The studies, one file each.
//!
//! To add one: write its file, with a [`Card`](crate::study::Card) on top, and add its line to [`ALL`].
//!
//! A card names the claims, each with its rule and with the effect that one seed's numbers have on it. A plan makes
//! a unit for each arm and seed: `steps(count, |step, measured| ...)`, which fills in `Measured` by `set`, `add` and
//! `point`, or for long ones a type that can be saved. Random numbers come from `Rng::new(seed,
//! Purpose::Study(CARD.name), index)`, one index for each use. At the end figures are made from `Results`: charts by
//! `results.series`, tables by `results.spread`, matrices of `Cell`s.

mod axis;
mod batch_size;
mod cost;
mod do_nothing;
mod drift;
mod geometry;
mod invariance;
mod mnist;
mod neighbours;
mod not_for;
mod placement;
mod rates;

use crate::study::{Error, Study};

/// All studies, in the order of the report.
pub static ALL: &[&dyn Study] = &[
    &neighbours::Neighbours,
    &invariance::Invariance,
    &geometry::Geometry,
    &do_nothing::DoNothing,
    &drift::Drift,
    &placement::PlacementStudy,
    &rates::Rates,
    &mnist::Mnist,
    &batch_size::BatchSize,
    &axis::AxisStudy,
    &not_for::NotFor,
    &cost::Cost,
];

/// The study of that name.
///
/// # Errors
/// [`Error::Unknown`], with the names that there are.
pub fn find(name: &str) -> Result<&'static dyn Study, Error> {
    let found = ALL.iter().find(|study| study.card().name == name);
    found.copied().ok_or_else(|| Error::Unknown {
        asked: name.to_owned(),
        known: ALL.iter().map(|study| study.card().name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    #[test]
    fn names_are_unique_and_found() {
        for study in ALL {
            let name = study.card().name;
            assert_eq!(ALL.iter().filter(|other| other.card().name == name).count(), 1, "{name}");
            assert_eq!(find(name).unwrap().card().name, name);
        }
        assert!(matches!(find("nothing"), Err(Error::Unknown { .. })));
    }

    #[test]
    fn no_two_studies_draw_the_same_numbers() {
        let mut numbers: Vec<u32> =
            ALL.iter().map(|study| Purpose::Study(study.card().name).number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ALL.len());
    }

    #[test]
    fn every_study_says_what_it_will_judge() {
        for study in ALL {
            let card = study.card();
            assert!(!card.claims.is_empty() && !card.arms.is_empty(), "{}", card.name);
            for (index, arm) in card.arms.iter().enumerate() {
                let key = arm.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                assert!(key, "{}: {} is part of a file name", card.name, arm.name);
                assert!(card.arms[..index].iter().all(|other| other.name != arm.name), "{}", arm.name);
            }
        }
    }
}
