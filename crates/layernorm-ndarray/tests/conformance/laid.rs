//! Arrays that lie in memory in one way or another.

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, IxDyn, ShapeBuilder, Slice};

/// How arrays lie in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Lie {
    /// The last axis fastest.
    C,
    /// The first axis fastest.
    Fortran,
    /// Every other number of every axis, from the last to the first.
    Steps,
}

/// An array that lies so, with the shape of a case.
#[derive(Clone)]
pub(crate) struct Laid<E> {
    memory: ArrayD<E>,
    lie: Lie,
}

impl<E: Copy + Default> Laid<E> {
    pub(crate) fn new(values: &[E], shape: &[usize], lie: Lie) -> Self {
        let room: Vec<usize> =
            shape.iter().map(|len| if lie == Lie::Steps { 2 * len } else { *len }).collect();
        let memory = ArrayD::from_elem(IxDyn(&room).set_f(lie == Lie::Fortran), E::default());
        let mut laid = Self { memory, lie };
        laid.view_mut().iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        laid
    }

    fn slice(&self) -> Slice {
        Slice::new(0, None, if self.lie == Lie::Steps { -2 } else { 1 })
    }

    pub(crate) fn view(&self) -> ArrayViewD<'_, E> {
        let slice = self.slice();
        self.memory.slice_each_axis(|_| slice)
    }

    pub(crate) fn view_mut(&mut self) -> ArrayViewMutD<'_, E> {
        let slice = self.slice();
        self.memory.slice_each_axis_mut(|_| slice)
    }

    pub(crate) fn numbers(&self) -> Vec<E> {
        self.view().iter().copied().collect()
    }
}

/// A parameter, and room for its gradient.
pub(crate) fn parameter<P: Copy, A: Copy + Default>(
    values: &Option<Vec<P>>,
    shape: &[usize],
) -> (Option<ArrayD<P>>, Option<ArrayD<A>>) {
    let all = shape.iter().product();
    let array = |values: &Vec<P>| {
        let shape = if values.len() == all { shape } else { &[values.len()] };
        ArrayD::from_shape_vec(shape, values.clone()).expect("as many numbers")
    };
    let values = values.as_ref().map(array);
    let gradient = values.as_ref().map(|values| ArrayD::from_elem(values.shape(), A::default()));
    (values, gradient)
}
