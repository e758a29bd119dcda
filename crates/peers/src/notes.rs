//! What is said beneath the table: what to know when reading it, who differs, and who lacks what.

use std::collections::BTreeMap;

use crate::agree::Difference;
use crate::error::Error;
use crate::number::Number;
use crate::operators::Case;
use crate::peers::{Job, Peer};

/// What to know when reading the numbers.
const ALWAYS: &[&str] = &[
    "x ours, x copy: medians of the ratios within a round; the copy reads and writes what the pass must, in the best of \
     three ways (memcpy, a loop through the cache, a loop of streaming stores)",
    "memory: ours writes into the caller's; all others allocate their outputs in every call, as their users get it, and \
     that is in their times",
    "PyTorch and onnxruntime are called from Python, as most of their users do, and the cost of a call there is in their times",
    "backward: dx and the gradients of weight and bias; what a forward pass keeps for it was kept before. candle has it \
     for composed operators only. candle and Burn take the output's gradient as a factor, and that product is in their times",
];

/// What is said beneath the table, each thing once.
#[derive(Default)]
pub struct Notes {
    said: Vec<String>,
    /// Differences: what differs, how far, and where.
    worst: BTreeMap<String, (f64, String)>,
}

impl Notes {
    /// A few words for a cell; what the peer itself said is noted.
    pub fn excuse<T: Number>(&mut self, peer: Peer, job: &Job<'_, T>, error: Error) -> String {
        let (why, detail) = match error {
            Error::Lacks { why, detail } => (why, detail),
            error => ("failed".to_owned(), error.to_string()),
        };
        let detail = detail.lines().next().unwrap_or_default();
        if why == "not installed" {
            self.say(format!("{}: {why} ({detail}); crates/peers/README.md says how to", peer.name()));
        } else if !detail.is_empty() {
            self.say(format!("{}: {why}: {}: {detail}", peer.name(), describe(job)));
        }
        why
    }

    fn say(&mut self, note: String) {
        if !self.said.contains(&note) {
            self.said.push(note);
        }
    }

    /// Two peers that differ. The largest difference of its kind stays.
    pub fn difference<T: Number>(&mut self, peers: [Peer; 2], job: &Job<'_, T>, found: &Difference) {
        let [peer, trusted] = peers.map(Peer::name);
        let what = format!("! {peer} and {trusted} differ in {}: {}", found.name.name(), describe(job));
        let worst = self.worst.entry(what).or_insert((0.0, String::new()));
        if worst.0 < found.distance {
            *worst = (found.distance, job.case.shape.to_string());
        }
    }

    /// All of them, beginning with what always holds.
    pub fn all(self, rounds: usize) -> Vec<String> {
        let rounds = format!("medians of {rounds} rounds (where all calls are short: 4 times as many)");
        let worst = self.worst.into_iter().map(|(what, (distance, shape))| {
            format!("{what}: {distance:.1e} of its largest number, at worst (in {shape})")
        });
        let always = ALWAYS.iter().map(|&note| note.to_owned());
        [rounds].into_iter().chain(always).chain(worst).chain(self.said).collect()
    }
}

/// A case, without its shape and threads.
fn describe<T: Number>(job: &Job<'_, T>) -> String {
    let Case { operator, direction, .. } = job.case;
    format!("{} {} {}", operator.name(), direction.name(), T::NAME.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::{Direction, Operator};
    use crate::shape::Shape;
    use crate::tensors::{Name, Tensors};
    use std::path::Path;
    use std::sync::Arc;

    #[test]
    fn each_thing_is_said_once_and_of_differences_the_worst() {
        let mut notes = Notes::default();
        for (rows, distance) in [(1, 0.25), (2, 0.5), (3, 0.125)] {
            let case = Case {
                operator: Operator::RmsNorm,
                direction: Direction::Forward,
                shape: Shape::new(&[rows, 4]),
            };
            let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
            let data = Arc::new(Tensors::<f32>::default());
            let job = Job { case: &case, data: &data, folder: Path::new(""), threads: 1, pool: &pool };
            notes.difference([Peer::Burn, Peer::Ours], &job, &Difference { name: Name::Y, distance });
            let lacks = Error::Lacks { why: "no such kernel".into(), detail: "first\nsecond".into() };
            assert_eq!(notes.excuse(Peer::Torch, &job, lacks), "no such kernel");
        }
        let said = notes.all(7).split_off(1 + ALWAYS.len());
        let worst = "! burn and ours differ in y: rms_norm forward f32: 5.0e-1 of its largest number, at worst (in 2x4)";
        assert_eq!(said, [worst, "torch: no such kernel: rms_norm forward f32: first"]);
    }
}
