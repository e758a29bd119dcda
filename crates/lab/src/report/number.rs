//! Numbers that may not be numbers, and numbers as words. JSON has no NaN and no infinity: they are written as null, and read back as NaN
//! here, so that a run that diverged still has a result.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(from = "Option<f64>")]
struct Number(f64);

impl From<Option<f64>> for Number {
    fn from(number: Option<f64>) -> Self {
        Self(number.unwrap_or(f64::NAN))
    }
}

/// One number.
pub fn number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Number::deserialize(from).map(|number| number.0)
}

/// Some numbers.
pub fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    Vec::<Number>::deserialize(from).map(|list| list.into_iter().map(|number| number.0).collect())
}

/// Pairs of numbers.
pub fn pairs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<[f64; 2]>, D::Error> {
    Vec::<[Number; 2]>::deserialize(from).map(plain)
}

/// Numbers by name.
pub fn map<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let map = BTreeMap::<String, Number>::deserialize(from)?;
    Ok(map.into_iter().map(|(name, number)| (name, number.0)).collect())
}

/// Pairs of numbers by name.
pub fn curves<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Vec<[f64; 2]>>, D::Error> {
    let map = BTreeMap::<String, Vec<[Number; 2]>>::deserialize(from)?;
    Ok(map.into_iter().map(|(name, curve)| (name, plain(curve))).collect())
}

/// A mean with its extremes: `1.23 (1.20 to 1.26)`.
pub fn spread(values: &[f64], digits: usize) -> String {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{mean:.digits$} ({low:.digits$} to {high:.digits$})")
}

fn plain(pairs: Vec<[Number; 2]>) -> Vec<[f64; 2]> {
    pairs.into_iter().map(|[x, y]| [x.0, y.0]).collect()
}

#[cfg(test)]
mod tests {
    use crate::report::model::Measured;

    #[test]
    fn numbers_keep_their_bits_and_nan_stays_nan() {
        let odd = [2.039_597_590_764_363_8, 1e-310, f64::MAX, f64::NAN, f64::INFINITY];
        let measured = Measured {
            curves: [("c".to_owned(), odd.map(|y| [0.1 + 0.2, y]).to_vec())].into(),
            values: odd.iter().enumerate().map(|(index, &value)| (index.to_string(), value)).collect(),
            ..Measured::default()
        };
        let read: Measured = serde_json::from_slice(&serde_json::to_vec(&measured).unwrap()).unwrap();
        for (index, value) in odd.iter().enumerate() {
            let same = |read: f64| read.to_bits() == value.to_bits() || (read.is_nan() && !value.is_finite());
            assert!(same(read.values[&index.to_string()]) && same(read.curves["c"][index][1]), "{value}");
        }
        assert_eq!(read.curves["c"][0][0].to_bits(), (0.1f64 + 0.2).to_bits());
    }
}
