//! The kernels on the tensors of Flex, Burn's CPU backend.

use crate::operator::{Backward, Operator, Source, Upstream};
use crate::ops::{BackwardCall, Inputs, NormKernels, NormOps, Params};
use burn::backend::Flex;
use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{DType, Element, Shape, TensorData};
use layernorm::{ParamGradients, Real, Rows, RowsMut, Run, Threads, Workspace};

impl NormOps for Flex {
    fn norm(norm: Operator, x: FlexTensor, params: Params<Self>) -> FlexTensor {
        Self::forward(norm, x, &params)
    }
}

impl NormKernels for Flex {
    fn forward(norm: Operator, x: FlexTensor, params: &Params<Self>) -> FlexTensor {
        match x.dtype() {
            DType::F64 => forward::<f64>(norm, x, params, None),
            _ => forward::<f32>(norm, x, params, None),
        }
    }

    fn forward_saving(norm: Operator, x: FlexTensor, params: &Params<Self>) -> (FlexTensor, FlexTensor) {
        match x.dtype() {
            DType::F64 => forward_saving::<f64>(norm, x, params),
            _ => forward_saving::<f32>(norm, x, params),
        }
    }

    fn backward(norm: Operator, call: BackwardCall<Self>) -> Inputs<Option<FlexTensor>> {
        match call.x.dtype() {
            DType::F64 => backward::<f64>(norm, call),
            _ => backward::<f32>(norm, call),
        }
    }
}

/// A number that Flex stores and the kernels compute with.
trait Scalar: Real + Element + bytemuck::Pod {}
impl Scalar for f32 {}
impl Scalar for f64 {}

const CHECKED: &str = "every call is checked before it is dispatched";

fn forward<T: Scalar>(
    norm: Operator,
    mut x: FlexTensor,
    params: &Params<Flex>,
    saved: Option<&mut [T]>,
) -> FlexTensor {
    let kernels = norm.kernels::<T>();
    let features = kernels.features(x.layout().shape());
    let affine = Affine::new(params);

    if let Some(memory) = exclusive::<T>(&mut x) {
        let rows = RowsMut::new(memory, features).expect(CHECKED);
        kernels.forward(Source::InPlace(rows), affine.params(norm), saved, Run::default()).expect(CHECKED);
        return x;
    }
    let x = with_rows::<T>(x, features);
    let mut y = zeros::<T>(x.layout().num_elements());
    let source = Source::Apart(rows(&x, features), RowsMut::new(&mut y, features).expect(CHECKED));
    kernels.forward(source, affine.params(norm), saved, Run::default()).expect(CHECKED);
    tensor(y, x.layout().shape().clone())
}

fn forward_saving<T: Scalar>(
    norm: Operator,
    x: FlexTensor,
    params: &Params<Flex>,
) -> (FlexTensor, FlexTensor) {
    let kernels = norm.kernels::<T>();
    let features = kernels.features(x.layout().shape());
    let row_count = x.layout().num_elements().checked_div(features).unwrap_or(0);
    let mut saved = zeros::<T>(kernels.columns() * row_count);
    let y = forward(norm, x, params, Some(&mut saved));
    (y, tensor(saved, Shape::from([kernels.columns(), row_count])))
}

fn backward<T: Scalar>(norm: Operator, call: BackwardCall<Flex>) -> Inputs<Option<FlexTensor>> {
    let BackwardCall { x, mut dy, params, saved, wanted } = call;
    let kernels = norm.kernels::<T>();
    let features = kernels.features(x.layout().shape());
    let x = with_rows::<T>(x, features);
    let affine = Affine::<T>::new(&params);
    let mut workspace = Workspace::new();
    let mut dgamma = params.gamma().filter(|_| wanted.gamma).map(zeros_like::<T>);
    let mut dbeta = params.beta().filter(|_| wanted.beta).map(zeros_like::<T>);

    let mut run = |dy: Upstream<'_, T>| {
        let gradients = ParamGradients {
            dweight: dgamma.as_deref_mut(),
            dbias: dbeta.as_deref_mut(),
            accumulate: false,
            first_row: 0,
            workspace: &mut workspace,
        };
        let call = Backward {
            x: rows(&x, features),
            dy,
            params: affine.params(norm),
            saved: saved.as_slice().expect("the statistics are contiguous"),
            gradients: (wanted.gamma || wanted.beta).then_some(gradients),
            run: backward_run(),
        };
        kernels.backward(call).expect(CHECKED);
    };

    let shape = x.layout().shape();
    let dx = if let Some(memory) = exclusive::<T>(&mut dy).filter(|_| wanted.x) {
        run(Upstream::InPlace(RowsMut::new(memory, features).expect(CHECKED)));
        Some(dy)
    } else {
        let dy = with_rows::<T>(dy, features);
        let mut dx = wanted.x.then(|| zeros::<T>(shape.num_elements()));
        let target = dx.as_mut().map(|dx| RowsMut::new(dx, features).expect(CHECKED));
        run(Upstream::Apart(rows(&dy, features), target));
        dx.map(|dx| tensor(dx, shape.clone()))
    };
    let vector = |gradient: Vec<T>| {
        let len = gradient.len();
        tensor(gradient, Shape::from([len]))
    };
    Inputs { x: dx, gamma: dgamma.map(vector), beta: dbeta.map(vector) }
}

/// Burn runs a backward step with the graph locked, and the lock is not reentrant. A rayon worker that waits for
/// its part of the rows may steal a task that wants the same lock, and would wait for itself for ever. A thread
/// outside the pool only waits.
fn backward_run() -> Run {
    match rayon::current_thread_index() {
        Some(_) => Run::default().with_threads(Threads::One),
        None => Run::default(),
    }
}

/// gamma and beta as slices.
struct Affine<T> {
    gamma: Option<FlexTensor>,
    beta: Option<FlexTensor>,
    scalar: std::marker::PhantomData<T>,
}

impl<T: Scalar> Affine<T> {
    fn new(params: &Params<Flex>) -> Self {
        let contiguous = |vector: &FlexTensor| {
            if vector.is_contiguous() { vector.clone() } else { vector.to_contiguous() }
        };
        Self {
            gamma: params.gamma().map(contiguous),
            beta: params.beta().map(contiguous),
            scalar: std::marker::PhantomData,
        }
    }

    fn params(&self, norm: Operator) -> layernorm::Params<'_, T> {
        fn slice<T: Scalar>(vector: &FlexTensor) -> &[T] {
            vector.as_slice().expect("made contiguous")
        }
        layernorm::Params {
            weight: self.gamma.as_ref().map(slice),
            bias: self.beta.as_ref().map(slice),
            eps: norm.eps,
        }
    }
}

fn tensor<T: Scalar>(values: Vec<T>, shape: Shape) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Memory that the kernels write whole. The allocator gives large pieces zeroed, so zeros cost nothing there.
fn zeros<T: Scalar>(len: usize) -> Vec<T> {
    vec![T::zeroed(); len]
}

fn zeros_like<T: Scalar>(vector: &FlexTensor) -> Vec<T> {
    zeros(vector.layout().num_elements())
}

/// The memory of a tensor that nobody else holds and that fills it whole.
fn exclusive<T: Scalar>(tensor: &mut FlexTensor) -> Option<&mut [T]> {
    let range = tensor.layout().contiguous_offsets()?;
    tensor.try_storage_mut::<T>().filter(|storage| range == (0, storage.len()))
}

/// The tensor, copied if its rows do not lie in memory as the kernels need them.
fn with_rows<T: Scalar>(tensor: FlexTensor, features: usize) -> FlexTensor {
    if row_stride(tensor.layout(), features).is_some() { tensor } else { tensor.to_contiguous() }
}

/// The rows of a tensor that [`with_rows`] gave.
fn rows<T: Scalar>(tensor: &FlexTensor, features: usize) -> Rows<'_, T> {
    let layout = tensor.layout();
    let stride = row_stride(layout, features).expect("the rows of a tensor after with_rows");
    match layout.num_elements().checked_div(features) {
        None | Some(0) => Rows::new(&[], features),
        Some(count) => {
            Rows::strided(&tensor.storage::<T>()[layout.start_offset()..], count, features, stride)
        }
    }
    .expect("a layout inside its storage")
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
