//! Every wrong argument is an error that carries the numbers, and nothing is written before.

use layernorm::{
    Batch, BatchGradients, BatchMut, BatchNorm, Convention, Error, Folded, Level, ParamGradients, Params,
    Rows, RowsMut, Run, RunningMut, RunningRef, StatsMut, StatsRef, Trained, Training, Valid, Workspace,
    batch_norm_eval, batch_norm_eval_backward, batch_norm_eval_backward_in_place, batch_norm_eval_in_place,
    batch_norm_fold, batch_norm_folded, batch_norm_train, batch_norm_train_backward,
    batch_norm_train_backward_in_place, batch_norm_train_in_place,
};

const SENTINEL: f32 = -12345.5;
const SAMPLES: usize = 2;
const CHANNELS: usize = 3;
const POSITIONS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Train,
    TrainInPlace,
    TrainBackward,
    TrainBackwardInPlace,
    Eval,
    EvalInPlace,
    EvalBackward,
    EvalBackwardInPlace,
    Fold,
    Folded,
}

use Function::{
    Eval, EvalBackward, EvalBackwardInPlace, EvalInPlace, Fold, Folded as ByFolded, Train, TrainBackward,
    TrainBackwardInPlace, TrainInPlace,
};

const ALL: [Function; 10] = [
    Train,
    TrainInPlace,
    TrainBackward,
    TrainBackwardInPlace,
    Eval,
    EvalInPlace,
    EvalBackward,
    EvalBackwardInPlace,
    Fold,
    ByFolded,
];
const TRAIN: [Function; 2] = [Train, TrainInPlace];
const TRAIN_BACKWARD: [Function; 2] = [TrainBackward, TrainBackwardInPlace];
const BACKWARD: [Function; 4] = [TrainBackward, TrainBackwardInPlace, EvalBackward, EvalBackwardInPlace];
const GIVEN: [Function; 5] = [Eval, EvalInPlace, EvalBackward, EvalBackwardInPlace, Fold];

/// The sizes of the arguments: right at first, then one of them wrong.
#[derive(Debug, Clone)]
struct Sizes {
    samples: usize,
    positions: usize,
    y: [usize; 2],
    dy: [usize; 2],
    dx: [usize; 2],
    weight: usize,
    bias: usize,
    dweight: usize,
    dbias: usize,
    saved: [usize; 3],
    running: [usize; 2],
    folded: [usize; 2],
    var: f32,
    lengths: Option<Vec<usize>>,
    mask: Option<usize>,
    convention: Convention,
    first_row: usize,
    eps: f64,
    run: Run,
}

impl Sizes {
    fn right() -> Self {
        let shape = [SAMPLES, CHANNELS * POSITIONS];
        Self {
            samples: SAMPLES,
            positions: POSITIONS,
            y: shape,
            dy: shape,
            dx: shape,
            weight: CHANNELS,
            bias: 1,
            dweight: CHANNELS,
            dbias: 1,
            saved: [CHANNELS; 3],
            running: [CHANNELS; 2],
            folded: [CHANNELS; 2],
            var: 1.0,
            lengths: None,
            mask: None,
            convention: Convention::PYTORCH,
            first_row: 0,
            eps: 1e-5,
            run: Run::default(),
        }
    }

    /// Call the function; panics if it is refused and has written anything.
    fn call(&self, function: Function) -> Result<(), Error> {
        let fill = |len: usize| vec![SENTINEL; len];
        let of_shape = |[rows, n]: [usize; 2]| fill(rows * n);
        let x = vec![1.0f32; self.samples * CHANNELS * self.positions];
        let (weight, bias, dy) = (fill(self.weight), fill(self.bias), of_shape(self.dy));
        let (mut y, mut dx) = (of_shape(self.y), of_shape(self.dx));
        let (mut x_in_place, mut dy_in_place) = (fill(x.len()), dy.clone());
        let [mut m, mut c, mut rstd] = self.saved.map(fill);
        let (mut mean, mut var) = (fill(self.running[0]), vec![self.var; self.running[1]]);
        let [mut dweight, mut dbias] = [self.dweight, self.dbias].map(fill);
        let (mut updates, mut workspace) = (7, Workspace::new());
        let mask = self.mask.map(|len| vec![true; len]);
        let valid = match (&self.lengths, &mask) {
            (Some(lengths), _) => Valid::Lengths(lengths),
            (_, Some(mask)) => Valid::Mask(mask),
            _ => Valid::All,
        };
        let params = Params { weight: Some(&weight[..]), bias: Some(&bias[..]), eps: self.eps };
        let batch_of_x = Batch::channels_first(Rows::new(&x, CHANNELS * self.positions).unwrap(), CHANNELS)?;
        let dy_batch = Rows::new(&dy, self.dy[1]).and_then(|rows| Batch::channels_first(rows, CHANNELS))?;
        let result = {
            fn write(numbers: &mut [f32], n: usize) -> Result<BatchMut<'_, f32>, Error> {
                BatchMut::channels_first(RowsMut::new(numbers, n)?, CHANNELS)
            }
            let to_y = write(&mut y, self.y[1])?;
            let to_dx = write(&mut dx, self.dx[1])?;
            let x_in_place = BatchMut::channels_first(
                RowsMut::new(&mut x_in_place, CHANNELS * self.positions).unwrap(),
                CHANNELS,
            )?;
            let dy_in_place = write(&mut dy_in_place, self.dy[1])?;
            let mut other = Workspace::new();
            let of_params = ParamGradients {
                dweight: Some(&mut dweight),
                dbias: Some(&mut dbias),
                accumulate: false,
                first_row: self.first_row,
                workspace: &mut other,
            };
            let (run, folded) =
                (self.run, Folded { scale: fill(self.folded[0]), shift: fill(self.folded[1]) });
            match function {
                Train | TrainInPlace => {
                    let running = Some(RunningMut {
                        mean: &mut mean,
                        var: &mut var,
                        updates: &mut updates,
                        convention: self.convention,
                    });
                    let saved = StatsMut { m: &mut m, c: &mut c, rstd: &mut rstd };
                    let training =
                        Training { saved, running, valid, reducer: None, workspace: &mut workspace };
                    if function == Train {
                        batch_norm_train(batch_of_x, params, to_y, training, run)
                    } else {
                        batch_norm_train_in_place(x_in_place, params, training, run)
                    }
                }
                TrainBackward | TrainBackwardInPlace => {
                    let of = Trained { saved: StatsRef { m: &m, c: &c, rstd: &rstd }, valid, reducer: None };
                    if function == TrainBackward {
                        let gradients = BatchGradients { dx: Some(to_dx), params: of_params };
                        batch_norm_train_backward(batch_of_x, dy_batch, params, of, gradients, run)
                    } else {
                        batch_norm_train_backward_in_place(
                            batch_of_x,
                            dy_in_place,
                            params,
                            of,
                            of_params,
                            run,
                        )
                    }
                }
                _ => {
                    let running = RunningRef { mean: &mean, var: &var };
                    match function {
                        Eval => batch_norm_eval(batch_of_x, params, running, to_y, &mut workspace, run),
                        EvalInPlace => {
                            batch_norm_eval_in_place(x_in_place, params, running, &mut workspace, run)
                        }
                        EvalBackward => {
                            let gradients = BatchGradients { dx: Some(to_dx), params: of_params };
                            batch_norm_eval_backward(batch_of_x, dy_batch, params, running, gradients, run)
                        }
                        EvalBackwardInPlace => batch_norm_eval_backward_in_place(
                            batch_of_x,
                            dy_in_place,
                            params,
                            running,
                            of_params,
                            run,
                        ),
                        Fold => batch_norm_fold(params, running).map(|_| ()),
                        _ => batch_norm_folded(batch_of_x, &folded, to_y, run),
                    }
                }
            }
        };
        if result.is_err() {
            let written = [&y, &dx, &m, &c, &rstd, &mean, &dweight, &dbias, &x_in_place, &dy_in_place];
            assert!(written.into_iter().flatten().all(|number| *number == SENTINEL), "{function:?}: written");
            assert!(var.iter().all(|var| *var == self.var) && updates == 7, "{function:?}: running");
        }
        result
    }
}

/// Functions that must refuse what is wrong, and how.
#[track_caller]
fn refused(functions: &[Function], change: impl Fn(&mut Sizes), error: &Error) {
    let mut sizes = Sizes::right();
    change(&mut sizes);
    for function in functions {
        assert_eq!(sizes.call(*function).as_ref(), Err(error), "{function:?}");
    }
    for function in ALL.iter().filter(|function| !functions.contains(function)) {
        assert_eq!(sizes.call(*function), Ok(()), "{function:?}");
    }
}

fn length(what: &'static str, expected: usize, got: usize) -> Error {
    Error::Length { what, expected, got }
}

#[test]
fn what_is_right_is_taken() {
    ALL.iter().for_each(|function| assert_eq!(Sizes::right().call(*function), Ok(()), "{function:?}"));
}

#[test]
fn wrong_arguments_are_refused() {
    let but =
        |left: &[Function]| -> Vec<Function> { ALL.into_iter().filter(|of| !left.contains(of)).collect() };
    let all_but_folded = but(&[ByFolded]);
    let right = (SAMPLES, CHANNELS * POSITIONS);
    let shape = |what, got| Error::Shape { what, expected: right, got };
    refused(&[Train, Eval, ByFolded], |s| s.y = [3, 12], &shape("y", (3, 12)));
    refused(&[Train, Eval, ByFolded], |s| s.y = [2, 9], &shape("y", (2, 9)));
    refused(&BACKWARD, |s| s.dy = [1, 12], &shape("dy", (1, 12)));
    refused(&[TrainBackward, EvalBackward], |s| s.dx = [2, 15], &shape("dx", (2, 15)));
    for got in [0, 2, 4] {
        refused(&all_but_folded, |s| s.weight = got, &length("weight", CHANNELS, got));
        refused(&all_but_folded, |s| s.bias = got, &length("bias", CHANNELS, got));
        refused(&BACKWARD, |s| s.dweight = got, &length("dweight", CHANNELS, got));
        refused(&BACKWARD, |s| s.dbias = got, &length("dbias", CHANNELS, got));
        for (i, what) in ["m", "c", "rstd"].into_iter().enumerate() {
            refused(&[TRAIN, TRAIN_BACKWARD].concat(), |s| s.saved[i] = got, &length(what, CHANNELS, got));
        }
        refused(&[ByFolded], |s| s.folded[0] = got, &length("scale", CHANNELS, got));
        refused(&[ByFolded], |s| s.folded[1] = got, &length("shift", CHANNELS, got));
        let running = [&TRAIN[..], &GIVEN].concat();
        let but_fold: Vec<Function> = running.iter().copied().filter(|of| *of != Fold).collect();
        let mut sizes = Sizes::right();
        sizes.running[0] = got;
        for function in but_fold {
            assert_eq!(sizes.call(function), Err(length("running mean", CHANNELS, got)), "{function:?}");
        }
        refused(&running, |s| s.running[1] = got, &length("running var", CHANNELS, got));
    }
    for eps in [-1e-9, f64::NAN, f64::INFINITY, 1e300] {
        let mut sizes = Sizes::right();
        sizes.eps = eps;
        for function in &all_but_folded {
            let Err(Error::Epsilon { eps: got, max }) = sizes.call(*function) else { panic!("{function:?}") };
            assert_eq!((got.to_bits(), max), (eps.to_bits(), f64::from(f32::MAX)), "{function:?}");
        }
    }
    let negative = Error::Variance { channel: 0, var: -2.0 };
    refused(&[&TRAIN[..], &GIVEN].concat(), |s| s.var = -2.0, &negative);
    for momentum in [-0.1, 1.5] {
        for convention in [
            Convention::PyTorch { momentum: Some(momentum) },
            Convention::Keras { momentum },
            Convention::TfKeras { momentum },
            Convention::Flax { momentum },
            Convention::Onnx { momentum },
        ] {
            refused(&TRAIN, |s| s.convention = convention, &Error::Momentum { momentum });
        }
    }
    let of_masks = [TRAIN, TRAIN_BACKWARD].concat();
    refused(&of_masks, |s| s.lengths = Some(vec![1]), &length("lengths", SAMPLES, 1));
    refused(&of_masks, |s| s.lengths = Some(vec![1, 5]), &length("a sample", 5, POSITIONS));
    refused(&of_masks, |s| s.mask = Some(7), &length("mask", SAMPLES * POSITIONS, 7));
    refused(&of_masks, |s| s.lengths = Some(vec![1, 0]), &Error::Count { expected: 2, got: 1 });
    let last = usize::MAX;
    refused(&BACKWARD, |s| s.first_row = last, &Error::RowIndex { first_row: last, rows: SAMPLES });
    if let Some(level) = Level::ALL.into_iter().find(|level| !level.is_available()) {
        let missing = Error::Level { asked: level, best: Level::best() };
        refused(&but(&[Fold]), |s| s.run = Run::default().with_level(level), &missing);
    }
}

#[test]
fn batches_that_are_none_are_refused() {
    let x = [0.0f32; 12];
    let rows = || Rows::new(&x, 6).unwrap();
    let divide = |what, len, parts| Error::Divide { what, len, parts };
    assert_eq!(Batch::channels_first(rows(), 4).unwrap_err(), divide("features of a sample", 6, 4));
    assert_eq!(Batch::channels_last(rows(), 3).unwrap_err(), divide("rows of positions", 2, 3));
    assert_eq!(
        Batch::channels_first(rows(), 0).unwrap_err(),
        Error::NoChannels { channels: 0, positions: 0 }
    );
    assert_eq!(Batch::channels_last(rows(), 0).unwrap_err(), Error::NoChannels { channels: 6, positions: 0 });
    let none = Rows::<f32>::strided(&[], 0, 0, 0).unwrap();
    assert_eq!(Batch::channels_last(none, 1).unwrap_err(), Error::NoChannels { channels: 0, positions: 1 });
}

#[test]
fn another_layout_is_refused() {
    let (x, mut y) = ([0.0f32; 12], [SENTINEL; 12]);
    let x = Batch::channels_first(Rows::new(&x, 3).unwrap(), 3).unwrap();
    let to = BatchMut::channels_last(RowsMut::new(&mut y, 3).unwrap(), 2).unwrap();
    let error = BatchNorm::new(3).forward_eval(x, to).unwrap_err();
    assert_eq!(error, Error::Length { what: "y", expected: 1, got: 2 });
    assert_eq!(y, [SENTINEL; 12]);
}

#[test]
fn layers_that_do_not_fit_are_refused() {
    let folded = layernorm::Folded { scale: vec![2.0f32; 3], shift: vec![0.0; 3] };
    let (mut weight, mut bias) = ([1.0f32; 7], [1.0f32; 3]);
    let error = folded.into_layer(&mut weight, &mut bias).unwrap_err();
    assert_eq!(error, Error::Divide { what: "weights", len: 7, parts: 3 });
    assert_eq!(folded.into_layer(&mut weight, &mut bias[..2]).unwrap_err(), length("bias", 3, 2));
    assert_eq!((weight, bias), ([1.0; 7], [1.0; 3]));
}
