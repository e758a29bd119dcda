//! Work to be timed, whoever does it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::tensors::Tensors;

/// A case that a peer has prepared.
pub trait Work<T> {
    /// Does it so many times; how long all of them took.
    ///
    /// # Errors
    /// A peer that broke off.
    fn sample(&mut self, calls: u32) -> Result<Duration, Error>;

    /// Does it once and gives the outputs. Those that it can't show are empty.
    ///
    /// # Errors
    /// A peer that broke off.
    fn outputs(&mut self) -> Result<Tensors<T>, Error>;
}

/// The time of so many calls, each with the end of what it gave.
///
/// # Errors
/// The first call's that fails.
pub fn timed<R>(calls: u32, mut call: impl FnMut() -> Result<R, Error>) -> Result<Duration, Error> {
    let start = Instant::now();
    for _ in 0..calls {
        drop(call()?);
    }
    Ok(start.elapsed())
}

/// A library's panic is that library's failure, and the others go on.
///
/// # Errors
/// Those of `work`, and [`Error::Panic`].
pub fn guarded<R>(work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    // What a panic leaves behind is not used again: the peer is out of the line.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Error::Panic))
}

/// Work that finds its threads where it runs: in a pool of rayon's.
pub struct InPool<T> {
    /// What to do.
    pub work: Box<dyn Work<T> + Send>,
    /// Where.
    pub pool: Arc<rayon::ThreadPool>,
}

impl<T: Send> Work<T> for InPool<T> {
    /// The way into the pool is not in the time.
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        let Self { work, pool } = self;
        guarded(|| pool.install(|| work.sample(calls)))
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        let Self { work, pool } = self;
        guarded(|| pool.install(|| work.outputs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        assert!(matches!(guarded(|| -> Result<(), Error> { panic!("as expected") }), Err(Error::Panic)));
        assert!(guarded(|| Ok(())).is_ok());
    }
}
