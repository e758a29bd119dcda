//! What a call allocates, counted by the allocator of this test binary: where rows lie as the kernels want them, nothing.

use super::*;
use ndarray::{Array2, Array3, s};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, with a count and a sum of bytes for each thread.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: usize) {
    let (count, sum) = ALLOCATIONS.get();
    ALLOCATIONS.set((count + 1, sum + bytes));
}

// SAFETY: all is passed on to the system's allocator; a cell that needs no destructor allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's.
        unsafe { System.realloc(memory, layout, size) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How often `call` allocates on this thread, and how many bytes.
pub(crate) fn allocations(call: impl FnOnce() -> Result<(), Error>) -> (usize, usize) {
    let before = ALLOCATIONS.get();
    let result = call();
    let after = ALLOCATIONS.get();
    result.unwrap();
    (after.0 - before.0, after.1 - before.1)
}

pub(crate) fn run() -> Run {
    // The level, which reads the environment once, is found before anything is counted.
    let run = one_thread();
    run.level().unwrap();
    run
}

const NOTHING: (usize, usize) = (0, 0);

#[test]
fn the_count_counts() {
    let mut kept = Vec::new();
    let one = allocations(|| {
        kept = vec![7u8; 10];
        Ok(())
    });
    assert_eq!((one, kept.len()), ((1, 10), 10));
}

/// Of all functions on these views, with parameters and statistics.
fn of_all(
    x: &mut ArrayViewMutD<'_, f32>,
    axes: &[Axis],
    dx: &mut ArrayViewMutD<'_, f32>,
) -> Vec<(usize, usize)> {
    use layernorm_ndarray as ours;
    let features = axes.iter().map(|axis| x.shape()[axis.index()]).product();
    let weight = vec![1.0f32; features];
    let norm = || Norm::over(axes).with_weight(&weight).with_bias(&weight);
    let mut stats = Stats::new(x.len() / features);
    let (mut sum, mut workspace, run) = (vec![0.0; features], Workspace::new(), run());
    // The first backward pass fills the workspace.
    let mut backward = |x: &ArrayViewMutD<'_, f32>, dx: &mut ArrayViewMutD<'_, f32>, stats: &Stats<f32>| {
        allocations(|| {
            let dweight = Some(ArrayViewMutD::from_shape(IxDyn(&[features]), &mut sum).expect("1-D"));
            let params = Some(ParamGradients { dweight, ..ParamGradients::new(&mut workspace) });
            let gradients = Gradients { dx: Some(dx.view_mut()), params };
            ours::layer_norm_backward(x.view(), x.view(), norm(), Some(stats.as_ref()), gradients, run)
        })
    };
    let first = backward(x, dx, &stats);
    assert!(first.0 >= 1, "the workspace grows");
    vec![
        allocations(|| ours::layer_norm(x.view(), norm(), dx.view_mut(), Some(stats.as_mut()), run)),
        allocations(|| ours::rms_norm(x.view(), norm(), dx.view_mut(), Some(&mut stats.rstd), run)),
        backward(x, dx, &stats),
        allocations(|| ours::layer_norm_backward_in_place(x.view(), dx.view_mut(), norm(), None, None, run)),
        allocations(|| ours::rms_norm_in_place(x.view_mut(), norm(), None, run)),
    ]
}

#[test]
fn evenly_spaced_rows_are_not_copied() {
    let [mut a, mut b] = [1, 2].map(|seed| array::<f32>(&[6, 40, 33], seed));
    let mut fortran = Laid::new(&array::<f32>(&[33, 40], 3), &Lie::fortran(2));
    let mut other = Laid::new(&array::<f32>(&[33, 40], 3), &Lie::fortran(2));
    let nothing = vec![NOTHING; 5];
    assert_eq!(of_all(&mut a.view_mut(), &[Axis(2)], &mut b.view_mut()), nothing, "contiguous");
    assert_eq!(of_all(&mut a.view_mut(), &[Axis(1), Axis(2)], &mut b.view_mut()), nothing, "two axes");
    assert_eq!(
        of_all(&mut fortran.view_mut(), &[Axis(0)], &mut other.view_mut()),
        nothing,
        "Fortran's columns"
    );
    let mut columns = a.view_mut();
    columns.slice_axis_inplace(Axis(2), (3..20).into());
    let mut b = b.view_mut();
    b.slice_axis_inplace(Axis(2), (..17).into());
    assert_eq!(of_all(&mut columns, &[Axis(2)], &mut b), nothing, "a slice of columns");
    let mut every_other = columns.slice_mut(s![.., ..;2, ..]).into_dyn();
    let mut b = b.slice_mut(s![.., ..;2, ..]).into_dyn();
    assert_eq!(of_all(&mut every_other, &[Axis(2)], &mut b), nothing, "every other row of it");
}

#[test]
fn long_blocks_are_not_copied() {
    // Batch, heads, time, features: where a transpose left them.
    let x = array::<f32>(&[2, 40, 3, 64], 1);
    let x = x.view().permuted_axes(vec![0, 2, 1, 3]);
    let mut y = ArrayD::zeros(vec![2, 3, 40, 64]);
    let norm = || Norm::<f32>::over(Axis(3));
    let of = |y| allocations(|| layernorm_ndarray::layer_norm(x.view(), norm(), y, None, run()));
    assert_eq!(of(y.view_mut()), NOTHING);
    let dx = |dx| Gradients { dx: Some(dx), params: None };
    let backward = |y| {
        allocations(|| layernorm_ndarray::rms_norm_backward(x.view(), x.view(), norm(), None, dx(y), run()))
    };
    assert_eq!(backward(y.view_mut()), NOTHING);
}

#[test]
fn other_layouts_take_a_tile() {
    // 64 MiB would be a copy; a tile of 16 rows or 128 KiB is what is promised.
    let (x, mut y) = (Array2::<f32>::zeros((512, 4096)), Array2::<f32>::zeros((512, 4096)));
    let norm = || Norm::<f32>::over(Axis(0));
    let forward = allocations(|| layernorm_ndarray::layer_norm(x.view(), norm(), y.view_mut(), None, run()));
    assert!(forward.0 == 1 && forward.1 <= 160 << 10, "{forward:?}");
    let in_place = allocations(|| layernorm_ndarray::rms_norm_in_place(y.view_mut(), norm(), None, run()));
    assert!(in_place.0 == 1 && in_place.1 <= 160 << 10, "{in_place:?}");
    let gradients = Gradients { dx: Some(y.view_mut()), params: None };
    let backward = allocations(|| {
        layernorm_ndarray::layer_norm_backward(x.view(), x.view(), norm(), None, gradients, run())
    });
    assert!(backward.0 == 2 && backward.1 <= 320 << 10, "{backward:?}");
    // What lies as the kernels want it is not copied: of a small x, no more than x.
    let (x, mut y) = (Array3::<f64>::zeros((2, 3, 4)), Array3::zeros((2, 3, 4)));
    let norm = Norm::<f64>::over(Axis(1));
    let forward = allocations(|| layernorm_ndarray::layer_norm(x.view(), norm, y.view_mut(), None, run()));
    assert_eq!(forward, (1, 24 * 8));
}
