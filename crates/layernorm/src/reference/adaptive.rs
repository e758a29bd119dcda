//! Adaptive norm (AdaLN): scale and shift come from a condition, one pair a sample; and the gated residual.

use super::{Affine, Forward, RowNorm, check_len, divide};

/// The scale and shift of each sample, both (samples, features).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Modulation<'a> {
    /// Added to one: a scale of 0 leaves the norm as it is.
    pub scale: &'a [f64],
    /// Added at the end.
    pub shift: &'a [f64],
}

/// What [`adaptive_norm_backward`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModulationBackward {
    /// The gradient by `x`.
    pub dx: Vec<f64>,
    /// The gradient by the scale, (samples, features).
    pub dscale: Vec<f64>,
    /// The gradient by the shift, (samples, features).
    pub dshift: Vec<f64>,
}

/// What [`gated_residual_backward`] returns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatedResidualBackward {
    /// The gradient by the residual.
    pub dresidual: Vec<f64>,
    /// The gradient by the gate, (samples, features).
    pub dgate: Vec<f64>,
    /// The gradient by the branch.
    pub dbranch: Vec<f64>,
}

/// Adaptive norm: a norm without parameters, then each sample's own scale and shift.
///
/// ```text
/// y = x_hat * (1 + scale) + shift
/// ```
///
/// Shapes: `x` (samples, positions, features), normalised by row; scale and shift (samples, features), the
/// same for every position of a sample. The number of samples is that of the scale's rows.
///
/// Source: Peebles, Xie, *Scalable Diffusion Models with Transformers* (AdaLN-Zero, `modulate`), 2022,
/// [arXiv:2212.09748](https://arxiv.org/abs/2212.09748), with `eps` 1e-6; Perez et al., *FiLM*, 2017,
/// [arXiv:1709.07871](https://arxiv.org/abs/1709.07871).
///
/// # Panics
///
/// If `x` or the scale does not consist of whole rows, scale and shift differ in length, or the samples do
/// not divide the rows.
///
/// ```
/// use layernorm::reference::{Modulation, RowNorm, adaptive_norm};
///
/// // Two samples of one position; the second is doubled and lifted.
/// let modulation = Modulation { scale: &[0.0, 0.0, 1.0, 1.0], shift: &[0.0, 0.0, 5.0, 5.0] };
/// let out = adaptive_norm(&[1.0, 3.0, 1.0, 3.0], RowNorm::layer(2, 0.0), modulation);
/// assert_eq!(out.y, [-1.0, 1.0, 3.0, 7.0]);
/// ```
pub fn adaptive_norm(x: &[f64], norm: RowNorm, modulation: Modulation) -> Forward {
    let positions = modulation.positions(x.len(), norm);
    let mut out = norm.forward(x, Affine::NONE);
    for (i, y) in out.y.iter_mut().enumerate() {
        let k = sample_feature(i, positions, norm.features);
        *y = *y * (1.0 + modulation.scale[k]) + modulation.shift[k];
    }
    out
}

/// The gradients of [`adaptive_norm`].
///
/// ```text
/// u      = (1 + scale) dy
/// dx     = the norm's dx from u
/// dscale = sum over the sample's positions of dy * x_hat
/// dshift = sum over the sample's positions of dy
/// ```
///
/// Shapes: `dy` and `dx` as `x`; `dscale` and `dshift` (samples, features).
///
/// Source: as [`adaptive_norm`].
///
/// # Panics
///
/// As [`adaptive_norm`], and if `dy` and `x` differ in length.
///
/// ```
/// use layernorm::reference::{Modulation, RowNorm, adaptive_norm_backward};
///
/// let modulation = Modulation { scale: &[0.0, 0.0], shift: &[0.0, 0.0] };
/// // One sample of two positions.
/// let back =
///     adaptive_norm_backward(&[1.0, 0.0, 1.0, 1.0], &[1.0, 3.0, 2.0, 8.0], RowNorm::layer(2, 0.0), modulation);
/// assert_eq!(back.dscale, [-2.0, 1.0]);
/// assert_eq!(back.dshift, [2.0, 1.0]);
/// ```
pub fn adaptive_norm_backward(
    dy: &[f64],
    x: &[f64],
    norm: RowNorm,
    modulation: Modulation,
) -> ModulationBackward {
    let positions = modulation.positions(x.len(), norm);
    check_len("dy", dy.len(), x.len());
    let x_hat = norm.forward(x, Affine::NONE).y;
    let mut out = ModulationBackward {
        dx: Vec::new(),
        dscale: vec![0.0; modulation.scale.len()],
        dshift: vec![0.0; modulation.scale.len()],
    };
    let mut u = vec![0.0; x.len()];
    for i in 0..x.len() {
        let k = sample_feature(i, positions, norm.features);
        u[i] = (1.0 + modulation.scale[k]) * dy[i];
        out.dscale[k] += dy[i] * x_hat[i];
        out.dshift[k] += dy[i];
    }
    out.dx = norm.backward(&u, x, Affine::NONE).dx;
    out
}

/// The gated residual that closes an AdaLN-Zero sublayer.
///
/// ```text
/// y = residual + gate * branch
/// ```
///
/// Shapes: residual, branch, `y` (samples, positions, features); gate (samples, features). A gate of 0, its
/// value at initialisation, makes the sublayer the identity. A fused "gate, add, then adaptive norm" is this
/// followed by [`adaptive_norm`]: both give their output, and the backward pass adds the two gradients that
/// meet at the sum.
///
/// Source: as [`adaptive_norm`].
///
/// # Panics
///
/// If residual and branch differ in length, residual or gate does not consist of whole rows, or the samples
/// do not divide the rows.
///
/// ```
/// use layernorm::reference::gated_residual;
///
/// assert_eq!(gated_residual(&[1.0, 2.0], &[0.0, 0.5], &[9.0, 4.0], 2), [1.0, 4.0]);
/// ```
pub fn gated_residual(residual: &[f64], gate: &[f64], branch: &[f64], features: usize) -> Vec<f64> {
    check_len("branch", branch.len(), residual.len());
    let positions = positions(residual.len(), gate.len(), features);
    let gated = |i: usize| gate[sample_feature(i, positions, features)] * branch[i];
    residual.iter().enumerate().map(|(i, residual)| residual + gated(i)).collect()
}

/// The gradients of [`gated_residual`].
///
/// ```text
/// dresidual = dy
/// dgate     = sum over the sample's positions of dy * branch
/// dbranch   = gate * dy
/// ```
///
/// Shapes: `dy`, `dresidual`, `dbranch` as the branch; `dgate` as the gate.
///
/// Source: as [`adaptive_norm`].
///
/// # Panics
///
/// As [`gated_residual`], and if `dy` and the branch differ in length.
///
/// ```
/// use layernorm::reference::gated_residual_backward;
///
/// // One sample of two positions with one feature: at a gate of 0 only the gate learns.
/// let back = gated_residual_backward(&[1.0, 2.0], &[0.0], &[9.0, 4.0], 1);
/// assert_eq!(back.dgate, [17.0]);
/// assert_eq!(back.dbranch, [0.0, 0.0]);
/// assert_eq!(back.dresidual, [1.0, 2.0]);
/// ```
pub fn gated_residual_backward(
    dy: &[f64],
    gate: &[f64],
    branch: &[f64],
    features: usize,
) -> GatedResidualBackward {
    check_len("dy", dy.len(), branch.len());
    let positions = positions(branch.len(), gate.len(), features);
    let mut dgate = vec![0.0; gate.len()];
    let mut dbranch = vec![0.0; branch.len()];
    for i in 0..dy.len() {
        let k = sample_feature(i, positions, features);
        dgate[k] += dy[i] * branch[i];
        dbranch[i] = gate[k] * dy[i];
    }
    GatedResidualBackward { dresidual: dy.to_vec(), dgate, dbranch }
}

impl Modulation<'_> {
    /// Checks the shapes; returns the positions of a sample.
    fn positions(self, len: usize, norm: RowNorm) -> usize {
        norm.count_rows("x", len);
        check_len("shift", self.shift.len(), self.scale.len());
        positions(len, self.scale.len(), norm.features)
    }
}

/// How many rows each sample has, where `per_sample` numbers are one row for each.
fn positions(len: usize, per_sample: usize, features: usize) -> usize {
    let samples = divide("the values of each sample", per_sample, features);
    divide("rows over samples", divide("x", len, features), samples)
}

/// Where, in an array of (samples, features), the values for element `i` of (samples, positions, features)
/// lie.
fn sample_feature(i: usize, positions: usize, features: usize) -> usize {
    i / (positions * features) * features + i % features
}
