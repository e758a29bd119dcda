//! The learned weight and bias, and the results that most methods share.

/// A weight and a bias, each absent, shared (one number for all units) or one per unit.
///
/// `y = weight * x_hat + bias`. An absent weight is 1, an absent bias is 0. A model that learns an offset
/// from one (`1 + w`, as Gemma does) passes `1 + w`; the gradient by `w` is the same.
///
/// ```
/// use layernorm::reference::{Affine, layer_norm};
///
/// let shared = Affine { weight: Some(&[3.0]), bias: None };
/// assert_eq!(layer_norm(&[1.0, 3.0], 2, shared, 0.0).y, [-3.0, 3.0]);
/// assert_eq!(layer_norm(&[1.0, 3.0], 2, Affine::NONE, 0.0).y, [-1.0, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Affine<'a> {
    /// The weight: absent, one number, or one per unit.
    pub weight: Option<&'a [f64]>,
    /// The bias: absent, one number, or one per unit.
    pub bias: Option<&'a [f64]>,
}

impl<'a> Affine<'a> {
    /// Neither weight nor bias: `y = x_hat`.
    pub const NONE: Affine<'static> = Affine { weight: None, bias: None };

    /// Both a weight and a bias.
    ///
    /// ```
    /// use layernorm::reference::Affine;
    ///
    /// assert_eq!(Affine::new(&[1.0], &[2.0]).bias, Some(&[2.0][..]));
    /// ```
    pub const fn new(weight: &'a [f64], bias: &'a [f64]) -> Self {
        Affine { weight: Some(weight), bias: Some(bias) }
    }

    /// Panics unless both are absent, of length 1, or of `units` numbers.
    pub(super) fn check(self, units: usize) {
        for (name, values) in [("weight", self.weight), ("bias", self.bias)] {
            let len = values.map_or(units, <[f64]>::len);
            assert!(len == units || len == 1, "{name} holds {len} numbers, expected 1 or {units}");
        }
    }

    pub(super) fn weight_of(self, unit: usize) -> f64 {
        self.weight.map_or(1.0, |weight| weight[slot(weight.len(), unit)])
    }

    pub(super) fn apply(self, unit: usize, x_hat: f64) -> f64 {
        self.weight_of(unit) * x_hat + self.bias.map_or(0.0, |bias| bias[slot(bias.len(), unit)])
    }
}

/// Where a unit's parameter lies: all units share slot 0 of a parameter of length 1.
fn slot(len: usize, unit: usize) -> usize {
    if len == 1 { 0 } else { unit }
}

/// What a forward pass returns.
///
/// ```
/// use layernorm::reference::{Affine, Forward, rms_norm};
///
/// let Forward { y, mean, rstd } = rms_norm(&[4.0, 2.0, 0.0, 0.0, 0.0], 5, Affine::NONE, 0.0);
/// assert_eq!((y[0], mean.len(), rstd), (2.0, 0, vec![0.5]));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forward {
    /// The output, shaped as `x`.
    pub y: Vec<f64>,
    /// The mean of each set that was normalised; empty where the statistics are not centred (RMS).
    pub mean: Vec<f64>,
    /// `1 / sqrt(var + eps)` of each set, with the mean square in the variance's place for RMS.
    pub rstd: Vec<f64>,
}

/// What a backward pass returns.
///
/// ```
/// use layernorm::reference::{Affine, Backward, layer_norm_backward};
///
/// let Backward { dx, dweight, dbias } =
///     layer_norm_backward(&[1.0, 2.0], &[1.0, 3.0], 2, Affine { weight: Some(&[1.0]), bias: None }, 0.0);
/// assert_eq!((dx, dweight, dbias), (vec![0.0, 0.0], vec![1.0], vec![]));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backward {
    /// The gradient by `x`.
    pub dx: Vec<f64>,
    /// The gradient by the weight, shaped as the weight; empty where it is absent.
    pub dweight: Vec<f64>,
    /// The gradient by the bias, shaped as the bias; empty where it is absent.
    pub dbias: Vec<f64>,
}

impl Backward {
    /// Zero gradients for these parameters, and for `len` inputs.
    pub(super) fn zeros(len: usize, affine: Affine) -> Self {
        let zeros = |parameter: Option<&[f64]>| vec![0.0; parameter.map_or(0, <[f64]>::len)];
        Backward { dx: vec![0.0; len], dweight: zeros(affine.weight), dbias: zeros(affine.bias) }
    }

    /// `dweight += dy * x_hat` and `dbias += dy`, each where its parameter is present.
    pub(super) fn add_affine(&mut self, unit: usize, dy: f64, x_hat: f64) {
        for (gradient, term) in [(&mut self.dweight, dy * x_hat), (&mut self.dbias, dy)] {
            if !gradient.is_empty() {
                let slot = slot(gradient.len(), unit);
                gradient[slot] += term;
            }
        }
    }
}
