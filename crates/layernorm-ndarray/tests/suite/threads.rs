//! Threads show in no bit.

use super::*;

#[test]
fn tiles_over_threads() {
    for run in [one_thread(), Run::default()] {
        let large = [([4, 2050, 70], 1), ([2, 3, 90_000], 1), ([9, 600, 70], 1)];
        // Under Miri threads come early.
        for (shape, axis) in if cfg!(miri) { &[([2, 3, 1040], 1)][..] } else { &large } {
            let lies = [Lie::c(3), Lie::fortran(3), Lie::c(3), Lie::steps(&[1, -1, 1])];
            let case = Case { first_row: 5, ..Case::new(shape, &[*axis], lies) };
            case.check::<f32, f32>(run);
        }
    }
}
