//! The command line.

use std::fs::OpenOptions;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::error::Error;
use crate::number::Dtype;
use crate::operators::{Direction, Operator};
use crate::peers::Peer;
use crate::report::Report;
use crate::shape::Shape;
use crate::{console, document, interrupt, overhead, run, show};

/// Variables that times depend on: how many threads candle takes for its own operations, in any pool; and what glibc's
/// allocator keeps of freed memory, instead of getting it from the system again page by page.
const VARIABLES: [&str; 3] = ["RAYON_NUM_THREADS", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];

/// Times our kernels beside candle, Burn, PyTorch, onnxruntime and a memory copy, in turns, on the same numbers.
#[derive(Debug, Parser)]
#[command(
    name = "layernorm-peers",
    version,
    after_long_help = "\
Each round gives every peer its turn, so that whatever else the machine does meets all of them; times are medians of
the rounds, and ratios are medians of each round's ratio. `x ours`: how many times our time; `x copy`: how many times
that of the best copy of the bytes that the pass must read and write, which is the floor.

Before its times are taken, a peer's result is compared with ours (or, without ours, with PyTorch's). One that is
further away than the type's tolerance is marked with an exclamation mark, and a note says by how much.

PyTorch and onnxruntime run in Python processes of their own, which stay for the whole run. Where Python or the library
is missing, their columns say so and the rest runs. To have them:
  python3 -m venv venv && venv/bin/pip install torch onnxruntime onnx numpy
  layernorm-peers --python venv/bin/python

Exit status: 0 done, 2 bad use or input, 130 Ctrl-C. The largest shapes need 10 GiB of memory, and all
of it about half an hour of a quiet machine. Look at the ratios.

Examples:
  layernorm-peers --quick
  layernorm-peers --shapes 512x768,2048x4096 --operators rms_norm --direction forward --threads 1
  layernorm-peers --peers ours,torch --dtypes f32,bf16
  layernorm-peers --quick --write docs/performance.md
  layernorm-peers --overhead --write docs/performance.md
  layernorm-peers --operators group_norm --peers torch,onnxruntime"
)]
pub struct Cli {
    /// A few shapes and rounds only: some minutes
    #[arg(long)]
    pub quick: bool,
    /// What candle, Burn and ndarray add to our kernels: these as peers, and a table of that
    #[arg(long, conflicts_with_all = ["quick", "peers"])]
    pub overhead: bool,
    /// Rows x features, or NxCxHxW for the norms of images, separated by commas [default: from 1x768 to 268 MB]
    #[arg(long, value_delimiter = ',', value_name = "SHAPE")]
    pub shapes: Vec<Shape>,
    /// Only these operators, separated by commas [default: all]
    #[arg(long, value_delimiter = ',', value_name = "OP", value_enum)]
    pub operators: Vec<Operator>,
    /// The types of the numbers, separated by commas [default: f32]
    #[arg(long, value_delimiter = ',', value_name = "TYPE", value_enum)]
    pub dtypes: Vec<Dtype>,
    /// Only this direction
    #[arg(long, value_enum)]
    pub direction: Option<Direction>,
    /// Numbers of threads, separated by commas [default: 1 and the processor's]
    #[arg(long, value_delimiter = ',', value_name = "T", value_parser = threads)]
    pub threads: Vec<usize>,
    /// Only these peers, separated by commas; results are compared with ours, else with PyTorch's
    #[arg(long, value_delimiter = ',', value_name = "PEER", value_enum)]
    pub peers: Vec<Peer>,
    /// Rounds that the medians are taken over [default: 7, quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: Option<u16>,
    /// The Python that has torch and onnxruntime
    #[arg(long, value_name = "FILE", default_value = "python3")]
    pub python: PathBuf,
    /// Write the table into this document, in the place of the one of the run before
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Cli {
    /// Obeys.
    ///
    /// # Errors
    /// Bad use, a machine that refuses, or Ctrl-C.
    pub fn run(&self) -> Result<(), Error> {
        if let Some(path) = &self.write {
            // A file that can't be written is better known now than after an hour.
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map_err(Error::io(path))?;
        }
        let report = run::run(self, interrupt::ctrl_c())?;
        if let Some(path) = &self.write {
            let name = if self.overhead { "integrations" } else { "peers" };
            document::write(path, name, &self.section(&report))?;
        }
        match (self.json, self.overhead) {
            (true, _) => console::print_json(&report),
            (_, true) => {
                console::print(&format!("{}\n\n{}", show::text(&report), overhead::markdown(&report)))
            }
            _ => console::print(&show::text(&report)),
        }
    }

    /// What `--write` writes.
    fn section(&self, report: &Report) -> String {
        if self.overhead { overhead::section(report) } else { show::section(report) }
    }

    /// The command that repeats it, but for where Python is, which is another place elsewhere.
    pub fn command_line(&self) -> String {
        let mut command = "cargo run --release --manifest-path crates/peers/Cargo.toml --".to_owned();
        for variable in VARIABLES {
            if let Ok(value) = std::env::var(variable) {
                command = format!("{variable}={value} {command}");
            }
        }
        let mut list = |name: &str, values: Vec<String>| {
            if !values.is_empty() {
                command += &format!(" --{name} {}", values.join(","));
            }
        };
        list("shapes", self.shapes.iter().map(Shape::to_string).collect());
        list("operators", self.operators.iter().map(|operator| operator.name()).collect());
        list("dtypes", words(&self.dtypes));
        list("direction", self.direction.iter().map(|direction| direction.name().to_owned()).collect());
        list("threads", self.threads.iter().map(usize::to_string).collect());
        list("peers", words(&self.peers));
        list("rounds", self.rounds.iter().map(u16::to_string).collect());
        for (flag, given) in [(" --quick", self.quick), (" --overhead", self.overhead)] {
            command += if given { flag } else { "" };
        }
        command
    }
}

fn words<V: ValueEnum>(values: &[V]) -> Vec<String> {
    let names = values.iter().filter_map(ValueEnum::to_possible_value);
    names.map(|value| value.get_name().to_owned()).collect()
}

/// A number of threads: 1 to 1024.
fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=1024) => Ok(threads),
        Ok(threads) => Err(format!("{threads} is not in 1 to 1024")),
        Err(error) => Err(format!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_repeats_itself() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let line = "layernorm-peers --shapes 2x3 --operators rms_norm --dtypes f32,bf16 --direction forward \
                    --threads 1,2 --peers ours,torch --rounds 2 --quick";
        let again = Cli::parse_from(line.split_whitespace()).command_line();
        assert_eq!(again.split(" -- ").nth(1), line.split_once(' ').map(|(_, flags)| flags));
    }
}
