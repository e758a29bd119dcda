//! Weight norm and its initialisation.

use super::tools::*;
use layernorm::{
    Run, WeightNorm, WeightNormGradients, WeightNormInit, Workspace, reference, weight_norm,
    weight_norm_backward, weight_norm_init,
};

for_all!(agrees_with_the_reference, initialises_as_the_reference);

/// A tensor with its units first, and the way back: the index in the tensor of each number of the units' rows.
fn places(shape: &[usize], axis: usize) -> Vec<usize> {
    let after: usize = shape[axis + 1..].iter().product();
    let (units, len): (usize, usize) = (shape[axis], shape.iter().product());
    (0..units).flat_map(|unit| (0..len).filter(move |i| i / after % units == unit)).collect()
}

fn tensors() -> Vec<(Vec<usize>, usize)> {
    let mut all = vec![];
    for shape in
        [&[1][..], &[3, 4], &[5, 1, 3], &[2, 3, 4, 5], &[1, 6, 1, 1, 7], &[40, 300], &[3, 0, 2], &[0, 3]]
    {
        all.extend((0..shape.len()).map(|axis| (shape.to_vec(), axis)));
    }
    all
}

/// w, rnorm, dv, dgain.
fn run<E: Number>(v: &[E], dw: &[E], of: WeightNorm<'_, E>, run: Run) -> Vec<Vec<f64>> {
    let (len, units) = (v.len(), of.gain.len());
    let (mut w, mut dv) = (blank::<E>(len), blank::<E>(len));
    let (mut rnorm, mut dgain) = (blank::<E::Acc>(units), blank::<E::Acc>(units));
    let mut workspace = Workspace::new();
    weight_norm(v, of, &mut w, Some(&mut rnorm), &mut workspace, run).unwrap();
    let saved = (len > 0).then_some(&rnorm[..]);
    let gradients =
        WeightNormGradients { dv: Some(&mut dv), dgain: Some(&mut dgain), workspace: &mut workspace };
    weight_norm_backward(v, dw, of, saved, gradients, run).unwrap();
    // The lengths taken again, and each gradient alone.
    let (mut again, mut dgain_again) = (blank::<E>(len), blank::<E::Acc>(units));
    let gradients = WeightNormGradients { dv: Some(&mut again), dgain: None, workspace: &mut workspace };
    weight_norm_backward(v, dw, of, None, gradients, run).unwrap();
    let gradients =
        WeightNormGradients { dv: None, dgain: Some(&mut dgain_again), workspace: &mut workspace };
    weight_norm_backward(v, dw, of, None, gradients, run).unwrap();
    same(&[wide(&again), wide(&dgain_again)], &[wide(&dv), wide(&dgain)], "taken again");
    vec![wide(&w), wide(&rnorm), wide(&dv), wide(&dgain)]
}

fn agrees_with_the_reference<E: Number>() {
    let mut random = Random::new(101);
    for (shape, axis) in tensors() {
        let (units, len) = (shape[axis], shape.iter().product::<usize>());
        let (mut v, dw): (Vec<E>, Vec<E>) = (random.numbers(len), random.numbers(len));
        let gain: Vec<E> = random.numbers(units);
        let places = places(&shape, axis);
        let n = len.checked_div(units).unwrap_or(0);
        if units > 2 {
            places[n..2 * n].iter().for_each(|i| v[*i] = E::of(0.0));
        }
        let got = everywhere(|how| run(&v, &dw, WeightNorm { gain: &gain, shape: &shape, axis }, how));
        if len == 0 {
            assert!(got[3].iter().all(|dgain| *dgain == 0.0), "{shape:?}");
            continue;
        }
        let rows = |values: &[f64]| -> Vec<f64> { places.iter().map(|i| values[*i]).collect() };
        let (v, dw, gain) = (rows(&wide(&v)), rows(&wide(&dw)), wide(&gain));
        let want = reference::weight_norm(&v, &gain);
        let back = reference::weight_norm_backward(&dw, &v, &gain);
        let (w, dv) = (rows(&got[0]), rows(&got[2]));
        for unit in 0..units {
            let rnorm = if want.norm[unit] == 0.0 { 0.0 } else { 1.0 / want.norm[unit] };
            near::<E::Acc>(got[1][unit], rnorm, 8.0, rnorm, "rnorm");
            let range = unit * n..(unit + 1) * n;
            let along: f64 = range.clone().map(|i| (v[i] * dw[i] * rnorm).abs()).sum();
            near::<E::Acc>(got[3][unit], back.dgain[unit], 24.0, along, "dgain");
            for i in range {
                near::<E>(w[i], want.w[i], 8.0, want.w[i].abs(), "w");
                let measure = (gain[unit] * rnorm).abs() * (dw[i].abs() + (v[i] * rnorm).abs() * along);
                near::<E>(dv[i], back.dv[i], 16.0, measure, format_args!("dv of {shape:?} {axis}"));
            }
        }
        // As rows it has the same bits.
        let [v, dw] = [v, dw].map(|of| rounded::<E>(&of));
        let gain = rounded::<E>(&gain);
        let straight = run(&v, &dw, WeightNorm { gain: &gain, shape: &[units, n], axis: 0 }, Run::default());
        same(&[w, got[1].clone(), dv, got[3].clone()], &straight, &format!("{shape:?} {axis}"));
    }
}

#[test]
fn gradients_are_the_slopes() {
    let mut random = Random::new(102);
    for axis in 0..3 {
        let shape = [2, 3, 4];
        let [v, dw, gain] = [24, 24, shape[axis]].map(|len| random.numbers::<f64>(len));
        let w = |v: &[f64], gain: &[f64]| {
            run(v, &dw, WeightNorm { gain, shape: &shape, axis }, Run::default()).swap_remove(0)
        };
        let got = run(&v, &dw, WeightNorm { gain: &gain, shape: &shape, axis }, Run::default());
        slopes(&v, &got[2], |v| dot(&w(v, &gain), &dw), "dv");
        slopes(&gain, &got[3], |gain| dot(&w(&v, gain), &dw), "dgain");
    }
}

fn initialises_as_the_reference<E: Number>() {
    let mut random = Random::new(103);
    let (samples, inputs, units) = (37, 5, 4);
    let (x, v): (Vec<f64>, Vec<f64>) = (random.numbers(samples * inputs), random.numbers(units * inputs));
    for (scale, eps) in [(1.0, 1e-10), (0.5, 0.0), (2.0, 0.3)] {
        let want = reference::weight_norm_init(&x, &v, inputs, scale, eps);
        let norm = |unit: usize| dot(&v[unit * inputs..][..inputs], &v[unit * inputs..][..inputs]).sqrt();
        let t = |sample: usize, unit: usize| {
            dot(&x[sample * inputs..][..inputs], &v[unit * inputs..][..inputs]) / norm(unit)
        };
        let by_sample: Vec<f64> = (0..samples * units).map(|i| t(i / units, i % units)).collect();
        let by_unit: Vec<f64> = (0..samples * units).map(|i| t(i % samples, i / samples)).collect();
        for (t, shape, axis) in [(&by_sample, [samples, units], 1), (&by_unit, [units, samples], 0)] {
            let t = rounded::<E>(t);
            let got = everywhere(|run| {
                let (mut gain, mut bias) = (blank::<E::Acc>(units), blank::<E::Acc>(units));
                let of = WeightNormInit { shape: &shape, axis, scale, eps };
                weight_norm_init(&t, of, &mut gain, &mut bias, &mut Workspace::new(), run).unwrap();
                vec![wide(&gain), wide(&bias)]
            });
            // The pre-activations were rounded, too.
            let times = 32.0 * E::HALF_ULP / <E::Acc as Plain>::HALF_ULP;
            let wanted = want.gain.iter().zip(&want.bias);
            for ((gain, bias), (got_gain, got_bias)) in wanted.zip(got[0].iter().zip(&got[1])) {
                near::<E::Acc>(*got_gain, *gain, times, *gain, "gain");
                near::<E::Acc>(*got_bias, *bias, times, bias.abs().max(1.0), "bias");
            }
        }
    }
    let (mut gain, mut bias) = ([9.0f32], [9.0f32]);
    let of = WeightNormInit { shape: &[3, 1], axis: 1, scale: 1.0, eps: 0.0 };
    weight_norm_init(&[0.7f32; 3], of, &mut gain, &mut bias, &mut Workspace::new(), Run::default()).unwrap();
    assert_eq!((gain, bias[0].abs()), ([0.0], 0.0), "a unit without variance");
}
