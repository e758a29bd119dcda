//! Scale norm and L2 norm.

use super::tools::*;
use layernorm::{
    Gradients, Rows, RowsMut, Run, Workspace, l2_norm, l2_norm_backward, l2_norm_backward_in_place,
    l2_norm_in_place, reference, scale_norm, scale_norm_backward, scale_norm_backward_in_place,
    scale_norm_in_place,
};

for_all!(agree_with_the_reference, in_place_and_strided_too);

/// y, rnorm, dx, dscale of scale norm.
fn run<E: Number>(x: &[E], dy: &[E], n: usize, [scale, eps]: [f64; 2], run: Run) -> Vec<Vec<f64>> {
    let (mut y, mut dx, mut rnorm) = (blank::<E>(x.len()), blank::<E>(x.len()), blank::<E::Acc>(x.len() / n));
    let (mut dscale, mut workspace) = (blank::<E::Acc>(1), Workspace::new());
    let (of_x, dy) = (Rows::new(x, n).unwrap(), Rows::new(dy, n).unwrap());
    let scale = E::of(scale);
    scale_norm(of_x, scale, eps, RowsMut::new(&mut y, n).unwrap(), Some(&mut rnorm), run).unwrap();
    let gradients = Gradients {
        dx: Some(RowsMut::new(&mut dx, n).unwrap()),
        params: Some(of_params(Some(&mut dscale), None, &mut workspace)),
    };
    scale_norm_backward(of_x, dy, scale, eps, gradients, run).unwrap();
    vec![wide(&y), wide(&rnorm), wide(&dx), wide(&dscale)]
}

/// y, rnorm, dx of L2 norm.
fn run_l2<E: Number>(x: &[E], dy: &[E], n: usize, eps: f64, run: Run) -> Vec<Vec<f64>> {
    let (mut y, mut dx, mut rnorm) = (blank::<E>(x.len()), blank::<E>(x.len()), blank::<E::Acc>(x.len() / n));
    let (of_x, dy) = (Rows::new(x, n).unwrap(), Rows::new(dy, n).unwrap());
    l2_norm(of_x, eps, RowsMut::new(&mut y, n).unwrap(), Some(&mut rnorm), run).unwrap();
    l2_norm_backward(of_x, dy, eps, RowsMut::new(&mut dx, n).unwrap(), run).unwrap();
    vec![wide(&y), wide(&rnorm), wide(&dx)]
}

fn agree_with_the_reference<E: Number>() {
    let mut random = Random::new(81);
    for [rows, n] in shapes() {
        let (mut x, dy): (Vec<E>, Vec<E>) = (random.numbers(rows * n), random.numbers(rows * n));
        if rows > 2 {
            // One of zeros, whose length is below every epsilon above 0.
            x[n..2 * n].fill(E::of(0.0));
        }
        // With the large one, some lengths are below it and some are not.
        for eps in [0.0, 1e-12, (n as f64).sqrt()] {
            let eps_used = <E::Acc as Plain>::of(eps).wide();
            let scale = E::of((n as f64).sqrt()).wide();
            let got = everywhere(|how| run(&x, &dy, n, [scale, eps], how));
            let want = reference::scale_norm(&wide(&x), n, scale, eps_used);
            let back = reference::scale_norm_backward(&wide(&dy), &wide(&x), n, scale, eps_used);
            for (i, rnorm) in want.rnorm.iter().enumerate() {
                near::<E::Acc>(got[1][i], *rnorm, 8.0, *rnorm, "rnorm");
                let dy: f64 = dy[i * n..][..n].iter().fold(0.0, |max, dy| max.max(dy.wide().abs()));
                let along: f64 = (0..n).map(|j| (want.y[i * n + j] / scale).abs()).sum::<f64>() * dy;
                for at in (0..n).map(|j| i * n + j) {
                    near::<E>(got[0][at], want.y[at], 8.0, want.y[at].abs(), "y");
                    let measure = scale * rnorm * (dy + (want.y[at] / scale).abs() * along);
                    near::<E>(got[2][at], back.dx[at], 16.0, measure, format_args!("dx[{at}] {n} {eps}"));
                }
            }
            let sum: f64 = want.y.iter().zip(&dy).map(|(y, dy)| (y / scale * dy.wide()).abs()).sum();
            let times = 36.0 + ((rows * n).max(1) as f64).log2();
            near::<E::Acc>(got[3][0], back.dscale, times, sum, "dscale");
            // L2 norm is the same with scale 1.
            let plain = run(&x, &dy, n, [1.0, eps], Run::default());
            same(&everywhere(|how| run_l2(&x, &dy, n, eps, how)), &plain[..3], "L2 norm");
        }
    }
}

fn in_place_and_strided_too<E: Number>() {
    let mut random = Random::new(82);
    for n in [1, 5, 33, 257] {
        let (x, dy): (Vec<E>, Vec<E>) = (random.numbers(3 * n), random.numbers(3 * n));
        let want = run(&x, &dy, n, [0.5, 1e-5], Run::default());
        let of_l2 = run_l2(&x, &dy, n, 1e-5, Run::default());
        let (mut y, mut dx, how) = (x.clone(), dy.clone(), Run::default());
        let source = Rows::new(&x, n).unwrap();
        scale_norm_in_place(RowsMut::new(&mut y, n).unwrap(), E::of(0.5), 1e-5, None, how).unwrap();
        let to = RowsMut::new(&mut dx, n).unwrap();
        scale_norm_backward_in_place(source, to, E::of(0.5), 1e-5, None, how).unwrap();
        same(&[wide(&y), wide(&dx)], &[want[0].clone(), want[2].clone()], "scale norm in place");
        let (mut y, mut dx) = (x.clone(), dy.clone());
        l2_norm_in_place(RowsMut::new(&mut y, n).unwrap(), 1e-5, None, how).unwrap();
        l2_norm_backward_in_place(source, RowsMut::new(&mut dx, n).unwrap(), 1e-5, how).unwrap();
        same(&[wide(&y), wide(&dx)], &[of_l2[0].clone(), of_l2[2].clone()], "L2 norm in place");
        // Two rows of three, with a hole between them.
        let mut y = blank::<E>(3 * n);
        let every_second = Rows::strided(&x, 2, n, 2 * n).unwrap();
        l2_norm(every_second, 1e-5, RowsMut::strided(&mut y, 2, n, 2 * n).unwrap(), None, how).unwrap();
        assert!(is_blank(&y[n..2 * n]));
        same(&[wide(&y[2 * n..])], &[of_l2[0][2 * n..].to_vec()], "strided");
    }
}

#[test]
fn gradients_are_the_slopes() {
    let mut random = Random::new(83);
    for eps in [0.0, 0.1, 40.0] {
        let (x, dy): (Vec<f64>, Vec<f64>) = (random.numbers(12), random.numbers(12));
        let loss = |x: &[f64], scale| dot(&run(x, &dy, 6, [scale, eps], Run::default())[0], &dy);
        let got = run(&x, &dy, 6, [1.5, eps], Run::default());
        slopes(&x, &got[2], |x| loss(x, 1.5), "dx");
        slopes(&[1.5], &got[3], |scale| loss(&x, scale[0]), "dscale");
    }
}

/// Lengths whose squares neither f32 nor f64 can hold.
#[test]
fn huge_and_tiny_rows() {
    let got = everywhere(|how| run(&[3e38f32, -3e38, 3e-39, 4e-39], &[0.0; 4], 2, [1.0, 0.0], how));
    for (got, want) in got[0].iter().zip([0.5f64.sqrt(), -(0.5f64.sqrt()), 0.6, 0.8]) {
        near::<f32>(*got, want, 8.0, 1.0, "f32");
    }
    let got = everywhere(|how| run(&[3e307, -4e307, 3e-310, 4e-310], &[0.0; 4], 2, [1.0, 0.0], how));
    for (got, want) in got[0].iter().zip([0.6, -0.8, 0.6, 0.8]) {
        near::<f64>(*got, want, 8.0, 1.0, "f64");
    }
}
