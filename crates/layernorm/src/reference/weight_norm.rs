//! Weight norm: a unit's weights as a direction and a gain; and its data-dependent initialisation.

use super::{RowNorm, check_eps, check_len, divide, dot, reciprocal_or_zero};

/// What [`weight_norm`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightNormForward {
    /// The weights, shaped as `v`.
    pub w: Vec<f64>,
    /// The length of each unit's `v`.
    pub norm: Vec<f64>,
}

/// What [`weight_norm_backward`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightNormBackward {
    /// The gradient by the direction, shaped as `v`.
    pub dv: Vec<f64>,
    /// The gradient by the gain, one number a unit.
    pub dgain: Vec<f64>,
}

/// What [`weight_norm_init`] returns, one number a unit each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightNormInit {
    /// The gain.
    pub gain: Vec<f64>,
    /// The bias of the layer.
    pub bias: Vec<f64>,
}

/// Weight norm: the weights of a unit are a gain times a direction.
///
/// ```text
/// w = gain / |v| * v            for each unit
/// ```
///
/// Shapes: `v` and `w` (units, inputs), the inputs of a convolution being all of its unit's kernel; `gain`
/// (units). The number of units is the gain's length. A direction of zeros gives weights of zeros.
///
/// Source: Salimans, Kingma, *Weight Normalization*, 2016, equation 2,
/// [arXiv:1602.07868](https://arxiv.org/abs/1602.07868).
///
/// # Panics
///
/// If the number of units does not divide `v`.
///
/// ```
/// use layernorm::reference::weight_norm;
///
/// let out = weight_norm(&[3.0, 4.0, 0.0, 2.0], &[10.0, 1.0]);
/// assert_eq!((out.w, out.norm), (vec![6.0, 8.0, 0.0, 1.0], vec![5.0, 2.0]));
/// ```
pub fn weight_norm(v: &[f64], gain: &[f64]) -> WeightNormForward {
    let inputs = divide("v", v.len(), gain.len()).max(1);
    let mut out = WeightNormForward::default();
    for (v, gain) in v.chunks(inputs).zip(gain) {
        let norm = dot(v, v).sqrt();
        out.w.extend(v.iter().map(|v| gain * reciprocal_or_zero(norm) * v));
        out.norm.push(norm);
    }
    out
}

/// The gradients of [`weight_norm`] from the gradient by the weights.
///
/// ```text
/// dgain = dw . v / |v|
/// dv    = gain / |v| dw - gain dgain / |v|^2 v          so dv . v = 0
/// ```
///
/// Shapes: `dw` and `dv` as `v`; `dgain` as the gain. A direction of zeros has gradients of 0.
///
/// Source: as [`weight_norm`], equation 3.
///
/// # Panics
///
/// As [`weight_norm`], and if `dw` and `v` differ in length.
///
/// ```
/// use layernorm::reference::weight_norm_backward;
///
/// let back = weight_norm_backward(&[1.0, 5.0], &[2.0, 0.0], &[4.0]);
/// assert_eq!((back.dv, back.dgain), (vec![0.0, 10.0], vec![1.0]));
/// ```
pub fn weight_norm_backward(dw: &[f64], v: &[f64], gain: &[f64]) -> WeightNormBackward {
    check_len("dw", dw.len(), v.len());
    let inputs = divide("v", v.len(), gain.len()).max(1);
    let mut out = WeightNormBackward::default();
    for ((dw, v), gain) in dw.chunks(inputs).zip(v.chunks(inputs)).zip(gain) {
        let rnorm = reciprocal_or_zero(dot(v, v).sqrt());
        let dgain = dot(dw, v) * rnorm;
        out.dv.extend(dw.iter().zip(v).map(|(dw, v)| gain * rnorm * dw - gain * dgain * rnorm * rnorm * v));
        out.dgain.push(dgain);
    }
    out
}

/// The data-dependent initialisation: gain and bias that give every unit mean 0 and spread `scale` on a first
/// batch.
///
/// ```text
/// t    = v . x / |v|                  for each unit and each row of x
/// gain = scale / sqrt(var[t] + eps)   over the rows, biased variance
/// bias = -mean[t] gain
/// ```
///
/// Shapes: `x` (rows, inputs), `v` (units, inputs), gain and bias (units); for a convolution the rows are all
/// of its patches. The authors draw `v` from N(0, 0.05^2) and take `eps` 1e-10 (1e-8 for convolutions).
/// Layers are initialised in order, each on inputs that went through the initialised ones below. A unit
/// without variance gets a gain of 0 at `eps = 0`.
///
/// Source: section 3 of Salimans, Kingma, 2016, [arXiv:1602.07868](https://arxiv.org/abs/1602.07868), and
/// their code.
///
/// # Panics
///
/// If `x` or `v` does not consist of whole rows of `inputs`, `x` holds none, or `eps` is negative or not
/// finite.
///
/// ```
/// use layernorm::reference::weight_norm_init;
///
/// // t = x: mean 2, variance 1
/// let init = weight_norm_init(&[1.0, 3.0], &[0.5], 1, 1.0, 0.0);
/// assert_eq!((init.gain, init.bias), (vec![1.0], vec![-2.0]));
/// ```
pub fn weight_norm_init(x: &[f64], v: &[f64], inputs: usize, scale: f64, eps: f64) -> WeightNormInit {
    check_eps(eps);
    let rows = divide("x", x.len(), inputs);
    divide("v", v.len(), inputs);
    assert!(rows > 0, "x holds {rows} rows, expected at least 1 to initialise from");
    let mut out = WeightNormInit::default();
    for v in v.chunks(inputs.max(1)) {
        let rnorm = reciprocal_or_zero(dot(v, v).sqrt());
        let t: Vec<f64> = x.chunks(inputs.max(1)).map(|x| dot(v, x) * rnorm).collect();
        let statistics = RowNorm::layer(rows, eps).normalise(&t);
        let gain = scale * statistics.rstd;
        out.gain.push(gain);
        out.bias.push(-statistics.mean.unwrap_or(0.0) * gain);
    }
    out
}
