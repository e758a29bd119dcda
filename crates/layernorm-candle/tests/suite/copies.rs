//! What a call allocates, counted by the allocator of this test binary.

use super::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Only blocks of at least this size count: the tensors below are that big, and bookkeeping is not.
const BIG: usize = 1024 * 64 * 2;
const SHAPE: [usize; 2] = [1024, 64];

/// Of halves, an f32 copy would count too.
const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

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
    for (norm, dtype) in NORMS.into_iter().flat_map(|norm| TYPES.map(|dtype| (norm, dtype))) {
        for parameters in [dtype, DType::F32] {
            let (weight, bias) = (variable(&[64], 2, parameters)?, variable(&[64], 3, parameters)?);
            let of = |x: Tensor| {
                let bias = (norm == Norm::Layer).then_some(bias.as_tensor());
                tensors_allocated(|| norm.of(&x, Some(&weight), bias))
            };
            let x = tensor(&SHAPE, 1, dtype)?;
            let what = format!("{norm:?} of {dtype:?}, parameters {parameters:?}");
            assert_eq!(of(x.clone())?, 1, "{what}: contiguous");
            assert_eq!(of(Var::from_tensor(&x)?.as_tensor().clone())?, 1, "{what}: recorded");
            assert_eq!(of(Tensor::cat(&[&x, &x], 1)?.narrow(1, 64, 64)?)?, 1, "{what}: columns");
            assert_eq!(of(Tensor::cat(&[&x, &x], 0)?.narrow(0, 1024, 1024)?)?, 1, "{what}: rows");
            assert_eq!(of(x.reshape((4, 256, 64))?.transpose(0, 1)?)?, 1, "{what}: axes swapped");
            assert_eq!(of(x.reshape((64, 1024))?.t()?)?, 2, "{what}: a transposed x is copied");
        }
    }
    Ok(())
}

#[test]
fn backward_allocates_dx_and_nothing_else() -> Result<()> {
    // The zeros that candle adds every gradient to, and their sum, come with an operation that allocates nothing.
    let backward = |dtype, f: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<usize> {
        let x = variable(&SHAPE, 1, dtype)?;
        let loss = (f(&x)? * tensor(&SHAPE, 2, dtype)?)?.sum_all()?;
        tensors_allocated(|| loss.backward())
    };
    for (norm, dtype) in NORMS.into_iter().flat_map(|norm| TYPES.map(|dtype| (norm, dtype))) {
        let view = backward(dtype, &|x| x.unsqueeze(0)?.reshape(&SHAPE[..]))?;
        for parameters in [dtype, DType::F32] {
            let (weight, bias) = (variable(&[64], 2, parameters)?, variable(&[64], 3, parameters)?);
            let of = |x: &Tensor| {
                let bias = (norm == Norm::Layer).then_some(bias.as_tensor());
                norm.of(&x.unsqueeze(0)?, Some(&weight), bias)?.reshape(&SHAPE[..])
            };
            // One operation more: its dx, and candle's zeros and sum.
            assert_eq!(backward(dtype, &of)?, view + 3, "{norm:?} of {dtype:?}, parameters {parameters:?}");
        }
    }
    Ok(())
}

#[test]
fn group_norm_allocates_its_result() -> Result<()> {
    for dtype in TYPES {
        let x = variable(&SHAPE, 1, dtype)?.reshape((4, 16, 1024))?;
        let (weight, bias) = (variable(&[16], 2, DType::F32)?, variable(&[16], 3, DType::F32)?);
        let groups =
            |x: &Tensor| layernorm_candle::ops::group_norm(x, 4, weight.as_tensor(), bias.as_tensor(), EPS);
        assert_eq!(tensors_allocated(|| groups(&x))?, 1, "{dtype:?}");
        let wide = Tensor::cat(&[&x, &x], 1)?.narrow(1, 16, 16)?;
        assert_eq!(tensors_allocated(|| groups(&wide))?, 1, "{dtype:?}, some channels of a wider tensor");
        let last = x.reshape((4, 1024, 16))?.transpose(1, 2)?;
        // And the tiles that the kernel takes groups apart in.
        assert!(tensors_allocated(|| groups(&last))? <= 2, "{dtype:?}, channels last");
        assert!(groups(&last)?.transpose(1, 2)?.is_contiguous(), "y lies as x does");
    }
    Ok(())
}

#[test]
fn batch_norm_allocates_its_result() -> Result<()> {
    for dtype in TYPES {
        let norm = layernorm_candle::batch_norm(16, EPS, candle_nn::VarBuilder::zeros(DType::F32, &CPU))?;
        let x = variable(&SHAPE, 1, dtype)?.reshape((4, 16, 1024))?;
        let last = x.reshape((4, 1024, 16))?.transpose(1, 2)?;
        let rows = x.reshape((4096, 16))?;
        for (what, x) in [("channels second", x), ("channels last", last), ("rows", rows)] {
            for train in [true, false] {
                let allocated = tensors_allocated(|| candle_core::ModuleT::forward_t(&norm, &x, train))?;
                assert_eq!(allocated, 1, "{dtype:?}, {what}, training: {train}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_sum_and_its_norm_are_allocated_and_nothing_else() -> Result<()> {
    use layernorm_candle::ops::add_layer_norm;
    for dtype in TYPES {
        let (weight, bias) = (variable(&[64], 2, DType::F32)?, variable(&[64], 3, DType::F32)?);
        let both = |x: &Tensor, residual: &Tensor| {
            tensors_allocated(|| add_layer_norm(x, residual, weight.as_tensor(), bias.as_tensor(), EPS))
        };
        let x = variable(&SHAPE, 1, dtype)?;
        assert_eq!(both(&x, &x)?, 2, "{dtype:?}");
        let wide = Tensor::cat(&[x.as_tensor(), x.as_tensor()], 1)?;
        assert_eq!(both(&wide.narrow(1, 64, 64)?, &x)?, 2, "{dtype:?}, columns");
        let swapped = x.reshape((4, 256, 64))?.transpose(0, 1)?;
        assert_eq!(both(&swapped, &swapped)?, 2, "{dtype:?}, axes swapped: the sum is candle's");
    }
    Ok(())
}

#[test]
fn adaptive_norms_allocate_their_result() -> Result<()> {
    for dtype in TYPES {
        let x = variable(&SHAPE, 1, dtype)?.reshape((4, 256, 64))?;
        let both = variable(&[4, 128], 2, dtype)?;
        let (scale, shift) = (both.narrow(1, 0, 64)?, both.narrow(1, 64, 64)?);
        let of = |x: &Tensor| {
            tensors_allocated(|| layernorm_candle::ops::adaptive_layer_norm(x, &scale, &shift, EPS))
        };
        assert_eq!(of(&x)?, 1, "{dtype:?}");
        let tall = Tensor::cat(&[&x, &x], 1)?;
        assert_eq!(of(&tall.narrow(1, 128, 256)?)?, 1, "{dtype:?}, a part of each sample");
    }
    Ok(())
}

/// In a buffer that has queries, keys and values of each token, forward and backward.
#[test]
fn queries_are_read_where_they_lie() -> Result<()> {
    for dtype in TYPES {
        let (qkv, weight) = (variable(&[256, 3 * 4, 64], 1, dtype)?, variable(&[64], 2, dtype)?);
        let (q, dy) = (qkv.narrow(1, 4, 4)?, tensor(&[256, 4, 64], 3, dtype)?);
        let normed = || layernorm_candle::ops::rms_norm(&q, weight.as_tensor(), EPS);
        assert_eq!(tensors_allocated(normed)?, 1, "{dtype:?}");
        let backward = |y: Tensor| tensors_allocated(|| (y * &dy)?.sum_all()?.backward());
        // dx, and candle's zeros and sum.
        assert_eq!(backward(normed()?)?, backward(q.clone())? + 3, "{dtype:?}");
    }
    Ok(())
}
