//! The same bits as the kernels on slices, whatever the layout of the tensor and the batch around a row.

mod adaptive;
mod add;
mod images;
mod rows;

use super::*;
use candle_core::WithDType;
use half::{bf16, f16};
use layernorm::{Companion, Element};

/// A type of x, and a type of parameters.
trait Number: Element<Acc: WithDType> + WithDType {}
impl<E: Element<Acc: WithDType> + WithDType> Number for E {}

fn zeros<T: WithDType>(len: usize) -> Vec<T> {
    vec![T::from_f64(0.0); len]
}

/// y and dx; and dweight and dbias.
type Expected<E> = ([Vec<E>; 2], [Vec<<E as Element>::Acc>; 2]);

/// Ways to lie in memory, as a view of a leaf of the shape before it. All views are [4, 6, features].
type View = (&'static str, fn(usize) -> Vec<usize>, fn(&Tensor) -> Result<Tensor>);

const VIEWS: [View; 8] = [
    ("contiguous", |n| vec![4, 6, n], |x| Ok(x.clone())),
    ("columns of a wider one", |n| vec![4, 6, n + 3], |x| x.narrow(2, 2, x.dim(2)? - 3)),
    ("rows of a taller one", |n| vec![9, 6, n], |x| x.narrow(0, 4, 4)),
    ("rows of each of taller ones", |n| vec![4, 9, n], |x| x.narrow(1, 2, 6)),
    ("first axes swapped", |n| vec![6, 4, n], |x| x.transpose(0, 1)),
    ("swapped and narrowed", |n| vec![6, 5, n], |x| x.transpose(0, 1)?.narrow(0, 1, 4)),
    ("one row many times", |n| vec![1, 6, n], |x| x.broadcast_as((4, x.dim(1)?, x.dim(2)?))),
    ("transposed", |n| vec![n, 6, 4], |x| x.transpose(0, 2)),
];

fn flat<T: WithDType>(values: Vec<T>) -> Result<Tensor> {
    let len = values.len();
    Tensor::from_vec(values, len, &CPU)
}
