//! Drift: how the size of a signal changes over time steps and layers, and what norms make of a recurrent network.

mod gain;
mod length;
mod net;
mod scale;

use std::collections::BTreeMap;

use layernorm_burn::{NormConfig, NormKind};

use crate::models::norm::EPSILON;
use crate::report::model::{Axis, Figure, LineChart, Table, Tone};
use crate::rng::{Purpose, Rng};
use crate::study::{
    Arm, Card, Claim, Error, Plan, Request, Results, Rule, Seed, Study, Unit, settings, steps,
};
use gain::Recall;
use length::{BEYOND, Evidence, LONGEST};
use scale::{Way, decades, sizes};

/// The study.
#[derive(Debug)]
pub struct Drift;

const PAPER: &str = "Ba, Kiros, Hinton 2016, section 3.1";
const COOIJMANS: &str = "Cooijmans et al. 2016; Ba, Kiros, Hinton 2016, section 6.2";

static CARD: Card = Card {
    name: "drift",
    title: "A thousand steps later",
    question: "A signal goes round in a recurrent network, a thousand times, or up through a hundred layers. Does it keep \
               its size, and the gradient on its way back? And can a recurrent network live with batch norm, which needs \
               statistics for every time step?",
    metric: "sizes in decades (factors of ten), test accuracy in per cent, and training loss",
    arms: &[
        Arm { name: "none_low", label: "no norm, weights 5% smaller", tone: Tone::Fourth },
        Arm { name: "none", label: "no norm, He's weights", tone: Tone::Plain },
        Arm { name: "none_high", label: "no norm, weights 5% larger", tone: Tone::Second },
        Arm { name: "ln_low", label: "layer norm, weights 5% smaller", tone: Tone::Layer },
        Arm { name: "ln", label: "layer norm, He's weights", tone: Tone::Layer },
        Arm { name: "ln_high", label: "layer norm, weights 5% larger", tone: Tone::Layer },
        Arm { name: "rms", label: "RMS norm, He's weights", tone: Tone::Rms },
        Arm { name: "bn", label: "batch norm, He's weights", tone: Tone::Batch },
        Arm { name: "length_ln", label: "layer norm", tone: Tone::Layer },
        Arm { name: "length_bn", label: "batch norm by time step", tone: Tone::Batch },
        Arm { name: "single_ln", label: "layer norm, batches of one", tone: Tone::Layer },
        Arm { name: "single_bn", label: "batch norm by time step, batches of one", tone: Tone::Batch },
        Arm { name: "gain_bn_low", label: "batch norm, gain 0.1", tone: Tone::Batch },
        Arm { name: "gain_bn_one", label: "batch norm, gain 1", tone: Tone::Fourth },
        Arm { name: "gain_ln_low", label: "layer norm, gain 0.1", tone: Tone::Third },
        Arm { name: "gain_ln_one", label: "layer norm, gain 1", tone: Tone::Layer },
    ],
    claims: &[
        Claim {
            id: "R1",
            says: "Without normalization the summed inputs of a recurrent network grow or shrink with every time step.",
            source: PAPER,
            measure: "decades between their largest and smallest size after the first ten steps, with weights 5% smaller \
                      or larger than He's, whichever drifts less",
            effect: |seed| least(seed, &["none_low", "none_high"], &["time"]),
            unit: "decades over time",
            rule: Rule::Exceeds(3.0),
        },
        Claim {
            id: "R1",
            says: "With layer norm the summed inputs of a recurrent network keep their size over time.",
            source: PAPER,
            measure: "decades between their largest and smallest size after the first ten steps, with He's weights or 5% \
                      smaller or larger ones, whichever drifts most",
            effect: |seed| most(seed, &["ln_low", "ln", "ln_high"], &["time"]),
            unit: "decades over time",
            rule: Rule::Within(0.3),
        },
        Claim {
            id: "D1",
            says: "Without normalization the size of activations drifts over layers, and that of gradients too.",
            source: "folklore of textbooks",
            measure: "decades between the largest and smallest size over the layers, of summed inputs or of gradients, with \
                      weights 5% smaller or larger than He's, whichever drifts least",
            effect: |seed| least(seed, &["none_low", "none_high"], &["depth", "depth back"]),
            unit: "decades over depth",
            rule: Rule::Exceeds(1.0),
        },
        Claim {
            id: "D1",
            says: "With layer norm neither activations nor gradients drift over layers.",
            source: "folklore of textbooks",
            measure: "decades between the largest and smallest size over the layers, of summed inputs or of gradients, with \
                      He's weights or 5% smaller or larger ones, whichever drifts most",
            effect: |seed| most(seed, &["ln_low", "ln", "ln_high"], &["depth", "depth back"]),
            unit: "decades over depth",
            rule: Rule::Within(0.5),
        },
        Claim {
            id: "R2",
            says: "Batch norm's statistics of late time steps, which few sequences reach, are noisier than those of early \
                   ones.",
            source: PAPER,
            measure: "how far the kept variances of the last 4 steps are off those of many sequences, over the same for \
                      steps 2 to 5",
            effect: |seed| {
                let off = |from: usize| mean(seed.curve("length_bn", "off"), from..from + 4);
                off(LONGEST - 4) / off(1)
            },
            unit: "times as far off",
            rule: Rule::Exceeds(1.5),
        },
        Claim {
            id: "R2",
            says: "Beyond the training length batch norm's statistics have no meaning; layer norm needs none.",
            source: PAPER,
            measure: "accuracy after 60 steps less that after 20, the longest length in training: layer norm's gain less \
                      that of batch norm by time step",
            effect: |seed| {
                let gained = |arm: &str| {
                    seed.at(arm, "accuracy", BEYOND as f64) - seed.at(arm, "accuracy", LONGEST as f64)
                };
                gained("length_ln") - gained("length_bn")
            },
            unit: "points of accuracy",
            rule: Rule::Exceeds(2.0),
        },
        Claim {
            id: "R2",
            says: "Layer norm learns from batches of one, where batch norm fails.",
            source: PAPER,
            measure: "accuracy after 20 steps, trained on one sequence at a time: layer norm less batch norm, which can't be \
                      trained so and stays as it began",
            effect: |seed| {
                let accuracy = |arm: &str| seed.at(arm, "accuracy", LONGEST as f64);
                accuracy("single_ln") - accuracy("single_bn")
            },
            unit: "points of accuracy",
            rule: Rule::Exceeds(10.0),
        },
        Claim {
            id: "R3",
            says: "Recurrent batch norm needs small first gains: 0.1 learns faster than 1.",
            source: COOIJMANS,
            measure: "mean training loss of an LSTM at gain 1 less that at gain 0.1",
            effect: |seed| seed.value("gain_bn_one", "mean loss") - seed.value("gain_bn_low", "mean loss"),
            unit: "nats",
            rule: Rule::Exceeds(0.02),
        },
        Claim {
            id: "R3",
            says: "Layer norm works with a first gain of 1, and better so than with 0.1.",
            source: COOIJMANS,
            measure: "mean training loss of an LSTM at gain 0.1 less that at gain 1",
            effect: |seed| seed.value("gain_ln_low", "mean loss") - seed.value("gain_ln_one", "mean loss"),
            unit: "nats",
            rule: Rule::Exceeds(0.02),
        },
    ],
    takes: ["a quarter of a minute", "five minutes", "an hour"],
    seeds: [5, 10, 20],
    real_data: false,
};

/// What an arm does.
#[derive(Clone, Copy)]
enum Work {
    /// A signal through steps and layers, with weights of this scale.
    Scale(NormKind, f64),
    /// Collects evidence, trained on batches of this size.
    Length(NormKind, usize),
    /// Remembers a symbol, from this first gain.
    Gain(NormKind, f64),
}

/// The work of each arm, in the card's order.
const WORK: [Work; 16] = [
    Work::Scale(NormKind::None, 0.95),
    Work::Scale(NormKind::None, 1.0),
    Work::Scale(NormKind::None, 1.05),
    Work::Scale(NormKind::Layer, 0.95),
    Work::Scale(NormKind::Layer, 1.0),
    Work::Scale(NormKind::Layer, 1.05),
    Work::Scale(NormKind::Rms, 1.0),
    Work::Scale(NormKind::Batch, 1.0),
    Work::Length(NormKind::Layer, 32),
    Work::Length(NormKind::Batch, 32),
    Work::Length(NormKind::Layer, 1),
    Work::Length(NormKind::Batch, 1),
    Work::Gain(NormKind::Batch, 0.1),
    Work::Gain(NormKind::Batch, 1.0),
    Work::Gain(NormKind::Layer, 0.1),
    Work::Gain(NormKind::Layer, 1.0),
];

/// Steps in time that are left out of its drift: the random first state is no state of the network's own.
const SETTLING: usize = 10;
/// Updates whose mean loss is a point of the picture.
const SPAN: usize = 5;

/// What a budget buys.
#[derive(Clone, Copy, Debug)]
struct Size {
    time: usize,
    depth: usize,
    evidence: usize,
    recall: usize,
    tests: usize,
}

impl Study for Drift {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let quick = Size { time: 1000, depth: 100, evidence: 150, recall: 100, tests: 1000 };
        let standard = Size { evidence: 600, recall: 400, tests: 4000, ..quick };
        let full = Size { evidence: 3000, recall: 2000, tests: 10_000, ..quick };
        let tiny = Size { time: 20, depth: 6, evidence: 2, recall: 2, tests: 8 };
        Ok(Box::new(DriftPlan { size: request.budget.pick([quick, standard, full], tiny) }))
    }
}

struct DriftPlan {
    size: Size,
}

impl Plan for DriftPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        let Size { time, depth, evidence, recall, tests } = self.size;
        settings([
            ("drift", format!("{time} time steps, {depth} layers, eps {EPSILON:e}")),
            ("evidence", format!("{evidence} updates, Adam at {}, {tests} test sequences", length::RATE)),
            ("recall", format!("{recall} updates of {} steps, Adam at {}", gain::STEPS, gain::RATE)),
        ])
    }

    fn ticks(&self, arm: usize) -> u64 {
        self.count(arm) as u64
    }

    fn unit(&self, arm: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        let rng = |index| Rng::new(seed, Purpose::Study(CARD.name), index);
        let count = self.count(arm);
        Ok(match WORK[arm] {
            Work::Scale(kind, scale) => self.signal(kind, scale, rng(0)),
            Work::Length(kind, batch) => {
                self.evidence(Evidence::new(kind, batch, seed, rng(1)), count, rng(2))
            }
            Work::Gain(kind, gain) => {
                let mut recall = Recall::new(kind, gain, seed, rng(3));
                let mut sum = 0.0;
                steps(count, move |update, measured| {
                    let loss = recall.update();
                    sum += loss;
                    measured.add("mean loss", loss / count as f64);
                    if (update + 1) % SPAN == 0 {
                        measured.point("loss", update as f64 + 1.0, std::mem::take(&mut sum) / SPAN as f64);
                    }
                })
            }
        })
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        let scale = |arm: &Arm| !["length", "single", "gain"].iter().any(|task| arm.name.starts_with(task));
        let with = |prefix: &'static str| move |arm: &Arm| arm.name.starts_with(prefix);
        let chart =
            |title: &str, caption: &str, axes: [Axis; 2], curve: &str, arms: &dyn Fn(&Arm) -> bool| {
                let [x, y] = axes;
                let series = CARD.arms.iter().filter(|arm| arms(arm)).map(|arm| all.series(arm, curve, 1.0));
                Figure::Lines(LineChart {
                    title: title.to_owned(),
                    caption: caption.to_owned(),
                    x,
                    y,
                    series: series.collect(),
                })
            };
        vec![
            chart(
                "Size of the summed inputs over time",
                "One signal goes round in a recurrent network of ReLUs, with no further input. Five per cent more or less \
                 in the weights, and without a norm it is gone or beyond all numbers after a thousand steps. With layer \
                 norm all three lie on each other. The scale counts powers of ten: 0 is a size of 1, 10 is ten thousand \
                 million. Bands reach from the lowest to the highest seed.",
                [Axis::linear("time step"), Axis::linear("root mean square, as a power of ten")],
                "time",
                &scale,
            ),
            chart(
                "The gradient on its way back in time",
                "Of the last state by the summed inputs of each step; read from right to left. Layer norm makes no promise \
                 here: where every step has the same weights, the gradient may still vanish or explode.",
                [Axis::linear("time step"), Axis::linear("root mean square, as a power of ten")],
                "time back",
                &scale,
            ),
            chart(
                "Size of the summed inputs over layers",
                "The same through layers with weights of their own. With He's weights the signal lives without a norm too, \
                 as long as nothing trains them away from there.",
                [Axis::linear("layer"), Axis::linear("root mean square, as a power of ten")],
                "depth",
                &scale,
            ),
            chart(
                "The gradient on its way back through the layers",
                "Read from right to left: the gradient starts at the last layer. Batch norm keeps the signal, and blows the \
                 gradient up.",
                [Axis::linear("layer"), Axis::linear("root mean square, as a power of ten")],
                "depth back",
                &scale,
            ),
            chart(
                "Accuracy after each step, trained on up to 20",
                "A network collects evidence: more steps make the answer surer. Batch norm takes the running statistics of \
                 each step, and from step 20 on those of the last.",
                [Axis::linear("time step"), Axis::linear("right answers, %")],
                "accuracy",
                &with("length"),
            ),
            chart(
                "How far batch norm's kept variances are off",
                "Against those of many whole sequences with the same weights: |ln(kept / of the many)|, the mean over \
                 units. Training ended at step 20.",
                [Axis::linear("time step"), Axis::linear("off by")],
                "off",
                &with("length_bn"),
            ),
            chart(
                "First gains of 0.1 and of 1",
                "An LSTM must remember the symbol of its first step. Chance is ln 4, about 1.39.",
                [Axis::linear("updates"), Axis::linear("training loss")],
                "loss",
                &with("gain"),
            ),
            Figure::Table(single(all)),
        ]
    }

    fn notes(&self) -> Vec<String> {
        [
            "The networks of the drift are not trained: the norm stands before a ReLU, with gain 1 and bias 0. (Tanh would \
             keep a signal bounded without a norm.)",
            "Batch norm refuses to train on a batch of one, here as in PyTorch: its variance would be 0. Its network then \
             stays as it began.",
            "In recurrent batch norm's task the first hidden state is noise of size 0.1, as in its authors' code: without \
             it the first step's statistics are 0. The paper's own comparison of gains is on a reading task of hours; this \
             one takes seconds.",
            "Chosen after a first look: 256 units for the drift, as with 96 chance hid it, and the length and the updates of \
             the gains' task, in which layer norm had hardly begun to learn. No rule was changed.",
        ]
        .map(str::to_owned)
        .into()
    }
}

impl DriftPlan {
    /// Steps of a unit.
    fn count(&self, arm: usize) -> usize {
        match WORK[arm] {
            Work::Scale(..) => 2,
            // The last step measures.
            Work::Length(..) => self.size.evidence + 1,
            Work::Gain(..) => self.size.recall,
        }
    }

    fn signal(&self, kind: NormKind, scale: f64, mut rng: Rng) -> Box<dyn Unit + '_> {
        let norm = NormConfig::new(kind).with_epsilon(EPSILON);
        let ways = [("time", Way::Time, self.size.time, SETTLING), ("depth", Way::Depth, self.size.depth, 0)];
        steps(ways.len(), move |step, measured| {
            let (name, way, count, settling) = ways[step];
            let sizes = sizes(way, &norm, scale, count, &mut rng);
            for (name, sizes) in [(name.to_owned(), sizes.forward), (format!("{name} back"), sizes.backward)]
            {
                let drift = decades(sizes.iter().skip(settling).copied());
                measured.set(&format!("drift: {name}"), drift);
                let stride = count.div_ceil(100);
                for (index, size) in sizes.iter().enumerate().filter(|(index, _)| (index + 1) % stride == 0) {
                    measured.point(&name, index as f64 + 1.0, scale::power_of_ten(*size));
                }
            }
        })
    }

    fn evidence(&self, mut evidence: Evidence, count: usize, mut tests: Rng) -> Box<dyn Unit + '_> {
        steps(count, move |step, measured| {
            if step + 1 < count {
                evidence.update();
                return;
            }
            let accuracy = evidence.accuracy(self.size.tests, &mut tests);
            let off = evidence.off(self.size.tests, &mut tests);
            for (name, curve) in [("accuracy", accuracy), ("off", off)] {
                for (t, value) in curve.into_iter().enumerate() {
                    measured.point(name, t as f64 + 1.0, value);
                }
            }
        })
    }
}

/// The drift of these arms and curves that is smallest.
fn least(seed: &Seed<'_>, arms: &[&str], curves: &[&str]) -> f64 {
    drifts(seed, arms, curves).into_iter().fold(f64::INFINITY, f64::min)
}

/// The drift of these arms and curves that is largest.
fn most(seed: &Seed<'_>, arms: &[&str], curves: &[&str]) -> f64 {
    drifts(seed, arms, curves).into_iter().fold(0.0, f64::max)
}

fn drifts(seed: &Seed<'_>, arms: &[&str], curves: &[&str]) -> Vec<f64> {
    let of = |arm: &&str| curves.iter().map(|curve| seed.value(arm, &format!("drift: {curve}"))).collect();
    arms.iter().flat_map(|arm| -> Vec<f64> { of(arm) }).collect()
}

/// The mean over these points of a curve; NaN if there are none.
fn mean(curve: &[[f64; 2]], points: std::ops::Range<usize>) -> f64 {
    let points = curve.get(points).unwrap_or_default();
    points.iter().map(|point| point[1]).sum::<f64>() / points.len() as f64
}

/// Accuracy after training on batches of 32 and of one.
fn single(all: &Results) -> Table {
    let accuracy = |arm: &str| {
        let values: Vec<f64> = all.seeds().map(|seed| seed.at(arm, "accuracy", LONGEST as f64)).collect();
        crate::report::number::spread(&values, 1)
    };
    let row = |label: &str, arms: [&str; 2]| vec![label.to_owned(), accuracy(arms[0]), accuracy(arms[1])];
    Table::new(
        "Batches of one",
        "Right answers after 20 steps, in per cent, after the same number of updates. Chance is 25%.",
        &["method", "trained on batches of 32", "trained on one at a time"],
        vec![
            row("layer norm", ["length_ln", "single_ln"]),
            row("batch norm by time step", ["length_bn", "single_bn"]),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_named_after_what_they_do() {
        for (arm, work) in CARD.arms.iter().zip(WORK) {
            let prefix = match work {
                Work::Scale(NormKind::None, _) => "none",
                Work::Scale(NormKind::Layer, _) => "ln",
                Work::Scale(NormKind::Rms, _) => "rms",
                Work::Scale(..) => "bn",
                Work::Length(_, 1) => "single",
                Work::Length(..) => "length",
                Work::Gain(NormKind::Batch, _) => "gain_bn",
                Work::Gain(..) => "gain_ln",
            };
            assert!(arm.name.starts_with(prefix), "{}", arm.name);
        }
        assert_eq!(CARD.arms.len(), WORK.len());
    }

    #[test]
    fn means_are_of_the_points_that_are_named() {
        let curve = [[1.0, 1.0], [2.0, 3.0], [3.0, 5.0]];
        assert_eq!(mean(&curve, 1..3), 4.0);
        assert!(mean(&curve, 3..5).is_nan());
    }
}
