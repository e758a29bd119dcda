//! What can keep the program from an answer. Whether a claim held is not an error: see `main`.

use std::path::{Path, PathBuf};

/// Bad use, bad input, or a machine that refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder that can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not what its name says.
    #[error("{}: not a sound safetensors file: {source}", path.display())]
    Safetensors {
        /// Which.
        path: PathBuf,
        /// The lie that was caught.
        source: safetensors::SafeTensorError,
    },
    /// A tensor that the operator can't do without.
    #[error("{operator} needs a tensor named {name:?}; the file has {}", list(found))]
    Missing {
        /// Which operator.
        operator: &'static str,
        /// Which tensor.
        name: &'static str,
        /// What the file has.
        found: Vec<String>,
    },
    /// A tensor of a shape that doesn't fit x.
    #[error("{name} has shape {found:?} where {input}, of shape {x:?}, needs {expected}")]
    Shape {
        /// Which tensor.
        name: &'static str,
        /// Its shape.
        found: Vec<usize>,
        /// The tensor that it must fit.
        input: &'static str,
        /// The shape of that.
        x: Vec<usize>,
        /// What would fit.
        expected: String,
    },
    /// A tensor of a type that doesn't fit.
    #[error("{name} is {found} where {expected} is needed")]
    Dtype {
        /// Which tensor.
        name: &'static str,
        /// Its type.
        found: String,
        /// What would fit.
        expected: String,
    },
    /// An index below 0.
    #[error("{name} has the index {index}: it must be from 0 up")]
    Index {
        /// Which tensor.
        name: &'static str,
        /// The index.
        index: i64,
    },
    /// An axis that isn't there.
    #[error("axis {axis} is not one of the {axes} axes of x: -{axes} to {}", *axes as i64 - 1)]
    Axis {
        /// What was asked for.
        axis: i64,
        /// How many there are.
        axes: usize,
    },
    /// Fewer axes than the operator works on.
    #[error("{operator} needs {needs}, and x has {axes} axes: too few for that")]
    Axes {
        /// Which operator.
        operator: &'static str,
        /// What it needs axes for.
        needs: &'static str,
        /// How many there are.
        axes: usize,
    },
    /// Groups of channels that are not alike.
    #[error("{channels} channels can't be divided into {groups} groups")]
    Groups {
        /// How many groups were asked for.
        groups: usize,
        /// How many channels there are.
        channels: usize,
    },
    /// An option that the operator has no use for.
    #[error("{operator} has no use for {flag}{}", takes(flags))]
    Flag {
        /// Which operator.
        operator: &'static str,
        /// Which option.
        flag: &'static str,
        /// The options that it does take.
        flags: Vec<&'static str>,
    },
    /// A shape that no memory holds.
    #[error("shape {shape:?} has more numbers than memory can hold")]
    TooLarge {
        /// The shape.
        shape: Vec<usize>,
    },
    /// A call that the kernels refused.
    #[error(transparent)]
    Kernel(#[from] layernorm::Error),
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
    /// A command that this build lacks.
    #[cfg(not(feature = "studies"))]
    #[error(
        "`layernorm {command}` needs the feature `studies`, which brings Burn and takes minutes to build: \
         cargo run --release -p layernorm-lab --features studies -- {command}"
    )]
    WithoutStudies {
        /// Which command.
        command: &'static str,
    },
    /// The tour, without studies.
    #[cfg(not(feature = "studies"))]
    #[error(
        "the tour needs the feature `studies`, which brings Burn and takes minutes to build: cargo run --release. \
         This build has `layernorm check`, `bench` and `apply`: see `layernorm --help`"
    )]
    WithoutTour,
    /// A study, its data or its state.
    #[cfg(feature = "studies")]
    #[error(transparent)]
    Study(#[from] crate::study::Error),
}

impl Error {
    /// The exit status: 130 after Ctrl-C as shells expect, else 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => 130,
            #[cfg(feature = "studies")]
            Self::Study(error) => error.exit_code(),
            _ => 2,
        }
    }

    /// For `map_err`: what went wrong with this file.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn takes(flags: &[&str]) -> String {
    if flags.is_empty() { String::new() } else { format!("; it takes {}", flags.join(", ")) }
}
