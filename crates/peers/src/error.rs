//! What can go wrong: for the whole run, or for one peer, which then says so in its cell.

use std::path::{Path, PathBuf};

/// Bad use, a machine that refused, or something that a peer lacks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something that a peer doesn't have. The others go on.
    #[error("{why}")]
    Lacks {
        /// In a few words, for a cell of the table.
        why: String,
        /// What the peer said, for the notes. May be empty.
        detail: String,
    },
    /// Our own kernels refused.
    #[error(transparent)]
    Kernel(#[from] layernorm::Error),
    /// candle refused.
    #[error("{0}")]
    Candle(String),
    /// Burn gave back something else than numbers of the type that went in.
    #[error("{0}")]
    Burn(String),
    /// Our crate for ndarray refused.
    #[error("{0}")]
    Ndarray(String),
    /// A Python peer broke off or didn't keep to the protocol; what came instead of an answer.
    #[error("{0}")]
    Python(String),
    /// A peer that panicked.
    #[error("panicked; its message is above")]
    Panic,
    /// A file or folder that can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Shapes that no operator asked for takes.
    #[error("{0} fits none of these operators: norms of rows take rows x features, those of images NxCxHxW")]
    Misfit(String),
    /// Threads that could not be had.
    #[error("{threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the pool said.
        source: rayon::ThreadPoolBuildError,
    },
    /// Output that nobody takes.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The exit status: 130 after Ctrl-C as shells expect, else 2.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Interrupted) { 130 } else { 2 }
    }

    /// For `map_err`: what went wrong with this file.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// What a peer lacks, in a few words.
    pub fn lacks(why: &str) -> Self {
        Self::Lacks { why: why.to_owned(), detail: String::new() }
    }
}

impl From<layernorm_ndarray::Error> for Error {
    fn from(error: layernorm_ndarray::Error) -> Self {
        Self::Ndarray(error.to_string())
    }
}

impl From<candle_core::Error> for Error {
    /// Without the backtrace that candle takes along.
    fn from(error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            error => match error.to_string() {
                said if said.starts_with("unsupported dtype") => {
                    Self::Lacks { why: "no such kernel".into(), detail: said }
                }
                said => Self::Candle(said),
            },
        }
    }
}
