//! What an operator is to do: the shape of its input and its options.

use super::Operator;
use crate::error::Error;
use clap::ValueEnum;

/// What an operator's input looks like, and along which axes it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// The axes from `axis` on are normalised together; those before it count rows.
    Rows,
    /// The same, and the first axis counts samples: rows that share their parameters.
    Samples,
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
    fn has_channels(self) -> bool {
        matches!(self, Self::Groups | Self::Channels | Self::Batch)
    }
}

/// An option of the command line that not every operator has a use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// `--eps`
    Eps,
    /// `--axis`
    Axis,
    /// `--groups`
    Groups,
    /// `--mode`
    Mode,
    /// `--layout`
    Layout,
    /// `--momentum`
    Momentum,
}

impl Flag {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Eps, Self::Axis, Self::Groups, Self::Mode, Self::Layout, Self::Momentum];

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eps => "--eps",
            Self::Axis => "--axis",
            Self::Groups => "--groups",
            Self::Mode => "--mode",
            Self::Layout => "--layout",
            Self::Momentum => "--momentum",
        }
    }
}

/// Whether statistics are the batch's or those of the past.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// By the batch's statistics, which the running ones move towards
    #[default]
    Train,
    /// By the running statistics
    Eval,
}

/// Where the channels lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Channels before positions
    #[default]
    Nchw,
    /// Channels last
    Nhwc,
}

/// The options of an operator; each has no use for some of them.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Added to the variance, or what a length is at least.
    pub eps: f64,
    /// The first of the axes that are normalised together, or that of units; a negative one counts from the end.
    /// Where absent, the last, or the first.
    pub axis: Option<i64>,
    /// Into how many groups a sample's channels are divided.
    pub groups: usize,
    /// The batch's statistics, or the running ones.
    pub mode: Mode,
    /// Where the channels lie.
    pub order: Order,
    /// How much of the batch goes into the running statistics.
    pub momentum: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { eps: 1e-5, axis: None, groups: 32, mode: Mode::Train, order: Order::Nchw, momentum: 0.1 }
    }
}

/// How a tensor's shape follows from that of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// As the input.
    Whole,
    /// One a row: shape[..axis].
    Rows,
    /// One a unit: shape[axis].
    PerUnit,
    /// Parameters, one a feature: shape[axis..], or a single number for all.
    Units,
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
        matches!(self, Self::Units | Self::Channels)
    }
}

/// What an operator is to do, besides the numbers.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The shape of the input.
    pub shape: Vec<usize>,
    /// The options, with the groups as many as there are.
    pub options: Options,
    structure: Structure,
    axis: usize,
}

impl Problem {
    /// For an input of this shape.
    ///
    /// # Errors
    /// [`Error::Axis`] for an axis that isn't there, [`Error::TooLarge`] for a shape that no memory holds,
    /// [`Error::Axes`] for too few axes, [`Error::Groups`] for groups that the channels can't be divided into.
    pub fn new(operator: &Operator, shape: &[usize], options: Options) -> Result<Self, Error> {
        let structure = operator.structure;
        let axes = shape.len();
        let numbers = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
        let some = shape.iter().filter(|&&n| n > 0).try_fold(1usize, |product, &n| product.checked_mul(n));
        numbers.and(some).ok_or_else(|| Error::TooLarge { shape: shape.to_vec() })?;
        let mut options = options;
        if structure.has_channels() {
            if axes < 2 {
                return Err(Error::Axes { operator: operator.name, needs: "samples and channels", axes });
            }
            let channels = if options.order == Order::Nchw { shape[1] } else { shape[axes - 1] };
            options.groups = if structure == Structure::Groups { options.groups } else { channels };
            if structure == Structure::Groups
                && (options.groups == 0 || !channels.is_multiple_of(options.groups))
            {
                return Err(Error::Groups { groups: options.groups, channels });
            }
            return Ok(Self { shape: shape.to_vec(), options, structure, axis: 1 });
        }
        let asked = options.axis.unwrap_or(if structure == Structure::Units { 0 } else { -1 });
        let wrong = Error::Axis { axis: asked, axes };
        let from_start = if asked < 0 { asked.checked_add_unsigned(axes as u64) } else { Some(asked) };
        let axis = from_start
            .and_then(|axis| usize::try_from(axis).ok())
            .filter(|&axis| axis < axes)
            .ok_or(wrong)?;
        if structure == Structure::Samples && axis == 0 {
            return Err(Error::Axes { operator: operator.name, needs: "samples and features", axes });
        }
        Ok(Self { shape: shape.to_vec(), options, structure, axis })
    }

    /// `sets` sets of `n` numbers that are normalised together, as the operator's input has them: the shape that
    /// comes nearest. `turn` varies what can be varied.
    pub fn of_sets(operator: &Operator, sets: usize, n: usize, options: Options, turn: usize) -> Self {
        // Divided by one of the first small numbers that divide it, by turns.
        let part = |whole: usize| {
            let by: Vec<usize> =
                [1, 2, 3, 4, 5, 7, 8].into_iter().filter(|by| whole.is_multiple_of(*by)).collect();
            by[turn % by.len()]
        };
        let structure = operator.structure;
        let order = options.order;
        let of_channels = |samples: usize, channels: usize, positions: usize| match order {
            Order::Nchw => vec![samples, channels, positions],
            Order::Nhwc => vec![samples, positions, channels],
        };
        let mut options = options;
        let (shape, axis) = match structure {
            Structure::Rows => (vec![sets, n], 1),
            Structure::Samples => {
                let tokens = part(sets);
                (vec![sets / tokens, tokens, n], 2)
            }
            Structure::Units if turn.is_multiple_of(2) => (vec![sets, n], 0),
            Structure::Units => (vec![part(n), sets, n / part(n)], 1),
            Structure::Groups => {
                let (groups, channels) = (part(sets), part(n));
                options.groups = groups;
                (of_channels(sets / groups, groups * channels, n / channels), 1)
            }
            Structure::Channels => {
                let channels = part(sets);
                options.groups = channels;
                (of_channels(sets / channels, channels, n), 1)
            }
            Structure::Batch => {
                options.groups = sets;
                let positions = part(n);
                (of_channels(n / positions, sets, positions), 1)
            }
        };
        Self { shape, options, structure, axis }
    }

    /// Epsilon.
    pub fn eps(&self) -> f64 {
        self.options.eps
    }

    fn count(axes: &[usize]) -> usize {
        axes.iter().product()
    }

    /// How many samples there are: the first axis.
    pub fn samples(&self) -> usize {
        self.shape[0]
    }

    /// How many channels a sample has.
    pub fn channels(&self) -> usize {
        if self.options.order == Order::Nchw { self.shape[1] } else { self.shape[self.shape.len() - 1] }
    }

    /// How many positions a channel of a sample has.
    pub fn positions(&self) -> usize {
        let axes = self.shape.len();
        Self::count(if self.options.order == Order::Nchw {
            &self.shape[2..]
        } else {
            &self.shape[1..axes - 1]
        })
    }

    /// How many sets of numbers are normalised.
    pub fn rows(&self) -> usize {
        match self.structure {
            Structure::Rows | Structure::Samples => Self::count(&self.shape[..self.axis]),
            Structure::Groups | Structure::Channels => self.samples() * self.options.groups,
            Structure::Units => self.shape[self.axis],
            Structure::Batch => self.channels(),
        }
    }

    /// The axis of units, or the first of those that are normalised.
    pub fn axis(&self) -> usize {
        self.axis
    }

    /// How many numbers a set has.
    pub fn features(&self) -> usize {
        match self.structure {
            Structure::Rows | Structure::Samples => Self::count(&self.shape[self.axis..]),
            Structure::Groups | Structure::Channels => {
                self.channels().checked_div(self.options.groups).unwrap_or(0) * self.positions()
            }
            Structure::Units => {
                Self::count(&self.shape[..self.axis]) * Self::count(&self.shape[self.axis + 1..])
            }
            Structure::Batch => self.samples() * self.positions(),
        }
    }

    /// Where number `j` of set `set` lies in the input.
    pub fn place(&self, set: usize, j: usize) -> usize {
        let nchw = self.options.order == Order::Nchw;
        match self.structure {
            Structure::Rows | Structure::Samples => set * self.features() + j,
            Structure::Groups | Structure::Channels if nchw => set * self.features() + j,
            Structure::Groups | Structure::Channels => {
                let (groups, channels, positions) = (self.options.groups, self.channels(), self.positions());
                let (sample, group) = (set / groups, set % groups);
                (sample * positions + j % positions) * channels + group * (channels / groups) + j / positions
            }
            Structure::Units => {
                let inner = Self::count(&self.shape[self.axis + 1..]);
                (j / inner * self.rows() + set) * inner + j % inner
            }
            Structure::Batch if nchw => {
                let positions = self.positions();
                (j / positions * self.channels() + set) * positions + j % positions
            }
            Structure::Batch => j * self.channels() + set,
        }
    }

    /// The channel of number `j` of set `set`.
    pub fn channel(&self, set: usize, j: usize) -> usize {
        match self.structure {
            Structure::Batch => set,
            _ => {
                let groups = self.options.groups;
                set % groups * (self.channels() / groups) + j / self.positions()
            }
        }
    }

    /// Parts of the input, one after the other, whose results do not depend on each other: rows, samples, or the
    /// whole.
    pub fn items(&self) -> usize {
        match self.structure {
            Structure::Rows => self.rows(),
            Structure::Batch if self.options.mode == Mode::Train => 1,
            Structure::Units => {
                if self.axis == 0 {
                    self.rows()
                } else {
                    1
                }
            }
            _ => self.samples(),
        }
    }

    /// The numbers that each such part has of a tensor; `None` where all parts share it.
    pub fn of_item(&self, extent: Extent) -> Option<usize> {
        let shared = matches!(
            extent,
            Extent::Units
                | Extent::Features
                | Extent::Channels
                | Extent::PerChannel
                | Extent::One
                | Extent::Entries
        );
        (!shared).then(|| self.len(extent).checked_div(self.items()).unwrap_or(0))
    }

    /// Has each set a number in a tensor of this extent?
    pub fn one_a_set(&self, extent: Extent) -> bool {
        match extent {
            Extent::Rows | Extent::Groups | Extent::PerUnit => true,
            Extent::PerChannel => self.structure == Structure::Batch,
            _ => false,
        }
    }

    /// The same problem for as many such parts.
    pub fn with_items(&self, items: usize) -> Self {
        let mut shape = self.shape.clone();
        if self.structure == Structure::Rows {
            shape.splice(..self.axis, [items]);
            return Self { shape, axis: 1, ..self.clone() };
        }
        // The whole is one item, or the items lie along the first axis.
        if self.items() == shape[0] {
            shape[0] = items;
        }
        Self { shape, ..self.clone() }
    }

    /// The shape of such a tensor.
    pub fn dims(&self, extent: Extent) -> Vec<usize> {
        match extent {
            Extent::Whole => self.shape.clone(),
            Extent::Rows => self.shape[..self.axis].to_vec(),
            Extent::PerUnit => vec![self.shape[self.axis]],
            Extent::Units | Extent::Features => self.shape[self.axis..].to_vec(),
            Extent::Samples => [&self.shape[..1], &self.shape[self.axis..]].concat(),
            Extent::Entries => [&[0], &self.shape[self.axis..]].concat(),
            Extent::Channels | Extent::PerChannel => vec![self.channels()],
            Extent::Groups => vec![self.samples(), self.options.groups],
            Extent::One => vec![1],
        }
    }

    /// How many numbers such a tensor has.
    pub fn len(&self, extent: Extent) -> usize {
        Self::count(&self.dims(extent))
    }
}
