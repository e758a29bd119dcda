//! The shape of images: samples, channels, positions, and how they lie in memory.

use crate::Error;

/// How the numbers of images lie in memory.
///
/// ```
/// assert_eq!(layernorm::Layout::default(), layernorm::Layout::ChannelsFirst);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// NCHW: samples, channels, positions. PyTorch's and ONNX's.
    #[default]
    ChannelsFirst,
    /// NHWC: samples, positions, channels. Keras's and Flax's.
    ChannelsLast,
}

/// A batch of images with any number of spatial dimensions: a signal has one, a picture two, a volume three, and a matrix
/// (samples, channels) none. What the family computes does not depend on how positions are arranged, so they count as
/// one axis.
///
/// ```
/// use layernorm::{Images, Layout};
///
/// let images = Images::new(8, 3, &[32, 32], Layout::ChannelsFirst)?;
/// assert_eq!((images.positions(), images.len()), (1024, 8 * 3 * 1024));
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    samples: usize,
    channels: usize,
    positions: usize,
    layout: Layout,
}

impl Images {
    /// `samples` images of `channels` channels, each of as many positions as the sizes in `spatial` make.
    ///
    /// # Errors
    /// [`Error::NoChannels`] where there are no channels or no positions: there is nothing to normalise. (No samples are
    /// fine.) [`Error::Size`] if the numbers are more than memory can hold.
    ///
    /// ```
    /// use layernorm::{Error, Images, Layout};
    ///
    /// let none = Images::new(8, 0, &[32, 32], Layout::ChannelsLast);
    /// assert_eq!(none, Err(Error::NoChannels { channels: 0, positions: 1024 }));
    /// # Ok::<(), layernorm::Error>(())
    /// ```
    pub fn new(samples: usize, channels: usize, spatial: &[usize], layout: Layout) -> Result<Self, Error> {
        let too_many = |axes: &[usize]| Error::Size { axes: axes.to_vec() };
        let positions = product(spatial).ok_or_else(|| too_many(spatial))?;
        if channels == 0 || positions == 0 {
            return Err(Error::NoChannels { channels, positions });
        }
        let axes = [samples.max(1), channels, positions];
        product(&axes).ok_or_else(|| too_many(&axes))?;
        Ok(Self { samples, channels, positions, layout })
    }

    /// Images in the batch.
    pub fn samples(self) -> usize {
        self.samples
    }

    /// Channels of an image.
    pub fn channels(self) -> usize {
        self.channels
    }

    /// Positions of a channel.
    pub fn positions(self) -> usize {
        self.positions
    }

    /// How they lie in memory.
    pub fn layout(self) -> Layout {
        self.layout
    }

    /// Numbers in the batch.
    pub fn len(self) -> usize {
        self.samples * self.channels * self.positions
    }

    /// Are there no samples?
    pub fn is_empty(self) -> bool {
        self.samples == 0
    }

    /// Has this argument as many numbers?
    pub(crate) fn expect(self, what: &'static str, got: usize) -> Result<(), Error> {
        let expected = self.len();
        if got == expected { Ok(()) } else { Err(Error::Length { what, expected, got }) }
    }
}

/// The numbers that axes of these sizes hold, if memory can.
pub(crate) fn product(axes: &[usize]) -> Option<usize> {
    // A size of 0 makes all nothing, wherever it stands; but what stands beside it must be a size that could be.
    let all = axes.iter().filter(|size| **size > 0).try_fold(1usize, |all, size| all.checked_mul(*size));
    let all = all.filter(|all| isize::try_from(*all).is_ok())?;
    Some(if axes.contains(&0) { 0 } else { all })
}
