//! The kernels allocate nothing on one thread: forward never, backward only where its workspace must grow.

use layernorm::{
    Error, Gradients, LayerNorm, ParamGradients, ParamGrads, Params, RmsNorm, Rows, RowsMut, Run, Scale,
    Stats, Threads, Workspace,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: all is passed on to the system's allocator; a cell that needs no destructor allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How often `call` allocates on this thread.
fn allocations(call: impl FnOnce() -> Result<(), Error>) -> usize {
    let before = ALLOCATIONS.get();
    let result = call();
    let count = ALLOCATIONS.get() - before;
    result.unwrap();
    count
}

fn one_thread() -> Run {
    // The level, which reads the environment once, is found before anything is counted.
    let run = Run::default().with_threads(Threads::One);
    run.level().unwrap();
    run
}

#[test]
fn the_count_counts() {
    let mut kept = Vec::new();
    let one = allocations(|| {
        kept = vec![7u8; 10];
        Ok(())
    });
    assert_eq!((one, kept.len()), (1, 10));
}

#[test]
fn nothing_but_the_first_backward_pass_allocates() {
    let rows = if cfg!(miri) { 4 } else { 300 };
    for n in if cfg!(miri) { vec![33] } else { vec![1, 7, 33, 600] } {
        let (layer, rms) = (
            LayerNorm::<f32> { run: one_thread(), ..LayerNorm::new(n) },
            RmsNorm::<f32> { run: one_thread(), ..RmsNorm::new(n) },
        );
        // Ordinary rows, one that is redone in f64, and one that is constant.
        let mut x: Vec<f32> = (0..rows * n).map(|i| (i % 17) as f32).collect();
        x[n..2 * n].iter_mut().for_each(|x| *x *= 1e30);
        x[2 * n..3 * n].fill(0.1);
        let (mut y, mut dx, mut stats, mut rstd) = (x.clone(), x.clone(), Stats::new(rows), vec![0.0; rows]);
        let mut grads: [ParamGrads<f32>; 2] = [layer.zero_grads(), rms.zero_grads()];

        assert_eq!(allocations(|| layer.forward(&x, &mut y)), 0);
        assert_eq!(allocations(|| layer.forward_saving(&x, &mut y, &mut stats)), 0);
        assert_eq!(allocations(|| rms.forward(&x, &mut y)), 0);
        assert_eq!(allocations(|| rms.forward_saving(&x, &mut y, &mut rstd)), 0);
        for first in [true, false] {
            let of_layer = allocations(|| layer.backward(&x, &x, &stats, &mut dx, &mut grads[0]));
            let of_rms = allocations(|| rms.backward(&x, &x, &rstd, &mut dx, &mut grads[1]));
            assert_eq!((of_layer, of_rms), if first { (1, 1) } else { (0, 0) }, "N {n}, first {first}");
        }
    }
}

#[test]
fn in_place_and_without_statistics_too() {
    let n = 100;
    let (mut x, dy) = (vec![1.5f64; 3 * n], vec![0.5; 3 * n]);
    let params = Params { weight: Some(&[2.0]), ..Params::default() };
    let in_place = allocations(|| {
        layernorm::layer_norm_in_place(RowsMut::new(&mut x, n)?, params, None, one_thread())?;
        layernorm::rms_norm_in_place(RowsMut::new(&mut x, n)?, params, None, one_thread())
    });
    assert_eq!(in_place, 0);

    let mut dx = dy.clone();
    let without_params = allocations(|| {
        let (x, dx) = (Rows::new(&x, n)?, RowsMut::new(&mut dx, n)?);
        layernorm::layer_norm_backward_in_place(x, dx, params, None, None, one_thread())
    });
    assert_eq!(without_params, 0);
}

#[test]
fn eight_bits_and_conversions_too() {
    let n = 300;
    // An ordinary row, and one that is redone in f64.
    let x: Vec<f32> = (0..2 * n).map(|i| (i % 17) as f32 * if i < n { 1.0 } else { 1e30 }).collect();
    let (mut bytes, mut scales) = (vec![0i8; 2 * n], [0.0; 2]);
    let quantized = allocations(|| {
        let (x, y) = (Rows::new(&x, n)?, RowsMut::new(&mut bytes, n)?);
        let params = Params::<f32>::default();
        layernorm::layer_norm_quantized(x, params, y, Scale::OfRows(&mut scales), one_thread())?;
        layernorm::rms_norm_quantized(
            x,
            params,
            RowsMut::new(&mut bytes, n)?,
            Scale::Given(1.0),
            one_thread(),
        )
    });
    assert_eq!(quantized, 0);

    let (mut halves, mut wide) = (vec![half::bf16::ZERO; 2 * n], x.clone());
    let converted = allocations(|| {
        layernorm::narrow(&x, &mut halves, one_thread())?;
        layernorm::widen(&halves, &mut wide, one_thread())
    });
    assert_eq!(converted, 0);
}

/// A workspace grows when more rows or more features come, and never shrinks.
#[test]
fn a_workspace_grows_and_stays() {
    let mut workspace = Workspace::<f32>::new();
    let mut backward = |rows: usize, n: usize| {
        let (x, mut dweight) = (vec![1.0f32; rows * n], vec![0.0; n]);
        let count = allocations(|| {
            let params = ParamGradients {
                dweight: Some(&mut dweight),
                dbias: None,
                accumulate: false,
                first_row: 0,
                workspace: &mut workspace,
            };
            let (x, gradients) = (Rows::new(&x, n)?, Gradients { dx: None, params: Some(params) });
            layernorm::rms_norm_backward(x, x, Params::<f32>::default(), None, gradients, one_thread())
        });
        (count, workspace.len())
    };
    let (first, small) = backward(16, 10);
    assert_eq!((first, backward(16, 10)), (1, (0, small)));
    let (grown, large) = backward(16, 200);
    assert!(grown == 1 && large > small, "{grown} allocations, {small} and then {large} numbers");
    assert_eq!(backward(16, 10), (0, large));
}

/// Sums before a norm, and parameters of samples and of indices.
#[test]
fn the_family_allocates_in_workspaces_alone() {
    use layernorm::{
        Branch, ConditionalGradients, Modulation, RowsByIndex, ScaleIs, Table, TableGradients,
        ada_layer_norm_in_place, add_layer_norm_in_place, conditional_layer_norm_backward,
    };
    let (rows, n) = (6, 40);
    let (mut x, mut residual) = (vec![1.5f32; rows * n], vec![0.5f32; rows * n]);
    let table = vec![0.25f32; 2 * n];
    let forward = allocations(|| {
        let (x, residual) = (RowsMut::new(&mut x, n)?, RowsMut::new(&mut residual, n)?);
        let params = Params::<f32>::default();
        add_layer_norm_in_place(x, residual, Branch::default(), params, None, one_thread())
    });
    let adaptive = allocations(|| {
        let scale = Rows::new(&table, n)?;
        let modulation = Modulation { scale, shift: None, scale_is: ScaleIs::AboveOne, eps: 1e-6 };
        ada_layer_norm_in_place(RowsMut::new(&mut x, n)?, modulation, None, one_thread())
    });
    assert_eq!((forward, adaptive), (0, 0));

    let (mut workspace, mut order, mut dweight) = (Workspace::new(), RowsByIndex::new(), vec![0.0; 2 * n]);
    let mut scatter = || {
        allocations(|| {
            let of_table = TableGradients {
                dweight: Some(RowsMut::new(&mut dweight, n)?),
                dbias: None,
                accumulate: false,
                workspace: &mut workspace,
                order: &mut order,
            };
            let gradients = ConditionalGradients { dx: None, table: Some(of_table) };
            let weight = Some(Rows::new(&table, n)?);
            let table = Table { entries: 2, weight, bias: None, index: &[1, 0, 1, 1, 0, 1], eps: 1e-6 };
            let x = Rows::new(&x, n)?;
            conditional_layer_norm_backward(x, x, table, None, gradients, one_thread())
        })
    };
    // The order's two lists, and the workspace.
    assert_eq!([scatter(), scatter()], [3, 0]);
}
