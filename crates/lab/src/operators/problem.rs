//! What an operator is to do: the shape of its input, and which of its numbers belong together.

use super::Operator;
use super::options::{Mode, Options, Order};
use super::structure::{Extent, Structure};
use crate::error::Error;

/// What an operator is to do, besides the numbers.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The shape of the input.
    pub shape: Vec<usize>,
    /// The options, with the groups as many as there are.
    pub options: Options,
    structure: Structure,
    axis: usize,
    /// The axes that are normalised together, where they may be any, and those that parameters have, ascending.
    over: Vec<usize>,
    affine: Vec<usize>,
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
        let mut problem =
            Self { shape: shape.to_vec(), options, structure, axis: 1, over: vec![], affine: vec![] };
        if structure.has_channels() {
            if axes < 2 {
                return Err(Error::Axes { operator: operator.name, needs: "samples and channels", axes });
            }
            let (channels, groups) = (problem.channels(), problem.options.groups);
            if structure != Structure::Groups {
                problem.options.groups = channels;
            } else if groups == 0 || !channels.is_multiple_of(groups) {
                return Err(Error::Groups { groups, channels });
            }
            return Ok(problem);
        }
        if structure == Structure::Axes {
            let resolve = |asked: &[i64]| -> Result<Vec<usize>, Error> {
                let mut all = asked.iter().map(|&axis| resolve(axis, axes)).collect::<Result<Vec<_>, _>>()?;
                all.sort_unstable();
                Ok(all)
            };
            problem.over = resolve(&problem.options.over)?;
            problem.affine = resolve(problem.options.affine.as_ref().unwrap_or(&problem.options.over))?;
            return Ok(problem);
        }
        let usual = if structure == Structure::Units { 0 } else { -1 };
        problem.axis = resolve(problem.options.axis.unwrap_or(usual), axes)?;
        let needs = match structure {
            Structure::Samples => "samples and features",
            Structure::Heads => "heads and their features",
            _ => return Ok(problem),
        };
        if problem.axis == 0 {
            return Err(Error::Axes { operator: operator.name, needs, axes });
        }
        Ok(problem)
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
        let (mut over, mut affine) = (vec![], vec![]);
        let (shape, axis) = match structure {
            Structure::Rows => (vec![sets, n], 1),
            Structure::Samples | Structure::Heads => {
                let inner = part(sets);
                (vec![sets / inner, inner, n], 2)
            }
            Structure::Lines => {
                let after = if turn.is_multiple_of(3) { 1 } else { part(sets) };
                (vec![sets / after, n, after], 1)
            }
            Structure::Axes => {
                let (outer, inner) = (part(sets), part(n));
                // Channels first; trailing axes, of which one has parameters; statistics across the axis of parameters.
                let (shape, along, of) = match turn % 3 {
                    0 => (vec![outer, n, sets / outer], vec![1], vec![1]),
                    1 => (vec![sets, inner, n / inner], vec![1, 2], vec![2]),
                    _ => (vec![inner, sets, n / inner], vec![0, 2], vec![1]),
                };
                (over, affine) = (along, of);
                (shape, 1)
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
        Self { shape, options, structure, axis, over, affine }
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
            Structure::Rows | Structure::Samples | Structure::Heads => Self::count(&self.shape[..self.axis]),
            Structure::Lines | Structure::Axes => self.len(Extent::Rows),
            Structure::Groups | Structure::Channels => self.samples() * self.options.groups,
            Structure::Units => self.shape[self.axis],
            Structure::Batch => self.channels(),
        }
    }

    /// The axis of units or of lines, or the first of those that are normalised.
    pub fn axis(&self) -> usize {
        self.axis
    }

    /// The axes that are normalised together, where they may be any.
    pub fn over(&self) -> &[usize] {
        &self.over
    }

    /// The axes that parameters have then.
    pub fn affine(&self) -> &[usize] {
        &self.affine
    }

    /// How many heads a token has.
    pub fn heads(&self) -> usize {
        self.shape[self.axis - 1]
    }

    /// The first axis, if sets of numbers don't reach over it and parameters don't differ along it: then it counts items.
    fn first_is_apart(&self) -> bool {
        match self.structure {
            Structure::Axes => !self.over.contains(&0) && !self.affine.contains(&0),
            _ => self.axis > 0,
        }
    }

    /// How many numbers a set has.
    pub fn features(&self) -> usize {
        match self.structure {
            Structure::Rows | Structure::Samples | Structure::Heads => Self::count(&self.shape[self.axis..]),
            Structure::Lines => self.shape[self.axis],
            Structure::Axes => self.over.iter().map(|&axis| self.shape[axis]).product(),
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
            Structure::Rows | Structure::Samples | Structure::Heads => set * self.features() + j,
            Structure::Lines => {
                let (n, inner) = (self.features(), Self::count(&self.shape[self.axis + 1..]));
                (set / inner * n + j) * inner + set % inner
            }
            Structure::Axes => {
                let (mut at, mut stride, mut left) = (0, 1, [set, j]);
                for (axis, size) in self.shape.iter().enumerate().rev() {
                    let index = &mut left[usize::from(self.over.contains(&axis))];
                    at += *index % size * stride;
                    (*index, stride) = (*index / size, stride * size);
                }
                at
            }
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

    /// The parameter of the number at this place, where parameters have axes of their own.
    pub fn unit(&self, place: usize) -> usize {
        let (mut unit, mut stride, mut left) = (0, 1, place);
        for (axis, size) in self.shape.iter().enumerate().rev() {
            if self.affine.contains(&axis) {
                unit += left % size * stride;
                stride *= size;
            }
            left /= size;
        }
        unit
    }

    /// Parts of the input, one after the other, whose results do not depend on each other: rows, samples, or the
    /// whole.
    pub fn items(&self) -> usize {
        match self.structure {
            Structure::Rows => self.rows(),
            Structure::Heads => Self::count(&self.shape[..self.axis - 1]),
            Structure::Batch if self.options.mode == Mode::Train => 1,
            Structure::Units if self.axis > 0 => 1,
            Structure::Lines | Structure::Axes if !self.first_is_apart() => 1,
            _ => self.samples(),
        }
    }

    /// The numbers that each such part has of a tensor; `None` where all parts share it.
    pub fn of_item(&self, extent: Extent) -> Option<usize> {
        let shared = matches!(
            extent,
            Extent::Units
                | Extent::Heads
                | Extent::Affine
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
        let inner = match self.structure {
            Structure::Rows => Some(0),
            Structure::Heads => Some(1),
            _ => None,
        };
        if let Some(inner) = inner {
            shape.splice(..self.axis - inner, [items]);
            return Self { shape, axis: 1 + inner, ..self.clone() };
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
            Extent::Rows => {
                let is_over = |axis: usize| match self.structure {
                    Structure::Axes => self.over.contains(&axis),
                    Structure::Lines => axis == self.axis,
                    _ => axis >= self.axis,
                };
                (0..self.shape.len()).filter(|&axis| !is_over(axis)).map(|axis| self.shape[axis]).collect()
            }
            Extent::Affine => self.affine.iter().map(|&axis| self.shape[axis]).collect(),
            Extent::PerUnit => vec![self.shape[self.axis]],
            Extent::Units | Extent::Heads | Extent::Features => self.shape[self.axis..].to_vec(),
            Extent::Samples => [&self.shape[..1], &self.shape[self.axis..]].concat(),
            Extent::Entries => [&[0], &self.shape[self.axis..]].concat(),
            Extent::Channels | Extent::PerChannel => vec![self.channels()],
            Extent::Groups => vec![self.samples(), self.options.groups],
            Extent::One => vec![1],
        }
    }

    /// The shapes that such a tensor may have, besides that of a single number.
    pub fn shapes(&self, extent: Extent) -> Vec<Vec<usize>> {
        let mut shapes = vec![self.dims(extent)];
        if extent == Extent::Heads {
            shapes.push(self.shape[self.axis - 1..].to_vec());
        }
        shapes
    }

    /// How many numbers such a tensor has.
    pub fn len(&self, extent: Extent) -> usize {
        Self::count(&self.dims(extent))
    }
}

/// An axis, from the end where it is negative.
fn resolve(axis: i64, axes: usize) -> Result<usize, Error> {
    let from_start = if axis < 0 { axis.checked_add_unsigned(axes as u64) } else { Some(axis) };
    let axis_from_start = from_start.and_then(|axis| usize::try_from(axis).ok()).filter(|&axis| axis < axes);
    axis_from_start.ok_or(Error::Axis { axis, axes })
}
