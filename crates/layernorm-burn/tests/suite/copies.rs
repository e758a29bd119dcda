//! What a call allocates, counted by the allocator of this test binary.

use super::*;
use burn::tensor::s;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Only blocks of at least this size count: the tensors below are that big, and bookkeeping is not.
const BIG: usize = 64 * 1024 * 4;

thread_local! {
    static BIG_BLOCKS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

fn count(size: usize) {
    if size >= BIG {
        BIG_BLOCKS.with(|blocks| blocks.set(blocks.get() + 1));
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many tensors' worth of memory `work` allocates on this thread.
pub(crate) fn tensors_allocated<V>(work: impl FnOnce() -> V) -> usize {
    let before = BIG_BLOCKS.get();
    drop(work());
    BIG_BLOCKS.get() - before
}

const SHAPE: [usize; 2] = [1024, 64];

#[test]
fn forward_allocates_its_result_and_nothing_else() {
    let device = Device::flex();
    for norm in NORMS {
        let of = |x: Tensor<2>| norm.of(x, None, None);
        let x = tensor(SHAPE, 1, &device, DType::F32);
        assert_eq!(tensors_allocated(|| of(x.clone())), 1, "{norm:?}: x is held elsewhere");
        let held = x.clone();
        assert_eq!(
            tensors_allocated(|| of(held.transpose().transpose())),
            1,
            "{norm:?}: contiguous after all"
        );

        let wide = Tensor::cat(vec![x.clone(), x.clone()], 1);
        let columns = wide.clone().slice(s![.., 64..]);
        assert_eq!(tensors_allocated(|| of(columns)), 1, "{norm:?}: columns need no copy");
        let rows = Tensor::cat(vec![x.clone(), x.clone()], 0).slice(s![1024.., ..]);
        assert_eq!(tensors_allocated(|| of(rows)), 1, "{norm:?}: nor do rows");

        let transposed = tensor([64, 1024], 1, &device, DType::F32).transpose();
        assert_eq!(tensors_allocated(|| of(transposed)), 2, "{norm:?}: a transposed x is copied");
        assert_eq!(tensors_allocated(|| of(x)), 0, "{norm:?}: an x that nobody else holds is overwritten");
    }
}

#[test]
fn backward_writes_dx_over_dy() {
    let device = Device::flex().autodiff();
    let backward = |f: &dyn Fn(Tensor<2>) -> Tensor<2>| {
        let x = tensor(SHAPE, 1, &device, DType::F32).require_grad();
        let loss = (f(x.clone()) * tensor(SHAPE, 2, &device, DType::F32)).sum();
        let mut dx = None;
        let allocated = tensors_allocated(|| dx = x.grad(&loss.backward()));
        assert!(dx.is_some());
        allocated
    };
    let without = backward(&|x| x);
    for norm in NORMS {
        assert_eq!(backward(&|x| norm.of(x, None, None)), without, "{norm:?}");
    }
}

#[test]
fn the_backward_pass_holds_one_input_and_one_output() {
    let device = Device::flex().autodiff();
    for norm in NORMS {
        let x = tensor(SHAPE, 1, &device, DType::F32).require_grad();
        assert_eq!(
            tensors_allocated(|| norm.of(x.clone(), None, None)),
            1,
            "{norm:?}: x is kept, not copied"
        );
    }
}
