//! Batches that are spread over ranks (workers, devices): what these must exchange.

use crate::{Error, Real};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Gathers what every rank sends, for a batch that is spread over ranks.
///
/// A training pass gathers twice (sums and the count; then the sums of what is left without the mean, and of their
/// squares), a backward pass once, in each case one short list a rank. It is more in two rare cases, and then at all ranks alike: once
/// more where a channel is nearly constant, and a few times for each channel that needs more range than its type has.
/// An empty shard takes part, and sends an empty list.
///
/// A rank sends nodes of the tree of `docs/numerics.md`, as f64 (exact), and every rank finishes the same tree. So all
/// ranks have the same statistics; and where every shard but the last holds exactly 2^k chunks of 8 samples (channels
/// last: positions), and the last no more, these are the bits that one shard would give.
///
/// ```
/// use layernorm::{Error, Reducer};
///
/// /// One rank alone.
/// struct Alone;
///
/// impl Reducer for Alone {
///     fn gather(&self, nodes: &[f64]) -> Result<Vec<Vec<f64>>, Error> {
///         Ok(vec![nodes.to_vec()])
///     }
/// }
/// assert_eq!(Alone.gather(&[1.0])?, [[1.0]]);
/// # Ok::<(), layernorm::Error>(())
/// ```
pub trait Reducer: Sync {
    /// The lists of all ranks, in the order of ranks: the same at every rank. It waits for the others.
    ///
    /// # Errors
    /// [`Error::Reducer`] if a rank will not take part any more.
    fn gather(&self, nodes: &[f64]) -> Result<Vec<Vec<f64>>, Error>;

    /// This rank's call was refused, and takes no further part: the others must not wait for it.
    fn abort(&self) {}
}

/// A [`Reducer`] for threads of one process.
///
/// A rank that is refused, panics or goes away breaks the group: the others get [`Error::Reducer`], now and later.
/// Ranks wait for each other, so each needs a thread of its own (not a task of a pool with fewer threads than ranks).
///
/// ```
/// use layernorm::{LocalReducer, Reducer};
///
/// let ranks = LocalReducer::ranks(2);
/// std::thread::scope(|scope| {
///     for (rank, reducer) in ranks.into_iter().enumerate() {
///         scope.spawn(move || assert_eq!(reducer.gather(&vec![1.0; rank]), Ok(vec![vec![], vec![1.0]])));
///     }
/// });
/// ```
#[derive(Debug)]
pub struct LocalReducer {
    rank: usize,
    group: Arc<Group>,
}

#[derive(Debug)]
struct Group {
    round: Mutex<Round>,
    changed: Condvar,
}

#[derive(Debug)]
struct Round {
    /// Rounds that are complete.
    complete: u64,
    sent: Vec<Option<Vec<f64>>>,
    /// What the last complete round gathered. The next can't be complete before all have taken it.
    gathered: Vec<Vec<f64>>,
    broken: Option<String>,
}

impl LocalReducer {
    /// A group of so many ranks. Allocates, as does each [`Reducer::gather`].
    pub fn ranks(count: usize) -> Vec<Self> {
        let round = Round { complete: 0, sent: vec![None; count], gathered: vec![], broken: None };
        let group = Arc::new(Group { round: Mutex::new(round), changed: Condvar::new() });
        (0..count).map(|rank| Self { rank, group: Arc::clone(&group) }).collect()
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        // Nobody panics with a half-changed round.
        self.group.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn break_up(&self, why: &str) {
        let why = format!("rank {} {why}", self.rank);
        self.round().broken.get_or_insert(why);
        self.group.changed.notify_all();
    }
}

impl Reducer for LocalReducer {
    fn gather(&self, nodes: &[f64]) -> Result<Vec<Vec<f64>>, Error> {
        let mut round = self.round();
        if let Some(why) = &round.broken {
            return Err(Error::Reducer { why: why.clone() });
        }
        let this = round.complete;
        round.sent[self.rank] = Some(nodes.to_vec());
        if round.sent.iter().all(Option::is_some) {
            round.gathered = round.sent.iter_mut().filter_map(Option::take).collect();
            round.complete += 1;
            self.group.changed.notify_all();
        }
        while round.complete == this {
            if let Some(why) = &round.broken {
                return Err(Error::Reducer { why: why.clone() });
            }
            round = self.group.changed.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(round.gathered.clone())
    }

    fn abort(&self) {
        self.break_up("was refused");
    }
}

impl Drop for LocalReducer {
    fn drop(&mut self) {
        self.break_up("has left");
    }
}

/// Replace each of the sums by those of the whole batch; gives the count of the whole batch. A rank without rows sends
/// nothing.
pub(crate) fn gather<T: Real>(
    reducer: &dyn Reducer,
    empty: bool,
    count: usize,
    sums: &mut [&mut [T]],
) -> Result<usize, Error> {
    let expected = 1 + sums.iter().map(|sums| sums.len()).sum::<usize>();
    let mut nodes = Vec::new();
    if !empty {
        nodes.push(count as f64);
        nodes.extend(sums.iter().flat_map(|sums| sums.iter().map(|sum| sum.to_f64())));
    }
    let mut level = reducer.gather(&nodes)?;
    level.retain(|nodes| !nodes.is_empty());
    if let Some(nodes) = level.iter().find(|nodes| nodes.len() != expected) {
        return Err(Error::Length { what: "the list of a rank", expected, got: nodes.len() });
    }
    // The tree of adjacent pairs over ranks, in the type of the sums. (Counts are exact.)
    while level.len() > 1 {
        let pairs = level.chunks(2).map(|pair| match pair {
            [left, right] => {
                let sums = left.iter().zip(right).skip(1);
                let sums = sums.map(|(left, right)| T::from_f64(*left).add(T::from_f64(*right)).to_f64());
                std::iter::once(left[0] + right[0]).chain(sums).collect()
            }
            single => single.concat(),
        });
        level = pairs.collect::<Vec<Vec<f64>>>();
    }
    let mut total = level.pop().unwrap_or_else(|| vec![0.0; expected]).into_iter();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of counts")]
    let count = total.next().unwrap_or(0.0) as usize;
    for (sum, total) in sums.iter_mut().flat_map(|sums| sums.iter_mut()).zip(total) {
        *sum = T::from_f64(total);
    }
    Ok(count)
}

/// As [`gather`], of the largest number of each rank.
pub(crate) fn largest(reducer: &dyn Reducer, value: f64) -> Result<f64, Error> {
    Ok(reducer.gather(&[value])?.into_iter().flatten().fold(0.0, f64::max))
}
