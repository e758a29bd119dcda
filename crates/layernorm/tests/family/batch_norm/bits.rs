//! Every bit is that of the document, however a call runs.

use super::naive;
use super::problem::{Problem, Random, SHAPES, Which, Wide, assert_bits, assert_same, ways};

fn random_mask(problem: &mut Problem<impl Wide>, random: &mut Random) {
    let positions = problem.positions;
    problem.which = match random.below(3) {
        0 => Which::All,
        1 => Which::Lengths((0..problem.samples).map(|_| random.below(positions + 1)).collect()),
        _ => Which::Mask((0..problem.samples * positions).map(|_| random.below(3) > 0).collect()),
    };
    // Two at least.
    if problem.valid().iter().filter(|valid| **valid).count() < 2 {
        problem.which = Which::All;
    }
}

fn bits<T: Wide>() {
    let mut random = Random(1);
    for shape in SHAPES.iter().copied() {
        for last in [false, true] {
            if last && shape[2] > 5000 {
                continue;
            }
            let mut problem = Problem::<T>::new(last, shape, &mut random);
            problem.first = [0, 3, 8, 1000][random.below(4)];
            for x in &mut problem.x {
                *x = T::of(x.wide() + 10.0);
            }
            random_mask(&mut problem, &mut random);
            // A channel of one number said many times has variance 0: that needs an eps.
            problem.eps = problem.eps.max(1e-6);
            let expected = naive::run(&problem);
            for (way, how) in ways() {
                let what = format!("{shape:?}, last {last}, {:?}, {way}", problem.which);
                assert_same(&what, &problem.run(how), &expected);
            }
        }
    }
}

#[test]
fn bits_of_f32_are_those_of_the_document() {
    bits::<f32>();
}

#[test]
fn bits_of_f64_are_those_of_the_document() {
    bits::<f64>();
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn lengths_are_a_mask() {
    let mut random = Random(2);
    for last in [false, true] {
        let mut problem = Problem::<f32>::new(last, [7, 5, 40], &mut random);
        let lengths: Vec<usize> = (0..7).map(|_| random.below(41)).collect();
        let mask = (0..7 * 40).map(|i| i % 40 < lengths[i / 40]).collect();
        problem.which = Which::Lengths(lengths);
        let (_, how) = ways().pop().unwrap();
        let left = problem.run(how);
        problem.which = Which::Mask(mask);
        assert_same("lengths", &left, &problem.run(how));
    }
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn halves_are_the_same_however_they_run() {
    fn check<E: super::problem::Kind>() {
        let mut random = Random(3);
        for shape in SHAPES.iter().copied() {
            for last in [false, true] {
                let problem = Problem::<E>::new(last, shape, &mut random);
                let mut expected = None;
                for (way, how) in ways() {
                    let got = problem.run(how);
                    let expected = expected.get_or_insert_with(|| got.clone());
                    let what = format!("{shape:?}, last {last}, {way}");
                    assert_same(&what, &got, expected);
                }
            }
        }
    }
    check::<half::f16>();
    check::<half::bf16>();
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn of_one_position_the_sums_of_numbers_are_those_of_channels_last() {
    let mut random = Random(4);
    let first = Problem::<f32>::new(false, [37, 21, 1], &mut random);
    let last = Problem { last: true, ..first.clone() };
    let (_, how) = ways().pop().unwrap();
    let (first, last) = (first.run(how), last.run(how));
    assert_bits("m", &first.saved.m, &last.saved.m);
    assert_bits("c", &first.saved.c, &last.saved.c);
    assert_bits("dbias", &first.dbias, &last.dbias);
}
