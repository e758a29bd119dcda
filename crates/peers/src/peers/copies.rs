//! The floor: copies of the bytes that a pass must move, as `layernorm bench` makes them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Job;
use crate::copy::{Way, copy};
use crate::error::Error;
use crate::number::Number;
use crate::tensors::{Name, Tensors};
use crate::work::{InPool, Work, timed};

/// Below so many bytes a tensor, one thread may copy faster than all.
const FEW: usize = 4 << 20;

/// A way to copy, split so often.
struct Copying<T> {
    way: Way,
    parts: usize,
    data: Arc<Tensors<T>>,
    reads: &'static [Name],
    /// Shared by all ways, which take turns.
    to: Arc<Mutex<Vec<Vec<T>>>>,
}

/// The copies of which the best counts, with their names.
pub fn prepare<T: Number>(job: &Job<'_, T>) -> Vec<(&'static str, Box<dyn Work<T>>)> {
    let pass = job.case.pass();
    let room = |name: &Name| vec![T::narrow(0.0); job.case.len(*name)];
    let to = Arc::new(Mutex::new(pass.writes.iter().map(room).collect::<Vec<_>>()));
    let parts: &[usize] = match job.threads {
        1 => &[1],
        threads if job.case.shape.numbers() * size_of::<T>() <= FEW => &[1, threads],
        threads => &[threads],
    };
    let ways = Way::ALL.into_iter().filter(|way| way.fits(pass.reads.len(), pass.writes.len()));
    ways.flat_map(|way| parts.iter().map(move |&parts| (way, parts)))
        .map(|(way, parts)| {
            let copying = Copying { way, parts, data: job.data.clone(), reads: pass.reads, to: to.clone() };
            let work = Box::new(InPool { work: Box::new(copying), pool: job.pool.clone() });
            (way.name(), work as Box<dyn Work<T>>)
        })
        .collect()
}

impl<T: Number> Work<T> for Copying<T> {
    fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
        let mut to = self.to.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let reads: Vec<&[T]> = self.reads.iter().map(|&name| &*self.data[name]).collect();
        let mut writes: Vec<&mut [T]> = to.iter_mut().map(|to| &mut **to).collect();
        timed(calls, || {
            copy(self.way, std::hint::black_box(&reads), std::hint::black_box(&mut writes), self.parts);
            Ok(())
        })
    }

    fn outputs(&mut self) -> Result<Tensors<T>, Error> {
        Ok(Tensors::default())
    }
}
