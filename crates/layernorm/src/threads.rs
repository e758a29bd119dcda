//! Rows split over threads. Each row is computed whole by one thread, so no bit depends on the split.

use crate::Threads;
use std::ops::Range;

/// Numbers for which a hand-off to another thread (some microseconds) pays. Few under Miri, which must see it.
#[cfg(feature = "rayon")]
const WORTH_A_THREAD: usize = if cfg!(miri) { 16 } else { 32 << 10 };

/// How many parts `threads` can work on at once where there are `rows` rows of `features`. At least one.
#[cfg_attr(not(feature = "rayon"), allow(unused_variables, reason = "one thread needs not ask what pays"))]
pub(crate) fn parts(threads: Threads, rows: usize, features: usize) -> usize {
    match threads {
        Threads::One => 1,
        #[cfg(feature = "rayon")]
        Threads::Pool => {
            // Asked last: outside every pool, asking how many threads there are starts the global one.
            let worth = rows.min(rows.saturating_mul(features) / WORTH_A_THREAD);
            if worth < 2 { 1 } else { worth.min(if cfg!(miri) { 3 } else { rayon::current_num_threads() }) }
        }
    }
}

/// Run `part` for each of `0..parts`, at once where there are several.
pub(crate) fn for_each(parts: usize, part: impl Fn(usize) + Sync) {
    #[cfg(feature = "rayon")]
    if parts > 1 {
        return at_once(parts, &part);
    }
    (0..parts).for_each(part);
}

/// The same on the pool. Not generic: rayon's queues would be compiled again for every caller.
#[cfg(all(feature = "rayon", not(miri)))]
fn at_once(parts: usize, part: &(dyn Fn(usize) + Sync)) {
    use rayon::prelude::*;
    (0..parts).into_par_iter().with_max_len(1).for_each(part);
}

/// Rayon's queues break Miri's rules; other threads show it how rows and totals are shared.
#[cfg(all(feature = "rayon", miri))]
fn at_once(parts: usize, part: &(dyn Fn(usize) + Sync)) {
    std::thread::scope(|scope| {
        (0..parts).for_each(|index| {
            scope.spawn(move || part(index));
        });
    });
}

/// Part `part` of `len` things, split into `parts` of about equal size.
pub(crate) fn share(part: usize, parts: usize, len: usize) -> Range<usize> {
    // `len * part / parts` without overflow.
    let bound = |part: usize| len / parts * part + len % parts * part / parts;
    bound(part)..bound(part + 1)
}

/// Run `body` over `rows` rows, a share to each part.
pub(crate) fn over_rows(parts: usize, rows: usize, body: impl Fn(Range<usize>) + Sync) {
    for_each(parts, |part| body(share(part, parts, rows)));
}
