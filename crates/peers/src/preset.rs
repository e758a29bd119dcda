//! What is measured where the command line does not say.

use clap::ValueEnum;

use crate::cli::Cli;
use crate::operators::Operator;
use crate::peers::Peer;

/// The shapes, operators, peers, numbers of threads and rounds of a run.
pub struct Preset {
    /// Rows x features, and images.
    pub shapes: &'static [&'static [usize]],
    /// Those that take one of the shapes.
    pub operators: &'static [Operator],
    /// Who is timed.
    pub peers: &'static [Peer],
    /// On how many threads, one after the other.
    pub threads: Vec<usize>,
    /// That the medians are taken over.
    pub rounds: usize,
}

/// The one that `cli` asks for.
pub fn preset(cli: &Cli) -> Preset {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    // From one row to far beyond the caches, and images.
    let usual = Preset {
        shapes: &[
            &[1, 768],
            &[8, 768],
            &[512, 768],
            &[200_000, 64],
            &[32_768, 1024],
            &[2048, 4096],
            &[16_384, 4096],
            &[1024, 16_384],
            &[256, 65_536],
            &[32, 320, 64, 64],
        ],
        operators: Operator::value_variants(),
        peers: Peer::LIBRARIES,
        threads: vec![1, all],
        rounds: 7,
    };
    if cli.overhead {
        // What an integration adds shows where a call is short, and where its output is large.
        let shapes: &[&[usize]] = &[&[1, 768], &[8, 768], &[512, 768], &[4096, 1024]];
        let operators = &[Operator::LayerNorm, Operator::RmsNorm];
        Preset { shapes, operators, peers: Peer::INTEGRATIONS, threads: vec![1], ..usual }
    } else if cli.quick {
        Preset { shapes: &[&[1, 768], &[512, 768], &[2048, 4096], &[2, 320, 32, 32]], rounds: 3, ..usual }
    } else {
        usual
    }
}
