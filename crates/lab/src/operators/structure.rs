//! What tensors look like: the input, and how the others' shapes follow from its.

/// What an operator's input looks like, and along which axes it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// The axes from `axis` on are normalised together; those before it count rows.
    Rows,
    /// The same, and the first axis counts samples: rows that share their parameters.
    Samples,
    /// Rows that are the heads of tokens, one after the other: the axis before `axis` counts heads.
    Heads,
    /// Lines along `axis`.
    Lines,
    /// Any axes are normalised together, and any have parameters.
    Axes,
    /// Weights of the units that lie along `axis`; each unit's are normalised together.
    Units,
    /// Samples of channels of positions; a sample's channels are normalised in groups.
    Groups,
    /// The same, with a group for each channel.
    Channels,
    /// Samples of channels of positions; a channel is normalised over all samples, or by statistics of the past.
    Batch,
}

impl Structure {
    pub(super) fn has_channels(self) -> bool {
        matches!(self, Self::Groups | Self::Channels | Self::Batch)
    }
}

/// How a tensor's shape follows from that of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// As the input.
    Whole,
    /// One a row: the shape without the axes that are normalised together.
    Rows,
    /// One a unit: shape[axis].
    PerUnit,
    /// Parameters, one a feature: shape[axis..], or a single number for all.
    Units,
    /// Parameters, one a feature of all heads, or of each head, or a single number for all.
    Heads,
    /// Parameters along axes of their own, or a single number for all.
    Affine,
    /// Parameters, one a feature, and no single number for all: shape[axis..].
    Features,
    /// Parameters, one a feature, for each sample: shape[..1] and shape[axis..].
    Samples,
    /// Parameters, one a feature, for each of any number of entries.
    Entries,
    /// One a channel, or a single number for all.
    Channels,
    /// One a channel, and no single number for all.
    PerChannel,
    /// One for each channel of each sample or group of channels of it.
    Groups,
    /// A single number.
    One,
}

impl Extent {
    /// Parameters of such an extent may be a single number for all.
    pub fn can_be_shared(self) -> bool {
        matches!(self, Self::Units | Self::Heads | Self::Affine | Self::Channels)
    }
}
