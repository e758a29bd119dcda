//! Tiles over threads. A row is always computed whole by one thread, so no bit depends on it.

use layernorm::Run;

/// Numbers for which another thread pays. Few under Miri, which must see it.
#[cfg(feature = "rayon")]
const WORTH_A_THREAD: usize = if cfg!(miri) { 64 } else { 64 << 10 };

/// How many threads are to share a call of so many numbers. At least one.
#[cfg_attr(not(feature = "rayon"), allow(unused_variables, reason = "one thread needs not ask what pays"))]
pub(crate) fn parts(run: Run, numbers: usize) -> usize {
    #[cfg(feature = "rayon")]
    if run.threads() != layernorm::Threads::One && numbers >= 2 * WORTH_A_THREAD {
        // Asked last: outside every pool, asking how many threads there are starts the global one.
        return (numbers / WORTH_A_THREAD).min(if cfg!(miri) { 2 } else { rayon::current_num_threads() });
    }
    1
}

/// Both, at once if there are threads.
pub(crate) fn both<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    #[cfg(all(feature = "rayon", not(miri)))]
    return rayon::join(a, b);
    #[cfg(all(feature = "rayon", miri))] // Rayon's queues break Miri's rules.
    return std::thread::scope(|scope| {
        let b = scope.spawn(b);
        (a(), b.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    #[cfg(not(feature = "rayon"))]
    (a(), b())
}
