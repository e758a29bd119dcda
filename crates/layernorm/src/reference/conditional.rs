//! Conditional norm: each row picks its weight and bias from a table by an index.

use super::{Affine, Backward, Forward, RowNorm, check_len};

/// Tables of weights and biases, and the entry that each row picks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Table<'a> {
    /// How many entries there are to pick from: modalities, experts, token types, styles.
    pub entries: usize,
    /// Weight and bias, each absent or (entries, features).
    pub affine: Affine<'a>,
    /// The entry of each row.
    pub index: &'a [usize],
}

/// Conditional norm: rows share the statistics' formula, and each picks its own affine parameters.
///
/// ```text
/// y[row] = weight[index[row]] * x_hat[row] + bias[index[row]]
/// ```
///
/// Shapes: `x` (rows, features); weight and bias (entries, features) or absent; index (rows).
///
/// Source: Dumoulin, Shlens, Kudlur, *A Learned Representation For Artistic Style* (conditional instance
/// norm), 2016, [arXiv:1610.07629](https://arxiv.org/abs/1610.07629), here over rows.
///
/// # Panics
///
/// If `x` does not consist of whole rows, a table's length is not `entries * features`, the index does not
/// hold one entry a row, or names one that does not exist.
///
/// ```
/// use layernorm::reference::{Affine, RowNorm, Table, conditional_norm};
///
/// let affine = Affine::new(&[1.0, 1.0, 10.0, 20.0], &[0.0, 0.0, 0.5, 0.5]);
/// let table = Table { entries: 2, affine, index: &[1, 0] };
/// let out = conditional_norm(&[1.0, 3.0, 1.0, 3.0], RowNorm::layer(2, 0.0), table);
/// assert_eq!(out.y, [-9.5, 20.5, -1.0, 1.0]);
/// ```
pub fn conditional_norm(x: &[f64], norm: RowNorm, table: Table) -> Forward {
    table.check(x.len(), norm);
    let mut out = norm.forward(x, Affine::NONE);
    for (i, y) in out.y.iter_mut().enumerate() {
        *y = table.affine.apply(table.unit(i, norm.features), *y);
    }
    out
}

/// The gradients of [`conditional_norm`]; those of the tables are scattered to the entries that the rows
/// picked.
///
/// ```text
/// u          = weight[index[row]] * dy
/// dx         = the norm's dx from u
/// dweight[e] = sum over the rows with index e of dy * x_hat
/// dbias[e]   = sum over the rows with index e of dy
/// ```
///
/// Shapes: `dy` and `dx` as `x`; `dweight` and `dbias` (entries, features), 0 for an entry that no row
/// picked. Rows are added in order.
///
/// Source: as [`conditional_norm`].
///
/// # Panics
///
/// As [`conditional_norm`], and if `dy` and `x` differ in length.
///
/// ```
/// use layernorm::reference::{Affine, RowNorm, Table, conditional_norm_backward};
///
/// let table = Table { entries: 3, affine: Affine::new(&[1.0; 6], &[0.0; 6]), index: &[2, 2] };
/// let back =
///     conditional_norm_backward(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 3.0, 1.0], RowNorm::layer(2, 0.0), table);
/// assert_eq!(back.dbias, [0.0, 0.0, 0.0, 0.0, 4.0, 6.0]);
/// assert_eq!(back.dweight, [0.0, 0.0, 0.0, 0.0, 2.0, -2.0]);
/// ```
pub fn conditional_norm_backward(dy: &[f64], x: &[f64], norm: RowNorm, table: Table) -> Backward {
    table.check(x.len(), norm);
    check_len("dy", dy.len(), x.len());
    let x_hat = norm.forward(x, Affine::NONE).y;
    let mut out = Backward::zeros(0, table.affine);
    let mut u = vec![0.0; x.len()];
    for i in 0..x.len() {
        let unit = table.unit(i, norm.features);
        u[i] = table.affine.weight_of(unit) * dy[i];
        out.add_affine(unit, dy[i], x_hat[i]);
    }
    out.dx = norm.backward(&u, x, Affine::NONE).dx;
    out
}

impl Table<'_> {
    fn check(self, len: usize, norm: RowNorm) {
        check_len("index", self.index.len(), norm.count_rows("x", len));
        let parameters = self.entries * norm.features;
        check_len("weight", self.affine.weight.map_or(parameters, <[f64]>::len), parameters);
        check_len("bias", self.affine.bias.map_or(parameters, <[f64]>::len), parameters);
        for &entry in self.index {
            assert!(entry < self.entries, "index {entry} of a table with {} entries", self.entries);
        }
    }

    /// Where in the tables the parameters for element `i` of `x` lie.
    fn unit(self, i: usize, features: usize) -> usize {
        self.index[i / features] * features + i % features
    }
}
