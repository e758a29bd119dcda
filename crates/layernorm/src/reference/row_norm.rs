//! The statistics of one set of numbers, and the gradient through them: the heart of every method here.

use super::{Affine, Backward, Forward, check_eps, check_len, divide, dot, mean, reciprocal_or_zero};

/// Which statistics normalise a set of numbers.
///
/// ```
/// use layernorm::reference::{RowNorm, Statistics};
///
/// let norm = RowNorm { statistics: Statistics::PartialRms { first: 2 }, features: 8, eps: 1e-6 };
/// assert_ne!(norm.statistics, Statistics::Rms);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// Mean and variance: `x_hat = (x - mean(x)) / sqrt(var(x) + eps)`.
    Layer,
    /// The mean square: `x_hat = x / sqrt(mean(x^2) + eps)`.
    Rms,
    /// The mean square of the first features alone, which scales all of them.
    PartialRms {
        /// How many features the mean square is taken over, at least one.
        first: usize,
    },
}

/// A norm over rows of `features` numbers, for the methods that work with any statistics.
///
/// ```
/// use layernorm::reference::RowNorm;
///
/// assert_eq!(RowNorm::layer(768, 1e-5).features, 768);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowNorm {
    /// What a row is normalised by.
    pub statistics: Statistics,
    /// Numbers in a row.
    pub features: usize,
    /// Added to the variance, or to the mean square, inside the root.
    pub eps: f64,
}

/// One normalised set of numbers.
pub(super) struct Row {
    /// Absent where the statistics are not centred.
    pub(super) mean: Option<f64>,
    /// The biased variance, or the mean square.
    pub(super) var: f64,
    pub(super) rstd: f64,
    pub(super) x_hat: Vec<f64>,
}

impl RowNorm {
    /// Layer norm over rows of `features` numbers.
    ///
    /// ```
    /// use layernorm::reference::{RowNorm, Statistics};
    ///
    /// assert_eq!(RowNorm::layer(2, 1e-5).statistics, Statistics::Layer);
    /// ```
    pub const fn layer(features: usize, eps: f64) -> Self {
        RowNorm { statistics: Statistics::Layer, features, eps }
    }

    /// RMS norm over rows of `features` numbers.
    ///
    /// ```
    /// use layernorm::reference::{RowNorm, Statistics};
    ///
    /// assert_eq!(RowNorm::rms(2, 1e-6).statistics, Statistics::Rms);
    /// ```
    pub const fn rms(features: usize, eps: f64) -> Self {
        RowNorm { statistics: Statistics::Rms, features, eps }
    }

    /// Panics unless the norm is sound and `name`, of `len` numbers, consists of whole rows. Returns their
    /// number.
    pub(super) fn count_rows(self, name: &str, len: usize) -> usize {
        check_eps(self.eps);
        if let Statistics::PartialRms { first } = self.statistics {
            let features = self.features;
            assert!(
                first <= features && (first > 0 || features == 0),
                "the mean square of the first {first} features, expected 1 to {features}"
            );
        }
        divide(name, len, self.features)
    }

    /// The rows of `values`; there are none where there are no features.
    pub(super) fn rows(self, values: &[f64]) -> impl Iterator<Item = &[f64]> {
        values.chunks(self.features.max(1))
    }

    /// The statistics of one row, and the row normalised by them.
    pub(super) fn normalise(self, x: &[f64]) -> Row {
        let mean = (self.statistics == Statistics::Layer).then(|| refined_mean(x));
        let deviations: Vec<f64> = x.iter().map(|x| x - mean.unwrap_or(0.0)).collect();
        let seen = &deviations[..self.seen(x.len())];
        let var = dot(seen, seen) / seen.len() as f64;
        let rstd = reciprocal_or_zero((var + self.eps).sqrt());
        let x_hat = deviations.iter().map(|d| d * rstd).collect();
        Row { mean, var, rstd, x_hat }
    }

    /// `dx` of one row from `u = weight * dy`.
    ///
    /// - Layer: `dx = r (u - mean(u) - x_hat mean(u x_hat))`
    /// - RMS over the first `k`: `dx = r (u - x_hat sum(u x_hat) / k)` for those, `dx = r u` for the others.
    pub(super) fn input_gradient(self, u: &[f64], row: &Row) -> Vec<f64> {
        let seen = self.seen(u.len());
        let mean_u = if self.statistics == Statistics::Layer { mean(u) } else { 0.0 };
        let along_x_hat = dot(u, &row.x_hat) / seen as f64;
        let by_statistics = |j: usize| if j < seen { mean_u + row.x_hat[j] * along_x_hat } else { 0.0 };
        u.iter().enumerate().map(|(j, u)| row.rstd * (u - by_statistics(j))).collect()
    }

    /// How many of a row's numbers the statistics see.
    fn seen(self, len: usize) -> usize {
        match self.statistics {
            Statistics::Layer | Statistics::Rms => len,
            Statistics::PartialRms { first } => first,
        }
    }

    /// Normalises every row; unit `j` of the affine parameters belongs to feature `j`.
    pub(super) fn forward(self, x: &[f64], affine: Affine) -> Forward {
        self.count_rows("x", x.len());
        affine.check(self.features);
        let mut out = Forward::default();
        for x in self.rows(x) {
            let row = self.normalise(x);
            out.y.extend(row.x_hat.iter().enumerate().map(|(j, x_hat)| affine.apply(j, *x_hat)));
            out.mean.extend(row.mean);
            out.rstd.push(row.rstd);
        }
        out
    }

    /// The gradients of [`RowNorm::forward`].
    pub(super) fn backward(self, dy: &[f64], x: &[f64], affine: Affine) -> Backward {
        self.count_rows("x", x.len());
        check_len("dy", dy.len(), x.len());
        affine.check(self.features);
        let mut out = Backward::zeros(0, affine);
        for (dy, x) in self.rows(dy).zip(self.rows(x)) {
            let row = self.normalise(x);
            let u: Vec<f64> = dy.iter().enumerate().map(|(j, dy)| affine.weight_of(j) * dy).collect();
            out.dx.extend(self.input_gradient(&u, &row));
            for (j, dy) in dy.iter().enumerate() {
                out.add_affine(j, *dy, row.x_hat[j]);
            }
        }
        out
    }
}

/// `m + mean(x - m)` with `m = mean(x)`: exact for a constant row, where `m` alone is off by a rounding.
fn refined_mean(x: &[f64]) -> f64 {
    let first = mean(x);
    let deviations: Vec<f64> = x.iter().map(|x| x - first).collect();
    first + mean(&deviations)
}
