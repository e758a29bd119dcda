//! Every wrong argument of every function is an error that carries the numbers, and nothing is written before.

use crate::case::SENTINEL;
use crate::level::best;
use crate::number::{Number, Stored, Value};
use layernorm::{
    Error, Gradients, LayerNorm, Level, ParamGradients, Params, RmsNorm, Rows, RowsMut, Run, Stats, StatsMut,
    StatsRef, Workspace,
};

for_all!(wrong_lengths_and_shapes, wrong_epsilons, missing_levels);

mod modules {
    use super::*;
    for_both!(wrong_slices_of_modules);
}

const ROWS: usize = 3;
const N: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Forward,
    ForwardInPlace,
    Backward,
    BackwardInPlace,
}

use Function::{Backward, BackwardInPlace, Forward, ForwardInPlace};

const ALL: [Function; 4] = [Forward, ForwardInPlace, Backward, BackwardInPlace];
const FORWARD: [Function; 2] = [Forward, ForwardInPlace];
const BACKWARD: [Function; 2] = [Backward, BackwardInPlace];

/// The sizes of the arguments: right at first, then one of them wrong.
#[derive(Debug, Clone)]
struct Sizes {
    layer: bool,
    y: [usize; 2],
    dy: [usize; 2],
    dx: [usize; 2],
    m: usize,
    c: usize,
    rstd: usize,
    weight: usize,
    bias: usize,
    dweight: usize,
    dbias: usize,
    first_row: usize,
    eps: f64,
    run: Run,
}

impl Sizes {
    fn right(layer: bool) -> Self {
        let shape = [ROWS, N];
        Self {
            layer,
            y: shape,
            dy: shape,
            dx: shape,
            m: ROWS,
            c: ROWS,
            rstd: ROWS,
            weight: N,
            bias: 1,
            dweight: N,
            dbias: 1,
            first_row: 0,
            eps: 1e-5,
            run: best(),
        }
    }

    /// Call the function with parameters of the elements' type, and of the one that they accumulate in: the same
    /// answer. Panics if it is refused and has written anything.
    fn call<T: Stored>(&self, function: Function) -> Result<(), Error> {
        let answer = self.call_with::<T, T>(function);
        assert_eq!(format!("{:?}", self.call_with::<T, T::Acc>(function)), format!("{answer:?}"));
        answer
    }

    fn call_with<T: Stored, P: Value + layernorm::Companion<T>>(
        &self,
        function: Function,
    ) -> Result<(), Error> {
        fn sentinel<V: Value>(len: usize) -> Vec<V> {
            vec![V::of(SENTINEL); len]
        }
        let of_shape = |[rows, n]: [usize; 2]| sentinel::<T>(rows * n);
        let x = vec![T::of(1.0); ROWS * N];
        let (weight, bias) = (sentinel::<P>(self.weight), sentinel::<P>(self.bias));
        let dy = of_shape(self.dy);
        let mut rows = [of_shape(self.y), of_shape(self.dx)];
        let mut written = [self.m, self.c, self.rstd, self.dweight, self.dbias].map(sentinel::<T::Acc>);
        let (mut x_in_place, mut dy_in_place) = (sentinel::<T>(ROWS * N), dy.clone());
        let mut workspace = Workspace::new();

        let result = {
            let [y, dx] = &mut rows;
            let [m, c, rstd, dweight, dbias] = &mut written;
            let params = Params { weight: Some(&weight[..]), bias: Some(&bias[..]), eps: self.eps };
            let x = Rows::new(&x, N)?;
            let of_params = Some(ParamGradients {
                dweight: Some(dweight),
                dbias: Some(dbias),
                accumulate: false,
                first_row: self.first_row,
                workspace: &mut workspace,
            });
            match function {
                Forward => {
                    let y = RowsMut::new(y, self.y[1])?;
                    if self.layer {
                        layernorm::layer_norm(x, params, y, Some(StatsMut { m, c, rstd }), self.run)
                    } else {
                        layernorm::rms_norm(x, params, y, Some(rstd), self.run)
                    }
                }
                ForwardInPlace => {
                    let x = RowsMut::new(&mut x_in_place, N)?;
                    if self.layer {
                        layernorm::layer_norm_in_place(x, params, Some(StatsMut { m, c, rstd }), self.run)
                    } else {
                        layernorm::rms_norm_in_place(x, params, Some(rstd), self.run)
                    }
                }
                Backward => {
                    let dy = Rows::new(&dy, self.dy[1])?;
                    let gradients = Gradients { dx: Some(RowsMut::new(dx, self.dx[1])?), params: of_params };
                    if self.layer {
                        let saved = Some(StatsRef { m, c, rstd });
                        layernorm::layer_norm_backward(x, dy, params, saved, gradients, self.run)
                    } else {
                        layernorm::rms_norm_backward(x, dy, params, Some(rstd), gradients, self.run)
                    }
                }
                BackwardInPlace => {
                    let dy = RowsMut::new(&mut dy_in_place, self.dy[1])?;
                    if self.layer {
                        let saved = Some(StatsRef { m, c, rstd });
                        layernorm::layer_norm_backward_in_place(x, dy, params, saved, of_params, self.run)
                    } else {
                        layernorm::rms_norm_backward_in_place(x, dy, params, Some(rstd), of_params, self.run)
                    }
                }
            }
        };
        if result.is_err() {
            let mut elements = rows.iter().chain([&x_in_place, &dy_in_place]).flatten();
            let untouched = elements.all(|value| *value == T::of(SENTINEL))
                && written.iter().flatten().all(|value| value.wide() == SENTINEL);
            assert!(untouched, "{function:?} wrote before it refused: {self:?}");
        }
        result
    }
}

type Change = fn(&mut Sizes);

fn length(what: &'static str, expected: usize, got: usize) -> Error {
    Error::Length { what, expected, got }
}

fn shape(what: &'static str, got: (usize, usize)) -> Error {
    Error::Shape { what, expected: (ROWS, N), got }
}

fn wrong_lengths_and_shapes<T: Stored>() {
    // What is wrong, for which functions, for RMS norm too, and what they say.
    let table: &[(Change, &[Function], bool, Error)] = &[
        (|s| s.y = [2, N], &[Forward], true, shape("y", (2, N))),
        (|s| s.y = [4, N], &[Forward], true, shape("y", (4, N))),
        (|s| s.y = [ROWS, 5], &[Forward], true, shape("y", (ROWS, 5))),
        (|s| s.y = [4, 3], &[Forward], true, shape("y", (4, 3))),
        (|s| s.dy = [2, N], &BACKWARD, true, shape("dy", (2, N))),
        (|s| s.dy = [4, 3], &BACKWARD, true, shape("dy", (4, 3))),
        (|s| s.dx = [4, N], &[Backward], true, shape("dx", (4, N))),
        (|s| s.dx = [6, 2], &[Backward], true, shape("dx", (6, 2))),
        (|s| s.m = 2, &ALL, false, length("m", ROWS, 2)),
        (|s| s.m = 4, &ALL, false, length("m", ROWS, 4)),
        (|s| s.c = 0, &ALL, false, length("c", ROWS, 0)),
        (|s| s.rstd = 2, &ALL, true, length("rstd", ROWS, 2)),
        (|s| s.rstd = 12, &ALL, true, length("rstd", ROWS, 12)),
        (|s| s.weight = 3, &ALL, true, length("weight", N, 3)),
        (|s| s.weight = 0, &ALL, true, length("weight", N, 0)),
        (|s| s.weight = 12, &ALL, true, length("weight", N, 12)),
        (|s| s.bias = 5, &ALL, true, length("bias", N, 5)),
        (|s| s.bias = 0, &FORWARD, true, length("bias", N, 0)),
        (|s| s.dweight = 2, &BACKWARD, true, length("dweight", N, 2)),
        (|s| s.dweight = 0, &BACKWARD, true, length("dweight", N, 0)),
        (|s| s.dbias = 5, &BACKWARD, true, length("dbias", N, 5)),
        (
            |s| s.first_row = usize::MAX - 1,
            &BACKWARD,
            true,
            Error::RowIndex { first_row: usize::MAX - 1, rows: ROWS },
        ),
    ];
    for layer in [true, false] {
        for function in ALL {
            Sizes::right(layer).call::<T>(function).unwrap();
        }
        for (i, (change, functions, for_rms, expected)) in table.iter().enumerate() {
            for function in functions.iter().filter(|_| layer || *for_rms) {
                let mut sizes = Sizes::right(layer);
                change(&mut sizes);
                assert_eq!(
                    sizes.call::<T>(*function).as_ref(),
                    Err(expected),
                    "line {i}, {function:?}, layer {layer}"
                );
                let text = expected.to_string();
                assert!(text.chars().any(|c| c.is_ascii_digit()), "no number in {text:?}");
            }
        }
    }
}

fn wrong_epsilons<T: Stored>() {
    let too_large = if T::NAME == "f64" { f64::INFINITY } else { 3.5e38 };
    for eps in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1e-300, -1.0, too_large] {
        for (function, layer) in ALL.into_iter().flat_map(|function| [(function, true), (function, false)]) {
            let error = Sizes { eps, ..Sizes::right(layer) }.call::<T>(function).unwrap_err();
            let Error::Epsilon { eps: got, max } = error else { panic!("{error:?}") };
            assert_eq!(
                (got.to_bits(), max),
                (eps.to_bits(), <T::Acc as layernorm::Real>::LARGEST),
                "{function:?}"
            );
        }
    }
    for eps in [0.0, -0.0, 1e-300, <T::Acc as layernorm::Real>::LARGEST] {
        for function in ALL {
            Sizes { eps, ..Sizes::right(true) }.call::<T>(function).unwrap();
        }
    }
}

fn missing_levels<T: Stored>() {
    let missing: Vec<Level> = Level::ALL.into_iter().filter(|level| !level.is_available()).collect();
    assert!(!missing.is_empty(), "no machine has both AVX2 and NEON");
    for level in missing {
        for (function, layer) in ALL.into_iter().flat_map(|function| [(function, true), (function, false)]) {
            let run = Run::default().with_level(level);
            let result = Sizes { run, ..Sizes::right(layer) }.call::<T>(function);
            assert_eq!(result, Err(Error::Level { asked: level, best: Level::best() }), "{function:?}");
        }
    }
}

/// The methods of `LayerNorm` and `RmsNorm`, which take slices.
fn wrong_slices_of_modules<T: Number>() {
    let (layer, rms) = (LayerNorm::<T>::new(N), RmsNorm::<T>::new(N));
    let ragged = |len| Err(Error::Ragged { len, features: N });
    let zeros = |len| vec![T::of(SENTINEL); len];
    for (x, y, expected) in [
        (11, 12, ragged(11)),
        (12, 13, ragged(13)),
        (12, 8, Err(Error::Shape { what: "y", expected: (3, N), got: (2, N) })),
        (12, 12, Ok(())),
    ] {
        let mut of = zeros(y);
        assert_eq!(layer.forward(&zeros(x), &mut of), expected);
        assert_eq!(rms.forward(&zeros(x), &mut of), expected);
        assert_eq!(layer.forward_saving(&zeros(x), &mut of, &mut Stats::new(3)), expected);
        assert_eq!(rms.forward_saving(&zeros(x), &mut of, &mut zeros(3)), expected);
        let (mut of_layer, mut of_rms) = (layer.zero_grads(), rms.zero_grads());
        let expected = match expected {
            Err(Error::Shape { expected, got, .. }) => Err(Error::Shape { what: "dy", expected, got }),
            other => other,
        };
        assert_eq!(
            layer.backward(&zeros(x), &zeros(y), &Stats::new(3), &mut zeros(12), &mut of_layer),
            expected
        );
        assert_eq!(rms.backward(&zeros(x), &zeros(y), &zeros(3), &mut zeros(12), &mut of_rms), expected);
    }
    let x = zeros(12);
    let short = Err(length("rstd", 3, 2));
    assert_eq!(rms.forward_saving(&x, &mut zeros(12), &mut zeros(2)), short);
    assert_eq!(rms.backward(&x, &x, &zeros(2), &mut zeros(12), &mut rms.zero_grads()), short);
    let short = Err(length("m", 3, 2));
    assert_eq!(layer.forward_saving(&x, &mut zeros(12), &mut Stats::new(2)), short);
    assert_eq!(layer.backward(&x, &x, &Stats::new(2), &mut zeros(12), &mut layer.zero_grads()), short);
    assert_eq!(layer.backward(&x, &x, &Stats::new(3), &mut zeros(10), &mut layer.zero_grads()), ragged(10));
    let of_other_size = LayerNorm::<T>::new(5).zero_grads();
    let got = layer.backward(&x, &x, &Stats::new(3), &mut zeros(12), &mut of_other_size.clone());
    assert_eq!(got, Err(length("dweight", N, 5)));
}

#[test]
fn views_that_do_not_fit_their_slice() {
    let (data, mut data_mut) = ([0.0f32; 10], [0.0f32; 10]);
    let huge = usize::MAX / 2;
    let under = |expected| length("the slice under the rows", expected, 10);
    let table = [
        ([2, 4, 3], Error::Stride { stride: 3, features: 4 }),
        ([3, 4, 4], under(12)),
        ([2, 4, 7], under(11)),
        ([1, 11, 11], under(11)),
        ([4, 4, huge], Error::Overflow { rows: 4, stride: huge }),
        ([huge, 1, 5], Error::Overflow { rows: huge, stride: 5 }),
        ([2, usize::MAX, usize::MAX], Error::Overflow { rows: 2, stride: usize::MAX }),
    ];
    for ([rows, n, stride], expected) in table {
        assert_eq!(Rows::strided(&data, rows, n, stride).unwrap_err(), expected);
        assert_eq!(RowsMut::strided(&mut data_mut, rows, n, stride).unwrap_err(), expected);
    }
    for n in [3, 4, 11, 0] {
        let ragged = Error::Ragged { len: 10, features: n };
        assert_eq!(Rows::new(&data, n).unwrap_err(), ragged);
        assert_eq!(RowsMut::new(&mut data_mut, n).unwrap_err(), ragged);
    }
    let rows = Rows::strided(&data, 2, 4, 6).unwrap();
    assert_eq!((rows.row(1), rows.row(2), rows.row(usize::MAX)), (Some(&data[6..]), None, None));
}

/// No rows of very many features: nothing to do, and nothing to make room for.
#[test]
fn no_rows_of_huge_size() {
    for n in [usize::MAX, usize::MAX / 2, usize::MAX / 3] {
        let none = || Rows::<f32>::strided(&[], 0, n, n).unwrap();
        let mut dweight = [5.0];
        let params = ParamGradients {
            dweight: Some(&mut dweight),
            dbias: None,
            accumulate: false,
            first_row: usize::MAX,
            workspace: &mut Workspace::new(),
        };
        let gradients = Gradients { dx: None, params: Some(params) };
        layernorm::layer_norm_backward(none(), none(), Params::<f32>::default(), None, gradients, best())
            .unwrap();
        assert_eq!(dweight, [0.0]);
    }
}

/// The last rows that have a global index.
#[test]
fn the_last_row_indices_work() {
    let x = [1.0f32, 2.0, 4.0, 8.0, 3.0, 3.5];
    let mut results = [16 * 1000, usize::MAX - 15, usize::MAX - 2].map(|first_row| {
        let mut dweight = [0.0; 2];
        let params = ParamGradients {
            dweight: Some(&mut dweight),
            dbias: None,
            accumulate: false,
            first_row,
            workspace: &mut Workspace::new(),
        };
        let (x, gradients) = (Rows::new(&x, 2).unwrap(), Gradients { dx: None, params: Some(params) });
        layernorm::layer_norm_backward(x, x, Params::<f32>::default(), None, gradients, best()).unwrap();
        dweight
    });
    results.iter_mut().for_each(|dweight| assert!(dweight[1] > 5.0, "{dweight:?}"));
    assert_eq!(results[0], results[1]);
}

/// The default level is read from the environment once: so by children of this process.
#[cfg(not(miri))]
mod environment {
    use layernorm::{LEVEL_VARIABLE, Level};
    use std::ffi::OsString;
    use std::process::Command;

    const CHILD: &str = "LAYERNORM_TEST_CHILD";

    #[test]
    fn the_level_of_the_environment() {
        if std::env::var_os(CHILD).is_some() {
            println!("[{:?}]", Level::from_environment());
            return;
        }
        // Emulated, this program can't be run without the emulator.
        let runner = std::env::var("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER");
        let runner = runner.ok().filter(|_| cfg!(target_arch = "aarch64")).unwrap_or_default();
        let exe = std::env::current_exe().unwrap();
        let missing = Level::ALL.into_iter().find(|level| !level.is_available()).unwrap();
        let best = Level::best();
        for (value, expected) in [
            ("portable".to_owned(), "Ok(Portable)".to_owned()),
            ("Portable".to_owned(), "Ok(Portable)".to_owned()),
            (missing.to_string(), format!("Err(Level {{ asked: {missing:?}, best: {best:?} }})")),
            ("sse9".to_owned(), "Err(LevelName { value: \"sse9\" })".to_owned()),
            (String::new(), "Err(LevelName { value: \"\" })".to_owned()),
        ] {
            let mut words = runner.split_whitespace().map(OsString::from).chain([exe.clone().into()]);
            let out = Command::new(words.next().unwrap())
                .args(words)
                .args(["refused::environment::the_level_of_the_environment", "--exact", "--nocapture"])
                .env(CHILD, "1")
                .env(LEVEL_VARIABLE, &value)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&out.stdout);
            assert!(said.contains(&format!("[{expected}]")), "{value}: {said}");
        }
    }
}
