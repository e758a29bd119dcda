//! Conditional norm: each row picks its weight and bias from a table, by its modality, token type, expert or class
//! (Dumoulin, Shlens, Kudlur 2016, arXiv:1610.07629, there for images):
//!
//! ```text
//! y = weight[index[row]] x_hat + bias[index[row]]
//!
//! dx         = the norm's dx, from weight[index[row]]
//! dweight[e] = sum over the rows with index e of dy x_hat       dbias[e] = sum over the rows with index e of dy
//! ```
//!
//! The rows of an index are added in ascending order, counted from 0 among themselves: dweight and dbias of a call with
//! these rows alone. So the scatter is the same each time, on any threads.

use crate::adaptive::target;
use crate::affine::{Affine, Entry};
use crate::by_row::groups::{GroupSums, Groups};
use crate::by_row::{Columns, Statistics, backward::Backward, forward::Forward};
use crate::rms_norm::{columns, columns_mut};
use crate::rows::{Column, Shape};
use crate::{Companion, Element, Error, Params, Rows, RowsMut, Run, StatsMut, StatsRef, Workspace};

/// Weights and biases to pick from, which of them each row picks, and epsilon.
///
/// ```
/// use layernorm::{Rows, Table};
///
/// let weight = [1.0f32, 1.0, 10.0, 20.0];
/// let table = Table { entries: 2, weight: Some(Rows::new(&weight, 2)?), bias: None, index: &[1, 0, 1], eps: 1e-5 };
/// assert_eq!(table.weight.and_then(|weight| weight.row(table.index[0])), Some(&[10.0, 20.0][..]));
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Table<'a, P> {
    /// How many entries there are to pick from.
    pub entries: usize,
    /// (entries, features), in the elements' type or, beside halves, in f32. Absent means 1.
    pub weight: Option<Rows<'a, P>>,
    /// (entries, features). Absent means 0. A backward pass does not read it.
    pub bias: Option<Rows<'a, P>>,
    /// The entry that each row picks, below `entries`.
    pub index: &'a [usize],
    /// Added under the root, as in [`Params`].
    pub eps: f64,
}

/// Rows in the order of their index: memory that backward passes reuse. It is allocated on first use, for as many numbers
/// as there are rows and entries, grows when a larger call comes, and never shrinks.
///
/// ```
/// let order = layernorm::RowsByIndex::new();
/// ```
#[derive(Debug, Clone, Default)]
pub struct RowsByIndex {
    rows: Vec<usize>,
    /// Where the rows of each entry start, and where the last ones end.
    starts: Vec<usize>,
}

/// Which gradients of a table a backward pass is to write. Those of an entry that no row picks are 0.
///
/// ```
/// use layernorm::{RowsByIndex, RowsMut, TableGradients, Workspace};
///
/// let (mut dweight, mut workspace, mut order) = ([0.0f32; 8], Workspace::new(), RowsByIndex::new());
/// let of_two_entries = TableGradients {
///     dweight: Some(RowsMut::new(&mut dweight, 4)?),
///     dbias: None,
///     accumulate: false,
///     workspace: &mut workspace,
///     order: &mut order,
/// };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct TableGradients<'a, T> {
    /// (entries, features), in the type that sums have.
    pub dweight: Option<RowsMut<'a, T>>,
    /// (entries, features).
    pub dbias: Option<RowsMut<'a, T>>,
    /// Add the finished totals to what the gradients hold, instead of replacing it.
    pub accumulate: bool,
    /// Memory for partial sums. It grows (allocates) when it is too small and is kept for the next call.
    pub workspace: &'a mut Workspace<T>,
    /// Memory for the order of the rows. It grows and is kept likewise.
    pub order: &'a mut RowsByIndex,
}

/// Which gradients the backward pass of a conditional norm is to write.
///
/// ```
/// use layernorm::{ConditionalGradients, RowsMut};
///
/// let mut dx = [0.0f32; 8];
/// let frozen = ConditionalGradients { dx: Some(RowsMut::new(&mut dx, 4)?), table: None };
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct ConditionalGradients<'a, E: Element> {
    /// Gradient of the input.
    pub dx: Option<RowsMut<'a, E>>,
    /// Gradients of the table.
    pub table: Option<TableGradients<'a, E::Acc>>,
}

/// Layer norm of each row of `x`, with the weight and bias that the row picks: `y = weight[i] x_hat + bias[i]`, where `i`
/// is `index[row]`.
///
/// `x` and `y` are (rows, features), the index holds one number a row. The statistics go to `saved`. Nothing is
/// allocated. Each row has the bits of [`layer_norm`](crate::layer_norm) with its weight and bias.
///
/// # Errors
/// Before anything is written: [`Error::Index`] where a row picks what there is not, [`Error::Shape`],
/// [`Error::Length`], [`Error::Epsilon`], [`Error::Level`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, Table, conditional_layer_norm};
///
/// let (x, mut y) = ([1.0f32, 3.0, 1.0, 3.0], [0.0; 4]);
/// let table = Table {
///     entries: 2,
///     weight: Some(Rows::new(&[1.0f32, 1.0, 10.0, 20.0], 2)?),
///     bias: Some(Rows::new(&[0.0, 0.0, 0.5, 0.5], 2)?),
///     index: &[1, 0],
///     eps: 0.0,
/// };
/// conditional_layer_norm(Rows::new(&x, 2)?, table, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!(y, [-9.5, 20.5, -1.0, 1.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn conditional_layer_norm<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    table: Table<'_, P>,
    y: RowsMut<'_, E>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    forward(x, table, y, saved)?.run(Statistics::Centred, run)
}

/// [`conditional_layer_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`conditional_layer_norm`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, Table, conditional_layer_norm_in_place};
///
/// let mut x = [1.0f32, 3.0];
/// let weight = Some(Rows::new(&[1.0f32, 1.0, 10.0, 20.0], 2)?);
/// let table = Table { entries: 2, weight, bias: None, index: &[1], eps: 0.0 };
/// conditional_layer_norm_in_place(RowsMut::new(&mut x, 2)?, table, None, Run::default())?;
/// assert_eq!(x, [-10.0, 20.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn conditional_layer_norm_in_place<E: Element, P: Companion<E>>(
    x: RowsMut<'_, E>,
    table: Table<'_, P>,
    saved: Option<StatsMut<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    forward_in_place(x, table, saved)?.run(Statistics::Centred, run)
}

/// The gradients of [`conditional_layer_norm`], given that of its output.
///
/// `saved` holds the statistics of the forward pass; without them they are taken from `x` once more. The gradients of the
/// table need a workspace and an order, which allocate where they are too small; nothing else does. They have the bits of
/// dweight and dbias of [`layer_norm_backward`](crate::layer_norm_backward) over the rows of an entry.
///
/// # Errors
/// As [`conditional_layer_norm`], and [`Error::Overflow`].
///
/// ```
/// use layernorm::{
///     ConditionalGradients, Rows, RowsByIndex, RowsMut, Run, Table, TableGradients, Workspace,
///     conditional_layer_norm_backward,
/// };
///
/// let (x, dy) = (Rows::new(&[1.0f64, 3.0, 3.0, 1.0], 2)?, Rows::new(&[1.0f64, 2.0, 3.0, 4.0], 2)?);
/// let (mut dweight, mut dbias) = ([7.0; 6], [7.0; 6]);
/// let (mut workspace, mut order) = (Workspace::new(), RowsByIndex::new());
/// let of_table = TableGradients {
///     dweight: Some(RowsMut::new(&mut dweight, 2)?),
///     dbias: Some(RowsMut::new(&mut dbias, 2)?),
///     accumulate: false,
///     workspace: &mut workspace,
///     order: &mut order,
/// };
/// let table = Table::<f64> { entries: 3, weight: None, bias: None, index: &[2, 2], eps: 0.0 };
/// let gradients = ConditionalGradients { dx: None, table: Some(of_table) };
/// conditional_layer_norm_backward(x, dy, table, None, gradients, Run::default())?;
/// assert_eq!(dbias, [0.0, 0.0, 0.0, 0.0, 4.0, 6.0]);
/// assert_eq!(dweight, [0.0, 0.0, 0.0, 0.0, 2.0, -2.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn conditional_layer_norm_backward<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: Rows<'_, E>,
    table: Table<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: ConditionalGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    backward(x, dy, table, saved, gradients)?.run(Statistics::Centred, run)
}

/// [`conditional_layer_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`conditional_layer_norm_backward`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, Table, conditional_layer_norm_backward_in_place};
///
/// let mut dy = [1.0f64, 1.0, 1.0];
/// let table = Table::<f64> { entries: 1, weight: None, bias: None, index: &[0], eps: 0.0 };
/// let (x, rows) = (Rows::new(&[1.0, 2.0, 4.0], 3)?, RowsMut::new(&mut dy, 3)?);
/// conditional_layer_norm_backward_in_place(x, rows, table, None, None, Run::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn conditional_layer_norm_backward_in_place<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: RowsMut<'_, E>,
    table: Table<'_, P>,
    saved: Option<StatsRef<'_, E::Acc>>,
    gradients: Option<TableGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = saved.map(|saved| saved.columns(x.rows())).transpose()?;
    backward_in_place(x, dy, table, saved, gradients)?.run(Statistics::Centred, run)
}

/// RMS norm of each row of `x`, with the weight and bias that the row picks. As [`conditional_layer_norm`] otherwise.
///
/// # Errors
/// As [`conditional_layer_norm`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, Table, conditional_rms_norm};
///
/// let (x, mut y) = ([1.0f32, 7.0, 1.0, 7.0], [0.0; 4]);
/// let weight = Some(Rows::new(&[5.0f32, 5.0, 0.0, 5.0], 2)?);
/// let table = Table { entries: 2, weight, bias: None, index: &[1, 0], eps: 0.0 };
/// conditional_rms_norm(Rows::new(&x, 2)?, table, RowsMut::new(&mut y, 2)?, None, Run::default())?;
/// assert_eq!(y, [0.0, 7.0, 1.0, 7.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn conditional_rms_norm<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    table: Table<'_, P>,
    y: RowsMut<'_, E>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns_mut("rstd", rstd, x.rows())).transpose()?;
    forward(x, table, y, saved)?.run(Statistics::Uncentred, run)
}

/// [`conditional_rms_norm`] in place: each row of `x` becomes its norm. The same bits.
///
/// # Errors
/// As [`conditional_layer_norm`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, Table, conditional_rms_norm_in_place};
///
/// let mut x = [1.0f32, 7.0];
/// let weight = Some(Rows::new(&[5.0f32, 5.0, 0.0, 5.0], 2)?);
/// let table = Table { entries: 2, weight, bias: None, index: &[1], eps: 0.0 };
/// conditional_rms_norm_in_place(RowsMut::new(&mut x, 2)?, table, None, Run::default())?;
/// assert_eq!(x, [0.0, 7.0]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn conditional_rms_norm_in_place<E: Element, P: Companion<E>>(
    x: RowsMut<'_, E>,
    table: Table<'_, P>,
    rstd: Option<&mut [E::Acc]>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns_mut("rstd", rstd, x.rows())).transpose()?;
    forward_in_place(x, table, saved)?.run(Statistics::Uncentred, run)
}

/// The gradients of [`conditional_rms_norm`]; see [`conditional_layer_norm_backward`].
///
/// # Errors
/// As [`conditional_layer_norm_backward`].
///
/// ```
/// use layernorm::{ConditionalGradients, Rows, RowsMut, Run, Table, conditional_rms_norm_backward};
///
/// let (x, dy, mut dx) = ([1.0f64, 7.0], [7.0, -1.0], [0.0; 2]);
/// let weight = Some(Rows::new(&[5.0f64, 5.0], 2)?);
/// let table = Table { entries: 1, weight, bias: None, index: &[0], eps: 0.0 };
/// let gradients = ConditionalGradients { dx: Some(RowsMut::new(&mut dx, 2)?), table: None };
/// conditional_rms_norm_backward(Rows::new(&x, 2)?, Rows::new(&dy, 2)?, table, None, gradients, Run::default())?;
/// assert!((dx[0] - 7.0).abs() < 1e-14); // across x, and so all of it
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn conditional_rms_norm_backward<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: Rows<'_, E>,
    table: Table<'_, P>,
    rstd: Option<&[E::Acc]>,
    gradients: ConditionalGradients<'_, E>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns("rstd", rstd, x.rows())).transpose()?;
    backward(x, dy, table, saved, gradients)?.run(Statistics::Uncentred, run)
}

/// [`conditional_rms_norm_backward`] in place: each row of `dy` becomes its dx. The same bits.
///
/// # Errors
/// As [`conditional_layer_norm_backward`].
///
/// ```
/// use layernorm::{Rows, RowsMut, Run, Table, conditional_rms_norm_backward_in_place};
///
/// let mut dy = [1.0f64, 7.0];
/// let table = Table::<f64> { entries: 1, weight: None, bias: None, index: &[0], eps: 0.0 };
/// let (x, rows) = (Rows::new(&[1.0, 7.0], 2)?, RowsMut::new(&mut dy, 2)?);
/// conditional_rms_norm_backward_in_place(x, rows, table, None, None, Run::default())?;
/// assert!(dy.iter().all(|dx| dx.abs() < 1e-15));
/// # Ok::<(), layernorm::Error>(())
/// ```
pub fn conditional_rms_norm_backward_in_place<E: Element, P: Companion<E>>(
    x: Rows<'_, E>,
    dy: RowsMut<'_, E>,
    table: Table<'_, P>,
    rstd: Option<&[E::Acc]>,
    gradients: Option<TableGradients<'_, E::Acc>>,
    run: Run,
) -> Result<(), Error> {
    let saved = rstd.map(|rstd| columns("rstd", rstd, x.rows())).transpose()?;
    backward_in_place(x, dy, table, saved, gradients)?.run(Statistics::Uncentred, run)
}

fn forward<'a, E: Element, P: Companion<E>>(
    x: Rows<'a, E>,
    table: Table<'a, P>,
    y: RowsMut<'a, E>,
    saved: Option<Columns<Column<'a, E::Acc>>>,
) -> Result<Forward<'a, E>, Error> {
    let [weight, bias] = table.affine(x.shape())?;
    Ok(Forward { weight, bias, ..Forward::new(x, table.params(), y, saved)? })
}

fn forward_in_place<'a, E: Element, P: Companion<E>>(
    x: RowsMut<'a, E>,
    table: Table<'a, P>,
    saved: Option<Columns<Column<'a, E::Acc>>>,
) -> Result<Forward<'a, E>, Error> {
    let [weight, bias] = table.affine(x.shape())?;
    Ok(Forward { weight, bias, ..Forward::in_place(x, table.params(), saved)? })
}

/// A checked backward call, and the sums over rows that it takes.
struct WithTable<'a, E: Element, P> {
    call: Backward<'a, E>,
    table: Table<'a, P>,
    gradients: Option<TableGradients<'a, E::Acc>>,
    shape: Shape,
}

fn backward<'a, E: Element, P: Companion<E>>(
    x: Rows<'a, E>,
    dy: Rows<'a, E>,
    table: Table<'a, P>,
    saved: Option<Columns<&'a [E::Acc]>>,
    gradients: ConditionalGradients<'a, E>,
) -> Result<WithTable<'a, E, P>, Error> {
    let ([weight, _], shape) = (table.affine(x.shape())?, x.shape());
    let call = Backward { weight, ..Backward::new(x, dy, table.params(), saved, gradients.dx)? };
    Ok(WithTable { call, table, gradients: gradients.table, shape })
}

fn backward_in_place<'a, E: Element, P: Companion<E>>(
    x: Rows<'a, E>,
    dy: RowsMut<'a, E>,
    table: Table<'a, P>,
    saved: Option<Columns<&'a [E::Acc]>>,
    gradients: Option<TableGradients<'a, E::Acc>>,
) -> Result<WithTable<'a, E, P>, Error> {
    let ([weight, _], shape) = (table.affine(x.shape())?, x.shape());
    let call = Backward { weight, ..Backward::in_place(x, dy, table.params(), saved)? };
    Ok(WithTable { call, table, gradients, shape })
}

impl<E: Element, P: Companion<E>> WithTable<'_, E, P> {
    fn run(self, statistics: Statistics, run: Run) -> Result<(), Error> {
        let Self { call, table, gradients, shape } = self;
        let Some(TableGradients { dweight, dbias, accumulate, workspace, order }) = gradients else {
            return call.run(statistics, None, run);
        };
        let of_entries = shape.with_rows(table.entries);
        let outputs = [target("dweight", dweight, of_entries)?, target("dbias", dbias, of_entries)?];
        run.level()?;
        order.sort(table.index, table.entries)?;
        let groups = Groups::Starts(&order.starts);
        let call = Backward { only: Some(&order.rows), ..call };
        call.run_in_groups(statistics, Some(GroupSums { groups, outputs, accumulate, workspace }), run)
    }
}

impl<'a, P> Table<'a, P> {
    fn params(&self) -> Params<'a, P> {
        Params { eps: self.eps, ..Params::default() }
    }

    /// Weights and biases for rows of this shape, checked.
    fn affine<E: Element>(&self, shape: Shape) -> Result<[Affine<'a, E>; 2], Error>
    where
        P: Companion<E>,
    {
        let Self { entries, weight, bias, index, .. } = *self;
        let (expected, got) = (shape.rows, index.len());
        if got != expected {
            return Err(Error::Length { what: "index", expected, got });
        }
        if let Some((row, &index)) = index.iter().enumerate().find(|(_, index)| **index >= entries) {
            return Err(Error::Index { row, index, entries });
        }
        for (what, rows) in [("weight", weight), ("bias", bias)] {
            if let Some(rows) = rows {
                rows.shape().expect(what, shape.with_rows(entries))?;
            }
        }
        let entry = Entry::Index(index);
        Ok([Affine::of_rows(weight, 1.0, None, entry), Affine::of_rows(bias, -0.0, None, entry)])
    }
}

impl RowsByIndex {
    /// With memory for nothing. Does not allocate.
    pub const fn new() -> Self {
        Self { rows: Vec::new(), starts: Vec::new() }
    }

    /// Sort rows by their index, the rows of an index in ascending order. All are below `entries`.
    fn sort(&mut self, index: &[usize], entries: usize) -> Result<(), Error> {
        let Self { rows, starts } = self;
        let overflow = Error::Overflow { rows: entries, stride: 1 };
        let Some(places) = entries.checked_add(1) else { return Err(overflow) };
        starts.clear();
        starts.try_reserve(places).map_err(|_| overflow)?;
        starts.resize(places, 0);
        rows.clear();
        rows.resize(index.len(), 0);
        // How many rows each entry has, one place on; then where each entry starts.
        for &entry in index {
            starts[entry + 1] += 1;
        }
        for entry in 1..places {
            starts[entry] += starts[entry - 1];
        }
        // Each start moves to its end as the rows come, and so becomes the next one's start.
        for (row, &entry) in index.iter().enumerate() {
            rows[starts[entry]] = row;
            starts[entry] += 1;
        }
        starts.rotate_right(1);
        starts[0] = 0;
        Ok(())
    }
}
