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
}

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
}
