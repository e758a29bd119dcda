//! What layer norm is not: a regulariser, a part for every architecture, something to mix with batch norm.

mod network;

use std::collections::BTreeMap;

use crate::data::{self, Split};
use crate::report::model::{Axis, Cell, Figure, LineChart, Matrix, MatrixRow, Tone};
use crate::study::{
    Arm, Card, Claim, Error, Plan, Request, Results, Rule, Seed, Study, Unit, settings, steps,
};
use network::{Learner, Norms, Recipe, Remedy};

/// The study.
#[derive(Debug)]
pub struct NotFor;

const FOLKLORE: &str = "folklore of textbooks";

static CARD: Card = Card {
    name: "not-for",
    title: "What it is not for",
    question: "Batch norm's noise is said to keep a network from learning its pictures by heart. Layer norm has no such \
               noise: does it need other remedies, do they help, and what happens where it is used without a thought?",
    metric: "error on training and test pictures at the end, in inference mode; their difference is the gap",
    arms: &[
        Arm { name: "ln", label: "layer norm", tone: Tone::Layer },
        Arm { name: "bn", label: "batch norm", tone: Tone::Batch },
        Arm { name: "none", label: "no norm", tone: Tone::Plain },
        Arm { name: "dropout", label: "layer norm, dropout", tone: Tone::First },
        Arm { name: "decay", label: "layer norm, weight decay", tone: Tone::Second },
        Arm { name: "shift", label: "layer norm, shifted pictures", tone: Tone::Third },
        Arm { name: "smooth", label: "layer norm, label smoothing", tone: Tone::Fourth },
        Arm { name: "both", label: "batch norm, then layer norm", tone: Tone::Fifth },
        Arm { name: "turns", label: "batch norm and layer norm by turns", tone: Tone::Group },
        Arm { name: "narrow_ln", label: "bottleneck of 2, layer norm", tone: Tone::Layer },
        Arm { name: "narrow_none", label: "bottleneck of 2, no norm", tone: Tone::Plain },
    ],
    claims: &[
        Claim {
            id: "N1",
            says: "Batch norm regularises, layer norm doesn't: its gap between training and test is smaller.",
            source: FOLKLORE,
            measure: "gap with layer norm less that with batch norm, in batches of 32",
            effect: |seed| gap(seed, "ln") - gap(seed, "bn"),
            unit: "points of error",
            rule: Rule::Exceeds(0.5),
        },
        Claim {
            id: "N1",
            says: "With layer norm, dropout, weight decay, augmentation and label smoothing still help.",
            source: FOLKLORE,
            measure: "test error with layer norm alone, less the mean over layer norm with each of the four remedies",
            effect: |seed| {
                let helped = ["dropout", "decay", "shift", "smooth"].map(|arm| seed.value(arm, "test error"));
                seed.value("ln", "test error") - helped.iter().sum::<f64>() / 4.0
            },
            unit: "points of test error",
            rule: Rule::Exceeds(0.0),
        },
        Claim {
            id: "N3",
            says: "It is not to be put blindly into any architecture: in a layer of two units it leaves one bit.",
            source: FOLKLORE,
            measure: "test error of a network with a bottleneck of two units with layer norm, less that without",
            effect: |seed| seed.value("narrow_ln", "test error") - seed.value("narrow_none", "test error"),
            unit: "points of test error",
            rule: Rule::Exceeds(5.0),
        },
        Claim {
            id: "N4",
            says: "Mixing batch norm and layer norm without a reason goes wrong.",
            source: FOLKLORE,
            measure: "mean test error of two mixtures less that of the better of the two alone",
            effect: |seed| {
                let error = |arm| seed.value(arm, "test error");
                (error("both") + error("turns")) / 2.0 - error("ln").min(error("bn"))
            },
            unit: "points of test error",
            rule: Rule::Exceeds(0.5),
        },
    ],
    takes: ["20 seconds", "5 minutes", "an hour"],
    seeds: [10, 10, 5],
    real_data: true,
};

/// The work of each arm, in the card's order.
const RECIPES: [Recipe; 11] = [
    Recipe { norms: Norms::Layer, remedy: Remedy::None, narrow: false },
    Recipe { norms: Norms::Batch, remedy: Remedy::None, narrow: false },
    Recipe { norms: Norms::None, remedy: Remedy::None, narrow: false },
    Recipe { norms: Norms::Layer, remedy: Remedy::Dropout, narrow: false },
    Recipe { norms: Norms::Layer, remedy: Remedy::WeightDecay, narrow: false },
    Recipe { norms: Norms::Layer, remedy: Remedy::Shifts, narrow: false },
    Recipe { norms: Norms::Layer, remedy: Remedy::LabelSmoothing, narrow: false },
    Recipe { norms: Norms::Both, remedy: Remedy::None, narrow: false },
    Recipe { norms: Norms::Turns, remedy: Remedy::None, narrow: false },
    Recipe { norms: Norms::Layer, remedy: Remedy::None, narrow: true },
    Recipe { norms: Norms::None, remedy: Remedy::None, narrow: true },
];

/// The gap of an arm, in points.
fn gap(seed: &Seed<'_>, arm: &str) -> f64 {
    seed.value(arm, "test error") - seed.value(arm, "train error")
}

impl Study for NotFor {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let train = request.budget.pick([512, 2048, 10_000], 64);
        let test = request.budget.pick([1000, 4000, 10_000], 50);
        let epochs = request.budget.pick([16, 40, 60], 2);
        Ok(Box::new(NotForPlan { epochs, data: data::digits(request.data.as_deref(), train, test)? }))
    }
}

struct NotForPlan {
    epochs: usize,
    data: Split,
}

impl Plan for NotForPlan {
    fn settings(&self) -> BTreeMap<String, String> {
        settings([
            ("data", self.data.source.clone()),
            ("epochs", self.epochs.to_string()),
            ("network", network::SHAPE.to_owned()),
            ("remedies", network::REMEDIES.to_owned()),
        ])
    }

    fn ticks(&self, _: usize) -> u64 {
        self.epochs as u64
    }

    fn unit(&self, arm: usize, seed: u64, _: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        let mut learner = Learner::new(RECIPES[arm], &self.data, seed);
        Ok(steps(self.epochs, move |epoch, measured| learner.epoch(epoch, measured)))
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        let curves = LineChart {
            title: "Error on test pictures".to_owned(),
            caption: "Lines are means over seeds, bands reach from the lowest to the highest seed."
                .to_owned(),
            x: Axis::linear("epochs"),
            y: Axis::log("test error, %"),
            series: CARD.arms[..7].iter().map(|arm| all.series(arm, "test error", 1.0)).collect(),
        };
        vec![Figure::Matrix(errors(all)), Figure::Lines(curves)]
    }

    fn notes(&self) -> Vec<String> {
        [
            "All arms of a seed start from the same weights and see the pictures in the same order. The norm stands before \
             each ReLU of the hidden layers.",
            "Of two units layer norm makes plus and minus the same number, whatever they were, so only the sign of their \
             difference goes on.",
            "Chosen after a first look: ten seeds for five. No rule was changed.",
        ]
        .map(str::to_owned)
        .into()
    }
}

/// Training and test error and the gap between them.
fn errors(all: &Results) -> Matrix {
    let row = |arm: &Arm| {
        let [train, test] = ["train error", "test error"].map(|name| all.mean(arm.name, name));
        // From none, cool, to a quarter wrong, warm.
        let cell = |error: f64| Cell::new(format!("{error:.1}"), 1.0 - 2.0 * (error / 25.0).min(1.0));
        MatrixRow::new(arm.label, vec![cell(train), cell(test), cell(test - train)])
    };
    Matrix::new(
        "What is learnt by heart",
        "Error in per cent at the end, and the gap: what a network knows of the pictures that it has seen and not of \
         others. Blue is none, orange a quarter and more.",
        &["training", "test", "gap"],
        CARD.arms.iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_arm_has_its_recipe() {
        for (arm, recipe) in CARD.arms.iter().zip(RECIPES) {
            assert_eq!(arm.name.starts_with("narrow"), recipe.narrow, "{}", arm.name);
            assert_eq!(arm.label.contains("layer norm"), !matches!(recipe.norms, Norms::Batch | Norms::None));
        }
        assert_eq!(CARD.arms.len(), RECIPES.len());
    }
}
