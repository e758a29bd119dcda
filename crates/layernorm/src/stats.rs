//! The statistics of rows, saved by a forward pass for its backward pass.

use crate::by_row::Columns;
use crate::rows::{Column, column};
use crate::{Error, Real};

/// Where a layer norm saves its statistics, one entry a row.
///
/// The mean is saved as two numbers, because one is not enough: x - mean(x), rebuilt from a rounded mean
/// alone, loses all digits where the mean is large beside the deviations. `m` is the rounded mean, `c` the
/// mean of x - m, and the mean to be shown to people is [`Stats::mean`].
#[derive(Debug)]
pub struct StatsMut<'a, T> {
    /// First estimate of the mean.
    pub m: &'a mut [T],
    /// Its correction: mean(x - m).
    pub c: &'a mut [T],
    /// 1 / sqrt(var + eps), or 0 where var + eps is 0.
    pub rstd: &'a mut [T],
}

/// Statistics that a forward pass saved; see [`StatsMut`].
#[derive(Debug, Clone, Copy)]
pub struct StatsRef<'a, T> {
    /// First estimate of the mean.
    pub m: &'a [T],
    /// Its correction: mean(x - m).
    pub c: &'a [T],
    /// 1 / sqrt(var + eps), or 0 where var + eps is 0.
    pub rstd: &'a [T],
}

/// Statistics of layer norm, with memory of their own.
///
/// ```
/// use layernorm::{LayerNorm, Stats};
///
/// let mut stats = Stats::new(1);
/// LayerNorm::<f32>::new(3).forward_saving(&[40000.0, 40001.0, 40002.0], &mut [0.0; 3], &mut stats)?;
/// assert_eq!(stats.mean(), [40001.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Stats<T> {
    /// First estimate of the mean.
    pub m: Vec<T>,
    /// Its correction: mean(x - m).
    pub c: Vec<T>,
    /// 1 / sqrt(var + eps), or 0 where var + eps is 0.
    pub rstd: Vec<T>,
}

impl<T: Real> Stats<T> {
    /// Room for the statistics of `rows` rows. Allocates.
    pub fn new(rows: usize) -> Self {
        let zeros = vec![T::from_f64(0.0); rows];
        Self { m: zeros.clone(), c: zeros.clone(), rstd: zeros }
    }

    /// The mean of each row, rounded once more: m + c. To show, not to compute with: the backward pass
    /// takes `m` and `c`.
    pub fn mean(&self) -> Vec<T> {
        self.m.iter().zip(&self.c).map(|(m, c)| m.add(*c)).collect()
    }

    /// To read.
    pub fn as_ref(&self) -> StatsRef<'_, T> {
        StatsRef { m: &self.m, c: &self.c, rstd: &self.rstd }
    }

    /// To write.
    pub fn as_mut(&mut self) -> StatsMut<'_, T> {
        StatsMut { m: &mut self.m, c: &mut self.c, rstd: &mut self.rstd }
    }
}

impl<'a, T> StatsMut<'a, T> {
    pub(crate) fn columns(self, rows: usize) -> Result<Columns<Column<'a, T>>, Error> {
        let (m, c) = (Column::new("m", self.m, rows)?, Column::new("c", self.c, rows)?);
        Ok(Columns { centre: Some([m, c]), rstd: Column::new("rstd", self.rstd, rows)? })
    }
}

impl<'a, T> StatsRef<'a, T> {
    pub(crate) fn columns(self, rows: usize) -> Result<Columns<&'a [T]>, Error> {
        let (m, c) = (column("m", self.m, rows)?, column("c", self.c, rows)?);
        Ok(Columns { centre: Some([m, c]), rstd: column("rstd", self.rstd, rows)? })
    }
}
