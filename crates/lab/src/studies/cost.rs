//! What a normalization costs: the time of a row over the batch size, and of an update of a whole network.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};

use crate::data::{self, Split};
use crate::models::mlp::MlpShape;
use crate::models::norm::{Norm, NormKind};
use crate::models::train::{Recipe, Training};
use crate::report::model::{Axis, Figure, LineChart, Measured, Table, Tone};
use crate::rng::{Purpose, Rng};
use crate::study::{
    Arm, Budget, Card, Claim, Error, Plan, Request, Results, Rule, Study, Unit, settings, steps,
};

/// The study.
#[derive(Debug)]
pub struct Cost;

static CARD: Card = Card {
    name: "cost",
    title: "What it costs",
    question: "Normalizing takes time. How much for each sample, does it depend on the batch, and does it slow a \
               network's training down?",
    metric: "wall-clock time, the methods by turns, the fastest of the rounds; on this machine and with this library",
    arms: &[Arm { name: "times", label: "all methods, by turns", tone: Tone::Plain }],
    claims: &[
        Claim {
            id: "M6",
            says: "The cost of a sample does not depend on the batch size.",
            source: "folklore of textbooks",
            measure: "time of layer norm a row in training at batch 4096, over that at batch 64",
            effect: |seed| seed.at("times", "layer norm", LARGE) / seed.at("times", "layer norm", 64.0),
            unit: "times as long",
            rule: Rule::Between(0.5, 2.0),
        },
        Claim {
            id: "M6",
            says: "It is said to use memory less well than batch norm, as it works sample by sample. On a processor it \
                   does not: in large batches it is not slower.",
            source: "folklore of textbooks",
            measure: "time of batch norm in training at batch 4096, over that of layer norm; both must read and write \
                      the same bytes",
            effect: |seed| seed.at("times", "batch norm", LARGE) / seed.at("times", "layer norm", LARGE),
            unit: "times as long",
            rule: Rule::Exceeds(1.0),
        },
        Claim {
            id: "N6",
            says: "Layer norm slows an update of a network down only a little.",
            source: "Ba, Kiros, Hinton 2016, section 6.3",
            measure: "time of an update of the network for MNIST at batch 128 with layer norm, over without, less 1",
            effect: |seed| {
                100.0
                    * (seed.value("times", "update, layer norm") / seed.value("times", "update, no norm")
                        - 1.0)
            },
            unit: "per cent",
            rule: Rule::Within(10.0),
        },
        Claim {
            id: "E1",
            says: "RMS norm takes 7 to 64% less time than layer norm.",
            source: "Zhang, Sennrich 2019 (time of whole models, in other libraries)",
            measure: "time that RMS norm saves of layer norm's, in training at batch 256, the norm alone",
            effect: |seed| {
                100.0 * (1.0 - seed.at("times", "RMS norm", 256.0) / seed.at("times", "layer norm", 256.0))
            },
            unit: "per cent",
            rule: Rule::Between(7.0, 64.0),
        },
    ],
    takes: ["20 seconds", "2 minutes", "10 minutes"],
    seeds: [5, 10, 20],
    real_data: true,
};

const KINDS: [(NormKind, &str, Tone); 4] = [
    (NormKind::Layer, "layer norm", Tone::Layer),
    (NormKind::Rms, "RMS norm", Tone::Rms),
    (NormKind::Batch, "batch norm", Tone::Batch),
    (NormKind::Plain, "no norm", Tone::Plain),
];
const FEATURES: usize = 1024;
const BATCHES: [usize; 7] = [1, 4, 16, 64, 256, 1024, 4096];
/// The largest batch.
const LARGE: f64 = 4096.0;
/// Numbers that a timing works through at least, so that small batches are timed in many calls.
const NUMBERS: usize = 1 << 18;

impl Study for Cost {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let rounds = request.budget.pick([5, 25, 100], 1);
        let tiny = request.budget == Budget::Tiny;
        let (batches, hidden) = if tiny { (&BATCHES[..4], 20) } else { (&BATCHES[..], 1000) };
        Ok(Box::new(CostPlan {
            rounds,
            batches,
            hidden,
            data: data::digits(request.data.as_deref(), 1024, 1)?,
        }))
    }
}

struct CostPlan {
    /// Timings of each method at each size.
    rounds: usize,
    batches: &'static [usize],
    /// Units of the network's hidden layers.
    hidden: usize,
    data: Split,
}

impl Plan for CostPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        settings([
            ("rounds", self.rounds.to_string()),
            ("rows", format!("{FEATURES} numbers, f32")),
            ("network", format!("784-{0}-{0}-10, Adam, batch 128", self.hidden)),
            ("repeatable", "no: times depend on the machine, and on what else it does".to_owned()),
        ])
    }

    fn ticks(&self, _: usize) -> u64 {
        self.batches.len() as u64 + 2
    }

    fn alone(&self) -> bool {
        true
    }

    fn unit(&self, _: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        // The whole network counts for two sizes of rows.
        let sizes = self.batches.len();
        Ok(steps(sizes + 2, move |step, measured| match self.batches.get(step) {
            Some(&batch) => self.rows(batch, seed, measured),
            None if step == sizes => self.updates(seed, measured),
            None => {}
        }))
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        let chart = |title: &str, caption: &str, ending: &str, kinds: &[(NormKind, &str, Tone)]| {
            let series = kinds
                .iter()
                .map(|(_, label, tone)| all.line(label, *tone, "times", &format!("{label}{ending}")));
            Figure::Lines(LineChart {
                title: title.to_owned(),
                caption: caption.to_owned(),
                x: Axis::log("batch size"),
                y: Axis::log("time a row, µs"),
                series: series.collect(),
            })
        };
        vec![
            chart(
                "A row in training",
                "Forward and backward, with the gradients of gain and bias. A call has a price of its own, which small \
                 batches share among few rows; beyond, a row's price is a constant.",
                "",
                &KINDS[..3],
            ),
            chart(
                "A row in inference",
                "Forward alone; batch norm by its running statistics, which makes it one multiplication and one \
                 addition. Without a norm there is nothing to do: the line shows the multiplication of each number by \
                 2, which reads and writes the same memory.",
                " in inference",
                &KINDS,
            ),
            Figure::Table(updates(all)),
        ]
    }

    fn notes(&self) -> Vec<String> {
        [
            "These are times, so they differ from machine to machine and from run to run; two equal runs need not give \
             equal numbers here, as they do in every other study. Other work on the machine disturbs them; the methods \
             take turns so that it disturbs all alike.",
            "Layer norm and RMS norm are this project's kernels. Batch norm has none of its own yet: it gathers its \
             channels, goes through the layer norm's, and puts them back. So its time says what is built here, not what \
             could be, and the verdict on it is one of today. On a graphics processor the answers may differ.",
            "Chosen after a first look, as timings were noisy: the fastest of the rounds, and one unit at a time.",
        ]
        .map(str::to_owned)
        .into()
    }
}

impl CostPlan {
    /// Times a row of each method at one batch size, in training and in inference.
    fn rows(&self, batch: usize, seed: u64, measured: &mut Measured) {
        let mut rng = Rng::new(seed, Purpose::Study(CARD.name), u32::try_from(batch).expect("a small batch"));
        let numbers = TensorData::new((0..batch * FEATURES).map(|_| rng.bell()).collect(), [batch, FEATURES]);
        let (training, inference) = (Device::flex().autodiff(), Device::flex());
        let calls = NUMBERS.div_ceil(batch * FEATURES);
        let mut times = vec![Vec::new(); 2 * KINDS.len()];
        for round in 0..=self.rounds {
            for (index, (kind, ..)) in KINDS.iter().enumerate() {
                let forward = forward(*kind, &numbers, &inference, calls);
                let both =
                    if *kind == NormKind::Plain { 0.0 } else { backward(*kind, &numbers, &training, calls) };
                // The first round warms up.
                if round > 0 {
                    times[2 * index].push(both);
                    times[2 * index + 1].push(forward);
                }
            }
        }
        for ((_, label, _), times) in KINDS.iter().zip(times.chunks(2)) {
            for (ending, times) in ["", " in inference"].iter().zip(times) {
                let micros = 1e6 * fastest(times) / (calls * batch) as f64;
                measured.point(&format!("{label}{ending}"), batch as f64, micros);
            }
        }
    }

    /// Times an update of the network with each method.
    fn updates(&self, seed: u64, measured: &mut Measured) {
        let widths = vec![self.data.train.size(), self.hidden, self.hidden, 10];
        let training = |&(norm, ..): &(NormKind, &str, Tone)| {
            let recipe = Recipe {
                shape: MlpShape { widths: widths.clone(), norm },
                batch: 128,
                epochs: 1000,
                rate: 1e-3,
                spans: 1,
                tests: 1,
                ticks: 1,
            };
            Training::new(recipe, &self.data, seed, None).expect("nothing saved that could be wrong")
        };
        let mut networks: Vec<Training<'_>> = KINDS.iter().map(training).collect();
        let mut times = vec![Vec::new(); KINDS.len()];
        for round in 0..=self.rounds.div_ceil(2) {
            for (network, times) in networks.iter_mut().zip(&mut times) {
                let start = Instant::now();
                let before = network.done();
                network.advance().expect("the training goes on");
                if round > 0 {
                    times.push(start.elapsed().as_secs_f64() / (network.done() - before) as f64);
                }
            }
        }
        for ((_, label, _), times) in KINDS.iter().zip(&times) {
            measured.set(&format!("update, {label}"), fastest(times));
        }
    }
}

/// Seconds of so many forward passes.
fn forward(kind: NormKind, numbers: &TensorData, device: &Device, calls: usize) -> f64 {
    let norm = Norm::new(kind, FEATURES, device);
    let x = Tensor::<2>::from_data(numbers.clone(), device);
    let start = Instant::now();
    for _ in 0..calls {
        let y = if kind == NormKind::Plain { x.clone() * 2.0 } else { norm.forward(x.clone()) };
        std::hint::black_box(y);
    }
    start.elapsed().as_secs_f64()
}

/// Seconds of so many forward and backward passes.
fn backward(kind: NormKind, numbers: &TensorData, device: &Device, calls: usize) -> f64 {
    let norm = Norm::new(kind, FEATURES, device);
    let x = Tensor::<2>::from_data(numbers.clone(), device).require_grad();
    let start = Instant::now();
    for _ in 0..calls {
        std::hint::black_box(norm.forward(x.clone()).backward());
    }
    start.elapsed().as_secs_f64()
}

/// What is least disturbed by other work on the machine.
fn fastest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn updates(all: &Results) -> Table {
    let without = all.mean("times", "update, no norm");
    let rows = KINDS.iter().map(|(_, label, _)| {
        let name = format!("update, {label}");
        let millis: Vec<f64> = all.values("times", &name).iter().map(|seconds| 1e3 * seconds).collect();
        let more = 100.0 * (all.mean("times", &name) / without - 1.0);
        vec![(*label).to_owned(), crate::report::number::spread(&millis, 1), format!("{more:+.1}%")]
    });
    Table::new(
        "An update of a whole network",
        "The network for MNIST, 784-1000-1000-10, at batch 128: forward, backward and Adam. Nearly all of it is matrix \
         multiplication.",
        &["method", "ms an update", "against none"],
        rows.collect(),
    )
}
