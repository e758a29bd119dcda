//! What a call allocates, counted by the allocator of this test binary.

use super::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Only blocks of at least this size count: the tensors below are that big, and bookkeeping is not.
const BIG: usize = 1024 * 64 * 4;
const SHAPE: [usize; 2] = [1024, 64];

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
fn tensors_allocated<V>(work: impl FnOnce() -> Result<V>) -> Result<usize> {
    let before = BIG_BLOCKS.get();
    drop(work()?);
    Ok(BIG_BLOCKS.get() - before)
}

#[test]
fn forward_allocates_its_result_and_nothing_else() -> Result<()> {
    let (weight, bias) = (variable(&[64], 2, DType::F32)?, variable(&[64], 3, DType::F32)?);
    for norm in NORMS {
        let of = |x: Tensor| {
            let bias = (norm == Norm::Layer).then_some(bias.as_tensor());
            tensors_allocated(|| norm.of(&x, Some(&weight), bias))
        };
        let x = tensor(&SHAPE, 1, DType::F32)?;
        assert_eq!(of(x.clone())?, 1, "{norm:?}: contiguous");
        assert_eq!(of(Var::from_tensor(&x)?.as_tensor().clone())?, 1, "{norm:?}: recorded");
        assert_eq!(of(Tensor::cat(&[&x, &x], 1)?.narrow(1, 64, 64)?)?, 1, "{norm:?}: columns");
        assert_eq!(of(Tensor::cat(&[&x, &x], 0)?.narrow(0, 1024, 1024)?)?, 1, "{norm:?}: rows");
        assert_eq!(
            of(x.reshape((4, 256, 64))?.transpose(0, 1)?)?,
            1,
            "{norm:?}: axes before the last swapped"
        );
        assert_eq!(of(x.reshape((64, 1024))?.t()?)?, 2, "{norm:?}: a transposed x is copied");
    }
    Ok(())
}

#[test]
fn backward_allocates_dx_and_nothing_else() -> Result<()> {
    // The zeros that candle adds every gradient to, and their sum, come with an operation that allocates nothing.
    let backward = |f: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<usize> {
        let x = variable(&SHAPE, 1, DType::F32)?;
        let loss = (f(&x)? * tensor(&SHAPE, 2, DType::F32)?)?.sum_all()?;
        tensors_allocated(|| loss.backward())
    };
    let (weight, bias) = (variable(&[64], 2, DType::F32)?, variable(&[64], 3, DType::F32)?);
    let view = backward(&|x| x.unsqueeze(0)?.reshape(&SHAPE[..]))?;
    for norm in NORMS {
        let of = |x: &Tensor| {
            let bias = (norm == Norm::Layer).then_some(bias.as_tensor());
            norm.of(&x.unsqueeze(0)?, Some(&weight), bias)?.reshape(&SHAPE[..])
        };
        // One operation more: its dx, and candle's zeros and sum.
        assert_eq!(backward(&of)?, view + 3, "{norm:?}");
    }
    Ok(())
}

#[test]
fn group_norm_without_parameters_allocates_its_result() -> Result<()> {
    let x = variable(&SHAPE, 1, DType::F32)?.reshape((1, 64, 1024))?;
    let groups = |x: &Tensor| layernorm_candle::ops::group_norm(x, 4, None, None, EPS);
    assert_eq!(tensors_allocated(|| groups(&x))?, 1);
    let wide = Tensor::cat(&[&x, &x], 1)?.narrow(1, 64, 64)?;
    assert_eq!(tensors_allocated(|| groups(&wide))?, 1, "some channels of a wider tensor");
    Ok(())
}
