//! Operands of norms whose statistics or sums go over all rows, or that have more than an input and an output: all rows
//! at once, where they lie if they are evenly spaced, else by way of a contiguous copy.

use crate::memory::{Buffer, Source, Target};
use layernorm::{Element, Error, Rows, RowsMut};

/// An array to read.
pub(crate) struct Reading<'a, E: Element> {
    from: Source<'a, E>,
    copy: Buffer<E>,
}

impl<'a, E: Element> Reading<'a, E> {
    pub(crate) fn of(from: Source<'a, E>) -> Self {
        Self { from, copy: Buffer::new() }
    }

    /// All rows.
    pub(crate) fn rows(&mut self) -> Result<Rows<'_, E>, Error> {
        let all = 0..self.from.layout.rows();
        match self.from.rows(all.clone()) {
            Some(rows) => Ok(rows),
            None => self.copy.gather(&self.from, all),
        }
    }

    /// The numbers of the one row there is.
    pub(crate) fn numbers(&mut self) -> Result<&[E], Error> {
        Ok(self.rows()?.row(0).unwrap_or_default())
    }
}

/// An array to write.
pub(crate) struct Writing<'a, E: Element> {
    to: Target<'a, E>,
    copy: Buffer<E>,
    /// Is what stands there read, too?
    in_place: bool,
}

impl<'a, E: Element> Writing<'a, E> {
    pub(crate) fn of(to: Target<'a, E>) -> Self {
        Self { to, copy: Buffer::new(), in_place: false }
    }

    pub(crate) fn in_place(to: Target<'a, E>) -> Self {
        Self { in_place: true, ..Self::of(to) }
    }

    fn lies_well(&self) -> bool {
        self.to.layout.evenly(&(0..self.to.layout.rows())).is_some()
    }

    /// All rows.
    pub(crate) fn rows(&mut self) -> Result<RowsMut<'_, E>, Error> {
        let all = 0..self.to.layout.rows();
        match (self.lies_well(), self.in_place) {
            (true, _) => self.to.rows(all).ok_or(Error::Overflow { rows: 0, stride: 0 }),
            (false, true) => self.copy.gather_target(&self.to, all),
            (false, false) => self.copy.rows_mut(self.to.layout, all.len()),
        }
    }

    /// The numbers of the one row there is.
    pub(crate) fn numbers(&mut self) -> Result<&mut [E], Error> {
        if self.lies_well() {
            return Ok(self.to.numbers().unwrap_or_default());
        }
        self.rows()?;
        Ok(self.copy.numbers_mut())
    }

    /// What was written goes to the array, if it is not there.
    pub(crate) fn finish(mut self) {
        if !self.lies_well() {
            let all = 0..self.to.layout.rows();
            self.copy.scatter(&mut self.to, all);
        }
    }
}
