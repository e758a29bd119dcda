//! Times of several pieces of work, taken in turns, so that whatever else the machine does meets all of them.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::interrupt;

/// A sample repeats short work for about this long.
const SAMPLE: Duration = Duration::from_micros(500);

/// Work that is shorter than a sample gets this many times the rounds: it can be had, and small times are less steady.
const MORE_ROUNDS: usize = 4;

/// Nanoseconds a run: one list for each piece of work, one entry for each round.
///
/// # Errors
/// Ctrl-C.
pub(super) fn interleaved(
    work: &mut [&mut dyn FnMut()],
    rounds: usize,
    stop: &AtomicBool,
) -> Result<Vec<Vec<f64>>, Error> {
    let repeats: Vec<u32> = work.iter_mut().map(|work| repeats(work)).collect();
    let rounds = if repeats.iter().all(|repeats| *repeats > 1) { MORE_ROUNDS * rounds } else { rounds };
    let mut times = vec![Vec::with_capacity(rounds); work.len()];
    for _ in 0..rounds {
        for ((work, &repeats), times) in work.iter_mut().zip(&repeats).zip(&mut times) {
            interrupt::check(stop)?;
            times.push(sample(work, repeats).as_secs_f64() * 1e9 / f64::from(repeats));
        }
    }
    Ok(times)
}

/// How often to repeat work for a sample. Warms it up, too.
fn repeats(work: &mut dyn FnMut()) -> u32 {
    let mut repeats = 1;
    work();
    loop {
        let time = sample(work, repeats);
        if time >= SAMPLE / 2 || repeats >= 1 << 20 {
            return repeats;
        }
        // Towards the goal by at most eight times at once: the first runs are slow.
        let growth = SAMPLE.as_secs_f64() / time.as_secs_f64().max(1e-9);
        repeats = if growth > 8.0 { repeats * 8 } else { repeats * 2 };
    }
}

fn sample(work: &mut dyn FnMut(), repeats: u32) -> Duration {
    let start = Instant::now();
    for _ in 0..repeats {
        work();
    }
    start.elapsed()
}

/// The middle one; of an even number, the lower middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_of_work_is_timed_in_every_round() {
        let (mut a, mut b) = (0u64, 0u64);
        let times = interleaved(&mut [&mut || a += 1, &mut || b += 1], 3, &AtomicBool::new(false)).unwrap();
        assert!(a > 3 && b > 3);
        assert!(times.len() == 2 && times.iter().all(|times| times.len() == 3 * MORE_ROUNDS));
        assert!(times.iter().flatten().all(|ns| *ns > 0.0 && *ns < 1e9));
    }

    #[test]
    fn ctrl_c_stops_between_samples() {
        let stopped = interleaved(&mut [&mut || ()], 3, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.0);
        assert!(median(&[]).is_nan());
    }
}
