//! Beside rayon: no bit depends on the pool, and nothing waits for itself.

use super::*;
use burn::module::Module;
use layernorm_burn::LayerNormConfig;
use rayon::prelude::*;
use std::sync::mpsc;
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

/// Tasks of a pool that share a model share a graph in Burn, and its lock. See `backward_run` in `flex.rs`.
#[test]
fn tasks_that_share_a_model_finish() {
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let device = Device::flex().autodiff();
        let model = LayerNormConfig::new(512).init(&device);
        let gradients = pool(4).install(|| {
            (0..64u64)
                .into_par_iter()
                .map(|seed| {
                    let x = tensor([256, 512], seed, &device, DType::F32);
                    let gradients = model.forward(x).tanh().sum().backward();
                    model.gamma.grad(&gradients).is_some()
                })
                .collect::<Vec<_>>()
        });
        done.send(gradients).expect("somebody waits");
        drop(model.valid());
    });
    let gradients = finished.recv_timeout(Duration::from_secs(120)).expect("the tasks wait for each other");
    assert_eq!(gradients, [true; 64]);
}
