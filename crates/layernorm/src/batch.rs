//! Batches in memory: samples of channels, each with its positions.

use crate::by_column::Grid;
use crate::rows::{Source, Target};
use crate::{Error, Rows, RowsMut};

/// A batch to read: samples, each of so many channels with so many positions. All spatial axes make one.
///
/// ```
/// use layernorm::{Batch, Rows};
///
/// let x = [0.0f32; 2 * 3 * 4];
/// let nchw = Batch::channels_first(Rows::new(&x, 3 * 4)?, 3)?; // a row is a sample
/// let nhwc = Batch::channels_last(Rows::new(&x, 3)?, 4)?; // a row is a position
/// assert_eq!((nchw.samples(), nchw.channels(), nchw.positions()), (2, 3, 4));
/// assert_eq!((nhwc.samples(), nhwc.channels(), nhwc.positions()), (2, 3, 4));
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, E> {
    rows: Rows<'a, E>,
    grid: Grid,
}

/// A batch to write, or to change in place; see [`Batch`].
///
/// ```
/// use layernorm::{BatchMut, RowsMut};
///
/// let mut y = [0.0f32; 2 * 3];
/// assert_eq!(BatchMut::channels_last(RowsMut::new(&mut y, 3)?, 1)?.samples(), 2); // (N, C)
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct BatchMut<'a, E> {
    rows: RowsMut<'a, E>,
    grid: Grid,
}

macro_rules! shape {
    () => {
        /// Number of samples.
        pub fn samples(&self) -> usize {
            self.grid.samples()
        }

        /// Channels of a sample.
        pub fn channels(&self) -> usize {
            self.grid.channels
        }

        /// Positions of a channel in a sample.
        pub fn positions(&self) -> usize {
            self.grid.positions
        }

        pub(crate) fn grid(&self) -> Grid {
            self.grid
        }
    };
}

impl<'a, E> Batch<'a, E> {
    /// NCHW: a row is a sample, one channel after the other.
    ///
    /// # Errors
    /// [`Error::NoChannels`] and [`Error::Divide`].
    pub fn channels_first(rows: Rows<'a, E>, channels: usize) -> Result<Self, Error> {
        Ok(Self { grid: Grid::channels_first(rows.shape(), channels)?, rows })
    }

    /// NHWC: a row is a position, with a number for each channel; a sample is `positions` rows (1 for (N, C)).
    ///
    /// # Errors
    /// [`Error::NoChannels`] and [`Error::Divide`].
    pub fn channels_last(rows: Rows<'a, E>, positions: usize) -> Result<Self, Error> {
        Ok(Self { grid: Grid::channels_last(rows.shape(), positions)?, rows })
    }

    shape!();

    pub(crate) fn source(&self) -> Source<'a, E> {
        self.rows.source()
    }
}

impl<'a, E> BatchMut<'a, E> {
    /// As [`Batch::channels_first`].
    ///
    /// # Errors
    /// As [`Batch::channels_first`].
    pub fn channels_first(rows: RowsMut<'a, E>, channels: usize) -> Result<Self, Error> {
        Ok(Self { grid: Grid::channels_first(rows.shape(), channels)?, rows })
    }

    /// As [`Batch::channels_last`].
    ///
    /// # Errors
    /// As [`Batch::channels_last`].
    pub fn channels_last(rows: RowsMut<'a, E>, positions: usize) -> Result<Self, Error> {
        Ok(Self { grid: Grid::channels_last(rows.shape(), positions)?, rows })
    }

    shape!();

    pub(crate) fn in_place(self) -> (Source<'a, E>, Target<'a, E>) {
        self.rows.in_place()
    }

    pub(crate) fn target(self) -> Target<'a, E> {
        self.rows.target()
    }
}

/// Which positions are part of a batch: the others (padding) take no part in its statistics.
///
/// y is defined everywhere: at positions that are no part of the batch, too, it is x by the statistics of those that
/// are. The backward pass is the exact gradient of that.
///
/// ```
/// use layernorm::Valid;
///
/// // Two samples of three positions; of the second, one counts.
/// let (lengths, mask) = (Valid::Lengths(&[3, 1]), Valid::Mask(&[true, true, true, true, false, false]));
/// assert!(matches!((lengths, mask, Valid::default()), (Valid::Lengths(_), Valid::Mask(_), Valid::All)));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Valid<'a> {
    /// All.
    #[default]
    All,
    /// The first so many of each sample.
    Lengths(&'a [usize]),
    /// Those with `true`: (samples, positions).
    Mask(&'a [bool]),
}

impl Valid<'_> {
    pub(crate) fn check(self, grid: &Grid) -> Result<(), Error> {
        let (samples, positions) = (grid.samples(), grid.positions);
        match self {
            Self::All => Ok(()),
            Self::Lengths(lengths) if lengths.len() != samples => {
                Err(Error::Length { what: "lengths", expected: samples, got: lengths.len() })
            }
            Self::Lengths(lengths) => match lengths.iter().find(|length| **length > positions) {
                Some(length) => Err(Error::Length { what: "a sample", expected: *length, got: positions }),
                None => Ok(()),
            },
            // A batch has a number for each position, so that this product fits memory.
            Self::Mask(mask) if mask.len() != samples * positions => {
                Err(Error::Length { what: "mask", expected: samples * positions, got: mask.len() })
            }
            Self::Mask(_) => Ok(()),
        }
    }

    /// How many positions.
    pub(crate) fn count(self, grid: &Grid) -> usize {
        match self {
            Self::All => grid.samples() * grid.positions,
            Self::Lengths(lengths) => lengths.iter().sum(),
            Self::Mask(mask) => mask.iter().filter(|valid| **valid).count(),
        }
    }

    /// Is position `index` of those of all samples one?
    pub(crate) fn holds(self, index: usize, positions: usize) -> bool {
        match self {
            Self::All => true,
            Self::Lengths(lengths) => index % positions < lengths[index / positions],
            Self::Mask(mask) => mask[index],
        }
    }

    /// Of position `from` and those after it, before `end`: is it one, and up to where are the next ones like it?
    pub(crate) fn stretch(self, from: usize, end: usize, positions: usize) -> (bool, usize) {
        let valid = self.holds(from, positions);
        let other = |index: &usize| self.holds(*index, positions) != valid;
        let to = if self == Self::All { end } else { (from..end).find(other).unwrap_or(end) };
        (valid, to)
    }
}
