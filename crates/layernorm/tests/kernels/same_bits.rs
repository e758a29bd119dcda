//! A row's results depend on that row and the parameters, the gradients of parameters on the rows and their
//! global order, and nothing else shows in a bit.

use crate::case::{self, Case, Many, Norm, Results, assert_same};
use crate::level::{Effort, at, best, levels};
use crate::naive::tree;
use crate::number::{Number, Stored, Value, bits, difference, power_of_two};
use crate::random::Random;
use layernorm::{Gradients, ParamGradients, Rows, RowsMut, Run, StatsMut, StatsRef, Workspace};

for_all!(
    batch_size_and_position,
    short_rows,
    laid_out_parameters,
    alignment_and_stride,
    in_place,
    statistics_saved_or_not,
    gradients_wanted_or_not,
    past_the_cache_or_not,
    shards,
    accumulation,
    a_used_workspace,
);

/// Each row in batches of many sizes, at many places.
fn batch_size_and_position<T: Stored>() {
    let mut random = Random::new(21);
    let sizes = Effort::of(vec![1, 3], vec![1, 2, 8, 100], vec![1, 2, 3, 7, 8, 9, 31, 64, 127, 300, 1000]);
    let all = *sizes.last().unwrap();
    let lengths: &[usize] = Effort::of(&[5], &[64, 129], &[5, 64, 129, 300, 1025]);
    for (n, norm) in lengths.iter().flat_map(|n| Norm::BOTH.map(|norm| (*n, norm))) {
        let whole = Case::<T>::random(norm, all, n, &mut random);
        let expected = whole.run(best());
        for level in levels() {
            for size in &sizes {
                let start = random.below(all - size + 1);
                let part = whole.part(start..start + size);
                fn of_rows<V: Copy>(numbers: &[V], per: usize, rows: std::ops::Range<usize>) -> Vec<V> {
                    numbers[rows.start * per..rows.end * per].to_vec()
                }
                let rows = || start..start + size;
                let centre = usize::from(norm == Norm::Layer);
                let expected = Results {
                    y: of_rows(&expected.y, n, rows()),
                    m: of_rows(&expected.m, centre, rows()),
                    c: of_rows(&expected.c, centre, rows()),
                    rstd: of_rows(&expected.rstd, 1, rows()),
                    dx: of_rows(&expected.dx, n, rows()),
                    dweight: vec![],
                    dbias: vec![],
                };
                let difference = part.run(at(level)).difference_of_rows(&expected);
                assert_eq!(difference, None, "{norm:?} {level}: {size} rows of {n} from {start}");
            }
        }
    }
}

/// Rows that are taken several at a time: the same as one by one, beside rows that cannot be, at every length.
fn short_rows<T: Stored>() {
    let mut random = Random::new(28);
    let block = 1024 / size_of::<T::Acc>();
    let edges = [block / 2, block / 4 * 3, block].into_iter().flat_map(|n| n - 1..=n + 1);
    let lengths = (1..=70).step_by(Effort::of(40, 9, 1)).chain(edges.take(Effort::of(1, 9, 9)));
    for (n, norm) in lengths.flat_map(|n| Norm::BOTH.map(|norm| (n, norm))) {
        many_rows::<T>(norm, Effort::of(16, 40, 72), n, &mut random);
    }
}

/// So many rows that their parameters are laid out first, of lengths around those that are.
fn laid_out_parameters<T: Stored>() {
    let mut random = Random::new(31);
    let block = 1024 / size_of::<T::Acc>();
    let few = vec![block + 1];
    let lengths = Effort::of(few.clone(), few, vec![block + 1, 1000, 4095, 4096, 4097]);
    for (n, norm) in lengths.into_iter().flat_map(|n| Norm::BOTH.map(|norm| (n, norm))) {
        for rows in [31, 32, 41] {
            many_rows::<T>(norm, rows, n, &mut random);
        }
    }
}

/// Rows in one call are those of a call for each.
fn many_rows<T: Stored>(norm: Norm, rows: usize, n: usize, random: &mut Random) {
    let x = (0..rows * n).map(|_| T::of(random.normal() + 3.0)).collect();
    let mut case = Case::<T>::new(norm, x, n, random);
    case = case.with_params([Many::PerUnit; 2], random);
    // The third sixteen rows have some that are not for the fast path: out of range, and no numbers.
    for (row, of) in [(33, T::GREATEST), (38, f64::NAN)].into_iter().filter(|(row, _)| *row < rows) {
        case.x[row * n..][..n].fill(T::of(of));
    }
    let one_by_one = (0..rows).map(|row| case.part(row..row + 1).run(best()));
    let mut expected = one_by_one.reduce(|all, row| all.then(row)).unwrap();
    let chunks: Vec<_> =
        (0..rows).step_by(8).map(|row| case.part(row..rows.min(row + 8)).run(best())).collect();
    let total = |of: fn(&Results<T>) -> &Vec<T::Acc>| -> Vec<T::Acc> {
        (0..n).map(|j| tree(0, chunks.iter().map(|chunk| of(chunk)[j]).collect())).collect()
    };
    (expected.dweight, expected.dbias) = (total(|of| &of.dweight), total(|of| &of.dbias));
    for (level, from) in levels().iter().flat_map(|level| [2 << 20, 0].map(|from| (*level, from))) {
        let strides = std::array::from_fn(|_| n + random.pick(&[0, 0, 0, 1, 16]));
        let offsets = [0; 4].map(|_| random.below(17));
        let got = run_placed(&case, strides, offsets, at(level).with_stream_from(from));
        assert_same(&got, &expected, || {
            format!("{norm:?} {level}, N {n}, {strides:?}, {offsets:?}, past the caches from {from}")
        });
    }
}

/// A copy of the numbers that begins `offset` places behind a multiple of a cache line, `stride` apart.
struct Placed<T> {
    memory: Vec<T>,
    start: usize,
    n: usize,
    stride: usize,
}

impl<T: Stored> Placed<T> {
    fn new(numbers: &[T], n: usize, stride: usize, offset: usize) -> Self {
        let rows = numbers.len() / n;
        let mut memory = vec![T::of(case::SENTINEL); rows * stride + offset + 64];
        let start = memory.as_ptr().align_offset(64).min(16) + offset;
        for (row, numbers) in numbers.chunks(n).enumerate() {
            memory[start + row * stride..][..n].copy_from_slice(numbers);
        }
        Self { memory, start, n, stride }
    }

    fn len(&self, rows: usize) -> usize {
        if rows == 0 { 0 } else { (rows - 1) * self.stride + self.n }
    }

    fn rows(&self, rows: usize) -> Rows<'_, T> {
        let numbers = &self.memory[self.start..self.start + self.len(rows)];
        Rows::strided(numbers, rows, self.n, self.stride).unwrap()
    }

    fn rows_mut(&mut self, rows: usize) -> RowsMut<'_, T> {
        let numbers = self.start..self.start + self.len(rows);
        RowsMut::strided(&mut self.memory[numbers], rows, self.n, self.stride).unwrap()
    }

    /// The numbers of the rows; panics where another place was written.
    #[track_caller]
    fn numbers(&self, rows: usize) -> Vec<T> {
        let mut numbers = vec![];
        let sentinel = T::of(case::SENTINEL);
        for (i, value) in self.memory.iter().enumerate() {
            let at = i.checked_sub(self.start).map(|at| (at / self.stride, at % self.stride));
            match at {
                Some((row, j)) if row < rows && j < self.n => numbers.push(*value),
                _ => assert_eq!(*value, sentinel, "written outside rows, at {i}"),
            }
        }
        numbers
    }
}

/// Forward and backward with strides and offsets for x, dy, y and dx.
pub(crate) fn run_placed<T: Stored>(
    case: &Case<T>,
    strides: [usize; 4],
    offsets: [usize; 4],
    run: Run,
) -> Results<T> {
    let (n, rows) = (case.n, case.rows());
    let mut to = case.blank();
    let blank = vec![T::of(case::SENTINEL); case.x.len()];
    let sources = [&case.x, &case.dy, &blank, &blank];
    let [x, dy, mut y, mut dx] = std::array::from_fn(|i| Placed::new(sources[i], n, strides[i], offsets[i]));
    let saved = StatsMut { m: &mut to.m, c: &mut to.c, rstd: &mut to.rstd };
    case::forward(case.norm, x.rows(rows), case.params(), y.rows_mut(rows), Some(saved), run).unwrap();
    let mut workspace = Workspace::new();
    let gradients = Gradients {
        dx: Some(dx.rows_mut(rows)),
        params: Some(ParamGradients {
            dweight: Some(&mut to.dweight),
            dbias: Some(&mut to.dbias),
            accumulate: false,
            first_row: case.first_row,
            workspace: &mut workspace,
        }),
    };
    let saved = StatsRef { m: &to.m, c: &to.c, rstd: &to.rstd };
    case::backward(case.norm, [x.rows(rows), dy.rows(rows)], case.params(), Some(saved), gradients, run)
        .unwrap();
    (to.y, to.dx) = (y.numbers(rows), dx.numbers(rows));
    to
}

fn alignment_and_stride<T: Stored>() {
    let mut random = Random::new(22);
    let lengths: &[usize] =
        Effort::of(&[9], &[33, 257], &[1, 7, 16, 33, 64, 100, 257, 520, 1024, 1100, 2049, 3333]);
    for (n, norm) in lengths.iter().flat_map(|n| Norm::BOTH.map(|norm| (*n, norm))) {
        let case = Case::<T>::random(norm, Effort::of(2, 5, 9), n, &mut random);
        let expected = case.run(best());
        for (level, from) in levels().iter().flat_map(|level| [2 << 20, 0].map(|from| (*level, from))) {
            for offset in (0..=16).step_by(Effort::of(11, 3, 1)) {
                let strides = std::array::from_fn(|_| n + random.pick(&[0, 0, 1, 3, 16, 37]));
                let mut offsets = [0; 4].map(|_| random.below(17));
                offsets[random.below(4)] = offset;
                let got = run_placed(&case, strides, offsets, at(level).with_stream_from(from));
                assert_same(&got, &expected, || {
                    format!("{norm:?} {level}, N {n}, {strides:?}, {offsets:?}, past the caches from {from}")
                });
            }
        }
    }
}

fn in_place<T: Stored>() {
    let mut random = Random::new(23);
    for n in Effort::of(vec![6], vec![40, 300], vec![1, 6, 32, 100, 256, 700, 3000]) {
        for norm in Norm::BOTH {
            let case = Case::<T>::random(norm, Effort::of(2, 5, 20), n, &mut random);
            let expected = case.run(best());
            for level in levels() {
                let mut to = Results { y: case.x.clone(), dx: case.dy.clone(), ..case.blank() };
                let saved = StatsMut { m: &mut to.m, c: &mut to.c, rstd: &mut to.rstd };
                let y = RowsMut::new(&mut to.y, n).unwrap();
                case::forward_in_place(norm, y, case.params(), Some(saved), at(level)).unwrap();
                let gradients = ParamGradients {
                    dweight: Some(&mut to.dweight),
                    dbias: Some(&mut to.dbias),
                    accumulate: false,
                    first_row: case.first_row,
                    workspace: &mut Workspace::new(),
                };
                let saved = StatsRef { m: &to.m, c: &to.c, rstd: &to.rstd };
                let (x, dx) = (Rows::new(&case.x, n).unwrap(), RowsMut::new(&mut to.dx, n).unwrap());
                case::backward_in_place(
                    norm,
                    x,
                    dx,
                    case.params(),
                    (Some(saved), Some(gradients)),
                    at(level),
                )
                .unwrap();
                assert_same(&to, &expected, || format!("{norm:?} {level}, N {n}"));
            }
        }
    }
}

/// The backward pass of a case with chosen inputs and outputs; `to` keeps what is not asked for.
fn backward_of<T: Stored>(
    case: &Case<T>,
    to: &mut Results<T>,
    saved: bool,
    dx: bool,
    params: [bool; 2],
    run: Run,
) {
    let Case { norm, n, first_row, .. } = *case;
    let stats = to.clone();
    let saved = saved.then(|| StatsRef { m: &stats.m, c: &stats.c, rstd: &stats.rstd });
    let mut workspace = Workspace::new();
    let of_params = (params != [false; 2]).then(|| ParamGradients {
        dweight: params[0].then_some(&mut to.dweight[..]),
        dbias: params[1].then_some(&mut to.dbias[..]),
        accumulate: false,
        first_row,
        workspace: &mut workspace,
    });
    let dx = dx.then(|| RowsMut::new(&mut to.dx, n).unwrap());
    let (x, dy) = (Rows::new(&case.x, n).unwrap(), Rows::new(&case.dy, n).unwrap());
    case::backward(norm, [x, dy], case.params(), saved, Gradients { dx, params: of_params }, run).unwrap();
}

/// The rows of a case, and rows at the edges of the fast range, where its two sides must agree.
fn with_edges<T: Stored>(norm: Norm, n: usize, random: &mut Random) -> Case<T> {
    let mut case = Case::<T>::random(norm, Effort::of(7, 16, 16), n, random);
    let [low, high] = <T::Acc as Number>::RANGE_OF_V;
    for (row, x) in case.x.chunks_mut(n).enumerate().skip(4) {
        let edge = power_of_two(if row % 2 == 0 { high / 2 } else { low / 2 });
        let near = 1.0
            + (random.unit() - 0.5) * <T::Acc as layernorm::Real>::UNIT_ROUNDOFF * [1.0, 8.0, 1e6][row % 3];
        let sign = |j: usize| if j.is_multiple_of(2) || row == 8 { 1.0 } else { -1.0 };
        x.iter_mut().enumerate().for_each(|(j, x)| *x = T::of(sign(j) * edge * near));
    }
    let largest = T::GREATEST;
    case.x[..n].fill(T::of(largest));
    case.x[n..2 * n].fill(T::of(largest / 7.0));
    Case { eps: random.pick(&[0.0, 0.0, 1e-30, 1e-5]), ..case }
}

fn statistics_saved_or_not<T: Stored>() {
    let mut random = Random::new(24);
    for n in Effort::of(vec![4], vec![34, 300], vec![1, 2, 4, 34, 256, 300, 520, 1024, 2000]) {
        for norm in Norm::BOTH {
            let case = with_edges::<T>(norm, n, &mut random);
            let expected = case.run(best());
            for level in levels() {
                let mut to = expected.clone();
                to.dx.fill(T::of(case::SENTINEL));
                backward_of(&case, &mut to, false, true, [true; 2], at(level));
                assert_same(&to, &expected, || format!("{norm:?} {level}, N {n}, eps {}", case.eps));

                let mut y = case.blank().y;
                let (x, rows) = (Rows::new(&case.x, n).unwrap(), RowsMut::new(&mut y, n).unwrap());
                case::forward(norm, x, case.params(), rows, None, at(level)).unwrap();
                assert_eq!(difference("y without statistics", &y, &expected.y), None);
            }
        }
    }
}

/// No output depends on which others are wanted; what is not wanted is not written.
fn gradients_wanted_or_not<T: Stored>() {
    let mut random = Random::new(25);
    for n in Effort::of(vec![4], vec![34, 300], vec![1, 4, 34, 300, 1024]) {
        for norm in Norm::BOTH {
            let mut case = with_edges::<T>(norm, n, &mut random);
            // Gradients whose sums are not finite, though they are.
            case.dy[2 * n..4 * n].fill(T::of(T::GREATEST));
            let full = case.run(best());
            let blank = Results {
                y: full.y.clone(),
                m: full.m.clone(),
                c: full.c.clone(),
                rstd: full.rstd.clone(),
                ..case.blank()
            };
            for level in levels() {
                for wanted in (0..8).step_by(Effort::of(5, 1, 1)) {
                    let [dx, dweight, dbias] = [1, 2, 4].map(|bit| wanted & bit != 0);
                    let mut to = blank.clone();
                    backward_of(&case, &mut to, true, dx, [dweight, dbias], at(level));
                    let mut expected = blank.clone();
                    if dx {
                        expected.dx.clone_from(&full.dx);
                    }
                    if dweight {
                        expected.dweight.clone_from(&full.dweight);
                    }
                    if dbias {
                        expected.dbias.clone_from(&full.dbias);
                    }
                    assert_same(&to, &expected, || format!("{norm:?} {level}, N {n}, wanted {wanted:b}"));
                }
            }
        }
    }
}

/// Outputs below, at and above 2 MiB, where `at` has them begin to be written past the cache.
fn past_the_cache_or_not<T: Stored>() {
    if Effort::get() == Effort::Tiny {
        return; // Miri has no streaming stores.
    }
    let mut random = Random::new(26);
    let numbers = (2 << 20) / size_of::<T>();
    for (n, rows) in
        [(1024, numbers / 1024), (1000, numbers / 1000), (33, numbers / 33), (70_001, numbers / 70_001)]
    {
        let norm = random.pick(&Norm::BOTH);
        // Random numbers are slow to make: repeat some rows.
        let few = Case::<T>::random(norm, 8.min(rows), n, &mut random);
        let repeat = |of: &[T]| -> Vec<T> { of.iter().copied().cycle().take((rows + 1) * n).collect() };
        let case = Case { x: repeat(&few.x), dy: repeat(&few.dy), first_row: 0, ..few.clone() };
        // The gradients of the parameters: from calls of few rows each, in shards that make the same tree.
        let whole = case.run(best());
        for level in levels() {
            for rows in [rows - 1, rows, rows + 1] {
                let offsets = [0; 4].map(|_| random.below(17));
                let got = run_placed(&case.part(0..rows), [n, n, n, n + 5], offsets, at(level));
                let alone = few.part(0..few.rows().min(rows)).run(at(level));
                for (what, got, alone) in [("y", &got.y, &alone.y), ("dx", &got.dx, &alone.dx)] {
                    for (at, row) in got.chunks(alone.len()).enumerate() {
                        let difference = difference(what, row, &alone[..row.len()]);
                        assert_eq!(difference, None, "{norm:?} {level}, {rows} x {n}, at {at}, {offsets:?}");
                    }
                }
                if rows == case.rows() {
                    assert_same(&got, &whole, || format!("{norm:?} {level}, {rows} x {n}, {offsets:?}"));
                }
            }
        }
    }
}

/// Workers with their own rows, cut where the tree is, give nodes of the tree of the whole.
fn shards<T: Stored>() {
    let mut random = Random::new(27);
    for rows in Effort::of(vec![12], vec![50, 200], vec![5, 16, 24, 50, 129, 200, 515]) {
        for shard_chunks in [1, 2, 4, 8].into_iter().step_by(Effort::of(4, 1, 1)) {
            let shard = 8 * shard_chunks;
            let norm = random.pick(&Norm::BOTH);
            let n = 1 + random.below(40);
            let many = [random.pick(&[Many::Absent, Many::PerUnit]), Many::PerUnit];
            let case = Case::<T>::random(norm, rows, n, &mut random).with_params(many, &mut random);
            // The first shard may begin anywhere in its place; all others begin where a shard does.
            let case = Case { first_row: random.pick(&[0, 3, shard, 5 * shard, 3 * shard + 1]), ..case };
            let whole = case.run(best());
            let first_shard = case.first_row / shard;
            let mut totals = vec![];
            let mut start = 0;
            while start < rows {
                let end = rows.min((case.first_row + start) / shard * shard + shard - case.first_row);
                let part = case.part(start..end).run(best());
                totals.push([part.dweight, part.dbias]);
                start = end;
            }
            for (i, whole) in [&whole.dweight, &whole.dbias].into_iter().enumerate() {
                for j in 0..n {
                    let merged = tree(first_shard, totals.iter().map(|total| total[i][j]).collect());
                    assert_eq!(
                        bits(merged),
                        bits(whole[j]),
                        "{rows} rows from {}, shards of {shard}",
                        case.first_row
                    );
                }
            }
        }
    }
}

/// The finished total is added once to what is there.
fn accumulation<T: Stored>() {
    let mut random = Random::new(28);
    for many in Many::ALL.into_iter().skip(Effort::of(2, 0, 0)) {
        for norm in Norm::BOTH {
            let case = Case::<T>::random(norm, Effort::of(3, 30, 30), 19, &mut random)
                .with_params([many; 2], &mut random);
            let total = case.run(best());
            let given: Vec<T::Acc> = total.dweight.iter().map(|_| T::Acc::of(random.normal())).collect();
            for level in levels() {
                let (mut dweight, mut dbias) = (given.clone(), given.clone());
                let params = ParamGradients {
                    dweight: Some(&mut dweight),
                    dbias: Some(&mut dbias),
                    accumulate: true,
                    first_row: case.first_row,
                    workspace: &mut Workspace::new(),
                };
                let (x, dy) = (Rows::new(&case.x, 19).unwrap(), Rows::new(&case.dy, 19).unwrap());
                let gradients = Gradients { dx: None, params: Some(params) };
                case::backward(norm, [x, dy], case.params(), None, gradients, at(level)).unwrap();
                let sum = |total: &[T::Acc]| -> Vec<T::Acc> {
                    given.iter().zip(total).map(|(a, b)| *a + *b).collect()
                };
                assert_eq!(difference("dweight", &dweight, &sum(&total.dweight)), None);
                assert_eq!(difference("dbias", &dbias, &sum(&total.dbias)), None);
            }
        }
    }
}

/// What a workspace holds from calls before never shows.
fn a_used_workspace<T: Stored>() {
    let mut random = Random::new(29);
    let mut workspace = Workspace::new();
    for _ in 0..Effort::of(2, 20, 60) {
        let (rows, n) = (1 + random.below(Effort::of(6, 60, 60)), 1 + random.below(50));
        let case = Case::<T>::random(random.pick(&Norm::BOTH), rows, n, &mut random);
        let mut to = case.blank();
        case.run_into(&mut to, &mut workspace, best()).unwrap();
        assert_same(&to, &case.run(best()), || format!("{rows} x {n}"));
    }
}

/// Pools of several threads; thread counts on both sides of the number of parts.
#[cfg(feature = "rayon")]
mod threads {
    use super::*;
    use layernorm::Threads;

    for_all!(any_number_of_threads);

    fn any_number_of_threads<T: Stored>() {
        let mut random = Random::new(30);
        // A thread gets 32 Ki numbers at least.
        let shapes = Effort::of(
            vec![(20, 5)],
            vec![(600, 128), (9, 20_000)],
            vec![
                (1023, 32),
                (1024, 32),
                (1025, 64),
                (600, 128),
                (77, 1000),
                (300, 1111),
                (9, 20_000),
                (2, 32_768),
            ],
        );
        for (rows, n) in shapes {
            for norm in Norm::BOTH {
                let few = Case::<T>::random(norm, rows.min(13), n, &mut random);
                let repeat = |of: &[T]| -> Vec<T> { of.iter().copied().cycle().take(rows * n).collect() };
                let case = Case { x: repeat(&few.x), dy: repeat(&few.dy), ..few };
                let expected = case.run(best());
                for threads in Effort::of(vec![2], vec![2, 3], vec![1, 2, 3, 7]) {
                    // Under Miri there are three threads and no pool.
                    let pool = || rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let pool = (!cfg!(miri)).then(pool);
                    for level in levels() {
                        let run = at(level).with_threads(Threads::Pool);
                        let got = pool
                            .as_ref()
                            .map_or_else(|| case.run(run), |pool| pool.install(|| case.run(run)));
                        assert_same(&got, &expected, || {
                            format!("{norm:?} {level}, {rows} x {n}, {threads} threads")
                        });
                    }
                }
            }
        }
    }
}
