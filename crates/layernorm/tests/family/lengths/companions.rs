//! Parameters in f32 beside halves: the same bits as halves of the same value.

use super::tools::*;
use half::{bf16, f16};
use layernorm::{
    Companion, QkParams, RmsParams, Rounding, Rows, RowsMut, Run, WeightNorm, Workspace, qk_norm, rms_norm,
    scale_norm, weight_norm,
};

/// Every operator that has parameters.
fn results<E: Number, P: Companion<E> + Plain>(x: &[E], weight: &[f64]) -> Vec<Vec<f64>> {
    let weight: Vec<P> = rounded(weight);
    let (mut outputs, n) = ([(); 4].map(|()| blank::<E>(x.len())), weight.len());
    let rows = Rows::new(x, n).unwrap();
    let [rms, scale, qk, weights] = &mut outputs;
    let params = RmsParams { weight: Some(&weight), weight_offset: 1.0, ..RmsParams::default() };
    let params = RmsParams { bias: Some(&weight), rounding: Rounding::Llama, ..params };
    rms_norm(rows, params, RowsMut::new(rms, n).unwrap(), None, Run::default()).unwrap();
    scale_norm(rows, weight[0], 1e-5, RowsMut::new(scale, n).unwrap(), None, Run::default()).unwrap();
    let params = QkParams { heads: 2, weight: Some(&weight), ..QkParams::default() };
    let heads = Rows::new(x, n / 2).unwrap();
    qk_norm(heads, params, RowsMut::new(qk, n / 2).unwrap(), Run::default()).unwrap();
    let of = WeightNorm { gain: &weight, shape: &[x.len() / n, n], axis: 1 };
    weight_norm(x, of, weights, None, &mut Workspace::new(), Run::default()).unwrap();
    outputs.iter().map(|output| wide(output)).collect()
}

#[test]
fn in_f32_beside_halves() {
    let mut random = Random::new(121);
    for n in [2, 6, 40, 300] {
        let weight = wide(&random.numbers::<bf16>(n));
        let x = random.numbers(3 * n);
        same(&results::<bf16, f32>(&x, &weight), &results::<bf16, bf16>(&x, &weight), "bf16");
        let weight = wide(&random.numbers::<f16>(n));
        let x = random.numbers(3 * n);
        same(&results::<f16, f32>(&x, &weight), &results::<f16, f16>(&x, &weight), "f16");
    }
}
