//! Whether two libraries have computed the same thing, before anyone asks which was faster.

use crate::number::Number;
use crate::tensors::{Name, Tensors};

/// The output that is furthest from the reference's, where one is too far.
pub struct Difference {
    /// Which output.
    pub name: Name,
    /// How far, in multiples of the largest number in it; infinite for NaN or a wrong length.
    pub distance: f64,
}

/// Compares all outputs.
pub fn difference<T: Number>(
    reference: &Tensors<T>,
    given: &Tensors<T>,
    names: &[Name],
) -> Option<Difference> {
    let distances =
        names.iter().map(|&name| Difference { name, distance: distance(&reference[name], &given[name]) });
    let worst = distances.max_by(|a, b| a.distance.total_cmp(&b.distance))?;
    (worst.distance > T::NAME.tolerance()).then_some(worst)
}

fn distance<T: Number>(reference: &[T], given: &[T]) -> f64 {
    if reference.len() != given.len() {
        return f64::INFINITY;
    }
    let largest = reference.iter().fold(f64::MIN_POSITIVE, |max, number| max.max(number.widen().abs()));
    let apart = reference.iter().zip(given).map(|(a, b)| (a.widen() - b.widen()).abs() / largest);
    apart.fold(0.0, |max: f64, apart| if apart.is_nan() { f64::INFINITY } else { max.max(apart) })
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distances_are_relative_to_the_largest_and_nothing_hides() {
        assert_eq!(distance(&[1.0f32, -4.0], &[2.0, -4.0]), 0.25);
        assert_eq!(distance(&[1.0f32], &[]), f64::INFINITY);
        assert_eq!(distance(&[1.0f32, 1.0], &[f32::NAN, 1.0]), f64::INFINITY);
        assert_eq!(distance::<f32>(&[], &[]), 0.0);
    }
}
