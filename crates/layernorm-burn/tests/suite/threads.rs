//! Beside rayon: no bit depends on the pool, and nothing waits for itself.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool")
}

#[test]
fn no_bit_depends_on_the_pool() {
    let work = || {
        let device = Device::flex().autodiff();
        let x = tensor([700, 300], 1, &device, DType::F32).require_grad();
        let gamma = tensor([300], 2, &device, DType::F32).require_grad();
        let y = layer_norm(x.clone(), gamma.clone(), None, EPS);
        let gradients = y.clone().tanh().sum().backward();
        let [dx, dgamma] =
            [bits(x.grad(&gradients).expect("x")), bits(gamma.grad(&gradients).expect("gamma"))];
        [bits(y), dx, dgamma]
    };
    let outside = work();
    for threads in [1, 2, 4] {
        assert!(pool(threads).install(work) == outside, "{threads} threads");
    }
}

/// A task that arrives in a pool while a backward pass runs there may want the lock that Burn holds around it, and
/// must not end up on the thread that holds it. See `backward_run` in `flex.rs`; without it, this hangs.
#[test]
fn tasks_that_share_a_graph_finish() {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let pool = pool(8);
        let arrivals: usize = (0..10).map(|_| backward_among_tasks(&pool)).sum();
        done.send(arrivals).expect("somebody waits");
    });
    let arrivals = finished.recv_timeout(Duration::from_secs(120)).expect("a task waits for itself");
    assert!(arrivals > 0);
}

/// A backward pass through twenty norms in the pool, and tasks that use one of its nodes. How many there were.
fn backward_among_tasks(pool: &rayon::ThreadPool) -> usize {
    let device = Device::flex().autodiff();
    let leaf = tensor([1024], 1, &device, DType::F32).require_grad();
    let shared = leaf.clone() * 1.0;
    let mut y = tensor([1024, 1024], 2, &device, DType::F32).require_grad();
    for _ in 0..20 {
        y = layer_norm(y, shared.clone(), None, EPS);
    }
    let loss = y.sum();
    let running = Arc::new(AtomicBool::new(true));
    std::thread::scope(|scope| {
        let arrivals = scope.spawn(|| {
            let mut arrivals = 0;
            while running.load(Ordering::Relaxed) {
                let (shared, running) = (shared.clone(), running.clone());
                pool.spawn(move || {
                    if running.load(Ordering::Relaxed) {
                        drop(shared * 2.0);
                    }
                });
                arrivals += 1;
                std::thread::sleep(Duration::from_micros(30));
            }
            arrivals
        });
        let gradients = pool.install(|| loss.backward());
        running.store(false, Ordering::Relaxed);
        assert!(leaf.grad(&gradients).is_some(), "the backward pass went all the way");
        arrivals.join().expect("it only spawns")
    })
}
