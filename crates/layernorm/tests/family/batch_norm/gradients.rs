//! Finite differences in f64, of training with every kind of mask.

use super::problem::{Problem, Random, Which, at};
use layernorm::Level;

#[test]
#[cfg_attr(miri, ignore = "it compares numbers, and takes no way that the others do not take")]
fn gradients_are_those_of_finite_differences() {
    let mut random = Random(30);
    let which =
        [Which::All, Which::Lengths(vec![3, 0, 5, 2]), Which::Mask((0..20).map(|i| i % 3 != 1).collect())];
    for (last, which) in
        [false, true].into_iter().flat_map(|last| which.iter().map(move |which| (last, which)))
    {
        let mut problem = Problem::<f64>::new(last, [4, 3, 5], &mut random);
        problem.which = which.clone();
        (problem.weight, problem.bias) = (Some(random.normals(3)), Some(random.normals(3)));
        problem.eps = 1e-3;
        let run = |problem: &Problem<f64>| problem.run(at(Level::best()));
        let got = run(&problem);
        let loss = |problem: &Problem<f64>| -> f64 {
            run(problem).y.iter().zip(&problem.dy).map(|(y, dy)| y * dy).sum()
        };
        let h = 1e-5;
        let difference = |change: &dyn Fn(&mut Problem<f64>, f64)| {
            let at = |step: f64| {
                let mut problem = problem.clone();
                change(&mut problem, step);
                loss(&problem)
            };
            (at(h) - at(-h)) / (2.0 * h)
        };
        for i in 0..problem.x.len() {
            let expected = difference(&|problem, step| problem.x[i] += step);
            assert!(
                (got.dx[i] - expected).abs() < 1e-7,
                "{which:?}, last {last}, dx[{i}] {} {expected}",
                got.dx[i]
            );
        }
        for k in 0..3 {
            let expected = difference(&|problem, step| problem.weight.as_mut().unwrap()[k] += step);
            assert!(
                (got.dweight[k] - expected).abs() < 1e-7,
                "{which:?}, dweight {} {expected}",
                got.dweight[k]
            );
            let expected = difference(&|problem, step| problem.bias.as_mut().unwrap()[k] += step);
            assert!((got.dbias[k] - expected).abs() < 1e-7, "{which:?}, dbias {} {expected}", got.dbias[k]);
        }
    }
}
