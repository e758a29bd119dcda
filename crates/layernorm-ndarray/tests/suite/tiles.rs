//! Calls of more than one tile or block.

use super::*;

const SHAPES: [([usize; 3], usize); 4] =
    [([4, 2050, 17], 1), ([2, 3, 1100], 1), ([2, 5, 5000], 0), ([3, 600, 70], 1)];

#[test]
#[cfg_attr(miri, ignore = "hours; threads.rs has tiles that Miri sees")]
fn totals_of_tiles_join_as_those_of_one_call() {
    for (shape, axis) in SHAPES {
        let lies = [Lie::c(3), Lie::fortran(3), Lie::order(&[1, 2, 0]), Lie::steps(&[1, -1, 1])];
        for (first_row, accumulate) in [(0, false), (5, true), (40, false), (2048, true)] {
            let case = Case { first_row, accumulate, ..Case::new(&shape, &[axis], lies.clone()) };
            case.check::<f32, f32>(one_thread());
        }
        let shared = Case {
            weight: Some(false),
            bias: Some(false),
            first_row: 24,
            ..Case::new(&shape, &[axis], lies)
        };
        shared.check::<f64, f64>(one_thread());
        shared.check::<f16, f32>(one_thread());
    }
}

/// Rows that are dense, but evenly spaced only in blocks: with heads and time swapped, say.
#[test]
fn blocks() {
    for lie in [Lie::order(&[1, 0, 2]), Lie::steps(&[-1, 1, 1]), Lie::steps(&[3, 2, 1])] {
        for shape in [[3, 50, 33], [40, 2, 600], [70, 4, 10]] {
            for other in [Lie::c(3), lie.clone()] {
                let case = Case::new(&shape, &[2], [lie.clone(), other.clone(), other, lie.clone()]);
                Case { first_row: 3, ..case }.check::<f32, f32>(one_thread());
            }
        }
    }
}

/// The index of the last row may be the largest there is, and no larger.
#[test]
fn the_last_row_index() {
    let lies = [(); 4].map(|()| Lie::fortran(2));
    let case = Case { first_row: usize::MAX - 39, ..Case::new(&[40, 2050], &[1], lies) };
    case.check::<f32, f32>(one_thread());
}
