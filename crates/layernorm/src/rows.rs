//! Rows of numbers in memory: how many, how long, how far apart.

use crate::element::private::Stored;
use crate::{Element, Error, Heads, Quantum};
use std::marker::PhantomData;

/// Rows to read: `rows` rows of `features` values, row `i` starting at `i * stride`.
///
/// ```
/// use layernorm::Rows;
///
/// let x = [1.0f32, 2.0, 3.0, -1.0, 4.0, 5.0, 6.0];
/// let padded = Rows::strided(&x, 2, 3, 4)?; // two rows of three, a hole between them
/// assert_eq!(padded.row(1), Some(&x[4..7]));
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    start: *const T,
    shape: Shape,
    groups: Groups,
    life: PhantomData<&'a [T]>,
}

/// Rows to write (or to change in place); between two rows nothing is written.
///
/// ```
/// use layernorm::RowsMut;
///
/// let mut y = [0.0f32; 8];
/// assert_eq!(RowsMut::new(&mut y, 4)?.rows(), 2);
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug)]
pub struct RowsMut<'a, T> {
    start: *mut T,
    shape: Shape,
    groups: Groups,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: rows are shared slices by another name.
unsafe impl<T: Sync> Send for Rows<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Rows<'_, T> {}
// SAFETY: rows to write are exclusive slices by another name.
unsafe impl<T: Send> Send for RowsMut<'_, T> {}
// SAFETY: as above; a shared reference to them only reads.
unsafe impl<T: Sync> Sync for RowsMut<'_, T> {}

/// A checked shape: `(rows - 1) * stride + features` fits the slice that it was checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) features: usize,
    pub(crate) stride: usize,
}

/// Rows in groups that have a distance of their own: the heads of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Groups {
    /// Rows of a group; 0 where there are no groups.
    pub(crate) rows: usize,
    /// From the start of one to the start of the next.
    pub(crate) stride: usize,
}

impl Groups {
    pub(crate) const NONE: Self = Self { rows: 0, stride: 0 };

    /// Where a row starts, where those of a group are `stride` apart.
    #[inline(always)]
    fn start(self, index: usize, stride: usize) -> usize {
        if self.rows == 0 {
            return index * stride;
        }
        index / self.rows * self.stride + index % self.rows * stride
    }

    /// The distance from a row to the one `step` after it, where groups have as many rows.
    fn step(self, step: usize, stride: usize) -> usize {
        // Of one row the stride may be anything.
        if self.rows == 0 { stride.saturating_mul(step) } else { self.stride }
    }
}

impl Shape {
    fn contiguous(len: usize, features: usize) -> Result<Self, Error> {
        let ragged = Error::Ragged { len, features };
        let rows = match (len, features) {
            (0, _) => 0,
            (_, 0) => return Err(ragged),
            _ if !len.is_multiple_of(features) => return Err(ragged),
            _ => len / features,
        };
        Ok(Self { rows, features, stride: features })
    }

    fn strided(len: usize, rows: usize, features: usize, stride: usize) -> Result<Self, Error> {
        if stride < features {
            return Err(Error::Stride { stride, features });
        }
        let extent = match rows.checked_sub(1) {
            None => 0,
            Some(last) => last
                .checked_mul(stride)
                .and_then(|start| start.checked_add(features))
                .ok_or(Error::Overflow { rows, stride })?,
        };
        if len < extent {
            return Err(Error::Length { what: "the slice under the rows", expected: extent, got: len });
        }
        Ok(Self { rows, features, stride })
    }

    /// Bytes of the numbers of all rows.
    pub(crate) fn bytes<T>(self) -> usize {
        // The extent, which is no less, fits memory.
        self.rows * self.features * size_of::<T>()
    }

    /// So many rows as these have.
    pub(crate) fn with_rows(self, rows: usize) -> Self {
        Self { rows, ..self }
    }

    pub(crate) fn expect(self, what: &'static str, of: Self) -> Result<(), Error> {
        let (got, expected) = ((self.rows, self.features), (of.rows, of.features));
        if got == expected { Ok(()) } else { Err(Error::Shape { what, expected, got }) }
    }
}

impl<'a, T> Rows<'a, T> {
    /// Contiguous rows: as many as `data` holds.
    ///
    /// # Errors
    /// [`Error::Ragged`] if `data` is not a whole number of rows.
    pub fn new(data: &'a [T], features: usize) -> Result<Self, Error> {
        let shape = Shape::contiguous(data.len(), features)?;
        Ok(Self { start: data.as_ptr(), shape, groups: Groups::NONE, life: PhantomData })
    }

    /// `rows` rows, `stride` values from the start of one to the start of the next.
    ///
    /// # Errors
    /// [`Error::Stride`] if rows overlap, [`Error::Length`] if `data` ends before the last row does,
    /// [`Error::Overflow`] if no slice can be that long.
    pub fn strided(data: &'a [T], rows: usize, features: usize, stride: usize) -> Result<Self, Error> {
        let shape = Shape::strided(data.len(), rows, features, stride)?;
        Ok(Self { start: data.as_ptr(), shape, groups: Groups::NONE, life: PhantomData })
    }

    /// The heads of some tokens, as they lie in a buffer of more: a row is a head, and row `token * heads + head`
    /// belongs to that head of that token.
    ///
    /// ```
    /// use layernorm::{Heads, Rows};
    ///
    /// let qkv = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]; // two tokens; q, k and v of two heads of one number
    /// let k = Rows::heads(&qkv, Heads { tokens: 2, heads: 2, head_dim: 1, stride: 6, offset: 2 })?;
    /// assert_eq!((k.row(1), k.row(2)), (Some(&[4][..]), Some(&[13][..])));
    /// # Ok::<(), layernorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Stride`] if tokens overlap, [`Error::Length`] if `data` ends before the last token does,
    /// [`Error::Overflow`] if no slice can be that long.
    pub fn heads(data: &'a [T], heads: Heads) -> Result<Self, Error> {
        let (shape, groups) = heads.rows(data.len())?;
        let start = data.get(heads.offset..).unwrap_or_default().as_ptr();
        Ok(Self { start, shape, groups, life: PhantomData })
    }

    /// Row `first`, and every row that is a multiple of `step` after it: of groups of `step` rows, if of groups.
    pub(crate) fn every(self, first: usize, step: usize) -> Self {
        let Self { start, shape, groups, life } = self;
        let of = Shape { rows: shape.rows / step, stride: groups.step(step, shape.stride), ..shape };
        let start = start.wrapping_add(shape.stride.saturating_mul(first));
        Self { start, shape: of, groups: Groups::NONE, life }
    }

    pub(crate) fn groups(&self) -> Groups {
        self.groups
    }

    /// `rows` rows, the first at `start`, `stride` values from the start of one to the start of the next. What lies
    /// between rows is not looked at, and may be somebody else's: part of a matrix whose other columns are being written,
    /// for which no slice may be made.
    ///
    /// # Safety
    /// During `'a`, the values of each row (not those between rows) lie in one allocation, are initialised, and are
    /// written by nobody.
    ///
    /// # Errors
    /// [`Error::Stride`] if rows overlap, [`Error::Overflow`] if no memory can be that long.
    ///
    /// ```
    /// use layernorm::Rows;
    ///
    /// let x = [1.0f32, 2.0, 9.0, 3.0, 4.0];
    /// // SAFETY: x has two rows of two, three apart.
    /// let rows = unsafe { Rows::from_raw(x.as_ptr(), 2, 2, 3)? };
    /// assert_eq!(rows.row(1), Some(&[3.0, 4.0][..]));
    /// # Ok::<(), layernorm::Error>(())
    /// ```
    pub unsafe fn from_raw(
        start: *const T,
        rows: usize,
        features: usize,
        stride: usize,
    ) -> Result<Self, Error> {
        // That many values fit memory; that they are there is the caller's promise.
        let shape = Shape::strided(isize::MAX as usize / size_of::<T>().max(1), rows, features, stride);
        let shape = shape.map_err(|error| match error {
            Error::Length { .. } => Error::Overflow { rows, stride },
            other => other,
        })?;
        Ok(Self { start, shape, groups: Groups::NONE, life: PhantomData })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Values in a row.
    pub fn features(&self) -> usize {
        self.shape.features
    }

    /// Row `index`, if there is one.
    pub fn row(&self, index: usize) -> Option<&'a [T]> {
        // SAFETY: the row lies inside the checked extent, and is there to be read during 'a.
        (index < self.shape.rows).then(|| unsafe {
            let start = self.start.add(self.groups.start(index, self.shape.stride));
            std::slice::from_raw_parts(start, self.shape.features)
        })
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// All numbers, those between rows too, which must be as good as the others.
    pub(crate) fn data(&self) -> &'a [T] {
        let Shape { rows, features, stride } = self.shape;
        let len = rows.checked_sub(1).map_or(0, |last| last * stride + features);
        // SAFETY: the extent was checked.
        unsafe { std::slice::from_raw_parts(self.start, len) }
    }

    pub(crate) fn source(&self) -> Source<'a, T> {
        Source { start: self.start, stride: self.shape.stride, groups: self.groups, life: PhantomData }
    }
}

impl<'a, T> RowsMut<'a, T> {
    /// Contiguous rows: as many as `data` holds.
    ///
    /// # Errors
    /// [`Error::Ragged`] if `data` is not a whole number of rows.
    pub fn new(data: &'a mut [T], features: usize) -> Result<Self, Error> {
        let shape = Shape::contiguous(data.len(), features)?;
        Ok(Self { start: data.as_mut_ptr(), shape, groups: Groups::NONE, life: PhantomData })
    }

    /// `rows` rows, `stride` values from the start of one to the start of the next.
    ///
    /// # Errors
    /// Those of [`Rows::strided`].
    pub fn strided(data: &'a mut [T], rows: usize, features: usize, stride: usize) -> Result<Self, Error> {
        let shape = Shape::strided(data.len(), rows, features, stride)?;
        Ok(Self { start: data.as_mut_ptr(), shape, groups: Groups::NONE, life: PhantomData })
    }

    /// As [`Rows::from_raw`], to write.
    ///
    /// # Safety
    /// During `'a`, the values of each row (not those between rows) lie in one allocation, are initialised, and are
    /// nobody else's to read or write.
    ///
    /// # Errors
    /// Those of [`Rows::from_raw`].
    ///
    /// ```
    /// use layernorm::{Params, RowsMut, Run, layer_norm_in_place};
    ///
    /// let mut x = [1.0f32, 3.0, 9.0, 4.0, 2.0];
    /// // SAFETY: x has two rows of two, three apart, and is borrowed by nobody.
    /// let rows = unsafe { RowsMut::from_raw(x.as_mut_ptr(), 2, 2, 3)? };
    /// layer_norm_in_place(rows, Params { eps: 0.0, ..Params::<f32>::default() }, None, Run::default())?;
    /// assert_eq!(x, [-1.0, 1.0, 9.0, 1.0, -1.0]);
    /// # Ok::<(), layernorm::Error>(())
    /// ```
    pub unsafe fn from_raw(
        start: *mut T,
        rows: usize,
        features: usize,
        stride: usize,
    ) -> Result<Self, Error> {
        // SAFETY: the caller's.
        let Rows { shape, .. } = unsafe { Rows::from_raw(start.cast_const(), rows, features, stride)? };
        Ok(Self { start, shape, groups: Groups::NONE, life: PhantomData })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// Values in a row.
    pub fn features(&self) -> usize {
        self.shape.features
    }

    /// The same rows, to read.
    pub fn as_rows(&self) -> Rows<'_, T> {
        Rows { start: self.start, shape: self.shape, groups: self.groups, life: PhantomData }
    }

    /// As [`Rows::heads`].
    ///
    /// # Errors
    /// Those of [`Rows::heads`].
    pub fn heads(data: &'a mut [T], heads: Heads) -> Result<Self, Error> {
        let (shape, groups) = heads.rows(data.len())?;
        let start = data.get_mut(heads.offset..).unwrap_or_default().as_mut_ptr();
        Ok(Self { start, shape, groups, life: PhantomData })
    }

    /// As [`Rows::every`].
    pub(crate) fn every(&mut self, first: usize, step: usize) -> RowsMut<'_, T> {
        let Rows { shape, groups, .. } = self.as_rows().every(first, step);
        let start = self.start.wrapping_add(self.shape.stride.saturating_mul(first));
        RowsMut { start, shape, groups, life: PhantomData }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The rows as a source and a target over the same memory: what an operation in place works on.
    pub(crate) fn in_place(self) -> (Source<'a, T>, Target<'a, T>) {
        let (start, stride, groups) = (self.start, self.shape.stride, self.groups);
        (
            Source { start, stride, groups, life: PhantomData },
            Target { start, stride, groups, life: PhantomData },
        )
    }

    pub(crate) fn target(self) -> Target<'a, T> {
        self.in_place().1
    }
}

/// Where the loops read rows. A pointer, because in place source and target are the same memory,
/// which two references may not be. Valid for the [`Shape`] that it was taken with, during `'a`.
#[derive(Debug)]
pub(crate) struct Source<'a, T> {
    start: *const T,
    stride: usize,
    groups: Groups,
    life: PhantomData<&'a [T]>,
}

/// Where the loops write rows. As [`Source`], and nobody else looks at this memory during `'a`.
#[derive(Debug)]
pub(crate) struct Target<'a, T> {
    start: *mut T,
    stride: usize,
    groups: Groups,
    life: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Source<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Source<'_, T> {}
impl<T> Clone for Target<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Target<'_, T> {}

// SAFETY: a source is a shared slice by another name.
unsafe impl<T: Sync> Send for Source<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Source<'_, T> {}
// SAFETY: a target is an exclusive slice by another name; the loops hand each of its rows to one thread.
unsafe impl<T: Send> Send for Target<'_, T> {}
// SAFETY: as above: sharing the handle shares no row.
unsafe impl<T: Send> Sync for Target<'_, T> {}

/// Rows of elements, or of what the elements accumulate in: a residual kept in f32 beside halves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mixed<'a, E: Element> {
    Own(Source<'a, E>),
    #[cfg_attr(not(feature = "half"), expect(dead_code, reason = "no other element is narrower"))]
    Wide(Source<'a, E::Acc>),
}

/// As [`Mixed`], to write.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MixedMut<'a, E: Element> {
    Own(Target<'a, E>),
    #[cfg_attr(not(feature = "half"), expect(dead_code, reason = "no other element is narrower"))]
    Wide(Target<'a, E::Acc>),
}

/// Where the numbers of a row start: elements, or what they accumulate in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<E> {
    pub(crate) start: *const E,
    width: Width,
}

/// Of what size numbers are. (As large as the pointer beside it, because a copy of a smaller one has to wait for it.)
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
enum Width {
    /// An element's.
    Own,
    /// That of what elements accumulate in, where it is another type.
    Wide,
}

impl Width {
    const fn wide<E: Element>() -> Self {
        if E::NARROW { Self::Wide } else { Self::Own }
    }

    #[inline(always)]
    fn is_wide<E: Element>(self) -> bool {
        E::NARROW && matches!(self, Self::Wide)
    }
}

/// As [`Place`], to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaceMut<E> {
    pub(crate) start: *mut E,
    width: Width,
}

/// Rows of numbers, each for so many consecutive rows of a call: a gate, a mask (for one), a bias (for all).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<'a, E: Element> {
    pub(crate) numbers: Mixed<'a, E>,
    pub(crate) rows: usize,
}

impl<'a, E: Element> Shared<'a, E> {
    /// Where the numbers for row `index` of the call start.
    ///
    /// # Safety
    /// As [`Source::row`].
    #[inline(always)]
    pub(crate) unsafe fn row(self, index: usize) -> Place<E> {
        // SAFETY: the caller's.
        unsafe { self.numbers.row(index / self.rows) }
    }
}

impl<E: Element> Place<E> {
    /// Of elements.
    pub(crate) fn own(start: *const E) -> Self {
        Self { start, width: Width::Own }
    }

    /// Of what they accumulate in.
    pub(crate) fn wide(start: *const E::Acc) -> Self {
        Self { start: start.cast(), width: Width::wide::<E>() }
    }

    #[inline(always)]
    pub(crate) fn is_wide(self) -> bool {
        self.width.is_wide::<E>()
    }

    /// The place `bytes` bytes on, which need not be anyone's.
    #[inline(always)]
    pub(crate) fn bytes_on(self, bytes: usize) -> *const u8 {
        self.start.cast::<u8>().wrapping_add(bytes)
    }

    /// The place of number `index`.
    ///
    /// # Safety
    /// There are as many.
    #[inline(always)]
    pub(crate) unsafe fn add(self, index: usize) -> Self {
        // SAFETY: the caller's.
        let start = unsafe {
            if self.is_wide() { self.start.cast::<E::Acc>().add(index).cast() } else { self.start.add(index) }
        };
        Self { start, ..self }
    }

    /// Number `index`.
    ///
    /// # Safety
    /// It is there.
    #[inline(always)]
    pub(crate) unsafe fn number(self, index: usize) -> E::Acc {
        // SAFETY: the caller's.
        unsafe {
            let at = self.add(index).start;
            if self.is_wide() { at.cast::<E::Acc>().read() } else { at.read().to_acc() }
        }
    }
}

impl<E: Element> PlaceMut<E> {
    /// Of elements.
    pub(crate) fn own(start: *mut E) -> Self {
        Self { start, width: Width::Own }
    }

    /// Of what they accumulate in.
    pub(crate) fn wide(start: *mut E::Acc) -> Self {
        Self { start: start.cast(), width: Width::wide::<E>() }
    }

    #[inline(always)]
    pub(crate) fn is_wide(self) -> bool {
        self.width.is_wide::<E>()
    }

    /// Write number `index`, rounded once.
    ///
    /// # Safety
    /// It is there.
    pub(crate) unsafe fn write(self, index: usize, value: f64) {
        // SAFETY: the caller's.
        unsafe {
            if self.is_wide() {
                self.start.cast::<E::Acc>().add(index).write(E::Acc::from_f64(value));
            } else {
                self.start.add(index).write(E::from_f64(value));
            }
        }
    }

    /// To read what is written here.
    pub(crate) fn as_place(self) -> Place<E> {
        Place { start: self.start, width: self.width }
    }
}

impl<'a, E: Element> Mixed<'a, E> {
    /// Where row `index` starts.
    ///
    /// # Safety
    /// As [`Source::row`].
    #[inline(always)]
    pub(crate) unsafe fn row(self, index: usize) -> Place<E> {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Self::Own(rows) => Place::own(rows.row(index)),
                Self::Wide(rows) => Place::wide(rows.row(index)),
            }
        }
    }
}

impl<'a, E: Element> MixedMut<'a, E> {
    /// Where row `index` starts.
    ///
    /// # Safety
    /// As [`Target::row`].
    #[inline(always)]
    pub(crate) unsafe fn row(self, index: usize) -> PlaceMut<E> {
        // SAFETY: the caller's.
        unsafe {
            match self {
                Self::Own(rows) => PlaceMut::own(rows.row(index)),
                Self::Wide(rows) => PlaceMut::wide(rows.row(index)),
            }
        }
    }
}

/// One number a row, to read.
pub(crate) fn column<'a, T>(what: &'static str, numbers: &'a [T], rows: usize) -> Result<&'a [T], Error> {
    let got = numbers.len();
    if got == rows { Ok(numbers) } else { Err(Error::Length { what, expected: rows, got }) }
}

/// One number a row, to write: a [`Target`] without distances.
#[derive(Debug)]
pub(crate) struct Column<'a, T> {
    start: *mut T,
    life: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Column<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Column<'_, T> {}

// SAFETY: as a target.
unsafe impl<T: Send> Send for Column<'_, T> {}
// SAFETY: as a target.
unsafe impl<T: Send> Sync for Column<'_, T> {}

impl<'a, T> Column<'a, T> {
    pub(crate) fn new(what: &'static str, numbers: &'a mut [T], rows: usize) -> Result<Self, Error> {
        column(what, numbers, rows)?;
        Ok(Self { start: numbers.as_mut_ptr(), life: PhantomData })
    }

    /// From row `index` on.
    ///
    /// # Safety
    /// There is such a row, or it would be the next.
    pub(crate) unsafe fn from(self, index: usize) -> Self {
        // SAFETY: the caller's.
        Self { start: unsafe { self.start.add(index) }, ..self }
    }

    /// # Safety
    /// The row exists, and is this thread's.
    #[inline(always)]
    pub(crate) unsafe fn set(self, row: usize, number: T) {
        // SAFETY: the caller's.
        unsafe { self.start.add(row).write(number) };
    }
}

impl<'a, T> Source<'a, T> {
    /// # Safety
    /// The rows that will be asked for are valid for reads during `'a`.
    pub(crate) unsafe fn at(start: *const T, stride: usize) -> Self {
        Self { start, stride, groups: Groups::NONE, life: PhantomData }
    }

    /// Every number of `numbers` as a row.
    pub(crate) fn numbers(numbers: &'a [T]) -> Self {
        Self { start: numbers.as_ptr(), stride: 1, groups: Groups::NONE, life: PhantomData }
    }

    /// Where row `index` starts.
    ///
    /// # Safety
    /// `index` is a row of the shape that this was taken with.
    #[inline(always)]
    pub(crate) unsafe fn row(self, index: usize) -> *const T {
        // SAFETY: the row lies inside the checked extent.
        unsafe { self.start.add(self.groups.start(index, self.stride)) }
    }
}

impl<'a, Q: Quantum> Target<'a, Q> {
    /// The same numbers, as the bytes that they are.
    pub(crate) fn bytes(self) -> Target<'a, u8> {
        const { assert!(size_of::<Q>() == 1, "each is one byte") };
        Target { start: self.start.cast(), stride: self.stride, groups: self.groups, life: PhantomData }
    }
}

impl<'a, T> Target<'a, T> {
    /// # Safety
    /// The rows that will be asked for are valid for writes during `'a`, and nobody else's.
    pub(crate) unsafe fn at(start: *mut T, stride: usize) -> Self {
        Self { start, stride, groups: Groups::NONE, life: PhantomData }
    }

    /// Every number of `numbers` as a row, to read and to write.
    pub(crate) fn both(numbers: &'a mut [T]) -> (Source<'a, T>, Self) {
        let start = numbers.as_mut_ptr();
        (
            Source { start, stride: 1, groups: Groups::NONE, life: PhantomData },
            Self { start, stride: 1, groups: Groups::NONE, life: PhantomData },
        )
    }

    /// The same memory, a row every `stride` numbers.
    pub(crate) fn every_of(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// All of `memory`, a row every `stride` numbers.
    pub(crate) fn every(memory: &'a mut [T], stride: usize) -> Self {
        Self { start: memory.as_mut_ptr(), stride, groups: Groups::NONE, life: PhantomData }
    }

    /// Where row `index` starts.
    ///
    /// # Safety
    /// As [`Source::row`]; only one thread may write the row.
    #[inline(always)]
    pub(crate) unsafe fn row(self, index: usize) -> *mut T {
        // SAFETY: the row lies inside the checked extent.
        unsafe { self.start.add(self.groups.start(index, self.stride)) }
    }
}
