//! Refusals: both shapes, no panic, and nothing written.

use super::*;
use ndarray::{Array1, Array2, Array3};

/// What nobody computes.
const WRONG: f32 = -77.0;

/// Arrays full of sentinels, so that a write would show.
struct Arrays {
    x: Array3<f32>,
    y: Array3<f32>,
    stats: Stats<f32>,
    sums: [Array1<f32>; 2],
}

impl Arrays {
    fn new(shape: (usize, usize, usize), rows: usize, sums: usize) -> Self {
        let sentinels = Array3::from_elem(shape, WRONG);
        let mut stats = Stats::new(rows);
        [&mut stats.m, &mut stats.c, &mut stats.rstd].into_iter().for_each(|of| of.fill(WRONG));
        Self {
            x: sentinels.clone(),
            y: sentinels,
            stats,
            sums: [(); 2].map(|()| Array1::from_elem(sums, WRONG)),
        }
    }

    /// What every function says, which must be the same.
    #[track_caller]
    fn refused(mut self, norm: &Norm<'_, f32>) -> Error {
        let (run, norm) = (one_thread(), || norm.clone());
        let mut errors = Vec::new();
        let Self { x, y, stats, sums } = &mut self;
        let statistics = stats.clone();
        let other = x.clone();
        let mut workspace = Workspace::new();
        macro_rules! params {
            () => {{
                let [dweight, dbias] = &mut *sums;
                Some(ParamGradients {
                    dweight: Some(dweight.view_mut().into_dyn()),
                    dbias: Some(dbias.view_mut().into_dyn()),
                    ..ParamGradients::new(&mut workspace)
                })
            }};
        }
        let (x_view, saved, rstd) = (other.view(), Some(statistics.as_ref()), Some(&statistics.rstd[..]));
        use layernorm_ndarray as ours;
        errors.push(ours::layer_norm(other.view(), norm(), y.view_mut(), Some(stats.as_mut()), run));
        errors.push(ours::layer_norm_in_place(x.view_mut(), norm(), Some(stats.as_mut()), run));
        errors.push(ours::rms_norm(other.view(), norm(), y.view_mut(), Some(&mut stats.rstd), run));
        errors.push(ours::rms_norm_in_place(x.view_mut(), norm(), Some(&mut stats.rstd), run));
        let gradients = Gradients { dx: Some(y.view_mut()), params: params!() };
        errors.push(ours::layer_norm_backward(x_view, x_view, norm(), saved, gradients, run));
        let gradients = Gradients { dx: Some(y.view_mut()), params: params!() };
        errors.push(ours::rms_norm_backward(x_view, x_view, norm(), rstd, gradients, run));
        errors.push(ours::layer_norm_backward_in_place(x_view, x.view_mut(), norm(), saved, params!(), run));
        errors.push(ours::rms_norm_backward_in_place(x_view, x.view_mut(), norm(), rstd, params!(), run));
        for numbers in [x.iter(), y.iter()] {
            assert!(numbers.copied().all(|number| number == WRONG), "an array was written to");
        }
        for numbers in [&stats.m, &stats.c, &stats.rstd] {
            assert!(numbers.iter().all(|&number| number == WRONG), "statistics were written to");
        }
        assert!(sums.iter().flatten().all(|&number| number == WRONG), "a gradient was written to");
        let mut errors = errors.into_iter().map(|error| error.expect_err("an error"));
        let first = errors.next().expect("one");
        let same = |error: &Error| std::mem::discriminant(error) == std::mem::discriminant(&first);
        errors.for_each(|error| assert!(same(&error), "{error} and {first}"));
        first
    }
}

/// Along the last axis there is one call, along the others tiles.
const AXES: [usize; 3] = [0, 1, 2];
const SHAPE: (usize, usize, usize) = (3, 4, 5);

fn sizes(axis: usize) -> (usize, usize) {
    let features = [3, 4, 5][axis];
    (60 / features, features)
}

#[test]
fn axes() {
    let arrays = || Arrays::new(SHAPE, 12, 5);
    let x = vec![3, 4, 5];
    assert_eq!(arrays().refused(&Norm::over(Axis(3))), Error::Axis { axis: Axis(3), x: x.clone() });
    let huge = Axis(usize::MAX);
    assert_eq!(arrays().refused(&Norm::over(&[Axis(1), huge])), Error::Axis { axis: huge, x: x.clone() });
    assert_eq!(arrays().refused(&Norm::over(&[Axis(2), Axis(2)])), Error::SameAxis { axis: Axis(2) });
    assert_eq!(arrays().refused(&Norm::over(&[])), Error::NoAxis { x });
    let nothing = ndarray::arr0(1.0f32);
    let error = layernorm_ndarray::layer_norm_array(nothing.view(), Norm::<f32>::over(Axis(0)), one_thread());
    assert_eq!(error.unwrap_err(), Error::Axis { axis: Axis(0), x: vec![] });
}

#[test]
fn parameters() {
    for axis in AXES {
        let (rows, features) = sizes(axis);
        for bad in [0, 2, features + 1] {
            let numbers = vec![1.0; bad];
            let expected = |what| Error::Parameter { what, got: vec![bad], expected: vec![features] };
            let norm = || Norm::over(Axis(axis));
            let arrays = || Arrays::new(SHAPE, rows, features);
            assert_eq!(arrays().refused(&norm().with_weight(&numbers)), expected("weight"));
            assert_eq!(arrays().refused(&norm().with_bias(&numbers)), expected("bias"));
            let square = Array2::ones((features, 1));
            assert!(matches!(arrays().refused(&norm().with_bias(&square)), Error::Parameter { .. }));
        }
    }
    let weight = Array2::ones((5, 4));
    let error = Arrays::new(SHAPE, 3, 20).refused(&Norm::over(&[Axis(1), Axis(2)]).with_weight(&weight));
    assert_eq!(error, Error::Parameter { what: "weight", got: vec![5, 4], expected: vec![4, 5] });
    assert_eq!(
        error.to_string(),
        "weight has shape [5, 4] and x, in the axes that are normalised, [4, 5]: \
         weight needs that shape, or as many numbers in one axis, or one number"
    );
}

#[test]
fn statistics_epsilon_and_level() {
    for axis in AXES {
        let (rows, features) = sizes(axis);
        for bad in [0, rows - 1, rows + 1] {
            let error = Arrays::new(SHAPE, bad, features).refused(&Norm::over(Axis(axis)));
            let Error::Kernel(layernorm::Error::Length { expected, got, .. }) = error else {
                panic!("{error}")
            };
            assert_eq!((expected, got), (rows, bad));
        }
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            let error = Arrays::new(SHAPE, rows, features).refused(&Norm::over(Axis(axis)).with_eps(bad));
            assert!(matches!(error, Error::Kernel(layernorm::Error::Epsilon { .. })), "{error}");
        }
    }
    // On nothing too.
    for (shape, axis) in [((0, 4, 5), 2), ((3, 0, 5), 1), ((3, 0, 5), 2)] {
        let rows = if shape.1 == 0 && axis == 1 { 15 } else { 0 };
        let features = if axis == 2 { 5 } else { 0 };
        let error = Arrays::new(shape, rows, features).refused(&Norm::over(Axis(axis)).with_eps(-1.0));
        assert!(matches!(error, Error::Kernel(layernorm::Error::Epsilon { .. })), "{error}");
    }
}

#[test]
fn shapes() {
    let run = one_thread();
    let x = Array2::<f32>::zeros((3, 4));
    let norm = || Norm::<f32>::over(Axis(0));
    for bad in [(4, 3), (3, 5), (1, 4), (0, 0)] {
        let expected = |what| Err(Error::Shape { what, got: vec![bad.0, bad.1], x: vec![3, 4] });
        let mut other = Array2::from_elem(bad, WRONG);
        let (read, mut dx) = (other.clone(), Array2::from_elem((3, 4), WRONG));
        use layernorm_ndarray as ours;
        assert_eq!(ours::layer_norm(x.view(), norm(), other.view_mut(), None, run), expected("y"));
        assert_eq!(ours::rms_norm(x.view(), norm(), other.view_mut(), None, run), expected("y"));
        fn into(dx: &mut Array2<f32>) -> Gradients<'_, f32, ndarray::Ix2> {
            Gradients { dx: Some(dx.view_mut()), params: None }
        }
        let refused = |what, dy: &Array2<f32>, dx: &mut Array2<f32>| {
            let (x, dy) = (x.view(), dy.view());
            assert_eq!(ours::layer_norm_backward(x, dy, norm(), None, into(dx), run), expected(what));
            assert_eq!(ours::rms_norm_backward(x, dy, norm(), None, into(dx), run), expected(what));
        };
        refused("dy", &read, &mut dx);
        refused("dx", &x, &mut other);
        let (dy, n) = (other.view_mut(), norm());
        assert_eq!(ours::layer_norm_backward_in_place(x.view(), dy, n, None, None, run), expected("dy"));
        let (dy, n) = (other.view_mut(), norm());
        assert_eq!(ours::rms_norm_backward_in_place(x.view(), dy, n, None, None, run), expected("dy"));
        assert!(ours::layer_norm_backward_arrays(x.view(), read.view(), norm(), run).is_err());
        assert!(other.iter().chain(&dx).all(|&number| number == WRONG), "written to");
    }
    // Arrays of any dimension may have another one at run time.
    let (x, mut y) = (x.into_dyn(), Array1::<f32>::zeros(12).into_dyn());
    let error = layernorm_ndarray::layer_norm(x.view(), norm(), y.view_mut(), None, run);
    assert_eq!(error, Err(Error::Shape { what: "y", got: vec![12], x: vec![3, 4] }));
}

#[test]
fn gradients_of_parameters() {
    let mut workspace = Workspace::new();
    for (axis, features) in [(0, 3), (1, 4)] {
        let x = Array2::<f32>::zeros((3, 4));
        for bad in [0, 2, 5] {
            let (mut sum, mut dx) = (Array1::from_elem(bad, 7.0), Array2::from_elem((3, 4), 7.0f32));
            let params = ParamGradients {
                dbias: Some(sum.view_mut().into_dyn()),
                ..ParamGradients::new(&mut workspace)
            };
            let gradients = Gradients { dx: Some(dx.view_mut()), params: Some(params) };
            let norm = Norm::<f32>::over(Axis(axis));
            let error =
                layernorm_ndarray::rms_norm_backward(x.view(), x.view(), norm, None, gradients, one_thread());
            assert_eq!(
                error,
                Err(Error::Parameter { what: "dbias", got: vec![bad], expected: vec![features] })
            );
            assert!(dx.iter().chain(&sum).all(|&number| number == 7.0), "written to");
        }
    }
    // Rows past the last index, in one call and in tiles.
    for shape in [(40, 4), (40, 2050)] {
        for axes in [Array2::<f32>::zeros(shape), Array2::zeros((shape.1, shape.0)).reversed_axes()] {
            let (mut dbias, mut dx) = (Array1::from_elem(shape.1, 7.0), Array2::from_elem(shape, 7.0f32));
            let params = ParamGradients {
                dbias: Some(dbias.view_mut().into_dyn()),
                first_row: usize::MAX - 38,
                ..ParamGradients::new(&mut workspace)
            };
            let gradients = Gradients { dx: Some(dx.view_mut()), params: Some(params) };
            let norm = Norm::<f32>::over(Axis(1));
            let error = layernorm_ndarray::layer_norm_backward(
                axes.view(),
                axes.view(),
                norm,
                None,
                gradients,
                one_thread(),
            );
            let expected = layernorm::Error::RowIndex { first_row: usize::MAX - 38, rows: 40 };
            assert_eq!(error, Err(Error::Kernel(expected)));
            assert!(dx.iter().chain(&dbias).all(|&number| number == 7.0), "written to");
        }
    }
}

#[test]
fn nothing_to_do_is_no_error() -> Result<(), Error> {
    let run = one_thread();
    for shape in [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 0)] {
        for axis in AXES {
            let x = Array3::<f64>::zeros(shape);
            let features = x.shape()[axis];
            let weight = Array1::<f64>::ones(features);
            let norm = || Norm::over(Axis(axis)).with_weight(&weight);
            assert_eq!(layernorm_ndarray::layer_norm_array(x.view(), norm(), run)?.dim(), shape);
            let gradients = layernorm_ndarray::rms_norm_backward_arrays(x.view(), x.view(), norm(), run)?;
            assert_eq!(gradients.dweight, Some(Array1::zeros(features).into_dyn()));
        }
    }
    Ok(())
}
