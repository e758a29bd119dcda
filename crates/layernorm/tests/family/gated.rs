//! Gated residuals, alone and with the adaptive norm that follows them.

use crate::common::*;
use crate::random::Random;
use layernorm::{
    AdaGradients, Companion, Error, GateGradient, GatedGradients, GatedNormGradients, GatedResidual,
    Modulation, ModulationGradients, Run, ScaleIs, Stats, Upstream, Workspace, ada_layer_norm,
    ada_layer_norm_backward, ada_rms_norm, ada_rms_norm_backward, gated_ada_layer_norm,
    gated_ada_layer_norm_backward, gated_ada_rms_norm, gated_ada_rms_norm_backward, gated_residual,
    gated_residual_backward, gated_residual_in_place,
};

for_all_types!(
    exact_sums_and_gradients,
    fused_is_our_own_unfused_calls,
    the_same_bits_everywhere,
    streamed_outputs_are_the_same,
);

#[derive(Debug, Clone)]
struct Case<E, R> {
    norm: Norm,
    samples: usize,
    n: usize,
    x: Vec<E>,
    residual: Vec<R>,
    gate: Vec<R>,
    scale: Vec<R>,
    shift: Vec<R>,
    dy: Vec<E>,
    upstream: Option<Vec<R>>,
}

impl<E: Number, R: Number + Companion<E>> Case<E, R> {
    fn random(norm: Norm, [samples, positions]: [usize; 2], n: usize, random: &mut Random) -> Self {
        let len = samples * positions * n;
        Self {
            norm,
            samples,
            n,
            x: normal(random, len),
            residual: normal(random, len),
            gate: normal(random, samples * n),
            scale: normal(random, samples * n),
            shift: normal(random, samples * n),
            dy: normal(random, len),
            upstream: random.pick(&[true, false]).then(|| normal(random, len)),
        }
    }

    fn gate_of(&self, i: usize) -> f64 {
        let positions = self.x.len() / self.n / self.samples;
        self.gate[i / (positions * self.n) * self.n + i % self.n].wide()
    }

    fn modulation<'a>(&self, scale: &'a Strided<R>, shift: &'a Strided<R>) -> Modulation<'a, R> {
        let (scale, shift) = (scale.rows(), Some(shift.rows()));
        Modulation { scale, shift, scale_is: ScaleIs::AboveOne, eps: 1e-6 }
    }

    /// The gated residual alone, and its gradients from an upstream one.
    fn alone(&self, way: Way, run: Run) -> Results {
        let (n, rows) = (self.n, self.x.len() / self.n);
        let (x, residual) = (Strided::new(&self.x, n, way.hole), Strided::new(&self.residual, n, way.hole));
        let gate = Strided::new(&self.gate, n, way.hole);
        let mut out = residual.clone();
        if way.in_place {
            gated_residual_in_place(x.rows(), out.rows_mut(), gate.rows(), run).unwrap();
        } else {
            let of = GatedResidual { residual: residual.rows(), gate: gate.rows(), out: out.rows_mut() };
            gated_residual(x.rows(), of, run).unwrap();
        }
        let Some(upstream) = &self.upstream else { return vec![("out", out.wide())] };
        let dout = Strided::new(upstream, n, way.hole);
        let (mut dx, mut dgate) = (Strided::blank(rows, n, way.hole), Sums::<E>::new(self.samples, n));
        let mut workspace = Workspace::new();
        let of_gate = GateGradient { dgate: dgate.rows_mut(), accumulate: false, workspace: &mut workspace };
        let gradients = GatedGradients { dx: Some(dx.rows_mut()), gate: Some(of_gate) };
        gated_residual_backward(x.rows(), dout.rows(), gate.rows(), gradients, run).unwrap();
        vec![("out", out.wide()), ("dx", dx.wide()), ("dgate", dgate.wide())]
    }

    /// With the norm that follows.
    fn fused(&self, way: Way, run: Run) -> Results {
        let (n, rows, samples) = (self.n, self.x.len() / self.n, self.samples);
        let (x, residual) = (Strided::new(&self.x, n, way.hole), Strided::new(&self.residual, n, way.hole));
        let [gate, scale, shift] =
            [&self.gate, &self.scale, &self.shift].map(|of| Strided::new(of, n, way.hole));
        let modulation = self.modulation(&scale, &shift);
        let (mut out, mut y) = (residual.clone(), Strided::blank(rows, n, way.hole));
        let mut saved: Stats<E::Acc> = Stats::new(rows);
        let of = GatedResidual { residual: residual.rows(), gate: gate.rows(), out: out.rows_mut() };
        let stats = saved.as_mut();
        match self.norm {
            Norm::Layer => gated_ada_layer_norm(x.rows(), of, modulation, y.rows_mut(), Some(stats), run),
            Norm::Rms => gated_ada_rms_norm(x.rows(), of, modulation, y.rows_mut(), Some(stats.rstd), run),
        }
        .unwrap();
        let dy = Strided::new(&self.dy, n, way.hole);
        let upstream = self.upstream.as_ref().map(|of| Strided::new(of, n, way.hole));
        let mut dresidual = upstream.clone().filter(|_| way.in_place).unwrap_or_else(|| residual.clone());
        let mut dx = Strided::blank(rows, n, way.hole);
        let [mut dgate, mut dscale, mut dshift] = [(); 3].map(|()| Sums::<E>::new(samples, n));
        let [mut of_gate, mut of_modulation] = [Workspace::new(), Workspace::new()];
        let gradients = GatedNormGradients {
            x: x.rows(),
            gate: gate.rows(),
            upstream: match &upstream {
                None => Upstream::Nothing,
                Some(_) if way.in_place => Upstream::InPlace,
                Some(upstream) => Upstream::Apart(upstream.rows()),
            },
            dresidual: dresidual.rows_mut(),
            branch: GatedGradients {
                dx: Some(dx.rows_mut()),
                gate: Some(GateGradient {
                    dgate: dgate.rows_mut(),
                    accumulate: false,
                    workspace: &mut of_gate,
                }),
            },
            modulation: Some(ModulationGradients {
                dscale: Some(dscale.rows_mut()),
                dshift: Some(dshift.rows_mut()),
                accumulate: false,
                workspace: &mut of_modulation,
            }),
        };
        let stats = (!way.without_saved).then(|| saved.as_ref());
        match self.norm {
            Norm::Layer => {
                gated_ada_layer_norm_backward(out.rows(), dy.rows(), modulation, stats, gradients, run)
            }
            Norm::Rms => {
                let rstd = stats.map(|stats| stats.rstd);
                gated_ada_rms_norm_backward(out.rows(), dy.rows(), modulation, rstd, gradients, run)
            }
        }
        .unwrap();
        vec![
            ("out", out.wide()),
            ("y", y.wide()),
            ("dresidual", dresidual.wide()),
            ("dx", dx.wide()),
            ("dgate", dgate.wide()),
            ("dscale", dscale.wide()),
            ("dshift", dshift.wide()),
        ]
    }
}

const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 1),
    (3, 5, 3),
    (5, 1, 40),
    (2, 20, 129),
    (7, 9, 64),
    (40, 5, 600),
    (2, 130, 600),
    (1, 9, 300),
    (2, 3, 5_000),
];

fn exact_sums_and_gradients<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(21);
    for (samples, positions, n) in SHAPES {
        if !affordable(samples * positions * n) {
            continue;
        }
        let mut case = Case::<E, R>::random(Norm::Layer, [samples, positions], n, &mut random);
        let dout: Vec<R> = normal(&mut random, case.x.len());
        case.upstream = Some(dout.clone());
        let got = case.alone(Way::default(), best());
        let fma = |a: f64, b: f64, c: f64| {
            if E::ACC_U > 1e-10 { f64::from((a as f32).mul_add(b as f32, c as f32)) } else { a.mul_add(b, c) }
        };
        let out = |i: usize| R::of(fma(case.gate_of(i), case.x[i].wide(), case.residual[i].wide())).wide();
        let all = 0..case.x.len();
        same("out", get(&got, "out"), &all.clone().map(out).collect::<Vec<_>>());
        let dx = |i: usize| E::of(in_acc::<E>(case.gate_of(i) * dout[i].wide())).wide();
        same("dx", get(&got, "dx"), &all.map(dx).collect::<Vec<_>>());
        let exact =
            layernorm::reference::gated_residual_backward(&wide(&dout), &wide(&case.gate), &wide(&case.x), n);
        near("dgate", get(&got, "dgate"), &exact.dgate, |k| {
            let at = |p: usize| (k / n * positions + p) * n + k % n;
            let size = (0..positions).map(|p| (dout[at(p)].wide() * case.x[at(p)].wide()).abs()).sum();
            sum_bound::<E>(positions, size)
        });
    }
}

/// The gated residual, then the adaptive norm of what it stored; where that has another type, in that type.
fn fused_is_our_own_unfused_calls<E: Number, R: Number + Companion<E>>() {
    if E::NAME != R::NAME {
        // The norm alone would need parameters and gradients of another type; see the add and norm's test.
        return;
    }
    let mut random = Random::new(22);
    for (samples, positions, n) in SHAPES {
        if !affordable(samples * positions * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let mut case = Case::<E, R>::random(norm, [samples, positions], n, &mut random);
            if E::U != E::ACC_U {
                // dx of the norm alone is rounded to a half before anything can be added to it.
                case.upstream = None;
            }
            let got = case.fused(Way::default(), best());
            let rows = samples * positions;
            let alone = Case { upstream: None, ..case.clone() }.alone(Way::default(), best());
            same("out", get(&got, "out"), get(&alone, "out"));
            let out = Strided::<E>::new(&of::<E>(get(&got, "out")), n, 0);
            let dy = Strided::new(&case.dy, n, 0);
            let [scale, shift] = [&case.scale, &case.shift].map(|of| Strided::new(of, n, 0));
            let modulation = case.modulation(&scale, &shift);
            let (mut y, mut dx) = (Strided::<E>::blank(rows, n, 0), Strided::<E>::blank(rows, n, 0));
            let [mut dscale, mut dshift] = [(); 2].map(|()| Sums::<E>::new(samples, n));
            let mut workspace = Workspace::new();
            let gradients = AdaGradients {
                dx: Some(dx.rows_mut()),
                modulation: Some(ModulationGradients {
                    dscale: Some(dscale.rows_mut()),
                    dshift: Some(dshift.rows_mut()),
                    accumulate: false,
                    workspace: &mut workspace,
                }),
            };
            match norm {
                Norm::Layer => {
                    ada_layer_norm(out.rows(), modulation, y.rows_mut(), None, best()).unwrap();
                    ada_layer_norm_backward(out.rows(), dy.rows(), modulation, None, gradients, best())
                        .unwrap();
                }
                Norm::Rms => {
                    ada_rms_norm(out.rows(), modulation, y.rows_mut(), None, best()).unwrap();
                    ada_rms_norm_backward(out.rows(), dy.rows(), modulation, None, gradients, best())
                        .unwrap();
                }
            }
            let what = format!("{norm:?} {samples} x {positions} x {n}");
            same(&format!("{what}: y"), get(&got, "y"), &y.wide());
            same(&format!("{what}: dscale"), get(&got, "dscale"), &dscale.wide());
            same(&format!("{what}: dshift"), get(&got, "dshift"), &dshift.wide());
            let mut dresidual: Vec<R> = of(&dx.wide());
            if let Some(upstream) = &case.upstream {
                let add = |(d, upstream): (&mut R, &R)| *d = R::of(d.wide() + upstream.wide());
                dresidual.iter_mut().zip(upstream).for_each(add);
            }
            same(&format!("{what}: dresidual"), get(&got, "dresidual"), &wide(&dresidual));
            let alone = Case { upstream: Some(dresidual), ..case.clone() }.alone(Way::default(), best());
            same(&format!("{what}: dx"), get(&got, "dx"), get(&alone, "dx"));
            same(&format!("{what}: dgate"), get(&got, "dgate"), get(&alone, "dgate"));
        }
    }
}

fn the_same_bits_everywhere<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(23);
    for (samples, positions, n) in SHAPES {
        if !affordable(samples * positions * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let mut case = Case::<E, R>::random(norm, [samples, positions], n, &mut random);
            hard_rows(&mut case.residual, n, &mut random);
            let what = format!("{norm:?} {samples} x {positions} x {n}");
            in_every_way(&what, |way, run| case.fused(way, run));
            in_every_way(&what, |way, run| case.alone(way, run));
        }
    }
}

fn streamed_outputs_are_the_same<E: Number, R: Number + Companion<E>>() {
    let mut random = Random::new(24);
    for (samples, positions, n) in [(10, 1800, 60), (2, 240, 2200)] {
        if !affordable(samples * positions * n) {
            continue;
        }
        let mut case = Case::<E, R>::random(Norm::Layer, [samples, positions], n, &mut random);
        hard_rows(&mut case.residual, n, &mut random);
        here_and_there(&format!("{samples} x {positions} x {n}"), |run| case.fused(Way::default(), run));
    }
}

#[test]
fn agree_with_differences_of_the_loss() {
    let mut random = Random::new(25);
    for (samples, positions, n) in [(1, 1, 1), (2, 1, 2), (2, 3, 7)] {
        if !affordable(samples * positions * n) {
            continue;
        }
        for norm in Norm::BOTH {
            let case = Case::<f64, f64>::random(norm, [samples, positions], n, &mut random);
            let upstream: Vec<f64> = normal(&mut random, case.x.len());
            // Rows away from 0, where the norm is steep.
            let residual = case.residual.iter().enumerate().map(|(i, r)| 2.0 * r + (i % n) as f64 + 1.0);
            let case = Case { residual: residual.collect(), upstream: Some(upstream.clone()), ..case };
            let loss = |case: &Case<f64, f64>| -> f64 {
                let got = case.fused(Way::default(), best());
                let dot =
                    |what, by: &[f64]| -> f64 { get(&got, what).iter().zip(by).map(|(a, b)| a * b).sum() };
                dot("y", &case.dy) + dot("out", &upstream)
            };
            if norm == Norm::Layer && n < 3 {
                continue;
            }
            let got = case.fused(Way::default(), best());
            let what = |name: &str| format!("{norm:?} {samples} x {positions} x {n}: {name}");
            is_gradient(&what("dx"), get(&got, "dx"), &case.x, |x| {
                loss(&Case { x: x.to_vec(), ..case.clone() })
            });
            is_gradient(&what("dresidual"), get(&got, "dresidual"), &case.residual, |residual| {
                loss(&Case { residual: residual.to_vec(), ..case.clone() })
            });
            is_gradient(&what("dgate"), get(&got, "dgate"), &case.gate, |gate| {
                loss(&Case { gate: gate.to_vec(), ..case.clone() })
            });
            is_gradient(&what("dscale"), get(&got, "dscale"), &case.scale, |scale| {
                loss(&Case { scale: scale.to_vec(), ..case.clone() })
            });
        }
    }
}

#[test]
fn wrong_sizes_are_refused_before_anything_is_written() {
    const N: usize = 4;
    let blank = |rows: usize| Strided::<f32>::blank(rows, N, 0);
    let (x, gate) = (blank(6), blank(2));
    let shape = |what, right, got| Err(Error::Shape { what, expected: (right, N), got: (got, N) });
    for (of_residual, of_out, of_gate, expected) in [
        (5, 6, 2, shape("residual", 6, 5)),
        (6, 5, 2, shape("out", 6, 5)),
        (6, 6, 4, Err(Error::Samples { rows: 6, samples: 4 })),
        (6, 6, 0, Err(Error::Samples { rows: 6, samples: 0 })),
        (6, 6, 3, Ok(())),
    ] {
        let (residual, gate, mut out, mut y) = (blank(of_residual), blank(of_gate), blank(of_out), blank(6));
        let of = GatedResidual { residual: residual.rows(), gate: gate.rows(), out: out.rows_mut() };
        let got = gated_residual(x.rows(), of, best());
        assert_eq!(got, expected);
        assert!(got.is_ok() || out.untouched());
        let scale = blank(1);
        let modulation =
            Modulation { scale: scale.rows(), shift: None, scale_is: ScaleIs::AboveOne, eps: 1e-6 };
        let of = GatedResidual { residual: residual.rows(), gate: gate.rows(), out: out.rows_mut() };
        let got = gated_ada_rms_norm(x.rows(), of, modulation, y.rows_mut(), None, best());
        assert_eq!(got, expected);
        assert!(got.is_ok() || out.untouched() && y.untouched());
    }
    for (of_dout, of_dx, of_dgate, expected) in [
        (5, 6, 2, shape("dout", 6, 5)),
        (6, 5, 2, shape("dx", 6, 5)),
        (6, 6, 3, shape("dgate", 2, 3)),
        (6, 6, 2, Ok(())),
    ] {
        let (dout, mut dx, mut dgate) = (blank(of_dout), blank(of_dx), blank(of_dgate));
        let mut workspace = Workspace::new();
        let of_gate = GateGradient { dgate: dgate.rows_mut(), accumulate: false, workspace: &mut workspace };
        let gradients = GatedGradients { dx: Some(dx.rows_mut()), gate: Some(of_gate) };
        let got = gated_residual_backward(x.rows(), dout.rows(), gate.rows(), gradients, best());
        assert_eq!(got, expected);
        assert!(got.is_ok() || dx.untouched() && dgate.untouched());
    }
}
