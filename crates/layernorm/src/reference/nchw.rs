//! The shape of images: samples, channels, positions.

use super::check_len;

/// The shape (batch, channels, positions), row-major: PyTorch's NCHW with height and width as one axis.
///
/// Any number of spatial axes folds into `positions`: a signal's length, `height * width`, `depth * height *
/// width`. A matrix (batch, channels) has 1 position. For channels-last data batch norm can take `batch *
/// positions` samples of 1 position; group norm needs this layout.
///
/// ```
/// use layernorm::reference::Nchw;
///
/// let images = Nchw { batch: 8, channels: 3, positions: 32 * 32 };
/// assert_eq!(images.len(), 8 * 3 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nchw {
    /// Samples.
    pub batch: usize,
    /// Channels of a sample.
    pub channels: usize,
    /// Positions of a channel.
    pub positions: usize,
}

impl Nchw {
    /// How many numbers there are.
    ///
    /// ```
    /// use layernorm::reference::Nchw;
    ///
    /// assert_eq!(Nchw { batch: 2, channels: 3, positions: 4 }.len(), 24);
    /// ```
    pub const fn len(self) -> usize {
        // Saturates, so that a shape too large to exist fits no slice.
        self.batch.saturating_mul(self.channels).saturating_mul(self.positions)
    }

    /// Whether there are none.
    ///
    /// ```
    /// use layernorm::reference::Nchw;
    ///
    /// assert!(Nchw { batch: 0, channels: 3, positions: 4 }.is_empty());
    /// ```
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Panics unless `name` has this shape.
    pub(super) fn check(self, name: &str, values: &[f64]) {
        assert!(
            self.channels > 0 && self.positions > 0,
            "{} channels of {} positions: there is nothing to normalise",
            self.channels,
            self.positions
        );
        check_len(name, values.len(), self.len());
    }

    /// The channel of element `i`.
    pub(super) fn channel_of(self, i: usize) -> usize {
        i / self.positions % self.channels
    }

    /// The indices of a channel's elements, sample by sample.
    pub(super) fn elements_of(self, channel: usize) -> impl Iterator<Item = usize> {
        (0..self.batch).flat_map(move |sample| {
            let start = (sample * self.channels + channel) * self.positions;
            start..start + self.positions
        })
    }
}
