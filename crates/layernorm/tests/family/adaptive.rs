//! Adaptive layer and RMS norm.

use crate::common::*;
use crate::random::Random;
use layernorm::reference::{Modulation as Exact, adaptive_norm, adaptive_norm_backward};
use layernorm::{
    AdaGradients, Companion, Error, Gradients, Modulation, ModulationGradients, ParamGradients, Params, Run,
    ScaleIs, Stats, Workspace, ada_layer_norm, ada_layer_norm_backward, ada_layer_norm_backward_in_place,
    ada_layer_norm_in_place, ada_rms_norm, ada_rms_norm_backward, ada_rms_norm_backward_in_place,
    ada_rms_norm_in_place,
};

for_all_types!(
    within_the_bounds,
    without_modulation_it_is_the_plain_norm,
    a_sample_alone_has_the_bits_of_the_plain_norm,
    the_same_bits_everywhere,
    streamed_outputs_are_the_same,
);

#[derive(Debug, Clone)]
pub(crate) struct Case<E, R> {
    pub(crate) norm: Norm,
    pub(crate) samples: usize,
    pub(crate) n: usize,
    pub(crate) x: Vec<E>,
    pub(crate) dy: Vec<E>,
    pub(crate) scale: Vec<R>,
    pub(crate) shift: Option<Vec<R>>,
    pub(crate) scale_is: ScaleIs,
    pub(crate) eps: f64,
}

impl<E: Number, R: Number + Companion<E>> Case<E, R> {
    pub(crate) fn random(
        norm: Norm,
        [samples, positions]: [usize; 2],
        n: usize,
        random: &mut Random,
    ) -> Self {
        let len = samples * positions * n;
        Self {
            norm,
            samples,
            n,
            x: normal(random, len),
            dy: normal(random, len),
            scale: normal(random, samples * n),
            shift: random.pick(&[true, false]).then(|| normal(random, samples * n)),
            scale_is: random.pick(&[ScaleIs::AboveOne, ScaleIs::Whole]),
            eps: random.pick(&[0.0, 1e-6, 0.1]),
        }
    }

    fn run(&self, way: Way, run: Run) -> Results {
        let (n, rows, samples) = (self.n, self.x.len() / self.n, self.samples);
        let x = Strided::new(&self.x, n, way.hole);
        let scale = Strided::new(&self.scale, n, 2 * way.hole);
        let shift = self.shift.as_ref().map(|shift| Strided::new(shift, n, 3 * way.hole));
        let modulation = Modulation {
            scale: scale.rows(),
            shift: shift.as_ref().map(Strided::rows),
            scale_is: self.scale_is,
            eps: self.eps,
        };
        let mut y = if way.in_place { x.clone() } else { Strided::blank(rows, n, way.hole) };
        let mut saved: Stats<E::Acc> = Stats::new(rows);
        let stats = saved.as_mut();
        match (self.norm, way.in_place) {
            (Norm::Layer, false) => ada_layer_norm(x.rows(), modulation, y.rows_mut(), Some(stats), run),
            (Norm::Layer, true) => ada_layer_norm_in_place(y.rows_mut(), modulation, Some(stats), run),
            (Norm::Rms, false) => ada_rms_norm(x.rows(), modulation, y.rows_mut(), Some(stats.rstd), run),
            (Norm::Rms, true) => ada_rms_norm_in_place(y.rows_mut(), modulation, Some(stats.rstd), run),
        }
        .unwrap();

        let dy = Strided::new(&self.dy, n, way.hole);
        let mut dx = if way.in_place { dy.clone() } else { Strided::blank(rows, n, way.hole) };
        let (mut dscale, mut dshift) = (Sums::<E>::new(samples, n), Sums::<E>::new(samples, n));
        let mut workspace = Workspace::new();
        let of_modulation = Some(ModulationGradients {
            dscale: Some(dscale.rows_mut()),
            dshift: Some(dshift.rows_mut()),
            accumulate: false,
            workspace: &mut workspace,
        });
        let stats = (!way.without_saved).then(|| saved.as_ref());
        let rstd = stats.map(|stats| stats.rstd);
        if way.in_place {
            match self.norm {
                Norm::Layer => ada_layer_norm_backward_in_place(
                    x.rows(),
                    dx.rows_mut(),
                    modulation,
                    stats,
                    of_modulation,
                    run,
                ),
                Norm::Rms => ada_rms_norm_backward_in_place(
                    x.rows(),
                    dx.rows_mut(),
                    modulation,
                    rstd,
                    of_modulation,
                    run,
                ),
            }
        } else {
            let gradients = AdaGradients { dx: Some(dx.rows_mut()), modulation: of_modulation };
            match self.norm {
                Norm::Layer => {
                    ada_layer_norm_backward(x.rows(), dy.rows(), modulation, stats, gradients, run)
                }
                Norm::Rms => ada_rms_norm_backward(x.rows(), dy.rows(), modulation, rstd, gradients, run),
            }
        }
        .unwrap();
        vec![
            ("y", y.wide()),
            ("m", wide_acc::<E>(&saved.m)),
            ("rstd", wide_acc::<E>(&saved.rstd)),
            ("dx", dx.wide()),
            ("dscale", dscale.wide()),
            ("dshift", dshift.wide()),
        ]
    }

    /// What x_hat is multiplied by, less 1: what the oracle calls the scale.
    fn above_one(&self) -> Vec<f64> {
        let less = if self.scale_is == ScaleIs::Whole { 1.0 } else { 0.0 };
        self.scale.iter().map(|scale| scale.wide() - less).collect()
    }
}

fn within_the_bounds<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(11);
    for n in lengths() {
        for norm in Norm::BOTH {
            let [samples, positions] =
                random.pick(&[[0, 0], [1, 1], [3, 1], [1, 3], [2, 9], [3, 17], [4, 2], [2, 0]]);
            let case = Case::<E, R>::random(norm, [samples, positions], n, &mut random);
            let got = case.run(Way::default(), best());
            if positions == 0 {
                assert!(got[4..].iter().all(|(_, sums)| sums.iter().all(|sum| *sum == 0.0)));
                continue;
            }
            let what = format!("{norm:?} {samples} x {positions} x {n}");
            let (x, dy, scale) = (wide(&case.x), wide(&case.dy), case.above_one());
            let shift = case.shift.as_ref().map_or_else(|| vec![0.0; scale.len()], |shift| wide(shift));
            let norm_of = norm.reference(n, in_acc::<E>(case.eps));
            let exact = Exact { scale: &scale, shift: &shift };
            let out = adaptive_norm(&x, norm_of, exact);
            let back = adaptive_norm_backward(&dy, &x, norm_of, exact);
            let zeros = vec![0.0; scale.len()];
            let x_hat = adaptive_norm(&x, norm_of, Exact { scale: &zeros, shift: &zeros }).y;
            let weight = |i: usize| 1.0 + scale[i / (positions * n) * n + i % n];
            near(&format!("{what}: y"), get(&got, "y"), &out.y, |i| {
                // 1 + scale is rounded once; so is the oracle's scale - 1 in f64.
                y_bound::<E>(x_hat[i], weight(i), out.y[i])
                    + 4.0 * E::ACC_U * x_hat[i].abs() * weight(i).abs().max(1.0)
            });
            let unit = |row: usize| {
                let at = |j: usize| (weight(row * n + j) * dy[row * n + j]).abs();
                out.rstd[row] * (0..n).map(at).fold(0.0, f64::max)
            };
            near(&format!("{what}: dx"), get(&got, "dx"), &back.dx, |i| {
                dx_bound::<E, E>(unit(i / n), x_hat[i], back.dx[i])
            });
            let size = |k: usize, with_x_hat: bool| -> f64 {
                let at = |p: usize| (k / n * positions + p) * n + k % n;
                let one = |i: usize| dy[i].abs() * if with_x_hat { x_hat[i].abs() + 1.0 } else { 1.0 };
                (0..positions).map(|p| one(at(p))).sum()
            };
            near(&format!("{what}: dscale"), get(&got, "dscale"), &back.dscale, |k| {
                sum_bound::<E>(positions, size(k, true))
            });
            near(&format!("{what}: dshift"), get(&got, "dshift"), &back.dshift, |k| {
                sum_bound::<E>(positions, size(k, false))
            });
        }
    }
}

/// The plain norm over rows, with its own gradients.
pub(crate) fn plain<E: Number, R: Number + Companion<E>>(
    norm: Norm,
    (x, dy): (&[E], &[E]),
    params: Params<'_, R>,
    n: usize,
) -> Results {
    let (x, dy) = (Strided::new(x, n, 0), Strided::new(dy, n, 0));
    let rows = x.rows().rows();
    let (mut y, mut dx) = (Strided::blank(rows, n, 0), Strided::blank(rows, n, 0));
    let mut saved: Stats<E::Acc> = Stats::new(rows);
    let (mut dweight, mut dbias) = (vec![E::acc(0.0); n], vec![E::acc(0.0); n]);
    let mut workspace = Workspace::new();
    let of_params = ParamGradients {
        dweight: Some(&mut dweight),
        dbias: Some(&mut dbias),
        accumulate: false,
        first_row: 0,
        workspace: &mut workspace,
    };
    let gradients = Gradients { dx: Some(dx.rows_mut()), params: Some(of_params) };
    match norm {
        Norm::Layer => {
            layernorm::layer_norm(x.rows(), params, y.rows_mut(), Some(saved.as_mut()), best()).unwrap();
            let saved = Some(saved.as_ref());
            layernorm::layer_norm_backward(x.rows(), dy.rows(), params, saved, gradients, best()).unwrap();
        }
        Norm::Rms => {
            layernorm::rms_norm(x.rows(), params, y.rows_mut(), Some(&mut saved.rstd), best()).unwrap();
            let saved = Some(&saved.rstd[..]);
            layernorm::rms_norm_backward(x.rows(), dy.rows(), params, saved, gradients, best()).unwrap();
        }
    }
    vec![
        ("y", y.wide()),
        ("m", wide_acc::<E>(&saved.m)),
        ("rstd", wide_acc::<E>(&saved.rstd)),
        ("dx", dx.wide()),
        ("dweight", wide_acc::<E>(&dweight)),
        ("dbias", wide_acc::<E>(&dbias)),
    ]
}

/// Scale 0 and shift 0: weight 1 and bias 0.
fn without_modulation_it_is_the_plain_norm<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(12);
    for n in lengths() {
        for norm in Norm::BOTH {
            let samples = random.pick(&[1, 2, 3]);
            let mut case = Case::<E, R>::random(norm, [samples, 9], n, &mut random);
            hard_rows(&mut case.x, n, &mut random);
            case.scale_is = ScaleIs::AboveOne;
            case.scale.fill(R::of(0.0));
            case.shift = Some(case.scale.clone());
            let got = case.run(Way::default(), best());
            let (ones, zeros) = (vec![R::of(1.0); n], vec![R::of(0.0); n]);
            let params = Params { weight: Some(&ones[..]), bias: Some(&zeros[..]), eps: case.eps };
            let expected = plain(norm, (&case.x, &case.dy), params, n);
            for what in ["y", "m", "rstd", "dx"] {
                same(&format!("{norm:?} {samples} x 9 x {n}: {what}"), get(&got, what), get(&expected, what));
            }
        }
    }
}

/// With its scale as the weight and its shift as the bias; dscale and dshift too.
fn a_sample_alone_has_the_bits_of_the_plain_norm<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(13);
    for (samples, positions, n) in [(3, 5, 3), (5, 1, 40), (2, 20, 129), (7, 9, 64), (2, 130, 600)] {
        if !affordable(samples * positions * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let mut case = Case::<E, R>::random(norm, [samples, positions], n, &mut random);
            hard_rows(&mut case.x, n, &mut random);
            case.scale_is = ScaleIs::Whole;
            let got = case.run(Way::default(), best());
            for sample in 0..samples {
                let rows = sample * positions * n..(sample + 1) * positions * n;
                let unit = sample * n..(sample + 1) * n;
                let params = Params {
                    weight: Some(&case.scale[unit.clone()]),
                    bias: case.shift.as_ref().map(|shift| &shift[unit.clone()]),
                    eps: case.eps,
                };
                let expected = plain(norm, (&case.x[rows.clone()], &case.dy[rows.clone()]), params, n);
                let what = format!("{norm:?} {samples} x {positions} x {n}");
                same(&what, &get(&got, "y")[rows.clone()], get(&expected, "y"));
                same(&what, &get(&got, "dx")[rows], get(&expected, "dx"));
                same(&what, &get(&got, "dscale")[unit.clone()], get(&expected, "dweight"));
                same(&what, &get(&got, "dshift")[unit], get(&expected, "dbias"));
            }
        }
    }
}

fn the_same_bits_everywhere<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(14);
    for (samples, positions, n) in
        [(9, 1, 1), (3, 5, 7), (1, 33, 40), (60, 4, 600), (2, 130, 600), (3, 50, 1000), (1, 3, 9_000)]
    {
        if !affordable(samples * positions * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let mut case = Case::<E, R>::random(norm, [samples, positions], n, &mut random);
            hard_rows(&mut case.x, n, &mut random);
            let what = format!("{norm:?} {samples} x {positions} x {n}");
            in_every_way(&what, |way, run| case.run(way, run));
        }
    }
}

fn streamed_outputs_are_the_same<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(15);
    for (samples, positions, n) in [(10, 1800, 60), (480, 1, 2200)] {
        if !affordable(samples * positions * n) {
            continue;
        }
        let mut case = Case::<E, R>::random(Norm::Layer, [samples, positions], n, &mut random);
        hard_rows(&mut case.x, n, &mut random);
        here_and_there(&format!("{samples} x {positions} x {n}"), |run| case.run(Way::default(), run));
    }
}

#[test]
fn agree_with_differences_of_the_loss() {
    let mut random = Random::new(16);
    for (samples, positions, n) in [(1, 1, 1), (2, 1, 2), (2, 3, 7)] {
        if !affordable(samples * positions * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let case = Case::<f64, f64>::random(norm, [samples, positions], n, &mut random);
            let case = Case { eps: 0.1, shift: Some(normal(&mut random, samples * n)), ..case };
            let loss = |case: &Case<f64, f64>| -> f64 {
                let got = case.run(Way::default(), best());
                get(&got, "y").iter().zip(&case.dy).map(|(y, dy)| y * dy).sum()
            };
            let got = case.run(Way::default(), best());
            is_gradient("dx", get(&got, "dx"), &case.x, |x| loss(&Case { x: x.to_vec(), ..case.clone() }));
            is_gradient("dscale", get(&got, "dscale"), &case.scale, |scale| {
                loss(&Case { scale: scale.to_vec(), ..case.clone() })
            });
            is_gradient("dshift", get(&got, "dshift"), case.shift.as_ref().unwrap(), |shift| {
                loss(&Case { shift: Some(shift.to_vec()), ..case.clone() })
            });
        }
    }
}

#[test]
fn totals_are_added_to_gradients_that_are_there() {
    let x = Strided::<f32>::new(&[1.0, 3.0, 3.0, 1.0], 2, 0);
    let scale = Strided::<f32>::new(&[0.0; 4], 2, 0);
    let modulation = Modulation { scale: scale.rows(), shift: None, scale_is: ScaleIs::AboveOne, eps: 0.0 };
    let (mut dscale, mut workspace) =
        (Strided::<f32>::new(&[10.0, 20.0, 30.0, 40.0], 2, 1), Workspace::new());
    let sums = ModulationGradients {
        dscale: Some(dscale.rows_mut()),
        dshift: None,
        accumulate: true,
        workspace: &mut workspace,
    };
    let gradients = AdaGradients { dx: None, modulation: Some(sums) };
    ada_layer_norm_backward(x.rows(), x.rows(), modulation, None, gradients, best()).unwrap();
    assert_eq!(dscale.wide(), [9.0, 23.0, 33.0, 39.0]);
}

/// One wrong size at a time.
#[test]
fn wrong_sizes_are_refused_before_anything_is_written() {
    const N: usize = 4;
    for wrong in 0..=6 {
        let mut rows = [6usize, 2, 2, 6, 6, 2];
        if let Some(rows) = rows.get_mut(wrong) {
            *rows += 2;
        }
        let [of_y, of_scale, of_shift, of_dy, of_dx, of_dscale] = rows;
        let x = Strided::<f32>::blank(6, N, 0);
        let blank = |rows: usize| Strided::<f32>::blank(rows, N, 0);
        let (mut y, scale, shift, dy) = (blank(of_y), blank(of_scale), blank(of_shift), blank(of_dy));
        let (mut dx, mut dscale, mut workspace) = (blank(of_dx), blank(of_dscale), Workspace::new());
        let modulation = Modulation {
            scale: scale.rows(),
            shift: Some(shift.rows()),
            scale_is: ScaleIs::AboveOne,
            eps: 1e-6,
        };
        let forward = ada_rms_norm(x.rows(), modulation, y.rows_mut(), None, best());
        let sums = ModulationGradients {
            dscale: Some(dscale.rows_mut()),
            dshift: None,
            accumulate: false,
            workspace: &mut workspace,
        };
        let gradients = AdaGradients { dx: Some(dx.rows_mut()), modulation: Some(sums) };
        let backward = ada_rms_norm_backward(x.rows(), dy.rows(), modulation, None, gradients, best());
        let shape = |what, right, got| Err(Error::Shape { what, expected: (right, N), got: (got, N) });
        let expected: [Result<(), Error>; 2] = match wrong {
            0 => [shape("y", 6, 8), Ok(())],
            1 => [shape("shift", 4, 2), shape("shift", 4, 2)],
            2 => [shape("shift", 2, 4), shape("shift", 2, 4)],
            3 => [Ok(()), shape("dy", 6, 8)],
            4 => [Ok(()), shape("dx", 6, 8)],
            5 => [Ok(()), shape("dscale", 2, 4)],
            _ => [Ok(()), Ok(())],
        };
        assert_eq!([&forward, &backward], [&expected[0], &expected[1]], "wrong size {wrong}");
        assert!(forward.is_ok() || y.untouched());
        assert!(backward.is_ok() || dx.untouched() && dscale.untouched());
    }
    // Samples that do not divide the rows, and none for rows that there are.
    for samples in [0, 4] {
        let (x, scale) = (Strided::<f32>::blank(6, N, 0), Strided::<f32>::blank(samples, N, 0));
        let mut y = x.clone();
        let modulation =
            Modulation { scale: scale.rows(), shift: None, scale_is: ScaleIs::AboveOne, eps: 1e-6 };
        let refused = ada_layer_norm(x.rows(), modulation, y.rows_mut(), None, best());
        assert_eq!(refused, Err(Error::Samples { rows: 6, samples }));
        assert!(y.untouched());
    }
}
