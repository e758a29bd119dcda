//! Rows of numbers in memory: how many, how long, how far apart.

use crate::element::private::Stored;
use crate::{Element, Error};
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
        Ok(Self { start: data.as_ptr(), shape, life: PhantomData })
    }

    /// `rows` rows, `stride` values from the start of one to the start of the next.
    ///
    /// # Errors
    /// [`Error::Stride`] if rows overlap, [`Error::Length`] if `data` ends before the last row does,
    /// [`Error::Overflow`] if no slice can be that long.
    pub fn strided(data: &'a [T], rows: usize, features: usize, stride: usize) -> Result<Self, Error> {
        let shape = Shape::strided(data.len(), rows, features, stride)?;
        Ok(Self { start: data.as_ptr(), shape, life: PhantomData })
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
        Ok(Self { start, shape, life: PhantomData })
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
            std::slice::from_raw_parts(self.start.add(index * self.shape.stride), self.shape.features)
        })
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn source(&self) -> Source<'a, T> {
        Source { start: self.start, stride: self.shape.stride, life: PhantomData }
    }
}

impl<'a, T> RowsMut<'a, T> {
    /// Contiguous rows: as many as `data` holds.
    ///
    /// # Errors
    /// [`Error::Ragged`] if `data` is not a whole number of rows.
    pub fn new(data: &'a mut [T], features: usize) -> Result<Self, Error> {
        let shape = Shape::contiguous(data.len(), features)?;
        Ok(Self { start: data.as_mut_ptr(), shape, life: PhantomData })
    }

    /// `rows` rows, `stride` values from the start of one to the start of the next.
    ///
    /// # Errors
    /// Those of [`Rows::strided`].
    pub fn strided(data: &'a mut [T], rows: usize, features: usize, stride: usize) -> Result<Self, Error> {
        let shape = Shape::strided(data.len(), rows, features, stride)?;
        Ok(Self { start: data.as_mut_ptr(), shape, life: PhantomData })
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
        Ok(Self { start, shape, life: PhantomData })
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
        Rows { start: self.start, shape: self.shape, life: PhantomData }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The rows as a source and a target over the same memory: what an operation in place works on.
    pub(crate) fn in_place(self) -> (Source<'a, T>, Target<'a, T>) {
        let (start, stride) = (self.start, self.shape.stride);
        (Source { start, stride, life: PhantomData }, Target { start, stride, life: PhantomData })
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
    life: PhantomData<&'a [T]>,
}

/// Where the loops write rows. As [`Source`], and nobody else looks at this memory during `'a`.
#[derive(Debug)]
pub(crate) struct Target<'a, T> {
    start: *mut T,
    stride: usize,
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
    Wide(Source<'a, E::Acc>),
}

/// As [`Mixed`], to write.
#[derive(Debug, Clone, Copy)]
pub(crate) enum MixedMut<'a, E: Element> {
    Own(Target<'a, E>),
    Wide(Target<'a, E::Acc>),
}

/// Where the numbers of a row start: elements, or what they accumulate in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<E> {
    pub(crate) start: *const E,
    /// Never of a type that accumulates in itself.
    pub(crate) wide: bool,
}

/// As [`Place`], to write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaceMut<E> {
    pub(crate) start: *mut E,
    pub(crate) wide: bool,
}

impl<E: Element> Place<E> {
    /// Of elements.
    pub(crate) fn own(start: *const E) -> Self {
        Self { start, wide: false }
    }

    /// Of what they accumulate in.
    pub(crate) fn wide(start: *const E::Acc) -> Self {
        Self { start: start.cast(), wide: E::NARROW }
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
            if E::NARROW && self.wide {
                self.start.cast::<E::Acc>().add(index).cast()
            } else {
                self.start.add(index)
            }
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
            if E::NARROW && self.wide { at.cast::<E::Acc>().read() } else { at.read().to_acc() }
        }
    }
}

impl<E: Element> PlaceMut<E> {
    /// Of elements.
    pub(crate) fn own(start: *mut E) -> Self {
        Self { start, wide: false }
    }

    /// Write number `index`, rounded once.
    ///
    /// # Safety
    /// It is there.
    pub(crate) unsafe fn write(self, index: usize, value: f64) {
        // SAFETY: the caller's.
        unsafe {
            if E::NARROW && self.wide {
                self.start.cast::<E::Acc>().add(index).write(E::Acc::from_f64(value));
            } else {
                self.start.add(index).write(E::from_f64(value));
            }
        }
    }

    /// To read what is written here.
    pub(crate) fn as_place(self) -> Place<E> {
        Place { start: self.start, wide: self.wide }
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
                Self::Wide(rows) => PlaceMut { start: rows.row(index).cast(), wide: E::NARROW },
            }
        }
    }
}

fn expect_column(what: &'static str, got: usize, rows: usize) -> Result<(), Error> {
    if got == rows { Ok(()) } else { Err(Error::Length { what, expected: rows, got }) }
}

impl<'a, T> Source<'a, T> {
    /// One number a row.
    pub(crate) fn column(what: &'static str, numbers: &'a [T], rows: usize) -> Result<Self, Error> {
        expect_column(what, numbers.len(), rows)?;
        Ok(Self { start: numbers.as_ptr(), stride: 1, life: PhantomData })
    }

    /// Where row `index` starts.
    ///
    /// # Safety
    /// `index` is a row of the shape that this was taken with.
    #[inline(always)]
    pub(crate) unsafe fn row(self, index: usize) -> *const T {
        // SAFETY: the row lies inside the checked extent.
        unsafe { self.start.add(index * self.stride) }
    }
}

impl<'a, T> Target<'a, T> {
    /// One number a row.
    pub(crate) fn column(what: &'static str, numbers: &'a mut [T], rows: usize) -> Result<Self, Error> {
        expect_column(what, numbers.len(), rows)?;
        Ok(Self { start: numbers.as_mut_ptr(), stride: 1, life: PhantomData })
    }

    /// Does a row start every `distance` numbers?
    pub(crate) fn is_every(self, distance: usize) -> bool {
        self.stride == distance
    }

    /// All of `memory`, a row every `stride` numbers.
    pub(crate) fn every(memory: &'a mut [T], stride: usize) -> Self {
        Self { start: memory.as_mut_ptr(), stride, life: PhantomData }
    }

    /// Where row `index` starts.
    ///
    /// # Safety
    /// As [`Source::row`]; only one thread may write the row.
    #[inline(always)]
    pub(crate) unsafe fn row(self, index: usize) -> *mut T {
        // SAFETY: the row lies inside the checked extent.
        unsafe { self.start.add(index * self.stride) }
    }
}
