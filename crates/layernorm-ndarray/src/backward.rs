//! A backward call, from arrays to kernels, by the three ways of [`crate::forward`].
//!
//! dweight and dbias are sums over all rows in one order, of which one call of the kernels does all. A tile is 2^k chunks of
//! rows, cut where the kernels' tree of adjacent pairs is cut; so the totals of a tile are a node of that tree, and joining
//! them by the same tree gives the bits of one call over all rows.

use crate::forward::{Call, block, pieces};
use crate::layout::Layout;
use crate::memory::{Buffer, Source, Target, tile};
use crate::operator::{SavedRef, part_ref};
use crate::threads;
use layernorm::{
    Companion, Element, Error, Gradients, ParamGradients, Params, Real, Rows, Run, Workspace,
    rms_norm_backward,
};
use std::ops::Range;

/// The gradient of the output, and what becomes of it.
pub(crate) enum Upstream<'a, E> {
    /// It is read, and dx written if it is wanted.
    Apart(Source<'a, E>, Option<Target<'a, E>>),
    /// It becomes dx.
    InPlace(Target<'a, E>),
}

impl<E: Element> Upstream<'_, E> {
    fn block(&self, x: Layout<'_>) -> Option<usize> {
        match self {
            Self::Apart(dy, None) => block([x, dy.layout]),
            Self::Apart(dy, Some(dx)) => block([x, dy.layout, dx.layout]),
            Self::InPlace(dy) => block([x, dy.layout]),
        }
    }

    /// Of the rows before `at`, and of the others.
    fn split(&mut self, at: usize) -> [Upstream<'_, E>; 2] {
        match self {
            Self::Apart(dy, None) => [Upstream::Apart(*dy, None), Upstream::Apart(*dy, None)],
            Self::Apart(dy, Some(dx)) => dx.split(at).map(|dx| Upstream::Apart(*dy, Some(dx))),
            Self::InPlace(dy) => dy.split(at).map(Upstream::InPlace),
        }
    }
}

/// Buffers of one thread, for rows of x and of dy.
struct Buffers<E> {
    x: Buffer<E>,
    dy: Buffer<E>,
}

impl<E: Element> Buffers<E> {
    fn new() -> Self {
        Self { x: Buffer::new(), dy: Buffer::new() }
    }
}

/// What the parts of a call share.
struct Job<'a, E: Element, P> {
    call: Call<'a, P>,
    x: Source<'a, E>,
    /// Of all rows.
    saved: SavedRef<'a, E::Acc>,
    /// Rows of a tile.
    tile: usize,
    first_row: usize,
    /// Numbers of dweight and of dbias in a node.
    sizes: [usize; 2],
}

/// Shapes and axes must be checked.
pub(crate) fn backward<E: Element, P: Companion<E>>(
    call: Call<'_, P>,
    x: Source<'_, E>,
    mut dy: Upstream<'_, E>,
    saved: SavedRef<'_, E::Acc>,
    sums: Option<ParamGradients<'_, E::Acc>>,
) -> Result<(), Error> {
    let (rows, features) = (x.layout.rows(), x.layout.features());
    call.operator.check(saved, rows)?;
    let (tile, first_row) = (tile::<E>(x.layout), sums.as_ref().map_or(0, |sums| sums.first_row));
    let wanted = |numbers: &Option<&mut [E::Acc]>| numbers.as_ref().map_or(0, |_| features);
    let sizes = sums.as_ref().map_or([0; 2], |sums| [wanted(&sums.dweight), wanted(&sums.dbias)]);
    let job = Job { call, x, saved, tile, first_row, sizes };
    let block = dy.block(x.layout);
    let one_call = block == Some(rows) || first_row % tile + rows <= tile;
    let Some(ParamGradients { dweight, dbias, accumulate, first_row, workspace }) = sums else {
        return match block {
            Some(each) => job.pieces(&mut dy, pieces(0..rows, each)),
            None => job.tiles(dy, 0..rows, threads::parts(call.run, rows * features)),
        };
    };
    if one_call {
        let sums = ParamGradients { dweight, dbias, accumulate, first_row, workspace };
        return job.piece(&mut dy, 0..rows, Some(sums), &mut Buffers::new());
    }
    let last = first_row.checked_add(rows - 1).ok_or(Error::RowIndex { first_row, rows })?;
    let parts = threads::parts(call.run, rows * features);
    let mut thread = Thread { workspace, buffers: &mut Buffers::new() };
    let total = job.total(dy, first_row / tile..last / tile + 1, parts, &mut thread)?;
    for (total, gradient) in total.iter().zip([dweight, dbias]) {
        if let Some(gradient) = gradient {
            give(total, gradient, accumulate, thread.workspace, call.run)?;
        }
    }
    Ok(())
}

/// A node of the tree of totals: dweight and dbias, one number a feature; empty if it is not wanted.
type Node<A> = [Vec<A>; 2];

/// What a thread works in.
struct Thread<'a, E: Element> {
    workspace: &'a mut Workspace<E::Acc>,
    buffers: &'a mut Buffers<E>,
}

impl<E: Element, P: Companion<E>> Job<'_, E, P> {
    /// dx alone, piece by piece.
    fn pieces(
        &self,
        dy: &mut Upstream<'_, E>,
        mut pieces: impl Iterator<Item = Range<usize>>,
    ) -> Result<(), Error> {
        let mut buffers = Buffers::new();
        pieces.try_for_each(|rows| self.piece(dy, rows, None, &mut buffers))
    }

    /// dx alone, in tiles, on so many threads.
    fn tiles(&self, mut dy: Upstream<'_, E>, rows: Range<usize>, parts: usize) -> Result<(), Error> {
        if parts == 1 || rows.len() <= self.tile {
            return self.pieces(&mut dy, pieces(rows, self.tile));
        }
        let half = rows.start + (rows.len() / 2).next_multiple_of(self.tile);
        let [first, second] = dy.split(half);
        let (one, other) = threads::both(
            || self.tiles(first, rows.start..half, parts - parts / 2),
            || self.tiles(second, half..rows.end, parts / 2),
        );
        one.and(other)
    }

    /// dx, and the totals of the tiles that have these indices in the whole batch. There must be one.
    ///
    /// The tree over some tiles has its root where the highest power of two lies between two of them.
    fn total(
        &self,
        mut dy: Upstream<'_, E>,
        tiles: Range<usize>,
        parts: usize,
        thread: &mut Thread<'_, E>,
    ) -> Result<Node<E::Acc>, Error> {
        let Some(bit) = (tiles.start ^ (tiles.end - 1)).checked_ilog2() else {
            return self.tile_total(&mut dy, tiles.start, thread);
        };
        let root = (tiles.end - 1) >> bit << bit;
        let [first, second] = dy.split(self.row(root));
        let (mut left, right) = if parts > 1 {
            let (left, right) = threads::both(
                || self.total(first, tiles.start..root, parts - parts / 2, thread),
                || {
                    let mut thread =
                        Thread { workspace: &mut Workspace::new(), buffers: &mut Buffers::new() };
                    self.total(second, root..tiles.end, parts / 2, &mut thread)
                },
            );
            (left?, right?)
        } else {
            (
                self.total(first, tiles.start..root, 1, thread)?,
                self.total(second, root..tiles.end, 1, thread)?,
            )
        };
        for (left, right) in left.iter_mut().zip(&right) {
            left.iter_mut().zip(right).for_each(|(left, right)| *left += *right);
        }
        Ok(left)
    }

    fn tile_total(
        &self,
        dy: &mut Upstream<'_, E>,
        tile: usize,
        thread: &mut Thread<'_, E>,
    ) -> Result<Node<E::Acc>, Error> {
        let rows = self.row(tile)..self.row(tile + 1);
        let mut node = self.sizes.map(|size| vec![E::Acc::default(); size]);
        let [dweight, dbias] = &mut node;
        let sums = ParamGradients {
            dweight: Some(&mut dweight[..]).filter(|dweight| !dweight.is_empty()),
            dbias: Some(&mut dbias[..]).filter(|dbias| !dbias.is_empty()),
            accumulate: false,
            first_row: self.first_row + rows.start,
            workspace: &mut *thread.workspace,
        };
        self.piece(dy, rows, Some(sums), thread.buffers)?;
        Ok(node)
    }

    /// The row of this call with which a tile of the whole batch begins.
    fn row(&self, tile: usize) -> usize {
        let rows = self.x.layout.rows();
        // After the last tile there may be no row that has an index.
        tile.checked_mul(self.tile).map_or(rows, |row| row.saturating_sub(self.first_row).min(rows))
    }

    /// Some rows at once: where they lie, or by way of the buffers.
    fn piece(
        &self,
        dy: &mut Upstream<'_, E>,
        rows: Range<usize>,
        params: Option<ParamGradients<'_, E::Acc>>,
        buffers: &mut Buffers<E>,
    ) -> Result<(), Error> {
        let Call { operator, params: by, run } = self.call;
        let saved = part_ref(self.saved, rows.clone());
        let x = match self.x.rows(rows.clone()) {
            Some(x) => x,
            None => buffers.x.gather(&self.x, rows.clone())?,
        };
        let buffer = &mut buffers.dy;
        match dy {
            Upstream::InPlace(dy) => {
                if let Some(dy) = dy.rows(rows.clone()) {
                    return operator.backward_in_place((x, dy), by, saved, params, run);
                }
                let in_buffer = buffer.gather_target(dy, rows.clone())?;
                operator.backward_in_place((x, in_buffer), by, saved, params, run)?;
                buffer.scatter(dy, rows);
            }
            Upstream::Apart(dy, dx) => {
                let in_place = dx.as_mut().map(|dx| dx.rows(rows.clone()));
                if let Some(None) = in_place {
                    let in_buffer = buffer.gather_mut(dy, rows.clone())?;
                    operator.backward_in_place((x, in_buffer), by, saved, params, run)?;
                    if let Some(dx) = dx {
                        buffer.scatter(dx, rows);
                    }
                } else {
                    let dy = match dy.rows(rows.clone()) {
                        Some(dy) => dy,
                        None => buffer.gather(dy, rows)?,
                    };
                    let gradients = Gradients { dx: in_place.flatten(), params };
                    operator.backward([x, dy], by, saved, gradients, run)?;
                }
            }
        }
        Ok(())
    }
}

/// Write a total to a gradient, of one number a feature or of one for all; or add it.
fn give<A: Real>(
    total: &[A],
    gradient: &mut [A],
    accumulate: bool,
    workspace: &mut Workspace<A>,
    run: Run,
) -> Result<(), Error> {
    if gradient.len() == total.len() {
        let pairs = gradient.iter_mut().zip(total);
        if accumulate {
            pairs.for_each(|(gradient, total)| *gradient += *total);
        } else {
            pairs.for_each(|(gradient, total)| *gradient = *total);
        }
        return Ok(());
    }
    // The kernels' own sum of a row: the gradient of a shared bias is the sum of dy.
    let dy = Rows::new(total, total.len())?;
    let sum = ParamGradients { dweight: None, dbias: Some(gradient), accumulate, first_row: 0, workspace };
    let gradients = Gradients { dx: None, params: Some(sum) };
    rms_norm_backward(dy, dy, Params::<A>::default(), None, gradients, run)
}
