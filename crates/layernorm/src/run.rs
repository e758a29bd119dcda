//! How a call runs: at which level, on how many threads. Never what it computes.

use crate::{Error, Level};

/// How a call runs. The default takes the level of [`Level::from_environment`] and, with the feature
/// `rayon`, the threads of the caller's pool.
///
/// ```
/// use layernorm::{Level, Run, Threads};
///
/// let run = Run::default().with_level(Level::Portable).with_threads(Threads::One);
/// assert_eq!(run.level()?, Level::Portable);
/// # Ok::<(), layernorm::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Run {
    level: Option<Level>,
    threads: Threads,
    stream_from: Option<usize>,
}

/// Half of a usual last-level cache. Smaller outputs may stay there until they are read, and are written faster: measured
/// on a Zen 4 with 32 MiB, where a backward pass of 3 MiB takes half the time, and the two ways meet at 16 to 24 MiB.
const STREAM_FROM: usize = 16 << 20;

/// On which threads a call runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Threads {
    /// On the caller's.
    #[cfg_attr(not(feature = "rayon"), default)]
    One,
    /// On those of the rayon pool that the caller runs in, once there is enough to do for two.
    #[cfg(feature = "rayon")]
    #[default]
    Pool,
}

impl Run {
    /// The same, at this level. A level that the machine lacks is an error of the call.
    #[must_use]
    pub fn with_level(self, level: Level) -> Self {
        Self { level: Some(level), ..self }
    }

    /// The same, on these threads.
    #[must_use]
    pub fn with_threads(self, threads: Threads) -> Self {
        Self { threads, ..self }
    }

    /// The same, with outputs of this many bytes or more written past the caches, which is faster where they would not stay
    /// there: a write through a cache reads its line first. Default 16 MiB. An output that takes the place of its input is
    /// in a cache already, and never written past it.
    ///
    /// ```
    /// use layernorm::Run;
    ///
    /// let always = Run::default().with_stream_from(0);
    /// assert_eq!((always.stream_from(), Run::default().stream_from()), (0, 16 << 20));
    /// ```
    #[must_use]
    pub fn with_stream_from(self, bytes: usize) -> Self {
        Self { stream_from: Some(bytes), ..self }
    }

    /// The level that a call runs at.
    ///
    /// # Errors
    /// [`Error::Level`] and [`Error::LevelName`], as [`Level::from_environment`].
    pub fn level(self) -> Result<Level, Error> {
        self.level.map_or_else(Level::from_environment, Level::checked)
    }

    /// The threads that a call runs on.
    pub fn threads(self) -> Threads {
        self.threads
    }

    /// From how many bytes on outputs are written past the caches.
    pub fn stream_from(self) -> usize {
        self.stream_from.unwrap_or(STREAM_FROM)
    }
}
