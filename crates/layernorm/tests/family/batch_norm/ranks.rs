//! A batch over several ranks: the bits of one, and nobody hangs.

use super::problem::{How, Kind, Problem, Random, Results, Which, assert_bits, assert_same, at};
use layernorm::{Error, Level, LocalReducer};

/// Some rows of a problem, as one of its own.
fn shard<E: Kind>(of: &Problem<E>, from: usize, to: usize) -> Problem<E> {
    let row = of.row();
    let part = |numbers: &[E]| numbers[from * row..to * row].to_vec();
    let samples = if of.last { (to - from) / of.positions } else { to - from };
    Problem { samples, x: part(&of.x), dy: part(&of.dy), first: from, ..of.clone() }
}

/// Run the shards on a thread each.
fn run<E: Kind>(shards: &[Problem<E>]) -> Vec<Result<Results<E>, Error>> {
    let ranks = LocalReducer::ranks(shards.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = shards
            .iter()
            .zip(ranks)
            .map(|(shard, rank)| {
                scope.spawn(move || {
                    let how = How { reducer: Some(&rank), ..at(Level::best()) };
                    shard.try_run(how)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn joined<E: Kind>(parts: Vec<Results<E>>) -> Results<E> {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap();
    for part in parts {
        assert_bits("m of all ranks", &part.saved.m, &all.saved.m);
        assert_bits("dweight of all ranks", &part.dweight, &all.dweight);
        all.y.extend(part.y);
        all.dx.extend(part.dx);
    }
    all
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn aligned_shards_give_the_bits_of_one() {
    fn check<E: Kind>() {
        let mut random = Random(10);
        for last in [false, true] {
            for (rows, cuts) in [
                (32, vec![0, 8, 16, 24, 32]),
                (29, vec![0, 8, 16, 24, 29]),
                (64, vec![0, 32, 64]),
                (55, vec![0, 16, 32, 48, 55]),
                (16, vec![0, 8, 16, 16]),
                (16, vec![0, 0, 8, 8, 16]),
                (5, vec![0, 5, 5]),
                (40, vec![0, 32, 40]),
                (7, vec![0, 7]),
            ] {
                for channels in [1, 5, 37] {
                    // A few channels need more range than the type has.
                    let positions = if last { 1 } else { 6 };
                    let mut problem = Problem::<E>::new(last, [rows, channels, positions], &mut random);
                    for channel in 0..channels {
                        let factor = [1.0, 1e-30, 1.0, 1e30][channel % 4];
                        let factor = if E::U == f64::from(f32::EPSILON) / 2.0 { factor } else { 1.0 };
                        for place in problem.places(channel) {
                            problem.x[place] = E::of((problem.x[place].wide() + 3.0) * factor);
                        }
                    }
                    let expected = problem.run(at(Level::best()));
                    let shards: Vec<_> = cuts.windows(2).map(|cut| shard(&problem, cut[0], cut[1])).collect();
                    let parts = run(&shards).into_iter().collect::<Result<Vec<_>, _>>().unwrap();
                    assert_same(&format!("last {last}, {cuts:?}, {channels}"), &joined(parts), &expected);
                }
            }
        }
    }
    check::<f32>();
    check::<f64>();
    check::<half::bf16>();
}

#[test]
fn masked_shards_give_the_bits_of_one() {
    let mut random = Random(11);
    let mut problem = Problem::<f32>::new(false, [24, 7, 11], &mut random);
    let lengths: Vec<usize> = (0..24).map(|_| random.below(12)).collect();
    problem.which = Which::Lengths(lengths.clone());
    let shards: Vec<_> = [0, 8, 16]
        .map(|at| Problem {
            which: Which::Lengths(lengths[at..at + 8].to_vec()),
            ..shard(&problem, at, at + 8)
        })
        .into();
    let parts = run(&shards).into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert_same("masked", &joined(parts), &problem.run(at(Level::best())));
}

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn other_shards_agree_within_the_bound() {
    let mut random = Random(12);
    let problem = Problem::<f32>::new(false, [23, 4, 9], &mut random);
    let shards: Vec<_> = [(0, 3), (3, 17), (17, 23)].map(|(from, to)| shard(&problem, from, to)).into();
    let parts = run(&shards).into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let worst = super::accuracy::errors(&problem, &joined(parts));
    assert!(worst[0] <= 8.0 && worst[1] <= 16.0, "{worst:?}");
}

#[test]
fn a_rank_that_is_refused_holds_up_nobody() {
    let mut random = Random(13);
    let good = Problem::<f32>::new(false, [8, 3, 2], &mut random);
    let bad = Problem { eps: -1.0, ..good.clone() };
    let results = run(&[good.clone(), bad, good]);
    assert_eq!(results[1], Err(Error::Epsilon { eps: -1.0, max: f32::MAX.into() }));
    assert!(
        matches!(results[0], Err(Error::Reducer { .. })) && matches!(results[2], Err(Error::Reducer { .. }))
    );
}

#[test]
fn a_rank_that_goes_away_holds_up_nobody() {
    let mut random = Random(14);
    let good = Problem::<f32>::new(true, [8, 3, 2], &mut random);
    let mut ranks = LocalReducer::ranks(2);
    let (gone, rank) = (ranks.pop().unwrap(), ranks.pop().unwrap());
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| good.try_run(How { reducer: Some(&rank), ..at(Level::best()) }));
        drop(gone);
        assert!(matches!(thread.join().unwrap(), Err(Error::Reducer { .. })));
    });
}

#[test]
fn too_few_numbers_over_all_ranks_are_an_error_of_all() {
    let mut random = Random(15);
    let one = Problem::<f32>::new(false, [1, 3, 1], &mut random);
    let none = shard(&one, 0, 0);
    for result in run(&[one.clone(), none.clone(), none.clone()]) {
        assert_eq!(result, Err(Error::Count { expected: 2, got: 1 }));
    }
    for result in run(&[none.clone(), none]) {
        assert_eq!(result, Err(Error::Count { expected: 2, got: 0 }));
    }
    // One each is enough.
    assert!(run(&[one.clone(), one]).iter().all(Result::is_ok));
}
