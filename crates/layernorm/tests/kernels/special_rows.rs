//! Constant rows, numbers that are none, no rows, no features, one feature.

use crate::case::{self, Case, Given, Many, Norm, Results};
use crate::level::{Effort, at, best, levels};
use crate::number::{Stored, Value, difference};
use crate::random::Random;
use crate::rows;
use layernorm::{Gradients, LayerNorm, ParamGradients, Real, Rows, RowsMut, Stats, Workspace};

for_all!(
    constant_rows_give_the_bias,
    one_feature_gives_the_bias_and_no_gradient,
    what_is_no_number_stays_in_its_row,
    no_rows,
    no_features,
);

/// A row of one number, whatever number, is exactly beta: its mean must come out as that number.
fn constant_rows_give_the_bias<T: Stored>() {
    let mut random = Random::new(31);
    let mut constants: Vec<f64> = vec![0.0, -0.0, 0.1, -0.3, 1.0 / 3.0, 1234.0, 16_777_217.0];
    constants.extend(rows::scales::<T>().iter().map(|e| 1.1 * crate::number::power_of_two(*e)));
    constants.extend([T::GREATEST, T::SMALLEST, -T::GREATEST]);
    constants.extend((0..Effort::of(2, 10, 60)).map(|_| random.normal() * 100.0));
    let constants: Vec<f64> = constants.into_iter().step_by(Effort::of(6, 1, 1)).collect();
    for n in
        Effort::of(vec![10], vec![3, 10, 33, 1000], vec![1, 2, 3, 5, 7, 10, 31, 33, 49, 100, 257, 1000, 5001])
    {
        let x: Vec<T> =
            constants.iter().flat_map(|constant| vec![rows::rounded(&[*constant])[0]; n]).collect();
        for eps in [0.0, 1e-6, 1e-5, 1e-3].into_iter().step_by(Effort::of(2, 1, 1)) {
            let many = [random.pick(&Many::ALL), Many::PerUnit];
            let case = Case::new(Norm::Layer, x.clone(), n, &mut random).with_params(many, &mut random);
            let case = Case { eps, ..case };
            let bias: Vec<T> = case.bias.iter().flatten().map(|bias| T::round(*bias)).collect();
            for level in levels() {
                let got = case.run(at(level));
                for (row, y) in got.y.chunks(n).enumerate() {
                    assert_eq!(
                        difference("y", y, &bias),
                        None,
                        "{} x {n}, eps {eps}, {level}",
                        constants[row]
                    );
                    let dx = &got.dx[row * n..][..n];
                    assert!(
                        eps > 0.0 || dx.iter().all(|dx| dx.wide() == 0.0),
                        "{} x {n}: {dx:?}",
                        constants[row]
                    );
                    let v = T::Acc::of(eps).wide();
                    let rstd = if v > 0.0 { 1.0 / v.sqrt() } else { 0.0 };
                    let error = (got.rstd[row].wide() - rstd).abs();
                    assert!(
                        error <= 2.0 * T::Acc::UNIT_ROUNDOFF * rstd,
                        "{} x {n}: {}",
                        constants[row],
                        got.rstd[row]
                    );
                    // m + c is that constant.
                    let mean = got.m[row] + got.c[row];
                    assert_eq!(mean.wide(), x[row * n].wide(), "{} x {n}, eps {eps}", constants[row]);
                }
                assert!(got.dweight.iter().all(|dweight| dweight.wide() == 0.0), "{:?}", got.dweight);
            }
        }
    }
}

fn one_feature_gives_the_bias_and_no_gradient<T: Stored>() {
    let mut random = Random::new(32);
    let x: Vec<T> = (0..Effort::of(3, 50, 50)).map(|_| T::of(random.normal())).collect();
    for (weight, eps) in Many::ALL.into_iter().flat_map(|weight| [0.0, 1e-5, 1.0].map(|eps| (weight, eps))) {
        let case = Case::new(Norm::Layer, x.clone(), 1, &mut random)
            .with_params([weight, Many::PerUnit], &mut random);
        let case = Case { eps, ..case };
        for level in levels() {
            let got = case.run(at(level));
            assert_eq!(got.y, vec![T::round(case.bias.as_ref().unwrap()[0]); x.len()]);
            assert!(got.dx.iter().all(|dx| dx.wide() == 0.0), "eps {eps}, {level}: {:?}", got.dx);
        }
    }
}

/// NaN or infinity in a row: that row's results, and those of no other.
fn what_is_no_number_stays_in_its_row<T: Stored>() {
    let mut random = Random::new(33);
    for n in Effort::of(vec![3], vec![3, 40, 300], vec![1, 2, 3, 16, 40, 300, 1030]) {
        for (norm, special) in Norm::BOTH
            .into_iter()
            .flat_map(|norm| [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|s| (norm, s)))
        {
            let rows = Effort::of(2, 9, 9);
            let x = (0..rows * n).map(|_| T::of(random.normal())).collect();
            let clean = Case::new(norm, x, n, &mut random);
            let (row, j) = (random.below(rows), random.below(n));
            let mut spoilt = clean.clone();
            spoilt.x[row * n + j] = T::of(special);
            for level in levels() {
                let (clean, spoilt) = (clean.run(at(level)), spoilt.run(at(level)));
                let y = &spoilt.y[row * n..][..n];
                assert!(y[j].wide().is_nan(), "{norm:?} {level}: {special} gives {}", y[j]);
                // A mean that is none leaves nothing; RMS norm divides the others by infinity.
                let silent = |y: &T| !y.wide().is_nan() && norm == Norm::Layer;
                assert!(!y.iter().any(silent), "{norm:?} {level}, {special}: {y:?}");
                assert!(!spoilt.rstd[row].finite() || special.is_infinite() && norm == Norm::Rms);
                // The clean results, with those of the spoilt row written over them.
                let mut expected = Results { dweight: vec![], dbias: vec![], ..clean };
                expected.y[row * n..][..n].copy_from_slice(y);
                expected.dx[row * n..][..n].copy_from_slice(&spoilt.dx[row * n..][..n]);
                expected.rstd[row] = spoilt.rstd[row];
                if norm == Norm::Layer {
                    (expected.m[row], expected.c[row]) = (spoilt.m[row], spoilt.c[row]);
                }
                assert_eq!(
                    spoilt.difference_of_rows(&expected),
                    None,
                    "{norm:?} {level}, {special} in row {row}"
                );
            }
        }
    }
}

/// Of no rows all sums are zero; accumulated, they change nothing.
fn no_rows<T: Stored>() {
    for (norm, accumulate) in Norm::BOTH.into_iter().flat_map(|norm| [(norm, false), (norm, true)]) {
        let none = || Rows::<T>::strided(&[], 0, 3, 7).unwrap();
        let (mut dweight, mut dbias) = ([T::Acc::of(5.0); 3], [T::Acc::of(5.0); 1]);
        let params = ParamGradients {
            dweight: Some(&mut dweight),
            dbias: Some(&mut dbias),
            accumulate,
            first_row: 12,
            workspace: &mut Workspace::new(),
        };
        let gradients = Gradients { dx: None, params: Some(params) };
        case::backward(norm, [none(), none()], Given::default(), None, gradients, best()).unwrap();
        let expected = T::Acc::of(if accumulate { 5.0 } else { 0.0 });
        assert_eq!((dweight, dbias), ([expected; 3], [expected]));
        case::forward(norm, none(), Given::default(), RowsMut::new(&mut [], 3).unwrap(), None, best())
            .unwrap();
    }
    let norm = LayerNorm::<T::Acc>::new(4);
    let mut grads = norm.zero_grads();
    norm.backward(&[], &[], &Stats::new(0), &mut [], &mut grads).unwrap();
    assert_eq!(grads.dweight.unwrap(), [T::Acc::of(0.0); 4]);
}

/// Rows without features: nothing to do, and no division by zero to be seen.
fn no_features<T: Stored>() {
    for norm in Norm::BOTH {
        let none = || Rows::<T>::strided(&[], 5, 0, 0).unwrap();
        let mut dweight = [T::Acc::of(5.0)];
        let params = ParamGradients {
            dweight: Some(&mut dweight),
            dbias: Some(&mut []),
            accumulate: false,
            first_row: 0,
            workspace: &mut Workspace::new(),
        };
        let gradients = Gradients { dx: None, params: Some(params) };
        case::backward(norm, [none(), none()], Given::default(), None, gradients, best()).unwrap();
        assert_eq!(dweight, [T::Acc::of(0.0)], "the sum over no features");
        let y = RowsMut::strided(&mut [], 5, 0, 0).unwrap();
        case::forward(norm, none(), Given::default(), y, None, best()).unwrap();
    }
}
