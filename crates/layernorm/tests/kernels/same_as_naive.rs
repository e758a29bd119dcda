//! Every bit of every output, at every level, is that of the naive implementation of `docs/numerics.md`.

use crate::case::{Case, Many, Norm, assert_same};
use crate::level::{Effort, at, levels};
use crate::naive;
use crate::number::{Number, Stored};
use crate::random::Random;

for_all!(every_short_row, around_blocks, every_number_of_rows, chunks_of_rows);

#[track_caller]
fn check<T: Stored>(case: &Case<T>) {
    let expected = naive::run(case);
    for level in levels() {
        assert_same(&case.run(at(level)), &expected, || {
            let Case { norm, n, eps, first_row, .. } = case;
            let many = [&case.weight, &case.bias].map(|of| of.as_ref().map(Vec::len));
            format!(
                "{norm:?} {} {level}, {} x {n}, eps {eps}, {many:?}, from {first_row}",
                T::NAME,
                case.rows()
            )
        });
    }
}

/// All forms of the parameters, and rows of every kind.
fn every_short_row<T: Stored>() {
    let mut random = Random::new(1);
    let (step, repeats) = Effort::of((40, 1), (3, 1), (1, 3));
    for n in (1..=70).step_by(step) {
        for norm in Norm::BOTH {
            for (weight, bias) in
                Many::ALL.into_iter().flat_map(|weight| Many::ALL.map(|bias| (weight, bias)))
            {
                if Effort::get() == Effort::Tiny && weight != bias {
                    continue;
                }
                for _ in 0..repeats {
                    let rows = 1 + random.below(Effort::of(2, 8, 24));
                    let case = Case::<T>::random(norm, rows, n, &mut random);
                    check(&case.with_params([weight, bias], &mut random));
                }
            }
        }
    }
}

/// Lengths at both sides of whole blocks, for odd and even numbers of blocks.
fn around_blocks<T: Stored>() {
    let mut random = Random::new(2);
    let blocks: &[usize] =
        Effort::of(&[1], &[1, 2, 3, 5, 8], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 17, 33]);
    let beside: &[isize] = Effort::of(&[9], &[-1, 0, 1], &[-33, -16, -1, 0, 1, 7, 8, 16, 31, 32, 100]);
    for blocks in blocks {
        for beside in beside {
            let n = (blocks * <T::Acc as Number>::B).checked_add_signed(*beside).unwrap();
            for norm in Norm::BOTH.into_iter().skip(Effort::of(1, 0, 0)) {
                let rows = 1 + random.below(Effort::of(1, 3, 6));
                check(&Case::<T>::random(norm, rows, n, &mut random));
            }
        }
    }
}

fn every_number_of_rows<T: Stored>() {
    let mut random = Random::new(3);
    for rows in (Effort::of(9, 1, 1)..=40).step_by(Effort::of(40, 3, 1)) {
        for norm in Norm::BOTH {
            for first_row in Effort::of(vec![7], vec![0, 1, 7, 8, 12, 40], vec![0, 1, 7, 8, 12, 40]) {
                let n = 1 + random.below(20);
                check(&Case { first_row, ..Case::<T>::random(norm, rows, n, &mut random) });
            }
        }
    }
}

/// Numbers of chunks at both sides of powers of two.
fn chunks_of_rows<T: Stored>() {
    let mut random = Random::new(4);
    let powers: &[usize] = Effort::of(&[8], &[64, 128], &[64, 128, 256, 512, 1024]);
    for power in powers {
        for rows in
            [power - 1, *power, power + 1, power + 8, power + 9].into_iter().step_by(Effort::of(4, 1, 1))
        {
            for first_row in [3, 0, 8 * 5, 8 * 64 - 1].into_iter().step_by(Effort::of(4, 1, 1)) {
                let norm = random.pick(&Norm::BOTH);
                let n = 1 + random.below(Effort::of(3, 5, 9));
                check(&Case { first_row, ..Case::<T>::random(norm, rows, n, &mut random) });
            }
        }
    }
}
