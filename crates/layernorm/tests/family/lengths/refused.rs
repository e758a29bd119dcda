//! What is refused, with both numbers, before anything is written.

use super::tools::*;
use layernorm::{
    Epsilon, Error, Gradients, Heads, Level, Lp, LpNorm, MeanVariance, QkParams, RmsParams, Rows, RowsMut,
    Run, WeightNorm, WeightNormGradients, WeightNormInit, Workspace, l2_norm, lp_norm, lp_norm_backward,
    mean_variance_norm, mean_variance_norm_backward, qk_norm, qk_norm_backward, qk_norm_backward_in_place,
    qk_norm_in_place, rms_norm, rms_norm_backward, scale_norm, scale_norm_backward, weight_norm,
    weight_norm_backward, weight_norm_init,
};

/// A call with outputs that hold what no result is: refused with this error, they still do.
#[track_caller]
fn refused(call: impl FnOnce(&mut [f32], &mut [f32], &mut [f32]) -> Result<(), Error>, error: Error) {
    let mut outputs = [12, 12, 12].map(blank::<f32>);
    let [a, b, c] = &mut outputs;
    assert_eq!(call(a, b, c), Err(error.clone()));
    assert!(outputs.iter().all(|output| is_blank(output)), "written before {error:?}");
    let text = error.to_string();
    let told = match error {
        Error::Level { asked, best } => [asked, best].iter().all(|level| text.contains(&level.to_string())),
        _ => text.chars().any(|c| c.is_ascii_digit()),
    };
    assert!(told, "neither numbers nor levels in {text:?}");
}

const X: [f32; 12] = [1.0; 12];

fn run() -> Run {
    Run::default()
}

/// A level that no machine has beside its own.
fn missing() -> (Run, Error) {
    let asked = Level::ALL.into_iter().find(|level| !level.is_available()).unwrap();
    (Run::default().with_level(asked), Error::Level { asked, best: Level::best() })
}

fn length(what: &'static str, expected: usize, got: usize) -> Error {
    Error::Length { what, expected, got }
}

fn x() -> Rows<'static, f32> {
    Rows::new(&X, 4).unwrap()
}

#[test]
fn options_of_rms_norm() {
    let plain = RmsParams::<f32>::default();
    let max = f64::from(f32::MAX);
    let not_finite = |value| Error::NotFinite { what: "weight_offset", value, max };
    let table = [
        (RmsParams { partial: Some(0), ..plain }, Error::Partial { partial: 0, features: 4 }),
        (RmsParams { partial: Some(5), ..plain }, Error::Partial { partial: 5, features: 4 }),
        (RmsParams { weight_offset: f64::INFINITY, ..plain }, not_finite(f64::INFINITY)),
        (RmsParams { weight_offset: -1e39, ..plain }, not_finite(-1e39)),
        (RmsParams { eps: -1.0, epsilon: Epsilon::Outside, ..plain }, Error::Epsilon { eps: -1.0, max }),
        (RmsParams { weight: Some(&X[..3]), weight_offset: 1.0, ..plain }, length("weight", 4, 3)),
    ];
    for (params, error) in table {
        refused(|y, _, _| rms_norm(x(), params, RowsMut::new(y, 4)?, None, run()), error.clone());
        refused(
            |dx, _, _| {
                let gradients = Gradients { dx: Some(RowsMut::new(dx, 4)?), params: None };
                rms_norm_backward(x(), x(), params, None, gradients, run())
            },
            error,
        );
    }
    let nan = RmsParams { weight_offset: f64::NAN, ..plain };
    let got = rms_norm(x(), nan, RowsMut::new(&mut [0.0; 12], 4).unwrap(), None, run());
    assert!(matches!(got, Err(Error::NotFinite { value, .. }) if value.is_nan()));
    // Not used, but looked at.
    let outside = RmsParams { epsilon: Epsilon::Outside, ..plain };
    let gradients = Gradients { dx: None, params: None };
    let got = rms_norm_backward(x(), x(), outside, Some(&[0.0; 2]), gradients, run());
    assert_eq!(got, Err(length("rstd", 3, 2)));
}

#[test]
fn lengths_and_scales() {
    let shape = |what| Error::Shape { what, expected: (3, 4), got: (4, 3) };
    refused(|y, _, _| l2_norm(x(), 0.0, RowsMut::new(y, 3)?, None, run()), shape("y"));
    refused(|y, _, _| scale_norm(x(), 1.0f32, 0.0, RowsMut::new(y, 3)?, None, run()), shape("y"));
    let eps = Error::Epsilon { eps: -1.0, max: f32::MAX.into() };
    refused(|y, _, _| l2_norm(x(), -1.0, RowsMut::new(y, 4)?, None, run()), eps);
    refused(
        |y, rnorm, _| l2_norm(x(), 0.0, RowsMut::new(y, 4)?, Some(&mut rnorm[..2]), run()),
        length("rnorm", 3, 2),
    );
    for len in [4, 0] {
        refused(
            |dx, dscale, _| {
                let mut workspace = Workspace::new();
                let params = Some(of_params(Some(&mut dscale[..len]), None, &mut workspace));
                let gradients = Gradients { dx: Some(RowsMut::new(dx, 4)?), params };
                scale_norm_backward(x(), x(), 1.0f32, 0.0, gradients, run())
            },
            length("dweight", 1, len),
        );
    }
    let (level, error) = missing();
    refused(|y, _, _| l2_norm(x(), 0.0, RowsMut::new(y, 4)?, None, level), error);
}

#[test]
fn views_of_heads() {
    let at = Heads { tokens: 2, heads: 3, head_dim: 2, stride: 6, offset: 0 };
    let huge = usize::MAX / 2;
    let table = [
        (Heads { stride: 5, ..at }, Error::Stride { stride: 5, features: 6 }),
        (Heads { offset: 1, ..at }, length("the slice under the heads", 13, 12)),
        (Heads { stride: 7, ..at }, length("the slice under the heads", 13, 12)),
        (Heads { offset: usize::MAX, ..at }, Error::Overflow { rows: 2, stride: 6 }),
        (Heads { stride: usize::MAX, ..at }, Error::Overflow { rows: 2, stride: usize::MAX }),
        (Heads { heads: huge, ..at }, length("the slice under the heads", 1, 1)),
        (Heads { tokens: huge, stride: 12, ..at }, Error::Overflow { rows: huge, stride: 3 }),
    ];
    for (at, error) in table {
        let error = if at.heads == huge { Error::Stride { stride: 6, features: huge * 2 } } else { error };
        assert_eq!(Rows::heads(&X, at).unwrap_err(), error, "{at:?}");
        assert_eq!(RowsMut::heads(&mut [0.0f32; 12], at).unwrap_err(), error, "{at:?}");
    }
    let wide = Heads { heads: huge, head_dim: 3, ..at };
    assert_eq!(Rows::heads(&X, wide).unwrap_err(), Error::Overflow { rows: huge, stride: 3 });
    // None at all may lie anywhere.
    let none = Rows::heads(&X, Heads { tokens: 0, offset: 100, ..at }).unwrap();
    assert_eq!((none.rows(), none.row(0)), (0, None));
}

#[test]
fn heads() {
    let at = Heads { tokens: 2, heads: 2, head_dim: 2, stride: 6, offset: 0 };
    let rows = || Rows::heads(&X, at).unwrap();
    let plain = QkParams::<f32> { heads: 2, ..QkParams::default() };
    let of = |rows, group, heads| Error::Heads { rows, group, heads };
    let max = f64::from(f32::MAX);
    let table = [
        (QkParams { heads: 0, ..plain }, of(4, 2, 0)),
        (QkParams { heads: 3, ..plain }, of(4, 2, 3)),
        (QkParams { heads: 4, ..plain }, of(4, 2, 4)),
        (QkParams { heads: 1, ..plain }, of(4, 2, 1)),
        (QkParams { weight: Some(&X[..3]), ..plain }, length("weight", 2, 3)),
        (QkParams { eps: f64::INFINITY, ..plain }, Error::Epsilon { eps: f64::INFINITY, max }),
    ];
    for (params, error) in table {
        refused(|y, _, _| qk_norm(rows(), params, RowsMut::heads(y, at)?, run()), error.clone());
        refused(|y, _, _| qk_norm_in_place(RowsMut::heads(y, at)?, params, run()), error.clone());
        refused(
            |dx, _, _| {
                let gradients = Gradients { dx: Some(RowsMut::heads(dx, at)?), params: None };
                qk_norm_backward(rows(), rows(), params, gradients, run())
            },
            error.clone(),
        );
        refused(
            |dy, _, _| qk_norm_backward_in_place(rows(), RowsMut::heads(dy, at)?, params, None, run()),
            error,
        );
    }
    refused(
        |y, _, _| qk_norm(rows(), QkParams { bias: Some(&X[..5]), ..plain }, RowsMut::heads(y, at)?, run()),
        length("bias", 2, 5),
    );
    // Plain rows that are no whole tokens.
    refused(|y, _, _| qk_norm(x(), plain, RowsMut::new(y, 4)?, run()), of(3, 3, 2));
    // Gradients: for each head both, or none.
    let weight = [1.0; 4];
    let plain = QkParams { weight: Some(&weight[..]), ..plain };
    for (dweight, dbias, first_row, error) in [
        (4, 2, 0, length("dbias", 4, 2)),
        (2, 4, 0, length("dweight", 4, 2)),
        (3, 0, 0, length("dweight", 2, 3)),
        (4, 4, usize::MAX, Error::RowIndex { first_row: usize::MAX, rows: 2 }),
    ] {
        let call = |dx: &mut [f32], dw: &mut [f32], db: &mut [f32], in_place: bool| {
            let mut workspace = Workspace::new();
            let dbias = (dbias > 0).then_some(&mut db[..dbias]);
            let mut of = of_params(Some(&mut dw[..dweight]), dbias, &mut workspace);
            of.first_row = first_row;
            let dx = RowsMut::heads(dx, at)?;
            if in_place {
                return qk_norm_backward_in_place(rows(), dx, plain, Some(of), run());
            }
            qk_norm_backward(rows(), rows(), plain, Gradients { dx: Some(dx), params: Some(of) }, run())
        };
        refused(|dx, dw, db| call(dx, dw, db, false), error.clone());
        refused(|dx, dw, db| call(dx, dw, db, true), error);
    }
    // dx of other rows.
    refused(
        |dx, dw, _| {
            let mut workspace = Workspace::new();
            let of = of_params(Some(&mut dw[..4]), None, &mut workspace);
            let gradients = Gradients { dx: Some(RowsMut::new(&mut dx[..4], 2)?), params: Some(of) };
            qk_norm_backward(rows(), rows(), plain, gradients, run())
        },
        Error::Shape { what: "dx", expected: (4, 2), got: (2, 2) },
    );
}

#[test]
fn weights() {
    let gain = &X[..3];
    let of = WeightNorm { gain, shape: &[3, 4], axis: 0 };
    let (level, no_level) = missing();
    let huge = [usize::MAX, 2];
    let table = [
        (WeightNorm { axis: 2, ..of }, Error::Axis { axis: 2, rank: 2 }, run()),
        (WeightNorm { axis: 1, ..of }, length("gain", 4, 3), run()),
        (WeightNorm { shape: &[3, 5], ..of }, length("v", 15, 12), run()),
        (WeightNorm { shape: &huge, ..of }, Error::Overflow { rows: usize::MAX, stride: 2 }, run()),
        (of, no_level.clone(), level),
        (WeightNorm { shape: &[4, 3], axis: 1, ..of }, no_level, level),
    ];
    for (of, error, run) in table {
        refused(
            |w, rnorm, _| weight_norm(&X, of, w, Some(&mut rnorm[..3]), &mut Workspace::new(), run),
            error.clone(),
        );
        refused(
            |dv, dgain, _| {
                let workspace = &mut Workspace::new();
                let gradients = WeightNormGradients { dv: Some(dv), dgain: Some(&mut dgain[..3]), workspace };
                weight_norm_backward(&X, &X, of, None, gradients, run)
            },
            error,
        );
    }
    for shape in [[3, 4, 1], [1, 4, 3]] {
        let of = WeightNorm { shape: &shape, axis: if shape[0] == 3 { 0 } else { 2 }, ..of };
        let workspace = || Workspace::new();
        refused(
            |w, _, _| weight_norm(&X, of, &mut w[..11], None, &mut workspace(), run()),
            length("w", 12, 11),
        );
        refused(
            |w, rnorm, _| weight_norm(&X, of, w, Some(&mut rnorm[..2]), &mut workspace(), run()),
            length("rnorm", 3, 2),
        );
        for (dw, dv, dgain, rnorm, error) in [
            (11, 12, 3, 3, length("dw", 12, 11)),
            (12, 11, 3, 3, length("dv", 12, 11)),
            (12, 12, 4, 3, length("dgain", 3, 4)),
            (12, 12, 3, 2, length("rnorm", 3, 2)),
        ] {
            refused(
                |of_v, of_gain, _| {
                    let (dv, dgain) = (Some(&mut of_v[..dv]), Some(&mut of_gain[..dgain]));
                    let gradients = WeightNormGradients { dv, dgain, workspace: &mut workspace() };
                    weight_norm_backward(&X, &X[..dw], of, Some(&X[..rnorm]), gradients, run())
                },
                error,
            );
        }
    }
    let of = WeightNormInit { shape: &[4, 3], axis: 1, scale: 1.0, eps: 0.0 };
    let max = f64::from(f32::MAX);
    for (of, units, error) in [
        (WeightNormInit { shape: &[0, 3], ..of }, 3, length("t", 0, 12)),
        (WeightNormInit { axis: 5, ..of }, 3, Error::Axis { axis: 5, rank: 2 }),
        (of, 4, length("gain", 3, 4)),
        (WeightNormInit { eps: -2.0, ..of }, 3, Error::Epsilon { eps: -2.0, max }),
        (
            WeightNormInit { scale: f64::INFINITY, ..of },
            3,
            Error::NotFinite { what: "scale", value: f64::INFINITY, max },
        ),
    ] {
        refused(
            |gain, bias, _| {
                weight_norm_init(&X, of, &mut gain[..units], &mut bias[..3], &mut Workspace::new(), run())
            },
            error,
        );
    }
    let none = WeightNormInit { shape: &[0, 3], ..of };
    refused(
        |gain, bias, _| {
            weight_norm_init::<f32>(&[], none, &mut gain[..3], &mut bias[..3], &mut Workspace::new(), run())
        },
        length("t", 3, 0),
    );
    refused(
        |gain, bias, _| {
            weight_norm_init(&X, of, &mut gain[..3], &mut bias[..2], &mut Workspace::new(), run())
        },
        length("bias", 3, 2),
    );
}

#[test]
fn tensors() {
    let (level, no_level) = missing();
    let workspace = || Workspace::new();
    for axis in [0, 1] {
        for p in [Lp::One, Lp::Two] {
            let of = LpNorm { shape: &[3, 4], axis, p };
            let wrong = LpNorm { shape: &[3, 5], ..of };
            refused(|y, _, _| lp_norm(&X, wrong, y, &mut workspace(), run()), length("x", 15, 12));
            let wrong = LpNorm { axis: 2, ..of };
            refused(
                |y, _, _| lp_norm(&X, wrong, y, &mut workspace(), run()),
                Error::Axis { axis: 2, rank: 2 },
            );
            refused(|y, _, _| lp_norm(&X, of, &mut y[..11], &mut workspace(), run()), length("y", 12, 11));
            refused(|y, _, _| lp_norm(&X, of, y, &mut workspace(), level), no_level.clone());
            let back = |dy: usize, dx: &mut [f32], run| {
                lp_norm_backward(&X, &X[..dy], of, dx, &mut workspace(), run)
            };
            refused(|dx, _, _| back(11, dx, run()), length("dy", 12, 11));
            refused(|dx, _, _| back(12, &mut dx[..11], run()), length("dx", 12, 11));
            refused(|dx, _, _| back(12, dx, level), no_level.clone());
        }
        let of = MeanVariance { shape: &[3, 4], axes: &[axis], eps: 0.0 };
        let wrong = MeanVariance { axes: &[axis, 7], ..of };
        refused(
            |y, _, _| mean_variance_norm(&X, wrong, y, &mut workspace(), run()),
            Error::Axis { axis: 7, rank: 2 },
        );
        let eps = Error::Epsilon { eps: -1.0, max: f32::MAX.into() };
        let wrong = MeanVariance { eps: -1.0, ..of };
        refused(|y, _, _| mean_variance_norm(&X, wrong, y, &mut workspace(), run()), eps.clone());
        refused(|dx, _, _| mean_variance_norm_backward(&X, &X, wrong, dx, &mut workspace(), run()), eps);
        refused(
            |y, _, _| mean_variance_norm(&X, of, &mut y[..3], &mut workspace(), run()),
            length("y", 12, 3),
        );
        refused(|y, _, _| mean_variance_norm(&X, of, y, &mut workspace(), level), no_level.clone());
        refused(
            |dx, _, _| mean_variance_norm_backward(&X, &X[..3], of, dx, &mut workspace(), run()),
            length("dy", 12, 3),
        );
    }
}
