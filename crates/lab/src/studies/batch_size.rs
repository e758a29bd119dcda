//! The network for MNIST, smaller, at batches of 1 to 128.

use std::collections::BTreeMap;

use super::mnist::late;
use crate::data::{self, Split};
use crate::models::mlp::MlpShape;
use crate::models::norm::NormKind;
use crate::models::train::{Recipe, Training};
use crate::report::model::{Axis, Cell, Figure, LineChart, Matrix, MatrixRow, Tone};
use crate::study::{Arm, Card, Claim, Error, Plan, Request, Results, Rule, Study, Unit, settings};

/// The study.
#[derive(Debug)]
pub struct BatchSize;

const LN: (&str, Tone) = ("layer norm", Tone::Layer);
const BN: (&str, Tone) = ("batch norm", Tone::Batch);
const NONE: (&str, Tone) = ("no norm", Tone::Plain);

const fn arm(name: &'static str, (label, tone): (&'static str, Tone)) -> Arm {
    Arm { name, label, tone }
}

static CARD: Card = Card {
    name: "batch-size",
    title: "Down to a batch of one",
    question: "Batch norm takes its statistics from the batch; layer norm doesn't look at it. What happens to each when \
               batches shrink to a single picture?",
    metric: "error on test pictures after the same number of epochs, the mean over the second half of the run",
    arms: &[
        arm("ln_1", LN),
        arm("ln_2", LN),
        arm("ln_4", LN),
        arm("ln_16", LN),
        arm("ln_128", LN),
        arm("bn_1", BN),
        arm("bn_2", BN),
        arm("bn_4", BN),
        arm("bn_16", BN),
        arm("bn_128", BN),
        arm("none_1", NONE),
        arm("none_2", NONE),
        arm("none_4", NONE),
        arm("none_16", NONE),
        arm("none_128", NONE),
    ],
    claims: &[
        Claim {
            id: "C1",
            says: "With layer norm a network learns from batches of one; with batch norm it can't.",
            source: "Ba, Kiros, Hinton 2016, sections 1 and 6.6",
            measure: "test error of batch norm at batch 1 less that of layer norm",
            effect: |seed| late(seed, "bn_1") - late(seed, "ln_1"),
            unit: "points of test error",
            rule: Rule::Exceeds(10.0),
        },
        Claim {
            id: "C1",
            says: "From batch 128 to batch 2, batch norm loses more than layer norm.",
            source: "Ba, Kiros, Hinton 2016, section 6.6",
            measure: "how much more test error batch norm gains from batch 128 to batch 2 than layer norm does",
            effect: |seed| {
                (late(seed, "bn_2") - late(seed, "bn_128")) - (late(seed, "ln_2") - late(seed, "ln_128"))
            },
            unit: "points of test error",
            rule: Rule::Exceeds(0.1),
        },
        Claim {
            id: "C1",
            says: "With layer norm, batches of one are as good as batches of 128, or better.",
            source: "Ba, Kiros, Hinton 2016, section 6.6",
            measure: "test error of layer norm at batch 128 less that at batch 1, after the same number of epochs",
            effect: |seed| late(seed, "ln_128") - late(seed, "ln_1"),
            unit: "points of test error",
            rule: Rule::Exceeds(-2.0),
        },
    ],
    takes: ["15 seconds", "10 minutes", "5 hours"],
    seeds: [5, 5, 3],
    real_data: true,
};

const NORMS: [NormKind; 3] = [NormKind::Layer, NormKind::Batch, NormKind::Plain];
const BATCHES: [usize; 5] = [1, 2, 4, 16, 128];

/// What a budget buys.
#[derive(Clone, Copy)]
struct Size {
    train: usize,
    test: usize,
    epochs: u64,
    hidden: usize,
}

impl Study for BatchSize {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn plan(&self, request: &Request) -> Result<Box<dyn Plan>, Error> {
        let quick = Size { train: 768, test: 500, epochs: 4, hidden: 64 };
        let standard = Size { train: 4096, test: 2000, epochs: 6, hidden: 100 };
        let full = Size { train: 55_000, test: 10_000, epochs: 10, hidden: 100 };
        let tiny = Size { train: 128, test: 50, epochs: 1, hidden: 8 };
        let size = request.budget.pick([quick, standard, full], tiny);
        let data = data::digits(request.data.as_deref(), size.train, size.test)?;
        Ok(Box::new(BatchSizePlan { size, data }))
    }
}

struct BatchSizePlan {
    size: Size,
    data: Split,
}

impl BatchSizePlan {
    fn recipe(&self, arm: usize) -> Recipe {
        let (norm, batch) = (NORMS[arm / BATCHES.len()], BATCHES[arm % BATCHES.len()]);
        let Size { epochs, hidden, .. } = self.size;
        let shape = MlpShape { widths: vec![self.data.train.size(), hidden, hidden, 10], norm };
        Recipe { shape, batch, epochs, rate: 1e-3, spans: 40, tests: 8, ticks: 8 + batch as u64 / 16 }
    }
}

impl Plan for BatchSizePlan {
    fn settings(&self) -> BTreeMap<String, String> {
        let Size { epochs, hidden, .. } = self.size;
        settings([
            ("data", self.data.source.clone()),
            ("epochs", epochs.to_string()),
            ("network", format!("784-{hidden}-{hidden}-10, ReLU")),
            ("optimizer", "Adam, rate 1e-3".to_owned()),
        ])
    }

    fn ticks(&self, arm: usize) -> u64 {
        let recipe = self.recipe(arm);
        recipe.updates(self.data.train.len()) * recipe.ticks
    }

    fn unit(&self, arm: usize, seed: u64, saved: Option<&[u8]>) -> Result<Box<dyn Unit + '_>, Error> {
        Ok(Box::new(Training::new(self.recipe(arm), &self.data, seed, saved)?))
    }

    fn figures(&self, all: &Results) -> Vec<Figure> {
        let line = |arms: &[Arm]| {
            let points: Vec<(f64, &str)> =
                BATCHES.iter().zip(arms).map(|(&batch, arm)| (batch as f64, arm.name)).collect();
            all.sweep(arms[0].label, arms[0].tone, &points, late)
        };
        let lines = LineChart {
            title: "Test error over the batch size".to_owned(),
            caption: "After the same number of epochs, so a batch of one has had 128 times as many updates as one of 128. \
                      Lines are means over seeds, bands reach from the lowest to the highest seed. At a batch of one \
                      batch norm's output is its bias, whatever the picture: that is guessing."
                .to_owned(),
            x: Axis::log("batch size"),
            y: Axis::log("test error, %"),
            series: CARD.arms.chunks(BATCHES.len()).map(line).collect(),
        };
        vec![Figure::Lines(lines), Figure::Matrix(errors(all))]
    }

    fn notes(&self) -> Vec<String> {
        [
            "Layer norm is on the hidden layers, batch norm on all layers, the softmax's too, as in the paper.",
            "On a batch of one PyTorch refuses to train with batch norm. Here it goes on, with the bias as its output, as \
             it does in Burn and TensorFlow.",
            "All arms of a seed start from the same weights and see the samples in the same order; the rate is the same \
             at all batch sizes.",
        ]
        .map(str::to_owned)
        .into()
    }
}

/// The errors in numbers.
fn errors(all: &Results) -> Matrix {
    let mean = |arm: &Arm| {
        let values: Vec<f64> = all.seeds().map(|seed| late(&seed, arm.name)).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let best = CARD.arms.iter().map(mean).fold(f64::INFINITY, f64::min);
    // From the best, cool, to ten times its error, warm.
    let cell = |arm: &Arm| Cell::new(format!("{:.1}", mean(arm)), 1.0 - 2.0 * (mean(arm) / best).log10());
    let row = |arms: &[Arm]| MatrixRow::new(arms[0].label, arms.iter().map(cell).collect());
    Matrix::new(
        "Test error, %",
        "Blue is as low as the best of all, orange ten times as high.",
        &["batch 1", "2", "4", "16", "128"],
        CARD.arms.chunks(BATCHES.len()).map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_named_after_what_they_are() {
        let keys =
            ["ln", "bn", "none"].iter().flat_map(|norm| BATCHES.map(|batch| format!("{norm}_{batch}")));
        assert_eq!(
            CARD.arms.iter().map(|arm| arm.name.to_owned()).collect::<Vec<_>>(),
            keys.collect::<Vec<_>>()
        );
        assert_eq!(CARD.arms.len(), NORMS.len() * BATCHES.len());
    }
}
