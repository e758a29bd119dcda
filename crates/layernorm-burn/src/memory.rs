//! The memory of Flex's tensors, as the kernels take it.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, Shape, bf16, f16};
use layernorm::{Companion, Real, Rows};

/// A type that x may have. It is computed in `Acc`: itself, or f32 if it is a half.
pub(crate) trait Scalar: Number + layernorm::Element<Acc: Number + Real + Companion<Self>> {}
impl Scalar for f32 {}
impl Scalar for f64 {}
impl Scalar for f16 {}
impl Scalar for bf16 {}

/// A number that Flex stores.
pub(crate) trait Number: burn::tensor::Element + bytemuck::Pod {}
impl<T: burn::tensor::Element + bytemuck::Pod> Number for T {}

/// Numbers without gaps, evenly spaced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a, E> {
    memory: &'a [E],
    /// How many numbers lie side by side, how many times, and from the start of one such row to the next.
    row: usize,
    count: usize,
    stride: usize,
}

impl<'a, E> Block<'a, E> {
    /// As rows of so many numbers, as it was made for.
    pub(crate) fn rows(self, row: usize) -> Result<Rows<'a, E>, layernorm::Error> {
        debug_assert!(row == self.row, "{row} numbers of a block made for rows of {}", self.row);
        Rows::strided(self.memory, self.count, row, self.stride)
    }

    /// All its numbers, of a block made without gaps.
    pub(crate) fn values(self) -> &'a [E] {
        debug_assert!(self.count < 2 || self.stride == self.row, "a block without gaps was asked for");
        &self.memory[..self.count * self.row]
    }
}

/// Zeros, for the kernels to write over. The allocator gives large pieces zeroed, so they cost nothing there.
pub(crate) fn zeros<T: Number>(shape: Shape) -> FlexTensor {
    let values: Vec<T> = bytemuck::zeroed_vec(shape.num_elements());
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), T::dtype())
}

/// Does nobody else hold the memory of a tensor, and does the tensor fill it whole?
pub(crate) fn is_exclusive(tensor: &FlexTensor) -> bool {
    let bytes = tensor.layout().num_elements() * tensor.dtype().size();
    tensor.is_unique() && tensor.bytes().len() == bytes && tensor.layout().contiguous_offsets().is_some()
}

/// The memory of an exclusive tensor.
pub(crate) fn memory<T: Number>(tensor: &mut FlexTensor) -> &mut [T] {
    tensor.try_storage_mut().expect("a tensor that nobody else holds")
}

/// The numbers of a contiguous tensor.
pub(crate) fn slice<T: Number>(tensor: &FlexTensor) -> &[T] {
    tensor.as_slice().expect("a contiguous tensor of this type")
}

/// The tensor, copied if it isn't contiguous.
pub(crate) fn contiguous(tensor: &FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() { tensor.clone() } else { tensor.to_contiguous() }
}

/// The tensor, copied if its rows do not lie in memory as the kernels need them.
pub(crate) fn with_rows(tensor: FlexTensor, row: usize, takes_gaps: bool) -> FlexTensor {
    match row_stride(tensor.layout(), row) {
        Some(stride) if takes_gaps || stride == row || tensor.layout().num_elements() == row => tensor,
        _ => tensor.to_contiguous(),
    }
}

/// The rows of a tensor that [`with_rows`] gave.
pub(crate) fn block<T: Number>(tensor: &FlexTensor, row: usize) -> Block<'_, T> {
    let layout = tensor.layout();
    let stride = row_stride(layout, row).expect("the rows of a tensor after with_rows");
    match layout.num_elements().checked_div(row) {
        None | Some(0) => Block { memory: &[], row, count: 0, stride },
        Some(count) => Block { memory: &tensor.storage()[layout.start_offset()..], row, count, stride },
    }
}

/// The distance between rows of `features` numbers, if each row is without gaps (the innermost axes) and the rows
/// are evenly spaced (the others).
fn row_stride(layout: &Layout, features: usize) -> Option<usize> {
    if layout.num_elements() == 0 {
        return Some(features);
    }
    let (mut inside, mut spacing) = (1, None);
    let axes = layout.shape().iter().zip(layout.strides()).rev();
    for (&len, &stride) in axes.filter(|(len, _)| **len > 1) {
        let stride = usize::try_from(stride).ok()?;
        if inside < features {
            (stride == inside).then_some(())?;
            inside *= len;
        } else {
            let (first, next) = spacing.unwrap_or((stride, stride));
            (stride == next && first >= features).then_some(())?;
            spacing = Some((first, stride.checked_mul(len)?));
        }
    }
    (inside == features).then(|| spacing.map_or(features, |(first, _)| first))
}

#[cfg(test)]
mod tests {
    use super::row_stride;
    use burn::backend::flex::Layout;
    use burn::tensor::Shape;

    fn stride_of(shape: &[usize], strides: &[isize], features: usize) -> Option<usize> {
        row_stride(&Layout::new(Shape::from(shape.to_vec()), strides.to_vec(), 0), features)
    }

    #[test]
    fn rows_that_need_no_copy() {
        assert_eq!(stride_of(&[2, 3, 4], &[12, 4, 1], 4), Some(4), "contiguous");
        assert_eq!(stride_of(&[2, 3, 4], &[12, 4, 1], 12), Some(12), "a row of two axes");
        assert_eq!(stride_of(&[3, 4], &[10, 1], 4), Some(10), "a slice of columns");
        assert_eq!(stride_of(&[2, 3, 4], &[30, 10, 1], 4), Some(10), "the same, of three axes");
        assert_eq!(stride_of(&[1, 3, 1, 4], &[7, 10, 99, 1], 4), Some(10), "axes of one say nothing");
        assert_eq!(stride_of(&[3, 1], &[5, 1], 1), Some(5), "a column");
        assert_eq!(stride_of(&[0, 4], &[4, 1], 4), Some(4), "nothing");
        assert_eq!(stride_of(&[4], &[1], 4), Some(4), "one row");
    }

    #[test]
    fn rows_that_need_one() {
        assert_eq!(stride_of(&[3, 4], &[1, 3], 4), None, "transposed");
        assert_eq!(stride_of(&[2, 3, 4], &[4, 8, 1], 4), None, "batch and time swapped");
        assert_eq!(stride_of(&[2, 3, 4], &[40, 10, 1], 4), None, "uneven");
        assert_eq!(stride_of(&[3, 4], &[0, 1], 4), None, "broadcast over rows");
        assert_eq!(stride_of(&[3, 4], &[1, 0], 4), None, "broadcast over features");
        assert_eq!(stride_of(&[3, 4], &[-4, 1], 4), None, "flipped");
        assert_eq!(stride_of(&[3, 4], &[2, 1], 4), None, "overlapping");
    }
}
