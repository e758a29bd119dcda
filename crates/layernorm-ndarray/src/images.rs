//! Arrays as images: the first axis is that of samples, one is that of channels, and all others count as positions.

use crate::layout::Layout as Rows;
use crate::{Axes, Error, Norm};
use layernorm::{Element, Layout};
use ndarray::{ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Axis, Dimension, IxDyn};

/// Where samples, channels and positions of arrays of a shape are.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    pub(crate) samples: usize,
    pub(crate) channels: usize,
    pub(crate) positions: usize,
    /// In which order the kernels are to see the axes.
    pub(crate) layout: Layout,
    /// The axes, in that order.
    order: Vec<usize>,
    /// In that order, those that a row is made of.
    of_row: Vec<Axis>,
}

/// Norms by channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of groups. No bit depends on the order of channels and positions, so the kernels see them as they lie, where
    /// that is without gaps; they take the whole array as one row.
    Group,
    /// Of batches. Sums have the order of the axes: channels last if theirs is the last axis (or there is but one position), else
    /// first. A row is a sample, or with channels last a position.
    Batch,
}

impl Images {
    /// Those of `x`, whose axis of channels `norm` names.
    pub(crate) fn of<E: Element, P, D: Dimension>(
        kind: Kind,
        norm: &Norm<'_, P>,
        x: &ArrayView<'_, E, D>,
    ) -> Result<Self, Error> {
        let channel = channel_axis(norm, x.shape())?;
        let by_axes = if channel + 1 == x.ndim() { Layout::ChannelsLast } else { Layout::ChannelsFirst };
        let images = Self::in_order(x.shape(), channel, by_axes);
        if kind == Kind::Batch {
            return Ok(images);
        }
        let one_row = |layout| Self {
            of_row: (0..x.ndim()).map(Axis).collect(),
            ..Self::in_order(x.shape(), channel, layout)
        };
        let has_no_gaps = |images: &Self| {
            let x = images.view(x);
            Rows { shape: x.shape(), strides: x.strides(), axes: images.of_row() }.is_dense()
        };
        let mut ways = [Layout::ChannelsFirst, Layout::ChannelsLast].map(one_row).into_iter();
        Ok(ways.find(has_no_gaps).unwrap_or_else(|| one_row(by_axes)))
    }

    fn in_order(shape: &[usize], channel: usize, layout: Layout) -> Self {
        let positions = (1..shape.len()).filter(|axis| *axis != channel);
        let (order, of_row): (Vec<_>, _) = match layout {
            Layout::ChannelsFirst => {
                ([0, channel].into_iter().chain(positions.clone()).collect(), 1..shape.len())
            }
            Layout::ChannelsLast => (
                [0].into_iter().chain(positions.clone()).chain([channel]).collect(),
                shape.len() - 1..shape.len(),
            ),
        };
        Self {
            samples: shape[0],
            channels: shape[channel],
            positions: positions.map(|axis| shape[axis]).product(),
            layout,
            order,
            of_row: of_row.map(Axis).collect(),
        }
    }

    /// The axes that a row is made of, in the views that the kernels see.
    pub(crate) fn of_row(&self) -> Axes<'_> {
        Axes::All(&self.of_row)
    }

    /// As the kernels are to see it.
    pub(crate) fn view<'b, E, D: Dimension>(&self, array: &'b ArrayView<'_, E, D>) -> ArrayViewD<'b, E> {
        array.view().into_dyn().permuted_axes(IxDyn(&self.order))
    }

    /// As [`Images::view`], to write.
    pub(crate) fn view_mut<'b, E, D: Dimension>(
        &self,
        array: &'b mut ArrayViewMut<'_, E, D>,
    ) -> ArrayViewMutD<'b, E> {
        array.view_mut().into_dyn().permuted_axes(IxDyn(&self.order))
    }
}

/// The axis of channels: one, and not the first.
pub(crate) fn channel_axis<P>(norm: &Norm<'_, P>, shape: &[usize]) -> Result<usize, Error> {
    norm.axes.check(shape)?;
    let mut named = norm.axes.iter();
    match (named.next(), named.next()) {
        (Some(axis), None) if axis.index() > 0 => Ok(axis.index()),
        _ => Err(Error::ChannelAxis { x: shape.to_vec() }),
    }
}
