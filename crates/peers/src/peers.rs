//! The peers: a file for each library, and one for the copies that all are measured by.

mod burn;
mod candle;
pub mod copies;
mod hands_out;
mod ndarray;
mod ours;
mod python;

use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use serde::Serialize;

use crate::error::Error;
use crate::number::Number;
use crate::operators::Case;
use crate::tensors::Tensors;
use crate::work::{InPool, Work, guarded};
use ours::Memory;
use python::Child;

/// A library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// The crate `layernorm`
    Ours,
    /// The same into memory that each call allocates, and backward without saved statistics
    OursNew,
    /// The same through `layernorm-candle`
    OursCandle,
    /// candle's graph without a norm, backward
    CandleGraph,
    /// The same through `layernorm-burn`
    OursBurn,
    /// Burn's graph without a norm, backward
    BurnGraph,
    /// The same through `layernorm-ndarray`
    OursNdarray,
    /// candle-nn on the CPU
    Candle,
    /// Burn's CPU backend, Flex
    Burn,
    /// PyTorch, eager; needs Python
    Torch,
    /// onnxruntime's CPU provider; needs Python
    Onnxruntime,
}

impl Peer {
    /// Our kernels, and those of other libraries.
    pub const LIBRARIES: &[Self] = &[Self::Ours, Self::Candle, Self::Burn, Self::Torch, Self::Onnxruntime];

    /// Our kernels bare, and through each framework.
    pub const INTEGRATIONS: &[Self] = &[
        Self::Ours,
        Self::OursNew,
        Self::OursCandle,
        Self::CandleGraph,
        Self::OursBurn,
        Self::BurnGraph,
        Self::OursNdarray,
    ];

    /// Its name on the command line, in tables and in `peers.py`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursNew => "ours-new",
            Self::OursCandle => "ours-candle",
            Self::CandleGraph => "candle-graph",
            Self::OursBurn => "ours-burn",
            Self::BurnGraph => "burn-graph",
            Self::OursNdarray => "ours-ndarray",
            Self::Candle => "candle",
            Self::Burn => "burn",
            Self::Torch => "torch",
            Self::Onnxruntime => "onnxruntime",
        }
    }

    /// Whose result the others are compared with: the lowest that has one. Half types are the reason for the order:
    /// in them some libraries add up in the type itself.
    pub fn trust(self) -> usize {
        let order = [Self::Ours, Self::Torch, Self::Onnxruntime, Self::Burn, Self::Candle];
        order.iter().position(|&peer| peer == self).unwrap_or(order.len())
    }

    /// Whether it computes a norm, which can be compared.
    pub fn has_results(self) -> bool {
        !matches!(self, Self::CandleGraph | Self::BurnGraph)
    }

    /// Whether it lives in a Python process.
    pub fn is_python(self) -> bool {
        matches!(self, Self::Torch | Self::Onnxruntime)
    }

    /// The crate whose version is this peer's.
    fn package(self) -> Option<&'static str> {
        match self {
            Self::Ours | Self::OursNew => Some("layernorm"),
            Self::OursCandle => Some("layernorm-candle"),
            Self::OursBurn => Some("layernorm-burn"),
            Self::OursNdarray => Some("layernorm-ndarray"),
            Self::Candle | Self::CandleGraph => Some("candle-nn"),
            Self::Burn | Self::BurnGraph => Some("burn"),
            Self::Torch | Self::Onnxruntime => None,
        }
    }
}

/// Whose norms a framework runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The framework's own.
    Theirs,
    /// Ours, through our crate for it.
    Ours,
    /// Nobody's, backward: what is left is the framework's graph.
    Nobodys,
}

/// A case with its numbers, and how to run it.
pub struct Job<'a, T> {
    /// What.
    pub case: &'a Case,
    /// On what.
    pub data: &'a Arc<Tensors<T>>,
    /// The folder that has the same numbers in files.
    pub folder: &'a Path,
    /// On how many threads.
    pub threads: usize,
    /// With as many.
    pub pool: &'a Arc<rayon::ThreadPool>,
}

/// The peers of a run, those in Python started.
pub struct Peers {
    all: Vec<(Peer, Result<Option<Child>, Error>)>,
}

impl Peers {
    /// Starts those that have to be. One that is not installed is one that lacks everything.
    pub fn start(peers: &[Peer], python: &Path) -> Self {
        let start = |peer: &Peer| {
            let child = peer.is_python().then(|| Child::start(peer.name(), python)).transpose();
            (*peer, child)
        };
        Self { all: peers.iter().map(start).collect() }
    }

    /// Whether some read their numbers from files.
    pub fn need_files(&self) -> bool {
        self.all.iter().any(|(_, child)| matches!(child, Ok(Some(_))))
    }

    /// Each with its version, or why there is none.
    pub fn versions(&self) -> Vec<(Peer, String)> {
        let version = |(peer, child): &(Peer, Result<Option<Child>, Error>)| match child {
            Ok(Some(child)) => (*peer, child.version().to_owned()),
            Ok(None) => (*peer, peer.package().and_then(locked).unwrap_or("unknown").to_owned()),
            Err(error) => (*peer, error.to_string()),
        };
        self.all.iter().map(version).collect()
    }

    /// A case, ready to be timed by each peer that can.
    pub fn prepare<'a, T: Number>(
        &'a self,
        job: &'a Job<'a, T>,
    ) -> impl Iterator<Item = (Peer, Result<Box<dyn Work<T>>, Error>)> + 'a {
        self.all.iter().map(|(peer, child)| {
            let in_pool = |work| Box::new(InPool { work, pool: job.pool.clone() }) as Box<dyn Work<T>>;
            let work = match (peer, child) {
                (Peer::Ours, _) => guarded(|| ours::prepare(job, Memory::Given)).map(in_pool),
                (Peer::OursNew, _) => guarded(|| ours::prepare(job, Memory::New)).map(in_pool),
                (Peer::OursCandle, _) => guarded(|| candle::prepare(job, Whose::Ours)).map(in_pool),
                (Peer::CandleGraph, _) => guarded(|| candle::prepare(job, Whose::Nobodys)).map(in_pool),
                (Peer::OursBurn, _) => guarded(|| burn::prepare(job, Whose::Ours)).map(in_pool),
                (Peer::BurnGraph, _) => guarded(|| burn::prepare(job, Whose::Nobodys)).map(in_pool),
                (Peer::OursNdarray, _) => guarded(|| ndarray::prepare(job)).map(in_pool),
                (Peer::Candle, _) => guarded(|| candle::prepare(job, Whose::Theirs)).map(in_pool),
                (Peer::Burn, _) => guarded(|| burn::prepare(job, Whose::Theirs)).map(in_pool),
                (_, Ok(Some(child))) => child.prepare(job),
                (_, Ok(None)) => Err(Error::lacks("not started")),
                (_, Err(Error::Lacks { why, detail })) => {
                    Err(Error::Lacks { why: why.clone(), detail: detail.clone() })
                }
                (_, Err(error)) => Err(Error::Lacks { why: "failed".into(), detail: error.to_string() }),
            };
            (*peer, work)
        })
    }
}

/// The version of a package in this workspace's lock file.
fn locked(package: &str) -> Option<&'static str> {
    let lock = include_str!("../Cargo.lock");
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_those_that_were_built() {
        assert!(super::locked("candle-nn").is_some_and(|version| version.starts_with("0.11")));
        assert_eq!(super::locked("no-such-package"), None);
    }
}
