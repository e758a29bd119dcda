//! Numbers of a tensor that are normalised together, along any of its axes: the rows of the loop over rows.
//!
//! Where a set is contiguous it is a row as it is. Where it isn't, sets are gathered into rows, in the type that they
//! accumulate in, and results are scattered back. A row has its numbers in the order of memory, and rows are in the
//! order of the axes that are left.

use crate::by_row::{Statistics, backward::Backward, forward::Forward};
use crate::element::private::Stored;
use crate::form::{Divisor, Form};
use crate::{Element, Error, Params, Real, Rows, RowsMut, Run, Workspace};

/// Along which axes sets lie.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Along<'a> {
    These(&'a [usize]),
    AllBut(usize),
}

/// The sets of a tensor, row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sets<'a> {
    shape: &'a [usize],
    along: Along<'a>,
    /// How many sets.
    pub(crate) rows: usize,
    /// Numbers of a set.
    pub(crate) features: usize,
}

impl<'a> Sets<'a> {
    pub(crate) fn new(shape: &'a [usize], along: Along<'a>) -> Result<Self, Error> {
        let (rank, but) = (shape.len(), |axis: &usize| *axis >= shape.len());
        let wrong = match along {
            Along::These(axes) => axes.iter().copied().find(but),
            Along::AllBut(axis) => Some(axis).filter(but),
        };
        if let Some(axis) = wrong {
            return Err(Error::Axis { axis, rank });
        }
        let mut sets = Self { shape, along, rows: 1, features: 1 };
        let mut len = 1usize;
        for (axis, size) in shape.iter().enumerate() {
            len = len.checked_mul(*size).ok_or(Error::Overflow { rows: len, stride: *size })?;
            // Of nothing, one factor may be too large where the product is 0.
            if sets.is_along(axis) {
                sets.features = sets.features.saturating_mul(*size);
            } else {
                sets.rows = sets.rows.saturating_mul(*size);
            }
        }
        Ok(sets)
    }

    pub(crate) fn expect(&self, what: &'static str, got: usize) -> Result<(), Error> {
        let expected = self.len();
        if got == expected { Ok(()) } else { Err(Error::Length { what, expected, got }) }
    }

    pub(crate) fn len(&self) -> usize {
        // Checked, where neither is 0.
        self.rows.saturating_mul(self.features)
    }

    fn is_along(&self, axis: usize) -> bool {
        match self.along {
            Along::These(axes) => axes.contains(&axis),
            Along::AllBut(but) => axis != but,
        }
    }

    /// Is each set a row already?
    pub(crate) fn are_rows(&self) -> bool {
        let mut sizes = self.shape.iter().enumerate().filter(|(_, size)| **size != 1);
        // After the first axis that is along a set, all are.
        sizes.by_ref().find(|(axis, _)| self.is_along(*axis));
        sizes.all(|(axis, _)| self.is_along(axis))
    }

    /// Each number's place: in memory, and among the rows.
    fn places(&self, mut visit: impl FnMut(usize, usize)) {
        if self.len() > 0 {
            self.places_from(0, 0, [self.rows, self.features], &mut 0, &mut visit);
        }
    }

    /// Those that have the same indices on the axes before `axis`, with `left` sets, and numbers of a set, among them.
    fn places_from<V: FnMut(usize, usize)>(
        &self,
        axis: usize,
        place: usize,
        [mut rows, mut features]: [usize; 2],
        memory: &mut usize,
        visit: &mut V,
    ) {
        // So the depth is the number of axes that are not 1: it is small.
        let Some(axis) = (axis..self.shape.len()).find(|axis| self.shape[*axis] != 1) else {
            visit(*memory, place);
            *memory += 1;
            return;
        };
        let step = if self.is_along(axis) {
            features /= self.shape[axis];
            features
        } else {
            rows /= self.shape[axis];
            rows * self.features
        };
        for index in 0..self.shape[axis] {
            self.places_from(axis + 1, place + index * step, [rows, features], memory, visit);
        }
    }

    /// The rows of a tensor. Both have as many numbers as the sets.
    pub(crate) fn gather<E: Element>(&self, from: &[E], to: &mut [E::Acc]) {
        self.places(|memory, place| to[place] = from[memory].to_acc());
    }

    /// The tensor of rows, rounded once.
    pub(crate) fn scatter<E: Element>(&self, from: &[E::Acc], to: &mut [E]) {
        self.places(|memory, place| to[memory] = E::from_f64(from[place].to_f64()));
    }
}

/// A norm over sets, without parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OverSets<'a> {
    pub(crate) sets: Sets<'a>,
    pub(crate) statistics: Statistics,
    pub(crate) divisor: Divisor,
    /// Is a sum divided by the number of terms?
    pub(crate) means: bool,
    pub(crate) eps: f64,
}

impl OverSets<'_> {
    fn form<T: Real>(&self) -> Result<Form<T>, Error> {
        let form = Form::new(self.eps, self.sets.features)?;
        Ok(Form { divisor: self.divisor, count: if self.means { form.count } else { 1 }, ..form })
    }

    /// The parameters that there are not.
    fn params<E>(&self) -> Params<'static, E> {
        Params { weight: None, bias: None, eps: self.eps }
    }

    pub(crate) fn forward<E: Element>(
        &self,
        x: &[E],
        y: &mut [E],
        workspace: &mut Workspace<E::Acc>,
        run: Run,
    ) -> Result<(), Error> {
        let Self { sets, statistics, .. } = *self;
        sets.expect("x", x.len())?;
        sets.expect("y", y.len())?;
        let form = self.form()?;
        if sets.are_rows() {
            let (x, y) = (Rows::new(x, sets.features)?, RowsMut::new(y, sets.features)?);
            return Forward { form, ..Forward::new(x, self.params::<E>(), y, None)? }.run(statistics, run);
        }
        run.level()?;
        let rows = workspace.room(sets.len());
        sets.gather(x, rows);
        let call = Forward::in_place(RowsMut::new(rows, sets.features)?, self.params::<E::Acc>(), None)?;
        Forward { form, ..call }.run(statistics, run)?;
        sets.scatter(rows, y);
        Ok(())
    }

    pub(crate) fn backward<E: Element>(
        &self,
        [x, dy]: [&[E]; 2],
        dx: &mut [E],
        workspace: &mut Workspace<E::Acc>,
        run: Run,
    ) -> Result<(), Error> {
        let Self { sets, statistics, .. } = *self;
        sets.expect("x", x.len())?;
        sets.expect("dy", dy.len())?;
        sets.expect("dx", dx.len())?;
        let (form, n) = (self.form()?, sets.features);
        if sets.are_rows() {
            let dx = Some(RowsMut::new(dx, n)?);
            let call = Backward::new(Rows::new(x, n)?, Rows::new(dy, n)?, self.params::<E>(), None, dx)?;
            return Backward { form, ..call }.run(statistics, None, run);
        }
        run.level()?;
        let (of_x, of_dy) = halves(workspace, sets.len())?;
        sets.gather(x, of_x);
        sets.gather(dy, of_dy);
        let rows = RowsMut::new(of_dy, n)?;
        let call = Backward::in_place(Rows::new(of_x, n)?, rows, self.params::<E::Acc>(), None)?;
        Backward { form, ..call }.run(statistics, None, run)?;
        sets.scatter(of_dy, dx);
        Ok(())
    }
}

/// Room for twice `len` numbers.
pub(crate) fn halves<T: Real>(
    workspace: &mut Workspace<T>,
    len: usize,
) -> Result<(&mut [T], &mut [T]), Error> {
    let both = len.checked_mul(2).ok_or(Error::Overflow { rows: 2, stride: len })?;
    Ok(workspace.room(both).split_at_mut(len))
}
