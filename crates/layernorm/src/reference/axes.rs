//! Sets of elements of an array of any rank: those that differ only along some of its axes.

use super::check_len;

/// The indices of each set, where a set is what differs along `axes` alone. Sets are in the order of the other
/// axes, and so are the elements of a set in that of theirs. An empty array has none.
///
/// Panics unless `name`, of `len` numbers, has this shape and the shape has these axes.
pub(super) fn sets(name: &str, len: usize, shape: &[usize], axes: &[usize]) -> Vec<Vec<usize>> {
    // Saturates, so that a shape too large to exist fits no slice.
    check_len(name, len, shape.iter().fold(1, |len, size| len.saturating_mul(*size)));
    for axis in axes {
        assert!(*axis < shape.len(), "axis {axis} of an array with {} axes", shape.len());
    }
    if len == 0 {
        return Vec::new();
    }
    let others: usize =
        (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).product();
    let mut sets = vec![Vec::with_capacity(len / others); others];
    for element in 0..len {
        sets[set_of(element, shape, axes)].push(element);
    }
    sets
}

/// Which set an element belongs to: its place on the axes that are not in `axes`, row-major.
fn set_of(element: usize, shape: &[usize], axes: &[usize]) -> usize {
    let (mut rest, mut set, mut stride) = (element, 0, 1);
    for (axis, size) in shape.iter().enumerate().rev() {
        if !axes.contains(&axis) {
            set += rest % size * stride;
            stride *= size;
        }
        rest /= size;
    }
    set
}

/// The numbers of one set.
pub(super) fn gather(values: &[f64], set: &[usize]) -> Vec<f64> {
    set.iter().map(|i| values[*i]).collect()
}

/// Puts the numbers of one set back to their places.
pub(super) fn scatter(into: &mut [f64], set: &[usize], values: impl IntoIterator<Item = f64>) {
    for (i, value) in set.iter().zip(values) {
        into[*i] = value;
    }
}
