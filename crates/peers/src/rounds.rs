//! Times of several pieces of work, taken in turns, so that whatever else the machine does meets all of them.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::error::Error;
use crate::interrupt;
use crate::work::Work;

/// A sample repeats short work for about this long.
const SAMPLE: Duration = Duration::from_millis(1);

/// Work that is shorter than a sample gets this many times the rounds: it can be had, and small times are less steady.
const MORE_ROUNDS: usize = 4;

/// Calls that are shorter have some before each sample that don't count: they find the caches as they would find them in
/// a program of its own, where no one else has worked in between, and wake the threads up.
const LEAD_IN: Duration = Duration::from_millis(10);

/// Samples that don't count before one that does.
const LEADING: u32 = 4;

/// Threads that wait in a loop for more work (those of OpenMP and onnxruntime do, for a while) would take the
/// processor from the next in turn.
const SETTLE: Duration = Duration::from_millis(3);

/// One piece of work on its way through the rounds.
struct Runner<'a, T> {
    work: &'a mut dyn Work<T>,
    repeats: u32,
    /// Whether calls that don't count come before each sample.
    leads_in: bool,
    /// Nanoseconds a call, one entry a round.
    times: Vec<f64>,
}

/// Nanoseconds a call: one list for each piece of work, one entry for each round. Work that breaks off is left out of
/// the rounds that follow.
///
/// # Errors
/// Ctrl-C.
pub fn interleaved<T>(
    work: &mut [&mut dyn Work<T>],
    rounds: usize,
    stop: &AtomicBool,
) -> Result<Vec<Result<Vec<f64>, Error>>, Error> {
    let mut runners = Vec::new();
    for work in work.iter_mut() {
        interrupt::check(stop)?;
        runners.push(Runner::start(&mut **work));
    }
    let short = runners.iter().flatten().all(|runner| runner.repeats > 1);
    for _ in 0..if short { MORE_ROUNDS * rounds } else { rounds } {
        for runner in &mut runners {
            interrupt::check(stop)?;
            let failure = runner.as_mut().map_or(None, |runner| runner.round().err());
            if let Some(error) = failure {
                *runner = Err(error);
            }
        }
    }
    Ok(runners.into_iter().map(|runner| runner.map(|runner| runner.times)).collect())
}

impl<'a, T> Runner<'a, T> {
    /// Finds out how often to repeat the work for a sample. Warms it up, too.
    fn start(work: &'a mut dyn Work<T>) -> Result<Self, Error> {
        let mut repeats = 1;
        work.sample(1)?;
        loop {
            let time = work.sample(repeats)?;
            if time >= SAMPLE / 2 || repeats >= 1 << 20 {
                let leads_in = time / repeats < LEAD_IN;
                return Ok(Self { work, repeats, leads_in, times: Vec::new() });
            }
            // Towards the goal by at most eight times at once: the first runs are slow.
            let growth = SAMPLE.as_secs_f64() / time.as_secs_f64().max(1e-9);
            repeats = if growth > 8.0 { repeats * 8 } else { repeats * 2 };
        }
    }

    fn round(&mut self) -> Result<(), Error> {
        std::thread::sleep(SETTLE);
        if self.leads_in {
            self.work.sample(self.repeats.saturating_mul(LEADING))?;
        }
        let time = self.work.sample(self.repeats)?;
        self.times.push(time.as_secs_f64() * 1e9 / f64::from(self.repeats));
        Ok(())
    }
}

/// The middle one; of an even number, the lower middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the ratios of the same rounds.
pub fn ratio(times: &[f64], others: &[f64]) -> f64 {
    median(&times.iter().zip(others).map(|(time, other)| time / other).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::Tensors;

    /// Counts samples; breaks off when `left` is used up.
    struct Counting {
        samples: usize,
        left: usize,
    }

    impl Work<f32> for Counting {
        fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
            self.samples += 1;
            self.left = self.left.checked_sub(1).ok_or_else(|| Error::lacks("patience"))?;
            Ok(Duration::from_millis(20) * calls)
        }

        fn outputs(&mut self) -> Result<Tensors<f32>, Error> {
            Ok(Tensors::default())
        }
    }

    #[test]
    fn short_calls_lead_in() {
        struct Short(u32);
        impl Work<f32> for Short {
            fn sample(&mut self, calls: u32) -> Result<Duration, Error> {
                self.0 += 1;
                Ok(Duration::from_micros(300) * calls)
            }
            fn outputs(&mut self) -> Result<Tensors<f32>, Error> {
                Ok(Tensors::default())
            }
        }
        let (mut short, rounds) = (Short(0), 4);
        let times = interleaved(&mut [&mut short], 1, &AtomicBool::new(false)).unwrap();
        // A first call, one and two calls to find the repeats, then the rounds with their lead-ins.
        assert_eq!(times[0].as_ref().unwrap().len(), MORE_ROUNDS);
        assert_eq!(short.0, 3 + 2 * rounds);
    }

    #[test]
    fn who_breaks_off_is_left_out_and_the_others_go_on() {
        let [mut a, mut b] = [100, 3].map(|left| Counting { samples: 0, left });
        let times = interleaved(&mut [&mut a, &mut b], 5, &AtomicBool::new(false)).unwrap();
        assert_eq!(times[0].as_ref().unwrap(), &[2e7; 5]);
        assert!(times[1].is_err());
        // Two to begin with; the calls are too long for a lead-in.
        assert_eq!((a.samples, b.samples), (2 + 5, 4));
    }

    #[test]
    fn ctrl_c_stops_between_samples() {
        let mut a = Counting { samples: 0, left: 9 };
        let stopped = interleaved(&mut [&mut a], 3, &AtomicBool::new(true));
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.0);
        assert!(median(&[]).is_nan());
        assert_eq!(ratio(&[2.0, 30.0, 4.0], &[1.0, 10.0, 1.0]), 3.0);
    }
}
