//! The loop over channels: statistics of a channel over samples and positions, then the affine map; forward and
//! backward.
//!
//! A batch lies in *rows* (see [`Grid`]): samples, where channels come first, and positions, where they come last. Sums
//! over a channel are sums over rows by the order of [`crate::by_row::totals`]. What a row adds for a channel is, channels first, a sum
//! over its run of positions by the order of a row; channels last, one number.
//!
//! ```text
//! channels first, on one rank: a few channels at a time, which stay in cache for their three passes
//!     forward   sums    deviations    write y          threads share the channels
//!     backward  sums    write dx
//! channels last, or spread over ranks: each pass over all channels
//!                                                      threads share the rows (channels last)
//! ```

pub(crate) mod backward;
pub(crate) mod forward;
mod last_pass;
mod sums;
mod wide;

use crate::by_row::totals::Split;
use crate::element::Values;
use crate::order::CHUNK;
use crate::rows::{Shape, Source, Target};
use crate::{Element, Error, Level, Real, Run, Workspace, threads};
use std::ops::Range;

/// Channels first, so many bytes of a sample's channels are taken at a time: neighbours share lines, pages, and the cost of a pass. What
/// two samples have of them is half of the first cache.
const GROUP: usize = 8192;

/// How a batch lies in rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) shape: Shape,
    pub(crate) channels: usize,
    /// Positions of a sample.
    pub(crate) positions: usize,
    /// Numbers of a channel in a row, side by side: its positions, or 1 where channels come last.
    pub(crate) run: usize,
    /// Is a row a position?
    pub(crate) last: bool,
}

impl Grid {
    pub(crate) fn channels_first(shape: Shape, channels: usize) -> Result<Self, Error> {
        let positions = divide("features of a sample", shape.features, channels)?;
        Self { shape, channels, positions, run: positions, last: false }.checked()
    }

    pub(crate) fn channels_last(shape: Shape, positions: usize) -> Result<Self, Error> {
        divide("rows of positions", shape.rows, positions)?;
        Self { shape, channels: shape.features, positions, run: 1, last: true }.checked()
    }

    fn checked(self) -> Result<Self, Error> {
        let Self { channels, positions, .. } = self;
        if channels == 0 || positions == 0 {
            Err(Error::NoChannels { channels, positions })
        } else {
            Ok(self)
        }
    }

    pub(crate) fn samples(&self) -> usize {
        if self.last { self.shape.rows / self.positions } else { self.shape.rows }
    }

    /// Check that another has the same shape and layout.
    pub(crate) fn expect(&self, what: &'static str, of: &Self) -> Result<(), Error> {
        self.shape.expect(what, of.shape)?;
        let (got, expected) = ((self.last, self.positions), (of.last, of.positions));
        if got == expected { Ok(()) } else { Err(Error::Length { what, expected: expected.1, got: got.1 }) }
    }
}

fn divide(what: &'static str, len: usize, parts: usize) -> Result<usize, Error> {
    match parts {
        // Nothing to be cut: that there are no channels is said next.
        0 => Ok(0),
        _ if !len.is_multiple_of(parts) => Err(Error::Divide { what, len, parts }),
        _ => Ok(len / parts),
    }
}

/// How a call is cut into work.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    level: Level,
    /// Parts that the channels (channels last: rows) go to.
    parts: usize,
    /// Channels that are taken at a time.
    group: usize,
    split: Split,
    /// Memories for sums, the numbers that each has, and the numbers of one run of a mask.
    rooms: usize,
    room: usize,
    run: usize,
    /// Outputs of so many bytes are written past the caches.
    stream_from: usize,
}

impl Plan {
    fn new<E: Element>(grid: &Grid, masked: bool, first_row: usize, run: Run) -> Result<Self, Error> {
        let (level, stream_from) = (run.level()?, run.stream_from());
        let Grid { shape, channels, run: positions, last, .. } = *grid;
        let group = if last { channels } else { (GROUP / size_of::<E>()).div_ceil(positions).min(channels) };
        let parts = if last {
            threads::parts(run.threads(), shape.rows, channels)
        } else {
            threads::parts(
                run.threads(),
                channels.div_ceil(group),
                shape.rows.saturating_mul(group * positions),
            )
        };
        let split = Split::new(shape, first_row, if last { parts } else { 1 })?.of_features(group);
        let run = if masked && !last { positions } else { 0 };
        let rooms = if last { 1 } else { parts };
        Ok(Self { level, parts, group, split, rooms, room: split.room::<E::Acc>()?, run, stream_from })
    }

    /// The memory of a call: `arrays` numbers a channel, and what each part needs.
    fn room<'a, T: Real>(
        &self,
        arrays: usize,
        channels: usize,
        workspace: &'a mut Workspace<T>,
    ) -> Result<(Arrays<'a, T>, Rooms<'a, T>), Error> {
        let overflow = Error::Overflow { rows: self.parts, stride: self.room };
        let each = self.room.checked_add(self.run).ok_or(overflow.clone())?;
        let of_channels = arrays.checked_mul(channels).ok_or(overflow.clone())?;
        let len = self.rooms.checked_mul(each).and_then(|len| len.checked_add(of_channels));
        let memory = workspace.room(len.ok_or(overflow)?);
        let (of_channels, rooms) = memory.split_at_mut(of_channels);
        Ok((Arrays(Target::every(of_channels, channels)), Rooms { of: Target::every(rooms, each), each }))
    }
}

/// Arrays of one number a channel.
#[derive(Clone, Copy)]
pub(crate) struct Arrays<'a, T>(Target<'a, T>);

impl<'a, T> Arrays<'a, T> {
    /// Some channels of an array.
    ///
    /// # Safety
    /// There are this array and these channels, and nobody else uses them as long as the slice lives.
    unsafe fn of(self, array: usize, channels: &Range<usize>) -> &'a mut [T] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.0.row(array).add(channels.start), channels.len()) }
    }
}

/// Memory for each part of a call.
#[derive(Clone, Copy)]
pub(crate) struct Rooms<'a, T> {
    of: Target<'a, T>,
    each: usize,
}

impl<'a, T> Rooms<'a, T> {
    /// # Safety
    /// There is this part, and nobody else uses its memory as long as the slice lives.
    unsafe fn of_part(self, part: usize) -> &'a mut [T] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.of.row(part), self.each) }
    }
}

/// `numbers`, for loops that take their numbers by channel.
fn numbers<E: Element>(numbers: &[E::Acc]) -> crate::affine::Affine<'_, E> {
    crate::affine::Affine::new(Some(Values::Wide(numbers)), 0.0)
}

/// What the sums of a channel are taken of.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a, E: Element> {
    pub(crate) grid: Grid,
    pub(crate) x: Source<'a, E>,
    /// With it, the sums are those of dy x_hat and of dy; without, of x - m and of its square.
    pub(crate) dy: Option<Source<'a, E>>,
    pub(crate) valid: crate::Valid<'a>,
    pub(crate) first_row: usize,
}

impl<E: Element> Inputs<'_, E> {
    /// Position of all samples' that a row begins with.
    fn position(&self, row: usize) -> usize {
        if self.grid.last { row } else { row * self.grid.positions }
    }

    /// Rows until the end of the chunk that a row is in.
    fn chunk(&self, row: usize, end: usize) -> Range<usize> {
        row..end.min(row + (CHUNK - (self.first_row + row) % CHUNK))
    }
}
